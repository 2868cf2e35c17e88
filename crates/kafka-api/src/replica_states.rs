//! How far the replicas of a partition are, as its leader knows them, in the words of DescribeQuorum.
//!
//! Kafka answers DescribeQuorum for its metadata alone. Its words are those that are wanted here, and none of its tools
//! asks for another partition: so a leader tells of its partitions by it, too.

use std::collections::HashSet;

use klamm_broker::partition::{FollowerView, LeaderView};
use klamm_metadata::MetadataImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_quorum_request as asked;
use klamm_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use klamm_types::BrokerId;

use crate::data_plane::DataPlane;
use crate::fetch_session::TopicKey;
use crate::partition_codes::not_serving_code;

/// What is not known of a replica.
const UNKNOWN: i64 = -1;

/// The answer for each partition that is asked for, the same one once per mention of its topic.
pub(crate) fn describe_partitions(plane: &DataPlane, topics: Vec<asked::TopicData>) -> Vec<TopicData> {
    let image = plane.image();
    let described = topics.into_iter().map(|topic| {
        let mut seen = HashSet::new();
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let partitions = indexes.filter(|index| seen.insert(*index)).map(|index| {
            describe(plane, &image, &topic.topic_name, index).unwrap_or_else(|code| PartitionData {
                partition_index: index,
                error_code: code.code(),
                error_message: Some(code.message().to_owned()),
                ..PartitionData::default()
            })
        });
        TopicData { partitions: partitions.collect(), topic_name: topic.topic_name.clone() }
    });
    described.collect()
}

fn describe(
    plane: &DataPlane,
    image: &MetadataImage,
    topic: &str,
    partition: i32,
) -> Result<PartitionData, ErrorCode> {
    let topic = DataPlane::topic(image, &TopicKey::Name(topic.into()))?;
    let view = plane.partition(&topic, partition)?.leader_view().map_err(|error| not_serving_code(&error))?;
    Ok(partition_data(partition, plane.cluster.broker, &view))
}

/// In-sync replicas are told as voters, the leader first, and all others as observers.
fn partition_data(partition_index: i32, leader: BrokerId, view: &LeaderView) -> PartitionData {
    let own = ReplicaState {
        replica_id: leader.0,
        log_end_offset: view.log_end_offset.0,
        last_fetch_timestamp: view.at.0,
        last_caught_up_timestamp: view.at.0,
        ..ReplicaState::default()
    };
    let state = |follower: &FollowerView| ReplicaState {
        replica_id: follower.broker.0,
        log_end_offset: follower.end_offset.map_or(UNKNOWN, |offset| offset.0),
        last_fetch_timestamp: ago(view, follower.fetched_ms_ago),
        last_caught_up_timestamp: ago(view, follower.behind_ms),
        ..ReplicaState::default()
    };
    let in_sync = view.followers.iter().filter(|follower| follower.is_in_sync).map(state);
    let others = view.followers.iter().filter(|follower| !follower.is_in_sync).map(state);
    PartitionData {
        partition_index,
        leader_id: leader.0,
        leader_epoch: view.leader_epoch.0,
        high_watermark: view.high_watermark.0,
        current_voters: [own].into_iter().chain(in_sync).collect(),
        observers: others.collect(),
        error_message: None,
        ..PartitionData::default()
    }
}

fn ago(view: &LeaderView, ms: Option<u64>) -> i64 {
    ms.map_or(UNKNOWN, |ms| view.at.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use klamm_types::{LeaderEpoch, Offset, Timestamp};

    use super::*;

    #[test]
    fn followers_are_told_with_what_is_known_of_them() {
        let in_sync = FollowerView {
            broker: BrokerId(3),
            is_in_sync: true,
            end_offset: Some(Offset(40)),
            fetched_ms_ago: Some(5),
            behind_ms: Some(20),
        };
        let unheard = FollowerView {
            broker: BrokerId(1),
            is_in_sync: false,
            end_offset: None,
            fetched_ms_ago: None,
            behind_ms: None,
        };
        let view = LeaderView {
            at: Timestamp(1_000),
            leader_epoch: LeaderEpoch(4),
            led_for_ms: 600,
            log_start_offset: Offset(0),
            high_watermark: Offset(40),
            log_end_offset: Offset(50),
            followers: vec![unheard, in_sync],
        };
        let told = partition_data(7, BrokerId(2), &view);
        assert_eq!((told.partition_index, told.leader_id, told.leader_epoch), (7, 2, 4));
        assert_eq!((told.error_code, told.high_watermark), (0, 40));
        let states = |states: &[ReplicaState]| {
            let state = |s: &ReplicaState| {
                (s.replica_id, s.log_end_offset, s.last_fetch_timestamp, s.last_caught_up_timestamp)
            };
            states.iter().map(state).collect::<Vec<_>>()
        };
        assert_eq!(states(&told.current_voters), [(2, 50, 1_000, 1_000), (3, 40, 995, 980)]);
        assert_eq!(states(&told.observers), [(1, -1, -1, -1)]);
    }
}
