use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use klamm_metadata::{ConfigResource, supported_features};
use klamm_pb::controller::v1 as pb;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ApiMessage, ApiRequest, Budget, Reader, Uuid, Writer, decode_response_header};
use klamm_types::ProducerId;

use super::*;
use crate::data_bed::DataBed;
use crate::fixture::{context_of, setting};
use crate::protocol_page;
use crate::table::BoxFuture;
use crate::{GatewayError, ProducerIdSource, RequestContext};

#[derive(Debug)]
struct NoProducerIds;

impl ProducerIdSource for NoProducerIds {
    fn next(self: Arc<Self>) -> BoxFuture<Option<ProducerId>> {
        Box::pin(async { None })
    }
}

/// The whole table, on a broker with topic `t`.
struct Whole {
    bed: DataBed,
    table: ApiTable,
}

impl Whole {
    async fn new() -> Self {
        let bed = DataBed::new().await;
        let parts = ApiParts {
            cluster: bed.bed.cluster(),
            log_levels: bed.bed.loggers(),
            supported_features: supported_features(),
            data: DataParts { plane: bed.plane.clone(), producer_ids: Arc::new(NoProducerIds) },
        };
        Self { table: api_table(parts).unwrap(), bed }
    }

    /// Sends the request in every version that is served, with whatever of it the version can carry, and reads the
    /// answers back.
    async fn sweep<R: ApiRequest>(
        &self,
        request: impl Fn(i16) -> R,
        mut check: impl FnMut(i16, R::Response),
    ) {
        let key = R::KEY;
        let versions = self.table.row(key).unwrap().versions;
        for version in versions.min()..=versions.max() {
            let context = RequestContext { correlation_id: 7, ..context_of::<R>(version) };
            let body = encoded(version, &request(version));
            let reader = Reader::shared(&body, Budget::for_request(body.len()));
            let dispatched = self.table.call(context, reader).unwrap();
            let sealed = dispatched.answer.await;
            let answer = sealed.unwrap_or_else(|error| panic!("{key} version {version}: {error}"));
            let frame = answer.expect("every request here has an answer").encoded.into_bytes().unwrap();
            let mut reader = Reader::new(&frame[4..], Budget::for_response(frame.len()));
            assert_eq!(decode_response_header(key, version, &mut reader).unwrap(), 7);
            check(version, R::Response::decode_whole(version, reader).unwrap());
        }
    }

    fn reply(&self, outcome: Outcome) {
        self.bed.bed.reply(Ok(outcome));
    }
}

fn encoded<M: ApiMessage>(version: i16, message: &M) -> Bytes {
    let mut writer = Writer::new();
    message.encode_into(version, &mut writer).unwrap();
    writer.finish().unwrap().into_bytes().unwrap()
}

#[tokio::test]
async fn topics_are_described_in_every_version() {
    let whole = Whole::new().await;
    let topic = |name: Option<&str>, id: Uuid| metadata_request::MetadataRequestTopic {
        name: name.map(str::to_owned),
        topic_id: id,
    };
    let request = |version: i16| MetadataRequest {
        topics: Some(vec![topic(Some("t"), Uuid::ZERO), topic(Some("none"), Uuid::ZERO)]),
        allow_auto_topic_creation: version < 4,
        include_cluster_authorized_operations: (8..=10).contains(&version),
        include_topic_authorized_operations: version >= 8,
    };
    for _ in 0..4 {
        whole.bed.bed.reply(Err(GatewayError::TimedOut));
    }
    whole
        .sweep(request, |version, response: MetadataResponse| {
            let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!((codes, response.brokers.len()), (vec![0, 3], 3), "version {version}");
            assert_eq!(response.topics[0].partitions.len(), 3);
        })
        .await;
    let all = |version: i16| MetadataRequest {
        topics: (version == 0).then(Vec::new),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    whole.sweep(all, |_, response: MetadataResponse| assert_eq!(response.topics.len(), 1)).await;

    let request = |_| DescribeTopicPartitionsRequest::default();
    let check = |_, response: DescribeTopicPartitionsResponse| assert_eq!(response.topics.len(), 1);
    whole.sweep(request, check).await;
    let request = |_| DescribeClusterRequest::default();
    whole.sweep(request, |_, response: DescribeClusterResponse| assert_eq!(response.brokers.len(), 3)).await;
}

#[tokio::test]
async fn librdkafka_may_leave_three_bytes_behind_a_request_for_all_topics() {
    let whole = Whole::new().await;
    let context = || context_of::<MetadataRequest>(13);
    let ask = |body: &'static [u8]| {
        let body = Bytes::from_static(body);
        whole.table.call(context(), Reader::shared(&body, Budget::for_request(body.len())))
    };
    let answer = ask(&[0, 0, 0, 0, 1, 0, 0]).unwrap().answer.await.unwrap().unwrap();
    let frame = answer.encoded.into_bytes().unwrap();
    let mut reader = Reader::new(&frame[4..], Budget::for_response(frame.len()));
    decode_response_header(ApiKey::Metadata, 13, &mut reader).unwrap();
    assert_eq!(MetadataResponse::decode_whole(13, reader).unwrap().topics.len(), 1);
    assert!(ask(&[0, 0, 0, 0, 1, 0, 0, 0]).is_err());
}

#[tokio::test]
async fn topics_are_changed_in_every_version() {
    let whole = Whole::new().await;
    for _ in CreateTopicsRequest::VERSIONS.min()..=CreateTopicsRequest::VERSIONS.max() {
        let created = pb::CreatedTopic { topic_id: vec![3; 16].into(), ..pb::CreatedTopic::default() };
        whole.reply(Outcome::CreateTopics(pb::CreateTopicsOutcome { topics: vec![created] }));
    }
    let request = |_| CreateTopicsRequest {
        topics: vec![create_topics_request::CreatableTopic {
            name: "new".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..create_topics_request::CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let check = |version, response: CreateTopicsResponse| {
        let configs = response.topics[0].configs.as_ref().map_or(0, Vec::len);
        assert_eq!((response.topics[0].error_code, configs > 0), (0, version >= 5));
    };
    whole.sweep(request, check).await;

    for _ in CreatePartitionsRequest::VERSIONS.min()..=CreatePartitionsRequest::VERSIONS.max() {
        let topics = vec![pb::TopicOutcome::default()];
        whole.reply(Outcome::CreatePartitions(pb::CreatePartitionsOutcome { topics }));
    }
    let topic = create_partitions_request::CreatePartitionsTopic {
        name: "t".to_owned(),
        count: 9,
        assignments: None,
    };
    let request =
        |_| CreatePartitionsRequest { topics: vec![topic.clone()], ..CreatePartitionsRequest::default() };
    let check = |_, response: CreatePartitionsResponse| assert_eq!(response.results[0].error_code, 0);
    whole.sweep(request, check).await;

    for _ in DeleteTopicsRequest::VERSIONS.min()..=DeleteTopicsRequest::VERSIONS.max() {
        let topics = vec![pb::DeletedTopic { name: "t".to_owned(), ..pb::DeletedTopic::default() }];
        whole.reply(Outcome::DeleteTopics(pb::DeleteTopicsOutcome { topics }));
    }
    let request = |version| {
        let named =
            delete_topics_request::DeleteTopicState { name: Some("t".to_owned()), topic_id: Uuid::ZERO };
        let (topics, topic_names) =
            if version >= 6 { (vec![named], Vec::new()) } else { (Vec::new(), vec!["t".to_owned()]) };
        DeleteTopicsRequest { topics, topic_names, timeout_ms: 1_000 }
    };
    let check =
        |_, response: DeleteTopicsResponse| assert_eq!(response.responses[0].name.as_deref(), Some("t"));
    whole.sweep(request, check).await;
}

#[tokio::test]
async fn settings_are_told_and_changed_in_every_version() {
    let whole = Whole::new().await;
    whole.bed.bed.learn(&[setting(ConfigResource::BrokerDefault, "log.retention.ms", "5000")]);
    for (kind, name) in [(2, "t"), (4, "1"), (4, ""), (8, "1"), (16, "m"), (32, "g"), (2, "none"), (9, "")] {
        let request = |version| DescribeConfigsRequest {
            resources: vec![describe_configs_request::DescribeConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configuration_keys: None,
            }],
            include_synonyms: true,
            include_documentation: version >= 3,
        };
        let check =
            |_, response: DescribeConfigsResponse| assert_eq!(response.results[0].resource_type, kind);
        whole.sweep(request, check).await;
    }
    let altered =
        || Outcome::AlterConfigs(pb::AlterConfigsOutcome { resources: vec![pb::AlteredResource::default()] });
    for _ in 0..5 {
        whole.reply(altered());
    }
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".to_owned(),
        configs: Vec::new(),
    };
    let request = |_| AlterConfigsRequest { resources: vec![resource.clone()], validate_only: false };
    whole
        .sweep(request, |_, response: AlterConfigsResponse| assert_eq!(response.responses[0].error_code, 0))
        .await;
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".to_owned(),
        configs: Vec::new(),
    };
    let request =
        |_| IncrementalAlterConfigsRequest { resources: vec![resource.clone()], validate_only: false };
    let check =
        |_, response: IncrementalAlterConfigsResponse| assert_eq!(response.responses[0].error_code, 0);
    whole.sweep(request, check).await;
    let request = |_| ListConfigResourcesRequest::default();
    let check = |version, response: ListConfigResourcesResponse| {
        assert_eq!((response.error_code, response.config_resources.is_empty()), (0, version == 0));
    };
    whole.sweep(request, check).await;
}

#[tokio::test]
async fn the_cluster_is_administered_in_every_version() {
    let whole = Whole::new().await;
    for _ in 0..3 {
        let partition = Some(pb::PartitionReference { topic: "t".to_owned(), partition_id: 0 });
        let partitions = vec![pb::PartitionOutcome { partition, refusal: None }];
        whole.reply(Outcome::ElectLeaders(pb::ElectLeadersOutcome { partitions }));
    }
    let wanted = elect_leaders_request::TopicPartitions { topic: "t".to_owned(), partitions: vec![0] };
    let request = |_| ElectLeadersRequest {
        topic_partitions: Some(vec![wanted.clone()]),
        ..ElectLeadersRequest::default()
    };
    let check = |_, response: ElectLeadersResponse| assert_eq!(response.replica_election_results.len(), 1);
    whole.sweep(request, check).await;

    let request = |version| AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: version < 1,
        ..AlterPartitionReassignmentsRequest::default()
    };
    let check = |_, response: AlterPartitionReassignmentsResponse| assert_eq!(response.error_code, 0);
    whole.sweep(request, check).await;
    let request = |_| ListPartitionReassignmentsRequest::default();
    let check = |_, response: ListPartitionReassignmentsResponse| assert!(response.topics.is_empty());
    whole.sweep(request, check).await;

    for _ in 0..3 {
        whole.reply(Outcome::UpdateFeatures(pb::UpdateFeaturesOutcome::default()));
    }
    let request = |_| UpdateFeaturesRequest::default();
    whole.sweep(request, |_, response: UpdateFeaturesResponse| assert_eq!(response.error_code, 0)).await;
    whole.reply(Outcome::UnregisterBroker(pb::UnregisterBrokerOutcome::default()));
    let request = |_| UnregisterBrokerRequest { broker_id: 2 };
    whole.sweep(request, |_, response: UnregisterBrokerResponse| assert_eq!(response.error_code, 0)).await;

    let request = |_| AddRaftVoterRequest { ack_when_committed: true, ..AddRaftVoterRequest::default() };
    let code = |response: AddRaftVoterResponse| response.error_code;
    whole.sweep(request, |_, response| assert_eq!(code(response), 104)).await;
    let request = |_| RemoveRaftVoterRequest::default();
    whole.sweep(request, |_, response: RemoveRaftVoterResponse| assert_eq!(response.error_code, 104)).await;

    let topic = describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".to_owned(),
        partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
    };
    let request = |_| DescribeQuorumRequest { topics: vec![topic.clone()] };
    whole.sweep(request, |_, response: DescribeQuorumResponse| assert_eq!(response.error_code, 7)).await;
    let request = |version| {
        let (key, coordinator_keys) =
            if version < 4 { ("g".to_owned(), Vec::new()) } else { (String::new(), vec!["g".to_owned()]) };
        FindCoordinatorRequest { key, key_type: 0, coordinator_keys }
    };
    let check = |version, response: FindCoordinatorResponse| {
        let code = if version < 4 { response.error_code } else { response.coordinators[0].error_code };
        assert_eq!(code, 15);
    };
    whole.sweep(request, check).await;
    let request = |_| ListGroupsRequest::default();
    whole.sweep(request, |_, response: ListGroupsResponse| assert!(response.groups.is_empty())).await;
    let request = |version| ApiVersionsRequest {
        client_software_name: if version < 3 { String::new() } else { "test".to_owned() },
        client_software_version: if version < 3 { String::new() } else { "1".to_owned() },
    };
    let rows = whole.table.rows().count();
    whole.sweep(request, |_, response: ApiVersionsResponse| assert_eq!(response.api_keys.len(), rows)).await;
}

#[tokio::test]
async fn the_table_is_written_down() {
    let whole = Whole::new().await;
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    for row in whole.table.rows() {
        let file = crate_dir.join("src/handlers").join(protocol_page::file(row.key));
        assert!(file.is_file(), "{} does not exist", file.display());
    }
    let record = fs::read_to_string(crate_dir.join("../../tests/requests.txt")).unwrap();
    let expected = protocol_page::page(&whole.table, &record);
    let found = fs::read_to_string(crate_dir.join("../../docs/protocol.md")).unwrap_or_default();
    if found != expected {
        let copy = std::env::temp_dir().join("klamm-protocol.md");
        fs::write(&copy, &expected).unwrap();
        panic!("docs/protocol.md differs from the facts; what it should be is in {}", copy.display());
    }
}

/// The sources of the fuzz targets of all requests that are served, by file name.
fn fuzz_targets(table: &ApiTable) -> BTreeMap<String, String> {
    let source = |key: ApiKey| {
        format!(
            "//! The decoder of {key} requests.\n#![no_main]\n\nklamm_fuzz::request_target!({key}Request);\n"
        )
    };
    table.rows().map(|row| (format!("request_{}", protocol_page::file(row.key)), source(row.key))).collect()
}

#[tokio::test]
async fn every_request_that_is_served_has_a_fuzz_target() {
    let expected = fuzz_targets(&Whole::new().await.table);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(fuzz.join("src/bin")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.insert(name, fs::read_to_string(&path).unwrap());
    }
    if found != expected {
        let copies = std::env::temp_dir().join("klamm-fuzz-targets");
        fs::create_dir_all(&copies).unwrap();
        for (name, source) in &expected {
            fs::write(copies.join(name), source).unwrap();
        }
        panic!("tests/fuzz/src/bin differs from the table; what should be there is in {}", copies.display());
    }
    for name in expected.keys() {
        let seeds = fuzz.join("corpus").join(name.trim_end_matches(".rs"));
        let is_seeded = fs::read_dir(&seeds).is_ok_and(|mut entries| entries.next().is_some());
        assert!(is_seeded, "no seeds in {}; see tests/fuzz/README.md", seeds.display());
    }
}
