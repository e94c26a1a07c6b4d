//! What an invalidation is in words, and what can be done about it.

use super::history::Invalidation;
use crate::plan::Reason;

/// In one sentence: `requirements/app.txt` invalidates ml, by what, how often.
pub(super) fn sentence(found: &Invalidation, commits: usize) -> String {
    let times = match found.commits {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        times => format!("{times} times"),
    };
    let often = match commits {
        1 => format!("{times} in 1 commit"),
        commits => format!("{times} in {commits} commits"),
    };
    let (layer, instruction) = (&found.layer, &found.instruction);
    let place = match &found.location {
        Some(location) => format!("`{instruction}` in {location}"),
        None => format!("`{instruction}`"),
    };
    let what = match (&found.path, found.reason) {
        (Some(path), _) => format!("{path} invalidates {layer} through {place}"),
        (None, Reason::DockerfileChanged) => {
            format!("a changed line invalidates {layer}: {place}")
        }
        (None, Reason::BaseImageChanged) => {
            format!("another version of its base image invalidates {layer}: {place}")
        }
        (None, Reason::NewTarget) => format!("{layer} is new"),
        (None, Reason::InputsUnknown) => {
            format!("what {layer} copies can't be told: {instruction}")
        }
        (None, Reason::SettingsChanged) => {
            format!("an argument, a variable or a setting invalidates {layer} through {place}")
        }
        (None, _) => format!("another choice of files invalidates {layer} through {place}"),
    };
    format!("{what}: {often}")
}

/// What to do about it.
pub(super) fn fix(found: &Invalidation) -> String {
    match found.reason {
        Reason::FilesChanged => files(found),
        Reason::DockerfileChanged => {
            "put lines that change often below those that don't".to_owned()
        }
        Reason::SettingsChanged => {
            "declare the argument, or set the variable, right above the first step that uses it"
                .to_owned()
        }
        Reason::BaseImageChanged => {
            "change the version of the base image together with other changes of the layer"
                .to_owned()
        }
        Reason::InputsUnknown if found.instruction.contains("`.git`") => {
            "name `.git` in `.dockerignore`: each commit changes it".to_owned()
        }
        Reason::InputsUnknown => {
            "copy only what can be read from the commit, or check it out".to_owned()
        }
        _ => "nothing: it has to be built".to_owned(),
    }
}

fn files(found: &Invalidation) -> String {
    let sources = sources(&found.instruction);
    let Some(path) = &found.path else {
        return match sources.iter().any(|source| is_all(source)) {
            true => WHOLE.to_owned(),
            false => MOVE.to_owned(),
        };
    };
    let name = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let is_named = |source: &String| {
        let source = source.trim_start_matches("./");
        path == source || path.ends_with(&format!("/{source}"))
    };
    if !path.ends_with('/') && sources.iter().any(is_named) {
        return MOVE.to_owned();
    }
    if sources.iter().any(|source| is_all(source)) {
        return format!("name `{path}` in `.dockerignore` if no step reads it; else {WHOLE}");
    }
    let dir = sources
        .iter()
        .find(|source| path.contains(source.trim_matches(['.', '/'])));
    match dir {
        Some(dir) => format!(
            "copy only the files of `{dir}` that the next steps read, or name `{}` in `.dockerignore` if none does; else {MOVE}",
            if path.ends_with('/') {
                path.clone()
            } else {
                name(path)
            },
        ),
        None => MOVE.to_owned(),
    }
}

/// What to do about a file that is needed.
const MOVE: &str = "move the instruction below the steps that don't read it";

/// What to do about a copy of everything.
const WHOLE: &str = "copy first what the slow steps read, and everything else below them";

/// What of `path` lies right in the directory that the instruction copies: the file, or the directory
/// that it is in, with a slash at its end.
pub(super) fn first_below(instruction: &str, path: &str) -> String {
    let below = |source: &String| {
        if is_all(source) {
            return Some(0);
        }
        let source = source.trim_start_matches("./").trim_end_matches('/');
        let start = path.find(&format!("{source}/"))?;
        let whole = start == 0 || path[..start].ends_with('/');
        whole.then_some(start + source.len() + 1)
    };
    let start = sources(instruction).iter().find_map(below);
    match start.and_then(|start| Some((start, path[start..].find('/')?))) {
        Some((start, length)) => path[..=start + length].to_owned(),
        None => path.to_owned(),
    }
}

/// The sources of a COPY or ADD, as far as its line tells.
fn sources(instruction: &str) -> Vec<String> {
    let clean = |word: &str| word.trim_matches(['[', ']', '"', ',', '\'']).to_owned();
    let words = instruction.split_whitespace().skip(1);
    let mut words: Vec<String> = words
        .filter(|word| !word.starts_with("--"))
        .map(clean)
        .collect();
    words.pop();
    words
}

fn is_all(source: &str) -> bool {
    matches!(source, "." | "./" | "/" | "*" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(reason: Reason, instruction: &str, path: Option<&str>) -> Invalidation {
        Invalidation {
            layer: "ml".to_owned(),
            reason,
            instruction: instruction.to_owned(),
            location: Some("docker/cpu/Dockerfile.ml:8".to_owned()),
            path: path.map(str::to_owned),
            commits: 6,
            last: "c".to_owned(),
            steps: 12,
            ms: 0,
            sentence: String::new(),
            fix: String::new(),
        }
    }

    #[test]
    fn sentences_say_who_what_where_and_how_often() {
        let copy = found(
            Reason::FilesChanged,
            "COPY requirements/ /tmp/",
            Some("requirements/app.txt"),
        );
        assert_eq!(
            sentence(&copy, 200),
            "requirements/app.txt invalidates ml through `COPY requirements/ /tmp/` in docker/cpu/Dockerfile.ml:8: 6 times in 200 commits"
        );
        let once = Invalidation {
            commits: 1,
            ..found(Reason::DockerfileChanged, "RUN", None)
        };
        assert!(sentence(&once, 1).ends_with("Dockerfile.ml:8: once in 1 commit"));
    }

    #[test]
    fn fixes_fit_the_instruction() {
        let fix = |instruction, path| fix(&found(Reason::FilesChanged, instruction, path));
        let dir = fix("COPY requirements/ /tmp/", Some("requirements/app.txt"));
        assert!(
            dir.starts_with("copy only the files of `requirements/`"),
            "{dir}"
        );
        assert!(dir.contains("`app.txt` in `.dockerignore`"), "{dir}");
        let named = fix(
            "COPY --chmod=644 requirements/app.txt /tmp/",
            Some("requirements/app.txt"),
        );
        assert_eq!(named, MOVE);
        let all = fix("COPY . /srv", Some("docs/a.md"));
        assert!(
            all.starts_with("name `docs/a.md` in `.dockerignore`"),
            "{all}"
        );
        assert_eq!(fix("COPY [\".\", \"/srv\"]", None), WHOLE);
    }

    #[test]
    fn paths_end_below_what_is_copied() {
        for (instruction, path, first) in [
            ("COPY src/ /srv/", "src/a/b/c.py", "src/a/"),
            ("COPY src /srv/", "src/main.py", "src/main.py"),
            ("COPY src /srv/", "service/src/a/b.py", "service/src/a/"),
            ("COPY . /srv", "docs/a/b.md", "docs/"),
            ("COPY . /srv", "README.md", "README.md"),
            ("COPY a.txt /srv", "a.txt", "a.txt"),
            ("COPY b /srv", "ab/c/d", "ab/c/d"),
        ] {
            assert_eq!(first_below(instruction, path), first, "{instruction}");
        }
    }

    #[test]
    fn a_copied_git_directory_is_named() {
        let found = found(
            Reason::InputsUnknown,
            "`COPY . .`: `.git`: it is Git's own directory",
            None,
        );
        assert!(fix(&found).contains(".dockerignore"));
    }
}
