//! CreatePartitions (37): more partitions for topics that exist; each topic grows or is refused alone (KIP-195).

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{CreatePartitions, GrowTopic, ReplicaAssignment};
use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::TopicName;

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves CreatePartitions.
pub(crate) struct CreatePartitionsHandler {
    cluster: Arc<Cluster>,
}

impl CreatePartitionsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for CreatePartitionsHandler {
    type Request = CreatePartitionsRequest;

    const VERSIONS: VersionRange = CreatePartitionsRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Alter);

    fn handle(
        &self,
        _: RequestContext,
        request: CreatePartitionsRequest,
    ) -> Ticket<CreatePartitionsResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let results = create(&cluster, request).await;
            Answer::Response(CreatePartitionsResponse { throttle_time_ms: 0, results })
        })
    }
}

async fn create(
    cluster: &Arc<Cluster>,
    request: CreatePartitionsRequest,
) -> Vec<CreatePartitionsTopicResult> {
    let timeout = timeout(request.timeout_ms);
    let mut named = BTreeMap::<String, usize>::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let (mut results, mut topics) = (Vec::new(), Vec::new());
    for topic in request.topics {
        match named.remove(&topic.name) {
            // A name that is there twice has one result.
            None => {}
            Some(1) => match check_assignments(cluster, &topic) {
                Ok(()) => topics.push(grow_topic(topic)),
                Err(refused) => results.push(result(topic.name, Err(refused))),
            },
            Some(_) => {
                let refused = Refused::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
                results.push(result(topic.name, Err(refused)));
            }
        }
    }
    if topics.is_empty() {
        return results;
    }
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    let change = Change::CreatePartitions(CreatePartitions { topics, validate_only: request.validate_only });
    let outcome = submit(cluster, change, timeout).await.and_then(|outcome| match outcome {
        Outcome::CreatePartitions(outcome) if outcome.topics.len() == names.len() => Ok(outcome.topics),
        _ => Err(GatewayError::BadAnswer.into()),
    });
    match outcome {
        Ok(topics) => {
            let grown = names.into_iter().zip(topics);
            results.extend(grown.map(|(name, topic)| result(name, item_result(topic.refusal))));
        }
        Err(refused) => {
            results.extend(names.into_iter().map(|name| result(name, Err(refused.clone()))));
        }
    }
    results
}

/// An empty list of assignments is not the same as none, and the controller is not told them apart. Whether the topic
/// exists, and can grow to that count, it judges better.
fn check_assignments(cluster: &Cluster, topic: &CreatePartitionsTopic) -> Result<(), Refused> {
    if topic.assignments.as_ref().is_none_or(|assignments| !assignments.is_empty()) {
        return Ok(());
    }
    let image = cluster.metadata.image();
    let known = TopicName::new(&topic.name).ok().and_then(|name| image.topics.topic_by_name(&name));
    let present = known.and_then(|known| i32::try_from(known.partitions().count()).ok());
    match present.map(|present| topic.count.saturating_sub(present)) {
        Some(added @ 1..) => {
            let message = format!(
                "Attempted to add {added} additional partition(s), but only 0 assignment(s) were specified."
            );
            Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message))
        }
        _ => Ok(()),
    }
}

fn grow_topic(topic: CreatePartitionsTopic) -> GrowTopic {
    // The controller counts on from the last partition that there is; the order is all that the request tells.
    let assignments = (0..).zip(topic.assignments.unwrap_or_default());
    let assignments = assignments.map(|(partition_id, assignment)| ReplicaAssignment {
        partition_id,
        replicas: assignment.broker_ids,
    });
    GrowTopic { name: topic.name, partitions: topic.count, assignments: assignments.collect() }
}

fn result(name: String, result: Result<(), Refused>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = told(result);
    CreatePartitionsTopicResult { name, error_code, error_message }
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{CreatePartitionsOutcome, Refusal, TopicOutcome};
    use klamm_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn ask(bed: &Arc<Bed>, topics: Vec<CreatePartitionsTopic>) -> Vec<CreatePartitionsTopicResult> {
        let handler = CreatePartitionsHandler::new(bed.cluster());
        let request = CreatePartitionsRequest { topics, timeout_ms: 1_000, validate_only: true };
        answer(handler.handle(context_of::<CreatePartitionsRequest>(3), request)).results
    }

    fn grow(name: &str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic { name: name.to_owned(), count, assignments: None }
    }

    fn outcome(codes: &[ErrorCode]) -> Outcome {
        let topic = |code: &ErrorCode| TopicOutcome {
            refusal: Some(Refusal { code: i32::from(code.code()), message: "why".to_owned() }),
            ..TopicOutcome::default()
        };
        Outcome::CreatePartitions(CreatePartitionsOutcome { topics: codes.iter().map(topic).collect() })
    }

    #[test]
    fn each_topic_has_its_own_outcome() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Ok(outcome(&[ErrorCode::None, ErrorCode::InvalidPartitions])));
        let results = ask(&bed, vec![grow("a", 3), grow("twice", 2), grow("b", 1), grow("twice", 3)]);
        let told: Vec<_> =
            results.iter().map(|r| (r.name.as_str(), r.error_code, r.error_message.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("twice", ErrorCode::InvalidRequest.code(), Some("Duplicate topic name.")),
                ("a", 0, None),
                ("b", ErrorCode::InvalidPartitions.code(), Some("why")),
            ]
        );
        let [Change::CreatePartitions(change)] = &bed.changes()[..] else { panic!("one change") };
        assert!(change.validate_only);
        assert_eq!(change.topics.iter().map(|t| t.partitions).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn assignments_are_passed_on_in_their_order() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Ok(outcome(&[ErrorCode::None])));
        let assignment = |ids: &[i32]| CreatePartitionsAssignment { broker_ids: ids.to_vec() };
        let assignments = Some(vec![assignment(&[1, 2]), assignment(&[2, 1])]);
        ask(&bed, vec![CreatePartitionsTopic { assignments, ..grow("a", 4) }]);
        let [Change::CreatePartitions(change)] = &bed.changes()[..] else { panic!("one change") };
        let replicas: Vec<_> = change.topics[0].assignments.iter().map(|a| a.replicas.clone()).collect();
        assert_eq!(replicas, [[1, 2], [2, 1]]);
    }

    #[test]
    fn an_empty_list_of_assignments_is_not_none() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.learn(&crate::fixture::topic(1, "a", &[&[1], &[1]]));
        bed.reply(Ok(outcome(&[ErrorCode::InvalidPartitions])));
        let empty = |count| CreatePartitionsTopic { assignments: Some(Vec::new()), ..grow("a", count) };
        let refused = &ask(&bed, vec![empty(5)])[0];
        assert_eq!(refused.error_code, ErrorCode::InvalidReplicaAssignment.code());
        let message = "Attempted to add 3 additional partition(s), but only 0 assignment(s) were specified.";
        assert_eq!(refused.error_message.as_deref(), Some(message));
        assert!(bed.changes().is_empty());
        // That it cannot shrink says more.
        assert_eq!(ask(&bed, vec![empty(2)])[0].error_code, ErrorCode::InvalidPartitions.code());
    }

    #[test]
    fn no_answer_refuses_every_topic() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Err(GatewayError::TimedOut));
        let results = ask(&bed, vec![grow("a", 3)]);
        assert_eq!(results[0].error_code, ErrorCode::RequestTimedOut.code());
    }
}
