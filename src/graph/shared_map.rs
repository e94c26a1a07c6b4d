//! A sorted map that is cheap to copy, also where the copies go on to differ.
//!
//! Stages inherit what the stages below them have, and steps keep what they saw. A
//! [`SharedMap`] has its entries in pieces of at most [`PIECE`], each behind a counted
//! reference, as is the list of pieces: a copy costs nothing, and a change of one copy
//! takes along one piece and the list. No piece is empty.

use std::{borrow::Borrow, sync::Arc};

/// Entries of a piece.
const PIECE: usize = 64;

/// Entries of a piece, by key.
type Piece<K, V> = Vec<(K, V)>;

/// A sorted map whose copies share what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct SharedMap<K, V>(Arc<Vec<Arc<Piece<K, V>>>>);

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Keys and values, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.0.iter().flat_map(|piece| piece.iter());
        entries.map(|(key, value)| (key, value))
    }

    /// Whether both are copies of one map, unchanged since.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let piece = self.0.get(self.piece(key))?;
        let at = position(piece, key).ok()?;
        Some(&piece[at].1)
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let last = self.0.len().saturating_sub(1);
        let number = self.piece(&key).min(last);
        let pieces = Arc::make_mut(&mut self.0);
        let Some(piece) = pieces.get_mut(number) else {
            pieces.push(Arc::new(vec![(key, value)]));
            return;
        };
        let piece = Arc::make_mut(piece);
        let at = match position(piece, &key) {
            Ok(at) => {
                piece[at].1 = value;
                return;
            }
            Err(at) => at,
        };
        piece.insert(at, (key, value));
        if piece.len() > PIECE {
            // Keys that come in their order leave full pieces behind.
            let cut = if at == PIECE { PIECE } else { PIECE / 2 };
            let rest = piece.split_off(cut);
            pieces.insert(number + 1, Arc::new(rest));
        }
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let number = self.piece(key);
        let Some(Ok(at)) = self.0.get(number).map(|piece| position(piece, key)) else {
            return;
        };
        let pieces = Arc::make_mut(&mut self.0);
        let piece = Arc::make_mut(&mut pieces[number]);
        piece.remove(at);
        if piece.is_empty() {
            pieces.remove(number);
        }
    }

    /// The number of the piece in which `key` is, if it is in any.
    fn piece<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let is_before = |piece: &Arc<Piece<K, V>>| {
            let last = piece.last();
            last.is_some_and(|(last, _)| last.borrow() < key)
        };
        self.0.partition_point(is_before)
    }
}

/// Where `key` is in a piece, or where it belongs.
fn position<K: Borrow<Q>, V, Q: Ord + ?Sized>(piece: &[(K, V)], key: &Q) -> Result<usize, usize> {
    piece.binary_search_by(|(known, _)| known.borrow().cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Sets a key, or removes it where there is no value.
    fn change(
        map: &mut SharedMap<u16, u8>,
        model: &mut BTreeMap<u16, u8>,
        changes: &[(u16, Option<u8>)],
    ) {
        for (key, value) in changes {
            match value {
                Some(value) => {
                    map.insert(*key, *value);
                    model.insert(*key, *value);
                }
                None => {
                    map.remove(key);
                    model.remove(key);
                }
            }
        }
    }

    fn check(map: &SharedMap<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(model.iter()));

        for key in 0..300 {
            assert_eq!(map.get(&key), model.get(&key));
        }
        let sizes = map.0.iter().map(|piece| piece.len());
        assert!(sizes.into_iter().all(|size| (1..=PIECE).contains(&size)));
    }

    #[test]
    fn keys_in_order_fill_the_pieces() {
        let mut map = SharedMap::default();
        (0..PIECE * 3).for_each(|key| map.insert(key, ()));
        assert_eq!(map.0.len(), 3);
    }

    #[test]
    fn a_change_of_a_copy_takes_along_one_piece() {
        let mut map = SharedMap::default();
        (0..PIECE * 3).for_each(|key| map.insert(key, 'a'));
        let mut copy = map.clone();
        assert!(copy.is_same(&map));
        copy.insert(PIECE, 'b');
        assert!(!copy.is_same(&map));
        let shared = |n: usize| Arc::ptr_eq(&map.0[n], &copy.0[n]);
        assert_eq!([0, 1, 2].map(shared), [true, false, true]);
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_and_copies_are_apart(
            first in prop::collection::vec((0u16..300, any::<Option<u8>>()), 0..600),
            own in prop::collection::vec((0u16..300, any::<Option<u8>>()), 0..300),
            copys in prop::collection::vec((0u16..300, any::<Option<u8>>()), 0..300),
        ) {
            let (mut map, mut model) = Default::default();
            change(&mut map, &mut model, &first);
            let (mut copy, mut copied) = (map.clone(), model.clone());
            change(&mut map, &mut model, &own);
            change(&mut copy, &mut copied, &copys);
            check(&map, &model);
            check(&copy, &copied);
        }
    }
}
