//! Attacks on builds by way of a cache that they share.
//!
//! The attacker may write to the store whatever a job with access to it could, and where it says so, answer
//! in the store's place. In each case the victim's build gives what it would give without a cache,
//! and says what it refused, to people and to the audit log. [`backends`] lists the stores;
//! `docs/internals/security.md` tells who can do what.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use memobuild_ci::{
    cache::{
        ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Scope,
        SearchOrder, Tier, Vouching,
        conformance::sample_action,
        trust::{Keyring, PublicKey, Signer},
    },
    ci,
    config::env::Env,
    digest::Sha256Digest,
    event::Outcome,
    key::CacheKey,
};

use crate::{
    attack_backends::{Backend, ROOM, Who, backends, tier, wait},
    build_fixture::can_run,
    tier_lab::{Lab, Outcomes},
};

/// A piece of the file that the checkout has.
const HONEST: &str = "honest\n";

const TEXT: &str = "FROM scratch\nCOPY a /a\nCOPY b /b\n";

/// Where the attacker's own results are.
fn attackers() -> Scope {
    Scope::pull("666")
}

/// The lines of the audit log of all builds in this process.
static AUDIT: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (written, filter) = (
        lines.clone(),
        tracing_subscriber::EnvFilter::new("audit=info"),
    );
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || Lines(written.clone()))
        .init();
    lines
});

struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// There is a line of the audit log with all of `parts`.
#[track_caller]
fn audited(parts: &[&str]) {
    let log = String::from_utf8_lossy(&AUDIT.lock().unwrap()).into_owned();
    let is_it = |line: &&str| parts.iter().all(|part| line.contains(part));
    assert!(log.lines().any(|line| is_it(&line)), "no line of {parts:?}");
}

/// A store whose answers to look-ups are the attacker's.
struct Liar {
    honest: Tier,
    answers: Mutex<HashMap<CacheKey, ActionResult>>,
}

impl ActionCache for Liar {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let honest = self.honest.actions.lookup(scopes, keys).await?;
            let lies = self.answers.lock().unwrap();
            let told = keys.iter().zip(honest);
            Ok(told
                .map(|(key, honest)| lies.get(key).cloned().or(honest))
                .collect())
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        self.honest.actions.put(result)
    }
}

impl BlobStore for Liar {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        self.honest.blobs.contains(digests)
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        self.honest.blobs.get(digest)
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        self.honest.blobs.put(digest, source)
    }
}

/// A job that builds by way of the shared store.
struct Job<'a> {
    backend: &'a Backend,
    lab: Lab,
}

impl<'a> Job<'a> {
    /// A build in `scope`, signed by `signer`, that demands signatures by `trusted` of protected scopes.
    fn new(
        backend: &'a Backend,
        scope: Scope,
        signer: Option<&Signer>,
        trusted: Option<PublicKey>,
    ) -> Self {
        LazyLock::force(&AUDIT);
        let mut lab = Lab::new(Vec::new());
        lab.write("a", HONEST.repeat(8_000)).write("b", "bbb");
        lab.scopes = SearchOrder::new(scope, []);
        let require = trusted.map(|_| "protected".parse().unwrap());
        let keyring = Keyring::new(trusted, require);
        lab.vouching = Vouching::default()
            .checking_with(move |entry| keyring.accept(entry).map_err(|error| error.to_string()));
        if let Some(signer) = signer.cloned() {
            lab.vouching = lab
                .vouching
                .signing_with(move |entry| Some(signer.signature(entry)));
        }
        Self { backend, lab }
    }

    /// A protected branch that trusts nobody's signature in particular.
    fn victim(backend: &'a Backend) -> Self {
        Self::new(backend, Scope::protected(), None, None)
    }

    /// One that relies on what `signer` has signed, as it does itself.
    fn signed(backend: &'a Backend, signer: &Signer) -> Self {
        let trusted = Some(*signer.public());
        Self::new(backend, Scope::protected(), Some(signer), trusted)
    }

    fn build(&mut self, text: &str) -> Outcomes {
        let who = match *self.lab.scopes.own() == Scope::protected() {
            true => Who::Owner,
            false => Who::PullRequest,
        };
        self.lab.tiers = vec![self.backend.open(who)];
        self.lab.build(text)
    }

    /// The runner is thrown away, and the build gives the files of the checkout all the same.
    #[track_caller]
    fn unharmed(&mut self, warns: Option<&str>) -> Outcomes {
        if self.lab.path("cache").exists() {
            self.lab.wipe();
        }
        let made = self.build(TEXT);
        let name = self.backend.name;
        assert_eq!(
            made.files["a"].len(),
            56_000,
            "{name}: the file of the checkout"
        );
        assert_eq!(made.files["b"], "bbb", "{name}");
        match warns {
            Some(why) => assert!(
                made.warnings().iter().any(|w| w.contains(why)),
                "{name}: no warning of `{why}` in {:?}",
                made.warnings()
            ),
            None => assert_eq!(made.warnings(), Vec::<&str>::new(), "{name}"),
        }
        made
    }

    /// Saves all that the build made, also what a build finds not worth it.
    fn push(&self) {
        let tier = self.backend.open(Who::Owner);
        let store = self.lab.store();
        for action in store.actions().unwrap() {
            for digest in action.result.blobs() {
                if let Some(file) = store.blob(&digest).unwrap() {
                    wait(tier.blobs.put(digest, BlobSource::File(file.path))).unwrap();
                }
            }
            wait(tier.actions.put(&action.result)).unwrap();
        }
        wait(tier.actions.flush()).unwrap();
    }

    /// All entries in `scope` that a build like this one looks for.
    fn entries(&self, scope: &Scope) -> Vec<ActionResult> {
        let stored = self.lab.store().actions().unwrap().into_iter();
        let keys: Vec<CacheKey> = stored.map(|a| a.result.key).collect();
        let scopes = [scope.clone()];
        let tier = self.backend.open(Who::Owner);
        let found = wait(tier.actions.lookup(&scopes, &keys)).unwrap();
        found.into_iter().flatten().collect()
    }
}

/// Entries for the steps of [`TEXT`] with another result: what an attacker wants others to get.
fn poison(backend: &Backend, scope: &Scope) -> Vec<ActionResult> {
    let mut evil = Job::new(backend, attackers(), None, None);
    evil.lab.write("a", "evil");
    let made = evil.build(TEXT);
    assert_eq!(made.files["a"].len(), 4);
    let layer = evil
        .entries(&attackers())
        .into_iter()
        .find(|entry| entry.step.instruction.contains("/a"))
        .expect("it was saved")
        .layer;
    // The victim's keys: whoever knows the Dockerfile and the files can compute them.
    let clean = Job::victim(backend);
    clean.lab.build(TEXT);
    let wanted = clean.lab.store().actions().unwrap().into_iter();
    wanted
        .map(|stored| stored.result)
        .filter(|entry| entry.step.instruction.contains("/a"))
        .map(|entry| ActionResult {
            scope: scope.clone(),
            layer: layer.clone(),
            signature: None,
            ..entry
        })
        .collect()
}

/// Writes entries whose blobs an attacker has saved.
fn put(backend: &Backend, who: Who, entries: &[ActionResult]) -> Result<(), CacheError> {
    let tier = backend.open(who);
    wait(async {
        for entry in entries {
            // Where what is saved is found by way of entries, as a job finds it.
            tier.actions.lookup(&[attackers()], &[entry.key]).await?;
            tier.actions.put(entry).await?;
        }
        tier.actions.flush().await
    })
}

#[test]
fn the_attack_works_where_nothing_is_checked() {
    // What the other tests refuse would otherwise be taken.
    for backend in &backends() {
        put(backend, Who::Owner, &poison(backend, &Scope::protected())).unwrap();
        let made = Job::victim(backend).build(TEXT);
        assert_eq!(made.files["a"].len(), 4, "{}", backend.name);
    }
}

#[test]
fn a_race_for_a_key_wins_nothing() {
    for backend in &backends() {
        let request = Scope::pull("7");
        put(backend, Who::PullRequest, &poison(backend, &request)).unwrap();
        let mut victim = Job::victim(backend);
        victim.unharmed(None);
        let saved = victim.entries(&Scope::protected());
        assert!(
            !saved.is_empty(),
            "{}: the first entry blocks nobody",
            backend.name
        );
        // Coming second doesn't help either: the more trusted scope is looked at first.
        put(backend, Who::PullRequest, &poison(backend, &request)).unwrap();
        victim.unharmed(None);
        Job::new(backend, Scope::pull("8"), None, None).unharmed(None);
        // The attacker's own build sees what is trusted more than its own scope first.
        Job::new(backend, request, None, None).unharmed(None);
    }
}

#[test]
fn a_pull_request_gets_no_other_scope_by_asking() {
    let vars = [
        ("CI", "true"),
        ("GITLAB_CI", "true"),
        ("CI_COMMIT_REF_NAME", "main"),
        ("CI_COMMIT_REF_PROTECTED", "true"),
        ("CI_MERGE_REQUEST_IID", "7"),
    ];
    let context = ci::detect(&Env::from_pairs(&vars));
    for scope in [Scope::protected(), Scope::branch("main"), Scope::pull("8")] {
        assert!(context.scopes(Some(scope), []).is_err());
    }
    for backend in &backends() {
        let mut attacker = Job::victim(backend);
        attacker.lab.scopes = context.scopes(None, [Scope::pull("9")]).unwrap().order;
        attacker.build(TEXT);
        for scope in [Scope::protected(), Scope::branch("main"), Scope::pull("9")] {
            let found = attacker.entries(&scope);
            assert!(found.is_empty(), "{}", backend.name);
        }
        assert!(!attacker.entries(&Scope::pull("7")).is_empty());
    }
}

#[test]
fn a_pull_request_that_writes_the_main_scope_is_refused_or_not_believed() {
    let (signer, _) = Signer::generate().unwrap();
    for backend in &backends() {
        let poison = poison(backend, &Scope::protected());
        let written = put(backend, Who::PullRequest, &poison);
        let Some(audit) = &backend.audit else {
            // Whoever may write to these may write everything: nothing but a signature tells.
            written.unwrap();
            Job::signed(backend, &signer).unharmed(Some("it is not signed"));
            continue;
        };
        assert!(
            matches!(written, Err(CacheError::Denied { .. })),
            "{written:?}"
        );
        let key = poison[0].key.to_string();
        let (token, log) = ("\"token\":\"pull\"", audit());
        let mut lines = log.lines();
        let refused = |line: &str| line.contains(token) && line.contains(&key);
        let line = lines.find(|line| refused(line)).expect("a line of it");
        assert!(
            line.contains("it may not write scope `protected`"),
            "{line}"
        );
        audited(&["denied", &key, "it may not write scope `protected`"]);
        Job::victim(backend).unharmed(None);
    }
}

#[test]
fn an_unsigned_entry_in_a_scope_that_must_be_signed_is_refused() {
    // The attacker has the store's credentials and writes where no client would.
    let (signer, _) = Signer::generate().unwrap();
    for backend in &backends() {
        let poison = poison(backend, &Scope::protected());
        put(backend, Who::Owner, &poison).unwrap();
        let mut victim = Job::signed(backend, &signer);
        victim.unharmed(Some("it is not signed"));
        audited(&[
            "refused an entry",
            &poison[0].key.to_string(),
            "not signed",
            "COPY a /a",
        ]);
        // What the victim then saves is signed, and relied on.
        victim.unharmed(None);
        assert_eq!(victim.build(TEXT).outcome("COPY a"), Outcome::Hit);
    }
}

#[test]
fn signatures_of_others_and_false_ones_are_refused() {
    let (signer, _) = Signer::generate().unwrap();
    let (stranger, _) = Signer::generate().unwrap();
    for backend in &backends() {
        let poison = poison(backend, &Scope::protected());
        let key = poison[0].key.to_string();
        let mut victim = Job::signed(backend, &signer);
        let strange: Vec<_> = poison.iter().map(|e| stranger.sign(e.clone())).collect();
        put(backend, Who::Owner, &strange).unwrap();
        victim.unharmed(Some("unknown key"));
        audited(&["refused an entry", &key, "unknown key"]);
        // A stranger's signature under our key's name.
        let mut forged = strange;
        for entry in &mut forged {
            let signature = entry.signature.as_mut().unwrap();
            signature.key_id = signer.public().id().to_string();
        }
        put(backend, Who::Owner, &forged).unwrap();
        victim.unharmed(Some("is not by the key"));
        audited(&["refused an entry", &key, "is not by the key"]);
        // Our own signature over what the entry was before it was changed.
        victim.unharmed(None);
        let honest = victim.entries(&Scope::protected());
        let signed_before = |evil: &ActionResult| {
            let signed = honest.iter().find(|entry| entry.key == evil.key)?;
            Some(ActionResult {
                layer: evil.layer.clone(),
                ..signed.clone()
            })
        };
        let changed: Vec<_> = poison.iter().filter_map(signed_before).collect();
        assert!(!changed.is_empty());
        put(backend, Who::Owner, &changed).unwrap();
        victim.unharmed(Some("is not by the key"));
    }
}

#[test]
fn old_entries_replayed_elsewhere_are_refused() {
    let (signer, _) = Signer::generate().unwrap();
    for backend in &backends() {
        let mut victim = Job::signed(backend, &signer);
        victim.build(TEXT);
        let honest = victim.entries(&Scope::protected());
        let of = |part: &str| {
            let found = honest.iter().find(|e| e.step.instruction.contains(part));
            found.expect("it was saved").clone()
        };
        let fooled = |answers: HashMap<CacheKey, ActionResult>, why: &str| {
            let liar = Arc::new(Liar {
                honest: backend.open(Who::Owner),
                answers: Mutex::new(answers),
            });
            let mut victim = Job::signed(backend, &signer);
            victim.lab.tiers = vec![tier(liar.clone(), liar)];
            let made = victim.lab.build(TEXT);
            assert_eq!(made.files["b"], "bbb", "{}", backend.name);
            assert_eq!(made.files["a"].len(), 56_000);
            let warnings = made.warnings();
            let told = warnings.iter().any(|w| w.contains(why));
            assert!(told, "{}: {warnings:?}", backend.name);
        };
        // A valid, signed entry of another step.
        let answers: HashMap<_, _> = honest
            .iter()
            .map(|entry| match entry.step.instruction.contains("/a") {
                true => (entry.key, of("/b")),
                false => (entry.key, of("/a")),
            })
            .collect();
        fooled(answers, "it says that its key is");
        // A valid entry of a scope that the victim doesn't read.
        let answers = poison(backend, &Scope::pull("7"));
        let key = answers[0].key.to_string();
        let answers = answers.into_iter().map(|e| (e.key, e)).collect();
        fooled(answers, "it is of scope `pull/7`");
        audited(&["refused an entry", &key, "it is of scope `pull/7`"]);
    }
}

#[test]
fn an_old_index_replayed_costs_hits_and_nothing_else() {
    for backend in &backends() {
        let Some(service) = &backend.service else {
            continue;
        };
        let mut victim = Job::victim(backend);
        victim.build("FROM scratch\nCOPY b /b\n");
        victim.unharmed(None);
        // Indexes are found by their number, and nobody can replace one: the attacker makes the next one.
        {
            let mut service = service.lock().unwrap();
            let indexes = service.objects.iter().filter(|o| o.key.contains("/index/"));
            let [first, .., last] = &indexes.cloned().collect::<Vec<_>>()[..] else {
                panic!("each build has made one");
            };
            let number: u64 = last.key.rsplit_once('~').unwrap().1.parse().unwrap();
            let key = last
                .key
                .replace(&format!("{number:010}"), &format!("{:010}", number + 1));
            let id = service.reserve(&key, &last.version).unwrap();
            let old = service.bytes[&first.id.to_string()].clone();
            service.bytes.insert(id.to_string(), old);
            service.objects[id - 1].done = true;
        }
        assert_eq!(victim.unharmed(None).outcome("COPY a"), Outcome::Ran);
        // The build that found things missing has saved them again.
        assert_eq!(victim.unharmed(None).outcome("COPY a"), Outcome::Hit);
    }
}

#[test]
fn a_name_of_a_pack_that_an_attacker_took_first_is_passed_by() {
    for backend in &backends() {
        let Some(service) = &backend.service else {
            continue;
        };
        let mut victim = Job::victim(backend);
        victim.build(TEXT);
        // What the victim is going to save, the attacker saves before, with other bytes.
        let taken = {
            let mut service = service.lock().unwrap();
            let (packs, others): (Vec<_>, Vec<_>) = std::mem::take(&mut service.objects)
                .into_iter()
                .partition(|object| object.key.contains("/pack/"));
            for object in others {
                service.bytes.remove(&object.id.to_string());
            }
            for pack in &packs {
                service.bytes.get_mut(&pack.id.to_string()).unwrap().fill(0);
            }
            service.objects = packs;
            service.objects.len()
        };
        assert!(taken > 0);
        victim.unharmed(None);
        victim.unharmed(Some(backend.swapped));
        assert_eq!(victim.unharmed(None).outcome("COPY a"), Outcome::Hit);
    }
}

#[test]
fn a_blob_swapped_under_its_digest_is_noticed() {
    for backend in &backends() {
        let mut victim = Job::victim(backend);
        victim.build(TEXT);
        let evil = poison(backend, &Scope::pull("7"));
        let saved = victim.entries(&Scope::protected());
        let layer = |entry: &ActionResult| entry.layer.as_ref().unwrap().digest;
        let mut steps = saved.iter();
        let target = steps.find(|e| e.step.instruction.contains("/a")).unwrap();
        let tier = backend.open(Who::Owner);
        let bytes = wait(async {
            let digest = layer(&evil[0]);
            tier.actions
                .lookup(&[attackers()], &[evil[0].key])
                .await
                .unwrap();
            let blob = tier.blobs.get(digest).await.unwrap().unwrap();
            blob.read_all(digest).await.unwrap()
        });
        // Also of the same length, so that no size gives it away.
        let size = usize::try_from(target.layer.as_ref().unwrap().size).unwrap();
        let mut padded = bytes.clone();
        padded.resize(size, 0);
        for bytes in [bytes, padded] {
            backend.swap(layer(target), bytes);
            victim.unharmed(Some(backend.swapped));
        }
        if backend.audit.is_none() {
            audited(&["refused a blob", &layer(target).to_string()]);
        }
    }
}

#[test]
fn an_entry_beyond_all_measure_is_a_miss() {
    for backend in &backends() {
        let mut poison = poison(backend, &Scope::protected());
        for entry in &mut poison {
            entry.step.instruction = "x".repeat(70 << 20);
        }
        // A server of this program doesn't even take it.
        let written = put(backend, Who::Owner, &poison);
        assert!(written.is_ok() || backend.audit.is_some(), "{written:?}");
        let mut victim = Job::victim(backend);
        let made = victim.build(TEXT);
        assert_eq!(made.files["a"].len(), 56_000, "{}", backend.name);
        let longest = made.warnings().iter().map(|w| w.len()).max();
        assert!(longest.is_none_or(|longest| longest < 1_000));
        if backend.name == "memory" {
            audited(&[
                "refused an entry",
                &poison[0].key.to_string(),
                "none has more than",
            ]);
        }
    }
}

#[test]
fn a_flood_evicts_nothing_of_who_is_trusted_more() {
    for backend in &backends() {
        let mut victim = Job::victim(backend);
        victim.unharmed(None);
        let flood = |tier: Tier| async move {
            for number in 0..60 {
                let mut blob = vec![0; 200_000];
                let mut noise = blake3::Hasher::new();
                noise.update(&[number]).finalize_xof().fill(&mut blob);
                let digest = Sha256Digest::of(&blob);
                let mut entry = sample_action(number.into(), &[digest]);
                entry.scope = attackers();
                entry.layer.as_mut().unwrap().size = blob.len() as u64;
                let source = BlobSource::Bytes(Bytes::from(blob));
                // A store that is full refuses it.
                let _ = tier.blobs.put(digest, source).await;
                let _ = tier.actions.put(&entry).await;
            }
            let _ = tier.actions.flush().await;
            let keys: Vec<_> = (0..60).map(|n| sample_action(n, &[]).key).collect();
            let found = tier.actions.lookup(&[attackers()], &keys).await.unwrap();
            found.iter().flatten().count() as u64
        };
        let kept = wait(flood(backend.open(Who::PullRequest)));
        match backend.audit {
            Some(_) => assert!(
                kept * 200_000 < ROOM,
                "{kept} are more than there is room for"
            ),
            None => assert_eq!(kept, 60, "{}", backend.name),
        }
        let made = victim.unharmed(None);
        for step in ["COPY a", "COPY b"] {
            assert_eq!(made.outcome(step), Outcome::Hit, "{}", backend.name);
        }
    }
}

#[test]
fn a_blob_that_unpacks_to_more_than_any_disk_holds_is_read_no_further() {
    if !can_run() {
        return;
    }
    for backend in &backends() {
        let mut victim = Job::victim(backend);
        victim
            .lab
            .write("busybox", std::fs::read("/bin/busybox").unwrap());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(victim.lab.path("ctx/busybox"), mode).unwrap();
        let text = |n: u32| {
            format!(
                "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"touch\", \"/{n}\"]\n"
            )
        };
        let first = victim.build(&text(1));
        victim.push();
        let saved = victim.entries(&Scope::protected());
        let mut layers = saved.iter().filter_map(|entry| entry.layer.as_ref());
        let layer = layers.find(|layer| layer.digest == first.layers[0]);
        let layer = layer.expect("it was saved");
        backend.swap(layer.digest, bomb(usize::try_from(layer.size).unwrap()));
        victim.lab.wipe();
        let second = victim.build(&text(2));
        assert_eq!(
            second.outcome("COPY busybox"),
            Outcome::Ran,
            "{}",
            backend.name
        );
        assert_eq!(second.layers[0], layer.digest);
        let warnings = second.warnings();
        let told = warnings.iter().any(|w| w.contains(backend.swapped));
        assert!(told, "{}: {warnings:?}", backend.name);
    }
}

/// `size` bytes of zstd that are the beginning of a layer with a file of 8 TiB in it.
fn bomb(size: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("bin/busybox").unwrap();
    header.set_size(8 << 40);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::Write::write_all(&mut encoder, header.as_bytes()).unwrap();
    let zeros = vec![0; 4 << 20];
    // A hundred MB of zeros are some kB.
    for _ in 0..64 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let mut bytes = encoder.finish().unwrap();
    bytes.resize(size.max(bytes.len()), 0);
    bytes.truncate(size);
    bytes
}
