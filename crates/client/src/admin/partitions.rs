//! Partitions: delete records, elect leaders, move replicas.

use std::collections::BTreeMap;

use klamm_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::elect_leaders_request::TopicPartitions;
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, DeleteRecordsRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
};
use klamm_protocol::{ApiKey, ErrorCode};
use klamm_types::{BrokerId, Offset, PartitionId, TopicName, TopicPartition};

use super::Admin;
use crate::backoff::Backoff;
use crate::error::{ApiError, ClientError};

/// A move of replicas that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// Of which partition.
    pub partition: TopicPartition,
    /// All replicas for the time being.
    pub replicas: Vec<BrokerId>,
    /// Those that are being added.
    pub adding: Vec<BrokerId>,
    /// Those that will be removed.
    pub removing: Vec<BrokerId>,
}

impl Admin {
    /// Deletes all records below `before` (`None`: below the high watermark) and gives the new log start offset. May be
    /// repeated without harm, and is, until the operation's time is over.
    ///
    /// # Errors
    /// [`ClientError`], also if the leader refuses, for example since `before` is past the high watermark.
    pub async fn delete_records(
        &self,
        at: &TopicPartition,
        before: Option<Offset>,
    ) -> Result<Offset, ClientError> {
        let offset = before.map_or(-1, |offset| offset.0);
        let partitions = vec![DeleteRecordsPartition { partition_index: at.partition.0, offset }];
        let topics = vec![DeleteRecordsTopic { name: at.topic.to_string(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: self.timeout_ms() };
        let mut backoff = Backoff::for_operation(self.cluster.options());
        loop {
            let error = match self.delete_once(at, &request).await {
                Ok(low_watermark) => return Ok(low_watermark),
                Err(error) => error,
            };
            if error.is_stale_view() {
                self.cluster.mark_stale(at);
            }
            if !error.is_retryable() {
                return Err(error);
            }
            backoff.pause(error).await?;
        }
    }

    async fn delete_once(
        &self,
        at: &TopicPartition,
        request: &DeleteRecordsRequest,
    ) -> Result<Offset, ClientError> {
        let leader = self.cluster.leader(at).await?;
        let answer = leader.connection.call(request).await?;
        let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        let partition = partition.ok_or_else(|| ClientError::Mismatch {
            endpoint: leader.connection.endpoint().clone(),
            api: ApiKey::DeleteRecords,
        })?;
        ApiError::check(partition.error_code, None)?;
        Ok(Offset(partition.low_watermark))
    }

    /// Lets the preferred replicas lead (`unclean`: any replica, at the price of records) for the named partitions, or
    /// for all. Gives what came of each; a partition that was led well already counts as done.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer, or if the request as a whole is refused.
    pub async fn elect_leaders(
        &self,
        unclean: bool,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<(String, PartitionId, Result<(), ApiError>)>, ClientError> {
        let group = |partitions: &[TopicPartition]| {
            let topic = |(topic, partitions): (String, Vec<i32>)| TopicPartitions { topic, partitions };
            by_topic(partitions.iter().map(|at| (at, at.partition.0))).into_iter().map(topic).collect()
        };
        let request = ElectLeadersRequest {
            election_type: i8::from(unclean),
            topic_partitions: partitions.map(group),
            timeout_ms: self.timeout_ms(),
        };
        let answer = self.change(&request).await?;
        ApiError::check(answer.error_code, None)?;
        let mut results = Vec::new();
        for topic in answer.replica_election_results {
            for partition in topic.partition_result {
                let result = match ApiError::check(partition.error_code, partition.error_message.as_deref()) {
                    Err(error) if error.code == ErrorCode::ElectionNotNeeded => Ok(()),
                    result => result,
                };
                results.push((topic.topic.clone(), PartitionId(partition.partition_id), result));
            }
        }
        Ok(results)
    }

    /// Starts moving partitions to the named brokers, the preferred leader first; `None` cancels a move.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer; the first refusal.
    pub async fn reassign(
        &self,
        moves: &[(TopicPartition, Option<Vec<BrokerId>>)],
    ) -> Result<(), ClientError> {
        let partitions = moves.iter().map(|(at, replicas)| {
            let replicas = replicas.as_ref().map(|replicas| replicas.iter().map(|id| id.0).collect());
            (at, ReassignablePartition { partition_index: at.partition.0, replicas })
        });
        let topic = |(name, partitions)| ReassignableTopic { name, partitions };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: by_topic(partitions).into_iter().map(topic).collect(),
            ..AlterPartitionReassignmentsRequest::default()
        };
        let answer = self.change(&request).await?;
        ApiError::check(answer.error_code, answer.error_message.as_deref())?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            ApiError::check(partition.error_code, partition.error_message.as_deref())?;
        }
        Ok(())
    }

    /// The moves that are under way.
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers, or if it refuses.
    pub async fn list_reassignments(&self) -> Result<Vec<Reassignment>, ClientError> {
        let request = ListPartitionReassignmentsRequest { timeout_ms: self.timeout_ms(), topics: None };
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        self.look_up(&request, |answer| {
            ApiError::check(answer.error_code, answer.error_message.as_deref())?;
            let mut moves = Vec::new();
            for topic in &answer.topics {
                let Ok(name) = TopicName::new(&topic.name) else { continue };
                moves.extend(topic.partitions.iter().map(|partition| Reassignment {
                    partition: TopicPartition::new(name.clone(), PartitionId(partition.partition_index)),
                    replicas: ids(&partition.replicas),
                    adding: ids(&partition.adding_replicas),
                    removing: ids(&partition.removing_replicas),
                }));
            }
            Ok(moves)
        })
        .await
    }
}

/// Gathers what belongs to the partitions of one topic.
fn by_topic<'a, T>(items: impl Iterator<Item = (&'a TopicPartition, T)>) -> BTreeMap<String, Vec<T>> {
    let mut topics: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (at, item) in items {
        topics.entry(at.topic.to_string()).or_default().push(item);
    }
    topics
}
