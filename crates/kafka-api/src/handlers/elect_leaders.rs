//! ElectLeaders (43): elects the preferred leader, or uncleanly whoever is left (KIP-183, KIP-460).

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{ElectLeaders, PartitionOutcome, PartitionReference};
use klamm_protocol::messages::elect_leaders_request::TopicPartitions;
use klamm_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Serves ElectLeaders.
pub(crate) struct ElectLeadersHandler {
    cluster: Arc<Cluster>,
}

impl ElectLeadersHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for ElectLeadersHandler {
    type Request = ElectLeadersRequest;

    const VERSIONS: VersionRange = ElectLeadersRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(&self, context: RequestContext, request: ElectLeadersRequest) -> Ticket<ElectLeadersResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move { Answer::Response(elect(&cluster, context.version, request).await) })
    }
}

/// An election per partition, in the order of the request.
type Results = Vec<(PartitionReference, Result<(), Refused>)>;

async fn elect(cluster: &Arc<Cluster>, version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let wanted = request.topic_partitions.as_deref().map(references);
    match hold(cluster, &request, wanted.clone()).await {
        Ok(outcomes) => response(ErrorCode::None, group(outcomes)),
        Err(refused) => {
            // The whole request failed, and every partition says so; version 0 has no other place to say it.
            let code = if version >= 1 { refused.code } else { ErrorCode::None };
            let all = wanted.unwrap_or_default().into_iter();
            response(code, group(all.map(|partition| (partition, Err(refused.clone()))).collect()))
        }
    }
}

fn references(topics: &[TopicPartitions]) -> Vec<PartitionReference> {
    let partitions =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(move |id| (&topic.topic, *id)));
    partitions
        .map(|(topic, partition_id)| PartitionReference { topic: topic.clone(), partition_id })
        .collect()
}

async fn hold(
    cluster: &Arc<Cluster>,
    request: &ElectLeadersRequest,
    wanted: Option<Vec<PartitionReference>>,
) -> Result<Results, Refused> {
    let unclean = match request.election_type {
        PREFERRED => false,
        UNCLEAN => true,
        kind => {
            return Err(Refused::new(ErrorCode::InvalidRequest, format!("there is no election type {kind}")));
        }
    };
    let expected = wanted.clone();
    if expected.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let all = wanted.is_none();
    let change = ElectLeaders { unclean, all, partitions: wanted.unwrap_or_default() };
    let outcome = submit(cluster, Change::ElectLeaders(change), timeout(request.timeout_ms)).await?;
    let Outcome::ElectLeaders(outcome) = outcome else { return Err(GatewayError::BadAnswer.into()) };
    let outcomes = outcome.partitions.into_iter();
    let outcomes =
        outcomes.map(|PartitionOutcome { partition, refusal }| Some((partition?, item_result(refusal))));
    let outcomes: Option<Results> = outcomes.collect();
    let is_complete = |outcomes: &Results| expected.is_none_or(|expected| expected.len() == outcomes.len());
    outcomes.filter(is_complete).ok_or(GatewayError::BadAnswer.into())
}

fn group(results: Results) -> Vec<ReplicaElectionResult> {
    let mut topics = BTreeMap::<String, Vec<PartitionResult>>::new();
    for (partition, result) in results {
        let (error_code, error_message) = told(result);
        let result = PartitionResult { partition_id: partition.partition_id, error_code, error_message };
        topics.entry(partition.topic).or_default().push(result);
    }
    let topics = topics.into_iter();
    topics.map(|(topic, partition_result)| ReplicaElectionResult { topic, partition_result }).collect()
}

fn response(code: ErrorCode, replica_election_results: Vec<ReplicaElectionResult>) -> ElectLeadersResponse {
    ElectLeadersResponse { throttle_time_ms: 0, error_code: code.code(), replica_election_results }
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{ElectLeadersOutcome, Refusal};

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn ask(bed: &Arc<Bed>, version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let handler = ElectLeadersHandler::new(bed.cluster());
        answer(handler.handle(context_of::<ElectLeadersRequest>(version), request))
    }

    fn request(kind: i8, topics: Option<&[(&str, &[i32])]>) -> ElectLeadersRequest {
        let topic = |(topic, partitions): &(&str, &[i32])| TopicPartitions {
            topic: (*topic).to_owned(),
            partitions: partitions.to_vec(),
        };
        ElectLeadersRequest {
            election_type: kind,
            topic_partitions: topics.map(|topics| topics.iter().map(topic).collect()),
            timeout_ms: 1_000,
        }
    }

    fn outcome(partitions: &[(&str, i32, ErrorCode)]) -> Outcome {
        let partition = |(topic, partition_id, code): &(&str, i32, ErrorCode)| PartitionOutcome {
            partition: Some(PartitionReference { topic: (*topic).to_owned(), partition_id: *partition_id }),
            refusal: Some(Refusal { code: i32::from(code.code()), message: String::new() }),
        };
        Outcome::ElectLeaders(ElectLeadersOutcome { partitions: partitions.iter().map(partition).collect() })
    }

    fn told(response: &ElectLeadersResponse) -> Vec<(&str, Vec<(i32, i16)>)> {
        let topics = response.replica_election_results.iter();
        topics
            .map(|topic| {
                let partitions = topic.partition_result.iter().map(|p| (p.partition_id, p.error_code));
                (topic.topic.as_str(), partitions.collect())
            })
            .collect()
    }

    #[test]
    fn each_partition_has_its_own_outcome() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let not_needed = ErrorCode::ElectionNotNeeded;
        bed.reply(Ok(outcome(&[("b", 0, ErrorCode::None), ("a", 1, not_needed), ("a", 0, ErrorCode::None)])));
        let response = ask(&bed, 2, request(UNCLEAN, Some(&[("b", &[0]), ("a", &[1, 0])])));
        assert_eq!(response.error_code, 0);
        assert_eq!(told(&response), [("a", vec![(1, not_needed.code()), (0, 0)]), ("b", vec![(0, 0)])]);
        let [Change::ElectLeaders(change)] = &bed.changes()[..] else { panic!("one change") };
        assert!(change.unclean && !change.all);
        assert_eq!(change.partitions.len(), 3);
    }

    #[test]
    fn null_is_every_partition_and_nothing_is_none() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Ok(outcome(&[("a", 3, ErrorCode::None)])));
        let response = ask(&bed, 1, request(PREFERRED, None));
        assert_eq!(told(&response), [("a", vec![(3, 0)])]);
        let [Change::ElectLeaders(change)] = &bed.changes()[..] else { panic!("one change") };
        assert!(!change.unclean && change.all && change.partitions.is_empty());
        assert!(told(&ask(&bed, 1, request(PREFERRED, Some(&[])))).is_empty());
        assert_eq!(bed.changes().len(), 1);
    }

    #[test]
    fn a_request_that_fails_as_a_whole_says_so_everywhere() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let code = ErrorCode::RequestTimedOut.code();
        for (version, top) in [(0, 0), (1, code)] {
            bed.reply(Err(GatewayError::TimedOut));
            let response = ask(&bed, version, request(PREFERRED, Some(&[("a", &[0])])));
            assert_eq!((response.error_code, told(&response)), (top, vec![("a", vec![(0, code)])]));
        }
        let response = ask(&bed, 1, request(7, None));
        assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
        assert_eq!(bed.changes().len(), 2);
    }
}
