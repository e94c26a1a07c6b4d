//! From compose files to services: variables, `include`, `extends`, and how files are merged.
//!
//! A file is read in the order that the specification gives: variables are replaced, what it
//! includes is read, what it resets (`!reset`, `!override`) is removed from the files before it, its
//! services take over what they extend, and are then merged with those before. Variables come
//! from the environment, then from `.env`.
//! Source: <https://github.com/compose-spec/compose-spec/blob/main/13-merge.md> and
//! <https://github.com/compose-spec/compose-spec/blob/main/14-include.md>.

use std::collections::BTreeMap;

use super::{
    is_address,
    service::{self, Service, Wrong},
    variables,
    yaml::{self, Kind, Node, Path},
};
use crate::bake::{
    Inputs, Warning,
    error::{Fault, Place, Problem},
    functions::clean,
    target::Texts,
};

/// How many services may extend each other in a row, and files include each other.
const MAX_DEPTH: usize = 50;

/// The number of a file that only another one names.
const OTHER: usize = usize::MAX;

/// A file without any of these is none of compose.
const DEFINING: [&str; 3] = ["services", "secrets", "include"];

/// The keys of an element of `include`.
const INCLUDE: [&str; 3] = ["path", "project_directory", "env_file"];

/// How many files may be included: each may name several.
const MAX_INCLUDED: usize = 500;

/// A secret of the top level.
#[derive(Debug, Clone, Default)]
pub(super) struct Secret {
    pub(super) file: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) external: bool,
}

/// What files define.
#[derive(Default)]
pub(super) struct Model {
    /// In the order of the files, with the place to complain about.
    pub(super) services: Vec<(String, Service, Place)>,
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// Reads files while it remembers what they needed.
pub(super) struct Reader<'a> {
    inputs: &'a Inputs<'a>,
    dotenv: Texts,
    /// Variables that were not set.
    unset: Vec<String>,
    /// How many files were included.
    included: usize,
}

/// A file that is being read.
struct Document {
    root: Node,
    /// What it removes from the files before it.
    resets: Vec<Path>,
    /// The directory that its paths start from; empty for the working directory.
    dir: String,
    included: Model,
}

impl Document {
    /// The names of its services, then of those that only its includes have.
    fn names(&self) -> Result<Vec<String>, Wrong> {
        let mut names = Vec::new();
        let services = self.root.get("services");
        if let Some(node) = services.filter(|n| !matches!(n.kind, Kind::Null)) {
            names.extend(service::entries(node)?.into_iter().map(|(name, _)| name));
        }
        for (name, ..) in &self.included.services {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Removes from what the service `name` takes over what the file resets in it.
    fn reset(&self, name: &str, service: &mut Service) {
        for path in &self.resets {
            if let [top, service_name, inside @ ..] = path.as_slice()
                && (top.as_str(), service_name.as_str()) == ("services", name)
            {
                service.remove(inside);
            }
        }
    }
}

impl Model {
    fn service(&self, name: &str) -> Option<&Service> {
        let found = self.services.iter().find(|(known, ..)| known == name);
        found.map(|(_, service, _)| service)
    }

    /// Removes what a later file resets.
    fn reset(&mut self, path: &[String]) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["services"] => self.services.clear(),
            ["services", name] => self.services.retain(|(known, ..)| known != name),
            ["services", name, ..] => {
                let found = self.services.iter_mut().find(|(known, ..)| known == name);
                if let Some((_, service, _)) = found {
                    service.remove(&path[2..]);
                }
            }
            ["secrets"] => self.secrets.clear(),
            ["secrets", name] => drop(self.secrets.remove(*name)),
            ["secrets", name, key] => {
                if let Some(secret) = self.secrets.get_mut(*name) {
                    match *key {
                        "file" => secret.file = None,
                        "environment" => secret.environment = None,
                        "external" => secret.external = false,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds what this doesn't define yet.
    fn add(&mut self, other: Self) {
        for (name, mut service, place) in other.services {
            match self.services.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, known, _)) => {
                    service.merge(std::mem::take(known));
                    *known = service;
                }
                None => self.services.push((name, service, place)),
            }
        }
        for (name, secret) in other.secrets {
            self.secrets.entry(name).or_insert(secret);
        }
    }
}

/// An element of `include`.
struct Include {
    /// One file, and those that change it.
    paths: Vec<String>,
    /// Where paths in them start, from the file that includes.
    dir: String,
    env_files: Vec<String>,
}

impl Include {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let Kind::Map(_) = node.kind else {
            let paths = service::texts(node)?;
            return Self::of(node, paths, None, Vec::new());
        };
        for (key, value) in service::entries(node)? {
            if !INCLUDE.contains(&key.as_str()) {
                return Err(Wrong {
                    hint: Some(format!("known here: {}", INCLUDE.join(", "))),
                    ..Wrong::at(value, format!("`include` has no `{key}`"))
                });
            }
        }
        let texts = |key| node.get(key).map_or(Ok(Vec::new()), service::texts);
        let dir = node.get("project_directory").and_then(Node::scalar);
        Self::of(node, texts("path")?, dir, texts("env_file")?)
    }

    fn of(
        node: &Node,
        paths: Vec<String>,
        dir: Option<String>,
        env_files: Vec<String>,
    ) -> Result<Self, Wrong> {
        let Some(first) = paths.first() else {
            return Err(Wrong::at(node, "an include has no `path`"));
        };
        Ok(Self {
            dir: dir.unwrap_or_else(|| parent(first).to_owned()),
            paths,
            env_files,
        })
    }
}

/// The elements of a list; null has none.
fn items(node: &Node) -> Result<&[Node], Wrong> {
    match &node.kind {
        Kind::List(items) => Ok(items),
        Kind::Null => Ok(&[]),
        _ => Err(Wrong::expected(node, "a list")),
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

/// What is wrong in another file, told where that file is named.
fn nested(fault: Fault, node: &Node, file: &str, text: &str) -> Wrong {
    let place = match fault.place.filter(|place| place.file == OTHER) {
        Some(place) => {
            let (line, column) = place.line_and_column(text);
            format!("{file}:{line}:{column}")
        }
        None => file.to_owned(),
    };
    Wrong {
        hint: fault.hint,
        ..Wrong::at(node, format!("in `{place}`: {}", fault.problem))
    }
}

fn secrets(root: &Node) -> Result<Vec<(String, Secret)>, Wrong> {
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

/// `path` from `dir`; an address as it is.
pub(super) fn joined(dir: &str, path: &str) -> String {
    match (path, dir) {
        (path, _) if path.starts_with('/') || is_address(path) => path.to_owned(),
        (path, "") => clean(path),
        _ => clean(&format!("{dir}/{path}")),
    }
}

/// The directory of a file.
fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(dir, _)| match dir {
        "" => "/",
        dir => dir,
    })
}

impl<'a> Reader<'a> {
    /// Reads `.env`, and nothing else yet.
    pub(super) fn new(inputs: &'a Inputs<'a>) -> Result<Self, Fault> {
        let dotenv = match (inputs.read)(".env").map_err(|m| cannot_read(".env", m))? {
            Some(text) => variables::env_file(&text, &|name| (inputs.env)(name))
                .map_err(|message| cannot_read(".env", message))?,
            None => Texts::new(),
        };
        Ok(Self {
            inputs,
            dotenv,
            unset: Vec::new(),
            included: 0,
        })
    }

    /// Reads the files with these numbers; later ones win.
    pub(super) fn files(&mut self, numbers: &[usize]) -> Result<Model, Fault> {
        let mut model = Model::default();
        for number in numbers {
            let file = &self.inputs.files[*number];
            let mut chain = vec![clean(&file.name)];
            self.add((&file.text, *number), "", &mut chain, &mut model)?;
        }
        Ok(model)
    }

    /// What is odd in the files that were read.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let warning = |name: &String| Warning {
            message: format!("variable `{name}` is not set; it is empty"),
            place: None,
            hint: Some(format!("set it, or give a default with `${{{name}:-…}}`")),
        };
        self.unset.iter().map(warning).collect()
    }

    /// The value of a variable: the environment goes before `.env`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.inputs.env)(name).or_else(|| self.dotenv.get(name).cloned())
    }

    /// The documents of a file with their variables replaced, and without what they reset.
    fn documents(&mut self, text: &str, number: usize, dir: &str) -> Result<Vec<Document>, Fault> {
        let roots = yaml::read(text, number)?.into_iter();
        roots
            .map(|root| self.document(root, (text, number), dir))
            .collect()
    }

    fn document(
        &mut self,
        mut root: Node,
        (text, number): (&str, usize),
        dir: &str,
    ) -> Result<Document, Fault> {
        let resets = root.take_tags();
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
        Ok(Document {
            root,
            resets,
            dir: dir.to_owned(),
            included: Model::default(),
        })
    }

    /// Reads a file over those before it, its documents one after the other. `chain` are the files that include it, itself last.
    fn add(
        &mut self,
        (text, number): (&str, usize),
        dir: &str,
        chain: &mut Vec<String>,
        model: &mut Model,
    ) -> Result<(), Fault> {
        let documents = self.documents(text, number, dir)?;
        let defines = |root: &Node| DEFINING.iter().any(|key| root.get(key).is_some());
        if number != OTHER
            && let Some(first) = documents.first()
            && !documents.iter().any(|document| defines(&document.root))
        {
            let message = "the compose file has neither `services` nor `secrets`";
            return Err(located(Wrong::at(&first.root, message), text, number));
        }
        for document in documents {
            self.add_document(document, (text, number), chain, model)?;
        }
        Ok(())
    }

    fn add_document(
        &mut self,
        mut document: Document,
        (text, number): (&str, usize),
        chain: &mut Vec<String>,
        model: &mut Model,
    ) -> Result<(), Fault> {
        let in_file = |wrong: Wrong| located(wrong, text, number);
        document.included = self.includes(&document, chain).map_err(in_file)?;
        for path in &document.resets {
            model.reset(path);
        }
        let own = secrets(&document.root).map_err(in_file)?;
        model.secrets.extend(document.included.secrets.clone());
        model.secrets.extend(own);
        for name in document.names().map_err(in_file)? {
            let service = self.service(&document, &name, &mut Vec::new());
            let service = service.map_err(in_file)?;
            let place = yaml::place(text, number, service.line, service.column);
            match model.services.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, known, _)) => known.merge(service),
                None => model.services.push((name, service, place)),
            }
        }
        Ok(())
    }

    /// What a file includes. Where two define the same the first counts.
    fn includes(&mut self, document: &Document, chain: &mut Vec<String>) -> Result<Model, Wrong> {
        let mut out = Model::default();
        let Some(node) = document.root.get("include") else {
            return Ok(out);
        };
        for item in items(node)? {
            let include = Include::read(item)?;
            let first = joined(&document.dir, &include.paths[0]);
            if chain.contains(&first) || chain.len() > MAX_DEPTH {
                return Err(Wrong::at(item, format!("`{first}` includes itself")));
            }
            self.included += include.paths.len();
            if self.included > MAX_INCLUDED {
                let message = format!("more than {MAX_INCLUDED} files are included");
                return Err(Wrong::at(item, message));
            }
            let around = self.dotenv.clone();
            let dir = joined(&document.dir, &include.dir);
            self.add_variables(item, &include, document, &dir)?;
            chain.push(first);
            let mut model = Model::default();
            for file in &include.paths {
                let file = joined(&document.dir, file);
                let text = self.text(item, &file)?;
                self.add((&text, OTHER), &dir, chain, &mut model)
                    .map_err(|fault| nested(fault, item, &file, &text))?;
            }
            chain.pop();
            for (_, service, _) in &mut model.services {
                for (name, value) in &mut service.environment {
                    *value = value.take().or_else(|| self.variable(name));
                }
                if let Some(build) = &mut service.build {
                    build.context.get_or_insert_with(|| ".".to_owned());
                }
                service.move_to(&include.dir);
                (service.line, service.column) = (item.line, item.column);
            }
            for secret in model.secrets.values_mut() {
                secret.file = secret.file.take().map(|file| joined(&include.dir, &file));
            }
            self.dotenv = around;
            out.add(model);
        }
        Ok(out)
    }

    /// Adds the variables that an include has for itself.
    fn add_variables(
        &mut self,
        item: &Node,
        include: &Include,
        document: &Document,
        dir: &str,
    ) -> Result<(), Wrong> {
        let named = include.env_files.iter().filter(|file| *file != "/dev/null");
        let mut files: Vec<(String, bool)> = named
            .map(|file| (joined(&document.dir, file), true))
            .collect();
        if include.env_files.is_empty() {
            files.push((joined(dir, ".env"), false));
        }
        let mut found = Texts::new();
        for (file, required) in files {
            let wrong = |message| Wrong::at(item, format!("can't read `{file}`: {message}"));
            match (self.inputs.read)(&file).map_err(wrong)? {
                Some(text) => found.extend(
                    variables::env_file(&text, &|name| self.variable(name)).map_err(wrong)?,
                ),
                None if required => return Err(wrong("it does not exist".to_owned())),
                None => {}
            }
        }
        for (name, value) in found {
            self.dotenv.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// The text of a file that `node` names.
    fn text(&self, node: &Node, file: &str) -> Result<String, Wrong> {
        (self.inputs.read)(file)
            .and_then(|text| text.ok_or_else(|| "it does not exist".to_owned()))
            .map_err(|message| Wrong::at(node, format!("can't read `{file}`: {message}")))
    }

    /// A service with what it extends. `path` are those that extend it.
    fn service(
        &mut self,
        document: &Document,
        name: &str,
        path: &mut Vec<String>,
    ) -> Result<Service, Wrong> {
        let services = document.root.get("services");
        let node = services.and_then(|services| services.get(name));
        let included = document.included.service(name).cloned();
        let (node, own) = match (node, included) {
            (Some(node), None) => (node, Service::read(node)?),
            (Some(node), Some(mut included)) => {
                document.reset(name, &mut included);
                included.merge(Service::read(node)?);
                (included.line, included.column) = (node.line, node.column);
                (node, included)
            }
            (None, Some(included)) => return Ok(included),
            (None, None) => {
                let message = format!("there is no service `{name}` to extend");
                return Err(Wrong::at(&document.root, message));
            }
        };
        let Some(extends) = node.get("extends") else {
            return Ok(own);
        };
        let base = extends.get("service").and_then(Node::scalar);
        let Some(base) = base.or_else(|| extends.scalar()) else {
            return Err(Wrong::at(extends, "`extends` has no `service`"));
        };
        let file = extends.get("file").and_then(Node::scalar);
        let file = file.map(|file| (joined(&document.dir, &file), file));
        let step = match &file {
            Some((file, _)) => format!("{file}:{base}"),
            None => format!("{}:{base}", document.dir),
        };
        if path.contains(&step) || path.len() > MAX_DEPTH {
            return Err(Wrong::at(
                extends,
                format!("service `{name}` extends itself"),
            ));
        }
        path.push(step);
        let mut service = match file {
            None => self.service(document, &base, path)?,
            Some((file, written)) => {
                let text = self.text(extends, &file)?;
                let inside = |fault| nested(fault, extends, &file, &text);
                let others = self
                    .documents(&text, OTHER, parent(&file))
                    .map_err(inside)?;
                // The last one that has it, else the first, to say that it is missing.
                let has = |other: &&Document| {
                    let services = other.root.get("services");
                    services.is_some_and(|services| services.get(&base).is_some())
                };
                let other = others.iter().rev().find(has).or(others.first());
                let Some(other) = other else {
                    return Err(Wrong::at(extends, format!("`{file}` is empty")));
                };
                let mut service = self
                    .service(other, &base, path)
                    .map_err(|wrong| inside(located(wrong, &text, OTHER)))?;
                service.move_to(parent(&written));
                service
            }
        };
        path.pop();
        document.reset(name, &mut service);
        let (line, column) = (own.line, own.column);
        service.merge(own);
        (service.line, service.column) = (line, column);
        Ok(service)
    }

    /// The variables that a service sets.
    pub(super) fn environment(&self, service: &Service) -> Result<Texts, Fault> {
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
}
