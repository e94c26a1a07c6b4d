//! Trees of cache mounts and remote caches: who finds what another runner left, and that nothing else
//! changes by it. They need root.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use memobuild_ci::{
    cache::{Access, Scope, SearchOrder},
    digest::Sha256Digest,
    event::{BuildEvent, Outcome},
    key::KeyKind,
};

use crate::{
    build_fixture::can_run,
    tier_lab::{Fault, Lab, LabTier, noise},
};

/// A tier, and a lab with a static busybox that saves trees of cache mounts.
fn runnable() -> Option<(Arc<LabTier>, Lab)> {
    if !can_run() {
        return None;
    }
    let tier = LabTier::new("lab://one");
    let mut lab = Lab::new(vec![tier.tier(Access::FULL)]);
    lab.mount_limit = Some(1 << 20);
    lab.write("busybox", fs::read("/bin/busybox").unwrap());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(lab.path("ctx/busybox"), mode).unwrap();
    Some((tier, lab))
}

/// A step with a cache mount at `/m` that runs `script`, in which `B` is busybox.
fn step(script: &str) -> String {
    let script = script.replace("B ", "/bin/busybox ");
    format!(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY data /data\n\
         RUN --mount=type=cache,target=/m [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n"
    )
}

/// The layers of the trees that were put under a scope.
fn trees(tier: &LabTier, scope: &Scope) -> Vec<Sha256Digest> {
    let entries = tier.entries().into_iter();
    let mounts = entries.filter(|e| e.kind == KeyKind::CacheMount && e.scope == *scope);
    mounts.map(|e| e.layer.unwrap().digest).collect()
}

fn restored(events: &[BuildEvent]) -> Vec<(&str, &str, &str)> {
    let restored = events.iter().filter_map(|event| match event {
        BuildEvent::MountRestored {
            id, tier, scope, ..
        } => Some((id.as_str(), tier.as_str(), scope.as_str())),
        _ => None,
    });
    restored.collect()
}

fn saved(events: &[BuildEvent]) -> usize {
    let saved = events.iter().filter_map(|event| match event {
        BuildEvent::MountsSaved { mounts, .. } => Some(*mounts),
        _ => None,
    });
    saved.sum()
}

#[test]
fn the_next_runner_finds_what_a_step_left() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    lab.write("data", "one");
    let make = step("B cp /data /m/kept; B touch -d @1500000000 /m/kept; B ls /m > /out");
    let first = lab.build(&make);
    assert_eq!((restored(&first.events), saved(&first.events)), (vec![], 1));
    assert_eq!(first.files["out"], "kept\n");
    // The packed form was for the way only: every blob here belongs to a step.
    let tree = trees(&tier, &Scope::local())[0];
    assert!(!lab.store().contains(&tree).unwrap());
    lab.push(&tier.tier(Access::FULL));

    // What the mount holds is in no key: a step that hits doesn't ask for it.
    lab.wipe();
    let hit = lab.build(&make);
    assert_eq!(hit.totals.ran, 0);
    assert_eq!((restored(&hit.events), saved(&hit.events)), (vec![], 0));
    assert!(!lab.path("cache/mounts").exists());

    lab.wipe();
    let second = lab.build(&step("B cp /m/kept /copied; B stat -c %Y /m/kept > /time"));
    assert_eq!(restored(&second.events), [("/m", "lab://one", "local")]);
    assert_eq!(second.files["copied"], "one");
    assert_eq!(second.files["time"], "1500000000\n");
    assert_eq!(saved(&second.events), 0, "it is as it came");
    assert!(second.warnings().is_empty(), "{:?}", second.warnings());
    assert!(!lab.store().contains(&tree).unwrap());

    // A directory that is on the machine is newer than any other.
    tier.forget_acts();
    let third = lab.build(&step("B cp /m/kept /m/more; B ls /m > /out"));
    assert_eq!((restored(&third.events), saved(&third.events)), (vec![], 1));
    assert_eq!(trees(&tier, &Scope::local()).len(), 2);
}

#[test]
fn a_tree_from_a_far_tier_is_given_to_nearer_ones() {
    let Some((far, mut lab)) = runnable() else {
        return;
    };
    lab.write("data", "one");
    lab.build(&step("B cp /data /m/kept"));
    let near = LabTier::new("lab://near");
    let read_only = LabTier::new("lab://read-only");
    lab.wipe();
    lab.tiers = vec![
        read_only.tier(Access::READ),
        near.tier(Access::FULL),
        far.tier(Access::FULL),
    ];
    let second = lab.build(&step("B cp /m/kept /copied"));
    assert_eq!(restored(&second.events), [("/m", "lab://one", "local")]);
    assert_eq!(saved(&second.events), 1);
    assert_eq!(
        trees(&near, &Scope::local()),
        trees(&far, &Scope::local()),
        "it is as it came"
    );
    assert!(trees(&read_only, &Scope::local()).is_empty());
    // The next one comes from near, and nobody lacks it.
    lab.wipe();
    let third = lab.build(&step("B cp /m/kept /copied; B true"));
    assert_eq!(restored(&third.events), [("/m", "lab://near", "local")]);
    assert_eq!(saved(&third.events), 0);
    assert_eq!(trees(&far, &Scope::local()).len(), 1);
    // What is of another scope stays where it is.
    lab.wipe();
    near.vanish_after(0);
    let other = LabTier::new("lab://other");
    lab.tiers = vec![other.tier(Access::FULL), far.tier(Access::FULL)];
    lab.scopes = SearchOrder::new(Scope::pull("7"), [Scope::local()]);
    lab.build(&step("B cp /m/kept /copied; B true 2"));
    assert!(trees(&other, &Scope::local()).is_empty());
}

#[test]
fn without_the_setting_nothing_is_asked_for() {
    let Some((tier, mut lab)) = runnable() else {
        return;
    };
    lab.mount_limit = None;
    lab.write("data", "one");
    let built = lab.build(&step("B cp /data /m/kept"));
    assert!(trees(&tier, &Scope::local()).is_empty());
    assert_eq!(saved(&built.events), 0);
    assert_eq!(built.outcome("RUN"), Outcome::Ran);
}

#[test]
fn a_pull_request_starts_from_the_protected_branch_and_writes_its_own() {
    let Some((tier, mut lab)) = runnable() else {
        return;
    };
    let (main, pull) = (Scope::protected(), Scope::pull("7"));
    lab.write("data", "good");
    lab.scopes = SearchOrder::new(main.clone(), []);
    lab.build(&step("B cp /data /m/kept"));
    let protected = trees(&tier, &main);
    assert_eq!(protected.len(), 1);

    lab.wipe();
    lab.write("data", "bad");
    lab.scopes = SearchOrder::new(pull.clone(), []);
    let built = lab.build(&step("B cat /m/kept > /out; B cp /data /m/kept"));
    assert_eq!(restored(&built.events), [("/m", "lab://one", "protected")]);
    assert_eq!(built.files["out"], "good");
    assert_eq!(trees(&tier, &main), protected);
    assert_eq!(trees(&tier, &pull).len(), 1);

    let look = step("B cat /m/kept > /out; B true 2");
    for (scope, found) in [(pull, "bad"), (Scope::pull("8"), "good"), (main, "good")] {
        lab.wipe();
        lab.scopes = SearchOrder::new(scope.clone(), []);
        let built = lab.build(&look);
        assert_eq!(built.files["out"], found, "{scope}");
    }
}

#[test]
fn a_tree_that_is_damaged_is_an_empty_cache_and_a_warning() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    lab.write("data", noise(1, 300_000));
    lab.build(&step("B cp /data /m/kept"));
    let entry = tier.entries().pop().unwrap();
    let layer = entry.layer.unwrap();
    let size = usize::try_from(layer.size).unwrap();
    for damaged in [noise(2, size), noise(2, size / 2)] {
        lab.wipe();
        let length = damaged.len();
        tier.store.replace(&layer.digest, damaged);
        let built = lab.build(&step(&format!("B ls /m > /out; B true {length}")));
        assert_eq!(built.files["out"], "");
        assert!(restored(&built.events).is_empty());
        let trouble: Vec<_> = built.warnings();
        assert_eq!(trouble.len(), 1, "{trouble:?}");
        assert!(trouble[0].contains("counts as a miss"), "{trouble:?}");
        let left = fs::read_dir(lab.path("cache/mounts")).unwrap().count();
        assert_eq!(left, 2, "the directory and its lock");
    }
}

#[test]
fn a_tree_above_the_limit_stays_here() {
    let Some((tier, mut lab)) = runnable() else {
        return;
    };
    lab.mount_limit = Some(299_999);
    lab.write("data", noise(1, 300_000));
    let built = lab.build(&step("B cp /data /m/kept"));
    assert!(trees(&tier, &Scope::local()).is_empty());
    let told = built.events.iter().filter_map(|event| match event {
        BuildEvent::MountTooLarge { id, bytes, limit } => Some((id.as_str(), *bytes, *limit)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [("/m", 300_000, 299_999)]);

    // Nor does it come from there, however small its blob is.
    lab.mount_limit = Some(1 << 20);
    lab.write("data", "0".repeat(500_000));
    lab.build(&step("B cp /data /m/kept"));
    let saved = trees(&tier, &Scope::local());
    assert_eq!(saved.len(), 1);
    lab.wipe();
    lab.mount_limit = Some(400_000);
    let built = lab.build(&step("B ls /m > /out"));
    assert_eq!(built.files["out"], "");
    let [warning] = built.warnings()[..] else {
        panic!("{:?}", built.warnings())
    };
    let expected = "the cache mount `/m` starts empty: ";
    assert!(warning.starts_with(expected), "{warning}");
    assert!(warning.ends_with("the limit of 400000 bytes"), "{warning}");
    // That it is empty here is no reason to lose it there.
    assert_eq!(trees(&tier, &Scope::local()), saved);
    let left = fs::read_dir(lab.path("cache/mounts")).unwrap().count();
    assert_eq!(left, 2, "the directory and its lock");
}

#[test]
fn owners_and_a_mount_of_another_owner_are_kept_apart() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    lab.write("data", "one");
    let text = |options: &str, script: &str| {
        step(script).replace("target=/m", &format!("target=/m{options}"))
    };
    let make = "B cp /data /m/kept; B chown 12:34 /m/kept; B chmod 640 /m/kept";
    lab.build(&text(",uid=5,mode=0700", make));
    lab.build(&text("", "B touch /m/other"));
    assert_eq!(trees(&tier, &Scope::local()).len(), 2);
    lab.wipe();
    let look = "B stat -c '%u %g %a' /m /m/kept > /out";
    let built = lab.build(&text(",uid=5,mode=0700", look));
    assert_eq!(built.files["out"], "5 0 700\n12 34 640\n");
    let mounts = fs::read_dir(lab.path("cache/mounts")).unwrap();
    let dirs = mounts.filter(|entry| {
        let metadata = entry.as_ref().unwrap().metadata().unwrap();
        metadata.is_dir() && metadata.uid() == 5
    });
    assert_eq!(dirs.count(), 1);
}

#[test]
fn a_cache_that_starts_with_files_keeps_what_was_removed_of_them() {
    let Some((_tier, lab)) = runnable() else {
        return;
    };
    lab.write("data", "one").write("a", "a").write("b", "b");
    let text = |script: &str| {
        let step = step(script).replace("target=/m", "target=/m,from=first");
        format!("FROM scratch AS first\nCOPY a b /\n{step}")
    };
    lab.build(&text("B rm /m/a; B cp /data /m/c"));
    lab.wipe();
    let built = lab.build(&text("B ls /m > /out"));
    assert_eq!(built.files["out"], "b\nc\n");
    assert_eq!(restored(&built.events).len(), 1);
}

#[test]
fn no_time_to_save_is_a_warning() {
    let Some((tier, mut lab)) = runnable() else {
        return;
    };
    lab.save_timeout = Duration::from_nanos(1);
    lab.write("data", "one");
    let built = lab.build(&step("B cp /data /m/kept"));
    assert!(trees(&tier, &Scope::local()).is_empty());
    let expected = "the cache mount `/m` was not saved: the time for saving is up";
    assert!(
        built.warnings().contains(&expected),
        "{:?}",
        built.warnings()
    );
    // The next build that uses it packs it again.
    lab.save_timeout = Duration::from_secs(60);
    let again = lab.build(&step("B ls /m"));
    assert_eq!(saved(&again.events), 1);
}

#[test]
fn a_tree_that_a_tier_does_not_show_counts_as_not_saved() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    lab.write("data", "one");
    tier.set(Fault::Hidden);
    let built = lab.build(&step("B cp /data /m/kept"));
    assert_eq!(saved(&built.events), 0);
    // Only results of steps are taken up by the next build.
    let store = lab.store();
    let left = store.unfinished_saves().unwrap();
    let kinds = left.iter().flat_map(|(save, _)| &save.entries);
    assert!(kinds.clone().count() > 0);
    assert!(kinds.into_iter().all(|e| e.kind != KeyKind::CacheMount));
}
