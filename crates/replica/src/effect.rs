//! What a replica wants done.

use klamm_types::{BrokerEpoch, BrokerId, EpochEntry, LeaderEpoch, Offset, PartitionEpoch};

use crate::event::{
    AppendTicket, DeletionTicket, FetchId, FetchTicket, FlushToken, FollowerFetch, ProposalId,
};
use crate::refusal::{Alarm, AppendError, DeletionError, FetchRefusal};

/// What a leader may give to a fetch. All of it is of one instant: a reader must not look at the log again for
/// any of these (KAFKA-9807, KAFKA-9835).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FetchBounds {
    /// First offset to read.
    pub offset: Offset,
    /// Exclusive end of what may be read.
    pub log_end_offset: Offset,
    /// The high watermark to report.
    pub high_watermark: Offset,
    /// The log start to report.
    pub log_start_offset: Offset,
}

/// What a consumer may read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadBounds {
    /// First offset kept.
    pub log_start_offset: Offset,
    /// Exclusive end of what may be read.
    pub high_watermark: Offset,
    /// Whether `high_watermark` may be told as "the latest offset". Not before a new leader has committed up to
    /// where its epoch began, else the latest offset would go back (Kafka: OFFSET_NOT_AVAILABLE).
    pub is_latest_known: bool,
}

/// An acknowledged append.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Acknowledged {
    /// The offset of the first record, as stored.
    pub base_offset: Offset,
    /// The first offset that the log keeps.
    pub log_start_offset: Offset,
}

/// A member of a proposed in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IsrMember {
    /// The broker.
    pub broker: BrokerId,
    /// The incarnation that holds the records (KIP-903); [`BrokerEpoch::NONE`] if the leader has not seen one.
    pub broker_epoch: BrokerEpoch,
}

/// A change of the in-sync set that the leader asks the controller for. It always confirms the recovery of the
/// leader's log, if that is pending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrProposal {
    /// Names the proposal. Resending keeps everything, this included (KAFKA-15353).
    pub id: ProposalId,
    /// The leader's own incarnation.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that the proposal would change.
    pub partition_epoch: PartitionEpoch,
    /// The set, in the order of broker ids.
    pub members: Vec<IsrMember>,
}

/// An effect: something for the body to do. The body keeps the order.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append the client's records as leader of this epoch.
    Append {
        /// Which append.
        ticket: AppendTicket,
        /// The epoch to stamp the batches with.
        leader_epoch: LeaderEpoch,
    },
    /// Append the records of this answer.
    AppendAsFollower {
        /// Which fetch they answer.
        fetch: FetchId,
    },
    /// Drop what lies at and past the offset: records, epochs, producer state, transaction index, together. The
    /// offset may be the log end: then only epochs that wrote nothing go.
    TruncateTo {
        /// The new log end.
        offset: Offset,
    },
    /// Drop everything and start the log anew.
    TruncateFullyAndStartAt {
        /// The new log start and end.
        offset: Offset,
    },
    /// Note in the log's epoch history that an epoch began, though it has written nothing yet (KAFKA-7415).
    RecordEpochStart(EpochEntry),
    /// Flush at least up to the token, then say `Flushed` with it. Newer tokens cover older ones.
    Flush(FlushToken),
    /// The log's first offset moved: older segments may go.
    AdvanceLogStart(Offset),
    /// The log end moved: followers that wait may read.
    AdvanceLogEnd(Offset),
    /// The high watermark moved: consumers that wait may read.
    AdvanceHighWatermark(Offset),
    /// The high watermark fell, with the log: an unclean election lost records.
    LowerHighWatermark(Offset),
    /// Tell the client what became of its append.
    CompleteAppend {
        /// Which append.
        ticket: AppendTicket,
        /// The outcome.
        outcome: Result<Acknowledged, AppendError>,
    },
    /// Tell the client what became of its deletion.
    CompleteDeletion {
        /// Which request.
        ticket: DeletionTicket,
        /// The log start, once all live replicas have reached it.
        outcome: Result<Offset, DeletionError>,
    },
    /// Ask the leader for records.
    Fetch {
        /// Names the fetch. It replaces any earlier one.
        id: FetchId,
        /// Whom to ask.
        leader: BrokerId,
        /// What to ask.
        fetch: FollowerFetch,
    },
    /// The answer to this fetch is no longer wanted.
    CancelFetch(FetchId),
    /// Read within the bounds and answer the follower; or hold the answer while there is nothing to read, and
    /// ask [`Replica::check_fetch`](crate::Replica::check_fetch) for fresh bounds when that changes.
    AnswerFetch {
        /// Which fetch.
        ticket: FetchTicket,
        /// What may be given.
        bounds: FetchBounds,
    },
    /// Refuse the follower.
    RefuseFetch {
        /// Which fetch.
        ticket: FetchTicket,
        /// Why.
        refusal: FetchRefusal,
    },
    /// Send the proposal to the controller; at most one is in flight. A body delivers each attempt at most once.
    ProposeIsr(IsrProposal),
    /// Tell an operator.
    RaiseAlarm(Alarm),
}

/// The effects of one or more steps, in order.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    queue: Vec<Effect>,
}

impl Effects {
    /// No effects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, effect: Effect) {
        self.queue.push(effect);
    }

    /// Takes all, oldest first; the allocation stays.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.queue.drain(..)
    }

    /// The effects, oldest first.
    pub fn as_slice(&self) -> &[Effect] {
        &self.queue
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
