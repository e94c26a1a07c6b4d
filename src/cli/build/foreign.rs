//! Options of `docker build` and `docker buildx build` that have no effect here, so that command
//! lines written for those need no change. What would change the result is refused.

use clap::Args;

use crate::{cli::CliError, event::Events};

/// Options that are accepted; each that is given ends in a warning, or in an error where its value
/// asks for something.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct ForeignArgs {
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    #[arg(short, long, hide = true, value_name = "BYTES")]
    memory: Option<String>,
    #[arg(long, hide = true, value_name = "BYTES")]
    memory_swap: Option<String>,
    #[arg(short, long, hide = true, value_name = "N")]
    cpu_shares: Option<String>,
    #[arg(long, hide = true, value_name = "N")]
    cpu_period: Option<String>,
    #[arg(long, hide = true, value_name = "N")]
    cpu_quota: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    isolation: Option<String>,
    #[arg(long, hide = true, value_name = "VALUE")]
    provenance: Option<String>,
    #[arg(long, hide = true, value_name = "VALUE")]
    sbom: Option<String>,
    #[arg(long, hide = true, value_name = "VALUE")]
    attest: Vec<String>,
}

impl ForeignArgs {
    /// Fails for values that ask for what isn't there.
    pub(in crate::cli) fn check(&self) -> Result<(), CliError> {
        if let Some(isolation) = self.isolation.as_deref().filter(|i| *i != "default") {
            return Err(CliError::usage_hint(
                format!("isolation `{isolation}` is not supported"),
                "it is for Windows; steps run in a sandbox of namespaces here, leave it out",
            ));
        }
        let attestations = [("--provenance", &self.provenance), ("--sbom", &self.sbom)];
        for (flag, value) in attestations {
            if let Some(value) = value
                && !is_off(value)
            {
                return Err(no_attestations(&format!("{flag}={value}")));
            }
        }
        match self.attest.iter().find(|a| !a.contains("disabled=true")) {
            Some(value) => Err(no_attestations(&format!("--attest {value}"))),
            None => Ok(()),
        }
    }

    /// Tells of the options that are given and do nothing.
    pub(in crate::cli) fn warn(&self, events: &Events) {
        let memory = [&self.memory, &self.memory_swap];
        let processors = [
            &self.cpu_shares,
            &self.cpu_period,
            &self.cpu_quota,
            &self.cpuset_cpus,
            &self.cpuset_mems,
        ];
        let limits = memory.into_iter().chain(processors);
        for (given, what) in [
            (
                self.builder.is_some(),
                "`--builder`: there is no daemon to choose",
            ),
            (
                self.rm == Some(false),
                "`--rm=false`: a step leaves no container behind",
            ),
            (
                limits.flatten().next().is_some(),
                "limits of memory and processors: steps have those of the job, as with `docker buildx build`",
            ),
            (
                self.disable_content_trust == Some(false),
                "`--disable-content-trust=false`: images are known by digest, signatures are not looked at",
            ),
        ] {
            if given {
                events.warn(format!("no effect: {what}"), None);
            }
        }
    }
}

fn is_off(value: &str) -> bool {
    matches!(value, "false" | "0" | "f" | "F" | "FALSE" | "False")
        || value.contains("disabled=true")
}

fn no_attestations(given: &str) -> CliError {
    CliError::usage_hint(
        format!("`{given}` is not supported: no attestations are made yet"),
        "leave it out, or make an SBOM of the written layout, for instance with `syft oci-dir:DIR`",
    )
}
