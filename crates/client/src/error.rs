//! Why a request has no good answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode, FrameError};
use klamm_record::BatchError;
use klamm_types::TopicPartition;

use crate::endpoint::Endpoint;

/// What a broker refused, in Kafka's terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", self.text())]
pub struct ApiError {
    /// The code; [`ErrorCode::UnknownServerError`] for a number that Kafka 4.3 does not know.
    pub code: ErrorCode,
    /// What the broker adds to it, if anything.
    pub message: Option<String>,
}

impl ApiError {
    /// `Ok` for code 0, the error for all others.
    ///
    /// # Errors
    /// The refusal that `code` stands for.
    pub fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        let code = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
        if code == ErrorCode::None {
            return Ok(());
        }
        Err(Self { code, message: message.filter(|text| !text.is_empty()).map(str::to_owned) })
    }

    /// The broker's own words, or else what the code means.
    #[must_use]
    pub fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.code.message())
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.is_retriable()
    }

    /// Whether the client must look up the leader anew before it tries again.
    pub(crate) fn is_stale_view(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::UnknownLeaderEpoch
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::InconsistentTopicId
                | ErrorCode::KafkaStorageError
                | ErrorCode::ReplicaNotAvailable
                | ErrorCode::ListenerNotFound
        )
    }
}

/// Why an operation of the client failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker could not be dialled, or does not speak Kafka's protocol.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Whom.
        endpoint: Endpoint,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The connection ended before the answer came; whether the request was done is unknown.
    #[error("the connection to {endpoint} ended: {source}")]
    Disconnected {
        /// With whom.
        endpoint: Endpoint,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// No answer in time; whether the request was done is unknown.
    #[error("{api} to {endpoint} was not answered within {} ms", .timeout.as_millis())]
    Timeout {
        /// Who did not answer.
        endpoint: Endpoint,
        /// What was asked.
        api: ApiKey,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The broker serves no version of the API that this client speaks.
    #[error("{endpoint} serves no version of {api} that this client can speak")]
    Unsupported {
        /// Who.
        endpoint: Endpoint,
        /// What.
        api: ApiKey,
    },
    /// A frame of impossible length; the connection is given up.
    #[error("{endpoint} sent a malformed frame: {source}")]
    Frame {
        /// Who.
        endpoint: Endpoint,
        /// What is wrong with it.
        source: FrameError,
    },
    /// An answer that is none.
    #[error("{endpoint} sent a malformed answer to {api}: {source}")]
    Decode {
        /// Who.
        endpoint: Endpoint,
        /// What was asked.
        api: ApiKey,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// An answer that lacks what was asked for, or answers something else.
    #[error("{endpoint} sent an answer that does not fit {api}")]
    Mismatch {
        /// Who.
        endpoint: Endpoint,
        /// What was asked.
        api: ApiKey,
    },
    /// The request cannot be written in the version that both sides speak.
    #[error("{api} cannot be asked of this broker: {source}")]
    Encode {
        /// The API.
        api: ApiKey,
        /// What the version lacks.
        source: EncodeError,
    },
    /// A batch that a broker served is damaged.
    #[error("a batch of {partition} is damaged: {source}")]
    Batch {
        /// Of which partition.
        partition: TopicPartition,
        /// What is wrong with it.
        source: BatchError,
    },
    /// No such partition is known.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// Which.
        partition: TopicPartition,
    },
    /// The broker refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// None of the known brokers answered; the last one's error is kept.
    #[error("no broker answers: {last}")]
    NoBroker {
        /// Why the last one did not.
        last: Box<Self>,
    },
    /// There is no broker to ask: no bootstrap server was named.
    #[error("no bootstrap server was given")]
    NoBootstrap,
}

impl ClientError {
    /// Whether the same operation may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Frame { .. }
            | Self::Mismatch { .. }
            | Self::UnknownPartition { .. }
            | Self::NoBroker { .. } => true,
            Self::Api(error) => error.is_retryable(),
            Self::Unsupported { .. }
            | Self::Decode { .. }
            | Self::Encode { .. }
            | Self::Batch { .. }
            | Self::NoBootstrap => false,
        }
    }

    /// Whether no broker could be reached at all, or none answered.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Disconnected { .. } | Self::Timeout { .. } | Self::NoBroker { .. }
        )
    }

    /// Whether what is known of the cluster must be looked up anew before the next try.
    pub(crate) fn is_stale_view(&self) -> bool {
        match self {
            Self::Api(error) => error.is_stale_view(),
            other => other.is_unreachable() || matches!(other, Self::UnknownPartition { .. }),
        }
    }
}
