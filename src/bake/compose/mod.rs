//! Compose files: every service with a `build` is a target.
//!
//! Of a service only `image`, `build`, `environment`, `env_file` and `extends` are read. [`Reader`]
//! merges the files; here their services become targets.
//! Source: <https://github.com/compose-spec/compose-spec/blob/main/build.md>.

mod reader;
mod service;
mod variables;
mod yaml;

use std::collections::{BTreeMap, HashMap};

use super::{
    Inputs, Warning,
    entries::{AttestEntry, CacheEntry, Entry, OutputEntry, SecretEntry, SshEntry},
    error::{Fault, Place, Problem},
    functions::clean,
    resolve::is_remote,
    target::{Group, Target, Texts, distinct, merge_entries},
};
use reader::{Model, Reader, Secret};
use service::Service;
use yaml::{Kind, Node};

/// What compose files define.
#[derive(Default)]
pub(super) struct Composed {
    /// All targets.
    pub(super) group: Group,
    pub(super) targets: Vec<(String, Target)>,
    pub(super) places: HashMap<String, Place>,
    pub(super) warnings: Vec<Warning>,
}

/// Whether a text is a compose file.
pub(super) fn is_compose(text: &str, _: &Inputs<'_>) -> bool {
    let defines = |root: &Node| {
        ["services", "secrets"]
            .iter()
            .any(|key| matches!(root.get(key).map(|node| &node.kind), Some(Kind::Map(_))))
    };
    yaml::read(text, 0).is_ok_and(|roots| roots.iter().any(defines))
}

/// Reads the files with these numbers.
pub(super) fn read(inputs: &Inputs<'_>, numbers: &[usize]) -> Result<Composed, Fault> {
    let mut reader = Reader::new(inputs)?;
    let Model { services, secrets } = reader.files(numbers)?;
    let mut out = Composed::default();
    for (name, service, place) in services {
        let Some(target) = reader
            .target(&service, &secrets)
            .map_err(|f| f.at(&place))?
        else {
            continue;
        };
        let name = name.replace('.', "_");
        out.places.insert(name.clone(), place);
        out.group.targets.push(name.clone());
        out.targets.push((name, target));
    }
    out.warnings = reader.warnings();
    Ok(out)
}

impl Reader<'_> {
    /// The target of a service; none if it isn't built.
    fn target(
        &self,
        service: &Service,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<Option<Target>, Fault> {
        let Some(build) = &service.build else {
            return Ok(None);
        };
        let environment = self.environment(service)?;
        let resolved = |(name, value): (&String, &Option<String>)| {
            let value = value.clone();
            let value = value.or_else(|| environment.get(name).cloned());
            let value = value.or_else(|| self.variable(name));
            value.map(|value| (name.clone(), value))
        };
        let texts = |map: &BTreeMap<String, Option<String>>| -> Texts {
            map.iter()
                .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
                .collect()
        };
        let mut attests = Vec::new();
        for (kind, text) in [("sbom", &build.sbom), ("provenance", &build.provenance)] {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                attests.push(AttestEntry::option(kind, text));
            }
        }
        let mut ssh: Vec<SshEntry> = build
            .ssh
            .iter()
            .map(|(id, path)| SshEntry {
                id: id.clone(),
                paths: path.iter().cloned().collect(),
            })
            .collect();
        ssh.sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
        let mut target = Target {
            context: Some(
                build
                    .context
                    .as_deref()
                    .map_or_else(|| ".".to_owned(), path),
            ),
            contexts: contexts(&texts(&build.contexts)),
            dockerfile: build.dockerfile.clone(),
            dockerfile_inline: build.dockerfile_inline.clone(),
            args: build.args.iter().filter_map(resolved).collect(),
            labels: texts(&build.labels),
            tags: Some(build.tags.clone()).filter(|tags| !tags.is_empty()),
            cache_from: parsed::<CacheEntry>("cache_from", &build.cache_from)?,
            cache_to: parsed::<CacheEntry>("cache_to", &build.cache_to)?,
            network: build.network.clone(),
            target: build.target.clone(),
            shm_size: build.shm_size.clone(),
            ssh: Some(ssh).filter(|ssh| !ssh.is_empty()),
            secrets: used_secrets(build, secrets)?,
            platforms: Some(build.platforms.clone()).filter(|list| !list.is_empty()),
            extra_hosts: build
                .extra_hosts
                .iter()
                .map(|(host, addresses)| (host.clone(), addresses.join(",")))
                .collect(),
            ulimits: match build.ulimits.is_empty() {
                true => None,
                false => Some(
                    build
                        .ulimits
                        .iter()
                        .map(|(name, (soft, hard))| format!("{name}={soft}:{hard}"))
                        .collect(),
                ),
            },
            attest: parsed::<AttestEntry>("attest", &attests)?,
            no_cache: build.no_cache,
            pull: build.pull,
            ..Target::default()
        };
        extend(&mut target, &build.bake)?;
        if target.tags.as_ref().is_none_or(Vec::is_empty) {
            target.tags = service.image.clone().map(|image| vec![image]);
        }
        Ok(Some(target))
    }
}

/// Whether this is no path.
fn is_address(text: &str) -> bool {
    let names = ["target:", "service:"];
    text.contains("://") || is_remote(text) || names.iter().any(|name| text.starts_with(name))
}

/// A path in its shortest form; an address as it is.
fn path(text: &str) -> String {
    match is_address(text) {
        true => text.to_owned(),
        false => clean(text),
    }
}

/// Services as contexts are targets.
fn contexts(map: &Texts) -> Texts {
    map.iter()
        .map(|(name, value)| {
            let linked = value
                .strip_prefix("service:")
                .or_else(|| value.strip_prefix("target:"));
            let value = match linked {
                Some(linked) => format!("target:{}", linked.replace('.', "_")),
                None if value.starts_with("docker-image:") => value.clone(),
                None => path(value),
            };
            (name.clone(), value)
        })
        .collect()
}

fn parsed<E: Entry>(what: &str, list: &[String]) -> Result<Option<Vec<E>>, Fault> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::new();
    for text in list.iter().filter(|text| !text.is_empty()) {
        out.extend(E::parse(text).map_err(|reason| Problem::Attribute {
            attribute: what.to_owned(),
            reason,
        })?);
    }
    Ok(Some(out))
}

fn used_secrets(
    build: &service::Build,
    secrets: &BTreeMap<String, Secret>,
) -> Result<Option<Vec<SecretEntry>>, Fault> {
    let mut out = Vec::new();
    for name in &build.secrets {
        let secret = secrets.get(name).ok_or_else(|| Problem::Compose {
            message: format!("there is no secret `{name}`"),
        })?;
        if secret.external {
            return Err(Problem::Compose {
                message: format!("secret `{name}` is external, which builds can't use"),
            }
            .into());
        }
        out.push(SecretEntry {
            id: name.clone(),
            src: secret.file.as_deref().map(clean).unwrap_or_default(),
            env: secret.environment.clone().unwrap_or_default(),
        });
    }
    Ok(Some(out).filter(|list| !list.is_empty()))
}

/// Adds what `x-bake` says.
fn extend(target: &mut Target, bake: &service::XBake) -> Result<(), Fault> {
    let more = |own: &mut Option<Vec<String>>, list: &[String]| {
        if !list.is_empty() {
            own.get_or_insert_default().extend(list.iter().cloned());
            distinct(own);
        }
    };
    more(&mut target.tags, &bake.tags);
    more(&mut target.platforms, &bake.platforms);
    more(&mut target.no_cache_filter, &bake.no_cache_filter);
    merge_entries(
        &mut target.cache_from,
        &parsed::<CacheEntry>("cache-from", &bake.cache_from)?,
    );
    merge_entries(
        &mut target.cache_to,
        &parsed::<CacheEntry>("cache-to", &bake.cache_to)?,
    );
    merge_entries(
        &mut target.secrets,
        &parsed::<SecretEntry>("secret", &bake.secrets)?,
    );
    merge_entries(&mut target.ssh, &parsed::<SshEntry>("ssh", &bake.ssh)?);
    if let Some(ssh) = &mut target.ssh {
        ssh.sort_by(|a, b| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
    }
    merge_entries(
        &mut target.outputs,
        &parsed::<OutputEntry>("output", &bake.outputs)?,
    );
    target.pull = bake.pull.or(target.pull);
    target.no_cache = bake.no_cache.or(target.no_cache);
    let named: Texts = bake
        .contexts
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
        .collect();
    for (name, value) in contexts(&named) {
        target.contexts.entry(name).or_insert(value);
    }
    Ok(())
}
