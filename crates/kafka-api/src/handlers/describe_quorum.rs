//! DescribeQuorum (55): who leads the metadata quorum, and how far its members are (KIP-595, KIP-836, KIP-853). The leader
//! of any other partition tells the same of its replicas ([`crate::replica_states`]).

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::describe_quorum_request as asked;
use klamm_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_protocol::{Uuid, VersionRange};

use crate::cluster::{Cluster, METADATA_TOPIC};
use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::ports::{QuorumDescription, QuorumReplica};
use crate::replica_states::describe_partitions;
use crate::submission::Refused;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// How long the quorum's leader may take; the request cannot say it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What the controllers' listener is called where no setting says so.
const LISTENER_DEFAULT: &str = "CONTROLLER";

/// The version from which on voters are told with their directories and addresses (KIP-853).
const DIRECTORIES_SINCE: i16 = 2;

/// Serves DescribeQuorum.
pub(crate) struct DescribeQuorumHandler {
    cluster: Arc<Cluster>,
    plane: Arc<DataPlane>,
    /// The name of the controllers' listener.
    listener: Arc<str>,
}

impl DescribeQuorumHandler {
    pub(crate) fn new(cluster: Arc<Cluster>, plane: Arc<DataPlane>) -> Self {
        let mut listeners = cluster.settings.list("controller.listener.names").into_iter();
        let listener = listeners.next().unwrap_or_else(|| LISTENER_DEFAULT.to_owned()).into();
        Self { cluster, plane, listener }
    }
}

impl Handler for DescribeQuorumHandler {
    type Request = DescribeQuorumRequest;

    const VERSIONS: VersionRange = DescribeQuorumRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Describe);

    fn handle(
        &self,
        context: RequestContext,
        request: DescribeQuorumRequest,
    ) -> Ticket<DescribeQuorumResponse> {
        if !is_about_the_metadata(&request) {
            return Ticket::ready(Answer::Response(DescribeQuorumResponse {
                error_message: None,
                topics: describe_partitions(&self.plane, request.topics),
                ..DescribeQuorumResponse::default()
            }));
        }
        let (cluster, listener) = (self.cluster.clone(), self.listener.clone());
        Ticket::later(async move {
            Answer::Response(match cluster.controller.describe_quorum(TIMEOUT).await {
                Ok(quorum) if context.version < DIRECTORIES_SINCE => {
                    without_directories(describe(&quorum, &listener))
                }
                Ok(quorum) => describe(&quorum, &listener),
                Err(error) => {
                    let Refused { code, message } = error.into();
                    DescribeQuorumResponse {
                        error_code: code.code(),
                        error_message: message,
                        ..DescribeQuorumResponse::default()
                    }
                }
            })
        })
    }
}

/// Whether the request names the metadata's partition and nothing else.
fn is_about_the_metadata(request: &DescribeQuorumRequest) -> bool {
    match &request.topics[..] {
        [topic] => {
            topic.topic_name == METADATA_TOPIC
                && matches!(topic.partitions[..], [asked::PartitionData { partition_index: 0 }])
        }
        _ => false,
    }
}

fn describe(quorum: &QuorumDescription, listener: &str) -> DescribeQuorumResponse {
    let nodes = quorum.voters.iter().map(|voter| {
        let listeners = voter.endpoint.iter().map(|(host, port)| Listener {
            name: listener.to_owned(),
            host: host.clone(),
            port: *port,
        });
        Node { node_id: voter.node.0, listeners: listeners.collect() }
    });
    let nodes = nodes.collect();
    let partition = PartitionData {
        leader_id: quorum.leader.0,
        leader_epoch: i32::try_from(quorum.term).unwrap_or(i32::MAX),
        high_watermark: quorum.committed_end_offset.0,
        current_voters: quorum.voters.iter().map(state).collect(),
        observers: quorum.observers.iter().map(state).collect(),
        error_message: None,
        ..PartitionData::default()
    };
    DescribeQuorumResponse {
        error_message: None,
        topics: vec![TopicData { topic_name: METADATA_TOPIC.to_owned(), partitions: vec![partition] }],
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

/// What older versions can carry of it.
fn without_directories(mut response: DescribeQuorumResponse) -> DescribeQuorumResponse {
    response.nodes.clear();
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions {
        for replica in partition.current_voters.iter_mut().chain(&mut partition.observers) {
            replica.replica_directory_id = Uuid::ZERO;
        }
    }
    response
}

fn state(replica: &QuorumReplica) -> ReplicaState {
    ReplicaState {
        replica_id: replica.node.0,
        replica_directory_id: Uuid(replica.directory),
        log_end_offset: replica.log_end_offset.0,
        last_fetch_timestamp: replica.last_fetch_ms,
        last_caught_up_timestamp: replica.last_caught_up_ms,
    }
}

#[cfg(test)]
mod tests {
    use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
    use klamm_protocol::{ErrorCode, Writer};
    use klamm_types::{BrokerId, Offset};

    use super::*;
    use crate::data_bed::{DataBed, batch};

    async fn ask(bed: &DataBed, topics: &[(&str, &[i32])]) -> DescribeQuorumResponse {
        ask_in(2, bed, topics).await
    }

    async fn ask_in(version: i16, bed: &DataBed, topics: &[(&str, &[i32])]) -> DescribeQuorumResponse {
        let topic = |(name, partitions): &(&str, &[i32])| asked::TopicData {
            topic_name: (*name).to_owned(),
            partitions: partitions.iter().map(|i| asked::PartitionData { partition_index: *i }).collect(),
        };
        let request = DescribeQuorumRequest { topics: topics.iter().map(topic).collect() };
        let handler = DescribeQuorumHandler::new(bed.bed.cluster(), bed.plane.clone());
        bed.ask(&handler, version, request).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_quorum_is_told_as_its_leader_sees_it() {
        let bed = DataBed::new().await;
        let voter = QuorumReplica {
            node: BrokerId(2),
            directory: [7; 16],
            log_end_offset: Offset(11),
            last_fetch_ms: 5,
            last_caught_up_ms: 4,
            endpoint: Some(("host".to_owned(), 9093)),
        };
        let observer = QuorumReplica { node: BrokerId(5), endpoint: None, ..voter.clone() };
        *bed.bed.quorum.lock().unwrap() = Some(QuorumDescription {
            leader: BrokerId(2),
            term: 3,
            committed_end_offset: Offset(10),
            voters: vec![voter],
            observers: vec![observer],
        });
        let response = ask(&bed, &[(METADATA_TOPIC, &[0])]).await;
        assert_eq!((response.error_code, response.error_message.as_deref()), (0, None));
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.leader_id, partition.leader_epoch, partition.high_watermark), (2, 3, 10));
        let state = &partition.current_voters[0];
        assert_eq!(
            (state.replica_id, state.log_end_offset, state.replica_directory_id),
            (2, 11, Uuid([7; 16]))
        );
        assert_eq!((state.last_fetch_timestamp, state.last_caught_up_timestamp), (5, 4));
        assert_eq!(partition.observers[0].replica_id, 5);
        let listener = &response.nodes[0].listeners[0];
        assert_eq!(
            (listener.name.as_str(), listener.host.as_str(), listener.port),
            ("CONTROLLER", "host", 9093)
        );
        // Answers that a version cannot carry end the connection.
        for version in DescribeQuorumRequest::VERSIONS.iter() {
            let response = ask_in(version, &bed, &[(METADATA_TOPIC, &[0])]).await;
            assert_eq!(response.topics[0].partitions[0].observers.len(), 1);
            response.encode(version, &mut Writer::new()).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_tells_of_its_own_partitions_and_of_no_other() {
        let bed = DataBed::new().await;
        let options = AppendOptions {
            acks: Acks::All,
            timeout: Duration::from_secs(10),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        bed.partition(1).append(batch(&["a", "b"]), &options).done().await.unwrap();
        for version in DescribeQuorumRequest::VERSIONS.iter() {
            let response =
                ask_in(version, &bed, &[("t", &[1, 2, 9, 1]), ("nobody", &[0]), ("a/b", &[0])]).await;
            response.encode(version, &mut Writer::new()).unwrap();
            let led = &response.topics[0].partitions[0];
            assert_eq!(
                (led.partition_index, led.error_code, led.leader_id, led.high_watermark),
                (1, 0, 1, 2)
            );
            let ends: Vec<_> = led.current_voters.iter().map(|v| (v.replica_id, v.log_end_offset)).collect();
            assert_eq!((ends, led.observers.len()), (vec![(1, 2)], 0));
            let codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|p| p.error_code);
            let (elsewhere, unknown) = (ErrorCode::NotLeaderOrFollower, ErrorCode::UnknownTopicOrPartition);
            let expected = [ErrorCode::None, elsewhere, unknown, unknown, unknown].map(ErrorCode::code);
            assert_eq!(codes.collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_metadata_is_asked_for_alone() {
        let bed = DataBed::new().await;
        let code = ErrorCode::UnknownTopicOrPartition.code();
        for topics in [
            &[(METADATA_TOPIC, &[1][..])][..],
            &[(METADATA_TOPIC, &[0, 0])],
            &[(METADATA_TOPIC, &[0]), ("x", &[0])],
        ] {
            let response = ask(&bed, topics).await;
            assert!(response.topics[0].partitions.iter().all(|p| p.error_code == code));
        }
        assert!(ask(&bed, &[]).await.topics.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_leader_the_request_fails() {
        let bed = DataBed::new().await;
        let response = ask(&bed, &[(METADATA_TOPIC, &[0])]).await;
        assert_eq!(response.error_code, ErrorCode::RequestTimedOut.code());
    }
}
