//! What a walk over the segments of a log carries from one to the next.

use klamm_types::{LeaderEpoch, LeaderEpochCache, Offset};

use super::transactions::Transactions;

/// How far the files of a log are known to be settled: written out, flushed, and not to be recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// All of them: the directory was closed in order, or nothing is known to the contrary.
    All,
    /// What lies below this offset, the recovery point. A crash may have left anything past it.
    Below(Offset),
}

impl Settled {
    /// Whether what stands at `offset` must be in order.
    pub(super) fn covers(self, offset: Offset) -> bool {
        match self {
            Self::All => true,
            Self::Below(recovery_point) => offset < recovery_point,
        }
    }

    /// What holds for the unsynced files of a segment of which this holds: nothing, unless all of it is settled.
    pub(super) fn of_unsynced(self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Below(_) => Self::Below(Offset(i64::MIN)),
        }
    }

    /// What holds within a segment that the segment at `next_base` follows: its indexes are settled if all of it is.
    pub(super) fn within(self, next_base: Option<Offset>) -> Self {
        match (self, next_base) {
            (Self::Below(recovery_point), Some(next_base)) if next_base <= recovery_point => Self::All,
            _ => self,
        }
    }
}

/// The state of a log at one place of the walk.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) settled: Settled,
    /// The leader epochs by their checkpoint; `None` if there is none that reads.
    pub(super) epochs: Option<LeaderEpochCache>,
    /// The least offset that the next batch may have.
    pub(super) expected: Offset,
    /// From here on every offset has a leader epoch by the checkpoint: the log start, as far as it is known.
    pub(super) epochs_from: Offset,
    /// The newest leader epoch seen.
    pub(super) epoch: LeaderEpoch,
    /// The last disagreement about an epoch, which is told once.
    pub(super) disagreement: Option<(LeaderEpoch, Option<LeaderEpoch>)>,
    pub(super) transactions: Transactions,
}

impl LogState {
    /// The state before the first segment, which begins at `base_offset`.
    pub(super) fn new(settled: Settled, epochs: Option<LeaderEpochCache>, base_offset: Offset) -> Self {
        Self {
            settled,
            epochs,
            expected: base_offset,
            epochs_from: Offset(i64::MAX),
            epoch: LeaderEpoch::NONE,
            disagreement: None,
            transactions: Transactions::new(base_offset),
        }
    }
}
