//! Looking without touching: what a look-up would find and why not more, for `explain`.

use super::{FoundAction, TieredStore};
use crate::{
    cache::{ActionResult, line::Act},
    key::CacheKey,
};

/// What is known about a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peeked {
    /// What [`TieredStore::lookup`] would find.
    pub found: Option<FoundAction>,
    /// An entry that is there and counts as a miss, if nothing else was found.
    pub refused: Option<RefusedEntry>,
}

/// An entry that may not be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEntry {
    /// The name of the tier that has it.
    pub tier: String,
    /// What is wrong with it.
    pub why: String,
    /// What it says.
    pub result: ActionResult,
}

impl TieredStore {
    /// Looks `keys` up as [`lookup`](Self::lookup) does, and files and saves nothing. Trouble
    /// with tiers is told as an event.
    pub async fn peek(&self, keys: &[CacheKey]) -> Vec<Peeked> {
        let (local, at_hand) = self.lookup_local(keys).await;
        let mut peeked: Vec<Peeked> = local
            .into_iter()
            .map(|result| Peeked {
                found: result.map(|result| FoundAction { result, tier: None }),
                refused: None,
            })
            .collect();
        let mut open: Vec<usize> = (0..keys.len()).filter(|n| !at_hand[*n]).collect();
        for (number, line) in self.lines.iter().enumerate() {
            if open.is_empty() {
                break;
            }
            if !line.tier.access.read {
                continue;
            }
            let asked: Vec<CacheKey> = open.iter().map(|n| keys[*n]).collect();
            let scopes = self.scopes.scopes();
            let answers = match line.tier.actions.lookup(scopes, &asked).await {
                Ok(answers) if answers.len() == asked.len() => answers,
                // The guard has told it, or it is told as a miss is.
                Ok(_) => continue,
                Err(error) => {
                    line.trouble(Act::Read, &error);
                    continue;
                }
            };
            for (n, result) in std::mem::take(&mut open).into_iter().zip(answers) {
                let Some(result) = result else {
                    open.push(n);
                    continue;
                };
                let bytes = result.encode().len() as u64;
                match self.check(keys[n], &result, bytes) {
                    Ok(()) => {
                        self.note_offer(number, &result);
                        let tier = Some(number);
                        peeked[n].found = Some(FoundAction { result, tier });
                    }
                    Err(why) => {
                        open.push(n);
                        peeked[n].refused = Some(RefusedEntry {
                            tier: line.name().to_owned(),
                            why,
                            result,
                        });
                    }
                }
            }
        }
        peeked
    }
}
