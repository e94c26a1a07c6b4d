//! Any text as a bake file, in the language that its first line names: it gives a plan, or is refused
//! with a message.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::bake::{self, File, Inputs};

/// A file that others may include.
const OTHER: &str = "services: {base: {build: {target: t, args: [X]}}}\n";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Reject;
    };
    let Some((kind @ ("hcl" | "json" | "yaml"), text)) = text.split_once('\n') else {
        return Corpus::Reject;
    };
    let plan = bake::read(Inputs {
        files: vec![File {
            name: format!("bake.{kind}"),
            text: text.to_owned(),
        }],
        targets: Vec::new(),
        overrides: Vec::new(),
        env: &|name| (name == "SET").then(|| "from the environment".to_owned()),
        read: &|name| Ok((name == "other.yaml").then(|| OTHER.to_owned())),
        local_platform: "linux/amd64".to_owned(),
        now: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        home: "/home/me".to_owned(),
    });
    match plan {
        Ok(plan) => {
            let json: serde_json::Value = serde_json::from_str(&plan.to_json()).expect("JSON");
            assert_eq!(
                json["target"].as_object().map(|targets| targets.len()),
                Some(plan.targets.len())
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});
