//! Why something was refused, as types; the border maps them to Kafka's error codes.

use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

/// Why an append was not acknowledged.
///
/// A *definite* error means that nothing was appended, and never will be. After an *indefinite* one the records
/// may yet become visible. [`is_definite`](Self::is_definite) tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum AppendError {
    /// Another broker leads, or none. Kafka: NOT_LEADER_OR_FOLLOWER. Definite.
    #[error("this replica does not lead; the leader of epoch {leader_epoch} is {leader:?}")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<BrokerId>,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
    },
    /// The request names an older leader epoch. Kafka: FENCED_LEADER_EPOCH. Definite.
    #[error("leader epoch {requested} is over, the current one is {current}")]
    FencedLeaderEpoch {
        /// The epoch of the request.
        requested: LeaderEpoch,
        /// The epoch of this replica.
        current: LeaderEpoch,
    },
    /// The request names a newer leader epoch. Kafka: UNKNOWN_LEADER_EPOCH. Definite.
    #[error("leader epoch {requested} is not known here yet, the current one is {current}")]
    UnknownLeaderEpoch {
        /// The epoch of the request.
        requested: LeaderEpoch,
        /// The epoch of this replica.
        current: LeaderEpoch,
    },
    /// The broker has not heard from the controller for a session: another may lead by now. Kafka:
    /// NOT_LEADER_OR_FOLLOWER. Definite.
    #[error("the broker's session with the controller has run out")]
    LeaseExpired,
    /// acks=all, and too few replicas are in sync. Kafka: NOT_ENOUGH_REPLICAS. Definite.
    #[error("{in_sync} replicas are in sync, {required} are required")]
    NotEnoughReplicas {
        /// Size of the committed in-sync set.
        in_sync: usize,
        /// The effective `min.insync.replicas`.
        required: usize,
    },
    /// The replica's log is out of service. Kafka: KAFKA_STORAGE_ERROR. Definite only before the append.
    #[error("the log is out of service")]
    LogFailed {
        /// Whether the records may have been written before the log failed.
        appended: bool,
    },
    /// Appended, then too few replicas were left in sync. Kafka: NOT_ENOUGH_REPLICAS_AFTER_APPEND. Indefinite.
    #[error("{in_sync} replicas were left in sync after the append, {required} are required")]
    NotEnoughReplicasAfterAppend {
        /// Size of the in-sync set.
        in_sync: usize,
        /// The effective `min.insync.replicas`.
        required: usize,
    },
    /// Appended, then another became leader. Kafka: NOT_LEADER_OR_FOLLOWER. Indefinite.
    #[error("leadership was lost after the append")]
    LeadershipLost {
        /// Who leads now, as far as this replica knows.
        leader: Option<BrokerId>,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
    },
    /// Appended, but not committed in time. Kafka: REQUEST_TIMED_OUT. Indefinite.
    #[error("not committed in time")]
    TimedOut,
}

impl AppendError {
    /// Whether nothing was appended.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::FencedLeaderEpoch { .. }
            | Self::UnknownLeaderEpoch { .. }
            | Self::LeaseExpired
            | Self::NotEnoughReplicas { .. } => true,
            Self::LogFailed { appended } => !appended,
            Self::NotEnoughReplicasAfterAppend { .. } | Self::LeadershipLost { .. } | Self::TimedOut => false,
        }
    }

    /// Whether sending the same again may succeed. All of these pass with time or at another broker.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Why a leader gives a follower no records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum FetchRefusal {
    /// The follower's leader epoch is over. Kafka: FENCED_LEADER_EPOCH.
    #[error("the leader epoch is over, the current one is {current}")]
    FencedLeaderEpoch {
        /// The epoch of the asked replica.
        current: LeaderEpoch,
    },
    /// The asked replica does not know this leader epoch yet. Kafka: UNKNOWN_LEADER_EPOCH.
    #[error("the leader epoch is not known here yet, the current one is {current}")]
    UnknownLeaderEpoch {
        /// The epoch of the asked replica.
        current: LeaderEpoch,
    },
    /// The asked replica does not lead. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("the asked replica does not lead")]
    NotLeader,
    /// The sender holds no replica of the partition. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("the sender holds no replica of this partition")]
    NotReplica,
    /// A newer incarnation of the sender is registered. Kafka: STALE_BROKER_EPOCH.
    #[error("broker epoch is stale, {current} is registered")]
    StaleBrokerEpoch {
        /// The registered incarnation.
        current: BrokerEpoch,
    },
    /// The offset is outside the leader's log. Kafka: OFFSET_OUT_OF_RANGE. The bounds come along and spare the
    /// follower a second question.
    #[error("the offset is outside {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// The leader's first offset.
        log_start_offset: Offset,
        /// The leader's log end.
        log_end_offset: Offset,
    },
    /// The follower's log parts from the leader's before the offset (KIP-595).
    #[error("the logs diverge: on the leader, epoch {epoch} ends at {end_offset}")]
    Diverging {
        /// The largest epoch of the leader that is not past the follower's last one.
        epoch: LeaderEpoch,
        /// Where that epoch ends on the leader.
        end_offset: Offset,
        /// The leader's high watermark, to show the lag; the follower must not apply it (KAFKA-14704).
        high_watermark: Offset,
    },
    /// The asked replica's log is out of service. Kafka: KAFKA_STORAGE_ERROR.
    #[error("the log is out of service")]
    LogFailed,
}

impl FetchRefusal {
    /// Whether the follower asks again: it always does, once it has done what the refusal asks of it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Why records were not deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum DeletionError {
    /// Another broker leads, or leads now. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("this replica does not lead")]
    NotLeader,
    /// The offset lies past the high watermark. Kafka: OFFSET_OUT_OF_RANGE.
    #[error("offset {offset} lies past the high watermark {high_watermark}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// Up to where records may be deleted.
        high_watermark: Offset,
    },
    /// Not all live replicas followed in time. Kafka: REQUEST_TIMED_OUT.
    #[error("not all live replicas followed in time")]
    TimedOut,
    /// The replica's log is out of service. Kafka: KAFKA_STORAGE_ERROR.
    #[error("the log is out of service")]
    LogFailed,
}

impl DeletionError {
    /// Whether sending the same again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotLeader | Self::TimedOut | Self::LogFailed => true,
            Self::OffsetOutOfRange { .. } => false,
        }
    }
}

/// Why a consumer cannot be served by this replica now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum ReadRefusal {
    /// The replica neither leads nor follows a leader. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("the replica has no part in this partition now")]
    NotServing,
    /// The broker's session has run out. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("the broker's session with the controller has run out")]
    LeaseExpired,
    /// The replica's log is out of service. Kafka: KAFKA_STORAGE_ERROR.
    #[error("the log is out of service")]
    LogFailed,
}

impl ReadRefusal {
    /// Whether asking again, here or at another replica, may succeed: it may, as all of these pass.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Something that must not happen and that somebody must look at; the replica stays safe and carries on as far
/// as it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Alarm {
    /// The leader wants this replica to drop records that were committed, and no unclean election explains it.
    /// The replica keeps its log and follows again in the next leader epoch.
    #[error("truncation to {target} would drop records below the high watermark {high_watermark}")]
    CommittedTruncation {
        /// Where the log would end.
        target: Offset,
        /// What is known to be committed.
        high_watermark: Offset,
    },
    /// An answer of the leader contradicts itself or this log.
    #[error("the leader's answer to a fetch at {offset} makes no sense")]
    MalformedFetchAnswer {
        /// The offset asked for.
        offset: Offset,
    },
    /// The metadata went backwards in leader epoch while it went forward in partition epoch.
    #[error("metadata goes from leader epoch {known} back to {received}")]
    LeaderEpochWentBack {
        /// The epoch known.
        known: LeaderEpoch,
        /// The epoch received.
        received: LeaderEpoch,
    },
    /// The metadata elects this replica in an epoch in which its log was written before this incarnation.
    #[error("leader epoch {epoch} was used before this incarnation began")]
    EpochReused {
        /// The epoch.
        epoch: LeaderEpoch,
    },
    /// The controller refuses a proposal as invalid in itself: the two disagree about the rules.
    #[error("the controller calls an in-sync set proposal invalid")]
    InvalidProposal,
}

impl Alarm {
    /// Whether the replica tries again by itself; otherwise it waits for the metadata to change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::MalformedFetchAnswer { .. } => true,
            Self::CommittedTruncation { .. }
            | Self::LeaderEpochWentBack { .. }
            | Self::EpochReused { .. }
            | Self::InvalidProposal => false,
        }
    }
}
