use klamm_metadata::ConfigResource;
use klamm_pb::controller::v1::{CreateTopicsOutcome, Refusal};
use klamm_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};

use super::*;
use crate::fixture::{Bed, answer, context_of, setting};

fn ask(bed: &Arc<Bed>, version: i16, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let handler = CreateTopicsHandler::new(bed.cluster());
    let request = CreateTopicsRequest { topics, timeout_ms: 2_000, validate_only: false };
    answer(handler.handle(context_of::<CreateTopicsRequest>(version), request)).topics
}

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: 3,
        replication_factor: 2,
        ..CreatableTopic::default()
    }
}

fn config(name: &str, value: Option<&str>) -> CreatableTopicConfig {
    CreatableTopicConfig { name: name.to_owned(), value: value.map(str::to_owned) }
}

fn created(id: u8) -> CreatedTopic {
    CreatedTopic {
        topic_id: vec![id; 16].into(),
        partitions: 3,
        replication_factor: 2,
        ..CreatedTopic::default()
    }
}

fn outcome(topics: Vec<CreatedTopic>) -> Outcome {
    Outcome::CreateTopics(CreateTopicsOutcome { topics })
}

#[test]
fn a_created_topic_is_told_with_all_its_settings_from_version_5_on() {
    let bed = Bed::with_brokers(&[(1, false)]);
    bed.learn(&[setting(ConfigResource::BrokerDefault, "message.max.bytes", "2000000")]);
    bed.start_with("log.segment.bytes", "33554432");
    let wanted = CreatableTopic { configs: vec![config("retention.ms", Some("1000"))], ..topic("a") };
    for version in [2, 4, 5, 7] {
        bed.reply(Ok(outcome(vec![created(9)])));
        let results = ask(&bed, version, vec![wanted.clone()]);
        let [result] = &results[..] else { panic!("one result") };
        assert_eq!((result.error_code, result.error_message.as_deref()), (0, None));
        assert_eq!((result.num_partitions, result.replication_factor), (3, 2));
        assert_eq!(result.topic_id, Uuid([9; 16]));
        let configs = result.configs.as_ref().unwrap();
        let told = |name: &str| {
            let found = configs.iter().find(|c| c.name == name).unwrap();
            (found.value.as_deref(), found.config_source, found.read_only)
        };
        if version < 5 {
            assert!(configs.is_empty());
            continue;
        }
        assert_eq!(configs.len(), 34);
        assert!(configs.is_sorted_by_key(|c| &c.name));
        assert_eq!(told("retention.ms"), (Some("1000"), 1, false));
        assert_eq!(told("max.message.bytes"), (Some("2000000"), 3, false));
        assert_eq!(told("segment.bytes"), (Some("33554432"), 4, false));
        assert_eq!(told("cleanup.policy"), (Some("delete"), 5, false));
    }
    let [Change::CreateTopics(change), ..] = &bed.changes()[..] else { panic!("a change") };
    let [asked] = &change.topics[..] else { panic!("one topic") };
    assert_eq!((asked.name.as_str(), asked.partitions, asked.replication_factor), ("a", 3, 2));
    assert_eq!(asked.configs, [ConfigEntry { key: "retention.ms".to_owned(), value: "1000".to_owned() }]);
    assert_eq!(bed.asked.lock().unwrap()[0].1, Duration::from_secs(2));
}

#[test]
fn what_is_malformed_is_refused_without_asking() {
    let bed = Bed::with_brokers(&[(1, false)]);
    let null = CreatableTopic { configs: vec![config("retention.ms", None)], ..topic("null") };
    let topics = vec![topic("twice"), null, topic(METADATA_TOPIC), topic("twice")];
    let results = ask(&bed, 7, topics);
    let told: Vec<_> = results.iter().map(|r| (r.name.as_str(), r.error_code)).collect();
    assert_eq!(
        told,
        [
            ("twice", ErrorCode::InvalidRequest.code()),
            ("null", ErrorCode::InvalidConfig.code()),
            (METADATA_TOPIC, ErrorCode::TopicAuthorizationFailed.code()),
        ]
    );
    assert!(bed.changes().is_empty());
    assert!(results.iter().all(|r| r.num_partitions == -1 && r.error_message.is_some()));
}

#[test]
fn assignments_are_passed_on_and_refusals_told() {
    let bed = Bed::with_brokers(&[(1, false)]);
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1, 2] };
    let assigned = CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![assignment],
        ..topic("a")
    };
    let refusal =
        Refusal { code: i32::from(ErrorCode::TopicAlreadyExists.code()), message: "there".to_owned() };
    let exists = CreatedTopic { refusal: Some(refusal), ..CreatedTopic::default() };
    bed.reply(Ok(outcome(vec![created(1), exists])));
    let results = ask(&bed, 7, vec![assigned, topic("b")]);
    let told: Vec<_> = results.iter().map(|r| (r.error_code, r.error_message.as_deref())).collect();
    assert_eq!(told, [(0, None), (ErrorCode::TopicAlreadyExists.code(), Some("Topic 'b' already exists."))]);
    let [Change::CreateTopics(change)] = &bed.changes()[..] else { panic!("one change") };
    assert_eq!(change.topics[0].assignments, [ReplicaAssignment { partition_id: 0, replicas: vec![1, 2] }]);
    assert_eq!((change.topics[0].partitions, change.topics[0].replication_factor), (-1, -1));
}

#[test]
fn no_answer_refuses_every_topic() {
    let bed = Bed::with_brokers(&[(1, false)]);
    bed.reply(Err(GatewayError::TimedOut));
    let code = i32::from(ErrorCode::PolicyViolation.code());
    bed.reply(Err(GatewayError::Refused { code, reason: String::new() }));
    for code in [ErrorCode::RequestTimedOut, ErrorCode::PolicyViolation] {
        let results = ask(&bed, 7, vec![topic("a"), topic("b")]);
        assert!(results.iter().all(|r| r.error_code == code.code()), "{results:?}");
    }
}
