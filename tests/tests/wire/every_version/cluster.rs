//! DescribeCluster, ApiVersions, FindCoordinator, ListGroups, ElectLeaders, AlterPartitionReassignments,
//! ListPartitionReassignments, DescribeQuorum, AddRaftVoter, RemoveRaftVoter, UpdateFeatures, UnregisterBroker.

use klamm_protocol::messages::add_raft_voter_request::Listener;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest, DescribeClusterRequest,
    DescribeQuorumRequest, ElectLeadersRequest, FindCoordinatorRequest, ListGroupsRequest,
    ListPartitionReassignmentsRequest, RemoveRaftVoterRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest, describe_quorum_request, elect_leaders_request,
};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_tests::node_process::CLUSTER_ID;

use super::bed::{Bed, TOPIC, versions};

/// A node that there is not.
const NOBODY: i32 = 99;

pub(crate) async fn is_described(bed: &mut Bed) {
    for version in versions::<DescribeClusterRequest>() {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..DescribeClusterRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (0, None), "version {version}");
        assert_eq!((answer.cluster_id.as_str(), answer.controller_id), (CLUSTER_ID, 1));
        assert_eq!((answer.endpoint_type, answer.brokers.len()), (1, 1));
        let broker = &answer.brokers[0];
        let port = i32::from(bed.cluster.endpoint(1).port);
        assert_eq!((broker.broker_id, broker.host.as_str(), broker.port), (1, "127.0.0.1", port));
        assert_eq!((broker.rack.as_ref(), broker.is_fenced), (None, false));
        assert!(answer.cluster_authorized_operations > 0);
    }
}

pub(crate) async fn tells_versions(bed: &mut Bed) {
    let mut told = Vec::new();
    for version in versions::<ApiVersionsRequest>() {
        let request = ApiVersionsRequest {
            client_software_name: if version < 3 { String::new() } else { "tests".to_owned() },
            client_software_version: if version < 3 { String::new() } else { "1".to_owned() },
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!((answer.error_code, answer.throttle_time_ms), (0, 0), "version {version}");
        let finalized = answer.finalized_features.iter().any(|feature| feature.name == "metadata.version");
        let supported = answer.supported_features.iter().any(|feature| feature.name == "metadata.version");
        assert_eq!((finalized, supported), (version >= 3, version >= 3));
        assert_eq!(answer.finalized_features_epoch >= 0, version >= 3);
        told.push(answer.api_keys);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "all versions tell the same");
}

pub(crate) async fn has_no_groups(bed: &mut Bed) {
    let absent = ErrorCode::CoordinatorNotAvailable.code();
    for version in versions::<FindCoordinatorRequest>() {
        let (key, coordinator_keys) =
            if version < 4 { ("g".to_owned(), Vec::new()) } else { (String::new(), vec!["g".to_owned()]) };
        let request = FindCoordinatorRequest { key, key_type: 0, coordinator_keys };
        let answer = bed.ask(version, &request).await;
        let (code, node) = if version < 4 {
            (answer.error_code, answer.node_id)
        } else {
            assert_eq!(answer.coordinators[0].key, "g");
            (answer.coordinators[0].error_code, answer.coordinators[0].node_id)
        };
        assert_eq!((code, node), (absent, -1), "version {version}");
    }
    for version in versions::<ListGroupsRequest>() {
        let states_filter = if version < 4 { Vec::new() } else { vec!["Stable".to_owned()] };
        let types_filter = if version < 5 { Vec::new() } else { vec!["classic".to_owned()] };
        let answer = bed.ask(version, &ListGroupsRequest { states_filter, types_filter }).await;
        assert_eq!((answer.error_code, answer.groups.len()), (0, 0), "version {version}");
    }
}

pub(crate) async fn moves_leaders_and_replicas(bed: &mut Bed) {
    for version in versions::<ElectLeadersRequest>() {
        let wanted = elect_leaders_request::TopicPartitions { topic: TOPIC.to_owned(), partitions: vec![0] };
        let request =
            ElectLeadersRequest { topic_partitions: Some(vec![wanted]), ..ElectLeadersRequest::default() };
        let answer = bed.ask(version, &request).await;
        let result = &answer.replica_election_results[0];
        assert_eq!((answer.error_code, result.topic.as_str()), (0, TOPIC), "version {version}");
        let partition = &result.partition_result[0];
        let not_needed = ErrorCode::ElectionNotNeeded.code();
        assert_eq!((partition.partition_id, partition.error_code), (0, not_needed));
    }
    for version in versions::<AlterPartitionReassignmentsRequest>() {
        let none = ErrorCode::NoReassignmentInProgress;
        for (replicas, code) in [
            (Some(vec![1]), ErrorCode::None),
            (None, none),
            (Some(vec![NOBODY]), ErrorCode::InvalidReplicaAssignment),
        ] {
            let partition = ReassignablePartition { partition_index: 0, replicas };
            let topic = ReassignableTopic { name: TOPIC.to_owned(), partitions: vec![partition] };
            let request = AlterPartitionReassignmentsRequest {
                topics: vec![topic],
                ..AlterPartitionReassignmentsRequest::default()
            };
            let answer = bed.ask(version, &request).await;
            let topic = &answer.responses[0];
            assert_eq!((answer.error_code, topic.name.as_str()), (0, TOPIC), "version {version}");
            let found = ErrorCode::from_code(topic.partitions[0].error_code);
            assert_eq!((topic.partitions[0].partition_index, found), (0, Some(code)));
        }
    }
    for version in versions::<ListPartitionReassignmentsRequest>() {
        let answer = bed.ask(version, &ListPartitionReassignmentsRequest::default()).await;
        assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
    }
}

pub(crate) async fn has_a_quorum(bed: &mut Bed) {
    for version in versions::<DescribeQuorumRequest>() {
        let topic = describe_quorum_request::TopicData {
            topic_name: "__cluster_metadata".to_owned(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        };
        let answer = bed.ask(version, &DescribeQuorumRequest { topics: vec![topic] }).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((answer.error_code, partition.error_code), (0, 0), "version {version}");
        assert_eq!((partition.leader_id, partition.high_watermark > 0), (1, true));
        let voter = &partition.current_voters[0];
        assert_eq!((partition.current_voters.len(), voter.replica_id), (1, 1));
        assert!(voter.log_end_offset >= partition.high_watermark);
        assert_eq!(voter.last_caught_up_timestamp > 0, version >= 1);
        // As with Kafka, voters that `controller.quorum.voters` names have none.
        assert!(voter.replica_directory_id.is_zero());
        let controller = bed.cluster.controller_endpoint(1).port;
        let ports: Vec<_> = answer.nodes.iter().flat_map(|node| &node.listeners).collect();
        assert_eq!(ports.iter().any(|listener| listener.port == controller), version >= 2);
    }
    let foreign = ErrorCode::InconsistentClusterId.code();
    for version in versions::<AddRaftVoterRequest>() {
        let request = AddRaftVoterRequest {
            cluster_id: Some("another".to_owned()),
            timeout_ms: 10_000,
            voter_id: NOBODY,
            voter_directory_id: Uuid([7; 16]),
            listeners: vec![Listener {
                name: "CONTROLLER".to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 1,
            }],
            ack_when_committed: true,
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!((answer.error_code, answer.error_message.is_some()), (foreign, true));
    }
    for version in versions::<RemoveRaftVoterRequest>() {
        let request = RemoveRaftVoterRequest {
            cluster_id: Some(CLUSTER_ID.to_owned()),
            voter_id: NOBODY,
            voter_directory_id: Uuid([7; 16]),
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!(answer.error_code, ErrorCode::VoterNotFound.code());
    }
}

pub(crate) async fn knows_features_and_brokers(bed: &mut Bed) {
    for version in versions::<UpdateFeaturesRequest>() {
        let update = FeatureUpdateKey {
            feature: "no.such.feature".to_owned(),
            max_version_level: 1,
            ..FeatureUpdateKey::default()
        };
        let request = UpdateFeaturesRequest {
            feature_updates: vec![update],
            validate_only: version >= 1,
            ..UpdateFeaturesRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        let refused = ErrorCode::InvalidUpdateVersion.code();
        assert_eq!((answer.error_code, answer.results.len()), (refused, 0), "version {version}");
    }
    for version in versions::<UnregisterBrokerRequest>() {
        let answer = bed.ask(version, &UnregisterBrokerRequest { broker_id: NOBODY }).await;
        assert_eq!(answer.error_code, ErrorCode::BrokerIdNotRegistered.code());
    }
}
