//! Which of the states that a power cut may leave are looked at.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use klamm_log::fs::{CrashPlan, CrashPoint, Fate, LogFs, MemoryFs, PendingKind, read_file};

use crate::random::Random;

/// How thoroughly a crash point is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Most pending operations of which all subsets are taken.
    pub(crate) subsets_of: usize,
    /// Most pending operations that are lost alone, survive alone, and end a prefix; of more, a random choice.
    pub(crate) singles: usize,
    /// Most pending writes that are torn: the newest.
    pub(crate) torn: usize,
    /// Random plans, with torn writes among them.
    pub(crate) random: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self { subsets_of: 8, singles: usize::MAX, torn: 6, random: 12 };
    pub(crate) const SHORT: Self = Self { subsets_of: 3, singles: 16, torn: 1, random: 2 };
    pub(crate) const SAMPLE: Self = Self { subsets_of: 0, singles: 4, torn: 1, random: 2 };
}

/// The plans for one crash point: nothing pending survives, all does, all but one, only one, every prefix, all
/// subsets of few, torn writes, and some at random.
pub(crate) fn plans(point: &CrashPoint, effort: Effort, random: &mut Random) -> Vec<CrashPlan> {
    let pending = point.pending();
    let mut plans = vec![CrashPlan::nothing_pending(), CrashPlan::everything_pending()];
    for index in chosen(pending.len(), effort.singles, random) {
        plans.push(CrashPlan::everything_pending().with(index, Fate::Lost));
        plans.push(CrashPlan::nothing_pending().with(index, Fate::Kept));
        plans.push(CrashPlan::first(index));
    }
    if pending.len() <= effort.subsets_of {
        plans.extend((0..1 << pending.len()).map(CrashPlan::masked));
    }
    let writes = pending.iter().enumerate().rev().filter_map(|(index, pending)| match pending.kind {
        PendingKind::Write { sectors } => Some((index, sectors)),
        _ => None,
    });
    for (index, sectors) in writes.take(effort.torn) {
        for fate in tears(sectors) {
            plans.push(CrashPlan::everything_pending().with(index, fate));
            plans.push(CrashPlan::first(index).with(index, fate));
        }
    }
    plans.extend((0..effort.random).map(|_| random_plan(pending.len(), random)));
    plans
}

/// All indexes below `count`, or `most` of them at random.
fn chosen(count: usize, most: usize, random: &mut Random) -> Vec<usize> {
    if count <= most {
        (0..count).collect()
    } else {
        (0..most).map(|_| random.below(count as u64) as usize).collect()
    }
}

/// The ways to tear a write: a prefix of its sectors, a suffix, all but one in the middle, only its length.
fn tears(sectors: u64) -> Vec<Fate> {
    let bits = sectors.min(64);
    let all = u64::MAX >> (64 - bits);
    let middle = 1 << (bits / 2);
    let mut masks = vec![0, 1, all >> 1, all & !1, all & !middle, middle];
    masks.sort_unstable();
    masks.dedup();
    let fates =
        masks.into_iter().flat_map(|sectors| [true, false].map(|extends| Fate::Torn { sectors, extends }));
    fates.collect()
}

fn random_plan(pending: usize, random: &mut Random) -> CrashPlan {
    let loss = 1 + random.below(4);
    let fate = |random: &mut Random| match random.below(6) {
        n if n < loss => Fate::Lost,
        5 => Fate::Torn { sectors: random.next(), extends: random.one_in(2) },
        _ => Fate::Kept,
    };
    let fates = (0..pending).map(|_| fate(random)).collect();
    CrashPlan::chosen(fates, Fate::Lost)
}

/// A hash of the names and bytes on a disk.
pub(crate) fn fingerprint(fs: &MemoryFs) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_dir(fs, Path::new("/"), &mut hasher);
    hasher.finish()
}

fn hash_dir(fs: &MemoryFs, dir: &Path, hasher: &mut DefaultHasher) {
    for entry in fs.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        entry.name.hash(hasher);
        if entry.stat.is_dir {
            hash_dir(fs, &path, hasher);
        } else {
            read_file(fs, &path, u64::MAX).unwrap().hash(hasher);
        }
    }
}
