//! Metadata, DescribeTopicPartitions, CreateTopics, CreatePartitions, DeleteTopics.

use std::time::Duration;

use klamm_protocol::Uuid;
use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest,
    MetadataRequest, MetadataResponse, describe_topic_partitions_request,
};
use klamm_tests::cluster::wait_for;
use klamm_tests::node_process::CLUSTER_ID;

use super::bed::{Bed, TOPIC, versions};

/// How long the broker may take to learn what the controller has decided.
const LEARNING_TIME_MAX: Duration = Duration::from_secs(30);
/// The version from which on topics can be asked for by their ids.
const BY_ID_SINCE: i16 = 12;
const TIMEOUT_MS: i32 = 30_000;

fn of(name: Option<&str>, topic_id: Uuid) -> MetadataRequest {
    let topic = MetadataRequestTopic { topic_id, name: name.map(str::to_owned) };
    MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    }
}

pub(crate) async fn are_described(bed: &mut Bed) {
    for version in versions::<MetadataRequest>() {
        let mut request = of(Some(TOPIC), Uuid::ZERO);
        request.allow_auto_topic_creation = version < 4;
        request.include_topic_authorized_operations = version >= 8;
        request.include_cluster_authorized_operations = (8..=10).contains(&version);
        let answer = bed.ask(version, &request).await;
        check_metadata(bed, version, &answer);
        if version >= BY_ID_SINCE {
            let answer = bed.ask(version, &of(None, bed.topic_id)).await;
            assert_eq!(answer.topics[0].name.as_deref(), Some(TOPIC));
        }
    }
    for version in versions::<DescribeTopicPartitionsRequest>() {
        let topic = describe_topic_partitions_request::TopicRequest { name: TOPIC.to_owned() };
        let request = DescribeTopicPartitionsRequest {
            topics: vec![topic],
            response_partition_limit: 1,
            ..DescribeTopicPartitionsRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.name.as_deref(), topic.topic_id), (0, Some(TOPIC), bed.topic_id));
        let partition = &topic.partitions[0];
        assert_eq!((topic.partitions.len(), partition.error_code, partition.leader_id), (1, 0, 1));
        assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![1], &vec![1]));
        let next = answer.next_cursor.unwrap();
        assert_eq!((next.topic_name.as_str(), next.partition_index), (TOPIC, 1));
    }
}

fn check_metadata(bed: &Bed, version: i16, answer: &MetadataResponse) {
    let broker = &answer.brokers[0];
    let port = i32::from(bed.cluster.endpoint(1).port);
    assert_eq!((answer.brokers.len(), broker.node_id, broker.port), (1, 1, port), "version {version}");
    assert_eq!(broker.host, "127.0.0.1");
    let since = |first: i16| version >= first;
    assert_eq!(answer.controller_id, if since(1) { 1 } else { -1 });
    assert_eq!(answer.cluster_id.as_deref(), since(2).then_some(CLUSTER_ID));
    assert_eq!(answer.cluster_authorized_operations > 0, (8..=10).contains(&version));
    let topic = &answer.topics[0];
    assert_eq!((topic.error_code, topic.name.as_deref(), topic.is_internal), (0, Some(TOPIC), false));
    assert_eq!(topic.topic_id, if since(10) { bed.topic_id } else { Uuid::ZERO });
    assert_eq!(topic.topic_authorized_operations > 0, since(8));
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    for (partition, index) in partitions.iter().zip(0..2) {
        assert_eq!((partition.error_code, partition.partition_index, partition.leader_id), (0, index, 1));
        assert_eq!(partition.leader_epoch, if since(7) { 0 } else { -1 });
        assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![1], &vec![1]));
        assert!(partition.offline_replicas.is_empty());
    }
    assert_eq!(partitions.len(), 2);
}

fn created(version: i16) -> String {
    format!("created-{version}")
}

pub(crate) async fn are_created(bed: &mut Bed) {
    for version in versions::<CreateTopicsRequest>() {
        let config =
            CreatableTopicConfig { name: "retention.ms".to_owned(), value: Some("60000".to_owned()) };
        let topic = CreatableTopic {
            name: created(version),
            num_partitions: 2,
            replication_factor: 1,
            configs: vec![config],
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let answer = bed.ask(version, &request).await;
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.error_message.as_ref()), (0, None), "version {version}");
        assert_eq!((answer.topics.len(), &topic.name), (1, &created(version)));
        assert_eq!(topic.topic_id.is_zero(), version < 7);
        let sizes = (topic.num_partitions, topic.replication_factor);
        assert_eq!(sizes, if version < 5 { (-1, -1) } else { (2, 1) });
        let configs = topic.configs.iter().flatten();
        let retention: Vec<_> = configs.filter(|config| config.name == "retention.ms").collect();
        assert_eq!(retention.len(), usize::from(version >= 5));
        assert!(retention.iter().all(|config| config.value.as_deref() == Some("60000")));
        // What is there cannot be created.
        assert_eq!(bed.ask(version, &request).await.topics[0].error_code, 36);
    }
}

pub(crate) async fn grow(bed: &mut Bed) {
    let name = created(2);
    for version in versions::<CreatePartitionsRequest>() {
        let count = 3 + i32::from(version);
        let topic = CreatePartitionsTopic { name: name.clone(), count, assignments: None };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: TIMEOUT_MS,
            ..CreatePartitionsRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        let result = &answer.results[0];
        assert_eq!((&result.name, result.error_code), (&name, 0), "version {version}");
        wait_for("the topic has grown", LEARNING_TIME_MAX, async || {
            let topics = bed.ask(13, &of(Some(&name), Uuid::ZERO)).await.topics;
            let found = i32::try_from(topics[0].partitions.len()).unwrap();
            if found == count { Ok(()) } else { Err(format!("{found} partitions of {count}")) }
        })
        .await
        .unwrap();
        // It has as many already.
        assert_eq!(bed.ask(version, &request).await.results[0].error_code, 37);
    }
}

pub(crate) async fn are_deleted(bed: &mut Bed) {
    for version in versions::<DeleteTopicsRequest>() {
        let name = created(version + 1);
        let topic_id = bed.ask(13, &of(Some(&name), Uuid::ZERO)).await.topics[0].topic_id;
        let mut request = DeleteTopicsRequest { timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
        if version < 6 {
            request.topic_names.push(name.clone());
        } else {
            request.topics.push(DeleteTopicState { name: None, topic_id });
        }
        let answer = bed.ask(version, &request).await;
        let result = &answer.responses[0];
        assert_eq!((result.error_code, result.name.as_ref()), (0, Some(&name)), "version {version}");
        assert_eq!(result.topic_id, if version < 6 { Uuid::ZERO } else { topic_id });
        wait_for("the topic is gone", LEARNING_TIME_MAX, async || {
            match bed.ask(13, &of(Some(&name), Uuid::ZERO)).await.topics[0].error_code {
                3 => Ok(()),
                other => Err(format!("code {other}")),
            }
        })
        .await
        .unwrap();
    }
}
