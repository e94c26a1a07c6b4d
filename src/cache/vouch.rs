//! Who vouches for entries that travel: [`Vouching`] checks those that come from tiers and signs
//! those that go to them.

use std::{fmt, sync::Arc};

use super::{ActionResult, Signature};

type Check = dyn Fn(&ActionResult) -> Result<(), String> + Send + Sync;
type Sign = dyn Fn(&ActionResult) -> Option<Signature> + Send + Sync;

/// What a build demands of entries, and gives to its own. By default nothing.
#[derive(Clone, Default)]
pub struct Vouching {
    check: Option<Arc<Check>>,
    sign: Option<Arc<Sign>>,
}

impl fmt::Debug for Vouching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vouching")
            .field("checks", &self.check.is_some())
            .field("signs", &self.sign.is_some())
            .finish()
    }
}

impl Vouching {
    /// Relies only on entries for which `check` has no objection.
    #[must_use]
    pub fn checking_with(
        mut self,
        check: impl Fn(&ActionResult) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Gives entries the signature that `sign` makes.
    #[must_use]
    pub fn signing_with(
        mut self,
        sign: impl Fn(&ActionResult) -> Option<Signature> + Send + Sync + 'static,
    ) -> Self {
        self.sign = Some(Arc::new(sign));
        self
    }

    /// Whether the entry may be relied on; else why not.
    pub(super) fn accept(&self, entry: &ActionResult) -> Result<(), String> {
        self.check.as_ref().map_or(Ok(()), |check| check(entry))
    }

    /// Signs the entry, if there is somebody to.
    pub(super) fn sign(&self, entry: &mut ActionResult) {
        if let Some(sign) = &self.sign {
            entry.signature = sign(entry);
        }
    }
}
