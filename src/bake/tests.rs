//! Plans and refusals that need no oracle; those that have one are in `tests/e2e/bake/`.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn no_file(_: &str) -> Result<Option<String>, String> {
    Ok(None)
}

fn inputs(name: &str, text: &str) -> Inputs<'static> {
    Inputs {
        files: vec![File {
            name: name.to_owned(),
            text: text.to_owned(),
        }],
        targets: Vec::new(),
        overrides: Vec::new(),
        env: &nothing,
        read: &no_file,
        local_platform: "linux/amd64".to_owned(),
        now: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        home: "/home/me".to_owned(),
    }
}

fn plan_of(text: &str) -> Result<Plan, BakeError> {
    read(inputs("docker-bake.hcl", text))
}

/// The value of an expression, as text.
fn value(expression: &str) -> Result<String, String> {
    let text = format!("target \"default\" {{ args = {{ A = {expression} }} }}");
    let plan = plan_of(&text).map_err(|error| error.to_string())?;
    Ok(plan.targets["default"].args["A"].clone())
}

#[test]
fn what_depends_on_the_surroundings_is_handed_in() {
    assert_eq!(value("timestamp()").unwrap(), "2023-11-14T22:13:20Z");
    assert_eq!(value("homedir()").unwrap(), "/home/me");
    assert_eq!(value("BAKE_LOCAL_PLATFORM").unwrap(), "linux/amd64");
}

#[test]
fn functions_without_a_stable_result_are_refused_with_the_reason() {
    for name in ["bcrypt", "uuidv4", "rsadecrypt"] {
        let error = value(&format!("{name}(\"x\")")).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    assert!(value("bcrypt(\"x\")").unwrap_err().contains("every build"));
}

#[test]
fn division_by_zero_is_an_error() {
    for expression in ["1 / 0", "1 % 0", "divide(1, 0)", "modulo(1, 0.0)"] {
        let error = value(expression).unwrap_err();
        assert!(error.contains("zero"), "{expression}: {error}");
    }
}

#[test]
fn work_and_depth_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000));
    assert!(value(&deep).is_err());
    for expression in [
        "range(1000000)",
        "setproduct(range(3000), range(3000))",
        "length([for a in range(2000) : [for b in range(2000) : 1]])",
        "indent(100000000, \"a\\n\\n\\n\")",
        "format(\"%99999999d\", 1)",
    ] {
        assert!(value(expression).is_err(), "{expression}");
    }
    // References that lead to references.
    let mut text = "target \"default\" { args = { A = V0 } }\n".to_owned();
    for n in 0..3_000 {
        text += &format!("variable \"V{n}\" {{ default = \"${{V{}}}\" }}\n", n + 1);
    }
    text += "variable \"V3000\" { default = \"x\" }\n";
    let error = plan_of(&text).unwrap_err();
    assert!(matches!(*error.problem, Problem::TooDeep { .. }), "{error}");
    let matrix =
        "target \"t\" {\n matrix = { a = range(200), b = range(200) }\n name = \"t${a}-${b}\"\n}";
    let error = plan_of(matrix).unwrap_err();
    assert!(
        matches!(*error.problem, Problem::MatrixTooLarge { .. }),
        "{error}"
    );
}

#[test]
fn inheritance_in_a_circle_ends() {
    let text = "target \"default\" {\n inherits = [\"b\"]\n tags = [\"a\"]\n}\ntarget \"b\" {\n inherits = [\"default\"]\n labels = { b = \"1\" }\n}";
    let plan = plan_of(text).unwrap();
    assert_eq!(plan.targets["default"].labels["b"], "1");
}

#[test]
fn an_attribute_that_does_not_exist_is_a_warning_with_a_hint() {
    let plan = plan_of("target \"default\" {\n  dockerfil = \"x\"\n}\n").unwrap();
    let [warning] = plan.warnings.as_slice() else {
        panic!("{:?}", plan.warnings);
    };
    assert_eq!(warning.place.as_deref(), Some("docker-bake.hcl:2:3"));
    assert_eq!(warning.hint.as_deref(), Some("did you mean `dockerfile`?"));
}

#[test]
fn attributes_that_would_change_a_build_unseen_are_refused() {
    for attribute in [
        "policy = [\"filename=x\"]",
        "resources = { memory = \"1g\" }",
    ] {
        let error = plan_of(&format!("target \"default\" {{\n  {attribute}\n}}\n")).unwrap_err();
        assert!(
            matches!(*error.problem, Problem::Unsupported { .. }),
            "{error}"
        );
        assert_eq!(error.line, 2);
    }
}

#[test]
fn blocks_that_do_not_exist_are_errors() {
    let error = plan_of("targets \"a\" {}\n").unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `target`?"));
    assert_eq!(error.place().as_deref(), Some("docker-bake.hcl:1:1"));
    assert!(plan_of("target {}\n").is_err());
    assert!(plan_of("target \"a\" \"b\" {}\n").is_err());
}

#[test]
fn places_count_characters_and_lines_as_editors_do() {
    let text = "\u{feff}# é\ntarget \"default\" { args = { A = \"é\", B = nope } }\n";
    let error = plan_of(text).unwrap_err();
    assert_eq!((error.line, error.column), (2, 42));
    assert!(
        error.excerpt().contains(" 2 | target"),
        "{}",
        error.excerpt()
    );
}

#[test]
fn ssh_keys_and_agents_in_all_forms() {
    let text = r#"
target "default" {
  ssh = ["default", "a=x,y", { id = "b", paths = ["p", "q"] }]
}
target "other" {
  ssh = target.default.ssh
}
"#;
    let mut all = inputs("docker-bake.hcl", text);
    all.targets = vec!["default".to_owned(), "other".to_owned()];
    let plan = read(all).unwrap();
    let ssh = plan.targets["default"].ssh.clone().unwrap();
    let shown: Vec<String> = ssh
        .iter()
        .map(|entry| format!("{}:{}", entry.id, entry.paths.join("+")))
        .collect();
    assert_eq!(shown, ["default:", "a:x+y", "b:p+q"]);
    assert_eq!(plan.targets["other"].ssh.clone().unwrap(), ssh);
}

#[test]
fn overrides_that_buildx_takes_in_both_spellings() {
    for (option, shown) in [
        ("default.tag=x", "\"tags\""),
        ("default.tags=x", "\"tags\""),
        ("default.ulimit=nofile=1", "\"ulimits\""),
        ("default.no-cache-filter=a", "\"no-cache-filter\""),
        ("default.network=none", "\"network\": \"none\""),
        ("def*.label.a=b", "\"a\": \"b\""),
    ] {
        let mut inputs = inputs("docker-bake.hcl", "target \"default\" {}\n");
        inputs.overrides = vec![option.to_owned()];
        let plan = read(inputs).unwrap();
        assert!(
            plan.to_json().contains(shown),
            "{option}: {}",
            plan.to_json()
        );
    }
}

#[test]
fn a_file_without_an_ending_is_tried() {
    for (text, kind) in [
        ("target \"default\" { tags = [\"x\"] }", "hcl"),
        ("{\"target\": {\"default\": {\"tags\": [\"x\"]}}}", "json"),
        ("services:\n  a:\n    build: .\n    image: x\n", "compose"),
    ] {
        let plan = read(inputs("Bakefile", text)).unwrap();
        let tags: Vec<_> = plan.targets.values().flat_map(|t| t.tags.clone()).collect();
        assert_eq!(tags, [["x"]], "{kind}");
    }
}

/// A file of `count` targets, a fifth of them from a matrix.
fn large(count: usize) -> String {
    let mut text = String::from(
        r#"
variable "REGISTRY" { default = "registry.example" }
function "image" {
  params = [name]
  result = "${REGISTRY}/${lower(name)}:${formatdate("YYYY", "2026-01-01T00:00:00Z")}"
}
target "_common" {
  args = { A = "a", B = "b" }
  labels = { team = "x" }
  platforms = ["linux/amd64", "linux/arm64"]
}
"#,
    );
    let rows = count / 5;
    text += &format!(
        "target \"matrix\" {{\n  name = \"m${{n}}\"\n  matrix = {{ n = range({rows}) }}\n  inherits = [\"_common\"]\n  tags = [image(\"M${{n}}\")]\n}}\n"
    );
    for n in 0..count - rows {
        let parent = if n == 0 {
            "_common".to_owned()
        } else {
            format!("t{}", n - n % 10)
        };
        let parent = if n % 10 == 0 {
            "_common".to_owned()
        } else {
            parent
        };
        text += &format!(
            "target \"t{n}\" {{\n  inherits = [\"{parent}\"]\n  tags = [image(\"T{n}\")]\n  args = {{ N = {n}, P = target._common.args.A }}\n}}\n"
        );
    }
    let names: Vec<String> = (0..count - rows).map(|n| format!("\"t{n}\"")).collect();
    text + &format!(
        "group \"default\" {{ targets = [\"matrix\", {}] }}\n",
        names.join(", ")
    )
}

/// Nanoseconds that this thread has run: other work of the machine doesn't count.
fn thread_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn many_targets_take_time_in_proportion() {
    let time = |count: usize| {
        let inputs = inputs("docker-bake.hcl", &large(count));
        let best = (0..5).map(|_| {
            let start = thread_time();
            let plan = plan(&inputs).unwrap();
            assert_eq!(plan.targets.len(), count);
            thread_time() - start
        });
        best.min().unwrap()
    };
    let (few, many) = (time(200), time(2_000));
    // Ten times as many; a quadratic step would make it a hundred times as long.
    assert!(
        many < few * 30,
        "{few} ns for 200 targets, {many} ns for 2,000"
    );
}

#[test]
fn documents_of_a_compose_file_are_merged_in_their_order() {
    let plan = composed(&[
        (
            "compose.yaml",
            "# nothing yet\n---\nservices:\n  a: {build: {context: one, args: {X: '1', Y: '1'}}}\n---\n\
             services:\n  a: {build: {context: two, args: {Y: '2'}}}\n  b: {extends: {service: e, file: other.yaml}}\n...\n",
        ),
        ("other.yaml", "x-nothing: 1\n---\nservices: {e: {build: {target: t}}}\n"),
    ])
    .unwrap();
    let a = &plan.targets["a"];
    assert_eq!(a.context.as_deref(), Some("two"));
    assert_eq!((a.args["X"].as_str(), a.args["Y"].as_str()), ("1", "2"));
    assert_eq!(plan.targets["b"].target.as_deref(), Some("t"));
    let error = composed(&[(
        "compose.yaml",
        "services: {}\n---\nservices:\n  a: {build: {context: [x]}}\n",
    )]);
    let place = error.unwrap_err().place();
    assert_eq!(place.as_deref(), Some("compose.yaml:4:24"));
}

/// The plan of `compose.yaml` among these files.
fn composed(files: &[(&str, &str)]) -> Result<Plan, BakeError> {
    let text = |name: &str| {
        let found = files.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| (*text).to_owned())
    };
    read(Inputs {
        read: &|name| Ok(text(name)),
        ..inputs("compose.yaml", &text("compose.yaml").unwrap())
    })
}

#[test]
fn paths_start_where_the_file_is_that_has_them() {
    let plan = composed(&[
        ("compose.yaml", "include: [a/compose.yaml, {path: a/b/more.yaml, project_directory: p}]"),
        (
            "a/compose.yaml",
            "include: [b/compose.yaml]\nservices: {a: {extends: {service: e, file: ../x/e.yaml}}}",
        ),
        ("a/b/compose.yaml", "services: {b: {build: ../c}, d: {build: {dockerfile_inline: FROM scratch}}}"),
        ("a/b/more.yaml", "services: {p: {build: /abs}, q: {build: q}, r: {build: 'https://h/r.git'}}"),
        ("x/e.yaml", "services: {e: {env_file: e.env, build: {context: ctx, additional_contexts: {n: n}, args: [V]}}}"),
        ("x/e.env", "V=here"),
    ])
    .unwrap();
    let context = |name: &str| plan.targets[name].context.clone().unwrap();
    let contexts = ["a", "b", "d", "p", "q", "r"].map(context);
    assert_eq!(
        contexts,
        ["x/ctx", "a/c", "a/b", "/abs", "p/q", "https://h/r.git"]
    );
    assert_eq!(plan.targets["a"].contexts["n"], "x/n");
    assert_eq!(plan.targets["a"].args["V"], "here");
}

#[test]
fn what_a_file_says_goes_before_what_it_includes() {
    let plan = composed(&[
        (
            "compose.yaml",
            "include: [one.yaml, two.yaml]\nservices: {w: {build: {args: {A: own}}}}",
        ),
        (
            "one.yaml",
            "services: {w: {build: {context: one, args: {A: one, B: one}}}}",
        ),
        (
            "two.yaml",
            "services: {w: {build: {context: two, target: two, args: {B: two, C: two}}}}",
        ),
    ])
    .unwrap();
    let target = &plan.targets["w"];
    let args: Vec<&str> = target.args.values().map(String::as_str).collect();
    assert_eq!(args, ["own", "one", "two"]);
    assert_eq!(
        (target.context.as_deref(), target.target.as_deref()),
        (Some("one"), Some("two"))
    );
}

#[test]
fn includes_that_never_end_are_refused() {
    let error = composed(&[("compose.yaml", "include: [./compose.yaml]")]).unwrap_err();
    assert!(error.to_string().contains("includes itself"), "{error}");
    // Each file twice: without a limit as many as two to the power of the depth.
    let names: Vec<String> = (0..40).map(|n| format!("{n}.yaml")).collect();
    let texts: Vec<String> = (1..41)
        .map(|n| format!("include: [{n}.yaml, {n}.yaml]"))
        .collect();
    let mut files: Vec<(&str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(texts.iter().map(String::as_str))
        .collect();
    files.push(("40.yaml", "services: {}"));
    files.push(("compose.yaml", "include: [0.yaml]"));
    let error = composed(&files).unwrap_err();
    assert!(error.to_string().contains("more than 500 files"), "{error}");
}

#[test]
fn wrong_includes_are_told() {
    for (include, message) in [
        ("[{path: []}]", "an include has no `path`"),
        ("[{paths: a.yaml}]", "`include` has no `paths`"),
        (
            "[{path: a.yaml, env_file: none.env}]",
            "can't read `none.env`: it does not exist",
        ),
        ("[[{}]]", "expected a string, found a mapping"),
        ("[a.yaml]", "in `a.yaml:2:9`: `build` has no `contxt`"),
    ] {
        let text = format!("include: {include}");
        let files = [
            ("compose.yaml", text.as_str()),
            ("a.yaml", "services: {a: {build: {\ncontxt: b}}}"),
        ];
        let error = composed(&files).unwrap_err();
        assert!(error.to_string().contains(message), "{include}: {error}");
        assert_eq!(error.line, 1, "{include}");
    }
}
