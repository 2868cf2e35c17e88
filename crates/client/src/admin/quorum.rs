//! The metadata quorum.

use klamm_protocol::messages::DescribeQuorumRequest;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response::ReplicaState;
use klamm_protocol::{ApiKey, Uuid};
use klamm_types::{BrokerId, Offset, Timestamp};

use super::Admin;
use crate::error::{ApiError, ClientError};

/// The topic of the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// The quorum as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The active controller; `None` if there is none at the moment.
    pub leader: Option<BrokerId>,
    /// Its term.
    pub leader_epoch: i32,
    /// Where the committed part of the metadata log ends.
    pub high_watermark: Offset,
    /// Those who vote.
    pub voters: Vec<QuorumReplica>,
    /// Those who only follow.
    pub observers: Vec<QuorumReplica>,
    /// Where the voters listen, if the broker tells.
    pub nodes: Vec<QuorumNode>,
}

/// A voter or observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub id: BrokerId,
    /// Its metadata directory; zero if unknown.
    pub directory_id: Uuid,
    /// How far its log reaches; `None` if the leader does not know.
    pub log_end_offset: Option<Offset>,
    /// When it fetched last, by the leader's clock.
    pub last_fetch: Option<Timestamp>,
    /// When it last had everything, by the leader's clock.
    pub last_caught_up: Option<Timestamp>,
}

/// Where a controller listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumNode {
    /// The node.
    pub id: BrokerId,
    /// Name of the listener, host and port.
    pub listeners: Vec<(String, String, u16)>,
}

impl Admin {
    /// Describes the metadata quorum.
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers, or while there is no active controller.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, ClientError> {
        let partitions = vec![PartitionData { partition_index: 0 }];
        let topics = vec![TopicData { topic_name: METADATA_TOPIC.to_owned(), partitions }];
        let request = DescribeQuorumRequest { topics };
        self.look_up(&request, |answer| {
            ApiError::check(answer.error_code, answer.error_message.as_deref())?;
            let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
            let partition = partition.ok_or_else(|| ApiError {
                code: klamm_protocol::ErrorCode::UnknownServerError,
                message: Some(format!("the answer to {} names no partition", ApiKey::DescribeQuorum)),
            })?;
            ApiError::check(partition.error_code, partition.error_message.as_deref())?;
            let nodes = answer.nodes.iter().map(|node| QuorumNode {
                id: BrokerId(node.node_id),
                listeners: node.listeners.iter().map(|l| (l.name.clone(), l.host.clone(), l.port)).collect(),
            });
            Ok(QuorumDescription {
                leader: (partition.leader_id >= 0).then_some(BrokerId(partition.leader_id)),
                leader_epoch: partition.leader_epoch,
                high_watermark: Offset(partition.high_watermark),
                voters: partition.current_voters.iter().map(replica).collect(),
                observers: partition.observers.iter().map(replica).collect(),
                nodes: nodes.collect(),
            })
        })
        .await
    }
}

fn replica(state: &ReplicaState) -> QuorumReplica {
    let timestamp = |ms: i64| (ms >= 0).then_some(Timestamp(ms));
    QuorumReplica {
        id: BrokerId(state.replica_id),
        directory_id: state.replica_directory_id,
        log_end_offset: (state.log_end_offset >= 0).then_some(Offset(state.log_end_offset)),
        last_fetch: timestamp(state.last_fetch_timestamp),
        last_caught_up: timestamp(state.last_caught_up_timestamp),
    }
}
