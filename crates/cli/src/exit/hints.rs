//! What to try when a broker refuses, or does not answer.

use klamm_client::ClientError;
use klamm_protocol::ErrorCode;

pub(super) fn for_client(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { .. } | ClientError::NoBroker { .. } | ClientError::NoBootstrap => {
            "is a broker running there? `klamm dev` starts some; --bootstrap-server names others"
        }
        ClientError::Disconnected { .. } => "try again; if it stays so, look at the broker's log",
        ClientError::Timeout { .. } => {
            "is the broker overloaded or stopped? try again, or give more --timeout"
        }
        ClientError::Unsupported { .. } | ClientError::Encode { .. } => {
            "this takes a newer broker; `klamm --version` tells what this program is"
        }
        ClientError::Frame { .. } | ClientError::Decode { .. } | ClientError::Mismatch { .. } => {
            "does a Kafka broker listen there, without TLS or SASL?"
        }
        ClientError::Batch { .. } => "`klamm log verify` on the leader's log directory tells more",
        ClientError::UnknownPartition { .. } => "`klamm topic describe` shows the partitions that there are",
        ClientError::Api(error) => for_code(error.code),
    }
}

pub(super) fn for_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::TopicAlreadyExists => "`klamm topic describe` shows it; --if-not-exists takes it for done",
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => {
            "`klamm topic list` shows the topics that there are"
        }
        ErrorCode::InvalidTopicException => {
            "a name has 1 to 249 letters, digits, dots, underscores and hyphens, and is not . or .."
        }
        ErrorCode::InvalidReplicationFactor | ErrorCode::InvalidReplicaAssignment => {
            "`klamm cluster brokers` shows the brokers that there are"
        }
        ErrorCode::InvalidPartitions => "ask for one partition or more",
        ErrorCode::InvalidConfig => "Kafka's documentation of topic settings tells names and ranges",
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            "`klamm topic describe` shows who is in sync; min.insync.replicas says how many must be"
        }
        ErrorCode::NotController | ErrorCode::LeaderNotAvailable | ErrorCode::NotLeaderOrFollower => {
            "an election is under way, try again; `klamm cluster quorum` shows the controllers"
        }
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            "the topic's max.message.bytes sets the limit"
        }
        ErrorCode::TopicDeletionDisabled => "the brokers' delete.topic.enable forbids it",
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed => "ask an administrator for the right",
        code if code.is_retriable() => "try again",
        _ => "the broker's log may tell more",
    }
}
