//! From [`File`] to targets: everything that YAML alone can't say is checked here.
//!
//! Errors point at the value that is wrong, or at the key where there is no value.

use std::{path::Path, time::Duration};

use super::{
    BakeSettings, BuildSettings, CaCertificates,
    at::{At, Entries, Place, Scalar},
    error::{Fault, Problem},
    file::{BakeForm, Build, File, Layer, Override, Refresh, Variant},
    suggest,
    target::{DEFAULT_VARIANT, TargetConfig, TargetName},
    template::expand,
    units::parse_duration,
};
use crate::{fs::Files, oci::platform::Platform};

/// The version of the format that this program reads.
const VERSION: u64 = 1;
/// The argument that stands for the parent if the layer names no other.
const BASE_ARG: &str = "BASE_IMAGE";

/// Checks all of `file` but what needs the file system, and lists its targets in
/// topological order. Paths stay relative to `root`.
pub(super) fn targets(file: &File, root: &Path) -> Result<Vec<TargetConfig>, Fault> {
    version(file)?;
    let (image, all_layers) = match (&file.bake, &file.image, &file.layers) {
        (Some(bake), None, None) => {
            check_bake(bake)?;
            return Ok(Vec::new());
        }
        (Some(bake), ..) => {
            return Err(Fault::new(bake.place, Problem::BakeWithLayers)
                .hint("build layers with one file and bake files with another, or with `--bake`"));
        }
        (None, Some(image), Some(layers)) => (image, layers),
        (None, None, _) => return Err(missing("image")),
        (None, _, None) => return Err(missing("layers")),
    };
    check_image(image)?;
    layers(all_layers)?;
    let order = order(all_layers)?;
    let none = Entries::default();
    let variants = file.variants.as_ref().unwrap_or(&none);
    let mut targets = Vec::new();
    for (name, variant) in &variants.0 {
        check_name("variant", name)?;
        check_variant(name, variant, all_layers)?;
        let platforms = platforms(variant)?;
        for platform in platforms {
            for (key, layer) in &order {
                let place = Combination {
                    variant: Some((name, variant)),
                    key,
                    layer,
                    platform: platform.clone(),
                };
                targets.push(place.target(root)?);
            }
        }
        distinct_tags(&targets, name)?;
    }
    if variants.0.is_empty() {
        for (key, layer) in &order {
            let place = Combination {
                variant: None,
                key,
                layer,
                platform: Platform::host(),
            };
            targets.push(place.target(root)?);
        }
    }
    Ok(targets)
}

/// The bake files that `file` names, from `root`.
pub(super) fn bake(file: &File, root: &Path) -> Option<BakeSettings> {
    let BakeForm(bake) = &file.bake.as_ref()?.value;
    Some(BakeSettings {
        files: bake
            .files
            .iter()
            .map(|path| root.join(&path.value))
            .collect(),
        targets: bake.targets.clone().unwrap_or_default(),
    })
}

/// A key that the top level needs.
fn missing(key: &str) -> Fault {
    let start = Place { line: 1, column: 1 };
    let problem = Problem::MissingKey {
        key: key.to_owned(),
    };
    Fault::new(start, problem)
}

fn check_bake(form: &At<BakeForm>) -> Result<(), Fault> {
    let files = &form.value.0.files;
    if !files.is_empty() {
        return Ok(());
    }
    let (key, place) = match files.place.line {
        0 => ("bake", form.place),
        _ => ("files", files.place),
    };
    Err(Fault::new(place, Problem::Empty { key }))
}

fn version(file: &File) -> Result<(), Fault> {
    if file.version.value != VERSION {
        let problem = Problem::Version {
            version: file.version.value,
        };
        return Err(Fault::new(file.version.place, problem)
            .hint(format!("this memobuild-ci reads version {VERSION}")));
    }
    Ok(())
}

fn check_image(name: &At<String>) -> Result<(), Fault> {
    let image = name.as_str();
    let well_formed = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    // Only the first part, a registry, may have a port and capital letters.
    let path = match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => image,
    };
    if path.split('/').all(well_formed) {
        return Ok(());
    }
    let problem = Problem::Image {
        image: image.to_owned(),
    };
    let hint = match path.split_once([':', '@']) {
        Some(_) => "leave the tag out: tags are made from variant and layer",
        None => "use lower-case letters, digits, `.`, `_`, `-`, and `/` between parts",
    };
    Err(Fault::new(name.place, problem).hint(hint))
}

/// Each layer by itself.
fn layers(layers: &At<Entries<Layer>>) -> Result<(), Fault> {
    if layers.0.is_empty() {
        return Err(Fault::new(layers.place, Problem::NoLayers)
            .hint("add a layer: `layers: {app: {dockerfile: Dockerfile}}`"));
    }
    for (key, layer) in &layers.0 {
        check_name("layer", key)?;
        check_args(layer.args.as_ref())?;
        if let Some(base_arg) = &layer.base_arg {
            check_arg_name(base_arg)?;
            if layer.from.is_none() {
                let problem = Problem::BaseArgWithoutFrom {
                    layer: key.value.clone(),
                };
                return Err(Fault::new(base_arg.place, problem)
                    .hint("add `from` with the layer that the argument stands for"));
            }
        }
        if let Some(parent) = &layer.from
            && layers.get(parent).is_none()
        {
            let problem = Problem::UnknownParent {
                layer: key.value.clone(),
                parent: parent.value.clone(),
            };
            let known: Vec<&str> = layers.keys().filter(|k| *k != key.as_str()).collect();
            return Err(Fault::new(parent.place, problem).hint(parent_hint(parent, &known)));
        }
    }
    Ok(())
}

/// What to do about an unknown parent.
fn parent_hint(parent: &str, known: &[&str]) -> String {
    if parent.contains(['/', ':']) || known.is_empty() {
        return "`from` names a layer of this file; an image belongs into the Dockerfile's FROM"
            .to_owned();
    }
    suggest::key(parent, known)
}

/// The layers, each after the one it is built from, else in the order of the file.
fn order(layers: &Entries<Layer>) -> Result<Vec<(&At<String>, &Layer)>, Fault> {
    let mut order: Vec<(&At<String>, &Layer)> = Vec::new();
    for (key, layer) in &layers.0 {
        let mut chain: Vec<(&At<String>, &Layer)> = Vec::new();
        let mut next = Some((key, layer));
        while let Some((key, layer)) = next {
            if order.iter().any(|(k, _)| k.value == key.value) {
                break;
            }
            if let Some(start) = chain.iter().position(|(k, _)| k.value == key.value) {
                return Err(cycle(&chain[start..]));
            }
            chain.push((key, layer));
            next = layer.from.as_ref().and_then(|parent| {
                let found = layers.0.iter().find(|(k, _)| k.value == parent.value);
                found.map(|(k, l)| (k, l))
            });
        }
        order.extend(chain.into_iter().rev());
    }
    Ok(order)
}

/// The layers of `chain` are built from each other.
fn cycle(chain: &[(&At<String>, &Layer)]) -> Fault {
    let names = chain.iter().chain(chain.first()).map(|(k, _)| k.as_str());
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    let place = chain.last().map(|(key, layer)| match &layer.from {
        Some(from) => from.place,
        None => key.place,
    });
    let problem = Problem::Cycle {
        cycle: names.join(" from "),
    };
    Fault::new(place.unwrap_or_default(), problem).hint("one of them must not have a `from`")
}

/// Whether `name` can be a part of a tag.
fn check_name(what: &'static str, name: &At<String>) -> Result<(), Fault> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    // Two of them and a hyphen must fit into a tag of 128 characters.
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    let problem = Problem::Name {
        what,
        name: name.value.clone(),
    };
    Err(Fault::new(name.place, problem).hint(
        "it becomes a part of a tag: up to 63 lower-case letters, digits, `.`, `_`, `-`, the first a letter or digit",
    ))
}

/// The names of `args`.
fn check_args(args: Option<&Entries<At<Scalar>>>) -> Result<(), Fault> {
    args.iter()
        .flat_map(|args| &args.0)
        .try_for_each(|(name, _)| check_arg_name(name))
}

fn check_arg_name(name: &At<String>) -> Result<(), Fault> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    let problem = Problem::ArgName {
        name: name.value.clone(),
    };
    Err(Fault::new(name.place, problem).hint("use letters, digits and `_`, the first no digit"))
}

/// One variant by itself.
fn check_variant(
    name: &At<String>,
    variant: &Variant,
    layers: &Entries<Layer>,
) -> Result<(), Fault> {
    check_args(variant.args.as_ref())?;
    for (layer, change) in variant.layers.iter().flat_map(|l| &l.0) {
        check_args(change.args.as_ref())?;
        if layers.get(layer).is_none() {
            let problem = Problem::UnknownLayer {
                variant: name.value.clone(),
                layer: layer.value.clone(),
            };
            let known: Vec<&str> = layers.keys().collect();
            return Err(Fault::new(layer.place, problem).hint(suggest::key(layer, &known)));
        }
    }
    Ok(())
}

/// The platforms of `variant`.
fn platforms(variant: &Variant) -> Result<Vec<Platform>, Fault> {
    let Some(list) = &variant.platforms else {
        return Ok(vec![Platform::host()]);
    };
    if list.is_empty() {
        let problem = Problem::Empty { key: "platforms" };
        return Err(Fault::new(list.place, problem)
            .hint("name one, such as `linux/amd64`, or leave the key out for the host's"));
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for text in &list.value {
        let platform: Platform = text
            .parse()
            .map_err(|e: crate::oci::platform::ParsePlatformError| Fault::new(text.place, e))?;
        if platforms.contains(&platform) {
            let problem = Problem::DuplicatePlatform {
                platform: platform.to_string(),
            };
            return Err(Fault::new(text.place, problem));
        }
        platforms.push(platform);
    }
    Ok(platforms)
}

/// No two layers of different variants may share a tag: `a-b` of `c` is `b-c` of `a`.
fn distinct_tags(targets: &[TargetConfig], variant: &At<String>) -> Result<(), Fault> {
    for new in targets.iter().filter(|t| t.name.variant == variant.value) {
        let taken = targets
            .iter()
            .find(|t| t.tag == new.tag && t.name.variant != new.name.variant);
        if let Some(taken) = taken {
            let problem = Problem::DuplicateTarget {
                tag: new.tag.clone(),
                layer: new.name.layer.clone(),
                variant: new.name.variant.clone(),
                other: format!(
                    "layer `{}` of variant `{}`",
                    taken.name.layer, taken.name.variant
                ),
            };
            return Err(Fault::new(variant.place, problem).hint("rename one of the variants"));
        }
    }
    Ok(())
}

/// A layer in a variant on a platform.
struct Combination<'a> {
    variant: Option<(&'a At<String>, &'a Variant)>,
    key: &'a At<String>,
    layer: &'a Layer,
    platform: Platform,
}

impl Combination<'_> {
    /// What the variant changes in the layer.
    fn change(&self) -> Option<&Override> {
        self.variant?.1.layers.as_ref()?.get(self.key)
    }

    /// Where the Dockerfile and the context stand in the file.
    fn paths(&self) -> (&At<String>, Option<&At<String>>) {
        let change = self.change();
        let dockerfile = change.and_then(|c| c.dockerfile.as_ref());
        let context = change.and_then(|c| c.context.as_ref());
        (
            dockerfile.unwrap_or(&self.layer.dockerfile),
            context.or(self.layer.context.as_ref()),
        )
    }

    fn name(&self) -> TargetName {
        let variant = self.variant.map(|(name, _)| name.value.as_str());
        TargetName {
            layer: self.key.value.clone(),
            variant: variant.unwrap_or(DEFAULT_VARIANT).to_owned(),
            platform: self.platform.clone(),
        }
    }

    fn target(&self, root: &Path) -> Result<TargetConfig, Fault> {
        let name = self.name();
        let change = self.change();
        let (dockerfile, context) = self.paths();
        let stage = change.and_then(|c| c.target.as_ref());
        let refresh = change.and_then(|c| c.refresh.as_ref());
        Ok(TargetConfig {
            dockerfile: root.join(path("dockerfile", dockerfile, &name)?),
            context: match context {
                Some(context) => here(root.join(path("context", context, &name)?)),
                None => here(root.to_owned()),
            },
            args: self.args(),
            stage: match stage.or(self.layer.target.as_ref()) {
                Some(stage) => Some(expand(stage, &name)?),
                None => None,
            },
            parent: self.layer.from.as_ref().map(|parent| TargetName {
                layer: parent.value.clone(),
                ..name.clone()
            }),
            base_arg: match &self.layer.base_arg {
                Some(name) => name.value.clone(),
                None => BASE_ARG.to_owned(),
            },
            refresh: match refresh.or(self.layer.refresh.as_ref()) {
                Some(refresh) => max_age(refresh)?,
                None => None,
            },
            tag: match self.variant {
                Some((variant, _)) => format!("{}-{}", variant.value, name.layer),
                None => name.layer.clone(),
            },
            requested: true,
            name,
        })
    }

    /// The arguments of layer, variant and override; later ones win.
    fn args(&self) -> Vec<(String, String)> {
        let all = [
            self.layer.args.as_ref(),
            self.variant.and_then(|(_, v)| v.args.as_ref()),
            self.change().and_then(|c| c.args.as_ref()),
        ];
        let mut args: Vec<(String, String)> = Vec::new();
        for (name, value) in all.into_iter().flatten().flat_map(|a| &a.0) {
            match args.iter_mut().find(|(n, _)| *n == name.value) {
                Some(arg) => arg.1.clone_from(&value.0),
                None => args.push((name.value.clone(), value.0.clone())),
            }
        }
        args
    }
}

/// The path that `template` names for `target`.
fn path(key: &'static str, template: &At<String>, target: &TargetName) -> Result<String, Fault> {
    let path = expand(template, target)?;
    if path.is_empty() {
        return Err(Fault::new(template.place, Problem::Empty { key }));
    }
    if Path::new(&path).is_absolute() {
        return Err(Fault::new(template.place, Problem::AbsolutePath { path })
            .hint("paths start at the directory of `memobuild.yml`, so that they are right on every machine"));
    }
    Ok(path)
}

/// The age that `refresh` allows.
fn max_age(refresh: &Refresh) -> Result<Option<Duration>, Fault> {
    const DAY: Duration = Duration::from_secs(86_400);
    Ok(match refresh {
        Refresh::Never => None,
        Refresh::Daily => Some(DAY),
        Refresh::Weekly => Some(7 * DAY),
        Refresh::MaxAge(text) => Some(duration(text)?),
    })
}

pub(super) fn duration(text: &At<String>) -> Result<Duration, Fault> {
    parse_duration(text).map_err(|e| Fault::new(text.place, e))
}

/// Whether the files that `targets` name are there. Takes `file` for the places.
pub(super) fn files(file: &File, targets: &[TargetConfig], files: &dyn Files) -> Result<(), Fault> {
    for target in targets {
        let (dockerfile, context) = places(file, &target.name);
        let name = target.name.to_string();
        let path = target.dockerfile.clone();
        if files.is_dir(&path) {
            let problem = Problem::DockerfileIsDirectory { path, target: name };
            return Err(Fault::new(dockerfile, problem).hint("name the file in it"));
        }
        if !files.exists(&path) {
            let hint = format!(
                "make the file, or give variant `{0}` its own: `variants.{0}.layers.{1}.dockerfile`",
                target.name.variant, target.name.layer
            );
            let fault = Fault::new(dockerfile, Problem::NoDockerfile { path, target: name });
            return Err(match &file.variants {
                Some(_) => fault.hint(hint),
                None => fault.hint("paths start at the directory of `memobuild.yml`"),
            });
        }
        if !files.is_dir(&target.context) {
            let path = target.context.clone();
            let problem = Problem::NoContext { path, target: name };
            return Err(Fault::new(context, problem)
                .hint("paths start at the directory of `memobuild.yml`"));
        }
    }
    Ok(())
}

/// Where `file` says which Dockerfile and which context `target` has.
fn places(file: &File, target: &TargetName) -> (Place, Place) {
    let variants = file.variants.iter().flat_map(|v| &v.0);
    let variant = variants
        .map(|(key, variant)| (key, variant))
        .find(|(key, _)| key.value == target.variant);
    let mut layers = file.layers.iter().flat_map(|layers| &layers.0);
    let Some((key, layer)) = layers.find(|(k, _)| k.value == target.layer) else {
        return Default::default();
    };
    let combination = Combination {
        variant,
        key,
        layer,
        platform: target.platform.clone(),
    };
    let (dockerfile, context) = combination.paths();
    (dockerfile.place, context.map_or(key.place, |c| c.place))
}

/// The defaults for builds.
pub(super) fn build(build: Option<&Build>, root: &Path) -> Result<BuildSettings, Fault> {
    let Some(build) = build else {
        return Ok(BuildSettings::default());
    };
    let jobs = |jobs: &At<u64>| {
        let number = usize::try_from(jobs.value).unwrap_or(usize::MAX);
        std::num::NonZero::new(number).ok_or_else(|| Fault::new(jobs.place, Problem::NoJobs))
    };
    let certificates = |text: &At<String>| match text.as_str() {
        "host" => CaCertificates::Host,
        path => CaCertificates::File(root.join(path)),
    };
    Ok(BuildSettings {
        network: build.network,
        ca_certificates: build.ca_certificates.as_ref().map(certificates),
        compression: build.compression,
        source_date_epoch: build.source_date_epoch.as_ref().map(|e| e.value),
        jobs: build.jobs.as_ref().map(jobs).transpose()?,
    })
}

/// Whether the certificate file is there.
pub(super) fn certificates(file: &File, settings: &BuildSettings) -> Result<(), Fault> {
    let Some(CaCertificates::File(path)) = &settings.ca_certificates else {
        return Ok(());
    };
    if path.is_file() {
        return Ok(());
    }
    let text = file.build.as_ref().and_then(|b| b.ca_certificates.as_ref());
    let place = text.map(|t| t.place).unwrap_or_default();
    let path = path.clone();
    Err(Fault::new(place, Problem::NoCertificates { path })
        .hint("`host` means the bundle of the host"))
}

/// The working directory has the name `.`: an empty path names nothing.
fn here(path: std::path::PathBuf) -> std::path::PathBuf {
    match path.as_os_str().is_empty() {
        true => ".".into(),
        false => path,
    }
}
