//! Builds with remote caches: what is read and saved when, and that nothing that is wrong with
//! one fails or alters a build.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use memobuild_ci::{
    cache::{Access, BlobStore as _, Scope, SearchOrder, Tier, Vouching},
    event::{BuildEvent, Outcome},
};

use crate::{
    build_fixture::can_run,
    server::Served,
    tier_lab::{Fault, Lab, LabTier, noise},
};

/// Three steps, one upon the other, and a fourth that copies from another stage.
const COPIES: &str = "FROM scratch AS made\nCOPY a /a\nCOPY b /b\n\
    FROM scratch\nCOPY c /c\nCOPY --from=made /b /from\n";

fn copies(lab: &Lab) {
    lab.write("a", noise(1, 300_000))
        .write("b", "bbb")
        .write("c", noise(3, 200_000));
}

#[test]
fn an_unchanged_build_on_an_empty_runner_reads_only_metadata() {
    let tier = LabTier::new("lab://one");
    let mut lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    let first = lab.build(COPIES);
    assert_eq!(first.saved(), Some((4, 0)));
    lab.wipe();
    tier.forget_acts();
    lab.wants_bytes = false;
    let second = lab.build(COPIES);
    assert_eq!(second.layers, first.layers);
    assert_eq!((second.totals.ran, second.warnings().len()), (0, 0));
    assert_eq!(tier.acts(), ["lookup 4"], "one batch and nothing else");
    assert!(second.totals.bytes_fetched < 10_000);
    assert_eq!(second.totals.cache_requests, 1);
    assert_eq!(second.saved(), None);
    // Nothing says later that it is here.
    assert!(lab.store().actions().unwrap().is_empty());
    let name = second.events.iter().find_map(|event| match event {
        BuildEvent::StepFinished { tier, .. } => tier.clone(),
        _ => None,
    });
    assert_eq!(name.as_deref(), Some("lab://one"));
    // An export wants the bytes of the layers of the image, and of no others.
    lab.wants_bytes = true;
    let third = lab.build(COPIES);
    assert_eq!(third.files, first.files);
    assert!(tier.read.load(Ordering::SeqCst) < 250_000);
    tier.forget_acts();
    let fourth = lab.build(COPIES);
    assert_eq!(fourth.totals.ran, 0);
    assert_eq!(
        tier.acts(),
        ["lookup 2"],
        "what came is local now, with its entries"
    );
}

#[test]
fn blobs_go_before_the_entries_that_name_them() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    lab.write("a", noise(1, 900_000));
    lab.build("FROM scratch\nCOPY a /a\n");
    let acts = tier.acts();
    let at = |what: &str| acts.iter().position(|act| act.starts_with(what)).unwrap();
    assert!(at("contains 2") < at("put blob"));
    assert!(at("put blob") < at("put framed"), "{acts:?}");
    assert!(at("put framed") < at("put action"));
    let entries = tier.entries();
    assert_eq!(entries.len(), 2, "under the definition and the content key");
    assert_ne!(entries[0].kind, entries[1].kind);
    // A second build has nothing to save, and a third runner only the entry.
    tier.forget_acts();
    let again = lab.build("FROM scratch\nCOPY a /a\n");
    assert_eq!((again.saved(), tier.acts().len()), (None, 0));
}

#[test]
fn a_changed_step_stands_on_what_is_restored() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    let text = |last: &str| {
        format!(
            "FROM scratch\nCOPY busybox /bin/busybox\n\
             RUN [\"/bin/busybox\", \"touch\", \"/first\"]\n\
             COPY c /c\nRUN [\"/bin/busybox\", \"cp\", \"/c\", \"/{last}\"]\n"
        )
    };
    lab.write("c", "one");
    let first = lab.build(&text("copied"));
    lab.push(&tier.tier(Access::FULL));
    assert_eq!(first.files["copied"], "one");
    lab.wipe();
    lab.write("c", "two");
    tier.forget_acts();
    let second = lab.build(&text("copied"));
    assert_eq!(second.outcome("touch"), Outcome::Hit);
    assert_eq!(second.outcome("COPY c"), Outcome::Ran);
    assert_eq!(second.files["copied"], "two");
    assert!(second.warnings().is_empty(), "{:?}", second.warnings());
    // The big layer came once: it was unpacked while it was stored.
    let gets = tier.acts().into_iter().filter(|act| act.starts_with("get"));
    let mut gets: Vec<String> = gets.collect();
    gets.sort();
    let all = gets.len();
    gets.dedup();
    assert_eq!(all, gets.len(), "nothing is fetched twice");
    assert_eq!(second.saved(), Some((2, 0)));
}

/// A tier, and a lab with a static busybox.
fn runnable() -> Option<(Arc<LabTier>, Lab)> {
    if !can_run() {
        return None;
    }
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    lab.write("busybox", fs::read("/bin/busybox").unwrap());
    let path = lab.path("ctx/busybox");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode).unwrap();
    Some((tier, lab))
}

#[test]
fn a_layer_that_is_not_what_it_should_be_never_becomes_a_snapshot() {
    let Some((tier, lab)) = runnable() else {
        return;
    };
    let text = |n: u32| {
        format!(
            "FROM scratch\nCOPY busybox /bin/busybox\n\
             RUN [\"/bin/busybox\", \"touch\", \"/first{n}\"]\n"
        )
    };
    let first = lab.build(&text(1));
    lab.push(&tier.tier(Access::FULL));
    let digest = first.layers[0];
    for fault in [Fault::Truncated, Fault::None] {
        lab.wipe();
        tier.set(fault);
        if fault == Fault::None {
            // Right to the last byte, and then one more.
            let mut bytes = runtime(async {
                let blob = tier.store.get(digest).await.unwrap().unwrap();
                blob.read_all(digest).await.unwrap()
            });
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            tier.store.replace(&digest, bytes);
        }
        let again = lab.build(&text(if fault == Fault::None { 3 } else { 2 }));
        assert_eq!(again.outcome("COPY busybox"), Outcome::Ran, "{fault:?}");
        assert_eq!(again.outcome("touch"), Outcome::Ran);
        assert_eq!(again.layers[0], digest);
        assert!(
            again.warnings().iter().any(|w| w.contains("lab://one")),
            "{:?}",
            again.warnings()
        );
        tier.set(Fault::None);
    }
}

fn runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

#[test]
fn entries_whose_blobs_are_gone_cost_one_repetition() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    let first = lab.build(COPIES);
    lab.wipe();
    for digest in tier.layers() {
        tier.store.evict(&digest);
    }
    let second = lab.build(COPIES);
    assert_eq!((second.layers, second.files), (first.layers, first.files));
    let rounds = second.events.iter().filter(
        |event| matches!(event, BuildEvent::Warning { message, .. } if message.contains("is gone")),
    );
    assert_eq!(rounds.count(), 1);
    assert_eq!(second.totals.ran, 4);
    // And now they are there again.
    lab.wipe();
    let third = lab.build(COPIES);
    assert_eq!((third.totals.ran, third.warnings().len()), (0, 0));
}

#[test]
fn a_corrupt_blob_is_taken_from_the_next_tier_or_made_again() {
    let (near, far) = (LabTier::new("lab://near"), LabTier::new("lab://far"));
    let lab = Lab::new(vec![near.tier(Access::FULL), far.tier(Access::FULL)]);
    copies(&lab);
    let first = lab.build(COPIES);
    assert_eq!(near.layers(), far.layers());
    lab.wipe();
    near.store.spoil(&first.layers[0]);
    let second = lab.build(COPIES);
    assert_eq!((second.totals.ran, &second.files), (0, &first.files));
    let warnings = second.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("lab://near") && warnings[0].contains("corrupt"));
    lab.wipe();
    far.store.spoil(&first.layers[0]);
    let third = lab.build(COPIES);
    assert_eq!((third.totals.ran, &third.files), (1, &first.files));
}

#[test]
fn a_tier_that_is_down_is_one_warning() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    tier.set(Fault::Down);
    let first = lab.build(COPIES);
    let warnings = first.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("is not used any more"));
    assert_eq!(first.totals.ran, 4);
    assert_eq!(first.saved(), Some((0, 4)));
    assert!(tier.acts().len() <= 4, "it was given up: {:?}", tier.acts());
    // The next build with the same tier brings what this one could not.
    tier.set(Fault::None);
    let second = lab.build(COPIES);
    assert_eq!(second.saved(), Some((4, 0)));
    lab.wipe();
    assert_eq!(lab.build(COPIES).totals.ran, 0);
}

#[test]
fn a_tier_that_vanishes_in_mid_build_alters_nothing() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    let first = lab.build(COPIES);
    for acts in 0..6 {
        lab.wipe();
        tier.vanish_after(acts);
        let again = lab.build(COPIES);
        assert_eq!((&again.layers, &again.files), (&first.layers, &first.files));
        // A look-up, and two layers.
        assert_eq!(again.warnings().is_empty(), acts >= 3, "{acts}");
    }
}

#[test]
fn a_tier_that_refuses_writes_is_asked_no_more() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    tier.set(Fault::Denied);
    let first = lab.build(COPIES);
    assert_eq!(first.warnings().len(), 1, "{:?}", first.warnings());
    assert!(tier.entries().is_empty());
    tier.set(Fault::None);
    assert_eq!(lab.build(COPIES).saved(), None, "nobody tries again");
    let reader = LabTier::new("lab://reader");
    let lab = Lab::new(vec![reader.tier(Access::READ)]);
    copies(&lab);
    assert_eq!(lab.build(COPIES).saved(), None);
    assert!(reader.acts().iter().all(|act| act.starts_with("lookup")));
}

#[test]
fn what_a_build_had_no_time_to_save_the_next_one_does() {
    let tier = LabTier::new("lab://one");
    let mut lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    tier.set(Fault::Stuck);
    lab.save_timeout = Duration::from_millis(50);
    let failing = format!("{COPIES}COPY --from=made /nothing /x\n");
    let first = lab.try_build(&failing);
    assert!(first.result.is_err());
    let (saved, left) = first.saved().unwrap();
    assert_eq!(saved, 0);
    assert!(left >= 2, "{left}");
    let pending = lab.path("cache/pending");
    let files = || fs::read_dir(&pending).unwrap().count();
    assert_eq!(files(), left);
    // Another tier is no substitute.
    let other = LabTier::new("lab://other");
    let tiers = std::mem::replace(&mut lab.tiers, vec![other.tier(Access::FULL)]);
    lab.build("FROM scratch\n");
    assert_eq!((files(), other.entries().len()), (left, 0));
    lab.tiers = tiers;
    // Nor is another scope.
    lab.scopes = SearchOrder::new(Scope::pull("7"), []);
    lab.build("FROM scratch\n");
    assert_eq!((files(), tier.entries().len()), (left, 0));
    lab.scopes = SearchOrder::local();
    tier.set(Fault::None);
    lab.save_timeout = Duration::from_secs(60);
    let next = lab.build("FROM scratch\n");
    assert_eq!(next.saved(), Some((left, 0)));
    assert_eq!((files(), tier.entries().len()), (0, 2 * left));
}

#[test]
fn what_a_tier_does_not_show_stays_in_the_journal() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    tier.set(Fault::Hidden);
    let first = lab.build(COPIES);
    assert_eq!(first.saved(), Some((0, 4)));
    assert_eq!(first.warnings().len(), 1, "{:?}", first.warnings());
    tier.set(Fault::None);
    tier.forget_acts();
    let second = lab.build(COPIES);
    assert_eq!(second.saved(), Some((4, 0)));
    let acts = tier.acts();
    assert_eq!(acts.last().map(String::as_str), Some("flush"));
    assert_eq!(acts.iter().filter(|act| *act == "flush").count(), 1);
    assert_eq!(lab.build(COPIES).saved(), None);
}

#[test]
fn a_hit_of_a_later_tier_goes_back_to_earlier_ones_when_it_is_fetched() {
    let (near, far) = (LabTier::new("lab://near"), LabTier::new("lab://far"));
    let mut lab = Lab::new(vec![far.tier(Access::FULL)]);
    copies(&lab);
    lab.write("empty", "");
    let text = COPIES;
    let first = lab.build(text);
    lab.wipe();
    far.forget_acts();
    lab.tiers = vec![near.tier(Access::FULL), far.tier(Access::READ)];
    let second = lab.build(text);
    assert_eq!((second.totals.ran, &second.files), (0, &first.files));
    assert_eq!(near.acts()[0], far.acts()[0], "both were asked at once");
    let mut layers = first.layers.clone();
    layers.sort();
    assert_eq!(
        near.layers(),
        layers,
        "of the image, not of what it was made of"
    );
    // With their indexes, which this build had no use for.
    lab.wipe();
    far.set(Fault::Down);
    let third = lab.build("FROM scratch\nCOPY c /c\nCOPY a /a\n");
    assert_eq!(third.outcome("COPY c"), Outcome::Hit);
}

#[test]
fn entries_of_other_scopes_are_read_and_not_written() {
    let tier = LabTier::new("lab://one");
    let mut lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    lab.scopes = SearchOrder::new(Scope::protected(), []);
    lab.build(COPIES);
    lab.wipe();
    let (pull, near) = (Scope::pull("7"), LabTier::new("lab://near"));
    lab.scopes = SearchOrder::new(pull.clone(), []);
    lab.tiers = vec![near.tier(Access::FULL), tier.tier(Access::FULL)];
    lab.write("c", "of the request");
    let second = lab.build(COPIES);
    assert_eq!(second.outcome("/from"), Outcome::ContentHit);
    let of_near = near.entries();
    assert!(!of_near.is_empty());
    assert!(
        of_near.iter().all(|e| e.scope == pull),
        "it vouches for its own only"
    );
    let (pulls, rest): (Vec<_>, Vec<_>) = tier.entries().into_iter().partition(|e| e.scope == pull);
    assert_eq!((pulls.len(), rest.len()), (3, 8));
    // Nobody else reads them.
    lab.wipe();
    lab.scopes = SearchOrder::new(Scope::pull("8"), []);
    assert_eq!(lab.build(COPIES).outcome("COPY c"), Outcome::Ran);
}

#[test]
fn entries_that_nobody_vouches_for_count_as_misses() {
    let tier = LabTier::new("lab://one");
    let mut lab = Lab::new(vec![tier.tier(Access::FULL)]);
    copies(&lab);
    lab.build(COPIES);
    lab.wipe();
    lab.vouching = Vouching::default()
        .checking_with(|entry| match &entry.signature {
            Some(_) => Ok(()),
            None => Err("it is not signed".to_owned()),
        })
        .signing_with(|entry| {
            Some(memobuild_ci::cache::Signature {
                key_id: "k".to_owned(),
                algorithm: "none".to_owned(),
                value: entry.signed_bytes().len().to_string(),
            })
        });
    let second = lab.build(COPIES);
    assert_eq!(second.totals.ran, 4);
    assert!(second.warnings()[0].contains("it is not signed"));
    lab.wipe();
    let third = lab.build(COPIES);
    assert_eq!((third.totals.ran, third.warnings().len()), (0, 0));
}

#[test]
fn a_copy_of_one_file_of_a_big_layer_reads_its_frames() {
    let tier = LabTier::new("lab://one");
    let lab = Lab::new(vec![tier.tier(Access::FULL)]);
    for n in 0..12 {
        lab.write(&format!("big/{n:02}"), noise(n, 1_500_000));
    }
    lab.write("big/small", noise(99, 50_000));
    let text = |n: u32| {
        format!("FROM scratch AS made\nCOPY big /big\nFROM scratch\nCOPY --from=made /big/0{n} /\n")
    };
    lab.build(&text(1));
    lab.push(&tier.tier(Access::FULL));
    tier.ranges.store(true, Ordering::SeqCst);
    for fault in [Fault::None, Fault::WrongRanges] {
        tier.set(fault);
        tier.forget_acts();
        lab.wipe();
        let n = if fault == Fault::None { 2 } else { 3 };
        let second = lab.build(&text(n));
        let name = format!("0{n}");
        assert_eq!(
            second.files[&name],
            String::from_utf8_lossy(&noise(u64::from(n), 1_500_000))
        );
        let read = tier.read.load(Ordering::SeqCst);
        match fault {
            Fault::None => {
                assert!(read < 6_000_000, "{read}");
                assert!(second.warnings().is_empty(), "{:?}", second.warnings());
            }
            _ => {
                assert!(read > 18_000_000, "{read}");
                assert_eq!(second.warnings().len(), 1, "{:?}", second.warnings());
            }
        }
        tier.set(Fault::None);
    }
}

#[test]
fn builds_over_a_server_have_what_another_runner_built() {
    let mut lab = Lab::new(Vec::new());
    let served = lab.block_on(Served::start(|_| {}));
    let client = Arc::new(served.client(None));
    let tier = Tier {
        name: format!("http://{}", served.address),
        actions: client.clone(),
        blobs: client,
        access: Access::FULL,
    };
    lab.tiers = vec![tier.clone()];
    copies(&lab);
    let first = lab.build(COPIES);
    assert_eq!(first.saved(), Some((4, 0)), "{:?}", first.warnings());
    lab.wipe();
    let second = lab.build(COPIES);
    assert_eq!((second.totals.ran, &second.files), (0, &first.files));
    assert!(second.warnings().is_empty(), "{:?}", second.warnings());
    // Of a big layer the frames of one file.
    for n in 0..12 {
        lab.write(&format!("big/{n:02}"), noise(n, 1_500_000));
    }
    let text = |n: u32| {
        format!("FROM scratch AS made\nCOPY big /big\nFROM scratch\nCOPY --from=made /big/0{n} /\n")
    };
    lab.build(&text(1));
    lab.push(&tier);
    lab.wipe();
    let third = lab.build(&text(2));
    assert_eq!(third.outcome("COPY big"), Outcome::Hit);
    assert_eq!(
        third.files["02"],
        String::from_utf8_lossy(&noise(2, 1_500_000))
    );
    let fetched = third.totals.bytes_fetched;
    assert!(fetched < 6_000_000, "{fetched}");
    assert!(third.warnings().is_empty(), "{:?}", third.warnings());
}
