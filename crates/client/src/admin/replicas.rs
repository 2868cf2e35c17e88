//! How far the replicas of partitions are, as their leaders know them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response::{PartitionData as Told, ReplicaState};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_types::{BrokerId, PartitionId};
use tokio::time::timeout;

use super::{Admin, TopicDescription};

/// How long a leader may take to tell. It has no need to ask anybody.
const PATIENCE: Duration = Duration::from_secs(2);

/// A follower, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerLag {
    /// The follower.
    pub replica: BrokerId,
    /// How many offsets it lacks; `None` before its first fetch from this leader.
    pub records: Option<u64>,
    /// For how long it has not held all that the leader holds, in milliseconds: 0 if it does, `None` if it never did
    /// since this leader took over.
    pub millis: Option<u64>,
}

/// The followers of partitions, by topic and partition. A partition whose leader did not tell is missing.
pub type FollowerLags = HashMap<(String, PartitionId), Vec<FollowerLag>>;

impl Admin {
    /// Asks the leaders of these topics' partitions, each once and all at a time, how far their followers are behind.
    /// Leaders that do not answer within two seconds, and brokers that do not tell (Apache Kafka's do not), are left
    /// out.
    pub async fn follower_lags<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a TopicDescription>,
    ) -> FollowerLags {
        let mut wanted: BTreeMap<BrokerId, Vec<TopicData>> = BTreeMap::new();
        for topic in topics {
            let mut partitions: BTreeMap<BrokerId, Vec<PartitionData>> = BTreeMap::new();
            for view in topic.partitions.iter().map(|partition| &partition.view) {
                if let Some(leader) = view.leader {
                    let partition = PartitionData { partition_index: view.partition.0 };
                    partitions.entry(leader).or_default().push(partition);
                }
            }
            for (leader, partitions) in partitions {
                let topic_name = topic.name.clone();
                wanted.entry(leader).or_default().push(TopicData { topic_name, partitions });
            }
        }
        let answers = wanted.into_iter().map(|(leader, topics)| self.ask_leader(leader, topics));
        let mut lags = FollowerLags::new();
        for answer in join_all(answers).await.into_iter().flatten() {
            for topic in answer.topics {
                for told in topic.partitions.iter().filter(|told| told.error_code == 0) {
                    let key = (topic.topic_name.clone(), PartitionId(told.partition_index));
                    lags.insert(key, followers(told));
                }
            }
        }
        lags
    }

    async fn ask_leader(&self, leader: BrokerId, topics: Vec<TopicData>) -> Option<DescribeQuorumResponse> {
        let request = DescribeQuorumRequest { topics };
        let asked = async {
            let connection = self.cluster.broker(leader).await.ok()?;
            connection.call_within(&request, PATIENCE).await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// The followers by ascending id. Nothing if the answer lacks its leader.
fn followers(told: &Told) -> Vec<FollowerLag> {
    let states = || told.current_voters.iter().chain(&told.observers);
    let Some(leader) = states().find(|state| state.replica_id == told.leader_id) else { return Vec::new() };
    let lag = |state: &ReplicaState| {
        let behind = |leader: i64, own: i64| {
            (leader >= 0 && own >= 0).then(|| u64::try_from(leader.saturating_sub(own)).unwrap_or(0))
        };
        let records = behind(leader.log_end_offset, state.log_end_offset);
        let millis = behind(leader.last_caught_up_timestamp, state.last_caught_up_timestamp);
        FollowerLag { replica: BrokerId(state.replica_id), records, millis }
    };
    let mut followers: Vec<_> =
        states().filter(|state| state.replica_id != told.leader_id).map(lag).collect();
    followers.sort_unstable_by_key(|follower| follower.replica);
    followers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(replica_id: i32, log_end_offset: i64, last_caught_up_timestamp: i64) -> ReplicaState {
        ReplicaState { replica_id, log_end_offset, last_caught_up_timestamp, ..ReplicaState::default() }
    }

    #[test]
    fn lags_count_from_the_leader() {
        let told = Told {
            leader_id: 2,
            current_voters: vec![state(2, 50, 1_000), state(3, 44, 990)],
            observers: vec![state(1, -1, -1), state(4, 60, 1_001)],
            ..Told::default()
        };
        let lag = |replica: i32, records, millis| FollowerLag { replica: BrokerId(replica), records, millis };
        let expected = [lag(1, None, None), lag(3, Some(6), Some(10)), lag(4, Some(0), Some(0))];
        assert_eq!(followers(&told), expected);
    }

    #[test]
    fn an_answer_without_its_leader_tells_nothing() {
        let told = Told { leader_id: 2, current_voters: vec![state(3, 44, 990)], ..Told::default() };
        assert!(followers(&told).is_empty());
    }
}
