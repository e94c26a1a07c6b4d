//! Who vouches for an entry: [`Signer`], [`Keyring`] and what a reader demands.
//!
//! An entry is signed with Ed25519 (RFC 8032, the pure variant) over [`ActionResult::signed_bytes`],
//! prefixed by `CONTEXT` so that no signature made for something else can pass for one. The
//! id of a key is the first 16 hexadecimal digits of the SHA-256 of its public half in
//! SubjectPublicKeyInfo DER, the file that `openssl pkey -pubout -outform DER` writes; an id only
//! finds the key, it proves nothing. Private keys are PKCS#8, public ones SubjectPublicKeyInfo (RFC
//! 8410), both as PEM (RFC 7468); a public key may also be the base64 of its PEM alone.
//!
//! [`Keyring::accept`] is the policy: an entry of a scope that must be signed needs a signature by a
//! known key, and a wrong signature by a known key is refused in any scope.
//!
//! `docs/internals/remote-cache.md` specifies it, with test vectors.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::{ActionResult, Scope, Signature};
use crate::digest::Sha256Digest;

/// What stands before the signed bytes.
const CONTEXT: &[u8] = b"memobuild-ci action result v1\n";
/// The name of the algorithm in [`Signature`].
const ALGORITHM: &str = "ed25519";
/// What stands before the 32 bytes of the key in the DER form of an Ed25519 public key: a SEQUENCE
/// of the algorithm 1.3.101.112 and a BIT STRING.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// What stands before the 32 bytes of the seed in the DER form of an Ed25519 private key, PKCS#8
/// version 1.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of the wanted kind.
    #[error("it has no PEM block `{label}`")]
    NoBlock {
        /// What the block would be called.
        label: &'static str,
    },
    /// What stands in the block is no base64.
    #[error("its PEM block is not base64")]
    Base64,
    /// The block holds something else.
    #[error("it is not an Ed25519 key")]
    Kind,
    /// No randomness for a new key.
    #[error("the system gives no random numbers")]
    Random,
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "make a pair of keys with `memobuild-ci cache keygen NAME`"
    }
}

/// The name of a key: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public half of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Its SubjectPublicKeyInfo in DER, 44 bytes.
    fn der(&self) -> Vec<u8> {
        [&SPKI[..], &self.0[..]].concat()
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        let mut hex = Sha256Digest::of(&self.der()).hex();
        hex.truncate(16);
        KeyId(hex)
    }

    /// Its PEM form.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads the PEM form, or the base64 in it alone.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let der = match text.contains("-----BEGIN") {
            true => block("PUBLIC KEY", text)?,
            false => decoded(text)?,
        };
        let key = der.strip_prefix(&SPKI[..]).ok_or(KeyError::Kind)?;
        Ok(Self(key.try_into().map_err(|_| KeyError::Kind)?))
    }
}

/// The public keys in `text`: one PEM block or several, or the base64 of one.
pub fn public_keys(text: &str) -> Result<Vec<PublicKey>, KeyError> {
    const END: &str = "-----END PUBLIC KEY-----";
    if !text.contains("-----BEGIN") {
        return Ok(vec![text.parse()?]);
    }
    let blocks = text.split_inclusive(END).filter(|part| part.contains(END));
    let keys: Vec<PublicKey> = blocks.map(str::parse).collect::<Result<_, _>>()?;
    match keys.is_empty() {
        true => Err(KeyError::NoBlock {
            label: "PUBLIC KEY",
        }),
        false => Ok(keys),
    }
}

/// Signs entries with a private key.
#[derive(Clone)]
pub struct Signer {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public.id())
    }
}

impl Signer {
    /// Signs with the private key in `pem`.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_der(&block("PRIVATE KEY", pem)?)
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Kind)?;
        let public = pair.public_key().as_ref().try_into();
        Ok(Self {
            public: PublicKey(public.map_err(|_| KeyError::Kind)?),
            pair: Arc::new(pair),
        })
    }

    /// A new key: the signer, and the private half as PEM.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let seed = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new())
            .map_err(|_| KeyError::Random)?
            .expose();
        let der = [&PKCS8[..], &seed[..]].concat();
        Ok((Self::from_der(&der)?, pem("PRIVATE KEY", &der)))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// `result` with a signature, in place of one that it had.
    #[must_use]
    pub fn sign(&self, result: ActionResult) -> ActionResult {
        ActionResult {
            signature: Some(self.signature(&result)),
            ..result
        }
    }

    /// The signature over `result`.
    pub fn signature(&self, result: &ActionResult) -> Signature {
        Signature {
            key_id: self.public.id().to_string(),
            algorithm: ALGORITHM.to_owned(),
            value: BASE64_STANDARD.encode(self.pair.sign(&message(result))),
        }
    }
}

/// Why an entry counts as a miss although it is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// A scope that must be signed, and no signature.
    #[error("it is not signed, which scope `{scope}` must be")]
    Unsigned {
        /// The entry's scope.
        scope: Scope,
    },
    /// A scope that must be signed, and nobody whom we know signed.
    #[error("it is signed by the unknown key `{key}`, and scope `{scope}` must be by a known one")]
    UnknownKey {
        /// The id of the key.
        key: String,
        /// The entry's scope.
        scope: Scope,
    },
    /// The signature is not one of the key over this entry.
    #[error("its signature is not by the key `{key}` that it names")]
    Forged {
        /// The id of the key.
        key: String,
    },
    /// Another algorithm.
    #[error("it is signed with `{algorithm}`, which this program doesn't know")]
    Algorithm {
        /// Its name.
        algorithm: String,
    },
}

/// What is known about the signature of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureState {
    /// There is none.
    Absent,
    /// By a known key over this entry.
    Valid,
    /// By a key that we don't know.
    UnknownKey,
    /// By a known key, and over something else; or in a form that we don't know.
    Wrong,
}

impl SignatureState {
    /// The word for it in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Valid => "valid",
            Self::UnknownKey => "unknown key",
            Self::Wrong => "wrong",
        }
    }
}

/// A scope, or all scopes of a kind, that must be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopePattern {
    /// Every scope: `*`.
    All,
    /// All that start so: `branch/*`.
    Prefix(String),
    /// This one.
    One(Scope),
}

impl ScopePattern {
    /// Whether `scope` is meant.
    pub fn matches(&self, scope: &Scope) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => scope.as_str().starts_with(prefix.as_str()),
            Self::One(one) => one == scope,
        }
    }
}

impl FromStr for ScopePattern {
    type Err = super::ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => Ok(Self::All),
            "branch/*" | "pull/*" => Ok(Self::Prefix(text.trim_end_matches('*').to_owned())),
            one => Ok(Self::One(one.parse()?)),
        }
    }
}

impl fmt::Display for ScopePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::One(scope) => scope.fmt(f),
        }
    }
}

/// The keys that are trusted, and the scopes whose entries they must have signed.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: BTreeMap<KeyId, PublicKey>,
    require: Vec<ScopePattern>,
}

impl Keyring {
    /// Trusts `keys`, and demands their signatures in the scopes that `require` names.
    pub fn new(
        keys: impl IntoIterator<Item = PublicKey>,
        require: impl IntoIterator<Item = ScopePattern>,
    ) -> Self {
        Self {
            keys: keys.into_iter().map(|key| (key.id(), key)).collect(),
            require: require.into_iter().collect(),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether entries of `scope` must be signed.
    pub fn requires(&self, scope: &Scope) -> bool {
        self.require.iter().any(|pattern| pattern.matches(scope))
    }

    /// What is known about the signature of `result`.
    pub fn signature(&self, result: &ActionResult) -> SignatureState {
        let Some(signature) = &result.signature else {
            return SignatureState::Absent;
        };
        if signature.algorithm != ALGORITHM {
            return SignatureState::Wrong;
        }
        let Some(key) = self.keys.get(&KeyId(signature.key_id.clone())) else {
            return SignatureState::UnknownKey;
        };
        let valid = BASE64_STANDARD.decode(&signature.value).is_ok_and(|value| {
            let key = UnparsedPublicKey::new(&ED25519, key.0);
            key.verify(&message(result), &value).is_ok()
        });
        match valid {
            true => SignatureState::Valid,
            false => SignatureState::Wrong,
        }
    }

    /// Whether a reader may rely on `result`, as far as signatures say.
    pub fn accept(&self, result: &ActionResult) -> Result<(), Untrusted> {
        let required = self.requires(&result.scope);
        let scope = || result.scope.clone();
        match (self.signature(result), &result.signature) {
            (SignatureState::Valid, _) => Ok(()),
            (SignatureState::Wrong, Some(signature)) if signature.algorithm != ALGORITHM => {
                Err(Untrusted::Algorithm {
                    algorithm: signature.algorithm.clone(),
                })
            }
            (SignatureState::Wrong, Some(signature)) => Err(Untrusted::Forged {
                key: signature.key_id.clone(),
            }),
            (SignatureState::UnknownKey, Some(signature)) if required => {
                Err(Untrusted::UnknownKey {
                    key: signature.key_id.clone(),
                    scope: scope(),
                })
            }
            (SignatureState::Absent, _) if required => Err(Untrusted::Unsigned { scope: scope() }),
            _ => Ok(()),
        }
    }
}

/// What a signature covers.
fn message(result: &ActionResult) -> Vec<u8> {
    [CONTEXT, &result.signed_bytes()].concat()
}

/// The bytes in the first PEM block `label` of `text`.
fn block(label: &'static str, text: &str) -> Result<Vec<u8>, KeyError> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let body = text.split_once(&begin).map(|(_, rest)| rest);
    let body = body.and_then(|rest| rest.split_once(&end));
    let (body, _) = body.ok_or(KeyError::NoBlock { label })?;
    decoded(body)
}

/// The bytes that `text`, with or without line breaks, is the base64 of.
fn decoded(text: &str) -> Result<Vec<u8>, KeyError> {
    let text: String = text.split_whitespace().collect();
    BASE64_STANDARD.decode(text).map_err(|_| KeyError::Base64)
}

/// A PEM block; an Ed25519 key fits on one line.
fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::conformance::sample_action;

    /// The example of RFC 8410, section 10.3.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// Section 10.1.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    fn signer() -> Signer {
        Signer::from_pem(PRIVATE).unwrap()
    }

    fn known() -> Keyring {
        let require = ["protected", "branch/*"].map(|text| text.parse().unwrap());
        Keyring::new([*signer().public()], require)
    }

    fn entry(scope: Scope) -> ActionResult {
        ActionResult {
            scope,
            ..sample_action(1, &[])
        }
    }

    #[test]
    fn the_keys_of_the_specification_are_read() {
        let public: PublicKey = PUBLIC.parse().unwrap();
        assert_eq!(signer().public(), &public);
        assert_eq!(public.pem(), PUBLIC);
        assert_eq!(public.id().to_string(), "a1e9156054e04fac");
        let line = PUBLIC.lines().nth(1).unwrap();
        assert_eq!(line.parse(), Ok(public));
        let (second, pem) = Signer::generate().unwrap();
        assert_eq!(Signer::from_pem(&pem).unwrap().public(), second.public());
        let both = format!("# two keys\n{PUBLIC}{}", second.public().pem());
        assert_eq!(public_keys(&both), Ok(vec![public, *second.public()]));
        assert_eq!(format!("{second:?}").len(), "Signer()".len() + 16);
    }

    #[test]
    fn other_texts_are_no_keys() {
        let private = |text: &str| Signer::from_pem(text).unwrap_err();
        assert!(matches!(private(PUBLIC), KeyError::NoBlock { .. }));
        assert!(matches!(private(""), KeyError::NoBlock { .. }));
        assert_eq!(private(&PRIVATE.replace("MC4C", "MC4D")), KeyError::Kind);
        assert_eq!(private(&PRIVATE.replace("MC4C", "M?4C")), KeyError::Base64);
        assert!(PRIVATE.parse::<PublicKey>().is_err());
        assert_eq!("MC4C".parse::<PublicKey>(), Err(KeyError::Kind));
        assert!(public_keys("-----BEGIN CERTIFICATE-----").is_err());
    }

    #[test]
    fn a_signature_is_what_the_specification_says() {
        let signed = signer().sign(entry(Scope::protected()));
        let signature = signed.signature.clone().unwrap();
        assert_eq!(signature.key_id, "a1e9156054e04fac");
        assert_eq!(signature.algorithm, "ed25519");
        assert_eq!(
            signature.value,
            "Ygpn1IV4hVGGp3Y1ETL1wpaGsOQnCoe7T860ZsFVVJ5BorNQBl7tQMGeGVP7rDaEBebOWOhegDDyh6VSl43cAA==",
            "entries in caches are signed so"
        );
        assert_eq!(known().signature(&signed), SignatureState::Valid);
        assert_eq!(known().accept(&signed), Ok(()));
    }

    #[test]
    fn whatever_changes_in_an_entry_breaks_its_signature() {
        let signed = signer().sign(entry(Scope::protected()));
        let changes: [fn(&mut ActionResult); 6] = [
            |e| e.scope = Scope::pull("1"),
            |e| e.key = sample_action(2, &[]).key,
            |e| e.layer = sample_action(1, &[Sha256Digest::of(b"other")]).layer,
            |e| e.created += 1,
            |e| e.producer.repository = Some("other/repository".to_owned()),
            |e| e.recipe.clear(),
        ];
        for change in changes {
            let mut entry = signed.clone();
            change(&mut entry);
            assert_ne!(entry, signed);
            assert!(matches!(
                known().accept(&entry),
                Err(Untrusted::Forged { .. })
            ));
        }
    }

    #[test]
    fn what_a_reader_demands() {
        let (stranger, _) = Signer::generate().unwrap();
        let required = Scope::branch("main");
        let (mine, free) = (entry(required.clone()), entry(Scope::pull("7")));
        assert!(matches!(
            known().accept(&mine),
            Err(Untrusted::Unsigned { .. })
        ));
        assert_eq!(known().accept(&free), Ok(()));
        assert!(matches!(
            known().accept(&stranger.sign(mine.clone())),
            Err(Untrusted::UnknownKey { .. })
        ));
        assert_eq!(known().accept(&stranger.sign(free.clone())), Ok(()));
        // A stranger who says that he is us is refused where nobody must sign, too.
        let mut forged = stranger.sign(free.clone());
        forged.signature.as_mut().unwrap().key_id = signer().public().id().to_string();
        assert!(matches!(
            known().accept(&forged),
            Err(Untrusted::Forged { .. })
        ));
        let mut foreign = signer().sign(free);
        foreign.signature.as_mut().unwrap().algorithm = "rsa".to_owned();
        assert!(matches!(
            known().accept(&foreign),
            Err(Untrusted::Algorithm { .. })
        ));
        assert_eq!(Keyring::default().accept(&mine), Ok(()));
    }

    #[test]
    fn patterns_of_scopes() {
        let pattern = |text: &str| text.parse::<ScopePattern>();
        let (main, dev) = (Scope::protected(), Scope::branch("dev"));
        assert!(pattern("*").unwrap().matches(&main));
        assert!(pattern("branch/*").unwrap().matches(&dev));
        assert!(!pattern("branch/*").unwrap().matches(&main));
        assert!(pattern("branch/dev").unwrap().matches(&dev));
        assert!(!pattern("branch/de").unwrap().matches(&dev));
        for text in ["", "main", "protected/*", "**", "branch/d*"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
