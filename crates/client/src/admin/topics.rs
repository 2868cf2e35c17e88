//! Topics: create, delete, grow, list, describe.

use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use klamm_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition;
use klamm_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest,
};
use klamm_protocol::{ApiKey, ErrorCode, Uuid};
use klamm_types::{BrokerId, LeaderEpoch, PartitionId};

use super::Admin;
use crate::error::{ApiError, ClientError};
use crate::view::{PartitionView, TopicView};

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name; the broker judges it.
    pub name: String,
    /// How many partitions; `None` for the broker's default, or as many as `assignment` has.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` for the broker's default, or as many as `assignment` has.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition, the preferred leader first; empty to let the controller place them.
    pub assignment: Vec<Vec<BrokerId>>,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its identity; zero if the broker does not tell.
    pub topic_id: Uuid,
    /// How many partitions it has; `None` if the broker does not tell.
    pub partitions: Option<i32>,
    /// How many replicas each has; `None` if the broker does not tell.
    pub replication_factor: Option<i16>,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// What is known of it.
    pub view: TopicView,
}

/// A topic with all that its partitions tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub topic_id: Uuid,
    /// Whether the cluster made it for itself.
    pub is_internal: bool,
    /// Its partitions by ascending number.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition, with what may lead it besides the in-sync replicas (KIP-966).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// What Metadata tells of it.
    pub view: PartitionView,
    /// Replicas out of sync that may still be elected cleanly; `None` if the broker does not tell.
    pub eligible_leader_replicas: Option<Vec<BrokerId>>,
    /// The last replicas that may have had all records, after none is eligible any more; `None` if not told.
    pub last_known_elr: Option<Vec<BrokerId>>,
}

/// The name of what was asked for, and what came of it.
type Named<T> = Vec<(String, Result<T, ApiError>)>;

impl Admin {
    /// Creates topics; with `validate_only`, only tells what would come of it.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer; what was done is unknown then. Each topic has a result of its own.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<CreatedTopic, ApiError>)>, ClientError> {
        let request = CreateTopicsRequest {
            topics: topics.iter().map(NewTopic::to_wire).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let answer = self.change(&request).await?;
        let created = answer.topics.into_iter().map(|topic| {
            let result = ApiError::check(topic.error_code, topic.error_message.as_deref());
            let created = CreatedTopic {
                topic_id: topic.topic_id,
                partitions: (topic.num_partitions >= 0).then_some(topic.num_partitions),
                replication_factor: (topic.replication_factor >= 0).then_some(topic.replication_factor),
            };
            (topic.name, result.map(|()| created))
        });
        Ok(created.collect())
    }

    /// Deletes topics by name.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer; what was done is unknown then. Each topic has a result of its own.
    pub async fn delete_topics(
        &self,
        names: &[String],
    ) -> Result<Vec<(String, Result<(), ApiError>)>, ClientError> {
        let connection = self.cluster.any_broker().await?;
        let by_state = connection.newest(ApiKey::DeleteTopics, i16::MAX)? >= 6;
        let state = |name: &String| DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::ZERO };
        let request = DeleteTopicsRequest {
            topics: if by_state { names.iter().map(state).collect() } else { Vec::new() },
            topic_names: if by_state { Vec::new() } else { names.to_vec() },
            timeout_ms: self.timeout_ms(),
        };
        let answer = self.change(&request).await?;
        let deleted = answer.responses.into_iter().map(|topic| {
            let result = ApiError::check(topic.error_code, topic.error_message.as_deref());
            (topic.name.unwrap_or_default(), result)
        });
        Ok(deleted.collect())
    }

    /// Grows a topic to `count` partitions; `assignment` names the brokers of each new one, or nothing.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer, [`ClientError::Api`] if the cluster refuses.
    pub async fn create_partitions(
        &self,
        name: &str,
        count: i32,
        assignment: &[Vec<BrokerId>],
    ) -> Result<(), ClientError> {
        let broker_ids = |replicas: &Vec<BrokerId>| CreatePartitionsAssignment {
            broker_ids: replicas.iter().map(|id| id.0).collect(),
        };
        let topic = CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: (!assignment.is_empty()).then(|| assignment.iter().map(broker_ids).collect()),
        };
        let timeout_ms = self.timeout_ms();
        let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms, validate_only: false };
        for topic in self.change(&request).await?.results {
            ApiError::check(topic.error_code, topic.error_message.as_deref())?;
        }
        Ok(())
    }

    /// All topics that may be seen, by name.
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, ClientError> {
        let request = klamm_protocol::messages::MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = self.look_up(&request, Ok).await?;
        let topics = answer.topics.iter().filter(|topic| topic.error_code == 0);
        let mut topics: Vec<_> =
            topics.map(|topic| TopicSummary { view: TopicView::from_wire(topic) }).collect();
        topics.sort_unstable_by(|a, b| a.view.name.cmp(&b.view.name));
        Ok(topics)
    }

    /// Describes topics, page by page if there are many partitions; from Metadata, without eligible leaders, if the
    /// broker has no better answer.
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers. Each topic has a result of its own.
    pub async fn describe_topics(
        &self,
        names: &[String],
    ) -> Result<Vec<(String, Result<TopicDescription, ApiError>)>, ClientError> {
        let connection = self.cluster.any_broker().await?;
        if connection.versions(ApiKey::DescribeTopicPartitions).is_none() {
            return self.describe_by_metadata(names).await;
        }
        let mut found: Named<TopicDescription> = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let request = DescribeTopicPartitionsRequest {
                topics: names.iter().map(|name| TopicRequest { name: name.clone() }).collect(),
                response_partition_limit: 2_000,
                cursor: cursor.take(),
            };
            let answer = self.look_up(&request, Ok).await?;
            for topic in answer.topics {
                let name = topic.name.unwrap_or_default();
                let partitions: Vec<_> =
                    topic.partitions.iter().map(PartitionDescription::from_wire).collect();
                // A topic that goes on from the page before.
                if let Some((last, Ok(known))) = found.last_mut()
                    && *last == name
                {
                    known.partitions.extend(partitions);
                    continue;
                }
                let result = ApiError::check(topic.error_code, None).map(|()| TopicDescription {
                    name: name.clone(),
                    topic_id: topic.topic_id,
                    is_internal: topic.is_internal,
                    partitions,
                });
                found.push((name, result));
            }
            match answer.next_cursor {
                Some(next) => {
                    cursor =
                        Some(Cursor { topic_name: next.topic_name, partition_index: next.partition_index });
                }
                None => return Ok(found),
            }
        }
    }

    async fn describe_by_metadata(&self, names: &[String]) -> Result<Named<TopicDescription>, ClientError> {
        let answer = self.cluster.metadata(Some(names)).await?;
        let described = answer.topics.iter().map(|topic| {
            let view = TopicView::from_wire(topic);
            let result = ApiError::check(topic.error_code, None);
            let name = view.name.clone();
            (name, result.map(|()| TopicDescription::from_view(view)))
        });
        Ok(described.collect())
    }

    /// Waits until the broker that answers knows a leader for every partition of a topic.
    ///
    /// # Errors
    /// The last obstacle, when the operation's time is over.
    pub async fn wait_for_leaders(&self, name: &str) -> Result<TopicView, ClientError> {
        let mut backoff = crate::backoff::Backoff::for_operation(self.cluster.options());
        let wanted = [name.to_owned()];
        loop {
            let missing = match self.cluster.metadata(Some(&wanted)).await {
                Ok(answer) => match answer.topics.first() {
                    Some(topic) => match ApiError::check(topic.error_code, None) {
                        Ok(()) => {
                            let view = TopicView::from_wire(topic);
                            if view.partitions.iter().all(|partition| partition.leader.is_some()) {
                                return Ok(view);
                            }
                            leaderless()
                        }
                        Err(error) => error.into(),
                    },
                    None => leaderless(),
                },
                Err(error) => error,
            };
            if !missing.is_retryable() {
                return Err(missing);
            }
            backoff.pause(missing).await?;
        }
    }
}

fn leaderless() -> ClientError {
    ApiError { code: ErrorCode::LeaderNotAvailable, message: None }.into()
}

impl NewTopic {
    /// A topic with the broker's defaults.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn to_wire(&self) -> CreatableTopic {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.clone(),
            value: Some(value.clone()),
        };
        let assignment = |(partition_index, replicas): (i32, &Vec<BrokerId>)| CreatableReplicaAssignment {
            partition_index,
            broker_ids: replicas.iter().map(|id| id.0).collect(),
        };
        CreatableTopic {
            name: self.name.clone(),
            num_partitions: self.partitions.unwrap_or(-1),
            replication_factor: self.replication_factor.unwrap_or(-1),
            assignments: (0..).zip(&self.assignment).map(assignment).collect(),
            configs: self.configs.iter().map(config).collect(),
        }
    }
}

impl TopicDescription {
    fn from_view(view: TopicView) -> Self {
        let describe =
            |view| PartitionDescription { view, eligible_leader_replicas: None, last_known_elr: None };
        Self {
            name: view.name,
            topic_id: view.topic_id,
            is_internal: view.is_internal,
            partitions: view.partitions.into_iter().map(describe).collect(),
        }
    }
}

impl PartitionDescription {
    fn from_wire(partition: &DescribeTopicPartitionsResponsePartition) -> Self {
        let ids = |ids: &Vec<i32>| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        Self {
            view: PartitionView {
                partition: PartitionId(partition.partition_index),
                leader: (partition.leader_id >= 0).then_some(BrokerId(partition.leader_id)),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                replicas: ids(&partition.replica_nodes),
                in_sync_replicas: ids(&partition.isr_nodes),
                offline_replicas: ids(&partition.offline_replicas),
            },
            eligible_leader_replicas: partition.eligible_leader_replicas.as_ref().map(ids),
            last_known_elr: partition.last_known_elr.as_ref().map(ids),
        }
    }
}
