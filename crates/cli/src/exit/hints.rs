//! What to try when a broker refuses, or does not answer.

use klamm_client::ClientError;
use klamm_protocol::ErrorCode;

pub(super) fn for_client(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { .. } | ClientError::NoBroker { .. } | ClientError::NoBootstrap => {
            "is a broker running there? `klamm dev` starts some; --bootstrap-server names others"
        }
        ClientError::Disconnected { .. } => {
            "what was asked may have been done all the same: look before you try again; the broker's log may tell why"
        }
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

/// What to try when the cluster refuses one thing of several.
pub(super) fn for_refusal(subject: &str, code: ErrorCode) -> &'static str {
    // Kafka, too, says of this topic that nobody may create it.
    if code == ErrorCode::TopicAuthorizationFailed && subject.ends_with("__cluster_metadata") {
        return "nobody can create the topic of that name, which the controllers keep; choose another name";
    }
    for_code(code)
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
        ErrorCode::RequestTimedOut => {
            "no answer came, or the connection to the controller was lost, and what was asked may have been done all the \
             same: look before you try again; `klamm cluster quorum` shows the controllers"
        }
        code if code.is_retriable() => "try again",
        _ => "the broker's log may tell more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_not_to_be_tried_again_blindly() {
        assert!(for_code(ErrorCode::RequestTimedOut).contains("may have been done"));
        assert!(for_code(ErrorCode::RequestTimedOut).contains("connection to the controller"));
        assert_eq!(for_code(ErrorCode::LeaderNotAvailable), for_code(ErrorCode::NotController));
    }

    #[test]
    fn the_metadata_topic_is_nobodys_to_create() {
        let code = ErrorCode::TopicAuthorizationFailed;
        assert!(for_refusal("topic __cluster_metadata", code).contains("choose another name"));
        assert_eq!(for_refusal("topic orders", code), for_code(code));
    }
}
