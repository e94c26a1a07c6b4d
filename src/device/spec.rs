//! The form of a CDI file, JSON or YAML: a kind, its devices, and what each adds to a
//! container. Keys that are not listed here have no meaning for a build step.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

/// A device, with all that its file adds to a step that has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Qualified: `vendor.example/class=name`.
    pub name: String,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Device nodes.
    pub nodes: Vec<DeviceNode>,
    /// Files and directories of the host.
    pub mounts: Vec<DeviceMount>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Absolute path in the step.
    pub path: String,
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Permission bits, if other than the host's.
    pub mode: Option<u32>,
    /// Owner, if other than the host's.
    pub uid: Option<u32>,
    /// Group, if other than the host's.
    pub gid: Option<u32>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the step.
    pub target: String,
    /// Whether the step may not write.
    pub readonly: bool,
}

/// A device and what decides whether it is given.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) device: Device,
    pub(super) annotations: BTreeMap<String, String>,
    /// What it needs and no step gets.
    pub(super) unsupported: Option<&'static str>,
}

impl Described {
    pub(super) fn annotated_true(&self, name: &str) -> bool {
        let value = self.annotations.get(name).map(String::as_str);
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    devices: Vec<Entry>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<serde::de::IgnoredAny>,
    intel_rdt: Option<serde::de::IgnoredAny>,
    #[serde(rename = "additionalGids", alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<PathBuf>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

/// The devices of one file, or what is wrong with it.
pub(super) fn devices(text: &str, json: bool) -> Result<Vec<Described>, String> {
    let file: File = match json {
        true => serde_json::from_str(text).map_err(|e| e.to_string())?,
        false => serde_saphyr::from_str(text).map_err(|e| e.to_string())?,
    };
    if !file.kind.contains('/') {
        return Err(format!("kind `{}` is not `vendor/class`", file.kind));
    }
    let mut out = Vec::new();
    for entry in file.devices {
        let mut annotations = file.annotations.clone();
        annotations.extend(entry.annotations);
        let mut described = Described {
            device: Device {
                name: format!("{}={}", file.kind, entry.name),
                ..Device::default()
            },
            annotations,
            unsupported: None,
        };
        described.take(&file.container_edits);
        described.take(&entry.container_edits);
        out.push(described);
    }
    Ok(out)
}

impl Described {
    fn take(&mut self, edits: &Edits) {
        let device = &mut self.device;
        for variable in &edits.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            device.env.push((name.to_owned(), value.to_owned()));
        }
        device.nodes.extend(edits.device_nodes.iter().map(|node| {
            DeviceNode {
                path: node.path.clone(),
                host: node
                    .host_path
                    .clone()
                    .unwrap_or_else(|| node.path.clone().into()),
                mode: node.file_mode.map(|mode| mode & 0o7777),
                uid: node.uid,
                gid: node.gid,
            }
        }));
        device
            .mounts
            .extend(edits.mounts.iter().map(|mount| DeviceMount {
                host: mount.host_path.clone(),
                target: mount.container_path.clone(),
                readonly: mount.options.iter().any(|option| option == "ro"),
            }));
        device.groups.extend(&edits.additional_gids);
        if !edits.hooks.is_empty() {
            self.unsupported = Some("hooks");
        }
        if edits.intel_rdt.is_some() {
            self.unsupported = Some("Intel RDT");
        }
    }
}
