//! Why a partition refuses, as types; the front maps them to Kafka's error codes.

use klamm_log::{ProducerError, ReadError};
use klamm_replica::{AppendError, DeletionError};
use klamm_types::{BrokerId, LeaderEpoch, Offset};

/// Why an append was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendFailure {
    /// The replica refused it, or could not have it committed. [`AppendError::is_definite`] tells whether records may
    /// have been written.
    #[error(transparent)]
    Replica(#[from] AppendError),
    /// The log refused the records before it wrote any of them.
    #[error(transparent)]
    Log(#[from] klamm_log::AppendError),
    /// A batch that must come before is missing, and is likely to come: this leader is new, or it has refused that batch
    /// for a reason that passes. To be sent again, in order. Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("{0}, which may be on its way")]
    Early(ProducerError),
    /// The records were appended before, and are committed, but so long ago that nobody knows their offsets. Kafka:
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("the records were appended before; their offsets are not remembered")]
    Forgotten,
}

impl AppendFailure {
    /// Whether nothing was appended, and never will be.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Replica(error) => error.is_definite(),
            Self::Log(_) | Self::Early(_) => true,
            Self::Forgotten => false,
        }
    }
}

/// Why this replica answers no question about its partition now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotServing {
    /// Only the leader may answer, and that is another broker, or nobody. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("this replica does not lead; the leader of epoch {leader_epoch} is {leader:?}")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<BrokerId>,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
    },
    /// The caller's leader epoch is over. Kafka: FENCED_LEADER_EPOCH.
    #[error("leader epoch {requested} is over, the current one is {current}")]
    FencedLeaderEpoch {
        /// The caller's.
        requested: LeaderEpoch,
        /// This replica's.
        current: LeaderEpoch,
    },
    /// The caller's leader epoch is not known here yet. Kafka: UNKNOWN_LEADER_EPOCH.
    #[error("leader epoch {requested} is not known here yet, the current one is {current}")]
    UnknownLeaderEpoch {
        /// The caller's.
        requested: LeaderEpoch,
        /// This replica's.
        current: LeaderEpoch,
    },
    /// The broker's session with the controller has run out. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("the broker's session with the controller has run out")]
    LeaseExpired,
    /// The log is out of service. Kafka: KAFKA_STORAGE_ERROR.
    #[error("the log is out of service")]
    LogFailed,
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    /// This replica may not answer.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The log could not.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A new leader does not know yet how far the partition is committed. Kafka: OFFSET_NOT_AVAILABLE.
    #[error(
        "the latest offset is not known yet: committed is {high_watermark}, the epoch began at {epoch_start}"
    )]
    OffsetNotAvailable {
        /// What is known to be committed.
        high_watermark: Offset,
        /// What must be committed first.
        epoch_start: Offset,
    },
}

/// Why records were not deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeletionFailure {
    /// The replica refused, or the others did not follow in time.
    #[error(transparent)]
    Replica(#[from] DeletionError),
    /// The topic does not delete records: its `cleanup.policy` lacks `delete`. Kafka: POLICY_VIOLATION.
    #[error("the topic's cleanup.policy does not allow deletion")]
    NotDeletable,
}
