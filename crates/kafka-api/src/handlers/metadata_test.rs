use klamm_metadata::{MetadataRecord, PartitionChanged, PartitionRegistration};
use klamm_pb::controller::v1::CreateTopicsOutcome;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_types::{LeaderEpoch, PartitionEpoch};

use super::*;
use crate::fixture::{Bed, answer, broker_ids, context_of, offline, partition, topic, topic_id};
use crate::ports::GatewayError;

fn bed() -> Arc<Bed> {
    let bed = Bed::with_brokers(&[(1, false), (2, false), (3, true)]);
    bed.learn(&topic(1, "orders", &[&[1, 2], &[2, 1]]));
    bed.learn(&topic(2, "__consumer_offsets", &[&[1]]));
    bed
}

fn ask(bed: &Arc<Bed>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let handler = MetadataHandler::new(bed.cluster());
    answer(handler.handle(context_of::<MetadataRequest>(version), request))
}

fn named(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some((*name).to_owned()) };
    MetadataRequest { topics: Some(names.iter().map(topic).collect()), ..MetadataRequest::default() }
}

fn quiet(names: &[&str]) -> MetadataRequest {
    MetadataRequest { allow_auto_topic_creation: false, ..named(names) }
}

fn codes(response: &MetadataResponse) -> Vec<(&str, i16)> {
    response.topics.iter().map(|t| (t.name.as_deref().unwrap_or("?"), t.error_code)).collect()
}

#[test]
fn brokers_are_told_as_the_listener_has_them_and_without_the_fenced() {
    let response = ask(&bed(), 13, quiet(&[]));
    let brokers: Vec<_> = response.brokers.iter().map(|b| (b.node_id, b.host.as_str(), b.port)).collect();
    assert_eq!(brokers, [(1, "host1", 9001), (2, "host2", 9002)]);
    assert_eq!((response.controller_id, response.cluster_id.as_deref()), (1, Some("cluster")));
    assert_eq!(response.brokers[0].rack.as_deref(), Some("rack1"));
}

#[test]
fn a_broker_that_died_lately_is_told_for_a_while() {
    let bed = bed();
    bed.lately_dead.lock().unwrap().insert(BrokerId(3));
    let response = ask(&bed, 13, quiet(&[]));
    assert_eq!(response.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_broker_tells_of_itself_where_no_broker_is_usable() {
    let response = ask(&Bed::with_brokers(&[(1, true), (2, true)]), 13, quiet(&[]));
    assert_eq!(response.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [1]);
    assert_eq!(response.controller_id, -1);
}

#[test]
fn all_topics_are_null_and_before_version_1_none() {
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let told = [("__consumer_offsets", 0), ("orders", 0)];
    assert_eq!(codes(&ask(&bed(), 1, all)), told);
    assert_eq!(codes(&ask(&bed(), 0, quiet(&[]))), told);
    assert_eq!(codes(&ask(&bed(), 1, quiet(&[]))), []);
}

#[test]
fn topics_are_told_once_in_the_order_asked_for() {
    let response = ask(&bed(), 9, quiet(&["orders", "__consumer_offsets", "orders"]));
    assert_eq!(codes(&response), [("orders", 0), ("__consumer_offsets", 0)]);
    assert_eq!(response.topics.iter().map(|t| t.is_internal).collect::<Vec<_>>(), [false, true]);
    let first = &response.topics[0].partitions[0];
    assert_eq!((first.leader_id, first.leader_epoch, first.error_code), (1, 0, 0));
    assert_eq!(
        (&first.replica_nodes[..], &first.isr_nodes[..], first.offline_replicas.len()),
        (&[1, 2][..], &[1, 2][..], 0)
    );
}

#[test]
fn unknown_and_impossible_names_have_different_codes() {
    let response = ask(&bed(), 9, quiet(&["none", "a/b"]));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(codes(&response), [("none", unknown), ("a/b", ErrorCode::InvalidTopicException.code())]);
}

#[test]
fn topics_are_found_by_id_from_version_12_on() {
    let by_id = |id: TopicId| MetadataRequestTopic { topic_id: id.into(), name: None };
    let request = MetadataRequest {
        topics: Some(vec![by_id(topic_id(1)), by_id(topic_id(9)), by_id(topic_id(1))]),
        ..MetadataRequest::default()
    };
    let bed = bed();
    let response = ask(&bed, 12, request.clone());
    assert_eq!(codes(&response), [("orders", 0), ("?", ErrorCode::UnknownTopicId.code())]);
    assert_eq!(response.topics[1].topic_id, topic_id(9).into());
    assert!(bed.changes().is_empty());
    for version in [10, 11] {
        let refused = ask(&bed, version, request.clone());
        assert!(refused.topics.iter().all(|t| t.error_code == ErrorCode::InvalidRequest.code()));
    }
}

#[test]
fn a_partition_without_a_leader_that_can_be_reached_says_so() {
    let bed = bed();
    bed.learn(&topic(3, "sad", &[]));
    let leaderless = PartitionRegistration {
        leader: None,
        isr: Vec::new(),
        ..PartitionRegistration::new(broker_ids(&[2, 3]), broker_ids(&[2]))
    };
    let gone = PartitionRegistration::new(broker_ids(&[9, 1]), broker_ids(&[9, 1]));
    bed.learn(&[partition(3, 0, leaderless), partition(3, 1, gone)]);
    let told = |version| {
        let response = ask(&bed, version, quiet(&["sad"]));
        let partitions = response.topics[0].partitions.iter();
        partitions
            .map(|p| (p.leader_id, p.error_code, p.replica_nodes.clone(), p.offline_replicas.clone()))
            .collect::<Vec<_>>()
    };
    let code = ErrorCode::LeaderNotAvailable.code();
    assert_eq!(told(9), [(-1, code, vec![2, 3], vec![3]), (-1, code, vec![9, 1], vec![9])]);
    assert_eq!(told(0), [(-1, code, vec![2, 3], vec![3]), (-1, code, vec![1], vec![9])]);
}

#[test]
fn a_replica_whose_directory_has_failed_is_told_as_offline_and_its_broker_is_not() {
    let bed = bed();
    bed.learn(&topic(3, "sad", &[&[1, 2], &[1, 2]]));
    let before = ask(&bed, 12, quiet(&["sad"]));
    bed.learn(&[offline(1, &[(3, 1)])]);
    let told = ask(&bed, 12, quiet(&["sad"]));
    let offline = told.topics[0].partitions.iter().map(|p| p.offline_replicas.clone()).collect::<Vec<_>>();
    assert_eq!(offline, [vec![], vec![1]]);
    assert_eq!(told.brokers, before.brokers);
}

#[test]
fn a_leader_without_the_clients_listener_is_not_told() {
    let bed = bed();
    let mut context = context_of::<MetadataRequest>(9);
    context.listener = "OTHER".into();
    let handler = MetadataHandler::new(bed.cluster());
    let response = answer(handler.handle(context.clone(), quiet(&["orders"])));
    assert!(response.brokers.is_empty());
    assert_eq!(response.controller_id, -1);
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.leader_id, partition.error_code), (-1, ErrorCode::ListenerNotFound.code()));
    context.version = 5;
    let response = answer(handler.handle(context, quiet(&["orders"])));
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::LeaderNotAvailable.code());
}

#[test]
fn operations_are_told_in_the_versions_that_have_them() {
    let request = MetadataRequest {
        include_cluster_authorized_operations: true,
        include_topic_authorized_operations: true,
        ..quiet(&["orders"])
    };
    for (version, cluster, topic) in
        [(7, i32::MIN, i32::MIN), (8, 8096, 3576), (10, 8096, 3576), (13, i32::MIN, 3576)]
    {
        let response = ask(&bed(), version, request.clone());
        let told = (response.cluster_authorized_operations, response.topics[0].topic_authorized_operations);
        assert_eq!(told, (cluster, topic), "version {version}");
    }
}

#[test]
fn a_missing_topic_is_created_and_then_told() {
    let bed = bed();
    bed.reply(Ok(Outcome::CreateTopics(CreateTopicsOutcome::default())));
    bed.learn_after_answer(&topic(5, "fresh", &[&[1]]));
    let response = ask(&bed, 9, named(&["fresh", "a/b", "orders"]));
    let invalid = ErrorCode::InvalidTopicException.code();
    assert_eq!(codes(&response), [("fresh", 0), ("a/b", invalid), ("orders", 0)]);
    let [Change::CreateTopics(change)] = &bed.changes()[..] else { panic!("one change") };
    let [topic] = &change.topics[..] else { panic!("one topic") };
    assert_eq!((topic.name.as_str(), topic.partitions, topic.replication_factor), ("fresh", -1, -1));
    assert!(!change.validate_only);
}

#[test]
fn nothing_is_created_that_nobody_may_create() {
    let bed = bed();
    ask(&bed, 4, quiet(&["fresh"]));
    ask(&bed, 9, named(&["__transaction_state"]));
    assert!(bed.changes().is_empty());
    // A client of version 3 cannot say no.
    bed.reply(Err(GatewayError::TimedOut));
    let response = ask(&bed, 3, quiet(&["fresh"]));
    assert_eq!(codes(&response), [("fresh", ErrorCode::UnknownTopicOrPartition.code())]);
    assert_eq!(bed.changes().len(), 1);
}

#[test]
fn a_crowd_creates_a_topic_once() {
    let creations = Arc::<Creations>::default();
    let name = |text| TopicName::new(text).unwrap();
    let first = Creations::begin(&creations, vec![name("a"), name("b")]).unwrap();
    assert!(Creations::begin(&creations, vec![name("a")]).is_none());
    let second = Creations::begin(&creations, vec![name("a"), name("c")]).unwrap();
    assert_eq!(second.names, [name("c")]);
    drop((first, second));
    assert!(Creations::begin(&creations, vec![name("a")]).is_some());
}

#[test]
fn an_answer_waits_for_the_election_when_a_leader_may_be_dead() {
    let led_by_another = || {
        let old = PartitionRegistration::new(broker_ids(&[2, 1]), broker_ids(&[2, 1]));
        let mut new = old.clone();
        new.leader = Some(BrokerId(1));
        new.leader_epoch = LeaderEpoch(old.leader_epoch.0 + 1);
        new.partition_epoch = PartitionEpoch(old.partition_epoch.0 + 1);
        [MetadataRecord::PartitionChanged(PartitionChanged::between(topic_id(1), PartitionId(1), &old, &new))]
    };
    let all = || MetadataRequest { topics: None, ..MetadataRequest::default() };
    for (version, request) in [(9, quiet(&["orders"])), (1, all()), (0, quiet(&[]))] {
        let bed = bed();
        // Its client knew first.
        bed.unnoticed.lock().unwrap().insert(BrokerId(2));
        bed.learn_after_answer(&led_by_another());
        let response = ask(&bed, version, request);
        let orders = response.topics.iter().find(|topic| topic.name.as_deref() == Some("orders")).unwrap();
        assert_eq!(orders.partitions[1].leader_id, 1, "version {version}");
        assert!(bed.suspects.lock().unwrap().is_empty());
    }
}

#[test]
fn an_answer_does_not_wait_for_a_suspect_that_leads_nothing_of_it() {
    let bed = bed();
    bed.suspects.lock().unwrap().insert(BrokerId(2));
    ask(&bed, 9, quiet(&["__consumer_offsets", "none"]));
    // The list of brokers alone.
    ask(&bed, 9, quiet(&[]));
    assert_eq!(bed.suspects.lock().unwrap().len(), 1);
}
