//! What survives a power cut: the operations that no barrier covers yet, and the fate of each.

use std::fmt;
use std::sync::Arc;

use super::MemoryFs;
use super::disk::{Change, Disk};

/// What becomes of one pending operation in a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It never reached the disk. For a name operation, those after it in the same directory are lost as well.
    Lost,
    /// It reached the disk whole, if what it depends on did.
    Kept,
    /// Of a write, some sectors reached the disk; any other operation is lost.
    Torn {
        /// Bit `i % 64` tells whether the `i`th sector (of 512 bytes, aligned in the file) did.
        sectors: u64,
        /// Whether the file's length covers the whole write, or ends with the last sector that did. What is inside
        /// the length and did not reach the disk reads as the bytes that were there before, or as zeros.
        extends: bool,
    },
}

/// What survives a power cut: a fate for each pending operation, in the order of
/// [`CrashPoint::pending`]. Every plan is legal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrashPlan {
    fates: Vec<Fate>,
    rest: Fate,
}

impl CrashPlan {
    /// Only what a barrier covers survives.
    #[must_use]
    pub fn nothing_pending() -> Self {
        Self { fates: Vec::new(), rest: Fate::Lost }
    }

    /// All survives, except what a failed sync lost.
    #[must_use]
    pub fn everything_pending() -> Self {
        Self { fates: Vec::new(), rest: Fate::Kept }
    }

    /// The first `count` pending operations survive.
    #[must_use]
    pub fn first(count: usize) -> Self {
        Self { fates: vec![Fate::Kept; count], rest: Fate::Lost }
    }

    /// The pending operations survive whose bit in `mask` is set; those past the 64th do not.
    #[must_use]
    pub fn masked(mask: u64) -> Self {
        let fate = |bit: u32| if mask >> bit & 1 == 1 { Fate::Kept } else { Fate::Lost };
        Self { fates: (0..u64::BITS).map(fate).collect(), rest: Fate::Lost }
    }

    /// The given fates, then `rest` for all further operations.
    #[must_use]
    pub fn chosen(fates: Vec<Fate>, rest: Fate) -> Self {
        Self { fates, rest }
    }

    /// The same plan with another fate for the pending operation `index`.
    #[must_use]
    pub fn with(mut self, index: usize, fate: Fate) -> Self {
        if self.fates.len() <= index {
            self.fates.resize(index + 1, self.rest);
        }
        self.fates[index] = fate;
        self
    }

    /// What becomes of the pending operation `index`.
    #[must_use]
    pub fn fate(&self, index: usize) -> Fate {
        self.fates.get(index).copied().unwrap_or(self.rest)
    }
}

/// A change that no barrier covers yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingOperation {
    /// Its place in the journal, from 0.
    pub position: u64,
    /// The file or directory it is about, by the path that was created, renamed or removed.
    pub path: Arc<str>,
    /// What it does.
    pub kind: PendingKind,
}

impl fmt::Display for PendingOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.position, self.kind, self.path)
    }
}

/// What a pending operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingKind {
    /// Writes bytes that lie in this many sectors.
    Write {
        /// Sectors that are touched, at least one.
        sectors: u64,
    },
    /// Sets a file's length.
    SetLen,
    /// Creates a file or directory.
    Create,
    /// Removes a file or directory.
    Remove,
    /// Renames a file or directory.
    Rename,
}

/// One instant at which the power may fail.
pub struct CrashPoint {
    disk: Disk,
    pending: Vec<PendingOperation>,
    capacity: Option<u64>,
}

impl CrashPoint {
    pub(super) fn new(disk: Disk, capacity: Option<u64>) -> Self {
        Self { pending: disk.pending(), disk, capacity }
    }

    /// How many operations the journal had then.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.disk.position()
    }

    /// The operations that may survive or be lost, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[PendingOperation] {
        &self.pending
    }

    /// The disk as the next boot finds it if the power fails here and `plan` says what survives.
    #[must_use]
    pub fn power_cut(&self, plan: &CrashPlan) -> MemoryFs {
        MemoryFs::from_disk(self.disk.after_power_cut(&self.pending, plan), self.capacity)
    }

    /// The disk as the next process finds it if this one is killed here: all is visible, and what was pending still
    /// is.
    #[must_use]
    pub fn process_kill(&self) -> MemoryFs {
        MemoryFs::from_disk(self.disk.after_process_kill(), self.capacity)
    }
}

/// Walks through a recorded journal and stops after every operation.
pub struct CrashPoints {
    point: CrashPoint,
    changes: std::vec::IntoIter<Change>,
    started: bool,
}

impl CrashPoints {
    pub(super) fn new(start: Disk, changes: Vec<Change>, capacity: Option<u64>) -> Self {
        Self { point: CrashPoint::new(start, capacity), changes: changes.into_iter(), started: false }
    }

    /// The next instant: the first is where recording began, the last is after the newest operation.
    #[expect(clippy::should_implement_trait, reason = "it lends the point, which an iterator cannot")]
    pub fn next(&mut self) -> Option<&CrashPoint> {
        if self.started {
            self.point.disk.apply(&self.changes.next()?);
            self.point.pending = self.point.disk.pending();
        }
        self.started = true;
        Some(&self.point)
    }
}
