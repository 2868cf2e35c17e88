//! Kafka's codes for what partitions refuse. No match here has a catch-all arm: a new refusal needs a decision.

use klamm_broker::partition::{
    AppendError, AppendFailure, DeletionError, DeletionFailure, NotServing, ReadFailure,
};
use klamm_log::{ProducerError, ReadError};
use klamm_protocol::ErrorCode;
use klamm_record::{RecompressError, Refusal, ValidationError};

/// The code for an append that was not acknowledged.
pub(crate) fn append_code(failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::Replica(error) => replica_append_code(error),
        AppendFailure::Log(error) => log_append_code(error),
        // What has the client send it again, after all that comes before, and nothing else.
        AppendFailure::Early(_) => ErrorCode::NotEnoughReplicas,
        // Clients take it for an acknowledgement without an offset.
        AppendFailure::Forgotten => ErrorCode::DuplicateSequenceNumber,
    }
}

fn replica_append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader { .. } | AppendError::LeaseExpired | AppendError::LeadershipLost { .. } => {
            ErrorCode::NotLeaderOrFollower
        }
        AppendError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        AppendError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::NotEnoughReplicasAfterAppend { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
        AppendError::LogFailed { .. } => ErrorCode::KafkaStorageError,
        AppendError::TimedOut => ErrorCode::RequestTimedOut,
    }
}

fn log_append_code(error: &klamm_log::AppendError) -> ErrorCode {
    use klamm_log::AppendError as Error;
    match error {
        Error::Invalid(error) => validation_code(error),
        Error::Batch(_) | Error::Recompress(RecompressError::Read(_)) => ErrorCode::CorruptMessage,
        Error::Empty => ErrorCode::InvalidRecord,
        // Compressed anew, the batch would be larger than a batch can be.
        Error::TooLarge { .. } | Error::Recompress(RecompressError::Write(_)) => ErrorCode::MessageTooLarge,
        Error::Producer(error) => producer_code(error),
        // The log has seen a later leader than the one that appends.
        Error::EpochWentBack { .. } => ErrorCode::NotLeaderOrFollower,
        Error::Deleted(_) => ErrorCode::UnknownTopicOrPartition,
        Error::Full(_) | Error::Storage(_) | Error::Offline(_) => ErrorCode::KafkaStorageError,
        Error::NotAtEnd { .. } | Error::OffsetsExhausted => ErrorCode::UnknownServerError,
    }
}

fn validation_code(error: &ValidationError) -> ErrorCode {
    match error.refusal() {
        Refusal::CorruptMessage => ErrorCode::CorruptMessage,
        Refusal::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        Refusal::UnsupportedForMessageFormat => ErrorCode::UnsupportedForMessageFormat,
        Refusal::UnsupportedCompressionType => ErrorCode::UnsupportedCompressionType,
        Refusal::InvalidRecord => ErrorCode::InvalidRecord,
    }
}

fn producer_code(error: &ProducerError) -> ErrorCode {
    match error {
        ProducerError::Fenced { .. } => ErrorCode::InvalidProducerEpoch,
        ProducerError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        ProducerError::TransactionOpen { .. } => ErrorCode::InvalidTxnState,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
    }
}

/// The code for a question that this replica does not answer.
pub(crate) fn not_serving_code(error: &NotServing) -> ErrorCode {
    match error {
        NotServing::NotLeader { .. } | NotServing::LeaseExpired => ErrorCode::NotLeaderOrFollower,
        NotServing::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        NotServing::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        NotServing::LogFailed => ErrorCode::KafkaStorageError,
    }
}

/// The code for a read that gave nothing.
pub(crate) fn read_code(failure: &ReadFailure) -> ErrorCode {
    match failure {
        ReadFailure::NotServing(error) => not_serving_code(error),
        ReadFailure::Log(error) => log_read_code(error),
        ReadFailure::OffsetNotAvailable { .. } => ErrorCode::OffsetNotAvailable,
    }
}

fn log_read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
        ReadError::Damaged { .. } | ReadError::Storage(_) | ReadError::Offline(_) => {
            ErrorCode::KafkaStorageError
        }
    }
}

/// The code for records that were not deleted.
pub(crate) fn deletion_code(failure: &DeletionFailure) -> ErrorCode {
    match failure {
        DeletionFailure::Replica(error) => match error {
            DeletionError::NotLeader => ErrorCode::NotLeaderOrFollower,
            DeletionError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            DeletionError::TimedOut => ErrorCode::RequestTimedOut,
            DeletionError::LogFailed => ErrorCode::KafkaStorageError,
        },
        DeletionFailure::NotDeletable => ErrorCode::PolicyViolation,
    }
}
