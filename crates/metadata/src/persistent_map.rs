//! An ordered map whose copies share structure.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// An ordered map with a cheap copy: cloning it copies one pointer, and a change to a copy copies the chunk that
/// it touches and the list of chunks, nothing else.
///
/// Two levels are enough for the sizes that a metadata image has: at a million entries the list of chunks is
/// 100 kB. Iteration is in key order, so that what is derived from a map does not depend on its history.
///
/// ```text
///   root:  [ chunk | chunk | chunk ]      chunk: 1..=128 (key, value), ordered; no chunk is empty
/// ```
pub struct PersistentMap<K, V> {
    root: Arc<Vec<Arc<Chunk<K, V>>>>,
    len: usize,
}

type Chunk<K, V> = Vec<(K, V)>;

const CHUNK_ENTRIES_MAX: usize = 128;

impl<K, V> PersistentMap<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self { root: Arc::default(), len: 0 }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.root.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether the two maps are one and the same copy: then they are equal, without a look at the entries.
    #[must_use]
    pub fn is_same_copy(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }
}

impl<K: Ord, V> PersistentMap<K, V> {
    /// The value under `key`.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.root.get(self.chunk_of(key)?)?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// Whether there is an entry under `key`.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from `start` on (inclusive), in order.
    pub fn iter_from<'a, Q: Ord + ?Sized>(
        &'a self,
        start: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let chunks = self.root.get(self.chunk_of(start).unwrap_or(0)..).unwrap_or_default();
        let before = |chunk: &Arc<Chunk<K, V>>| chunk.partition_point(|(key, _)| key.borrow() < start);
        let skipped = chunks.first().map_or(0, before);
        let entries = chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)));
        entries.skip(skipped)
    }

    /// The only chunk that may hold `key`: the last one that does not start past it.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let starts_at_or_before =
            |chunk: &Arc<Chunk<K, V>>| chunk.first().is_some_and(|(k, _)| k.borrow() <= key);
        self.root.partition_point(starts_at_or_before).checked_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// Puts `value` under `key` and returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key).unwrap_or(0);
        let root = Arc::make_mut(&mut self.root);
        let Some(chunk) = root.get_mut(at) else {
            root.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(found) => Some(std::mem::replace(&mut chunk[found].1, value)),
            Err(gap) => {
                chunk.insert(gap, (key, value));
                if chunk.len() > CHUNK_ENTRIES_MAX {
                    // Keys that arrive in order leave full chunks behind.
                    let split =
                        if gap + 1 == chunk.len() { CHUNK_ENTRIES_MAX } else { CHUNK_ENTRIES_MAX / 2 };
                    let upper = chunk.split_off(split);
                    root.insert(at + 1, Arc::new(upper));
                }
                self.len += 1;
                None
            }
        }
    }

    /// The value under `key`, to be changed in this copy alone.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key)?;
        let found = self.root.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let chunk = Arc::make_mut(Arc::make_mut(&mut self.root).get_mut(at)?);
        chunk.get_mut(found).map(|(_, value)| value)
    }

    /// Takes the entry under `key` out and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key)?;
        let found = self.root.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let root = Arc::make_mut(&mut self.root);
        let chunk = Arc::make_mut(root.get_mut(at)?);
        let (_, value) = chunk.remove(found);
        let left = chunk.len();
        self.len -= 1;
        if left == 0 {
            root.remove(at);
        } else if left < CHUNK_ENTRIES_MAX / 4 {
            merge_with_next(root, at);
        }
        Some(value)
    }
}

/// Joins a thin chunk with the one after it if both fit into one, so that many removals leave no dust.
fn merge_with_next<K: Clone, V: Clone>(root: &mut Vec<Arc<Chunk<K, V>>>, at: usize) {
    let fits = match (root.get(at), root.get(at + 1)) {
        (Some(thin), Some(next)) => thin.len() + next.len() <= CHUNK_ENTRIES_MAX / 2,
        _ => false,
    };
    if fits {
        let next = root.remove(at + 1);
        Arc::make_mut(&mut root[at]).extend(next.iter().cloned());
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_copy(other) || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for PersistentMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
        Bump(u16),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..600u16, any::<u32>()).prop_map(|(k, v)| Step::Insert(k, v)),
            4 => (0..600u16).prop_map(Step::Remove),
            1 => (0..600u16).prop_map(Step::Bump),
            1 => Just(Step::Keep),
        ]
    }

    fn check(map: &PersistentMap<u16, u32>, model: &BTreeMap<u16, u32>) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        assert!(map.root.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_ENTRIES_MAX));
    }

    proptest! {
        #[test]
        fn behaves_as_a_tree_map_and_copies_stay_as_they_were(steps in prop::collection::vec(step(), 0..1500)) {
            let (mut map, mut model) = (PersistentMap::new(), BTreeMap::new());
            let mut kept = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(k, v) => prop_assert_eq!(map.insert(k, v), model.insert(k, v)),
                    Step::Remove(k) => prop_assert_eq!(map.remove(&k), model.remove(&k)),
                    Step::Bump(k) => {
                        prop_assert_eq!(map.get(&k), model.get(&k));
                        if let Some(v) = map.get_mut(&k) { *v = v.wrapping_add(1); }
                        if let Some(v) = model.get_mut(&k) { *v = v.wrapping_add(1); }
                    }
                    Step::Keep => kept.push((map.clone(), model.clone())),
                }
            }
            check(&map, &model);
            for start in [0u16, 77, 300, 599, 700] {
                prop_assert!(map.iter_from(&start).eq(model.range(start..)));
            }
            for (map, model) in &kept {
                check(map, model);
            }
        }
    }

    #[test]
    fn keys_in_order_fill_their_chunks() {
        let map: PersistentMap<u32, ()> = (0..1280).map(|k| (k, ())).collect();
        assert_eq!(map.root.len(), 10);
        let same = map.clone();
        assert!(map.is_same_copy(&same) && map == same);
    }
}
