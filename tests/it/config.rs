//! `memobuild.yml`: what it means, and how it is refused.

use std::fmt::Write as _;

use memobuild_ci::{
    config::{
        CaCertificates, Compression, Config, ConfigError, Network, Selection, SigningKey,
        TrustedKey, Write as Writes,
    },
    fs::Disk,
    ui::{ReportOptions, report},
};

/// The message for a text that is no configuration.
fn rejected(text: &str) -> String {
    report(
        &Config::parse("memobuild.yml", text).unwrap_err(),
        ReportOptions::default(),
    )
}

/// The targets that `selection` gives, one a line.
fn listed(config: &Config, selection: &Selection) -> String {
    let mut out = String::new();
    for t in config.targets(selection).unwrap() {
        let _ = write!(out, "{} {} {}", t.name, t.tag, t.dockerfile.display());
        let _ = write!(out, " args={:?} context={:?}", t.args, t.context);
        if let Some(stage) = &t.stage {
            let _ = write!(out, " stage={stage}");
        }
        if let Some(parent) = &t.parent {
            let _ = write!(out, " {}={parent}", t.base_arg);
        }
        if let Some(age) = t.refresh {
            let _ = write!(out, " refresh={age:?}");
        }
        out.push_str(if t.requested { "\n" } else { " (parent)\n" });
    }
    out
}

const FULL: &str = r#"
version: 1
image: registry.example/acme/service
layers:
  app:
    from: ml
    dockerfile: docker/{variant}/Dockerfile.{layer}
    context: src
    target: final
  base:
    dockerfile: Dockerfile.base
    args: {PYTHON: 3.10, DEBUG: "no", NOTHING: ""}
    refresh: weekly
  ml: {from: base, base-arg: PARENT, dockerfile: Dockerfile.ml, refresh: {max-age: 12h}}
variants:
  cpu:
    platforms: [linux/amd64]
    args: {DEBUG: yes}
  arm:
    platforms: [aarch64]
    layers:
      ml: {dockerfile: "{arch}/Dockerfile.ml", args: {DEBUG: "1", ONLY: ml}, refresh: never}
cache: {dir: .cache, max-size: 10GiB, max-age: 30d}
build: {network: none, ca-certificates: certs/ca.pem, compression: gzip, source-date-epoch: 1700000000, jobs: 4}
"#;

#[test]
fn targets_are_layers_of_variants_on_platforms_parents_first() {
    let config = Config::parse("memobuild.yml", FULL).unwrap();
    insta::assert_snapshot!(listed(&config, &Selection::default()), @r#"
    base (cpu, linux/amd64) cpu-base Dockerfile.base args=[("PYTHON", "3.10"), ("DEBUG", "yes"), ("NOTHING", "")] context="." refresh=604800s
    ml (cpu, linux/amd64) cpu-ml Dockerfile.ml args=[("DEBUG", "yes")] context="." PARENT=base (cpu, linux/amd64) refresh=43200s
    app (cpu, linux/amd64) cpu-app docker/cpu/Dockerfile.app args=[("DEBUG", "yes")] context="src" stage=final BASE_IMAGE=ml (cpu, linux/amd64)
    base (arm, linux/arm64) arm-base Dockerfile.base args=[("PYTHON", "3.10"), ("DEBUG", "no"), ("NOTHING", "")] context="." refresh=604800s
    ml (arm, linux/arm64) arm-ml arm64/Dockerfile.ml args=[("DEBUG", "1"), ("ONLY", "ml")] context="." PARENT=base (arm, linux/arm64)
    app (arm, linux/arm64) arm-app docker/arm/Dockerfile.app args=[] context="src" stage=final BASE_IMAGE=ml (arm, linux/arm64)
    "#);
}

#[test]
fn settings_are_read() {
    let config = Config::parse("memobuild.yml", FULL).unwrap();
    assert_eq!(config.image, "registry.example/acme/service");
    assert_eq!(config.cache.dir, Some(".cache".into()));
    assert_eq!(config.cache.max_size, Some(10 << 30));
    assert_eq!(config.cache.max_age.unwrap().as_secs(), 30 * 86_400);
    assert_eq!(config.build.network, Some(Network::None));
    let certificates = CaCertificates::File("certs/ca.pem".into());
    assert_eq!(config.build.ca_certificates, Some(certificates));
    assert_eq!(config.build.compression, Some(Compression::Gzip));
    assert_eq!(config.build.source_date_epoch, Some(1_700_000_000));
    assert_eq!(config.build.jobs.unwrap().get(), 4);
}

#[test]
fn without_variants_there_is_one_for_the_host() {
    let text = "version: 1\nimage: a\nlayers: {app: {dockerfile: '{variant}/D'}}\n";
    let targets = Config::parse("memobuild.yml", text)
        .unwrap()
        .targets(&Selection::default())
        .unwrap();
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].tag, "app");
    assert_eq!(targets[0].dockerfile.to_str(), Some("default/D"));
    assert_eq!(
        targets[0].name.platform,
        memobuild_ci::oci::platform::Platform::host()
    );
}

#[test]
fn anchors_and_merges_work() {
    let text = "version: 1\nimage: a\nlayers:\n  one: &one {dockerfile: D, args: {A: x}}\n  two: {<<: *one, context: sub}\n";
    let config = Config::parse("memobuild.yml", text).unwrap();
    let targets = config.targets(&Selection::default()).unwrap();
    assert_eq!(targets[1].args, targets[0].args);
    assert_eq!(targets[1].context.to_str(), Some("sub"));
}

#[test]
fn a_selection_brings_the_parents() {
    let config = Config::parse("memobuild.yml", FULL).unwrap();
    let selection = Selection {
        layers: vec!["ml".into()],
        variants: vec!["arm".into()],
        platforms: vec!["linux/arm64".parse().unwrap()],
    };
    insta::assert_snapshot!(listed(&config, &selection), @r#"
    base (arm, linux/arm64) arm-base Dockerfile.base args=[("PYTHON", "3.10"), ("DEBUG", "no"), ("NOTHING", "")] context="." refresh=604800s (parent)
    ml (arm, linux/arm64) arm-ml arm64/Dockerfile.ml args=[("DEBUG", "1"), ("ONLY", "ml")] context="." PARENT=base (arm, linux/arm64)
    "#);
}

#[test]
fn a_selection_of_nothing_is_an_error_with_a_hint() {
    let config = Config::parse("memobuild.yml", FULL).unwrap();
    let mut out = String::new();
    for selection in [
        Selection {
            layers: vec!["mll".into()],
            ..Selection::default()
        },
        Selection {
            variants: vec!["cuda".into()],
            ..Selection::default()
        },
        Selection {
            variants: vec!["cpu".into()],
            platforms: vec!["linux/arm64".parse().unwrap()],
            ..Selection::default()
        },
    ] {
        out += &report(
            &config.targets(&selection).unwrap_err(),
            ReportOptions::default(),
        );
    }
    insta::assert_snapshot!(out, @r"
    error: there is no layer `mll`
    hint: did you mean `ml`?
    error: there is no variant `cuda`
    hint: known here: `cpu`, `arm`
    error: no selected variant is built for `linux/arm64`
    hint: built are `linux/amd64`
    ");
}

/// The message for a `memobuild.yml` in a directory with `files`; the directory is `DIR`.
fn load(files: &[&str], text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "FROM scratch\n").unwrap();
    }
    let path = dir.path().join("memobuild.yml");
    std::fs::write(&path, text).unwrap();
    assert_eq!(Config::find(&Disk, dir.path()), Some(path.clone()));
    Config::load(&Disk, &path).map_err(|error| {
        let dir = dir.path().to_str().unwrap();
        report(&error, ReportOptions::default()).replace(dir, "DIR")
    })
}

#[test]
fn files_are_there() {
    let text = "version: 1
image: a
layers:
  app: {dockerfile: 'docker/{variant}/Dockerfile', context: src}
variants:
  cpu: {platforms: [linux/amd64]}
  cuda: {platforms: [linux/amd64], layers: {app: {context: other}}}
";
    let cpu = "docker/cpu/Dockerfile";
    let cuda = "docker/cuda/Dockerfile";
    assert!(load(&[cpu, cuda, "src/x", "other/x"], text).is_ok());
    insta::assert_snapshot!(load(&[cpu, "src/x", "other/x"], text).unwrap_err(), @r"
    error: Dockerfile `DIR/docker/cuda/Dockerfile` of app (cuda, linux/amd64) does not exist
      --> DIR/memobuild.yml:4:21
     3 | layers:
     4 |   app: {dockerfile: 'docker/{variant}/Dockerfile', context: src}
    hint: make the file, or give variant `cuda` its own: `variants.cuda.layers.app.dockerfile`
    ");
    insta::assert_snapshot!(load(&[cpu, cuda, "src/x"], text).unwrap_err(), @r"
    error: context `DIR/other` of app (cuda, linux/amd64) is not a directory
      --> DIR/memobuild.yml:7:60
     6 |   cpu: {platforms: [linux/amd64]}
     7 |   cuda: {platforms: [linux/amd64], layers: {app: {context: other}}}
    hint: paths start at the directory of `memobuild.yml`
    ");
    insta::assert_snapshot!(load(&["docker/cpu/Dockerfile/x"], text).unwrap_err(), @r"
    error: Dockerfile `DIR/docker/cpu/Dockerfile` of app (cpu, linux/amd64) is a directory
      --> DIR/memobuild.yml:4:21
     3 | layers:
     4 |   app: {dockerfile: 'docker/{variant}/Dockerfile', context: src}
    hint: name the file in it
    ");
}

#[test]
fn a_configuration_is_there() {
    let error =
        Config::load(&Disk, std::path::Path::new("/nonexistent/memobuild.yml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    insta::assert_snapshot!(report(&error, ReportOptions::default()), @r"
    error: the configuration can't be read
      caused by: can't read `/nonexistent/memobuild.yml`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn certificates_are_there() {
    let text =
        "version: 1\nimage: a\nlayers: {app: {dockerfile: D}}\nbuild: {ca-certificates: ca.pem}\n";
    insta::assert_snapshot!(load(&["D"], text).unwrap_err(), @r"
    error: the certificate file `DIR/ca.pem` does not exist
      --> DIR/memobuild.yml:4:26
     3 | layers: {app: {dockerfile: D}}
     4 | build: {ca-certificates: ca.pem}
    hint: `host` means the bundle of the host
    ");
    assert!(load(&["D", "ca.pem"], text).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = Config::parse("memobuild.yml", &text);
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_right_one() {
    insta::assert_snapshot!(rejected(r"version: 1
image: acme/service
layers:
  app:
    dokerfile: Dockerfile
"), @r"
    error: unknown key `dokerfile`
      --> memobuild.yml:5:5
     4 |   app:
     5 |     dokerfile: Dockerfile
    hint: did you mean `dockerfile`?
    ");
}

#[test]
fn an_unknown_key_far_from_any_is_answered_with_all_of_them() {
    insta::assert_snapshot!(rejected(r"version: 1
image: acme/service
layers:
  app:
    dockerfile: Dockerfile
    colour: red
"), @r"
    error: unknown key `colour`
      --> memobuild.yml:6:5
     5 |     dockerfile: Dockerfile
     6 |     colour: red
    hint: known here: `dockerfile`, `context`, `from`, `base-arg`, `args`, `target`, `refresh`
    ");
}

#[test]
fn an_underscore_is_no_hyphen() {
    insta::assert_snapshot!(rejected(r"version: 1
image: acme/service
layers:
  base: {dockerfile: A}
  app: {dockerfile: B, from: base, base_arg: X}
"), @r"
    error: unknown key `base_arg`
      --> memobuild.yml:5:36
     4 |   base: {dockerfile: A}
     5 |   app: {dockerfile: B, from: base, base_arg: X}
    hint: did you mean `base-arg`?
    ");
}

#[test]
fn a_list_is_no_text() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app:
    dockerfile: [a, b]
"), @r"
    error: expected a text
      --> memobuild.yml:5:17
     4 |   app:
     5 |     dockerfile: [a, b]
    ");
}

#[test]
fn a_text_is_no_mapping() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: Dockerfile
"), @r"
    error: expected a mapping, `key: value`
      --> memobuild.yml:4:8
     3 | layers:
     4 |   app: Dockerfile
    ");
}

#[test]
fn a_text_is_no_number() {
    insta::assert_snapshot!(rejected(r"version: one
image: a
layers: {app: {dockerfile: D}}
"), @r"
    error: expected a whole number, 0 or more
      --> memobuild.yml:1:10
     1 | version: one
    ");
}

#[test]
fn a_number_below_zero_is_no_count() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
build: {jobs: -3}
"), @r"
    error: expected a whole number, 0 or more
      --> memobuild.yml:4:15
     3 | layers: {app: {dockerfile: D}}
     4 | build: {jobs: -3}
    ");
}

#[test]
fn no_jobs_build_nothing() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
build: {jobs: 0}
"), @r"
    error: `jobs` must be at least 1
      --> memobuild.yml:4:15
     3 | layers: {app: {dockerfile: D}}
     4 | build: {jobs: 0}
    ");
}

#[test]
fn an_argument_needs_a_value() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D, args: {A: }}}
"), @r#"
    error: expected a value; an empty text is `""`
      --> memobuild.yml:3:39
     2 | image: a
     3 | layers: {app: {dockerfile: D, args: {A: }}}
    "#);
}

#[test]
fn an_argument_has_a_name() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D, args: {A-B: x}}}
"), @r"
    error: `A-B` can't be the name of a build argument
      --> memobuild.yml:3:38
     2 | image: a
     3 | layers: {app: {dockerfile: D, args: {A-B: x}}}
    hint: use letters, digits and `_`, the first no digit
    ");
}

#[test]
fn a_missing_key_is_named_at_its_mapping() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  base: {dockerfile: D}
  app:
    context: .
"), @r"
    error: key `dockerfile` is missing
      --> memobuild.yml:6:5
     5 |   app:
     6 |     context: .
    ");
}

#[test]
fn a_key_stands_once() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D}
  app: {dockerfile: E}
"), @r"
    error: key `app` is there twice
      --> memobuild.yml:5:3
     4 |   app: {dockerfile: D}
     5 |   app: {dockerfile: E}
    ");
}

#[test]
fn an_unknown_word_is_answered_with_the_allowed_ones() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
build: {compression: zst}
"), @r"
    error: `zst` is none of `zstd`, `gzip`
      --> memobuild.yml:4:22
     3 | layers: {app: {dockerfile: D}}
     4 | build: {compression: zst}
    hint: did you mean `zstd`?
    ");
}

#[test]
fn a_duration_has_a_unit() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D, refresh: {max-age: 7 days}}
"), @r"
    error: `7 days` is not a duration such as `30s`, `15m`, `12h`, `7d` or `2w`
      --> memobuild.yml:4:43
     3 | layers:
     4 |   app: {dockerfile: D, refresh: {max-age: 7 days}}
    ");
}

#[test]
fn a_size_has_a_whole_unit() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
cache:
  max-age: 30d
  max-size: 10G
"), @r"
    error: `10G` is not a size such as `500MB`, `10GB` or `10GiB`
      --> memobuild.yml:6:13
     5 |   max-age: 30d
     6 |   max-size: 10G
    ");
}

#[test]
fn a_bracket_is_closed() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D
"), @r"
    error: unclosed bracket '{'
      --> memobuild.yml:4:8
     3 | layers:
     4 |   app: {dockerfile: D
    ");
}

#[test]
fn a_tab_indents_nothing() {
    insta::assert_snapshot!(rejected("version: 1\nimage: a\nlayers:\n\tapp: {dockerfile: D}\n"), @r"
    error: tabs disallowed within this context (block indentation)
      --> memobuild.yml:4:2
     3 | layers:
     4 | 	app: {dockerfile: D}
    ");
}

#[test]
fn an_empty_file_is_not_a_configuration() {
    insta::assert_snapshot!(rejected(""), @r"
    error: unexpected end of file
      --> memobuild.yml:1:1
    ");
}

#[test]
fn one_document_is_enough() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
---
version: 1
"), @r"
    error: only single YAML document expected but multiple found
      --> memobuild.yml:5:1
     4 | ---
     5 | version: 1
    ");
}

#[test]
fn an_alias_has_an_anchor() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: *d}}
"), @r"
    error: no anchor `&…` with this name stands above
      --> memobuild.yml:3:28
     2 | image: a
     3 | layers: {app: {dockerfile: *d}}
    ");
}

#[test]
fn another_version_is_another_format() {
    insta::assert_snapshot!(rejected(r"version: 2
image: a
layers: {app: {dockerfile: D}}
"), @r"
    error: version 2 is not supported
      --> memobuild.yml:1:10
     1 | version: 2
    hint: this memobuild-ci reads version 1
    ");
}

#[test]
fn an_image_name_has_no_tag() {
    insta::assert_snapshot!(rejected(r"version: 1
image: registry.example:5000/acme/service:latest
layers: {app: {dockerfile: D}}
"), @r"
    error: `registry.example:5000/acme/service:latest` is not an image name without a tag
      --> memobuild.yml:2:8
     1 | version: 1
     2 | image: registry.example:5000/acme/service:latest
    hint: leave the tag out: tags are made from variant and layer
    ");
}

#[test]
fn an_image_name_has_no_capitals() {
    insta::assert_snapshot!(rejected(r"version: 1
image: Service
layers: {app: {dockerfile: D}}
"), @r"
    error: `Service` is not an image name without a tag
      --> memobuild.yml:2:8
     1 | version: 1
     2 | image: Service
    hint: use lower-case letters, digits, `.`, `_`, `-`, and `/` between parts
    ");
}

#[test]
fn there_is_a_layer() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {}
"), @r"
    error: there is no layer
      --> memobuild.yml:3:9
     2 | image: a
     3 | layers: {}
    hint: add a layer: `layers: {app: {dockerfile: Dockerfile}}`
    ");
}

#[test]
fn a_layer_name_fits_into_a_tag() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  My App: {dockerfile: D}
"), @r"
    error: `My App` can't be the name of a layer
      --> memobuild.yml:4:3
     3 | layers:
     4 |   My App: {dockerfile: D}
    hint: it becomes a part of a tag: up to 63 lower-case letters, digits, `.`, `_`, `-`, the first a letter or digit
    ");
}

#[test]
fn a_parent_is_a_layer() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  base: {dockerfile: D}
  app: {from: bsae, dockerfile: D}
"), @r"
    error: layer `app` is built from unknown layer `bsae`
      --> memobuild.yml:5:15
     4 |   base: {dockerfile: D}
     5 |   app: {from: bsae, dockerfile: D}
    hint: did you mean `base`?
    ");
}

#[test]
fn a_parent_is_no_image() {
    insta::assert_snapshot!(rejected(r#"version: 1
image: a
layers:
  base: {dockerfile: D}
  app: {from: "debian:12", dockerfile: D}
"#), @r#"
    error: layer `app` is built from unknown layer `debian:12`
      --> memobuild.yml:5:15
     4 |   base: {dockerfile: D}
     5 |   app: {from: "debian:12", dockerfile: D}
    hint: `from` names a layer of this file; an image belongs into the Dockerfile's FROM
    "#);
}

#[test]
fn layers_are_not_built_from_each_other() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  base:
    dockerfile: D
    from: app
  ml:
    dockerfile: D
    from: base
  app:
    dockerfile: D
    from: ml
"), @r"
    error: layers are built from each other: `base` from `app` from `ml` from `base`
      --> memobuild.yml:9:11
     8 |     dockerfile: D
     9 |     from: base
    hint: one of them must not have a `from`
    ");
}

#[test]
fn a_layer_is_not_built_from_itself() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D, from: app}
"), @r"
    error: layers are built from each other: `app` from `app`
      --> memobuild.yml:4:30
     3 | layers:
     4 |   app: {dockerfile: D, from: app}
    hint: one of them must not have a `from`
    ");
}

#[test]
fn a_base_argument_stands_for_a_parent() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D, base-arg: PARENT}
"), @r"
    error: layer `app` has a `base-arg` and no `from`
      --> memobuild.yml:4:34
     3 | layers:
     4 |   app: {dockerfile: D, base-arg: PARENT}
    hint: add `from` with the layer that the argument stands for
    ");
}

#[test]
fn a_variant_changes_layers_that_there_are() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: D}
variants:
  cuda:
    platforms: [linux/amd64]
    layers:
      apps: {dockerfile: E}
"), @r"
    error: variant `cuda` changes unknown layer `apps`
      --> memobuild.yml:9:7
     8 |     layers:
     9 |       apps: {dockerfile: E}
    hint: did you mean `app`?
    ");
}

#[test]
fn a_platform_has_a_form() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
variants:
  cpu: {platforms: [linux/amd64, linux//arm64]}
"), @r"
    error: `linux//arm64` is not a platform of the form `os/arch[/variant]`
      --> memobuild.yml:5:34
     4 | variants:
     5 |   cpu: {platforms: [linux/amd64, linux//arm64]}
    ");
}

#[test]
fn a_platform_is_there_once_under_any_name() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
variants:
  cpu:
    platforms:
      - linux/amd64
      - x86_64
"), @r"
    error: platform `linux/amd64` is there twice
      --> memobuild.yml:8:9
     7 |       - linux/amd64
     8 |       - x86_64
    ");
}

#[test]
fn a_list_of_platforms_has_one() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers: {app: {dockerfile: D}}
variants:
  cpu: {platforms: []}
"), @r"
    error: `platforms` is empty
      --> memobuild.yml:5:20
     4 | variants:
     5 |   cpu: {platforms: []}
    hint: name one, such as `linux/amd64`, or leave the key out for the host's
    ");
}

#[test]
fn two_targets_never_share_a_tag() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  b-c: {dockerfile: D}
  c: {dockerfile: E}
variants:
  a: {platforms: [linux/amd64]}
  a-b: {platforms: [linux/amd64]}
"), @r"
    error: two targets would be tagged `a-b-c`: layer `c` of variant `a-b` and layer `b-c` of variant `a`
      --> memobuild.yml:8:3
     7 |   a: {platforms: [linux/amd64]}
     8 |   a-b: {platforms: [linux/amd64]}
    hint: rename one of the variants
    ");
}

#[test]
fn an_unknown_placeholder_is_an_error() {
    insta::assert_snapshot!(rejected(r#"version: 1
image: a
layers:
  app: {dockerfile: "docker/{varient}/Dockerfile"}
"#), @r#"
    error: unknown placeholder `{varient}`
      --> memobuild.yml:4:21
     3 | layers:
     4 |   app: {dockerfile: "docker/{varient}/Dockerfile"}
    hint: did you mean `{variant}`?
    "#);
}

#[test]
fn a_placeholder_is_closed() {
    insta::assert_snapshot!(rejected(r#"version: 1
image: a
layers:
  app: {dockerfile: "docker/{variant/Dockerfile"}
"#), @r#"
    error: `docker/{variant/Dockerfile` has a `{` without `}`
      --> memobuild.yml:4:21
     3 | layers:
     4 |   app: {dockerfile: "docker/{variant/Dockerfile"}
    "#);
}

#[test]
fn a_path_is_relative() {
    insta::assert_snapshot!(rejected(r"version: 1
image: a
layers:
  app: {dockerfile: Dockerfile, context: /srv/app}
"), @r"
    error: `/srv/app` is not relative
      --> memobuild.yml:4:42
     3 | layers:
     4 |   app: {dockerfile: Dockerfile, context: /srv/app}
    hint: paths start at the directory of `memobuild.yml`, so that they are right on every machine
    ");
}

#[test]
fn a_path_is_not_empty() {
    insta::assert_snapshot!(rejected(r#"version: 1
image: a
layers:
  app: {dockerfile: ""}
"#), @r#"
    error: `dockerfile` is empty
      --> memobuild.yml:4:21
     3 | layers:
     4 |   app: {dockerfile: ""}
    "#);
}

#[test]
fn control_characters_never_reach_the_terminal() {
    insta::assert_snapshot!(rejected("version: 1\nimage: \"a\\e[31mb\"\nlayers: {app: {dockerfile: D}}\n"), @r#"
    error: `ab` is not an image name without a tag
      --> memobuild.yml:2:8
     1 | version: 1
     2 | image: "a\e[31mb"
    hint: use lower-case letters, digits, `.`, `_`, `-`, and `/` between parts
    "#);
}

/// A configuration with this under `cache:`.
fn with_cache(lines: &str) -> String {
    format!("version: 1\nimage: a/b\nlayers: {{base: {{dockerfile: D}}}}\ncache:\n{lines}\n")
}

#[test]
fn remote_caches_have_several_forms() {
    let remotes = |lines: &str| {
        let config = Config::parse("memobuild.yml", &with_cache(lines)).unwrap();
        let remotes = config.cache.remote.into_iter();
        remotes
            .map(|remote| (remote.url, remote.read, remote.write))
            .collect::<Vec<_>>()
    };
    let plain = |url: &str| (url.to_owned(), true, Writes::Auto);
    assert_eq!(
        remotes("  remote: https://c.example"),
        [plain("https://c.example")]
    );
    assert_eq!(
        remotes(
            "  remote:\n  - gha://\n  - {url: \"s3://b\", read: false, write: true}\n  - {url: \"oci://r/x\", write: false}"
        ),
        [
            plain("gha://"),
            ("s3://b".to_owned(), false, Writes::Yes),
            ("oci://r/x".to_owned(), true, Writes::No),
        ]
    );
    assert_eq!(
        remotes("  remote: {url: \"gha://\", write: auto}"),
        [plain("gha://")]
    );
    let config = Config::parse(
        "memobuild.yml",
        &with_cache(
            "  scope: branch/x\n  also-read: [branch/y]\n  sign: {key-env: KEY}\n  save-timeout: 2m\n  \
             trust: {keys: [ci.pub.pem, MCowBQYDK2VwAyEA], require: [\"*\"]}",
        ),
    );
    let cache = config.unwrap().cache;
    assert_eq!(cache.scope.as_deref(), Some("branch/x"));
    assert_eq!(cache.also_read, ["branch/y"]);
    assert_eq!(cache.sign, Some(SigningKey::Variable("KEY".to_owned())));
    assert_eq!(cache.save_timeout.unwrap().as_secs(), 120);
    assert_eq!(
        cache.trust.keys,
        [
            TrustedKey::File("ci.pub.pem".into()),
            TrustedKey::Text("MCowBQYDK2VwAyEA".to_owned())
        ]
    );
    assert_eq!(cache.trust.require, Some(vec!["*".to_owned()]));
}

#[test]
fn wrong_settings_of_remote_caches_are_refused() {
    for (lines, says) in [
        ("  remote: 7", "expected"),
        ("  remote: [{read: true}]", "key `url` is missing"),
        ("  remote: [{url: x, wirte: true}]", "unknown key `wirte`"),
        (
            "  remote: {url: x, write: sometimes}",
            "`sometimes` is none of",
        ),
        ("  sign: {key: x}", "is none of"),
        ("  save-timeout: soon", "is not a duration"),
    ] {
        let said = rejected(&with_cache(lines));
        assert!(said.contains(says), "{lines}: {said}");
    }
}
