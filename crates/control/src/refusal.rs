//! Refusals by the names that Kafka gives them.

/// Kafka's name for a refusal. `controller` translates it to the wire one to one, `kafka-api` to Kafka's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// 3.
    UnknownTopicOrPartition,
    /// 17.
    InvalidTopicException,
    /// 35.
    UnsupportedVersion,
    /// 36.
    TopicAlreadyExists,
    /// 37.
    InvalidPartitions,
    /// 38.
    InvalidReplicationFactor,
    /// 39.
    InvalidReplicaAssignment,
    /// 40.
    InvalidConfig,
    /// 41.
    NotController,
    /// 42.
    InvalidRequest,
    /// 44.
    PolicyViolation,
    /// 73.
    TopicDeletionDisabled,
    /// 74.
    FencedLeaderEpoch,
    /// 77.
    StaleBrokerEpoch,
    /// 80.
    PreferredLeaderNotAvailable,
    /// 83.
    EligibleLeadersNotAvailable,
    /// 84.
    ElectionNotNeeded,
    /// 85.
    NoReassignmentInProgress,
    /// 91.
    ResourceNotFound,
    /// 95.
    InvalidUpdateVersion,
    /// 96.
    FeatureUpdateFailed,
    /// 100.
    UnknownTopicId,
    /// 101.
    DuplicateBrokerRegistration,
    /// 102.
    BrokerIdNotRegistered,
    /// 107.
    IneligibleReplica,
    /// -1.
    UnknownServerError,
}

impl Refusal {
    /// Whether the same request may succeed later, without anybody changing it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::UnknownTopicOrPartition
                | Self::NotController
                | Self::PreferredLeaderNotAvailable
                | Self::EligibleLeadersNotAvailable
                | Self::UnknownTopicId
                | Self::DuplicateBrokerRegistration
                | Self::IneligibleReplica
        )
    }
}

/// A typed error that is a refusal of a request. Each error family documents its mapping at its variants.
pub trait Refused {
    /// Kafka's name for it.
    fn refusal(&self) -> Refusal;

    /// Whether the same request may succeed later, without anybody changing it.
    fn is_retryable(&self) -> bool {
        self.refusal().is_retryable()
    }
}
