//! Any text as a Dockerfile: it is parsed and lowered, or refused with a message.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::{
    digest::Sha256Digest,
    dockerfile,
    graph::{
        BuildGraph, ImageOp, ImageOrigin, LocalContext, ResolvedImage,
        lower::{LowerInput, NamedContext, lower, needed_images},
    },
    oci::{ImageConfig, Platform},
};

/// The base image for every name.
const BASE: &str = r#"{"created":"2024-05-01T00:00:00Z","architecture":"amd64","os":"linux",
 "config":{"Env":["PATH=/bin","FROM_BASE=1"],"Cmd":["sh"],"WorkingDir":"/base","User":"app"},
 "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"base"}]}"#;

fn image(reference: &str) -> ResolvedImage {
    let config: ImageConfig = serde_json::from_str(BASE).expect("valid JSON");
    let op = ImageOp {
        reference: reference.to_owned(),
        manifest: Sha256Digest::of(reference.as_bytes()),
        layers: Vec::new(),
        origin: ImageOrigin::Layout {
            dir: "/layout".into(),
        },
    };
    ResolvedImage { op, config }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Reject;
    };
    let parsed = match dockerfile::parse("Dockerfile", text) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(error.render().starts_with("error: "));
            return Corpus::Keep;
        }
    };
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    let mut input = LowerInput::of(&parsed, platform);
    input.build_args = BTreeMap::from([("VERSION".to_owned(), "1.2.3".to_owned())]);
    input.named_contexts = BTreeMap::from([("extra".to_owned(), NamedContext::Local(0))]);
    let mut graph = BuildGraph {
        contexts: vec![LocalContext {
            name: "context".to_owned(),
            dir: "/context".into(),
            ignore: String::new(),
        }],
        ..BuildGraph::default()
    };
    let lowered = needed_images(&input).and_then(|needed| {
        let images = needed.into_iter().map(|key| (key.clone(), image(&key.0)));
        lower(&mut graph, &input, &images.collect())
    });
    if let Err(error) = lowered {
        assert!(!error.to_string().is_empty());
    }
    Corpus::Keep
});
