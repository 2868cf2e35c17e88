//! Refusals on the wire.

use klamm_control::{Refusal, Refused};
use klamm_pb::controller::v1 as pb;

/// The refusal that `error` is, with its reasons in words.
pub(super) fn refusal_of<E: Refused + std::error::Error>(error: &E) -> pb::Refusal {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    refusal(error.refusal(), message)
}

/// A refusal with its reason.
pub(super) fn refusal(refusal: Refusal, message: impl Into<String>) -> pb::Refusal {
    pb::Refusal { code: code_of(refusal).into(), message: message.into() }
}

/// A refusal for a request that cannot be understood.
pub(super) fn malformed(error: &impl std::fmt::Display) -> pb::Refusal {
    refusal(Refusal::InvalidRequest, error.to_string())
}

fn code_of(refusal: Refusal) -> pb::RefusalCode {
    use pb::RefusalCode as C;
    match refusal {
        Refusal::UnknownTopicOrPartition => C::UnknownTopicOrPartition,
        Refusal::InvalidTopicException => C::InvalidTopicException,
        Refusal::UnsupportedVersion => C::UnsupportedVersion,
        Refusal::TopicAlreadyExists => C::TopicAlreadyExists,
        Refusal::InvalidPartitions => C::InvalidPartitions,
        Refusal::InvalidReplicationFactor => C::InvalidReplicationFactor,
        Refusal::InvalidReplicaAssignment => C::InvalidReplicaAssignment,
        Refusal::InvalidConfig => C::InvalidConfig,
        Refusal::NotController => C::NotController,
        Refusal::InvalidRequest => C::InvalidRequest,
        Refusal::PolicyViolation => C::PolicyViolation,
        Refusal::TopicDeletionDisabled => C::TopicDeletionDisabled,
        Refusal::FencedLeaderEpoch => C::FencedLeaderEpoch,
        Refusal::StaleBrokerEpoch => C::StaleBrokerEpoch,
        Refusal::PreferredLeaderNotAvailable => C::PreferredLeaderNotAvailable,
        Refusal::EligibleLeadersNotAvailable => C::EligibleLeadersNotAvailable,
        Refusal::ElectionNotNeeded => C::ElectionNotNeeded,
        Refusal::NoReassignmentInProgress => C::NoReassignmentInProgress,
        Refusal::ResourceNotFound => C::ResourceNotFound,
        Refusal::InvalidUpdateVersion => C::InvalidUpdateVersion,
        Refusal::FeatureUpdateFailed => C::FeatureUpdateFailed,
        Refusal::UnknownTopicId => C::UnknownTopicId,
        Refusal::DuplicateBrokerRegistration => C::DuplicateBrokerRegistration,
        Refusal::BrokerIdNotRegistered => C::BrokerIdNotRegistered,
        Refusal::IneligibleReplica => C::IneligibleReplica,
        Refusal::UnknownServerError => C::UnknownServerError,
    }
}
