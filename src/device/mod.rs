//! Devices of the host by name: the Container Device Interface (CDI).
//!
//! `RUN --device=vendor.example/gpu=0` asks for a device that a file in one of
//! [`DIRECTORIES`] describes: nodes, mounts, variables and groups that a process needs to use it. A
//! [`DeviceRegistry`] holds what those files say, [`DeviceRegistry::find`] gives what a name
//! means. Source: the CDI specification, versions up to 1.0, and for names without a device
//! BuildKit's rules (`solver/llbsolver/cdidevices`).
//!
//! | name | means |
//! |---|---|
//! | `vendor.example/class=name` | that device |
//! | `vendor.example/class` | the first device of the kind, by name |
//! | `vendor.example/class=*` | all devices of the kind |
//! | anything else, or if there is none | all devices whose annotation `org.mobyproject.buildkit.device.class` is the name |
//!
//! What names a device in a step's key is its qualified name, nothing of the files.

mod spec;

pub use spec::{Device, DeviceMount, DeviceNode};

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::fs;
use spec::Described;

/// Where descriptions lie if nothing else is said; a device of a later directory hides one
/// of an earlier.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Annotation of a device or a file: a name for the device.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// Annotation of a device or a file: builds may use the device without asking.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// The devices of this host, by qualified name.
#[derive(Debug, Clone, Default)]
pub struct DeviceRegistry {
    devices: BTreeMap<String, Described>,
    /// Files that can't be used, each with why.
    unusable: Vec<String>,
    /// Where was looked.
    directories: Vec<PathBuf>,
}

/// What a build may use: `--allow device[=NAME[,alias=OTHER]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedDevices {
    /// Every device.
    pub all: bool,
    /// Names as in `--device`, each with the name of what to give for it, if that is another.
    pub names: BTreeMap<String, Option<String>>,
}

/// Why a step can't have a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No file describes it, and the step can't do without.
    #[error("device `{name}` is required, and nothing on this host describes it")]
    Missing {
        /// As asked for.
        name: String,
    },
    /// It is there, and the build must not use it.
    #[error("device `{name}` is not allowed for this build")]
    NotAllowed {
        /// Its qualified name.
        name: String,
    },
    /// Using it takes something that no step gets.
    #[error("device `{name}` needs {what}, which is not supported")]
    Unsupported {
        /// Its qualified name.
        name: String,
        /// What.
        what: &'static str,
    },
}

impl DeviceRegistry {
    /// Reads the files of these directories; those that are missing have no devices.
    pub fn read(directories: Vec<PathBuf>) -> Self {
        let mut this = Self::default();
        for directory in &directories {
            // A directory that can't be read has no devices either.
            let files = fs::list_dir(directory).unwrap_or_default();
            this.read_files(files.iter().map(|f| f.as_path()));
        }
        this.directories = directories;
        this
    }

    /// Files of one directory: of two that describe the same device neither counts.
    fn read_files<'p>(&mut self, files: impl Iterator<Item = &'p Path>) {
        let mut found: BTreeMap<String, Described> = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for file in files {
            let extension = file.extension().and_then(|e| e.to_str());
            let Some(extension @ ("json" | "yaml" | "yml")) = extension else {
                continue;
            };
            let read = fs::read_to_string(file)
                .map_err(|error| error.to_string())
                .and_then(|text| spec::devices(&text, extension == "json"));
            match read {
                Ok(devices) => {
                    for device in devices {
                        let name = device.device.name.clone();
                        if found.insert(name.clone(), device).is_some() {
                            twice.insert(name);
                        }
                    }
                }
                Err(why) => self.unusable.push(format!("`{}`: {why}", file.display())),
            }
        }
        for name in twice {
            found.remove(&name);
            self.unusable
                .push(format!("device `{name}` is described twice"));
        }
        self.devices.extend(found);
    }

    /// The devices that `requests` (name, whether it is required) mean and may have, by
    /// qualified name, each once.
    pub fn find<'r>(
        &self,
        requests: impl IntoIterator<Item = (&'r str, bool)>,
        allowed: &AllowedDevices,
    ) -> Result<Vec<Device>, DeviceError> {
        let granted: BTreeSet<&str> = allowed
            .names
            .iter()
            .filter(|(_, other)| other.is_none())
            .flat_map(|(name, _)| self.matching(name))
            .collect();
        let mut out: Vec<Device> = Vec::new();
        for (name, required) in requests {
            let alias = allowed.names.get(name).and_then(Option::as_deref);
            let names = self.matching(alias.unwrap_or(name));
            if names.is_empty() && required {
                return Err(DeviceError::Missing {
                    name: name.to_owned(),
                });
            }
            for name in names {
                let described = &self.devices[name];
                let free = allowed.all || alias.is_some() || described.annotated_true(AUTO_ALLOW);
                if !free && !granted.contains(name) {
                    return Err(DeviceError::NotAllowed {
                        name: name.to_owned(),
                    });
                }
                if let Some(what) = described.unsupported {
                    return Err(DeviceError::Unsupported {
                        name: name.to_owned(),
                        what,
                    });
                }
                if !out.iter().any(|known| known.name == name) {
                    out.push(described.device.clone());
                }
            }
        }
        Ok(out)
    }

    /// What stands in the way of devices being found.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }

    fn matching(&self, wanted: &str) -> Vec<&str> {
        let names = || self.devices.keys().map(String::as_str);
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        let of_kind = |device: &&str| device.split_once('=').is_some_and(|(k, _)| k == kind);
        let mut found: Vec<&str> = match name {
            _ if !kind.contains('/') => Vec::new(),
            "" => names().find(of_kind).into_iter().collect(),
            "*" => names().filter(of_kind).collect(),
            _ => names().filter(|device| *device == wanted).collect(),
        };
        if found.is_empty() {
            let classed = self.devices.iter().filter(|(_, device)| {
                device.annotations.get(CLASS).map(String::as_str) == Some(wanted)
            });
            found.extend(classed.map(|(name, _)| name.as_str()));
        }
        found
    }
}

impl DeviceError {
    /// What to do about it.
    pub fn hint(&self, registry: &DeviceRegistry) -> String {
        match self {
            Self::Missing { .. } if !registry.unusable.is_empty() => {
                format!("not used: {}", registry.unusable.join("; "))
            }
            Self::Missing { .. } => {
                let directories = registry.directories.iter();
                let names: Vec<String> =
                    directories.map(|d| format!(" `{}`", d.display())).collect();
                format!(
                    "a CDI file must describe it; looked for in{}",
                    names.concat()
                )
            }
            Self::NotAllowed { name } => format!("build with `--allow device={name}`"),
            Self::Unsupported { .. } => {
                "describe the device without that, or use it in a container of your own".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"cdiVersion":"0.6.0","kind":"vendor.example/gpu",
        "annotations":{"org.mobyproject.buildkit.device.class":"accelerator"},
        "containerEdits":{"env":["ALL=1"]},
        "devices":[
          {"name":"0","containerEdits":{"env":["GPU=0"],
            "deviceNodes":[{"path":"/dev/gpu0","hostPath":"/dev/null","fileMode":432,"uid":5}],
            "mounts":[{"hostPath":"/usr/lib/gpu","containerPath":"/opt/gpu","options":["ro","bind"]}],
            "additionalGIDs":[44]}},
          {"name":"1","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/bin/x"}]}}]}"#;

    const FREE: &str = "cdiVersion: 0.5.0\nkind: other.example/x\nannotations:\n  org.mobyproject.buildkit.device.autoallow: \"true\"\ndevices:\n- name: a\n  containerEdits:\n    deviceNodes:\n    - path: /dev/zero\n";

    fn registry(files: &[(&str, &str)]) -> DeviceRegistry {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write_atomic(dir.path().join(name), text.as_bytes()).unwrap();
        }
        DeviceRegistry::read(vec![dir.path().to_owned(), "/nowhere".into()])
    }

    fn allow(names: &[&str]) -> AllowedDevices {
        let names = names.iter().map(|n| ((*n).to_owned(), None)).collect();
        AllowedDevices { all: false, names }
    }

    #[test]
    fn names_mean_devices() {
        let registry = registry(&[("a.json", TWO), ("b.yaml", FREE)]);
        assert_eq!(registry.unusable(), [] as [&str; 0]);
        assert_eq!(
            registry.matching("vendor.example/gpu"),
            ["vendor.example/gpu=0"]
        );
        assert_eq!(registry.matching("vendor.example/gpu=*").len(), 2);
        assert_eq!(
            registry.matching("vendor.example/gpu=1"),
            ["vendor.example/gpu=1"]
        );
        assert_eq!(registry.matching("accelerator").len(), 2);
        assert!(registry.matching("vendor.example/gpu=7").is_empty());
    }

    #[test]
    fn a_device_has_the_edits_of_its_file_and_its_own() {
        let registry = registry(&[("a.json", TWO)]);
        let allowed = allow(&["vendor.example/gpu=0"]);
        let found = registry
            .find([("vendor.example/gpu", true)], &allowed)
            .unwrap();
        let device = &found[0];
        let variable = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(device.env, [variable("ALL", "1"), variable("GPU", "0")]);
        assert_eq!(device.nodes[0].host, Path::new("/dev/null"));
        assert_eq!(device.nodes[0].mode, Some(0o660));
        assert!(device.mounts[0].readonly);
        assert_eq!(device.groups, [44]);
    }

    #[test]
    fn what_is_missing_or_not_allowed_is_an_error() {
        let registry = registry(&[("a.json", TWO), ("b.yaml", FREE)]);
        let none = AllowedDevices::default();
        let find = |name, required, allowed: &AllowedDevices| {
            registry
                .find([(name, required)], allowed)
                .map(|found| found.len())
        };
        assert_eq!(find("nothing", false, &none), Ok(0));
        assert!(matches!(
            find("nothing", true, &none),
            Err(DeviceError::Missing { .. })
        ));
        assert!(matches!(
            find("vendor.example/gpu=0", true, &none),
            Err(DeviceError::NotAllowed { .. })
        ));
        assert_eq!(find("other.example/x=a", true, &none), Ok(1));
        let all = AllowedDevices {
            all: true,
            ..none.clone()
        };
        assert!(matches!(
            find("vendor.example/gpu=1", true, &all),
            Err(DeviceError::Unsupported { .. })
        ));
        let alias = AllowedDevices {
            all: false,
            names: [("mine".to_owned(), Some("vendor.example/gpu=0".to_owned()))].into(),
        };
        assert_eq!(find("mine", true, &alias), Ok(1));
    }

    #[test]
    fn bad_files_and_conflicts_are_kept_for_the_hint() {
        let registry = registry(&[("a.json", TWO), ("b.json", TWO), ("c.json", "{")]);
        assert!(registry.matching("vendor.example/gpu=0").is_empty());
        assert_eq!(registry.unusable().len(), 3);
        let error = DeviceError::Missing {
            name: "x".to_owned(),
        };
        assert!(error.hint(&registry).contains("c.json"));
    }
}
