//! DescribeTopicPartitions (75): topics page by page, with the replicas that may be elected (KIP-966).
//!
//! The answer holds a limited number of partitions of topics in the order of their names, and a cursor to the first
//! partition that did not fit.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_metadata::{PartitionRegistration, TopicImage};
use klamm_protocol::messages::describe_topic_partitions_request as asked;
use klamm_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::{PartitionId, TopicId, TopicName};

use crate::cluster::{Cluster, ClusterView, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, ids, is_internal};
use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves DescribeTopicPartitions.
pub(crate) struct DescribeTopicPartitionsHandler {
    cluster: Arc<Cluster>,
    partitions_max: usize,
}

impl DescribeTopicPartitionsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let limit = cluster.settings.unsigned("max.request.partition.size.limit");
        Self { cluster, partitions_max: usize::try_from(limit).unwrap_or(usize::MAX) }
    }
}

impl Handler for DescribeTopicPartitionsHandler {
    type Request = DescribeTopicPartitionsRequest;

    const VERSIONS: VersionRange = DescribeTopicPartitionsRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Describe);

    fn handle(
        &self,
        context: RequestContext,
        request: DescribeTopicPartitionsRequest,
    ) -> Ticket<DescribeTopicPartitionsResponse> {
        let view = self.cluster.view(&context.listener);
        let response = if is_sound(&request) {
            let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
            page(&view, &request, limit.min(self.partitions_max).max(1))
        } else {
            refused(&request)
        };
        Ticket::ready(Answer::Response(response))
    }
}

/// Whether the cursor points at something that can be in the answer.
fn is_sound(request: &DescribeTopicPartitionsRequest) -> bool {
    let Some(cursor) = &request.cursor else { return true };
    let is_named =
        request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
    cursor.partition_index >= 0 && is_named
}

fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = |topic: &asked::TopicRequest| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone()),
        ..DescribeTopicPartitionsResponseTopic::default()
    };
    DescribeTopicPartitionsResponse {
        topics: request.topics.iter().map(refused).collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

fn page(
    view: &ClusterView,
    request: &DescribeTopicPartitionsRequest,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let all: Vec<String>;
    let names: BTreeSet<&str> = if request.topics.is_empty() {
        all = view.topics_by_name().into_iter().map(|topic| topic.name.to_string()).collect();
        all.iter().map(String::as_str).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let (from_topic, from_partition) = request
        .cursor
        .as_ref()
        .map_or(("", 0), |cursor| (cursor.topic_name.as_str(), cursor.partition_index));
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut room = limit;
    for name in names.range(from_topic..) {
        if room == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = view.topic(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let first = if *name == from_topic { from_partition } else { 0 };
        let (described, next) = describe(view, topic, first, room);
        room -= described.partitions.len().min(room);
        response.topics.push(described);
        if let Some(next) = next {
            response.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    response
}

fn cursor(topic: &str, partition_index: i32) -> Cursor {
    Cursor { topic_name: topic.to_owned(), partition_index }
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match TopicName::new(name) {
        Ok(_) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name.to_owned()),
        is_internal: is_internal(name),
        topic_authorized_operations: OPERATIONS_NOT_ASKED,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

/// At most `room` partitions of a topic from `first` on, and the first that did not fit.
fn describe(
    view: &ClusterView,
    topic: &TopicImage,
    first: i32,
    room: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let from_first = topic.partitions().skip(usize::try_from(first).unwrap_or(usize::MAX));
    let partitions: Vec<_> = from_first
        .take(room)
        .map(|(id, partition)| describe_partition(view, topic.id, id, partition))
        .collect();
    let next = partitions.last().map_or(first, |last| last.partition_index.saturating_add(1));
    let is_rest = usize::try_from(next).is_ok_and(|next| next < topic.partition_count());
    let described = DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.to_string()),
        topic_id: topic.id.into(),
        is_internal: is_internal(topic.name.as_str()),
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
    };
    (described, is_rest.then_some(next))
}

fn describe_partition(
    view: &ClusterView,
    topic: TopicId,
    id: PartitionId,
    partition: &PartitionRegistration,
) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::None.code(),
        partition_index: id.0,
        leader_id: view.leader(partition).map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: ids(&partition.replicas),
        isr_nodes: ids(&partition.isr),
        eligible_leader_replicas: Some(ids(&partition.elr)),
        last_known_elr: Some(ids(&partition.last_known_elr)),
        offline_replicas: view.offline_replicas(topic, id, partition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bed, answer, context_of, offline, topic};

    type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    fn bed() -> Arc<Bed> {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.learn(&topic(1, "b", &[&[1], &[1], &[1]]));
        bed.learn(&topic(2, "a", &[&[1], &[1]]));
        bed.learn(&topic(3, "c", &[&[1]]));
        bed
    }

    fn ask(topics: &[&str], limit: i32, from: Option<(&str, i32)>) -> Page {
        let bed = bed();
        bed.start_with("max.request.partition.size.limit", "4");
        let handler = DescribeTopicPartitionsHandler::new(bed.cluster());
        let cursor = from
            .map(|(name, partition_index)| asked::Cursor { topic_name: name.to_owned(), partition_index });
        let request = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(|name| asked::TopicRequest { name: (*name).to_owned() }).collect(),
            response_partition_limit: limit,
            cursor,
        };
        let response = answer(handler.handle(context_of::<DescribeTopicPartitionsRequest>(0), request));
        let topics = response.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            (topic.name.unwrap_or_default(), topic.error_code, partitions)
        });
        (topics.collect(), response.next_cursor.map(|cursor| (cursor.topic_name, cursor.partition_index)))
    }

    fn page(topics: &[(&str, &[i32])], next: Option<(&str, i32)>) -> Page {
        let topics = topics.iter().map(|(name, partitions)| ((*name).to_owned(), 0, partitions.to_vec()));
        (topics.collect(), next.map(|(name, partition)| (name.to_owned(), partition)))
    }

    #[test]
    fn pages_follow_one_another_without_gaps() {
        assert_eq!(ask(&[], 2_000, None), page(&[("a", &[0, 1]), ("b", &[0, 1])], Some(("b", 2))));
        assert_eq!(ask(&[], 2_000, Some(("b", 2))), page(&[("b", &[2]), ("c", &[0])], None));
        assert_eq!(ask(&[], 2, None), page(&[("a", &[0, 1])], Some(("b", 0))));
        assert_eq!(ask(&[], 0, Some(("b", 0))), page(&[("b", &[0])], Some(("b", 1))));
        assert_eq!(ask(&["c", "a", "c"], -5, None), page(&[("a", &[0])], Some(("a", 1))));
    }

    #[test]
    fn replicas_whose_directory_has_failed_are_told_as_offline() {
        let bed = bed();
        bed.learn(&[offline(1, &[(1, 0), (1, 2), (3, 0)])]);
        let handler = DescribeTopicPartitionsHandler::new(bed.cluster());
        let request = DescribeTopicPartitionsRequest { response_partition_limit: 9, ..Default::default() };
        let response = answer(handler.handle(context_of::<DescribeTopicPartitionsRequest>(0), request));
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<_> = partitions.map(|partition| partition.offline_replicas.len()).collect();
        assert_eq!(told, [0, 0, 1, 0, 1, 1]);
    }

    #[test]
    fn a_cursor_past_the_end_or_to_a_topic_that_is_gone_goes_on() {
        assert_eq!(ask(&[], 9, Some(("b", 7))), page(&[("b", &[]), ("c", &[0])], None));
        assert_eq!(ask(&[], 9, Some(("bb", 1))), page(&[("c", &[0])], None));
        assert_eq!(ask(&[], 9, Some(("z", 0))), page(&[], None));
    }

    #[test]
    fn topics_that_are_not_there_say_so() {
        let (topics, next) = ask(&["none", "a/b", "c"], 9, None);
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let invalid = ErrorCode::InvalidTopicException.code();
        let told: Vec<_> = topics.iter().map(|(name, code, _)| (name.as_str(), *code)).collect();
        assert_eq!((told, next), (vec![("a/b", invalid), ("c", 0), ("none", unknown)], None));
    }

    #[test]
    fn a_cursor_that_makes_no_sense_is_refused() {
        let code = ErrorCode::InvalidRequest.code();
        for (topics, cursor) in [(&["a"][..], ("b", 0)), (&["a"][..], ("a", -1)), (&["c"][..], ("a", 0))] {
            let (topics, next) = ask(topics, 9, Some(cursor));
            assert_eq!((topics[0].1, next), (code, None));
        }
    }
}
