//! Attacks on builds by way of a cache that they share.
//!
//! The attacker may write to the store whatever a job with access to it could, and where it says so, answer
//! in the store's place. In each case the victim's build gives what it would give without a cache,
//! and says what it refused. [`backends`] lists the stores; `docs/internals/security.md` tells who can do what.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use memobuild_ci::{
    cache::{
        Access, ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError,
        MemoryStore, Scope, SearchOrder, Tier, Vouching,
        trust::{Keyring, PublicKey, Signer},
    },
    ci,
    config::env::Env,
    digest::Sha256Digest,
    event::Outcome,
    key::CacheKey,
};

use crate::{build_fixture::can_run, tier_lab::Lab};

/// A piece of the file that the checkout has.
const HONEST: &str = "honest\n";

const TEXT: &str = "FROM scratch\nCOPY a /a\nCOPY b /b\n";

/// A store that attacker and victim share.
struct Backend {
    name: &'static str,
    tier: Tier,
    /// Puts other bytes under the name of a blob, past everything that checks.
    swap: Box<dyn Fn(Sha256Digest, Vec<u8>)>,
    _dir: tempfile::TempDir,
}

/// Every kind of store that can be had here.
fn backends() -> Vec<Backend> {
    let mut all = Vec::new();
    let store = Arc::new(MemoryStore::default());
    let swapped = store.clone();
    all.push(Backend {
        name: "memory",
        tier: tier(store.clone(), store),
        swap: Box::new(move |digest, bytes| swapped.replace(&digest, bytes)),
        _dir: tempfile::tempdir().unwrap(),
    });
    #[cfg(feature = "object-storage")]
    all.push(directory());
    all
}

/// A directory that everybody may write.
#[cfg(feature = "object-storage")]
fn directory() -> Backend {
    use memobuild_ci::cache::object::{ObjectStore, Services};
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file://{}", dir.path().display()).parse().unwrap();
    let store = Arc::new(ObjectStore::open(&address, &Services::new()).unwrap());
    let root = dir.path().to_owned();
    Backend {
        name: "directory",
        tier: tier(store.clone(), store),
        swap: Box::new(move |digest, bytes| {
            let path = find(&root, &digest.hex()).expect("the blob has a file");
            std::fs::remove_file(&path).unwrap();
            std::fs::write(path, bytes).unwrap();
        }),
        _dir: dir,
    }
}

/// The file whose name ends with `end` below `dir`.
fn find(dir: &Path, end: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = find(&path, end) {
                return Some(found);
            }
        } else if path.to_string_lossy().ends_with(end) {
            return Some(path);
        }
    }
    None
}

fn tier(actions: Arc<dyn ActionCache>, blobs: Arc<dyn BlobStore>) -> Tier {
    Tier {
        name: "shared://cache".to_owned(),
        actions,
        blobs,
        access: Access::FULL,
    }
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

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A build in `scope`, signed by `signer`, that demands signatures by `trusted` of protected scopes.
fn lab(tier: &Tier, scope: Scope, signer: Option<&Signer>, trusted: Option<PublicKey>) -> Lab {
    let mut lab = Lab::new(vec![tier.clone()]);
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
    lab
}

/// All entries in `scope` that a build like the victim's looks for.
fn entries(tier: &Tier, lab: &Lab, scope: &Scope) -> Vec<ActionResult> {
    let keys: Vec<CacheKey> = lab
        .store()
        .actions()
        .unwrap()
        .into_iter()
        .map(|a| a.result.key)
        .collect();
    let scopes = [scope.clone()];
    let found = wait(tier.actions.lookup(&scopes, &keys)).unwrap();
    found.into_iter().flatten().collect()
}

/// Entries for the steps of [`TEXT`] with another result: what an attacker wants others to get.
fn poison(tier: &Tier, scope: &Scope) -> Vec<ActionResult> {
    let evil = lab(tier, Scope::pull("666"), None, None);
    evil.write("a", "evil");
    let made = evil.build(TEXT);
    assert_eq!(made.files["a"].len(), 4);
    let layer = entries(tier, &evil, &Scope::pull("666"))
        .into_iter()
        .find(|entry| entry.step.instruction.contains("/a"))
        .expect("it was saved")
        .layer;
    // The victim's keys: whoever knows the Dockerfile and the files can compute them.
    let mut clean = lab(tier, Scope::protected(), None, None);
    clean.tiers.clear();
    clean.build(TEXT);
    let wanted = clean.store().actions().unwrap().into_iter();
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

fn put(tier: &Tier, entries: &[ActionResult]) {
    for entry in entries {
        wait(tier.actions.put(entry)).unwrap();
    }
}

/// Saves all that the build made, also what a build finds not worth it.
fn push(tier: &Tier, lab: &Lab) {
    let store = lab.store();
    for action in store.actions().unwrap() {
        for digest in action.result.blobs() {
            if let Some(file) = store.blob(&digest).unwrap() {
                wait(tier.blobs.put(digest, BlobSource::File(file.path))).unwrap();
            }
        }
        put(tier, &[action.result]);
    }
}

/// The victim's build gives the files of the checkout.
#[track_caller]
fn unharmed(victim: &Lab, warns: Option<&str>) {
    let made = victim.build(TEXT);
    assert_eq!(made.files["a"].len(), 56_000, "the file of the checkout");
    match warns {
        Some(why) => assert!(
            made.warnings().iter().any(|w| w.contains(why)),
            "no warning of `{why}` in {:?}",
            made.warnings()
        ),
        None => assert_eq!(made.warnings(), Vec::<&str>::new()),
    }
}

#[test]
fn the_attack_works_where_nothing_is_checked() {
    // What the other tests refuse would otherwise be taken.
    for backend in backends() {
        let tier = &backend.tier;
        put(tier, &poison(tier, &Scope::protected()));
        let made = lab(tier, Scope::protected(), None, None).build(TEXT);
        assert_eq!(made.files["a"].len(), 4, "{}", backend.name);
    }
}

#[test]
fn a_race_for_a_key_wins_nothing() {
    for backend in backends() {
        let tier = &backend.tier;
        let request = Scope::pull("7");
        put(tier, &poison(tier, &request));
        let victim = lab(tier, Scope::protected(), None, None);
        unharmed(&victim, None);
        let saved = entries(tier, &victim, &Scope::protected());
        assert!(
            !saved.is_empty(),
            "{}: the first entry blocks nobody",
            backend.name
        );
        // Coming second doesn't help either: the more trusted scope is looked at first.
        put(tier, &poison(tier, &request));
        victim.wipe();
        unharmed(&victim, None);
        let other = lab(tier, Scope::pull("8"), None, None);
        unharmed(&other, None);
        // The attacker's own build sees what is trusted more than its own scope first.
        unharmed(&lab(tier, request, None, None), None);
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
    for backend in backends() {
        let tier = &backend.tier;
        let order = context.scopes(None, [Scope::pull("9")]).unwrap().order;
        let mut attacker = lab(tier, Scope::protected(), None, None);
        attacker.scopes = order;
        attacker.build(TEXT);
        for scope in [Scope::protected(), Scope::branch("main"), Scope::pull("9")] {
            assert!(
                entries(tier, &attacker, &scope).is_empty(),
                "{}",
                backend.name
            );
        }
        assert!(!entries(tier, &attacker, &Scope::pull("7")).is_empty());
    }
}

#[test]
fn an_unsigned_entry_in_a_scope_that_must_be_signed_is_refused() {
    // The attacker has the store's credentials and writes where no client would.
    let (signer, _) = Signer::generate().unwrap();
    for backend in backends() {
        let tier = &backend.tier;
        put(tier, &poison(tier, &Scope::protected()));
        let victim = lab(
            tier,
            Scope::protected(),
            Some(&signer),
            Some(*signer.public()),
        );
        unharmed(&victim, Some("it is not signed"));
        // What the victim then saves is signed, and relied on.
        victim.wipe();
        unharmed(&victim, None);
        assert_eq!(victim.build(TEXT).outcome("COPY a"), Outcome::Hit);
    }
}

#[test]
fn signatures_of_others_and_false_ones_are_refused() {
    let (signer, _) = Signer::generate().unwrap();
    let (stranger, _) = Signer::generate().unwrap();
    for backend in backends() {
        let tier = &backend.tier;
        let poison = poison(tier, &Scope::protected());
        let victim = lab(
            tier,
            Scope::protected(),
            Some(&signer),
            Some(*signer.public()),
        );
        let strange: Vec<_> = poison.iter().map(|e| stranger.sign(e.clone())).collect();
        put(tier, &strange);
        unharmed(&victim, Some("unknown key"));
        victim.wipe();
        // A stranger's signature under our key's name.
        let mut forged = strange;
        for entry in &mut forged {
            let signature = entry.signature.as_mut().unwrap();
            signature.key_id = signer.public().id().to_string();
        }
        put(tier, &forged);
        unharmed(&victim, Some("is not by the key"));
        victim.wipe();
        // Our own signature over what the entry was before it was changed.
        let honest = entries(tier, &victim_of(tier, &signer), &Scope::protected());
        let signed_before = |evil: &ActionResult| {
            let signed = honest.iter().find(|entry| entry.key == evil.key)?;
            Some(ActionResult {
                layer: evil.layer.clone(),
                ..signed.clone()
            })
        };
        let changed: Vec<_> = poison.iter().filter_map(signed_before).collect();
        assert!(!changed.is_empty());
        put(tier, &changed);
        unharmed(&victim, Some("is not by the key"));
    }
}

/// A victim that has just saved what it made.
fn victim_of(tier: &Tier, signer: &Signer) -> Lab {
    let victim = lab(
        tier,
        Scope::protected(),
        Some(signer),
        Some(*signer.public()),
    );
    victim.build(TEXT);
    victim
}

#[test]
fn old_entries_replayed_elsewhere_are_refused() {
    let (signer, _) = Signer::generate().unwrap();
    for backend in backends() {
        let victim = victim_of(&backend.tier, &signer);
        let honest = entries(&backend.tier, &victim, &Scope::protected());
        let of = |part: &str| {
            let found = honest.iter().find(|e| e.step.instruction.contains(part));
            found.expect("it was saved").clone()
        };
        let liar = Arc::new(Liar {
            honest: backend.tier.clone(),
            answers: Mutex::default(),
        });
        let lying = tier(liar.clone(), liar.clone());
        let fooled = |answers: HashMap<CacheKey, ActionResult>, scope: Scope, why: &str| {
            *liar.answers.lock().unwrap() = answers;
            let victim = lab(&lying, scope, Some(&signer), Some(*signer.public()));
            let made = victim.build(TEXT);
            assert_eq!(made.files["b"], "bbb", "{}", backend.name);
            assert_eq!(made.files["a"].len(), 56_000);
            assert!(
                made.warnings().iter().any(|w| w.contains(why)),
                "{}: {:?}",
                backend.name,
                made.warnings()
            );
        };
        // A valid, signed entry of another step.
        let answers: HashMap<_, _> = honest
            .iter()
            .map(|entry| match entry.step.instruction.contains("/a") {
                true => (entry.key, of("/b")),
                false => (entry.key, of("/a")),
            })
            .collect();
        fooled(answers, Scope::protected(), "it says that its key is");
        // A valid entry of a scope that the victim doesn't read.
        let request = Scope::pull("7");
        let answers = poison(&backend.tier, &request);
        let answers = answers.into_iter().map(|e| (e.key, e)).collect();
        fooled(answers, Scope::protected(), "it is of scope `pull/7`");
    }
}

#[test]
fn a_blob_swapped_under_its_digest_is_noticed() {
    for backend in backends() {
        let tier = &backend.tier;
        let victim = lab(tier, Scope::protected(), None, None);
        victim.build(TEXT);
        let evil = poison(tier, &Scope::pull("7"));
        let saved = entries(tier, &victim, &Scope::protected());
        let layer = |entry: &ActionResult| entry.layer.as_ref().unwrap().digest;
        let target = saved
            .iter()
            .find(|e| e.step.instruction.contains("/a"))
            .unwrap();
        let bytes = wait(async {
            let digest = layer(&evil[0]);
            let blob = tier.blobs.get(digest).await.unwrap().unwrap();
            blob.read_all(digest).await.unwrap()
        });
        // Also of the same length, so that no size gives it away.
        let size = usize::try_from(target.layer.as_ref().unwrap().size).unwrap();
        let mut padded = bytes.clone();
        padded.resize(size, 0);
        for bytes in [bytes, padded] {
            (backend.swap)(layer(target), bytes);
            victim.wipe();
            unharmed(&victim, Some("shared://cache"));
        }
    }
}

#[test]
fn an_entry_beyond_all_measure_is_a_miss() {
    for backend in backends() {
        let tier = &backend.tier;
        let mut poison = poison(tier, &Scope::protected());
        for entry in &mut poison {
            entry.step.instruction = "x".repeat(70 << 20);
        }
        put(tier, &poison);
        let victim = lab(tier, Scope::protected(), None, None);
        let (signer, _) = Signer::generate().unwrap();
        match backend.name {
            // Nothing but memory: no limit, but no trust either.
            "memory" => unharmed(
                &lab(tier, Scope::protected(), None, Some(*signer.public())),
                Some("it is not signed"),
            ),
            _ => {
                let made = victim.build(TEXT);
                assert_eq!(made.files["a"].len(), 56_000, "{}", backend.name);
            }
        }
    }
}

#[test]
fn a_blob_that_unpacks_to_more_than_any_disk_holds_is_read_no_further() {
    if !can_run() {
        return;
    }
    for backend in backends() {
        let victim = lab(&backend.tier, Scope::protected(), None, None);
        victim.write("busybox", std::fs::read("/bin/busybox").unwrap());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(victim.path("ctx/busybox"), mode).unwrap();
        let text = |n: u32| {
            format!(
                "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"touch\", \"/{n}\"]\n"
            )
        };
        let first = victim.build(&text(1));
        push(&backend.tier, &victim);
        let saved = entries(&backend.tier, &victim, &Scope::protected());
        let mut layers = saved.iter().filter_map(|entry| entry.layer.as_ref());
        let layer = layers.find(|layer| layer.digest == first.layers[0]);
        let layer = layer.expect("it was saved");
        (backend.swap)(layer.digest, bomb(usize::try_from(layer.size).unwrap()));
        victim.wipe();
        let second = victim.build(&text(2));
        assert_eq!(second.outcome("COPY busybox"), Outcome::Ran);
        assert_eq!(second.layers[0], layer.digest);
        assert!(
            second
                .warnings()
                .iter()
                .any(|w| w.contains("shared://cache"))
        );
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
