//! Compose files: every service with a `build` is a target.
//!
//! Of a service only `image`, `build`, `environment`, `env_file` and `extends` are read. Several
//! files are merged, variables come from the environment and from `.env`.
//! Source: <https://github.com/compose-spec/compose-spec/blob/main/build.md>.

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
use service::{Service, Wrong};
use yaml::{Kind, Node};

/// How many services may extend each other in a row.
const MAX_EXTENDS: usize = 50;

/// What compose files define.
#[derive(Default)]
pub(super) struct Composed {
    /// All targets.
    pub(super) group: Group,
    pub(super) targets: Vec<(String, Target)>,
    pub(super) places: HashMap<String, Place>,
    pub(super) warnings: Vec<Warning>,
}

/// A secret of the top level.
#[derive(Debug, Clone, Default)]
struct Secret {
    file: Option<String>,
    environment: Option<String>,
    external: bool,
}

/// Reads files while it remembers what they needed.
struct Reader<'a> {
    inputs: &'a Inputs<'a>,
    dotenv: BTreeMap<String, String>,
    /// Variables that were not set.
    unset: Vec<String>,
}

/// Whether a text is a compose file.
pub(super) fn is_compose(text: &str, _: &Inputs<'_>) -> bool {
    yaml::read(text, 0).is_ok_and(|root| {
        ["services", "secrets"]
            .iter()
            .any(|key| matches!(root.get(key).map(|node| &node.kind), Some(Kind::Map(_))))
    })
}

/// Reads the files with these numbers.
pub(super) fn read(inputs: &Inputs<'_>, numbers: &[usize]) -> Result<Composed, Fault> {
    let mut reader = Reader {
        inputs,
        dotenv: BTreeMap::new(),
        unset: Vec::new(),
    };
    reader.dotenv = match (inputs.read)(".env").map_err(|m| cannot_read(".env", m))? {
        Some(text) => variables::env_file(&text, &|name| (inputs.env)(name))
            .map_err(|message| cannot_read(".env", message))?,
        None => BTreeMap::new(),
    };
    let mut services: Vec<(String, Service, Place)> = Vec::new();
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    for number in numbers {
        let file = &inputs.files[*number];
        let root = reader.root(&file.text, *number)?;
        let in_file = |wrong: Wrong| located(wrong, &file.text, *number);
        if let Some(node) = root.get("include") {
            let wrong = Wrong::at(node, "`include` is not supported");
            let hint = "name the files, each with a `--bake` of its own".to_owned();
            return Err(in_file(Wrong {
                hint: Some(hint),
                ..wrong
            }));
        }
        if root.get("services").is_none() && root.get("secrets").is_none() {
            let wrong = Wrong::at(
                &root,
                "the compose file has neither `services` nor `secrets`",
            );
            return Err(in_file(wrong));
        }
        for (name, secret) in read_secrets(&root).map_err(in_file)? {
            secrets.insert(name, secret);
        }
        let Some(node) = root
            .get("services")
            .filter(|n| !matches!(n.kind, Kind::Null))
        else {
            continue;
        };
        for (name, _) in service::entries(node).map_err(in_file)? {
            let service = reader
                .service(&root, &name, &mut Vec::new())
                .map_err(in_file)?;
            let place = yaml::place(&file.text, *number, service.line, service.column);
            match services.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, known, _)) => known.merge(service),
                None => services.push((name, service, place)),
            }
        }
    }
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
    out.warnings = reader.unset.iter().map(|name| unset(name)).collect();
    Ok(out)
}

fn unset(name: &str) -> Warning {
    Warning {
        message: format!("variable `{name}` is not set; it is empty"),
        place: None,
        hint: Some(format!("set it, or give a default with `${{{name}:-…}}`")),
    }
}

fn cannot_read(path: &str, message: String) -> Fault {
    Problem::Read {
        path: path.to_owned(),
        message,
    }
    .into()
}

fn located(wrong: Wrong, text: &str, file: usize) -> Fault {
    let problem = Problem::Compose {
        message: wrong.message,
    };
    Fault::from(problem)
        .at(&yaml::place(text, file, wrong.line, wrong.column))
        .hint(wrong.hint)
}

fn read_secrets(root: &Node) -> Result<Vec<(String, Secret)>, Wrong> {
    let Some(node) = root
        .get("secrets")
        .filter(|n| !matches!(n.kind, Kind::Null))
    else {
        return Ok(Vec::new());
    };
    let entries = service::entries(node)?;
    let secret = |(name, node): (String, &Node)| {
        let text = |key| node.get(key).and_then(Node::scalar);
        let secret = Secret {
            file: text("file"),
            environment: text("environment"),
            external: text("external").is_some_and(|external| external == "true"),
        };
        (name, secret)
    };
    Ok(entries.into_iter().map(secret).collect())
}

impl Reader<'_> {
    /// The value of a variable: the environment goes before `.env`.
    fn variable(&self, name: &str) -> Option<String> {
        (self.inputs.env)(name).or_else(|| self.dotenv.get(name).cloned())
    }

    /// A file with its variables replaced.
    fn root(&mut self, text: &str, number: usize) -> Result<Node, Fault> {
        let mut root = yaml::read(text, number)?;
        let mut unset = Vec::new();
        let mut replace = |text: &str| {
            variables::interpolate(text, &mut |name| {
                let value = self.variable(name);
                if value.is_none() && text.contains(&format!("${{{name}}}")) {
                    unset.push(name.to_owned());
                }
                value
            })
        };
        root.map_texts(&mut replace)
            .map_err(|(message, line, column)| {
                let problem = Problem::Compose { message };
                Fault::from(problem).at(&yaml::place(text, number, line, column))
            })?;
        for name in unset {
            if !self.unset.contains(&name) {
                self.unset.push(name);
            }
        }
        Ok(root)
    }

    /// A service with what it extends.
    fn service(
        &mut self,
        root: &Node,
        name: &str,
        path: &mut Vec<String>,
    ) -> Result<Service, Wrong> {
        let services = root.get("services");
        let Some(node) = services.and_then(|services| services.get(name)) else {
            return Err(Wrong::at(
                root,
                format!("there is no service `{name}` to extend"),
            ));
        };
        let own = Service::read(node)?;
        let Some(extends) = node.get("extends") else {
            return Ok(own);
        };
        let base = extends.get("service").and_then(Node::scalar);
        let Some(base) = base.or_else(|| extends.scalar()) else {
            return Err(Wrong::at(extends, "`extends` has no `service`"));
        };
        let file = extends.get("file").and_then(Node::scalar);
        let step = format!("{}:{base}", file.as_deref().unwrap_or_default());
        if path.contains(&step) || path.len() > MAX_EXTENDS {
            return Err(Wrong::at(
                extends,
                format!("service `{name}` extends itself"),
            ));
        }
        path.push(step);
        let mut service = match file {
            None => self.service(root, &base, path)?,
            Some(file) => {
                let text = (self.inputs.read)(&file)
                    .and_then(|text| text.ok_or_else(|| "it does not exist".to_owned()))
                    .map_err(|message| {
                        Wrong::at(extends, format!("can't read `{file}`: {message}"))
                    })?;
                let other = self.root(&text, usize::MAX).map_err(|fault| {
                    Wrong::at(extends, format!("in `{file}`: {}", fault.problem))
                })?;
                let mut service = self.service(&other, &base, path).map_err(|wrong| Wrong {
                    line: extends.line,
                    column: extends.column,
                    ..wrong
                })?;
                // Paths of another file are relative to that file.
                let dir = file.rsplit_once('/').map_or(".", |(dir, _)| dir);
                if let Some(build) = &mut service.build
                    && let Some(context) = &mut build.context
                {
                    *context = joined(dir, context);
                }
                service
            }
        };
        path.pop();
        service.merge(own.clone());
        service.line = own.line;
        service.column = own.column;
        Ok(service)
    }

    /// The variables that a service sets.
    fn environment(&self, service: &Service) -> Result<Texts, Fault> {
        let mut out = Texts::new();
        for (path, required) in &service.env_files {
            let text = (self.inputs.read)(path).map_err(|m| cannot_read(path, m))?;
            match text {
                Some(text) => out.extend(
                    variables::env_file(&text, &|name| self.variable(name))
                        .map_err(|message| cannot_read(path, message))?,
                ),
                None if *required => {
                    return Err(cannot_read(path, "it does not exist".to_owned()));
                }
                None => {}
            }
        }
        for (name, value) in &service.environment {
            let value = value.clone().or_else(|| self.variable(name));
            if let Some(value) = value {
                out.insert(name.clone(), value);
            }
        }
        Ok(out)
    }

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

/// A path in its shortest form; an address as it is.
fn path(text: &str) -> String {
    let special = text.contains("://") || is_remote(text) || text.starts_with("target:");
    match special {
        true => text.to_owned(),
        false => clean(text),
    }
}

/// `path` from `dir`.
fn joined(dir: &str, text: &str) -> String {
    match text.starts_with('/') || path(text) == text && text.contains("://") {
        true => text.to_owned(),
        false => clean(&format!("{dir}/{text}")),
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
