//! The error codes of the protocol.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$attribute:meta])* $variant:ident = $code:literal, $name:ident, $retriable:literal, $message:literal;)*) => {
        /// What went wrong with a request, as it is told to clients. Code -1 stands for everything that has no
        /// code of its own.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("Code ", stringify!($code), ", `", stringify!($name), "`: ", $message, ".")]
                $(#[$attribute])*
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// Every code that Kafka 4.3 knows, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The error of this number, `None` if Kafka 4.3 has no such code.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name, for example `NOT_LEADER_OR_FOLLOWER`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }

            /// Whether Kafka's clients take the error as temporary and send the request again by themselves.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => $retriable,)*
                }
            }

            /// One line for people, in lower case and without a final stop.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, UNKNOWN_SERVER_ERROR, false, "the broker met an error that no other code describes";
    #[default]
    None = 0, NONE, false, "no error";
    OffsetOutOfRange = 1, OFFSET_OUT_OF_RANGE, false, "the offset is outside the range that the broker keeps for the partition";
    CorruptMessage = 2, CORRUPT_MESSAGE, true, "the record batch fails its checksum or is otherwise damaged";
    UnknownTopicOrPartition = 3, UNKNOWN_TOPIC_OR_PARTITION, true, "this broker does not host the topic or partition";
    InvalidFetchSize = 4, INVALID_FETCH_SIZE, false, "the requested fetch size is not valid";
    LeaderNotAvailable = 5, LEADER_NOT_AVAILABLE, true, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, NOT_LEADER_OR_FOLLOWER, true, "this broker is not the leader of the partition, or not one of its replicas";
    RequestTimedOut = 7, REQUEST_TIMED_OUT, true, "the request was not completed in the time that it allowed";
    BrokerNotAvailable = 8, BROKER_NOT_AVAILABLE, false, "the broker is not available";
    ReplicaNotAvailable = 9, REPLICA_NOT_AVAILABLE, true, "the replica is not available";
    MessageTooLarge = 10, MESSAGE_TOO_LARGE, false, "the record batch is larger than the topic allows";
    StaleControllerEpoch = 11, STALE_CONTROLLER_EPOCH, false, "the controller epoch is older than the current one";
    OffsetMetadataTooLarge = 12, OFFSET_METADATA_TOO_LARGE, false, "the metadata stored with the offset is too long";
    NetworkException = 13, NETWORK_EXCEPTION, true, "the connection ended before an answer came";
    CoordinatorLoadInProgress = 14, COORDINATOR_LOAD_IN_PROGRESS, true, "the coordinator is still loading its state";
    CoordinatorNotAvailable = 15, COORDINATOR_NOT_AVAILABLE, true, "the coordinator is not available yet";
    NotCoordinator = 16, NOT_COORDINATOR, true, "this broker is not the coordinator of the group or transactional id";
    InvalidTopicException = 17, INVALID_TOPIC_EXCEPTION, false, "the topic name is not valid, or the topic may not be written to";
    RecordListTooLarge = 18, RECORD_LIST_TOO_LARGE, false, "the record list is larger than a segment";
    NotEnoughReplicas = 19, NOT_ENOUGH_REPLICAS, true, "fewer replicas are in sync than min.insync.replicas asks for";
    NotEnoughReplicasAfterAppend = 20, NOT_ENOUGH_REPLICAS_AFTER_APPEND, true, "the records were written, but to fewer in-sync replicas than required";
    InvalidRequiredAcks = 21, INVALID_REQUIRED_ACKS, false, "acks is none of -1, 0 and 1";
    IllegalGeneration = 22, ILLEGAL_GENERATION, false, "the generation is not the group's current one";
    InconsistentGroupProtocol = 23, INCONSISTENT_GROUP_PROTOCOL, false, "the member supports no protocol that all members of the group support";
    InvalidGroupId = 24, INVALID_GROUP_ID, false, "the group id is not valid";
    UnknownMemberId = 25, UNKNOWN_MEMBER_ID, false, "the group does not have this member";
    InvalidSessionTimeout = 26, INVALID_SESSION_TIMEOUT, false, "the session timeout is outside the range that the broker allows";
    RebalanceInProgress = 27, REBALANCE_IN_PROGRESS, false, "the group is rebalancing, the member must join again";
    InvalidCommitOffsetSize = 28, INVALID_COMMIT_OFFSET_SIZE, false, "the offset commit data is too large";
    TopicAuthorizationFailed = 29, TOPIC_AUTHORIZATION_FAILED, false, "not authorized for the topic";
    GroupAuthorizationFailed = 30, GROUP_AUTHORIZATION_FAILED, false, "not authorized for the group";
    ClusterAuthorizationFailed = 31, CLUSTER_AUTHORIZATION_FAILED, false, "not authorized for the cluster";
    InvalidTimestamp = 32, INVALID_TIMESTAMP, false, "the timestamp of a record is outside the range that the topic allows";
    UnsupportedSaslMechanism = 33, UNSUPPORTED_SASL_MECHANISM, false, "the broker does not offer this SASL mechanism";
    IllegalSaslState = 34, ILLEGAL_SASL_STATE, false, "the SASL message does not fit the state of the authentication";
    UnsupportedVersion = 35, UNSUPPORTED_VERSION, false, "the version of the request is not supported";
    TopicAlreadyExists = 36, TOPIC_ALREADY_EXISTS, false, "a topic of this name exists already";
    InvalidPartitions = 37, INVALID_PARTITIONS, false, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, INVALID_REPLICATION_FACTOR, false, "the replication factor is not valid, or larger than the number of brokers";
    InvalidReplicaAssignment = 39, INVALID_REPLICA_ASSIGNMENT, false, "the assignment of replicas is not valid";
    InvalidConfig = 40, INVALID_CONFIG, false, "the configuration is not valid";
    NotController = 41, NOT_CONTROLLER, true, "this node is not the active controller";
    InvalidRequest = 42, INVALID_REQUEST, false, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, UNSUPPORTED_FOR_MESSAGE_FORMAT, false, "the message format of the broker does not support the request";
    PolicyViolation = 44, POLICY_VIOLATION, false, "the request violates a policy of the cluster";
    OutOfOrderSequenceNumber = 45, OUT_OF_ORDER_SEQUENCE_NUMBER, false, "the sequence number does not follow the one before it";
    DuplicateSequenceNumber = 46, DUPLICATE_SEQUENCE_NUMBER, false, "the sequence number was used already";
    InvalidProducerEpoch = 47, INVALID_PRODUCER_EPOCH, false, "the producer epoch is older than the current one";
    InvalidTxnState = 48, INVALID_TXN_STATE, false, "the transaction is in a state that does not allow the request";
    InvalidProducerIdMapping = 49, INVALID_PRODUCER_ID_MAPPING, false, "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50, INVALID_TRANSACTION_TIMEOUT, false, "the transaction timeout is longer than the broker allows";
    ConcurrentTransactions = 51, CONCURRENT_TRANSACTIONS, true, "the transaction before this one is still being completed";
    TransactionCoordinatorFenced = 52, TRANSACTION_COORDINATOR_FENCED, false, "the transaction coordinator has been replaced by a newer one";
    TransactionalIdAuthorizationFailed = 53, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, false, "not authorized for the transactional id";
    SecurityDisabled = 54, SECURITY_DISABLED, false, "security features are not enabled";
    OperationNotAttempted = 55, OPERATION_NOT_ATTEMPTED, false, "the operation was not attempted, as an earlier one in the request failed";
    KafkaStorageError = 56, KAFKA_STORAGE_ERROR, true, "the log directory of the partition failed";
    LogDirNotFound = 57, LOG_DIR_NOT_FOUND, false, "the log directory does not exist on this broker";
    SaslAuthenticationFailed = 58, SASL_AUTHENTICATION_FAILED, false, "SASL authentication failed";
    UnknownProducerId = 59, UNKNOWN_PRODUCER_ID, false, "the broker knows nothing of the producer id, its records may have expired";
    ReassignmentInProgress = 60, REASSIGNMENT_IN_PROGRESS, false, "a reassignment of the partition is under way";
    DelegationTokenAuthDisabled = 61, DELEGATION_TOKEN_AUTH_DISABLED, false, "delegation tokens are not enabled";
    DelegationTokenNotFound = 62, DELEGATION_TOKEN_NOT_FOUND, false, "no such delegation token";
    DelegationTokenOwnerMismatch = 63, DELEGATION_TOKEN_OWNER_MISMATCH, false, "the delegation token belongs to another principal";
    DelegationTokenRequestNotAllowed = 64, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, false, "delegation tokens cannot be handled over this connection";
    DelegationTokenAuthorizationFailed = 65, DELEGATION_TOKEN_AUTHORIZATION_FAILED, false, "not authorized for the delegation token";
    DelegationTokenExpired = 66, DELEGATION_TOKEN_EXPIRED, false, "the delegation token has expired";
    InvalidPrincipalType = 67, INVALID_PRINCIPAL_TYPE, false, "the type of the principal is not supported";
    NonEmptyGroup = 68, NON_EMPTY_GROUP, false, "the group is not empty";
    GroupIdNotFound = 69, GROUP_ID_NOT_FOUND, false, "no such group";
    FetchSessionIdNotFound = 70, FETCH_SESSION_ID_NOT_FOUND, true, "no such fetch session";
    InvalidFetchSessionEpoch = 71, INVALID_FETCH_SESSION_EPOCH, true, "the epoch of the fetch session is not the expected one";
    ListenerNotFound = 72, LISTENER_NOT_FOUND, true, "the leader has no listener of the name by which this request came";
    TopicDeletionDisabled = 73, TOPIC_DELETION_DISABLED, false, "topics may not be deleted";
    FencedLeaderEpoch = 74, FENCED_LEADER_EPOCH, true, "the leader epoch in the request is older than the current one";
    UnknownLeaderEpoch = 75, UNKNOWN_LEADER_EPOCH, true, "the leader epoch in the request is newer than this broker knows";
    UnsupportedCompressionType = 76, UNSUPPORTED_COMPRESSION_TYPE, false, "the compression type is not supported by the version or the topic";
    StaleBrokerEpoch = 77, STALE_BROKER_EPOCH, false, "the broker epoch is older than the current one";
    OffsetNotAvailable = 78, OFFSET_NOT_AVAILABLE, true, "the leader has not caught up with the requested offset since its election";
    MemberIdRequired = 79, MEMBER_ID_REQUIRED, false, "the group wants the member to join again with the id it was given";
    PreferredLeaderNotAvailable = 80, PREFERRED_LEADER_NOT_AVAILABLE, true, "the preferred leader is not available";
    GroupMaxSizeReached = 81, GROUP_MAX_SIZE_REACHED, false, "the group has its greatest number of members already";
    FencedInstanceId = 82, FENCED_INSTANCE_ID, false, "another member with the same instance id has taken over";
    EligibleLeadersNotAvailable = 83, ELIGIBLE_LEADERS_NOT_AVAILABLE, true, "no replica that may become leader is available";
    ElectionNotNeeded = 84, ELECTION_NOT_NEEDED, true, "the leader is the wanted one already";
    NoReassignmentInProgress = 85, NO_REASSIGNMENT_IN_PROGRESS, false, "no reassignment of the partition is under way";
    GroupSubscribedToTopic = 86, GROUP_SUBSCRIBED_TO_TOPIC, false, "a member of the group is subscribed to the topic";
    InvalidRecord = 87, INVALID_RECORD, false, "a record is not valid for the topic";
    UnstableOffsetCommit = 88, UNSTABLE_OFFSET_COMMIT, true, "offsets of an open transaction would be read";
    ThrottlingQuotaExceeded = 89, THROTTLING_QUOTA_EXCEEDED, true, "a quota for changes is used up for now";
    ProducerFenced = 90, PRODUCER_FENCED, false, "a newer producer has taken over the transactional id";
    ResourceNotFound = 91, RESOURCE_NOT_FOUND, false, "no such resource";
    DuplicateResource = 92, DUPLICATE_RESOURCE, false, "the resource is named twice";
    UnacceptableCredential = 93, UNACCEPTABLE_CREDENTIAL, false, "the credential does not meet the requirements";
    InconsistentVoterSet = 94, INCONSISTENT_VOTER_SET, false, "the voters in the request are not those of the receiver";
    InvalidUpdateVersion = 95, INVALID_UPDATE_VERSION, false, "the feature version in the request is not valid";
    FeatureUpdateFailed = 96, FEATURE_UPDATE_FAILED, false, "the feature versions could not be changed";
    PrincipalDeserializationFailure = 97, PRINCIPAL_DESERIALIZATION_FAILURE, false, "the principal in a forwarded request cannot be read";
    SnapshotNotFound = 98, SNAPSHOT_NOT_FOUND, false, "no such snapshot";
    PositionOutOfRange = 99, POSITION_OUT_OF_RANGE, false, "the position is outside the snapshot";
    UnknownTopicId = 100, UNKNOWN_TOPIC_ID, true, "this broker does not know the topic id";
    DuplicateBrokerRegistration = 101, DUPLICATE_BROKER_REGISTRATION, false, "another broker is registered under this id";
    BrokerIdNotRegistered = 102, BROKER_ID_NOT_REGISTERED, false, "the broker id is not registered";
    InconsistentTopicId = 103, INCONSISTENT_TOPIC_ID, true, "the topic id does not match the log's topic id";
    InconsistentClusterId = 104, INCONSISTENT_CLUSTER_ID, false, "the cluster id is another cluster's";
    TransactionalIdNotFound = 105, TRANSACTIONAL_ID_NOT_FOUND, false, "no such transactional id";
    FetchSessionTopicIdError = 106, FETCH_SESSION_TOPIC_ID_ERROR, true, "the topic ids of the fetch session are inconsistent";
    IneligibleReplica = 107, INELIGIBLE_REPLICA, false, "the replica may not join the in-sync replicas";
    NewLeaderElected = 108, NEW_LEADER_ELECTED, false, "the change made another replica the leader";
    OffsetMovedToTieredStorage = 109, OFFSET_MOVED_TO_TIERED_STORAGE, false, "the offset lies in remote storage";
    FencedMemberEpoch = 110, FENCED_MEMBER_EPOCH, false, "the member epoch is not the current one, the member must join again";
    UnreleasedInstanceId = 111, UNRELEASED_INSTANCE_ID, false, "another member still holds the instance id";
    UnsupportedAssignor = 112, UNSUPPORTED_ASSIGNOR, false, "the group has no assignor of this name";
    StaleMemberEpoch = 113, STALE_MEMBER_EPOCH, false, "the member epoch is older than the current one";
    MismatchedEndpointType = 114, MISMATCHED_ENDPOINT_TYPE, false, "the request was meant for another kind of node";
    UnsupportedEndpointType = 115, UNSUPPORTED_ENDPOINT_TYPE, false, "this kind of endpoint is not supported";
    UnknownControllerId = 116, UNKNOWN_CONTROLLER_ID, false, "no such controller";
    UnknownSubscriptionId = 117, UNKNOWN_SUBSCRIPTION_ID, false, "the telemetry subscription is not the current one";
    TelemetryTooLarge = 118, TELEMETRY_TOO_LARGE, false, "the telemetry data is larger than the broker accepts";
    InvalidRegistration = 119, INVALID_REGISTRATION, false, "the registration of the node is not valid";
    TransactionAbortable = 120, TRANSACTION_ABORTABLE, false, "the transaction must be aborted before anything else";
    InvalidRecordState = 121, INVALID_RECORD_STATE, false, "the record is not acquired by this member";
    ShareSessionNotFound = 122, SHARE_SESSION_NOT_FOUND, true, "no such share session";
    InvalidShareSessionEpoch = 123, INVALID_SHARE_SESSION_EPOCH, true, "the epoch of the share session is not the expected one";
    FencedStateEpoch = 124, FENCED_STATE_EPOCH, false, "the state epoch of the share partition is older than the current one";
    InvalidVoterKey = 125, INVALID_VOTER_KEY, false, "the directory id does not match the voter";
    DuplicateVoter = 126, DUPLICATE_VOTER, false, "the voter exists already";
    VoterNotFound = 127, VOTER_NOT_FOUND, false, "no such voter";
    InvalidRegularExpression = 128, INVALID_REGULAR_EXPRESSION, false, "the regular expression is not valid";
    RebootstrapRequired = 129, REBOOTSTRAP_REQUIRED, false, "the client must look up the cluster anew from its bootstrap servers";
    StreamsInvalidTopology = 130, STREAMS_INVALID_TOPOLOGY, false, "the topology of the streams group is not valid";
    StreamsInvalidTopologyEpoch = 131, STREAMS_INVALID_TOPOLOGY_EPOCH, false, "the epoch of the streams topology is not valid";
    StreamsTopologyFenced = 132, STREAMS_TOPOLOGY_FENCED, false, "another topology has replaced the member's";
    ShareSessionLimitReached = 133, SHARE_SESSION_LIMIT_REACHED, true, "the broker holds its greatest number of share sessions already";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_complete_and_one_to_one() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(134), None);
        assert_eq!(ErrorCode::from_code(-2), None);
    }

    #[test]
    fn the_default_is_no_error() {
        assert_eq!(ErrorCode::default(), ErrorCode::None);
    }

    #[test]
    fn messages_are_distinct() {
        let mut messages: Vec<&str> = ErrorCode::ALL.iter().map(|error| error.message()).collect();
        messages.sort_unstable();
        messages.dedup();
        assert_eq!(messages.len(), ErrorCode::ALL.len());
    }
}
