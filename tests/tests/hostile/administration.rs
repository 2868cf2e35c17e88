//! W46 and W47: topics and settings that cannot be.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_protocol::messages::{CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::bed::Bed;

/// The most that a string of the protocol can have.
const STRING_BYTES_MAX: usize = 32_767;
/// The resource types of settings.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub(crate) async fn send_all(bed: &mut Bed) {
    let before = bed.topics().await;
    w46_counts(bed).await;
    w46_names(bed).await;
    w46_assignments(bed).await;
    let after = bed.topics().await;
    bed.expect_that("W46", before == after, || format!("{before:?} became {after:?}"));
    w47_settings(bed).await;
    w47_sensitive(bed).await;
}

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

async fn create(bed: &mut Bed, row: &str, topics: Vec<CreatableTopic>, expected: ErrorCode) {
    let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false };
    let answer = bed.answered(row, 7, &request).await;
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
    bed.expect(row, &codes, expected);
}

async fn w46_counts(bed: &mut Bed) {
    for replication_factor in [0, -2, i16::MAX, i16::MIN] {
        let topics = vec![CreatableTopic { replication_factor, ..topic("bad") }];
        create(bed, "W46 replication factor", topics, ErrorCode::InvalidReplicationFactor).await;
    }
    for num_partitions in [0, -2, i32::MIN] {
        let topics = vec![CreatableTopic { num_partitions, ..topic("bad") }];
        create(bed, "W46 partitions", topics, ErrorCode::InvalidPartitions).await;
    }
    let topics = vec![CreatableTopic { num_partitions: i32::MAX, ..topic("bad") }];
    create(bed, "W46 2^31 - 1 partitions", topics, ErrorCode::PolicyViolation).await;
}

async fn w46_names(bed: &mut Bed) {
    let long = "n".repeat(250);
    for name in ["", ".", "..", "a/b", "a\0b", "a\nb", "../../etc", &long] {
        create(bed, "W46 name", vec![topic(name)], ErrorCode::InvalidTopicException).await;
    }
    create(bed, "W46 names twice", vec![topic("bad"), topic("bad")], ErrorCode::InvalidRequest).await;
    create(bed, "W46 known", vec![topic("t")], ErrorCode::TopicAlreadyExists).await;
}

async fn w46_assignments(bed: &mut Bed) {
    let bad: [&[(i32, &[i32])]; 6] =
        [&[(0, &[99])], &[(0, &[1, 1])], &[(0, &[])], &[(1, &[1])], &[(0, &[-1])], &[(0, &[1]), (0, &[1])]];
    for assignment in bad {
        let assignments = assignment.iter().map(|(partition_index, brokers)| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: brokers.to_vec(),
        });
        let bad = CreatableTopic {
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            ..topic("bad")
        };
        create(bed, "W46 assignment", vec![bad], ErrorCode::InvalidReplicaAssignment).await;
    }
    for (name, value) in bad_settings() {
        let config = CreatableTopicConfig { name, value };
        let topics = vec![CreatableTopic { configs: vec![config], ..topic("bad") }];
        create(bed, "W46 setting", topics, ErrorCode::InvalidConfig).await;
    }
}

/// Settings that no topic can have.
fn bad_settings() -> Vec<(String, Option<String>)> {
    let bad = [
        ("no.such", "1"),
        ("", "1"),
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("retention.ms", "99999999999999999999"),
        ("segment.bytes", "2147483648"),
        ("cleanup.policy", "forget"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("preallocate", "perhaps"),
    ];
    let mut bad: Vec<_> =
        bad.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
    bad.push(("retention.ms".to_owned(), Some("9".repeat(STRING_BYTES_MAX))));
    bad.push(("n".repeat(30_000), Some("1".to_owned())));
    bad.push(("retention.ms".to_owned(), None));
    bad
}

async fn w47_settings(bed: &mut Bed) {
    for (name, value) in bad_settings() {
        let expected = if value.is_none() { ErrorCode::InvalidRequest } else { ErrorCode::InvalidConfig };
        alter(bed, (TOPIC, "t"), AlterableConfig { name, value, config_operation: 0 }, expected).await;
    }
    let set = |name: &str, value: &str, config_operation| AlterableConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        config_operation,
    };
    alter(bed, (TOPIC, "nowhere"), set("retention.ms", "1", 0), ErrorCode::UnknownTopicOrPartition).await;
    alter(bed, (TOPIC, "t"), set("retention.ms", "1", 9), ErrorCode::InvalidRequest).await;
    alter(bed, (TOPIC, "t"), set("retention.ms", "1", 2), ErrorCode::InvalidConfig).await;
    alter(bed, (77, "t"), set("retention.ms", "1", 0), ErrorCode::InvalidRequest).await;
    alter(bed, (BROKER, "x"), set("message.max.bytes", "1", 0), ErrorCode::InvalidRequest).await;
    alter(bed, (BROKER, "1"), set("log.cleaner.threads", "few", 0), ErrorCode::InvalidConfig).await;
}

/// What is refused is not told again, least of all a secret.
async fn w47_sensitive(bed: &mut Bed) {
    let (name, secret) = ("ssl.truststore.password", "hidden-from-all");
    let config =
        AlterableConfig { name: name.to_owned(), value: Some(secret.to_owned()), config_operation: 0 };
    let resource =
        AlterConfigsResource { resource_type: BROKER, resource_name: "1".to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = bed.answered("W47 sensitive", 1, &request).await;
    let (code, text) = (answer.responses[0].error_code, format!("{answer:?}"));
    bed.expect("W47 sensitive", &[code], ErrorCode::InvalidConfig);
    bed.expect_that("W47 sensitive", !text.contains(secret), || text.clone());
    let resource = DescribeConfigsResource {
        resource_type: BROKER,
        resource_name: "1".to_owned(),
        configuration_keys: Some(vec![name.to_owned()]),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let answer = bed.answered("W47 sensitive", 4, &request).await;
    let mut told = answer.results.iter().flat_map(|result| &result.configs);
    let is_hidden = told.any(|config| config.name == name && config.is_sensitive && config.value.is_none());
    bed.expect_that("W47 sensitive", is_hidden, || format!("{answer:?}"));
}

async fn alter(bed: &mut Bed, (kind, name): (i8, &str), config: AlterableConfig, expected: ErrorCode) {
    let value = config.value.as_deref().unwrap_or("nothing");
    let row = format!("W47 {kind} {name} {:.20}={value:.20}", config.name);
    let resource =
        AlterConfigsResource { resource_type: kind, resource_name: name.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = bed.answered(&row, 1, &request).await;
    let codes: Vec<_> = answer.responses.iter().map(|resource| resource.error_code).collect();
    bed.expect(&row, &codes, expected);
}
