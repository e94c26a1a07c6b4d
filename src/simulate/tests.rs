//! Events that are played are read as they are meant, and lead to the base that is meant.

use std::collections::BTreeMap;

use super::*;
use crate::{
    ci::{self, CiContext, Event},
    config::env::Env,
    git::{Repository, Surroundings, resolve::resolve},
};

/// A repository with a feature branch that left `main` at its second commit, and one commit more
/// on `main`.
struct Fixture {
    dir: tempfile::TempDir,
    ids: BTreeMap<&'static str, String>,
}

impl Fixture {
    fn new() -> Option<Self> {
        if std::process::Command::new("git")
            .arg("--version")
            .output()
            .is_err()
        {
            assert!(
                std::env::var_os("CI").is_none(),
                "the program `git` is missing"
            );
            eprintln!("skipped: needs the program `git`");
            return None;
        }
        let mut fixture = Self {
            dir: tempfile::tempdir().unwrap(),
            ids: BTreeMap::new(),
        };
        fixture.git(&["init", "-q", "-b", "main"]);
        for name in ["a", "b"] {
            fixture.commit(name);
        }
        fixture.git(&["tag", "v1"]);
        fixture.git(&["checkout", "-q", "-b", "feature"]);
        for name in ["f1", "f2"] {
            fixture.commit(name);
        }
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("c");
        fixture.git(&["merge", "-q", "--no-ff", "-m", "m", "feature"]);
        let id = fixture.git(&["rev-parse", "HEAD"]);
        fixture.ids.insert("m", id);
        // What a platform merged is on no branch.
        fixture.git(&["update-ref", "refs/pull/1/merge", "HEAD"]);
        fixture.git(&["reset", "-q", "--hard", "HEAD^1"]);
        Some(fixture)
    }

    fn git(&self, args: &[&str]) -> String {
        let date = format!("{} +0000", 1_700_000_000 + 60 * self.ids.len());
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&mut self, name: &'static str) {
        self.git(&["commit", "-q", "--allow-empty", "-m", name]);
        let id = self.git(&["rev-parse", "HEAD"]);
        self.ids.insert(name, id);
    }

    fn name(&self, id: &str) -> &'static str {
        self.ids.iter().find(|(_, i)| *i == id).unwrap().0
    }

    fn facts(&self, head: &str, base: &str, branch: &str) -> Facts {
        let repository = Repository::discover_in(self.dir.path(), Surroundings::None)
            .unwrap()
            .unwrap();
        let commit = repository.commit(&self.ids[head]).unwrap();
        Facts {
            head: commit.id.to_string(),
            parents: commit.parents.iter().map(ToString::to_string).collect(),
            message: commit.message,
            base: Some(self.ids[base].clone()),
            branch: branch.to_owned(),
            default_branch: "main".to_owned(),
            repository: "acme/service".to_owned(),
            remote: "https://git.example/acme/service.git".to_owned(),
            tag: "v2".to_owned(),
            number: 7,
        }
    }

    /// What is detected of the event, and the base that is found: its reason and name.
    fn played(&self, event: &SyntheticEvent, head: &str) -> (CiContext, String) {
        let own = Env::from_pairs(&[("HOME", "/h"), ("GITHUB_REF", "refs/heads/of-the-real-job")]);
        let mut event = event.clone();
        let path = self.dir.path().join("event.json");
        if let Some(payload) = &event.payload {
            crate::fs::write_atomic(&path, payload.to_string().as_bytes()).unwrap();
            let path = path.to_str().unwrap().to_owned();
            event.variables.insert("GITHUB_EVENT_PATH", path);
        }
        let context = ci::detect(&event.env(&own));
        let repository = Repository::discover_in(self.dir.path(), Surroundings::None)
            .unwrap()
            .unwrap();
        let head = repository.commit(&self.ids[head]).unwrap().id;
        let found = resolve(&repository, head, &context.base);
        let base = match found.commit {
            Some(id) => format!("{} {}", found.reason, self.name(&id.to_string())),
            None => format!("none {}", found.reason),
        };
        assert_eq!(
            found.mismatch, None,
            "{:?} {:?}",
            event.platform, event.kind
        );
        (context, base)
    }
}

fn expected_event(kind: EventKind) -> Event {
    match kind {
        EventKind::Push | EventKind::NewBranch | EventKind::ForcePush => Event::Push,
        EventKind::PullRequest => Event::PullRequest,
        EventKind::Tag => Event::Tag,
        EventKind::Schedule => Event::Schedule,
        EventKind::MergeGroup => Event::MergeGroup,
        EventKind::Dispatch => Event::Dispatch,
    }
}

#[test]
fn every_event_of_every_platform_is_read_as_it_is_meant() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let mut table = String::new();
    for platform in PLATFORMS {
        for kind in EventKind::ALL {
            let (head, base, branch) = match kind {
                EventKind::MergeGroup => ("m", "c", "feature"),
                EventKind::Tag | EventKind::Schedule => ("c", "b", "main"),
                EventKind::PullRequest => ("f2", "c", "feature"),
                _ => ("f2", "f1", "feature"),
            };
            let facts = fixture.facts(head, base, branch);
            let event = match synthesize(platform, kind, &facts) {
                Ok(event) => event,
                Err(error) => {
                    assert!(error.hint().starts_with("there are `push`"), "{error}");
                    table += &format!("{} {}: none\n", platform.word(), kind.word());
                    continue;
                }
            };
            let (context, base) = fixture.played(&event, head);
            assert_eq!(context.platform, platform, "{kind:?}");
            assert_eq!(context.event, expected_event(kind), "{platform:?}");
            assert_eq!(
                context.head.as_deref(),
                Some(&*facts.head),
                "{platform:?} {kind:?}"
            );
            assert!(context.trouble.is_empty());
            match kind {
                EventKind::Tag => assert_eq!(context.tag(), Some("v2"), "{platform:?}"),
                EventKind::PullRequest => {
                    let request = context.pull_request.as_ref().unwrap();
                    assert_eq!(request.number.as_deref(), Some("7"), "{platform:?}");
                    assert_eq!(context.source_branch(), Some("feature"), "{platform:?}");
                }
                EventKind::Push | EventKind::NewBranch | EventKind::ForcePush => {
                    assert_eq!(context.branch(), Some("feature"), "{platform:?} {kind:?}");
                }
                _ => {}
            }
            table += &format!("{} {}: {base}\n", platform.word(), kind.word());
        }
    }
    insta::assert_snapshot!(table, @"");
}

#[test]
fn a_merge_that_a_platform_made_is_taken_for_one() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let facts = fixture.facts("m", "c", "feature");
    for platform in PLATFORMS {
        let mut event = synthesize(platform, EventKind::PullRequest, &facts).unwrap();
        // Those that name the commit and check out a merge of it say so.
        for value in event.variables.values_mut() {
            assert_ne!(value, "");
        }
        let (_, base) = fixture.played(&event, "m");
        assert!(base.ends_with(" c"), "{platform:?}: {base}");
    }
}

#[test]
fn kinds_have_names() {
    for kind in EventKind::ALL {
        assert_eq!(EventKind::of(kind.word()), Some(kind));
    }
    assert_eq!(EventKind::of("pull-request"), Some(EventKind::PullRequest));
    assert_eq!(EventKind::of("nothing"), None);
}

fn small_history() -> History {
    History {
        schema_version: HISTORY_VERSION,
        head: "0123456789abcdef".to_owned(),
        totals: Totals {
            commits: 2,
            nothing: 1,
            unreadable: 0,
            amount: Amount {
                steps: 4,
                ran: 1,
                known: 4,
                ms: 8000,
                ran_ms: 2000,
                bytes: 4000,
                ran_bytes: 1000,
            },
        },
        targets: Vec::new(),
        invalidations: Vec::new(),
        commits: vec![PlayedCommit {
            commit: "0123456789abcdef".to_owned(),
            subject: "<script>alert('x')</script> & \u{1b}[31m".to_owned(),
            time: 0,
            changed_files: 1,
            error: Some("`memobuild.yml`: \"<b>\"".to_owned()),
            amount: Amount::default(),
            targets: Vec::new(),
        }],
    }
}

#[test]
fn a_page_loads_nothing_and_runs_nothing() {
    let page = page(&small_history());
    assert!(
        !page.contains("<script") && !page.contains("<b>\""),
        "{page}"
    );
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; "));
    assert!(!page.contains('\u{1b}'));
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme:dark"));
    assert!(page.contains("50.0 %") && page.contains("75.0 %"));
}
