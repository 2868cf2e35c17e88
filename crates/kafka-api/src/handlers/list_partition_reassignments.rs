//! ListPartitionReassignments (46): the partitions that are on the move (KIP-455), as this broker has learnt it.

use std::sync::Arc;

use klamm_metadata::TopicImage;
use klamm_protocol::VersionRange;
use klamm_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use klamm_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use klamm_types::PartitionId;

use crate::cluster::{Cluster, ids};
use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves ListPartitionReassignments.
pub(crate) struct ListPartitionReassignmentsHandler {
    cluster: Arc<Cluster>,
}

impl ListPartitionReassignmentsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for ListPartitionReassignmentsHandler {
    type Request = ListPartitionReassignmentsRequest;

    const VERSIONS: VersionRange = ListPartitionReassignmentsRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Describe);

    fn handle(
        &self,
        context: RequestContext,
        request: ListPartitionReassignmentsRequest,
    ) -> Ticket<ListPartitionReassignmentsResponse> {
        let view = self.cluster.view(&context.listener);
        let topics = match request.topics {
            None => {
                let all = view.topics_by_name().into_iter();
                all.filter_map(|topic| ongoing(topic, topic.partitions().map(|(id, _)| id))).collect()
            }
            Some(wanted) => {
                let wanted = wanted.into_iter().filter_map(|wanted| {
                    let partitions = wanted.partition_indexes.into_iter().map(PartitionId);
                    ongoing(view.topic(&wanted.name)?, partitions)
                });
                wanted.collect()
            }
        };
        Ticket::ready(Answer::Response(ListPartitionReassignmentsResponse {
            error_message: None,
            topics,
            ..ListPartitionReassignmentsResponse::default()
        }))
    }
}

/// Those of the partitions that are on the move, `None` if none is.
fn ongoing(
    topic: &TopicImage,
    partitions: impl Iterator<Item = PartitionId>,
) -> Option<OngoingTopicReassignment> {
    let moving = partitions.filter_map(|id| {
        let partition = topic.partition(id).filter(|partition| partition.is_reassigning())?;
        Some(OngoingPartitionReassignment {
            partition_index: id.0,
            replicas: ids(&partition.replicas),
            adding_replicas: ids(&partition.adding),
            removing_replicas: ids(&partition.removing),
        })
    });
    let partitions: Vec<_> = moving.collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment { name: topic.name.to_string(), partitions })
}

#[cfg(test)]
mod tests {
    use klamm_metadata::PartitionRegistration;
    use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

    use super::*;
    use crate::fixture::{Bed, answer, broker_ids, context_of, partition, topic};

    fn ask(topics: Option<&[(&str, &[i32])]>) -> Vec<(String, Vec<OngoingPartitionReassignment>)> {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.learn(&topic(1, "still", &[&[1]]));
        bed.learn(&topic(2, "moving", &[&[1]]));
        let moving = PartitionRegistration {
            adding: broker_ids(&[2]),
            removing: broker_ids(&[1]),
            ..PartitionRegistration::new(broker_ids(&[2, 3, 1]), broker_ids(&[1, 3]))
        };
        bed.learn(&[partition(2, 1, moving)]);
        let topic = |(name, partitions): &(&str, &[i32])| ListPartitionReassignmentsTopics {
            name: (*name).to_owned(),
            partition_indexes: partitions.to_vec(),
        };
        let request = ListPartitionReassignmentsRequest {
            topics: topics.map(|topics| topics.iter().map(topic).collect()),
            ..ListPartitionReassignmentsRequest::default()
        };
        let handler = ListPartitionReassignmentsHandler::new(bed.cluster());
        let response = answer(handler.handle(context_of::<ListPartitionReassignmentsRequest>(0), request));
        assert_eq!((response.error_code, response.error_message), (0, None));
        response.topics.into_iter().map(|topic| (topic.name, topic.partitions)).collect()
    }

    #[test]
    fn only_what_moves_is_told() {
        let moving = OngoingPartitionReassignment {
            partition_index: 1,
            replicas: vec![2, 3, 1],
            adding_replicas: vec![2],
            removing_replicas: vec![1],
        };
        let told = [("moving".to_owned(), vec![moving])];
        assert_eq!(ask(None), told);
        assert_eq!(ask(Some(&[("moving", &[0, 1, 7, -1]), ("none", &[0]), ("a/b", &[0])])), told);
        assert_eq!(ask(Some(&[("still", &[0]), ("moving", &[0])])), []);
        assert_eq!(ask(Some(&[])), []);
    }
}
