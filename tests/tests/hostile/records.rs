//! W22 to W30 and W41: requests for records that ask for what cannot be.

use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use klamm_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, ProduceResponse,
};
use klamm_protocol::{ApiKey, ApiRequest, ErrorCode, Uuid, Writer};
use tokio::time::Instant;

use crate::bed::{Bed, batch, fetch, produce};

/// The last versions that know topics by their names.
const PRODUCE: i16 = 12;
const FETCH: i16 = 12;

pub(crate) async fn send_all(bed: &mut Bed) {
    w22_topic_ids(bed).await;
    w23_partitions(bed).await;
    w24_millions(bed).await;
    w25_empty(bed).await;
    w26_acks(bed).await;
    w27_limits(bed).await;
    w28_offsets(bed).await;
    w29_epochs(bed).await;
    w30_replicas(bed).await;
    w41_compacted(bed).await;
    w28_deleted(bed).await;
    w29_former_epochs(bed).await;
}

fn produce_codes(answer: &ProduceResponse) -> Vec<i16> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|partition| partition.error_code).collect()
}

fn fetch_codes(answer: &FetchResponse) -> Vec<i16> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

async fn w22_topic_ids(bed: &mut Bed) {
    let mut unknown = bed.topic_id;
    unknown.0[15] ^= 1;
    for id in [unknown, Uuid::ZERO] {
        let mut request = produce("", 0, batch(None, b"v"));
        request.topic_data[0].topic_id = id;
        let answer = bed.answered("W22 Produce", 13, &request).await;
        bed.expect("W22 Produce", &produce_codes(&answer), ErrorCode::UnknownTopicId);
        let mut request = fetch("", 0, 0);
        request.topics[0].topic_id = id;
        let answer = bed.answered("W22 Fetch", 17, &request).await;
        bed.expect("W22 Fetch", &fetch_codes(&answer), ErrorCode::UnknownTopicId);
    }
    let topic = MetadataRequestTopic { topic_id: unknown, name: None };
    let request = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
    let answer = bed.answered("W22 Metadata", 12, &request).await;
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
    bed.expect("W22 Metadata", &codes, ErrorCode::UnknownTopicId);
}

async fn w23_partitions(bed: &mut Bed) {
    for partition in [-1, 1, i32::MAX, i32::MIN] {
        let request = produce("t", partition, batch(None, b"v"));
        let answer = bed.answered("W23 Produce", PRODUCE, &request).await;
        bed.expect("W23 Produce", &produce_codes(&answer), ErrorCode::UnknownTopicOrPartition);
        let answer = bed.answered("W23 Fetch", FETCH, &fetch("t", partition, 0)).await;
        bed.expect("W23 Fetch", &fetch_codes(&answer), ErrorCode::UnknownTopicOrPartition);
        let answer = bed.answered("W23 ListOffsets", 7, &list_offsets(&[partition], -1)).await;
        let codes: Vec<_> =
            answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        bed.expect("W23 ListOffsets", &codes, ErrorCode::UnknownTopicOrPartition);
        let answer = bed.answered("W23 OffsetForLeaderEpoch", 4, &epochs(partition, -1)).await;
        let codes: Vec<_> =
            answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        bed.expect("W23 OffsetForLeaderEpoch", &codes, ErrorCode::UnknownTopicOrPartition);
    }
    let answer = bed.answered("W23 ListOffsets twice", 7, &list_offsets(&[0, 0], -1)).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    bed.expect("W23 ListOffsets twice", &codes, ErrorCode::InvalidRequest);
    let mut twice = fetch("t", 0, 0);
    let again = twice.topics[0].partitions[0].clone();
    twice.topics[0].partitions.push(again);
    let answer = bed.answered("W23 Fetch twice", FETCH, &twice).await;
    bed.expect("W23 Fetch twice", &fetch_codes(&answer), ErrorCode::None);
}

/// Refused before they are decoded in full: a request of some megabytes must not take hundreds of them.
async fn w24_millions(bed: &mut Bed) {
    const MANY: usize = 1_000_000;
    let topic = MetadataRequestTopic { name: Some("t".to_owned()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest { topics: Some(vec![topic; MANY]), ..MetadataRequest::default() };
    bed.refused("W24 Metadata", ApiKey::Metadata, 9, &body(&request, 9)).await;
    let mut request = fetch("t", 0, 0);
    let partition = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![partition; MANY];
    bed.refused("W24 Fetch", ApiKey::Fetch, FETCH, &body(&request, FETCH)).await;
    let mut request = produce("t", 0, Bytes::new());
    let partition = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = vec![partition; MANY];
    bed.refused("W24 Produce", ApiKey::Produce, PRODUCE, &body(&request, PRODUCE)).await;
    let request = list_offsets(&vec![0; MANY], -1);
    bed.refused("W24 ListOffsets", ApiKey::ListOffsets, 7, &body(&request, 7)).await;
}

fn body<R: ApiRequest>(request: &R, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    request.encode_into(version, &mut writer).unwrap();
    writer.finish().unwrap().into_bytes().unwrap().to_vec()
}

fn list_offsets(partitions: &[i32], timestamp: i64) -> ListOffsetsRequest {
    let partition = |partition_index: &i32| ListOffsetsPartition {
        partition_index: *partition_index,
        timestamp,
        ..ListOffsetsPartition::default()
    };
    let partitions = partitions.iter().map(partition).collect();
    let topics = vec![ListOffsetsTopic { name: "t".to_owned(), partitions }];
    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }
}

fn epochs(partition: i32, current_leader_epoch: i32) -> OffsetForLeaderEpochRequest {
    let partition = OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch: 0 };
    let topics = vec![OffsetForLeaderTopic { topic: "t".to_owned(), partitions: vec![partition] }];
    OffsetForLeaderEpochRequest { replica_id: -1, topics }
}

async fn w25_empty(bed: &mut Bed) {
    let request = ProduceRequest { topic_data: Vec::new(), ..produce("t", 0, batch(None, b"v")) };
    let answer = bed.answered("W25 Produce", PRODUCE, &request).await;
    bed.expect_that("W25 Produce", answer.responses.is_empty(), || format!("{answer:?}"));
    let request = FetchRequest { topics: Vec::new(), ..fetch("t", 0, 0) };
    let answer = bed.answered("W25 Fetch", FETCH, &request).await;
    bed.expect_that("W25 Fetch", answer.responses.is_empty(), || format!("{answer:?}"));
    let mut request = fetch("t", 0, 0);
    request.topics[0].partitions.clear();
    let answer = bed.answered("W25 Fetch of a topic", FETCH, &request).await;
    bed.expect_that("W25 Fetch of a topic", fetch_codes(&answer).is_empty(), || format!("{answer:?}"));
    let answer = bed.answered("W25 ListOffsets", 7, &list_offsets(&[], -1)).await;
    bed.expect_that("W25 ListOffsets", answer.topics.iter().all(|topic| topic.partitions.is_empty()), || {
        format!("{answer:?}")
    });
}

async fn w26_acks(bed: &mut Bed) {
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let request = ProduceRequest { acks, ..produce("t", 0, batch(None, b"v")) };
        let answer = bed.answered("W26 acks", PRODUCE, &request).await;
        bed.expect("W26 acks", &produce_codes(&answer), ErrorCode::InvalidRequiredAcks);
    }
    for timeout_ms in [-1, i32::MIN, i32::MAX] {
        let request = ProduceRequest { timeout_ms, ..produce("t", 0, batch(None, b"v")) };
        let answer = bed.answered("W26 timeout", PRODUCE, &request).await;
        // Without any time, the disk may be too slow.
        let in_time = [ErrorCode::None.code(), ErrorCode::RequestTimedOut.code()];
        let allowed = if timeout_ms < 0 { &in_time[..] } else { &in_time[..1] };
        let codes = produce_codes(&answer);
        bed.expect_that("W26 timeout", codes.len() == 1 && allowed.contains(&codes[0]), || {
            format!("{codes:?}")
        });
    }
}

async fn w27_limits(bed: &mut Bed) {
    for max_bytes in [0, -1, i32::MIN, i32::MAX] {
        let mut request = FetchRequest { max_bytes, min_bytes: -1, max_wait_ms: -1, ..fetch("t", 0, 0) };
        request.topics[0].partitions[0].partition_max_bytes = max_bytes;
        let answer = bed.answered("W27 max bytes", FETCH, &request).await;
        bed.expect("W27 max bytes", &fetch_codes(&answer), ErrorCode::None);
    }
    let request = FetchRequest { min_bytes: i32::MAX, max_wait_ms: 100, ..fetch("t", 0, 0) };
    let begin = Instant::now();
    let answer = bed.answered("W27 min bytes", FETCH, &request).await;
    bed.expect("W27 min bytes", &fetch_codes(&answer), ErrorCode::None);
    let waited = begin.elapsed();
    bed.expect_that("W27 min bytes", waited >= Duration::from_millis(100), || format!("waited {waited:?}"));
    // Parked for ever, and left alone.
    let request = FetchRequest { min_bytes: i32::MAX, max_wait_ms: i32::MAX, ..fetch("t", 0, 0) };
    for _ in 0..100 {
        let mut client = bed.connect().await;
        client.send(FETCH, &request).await;
    }
    bed.assert_serves("W27 parked").await;
}

async fn w28_offsets(bed: &mut Bed) {
    for offset in [-1, -2, i64::MIN, i64::MAX, 1_000] {
        let answer = bed.answered("W28 offset", FETCH, &fetch("t", 0, offset)).await;
        bed.expect("W28 offset", &fetch_codes(&answer), ErrorCode::OffsetOutOfRange);
    }
    let sessions = [
        (12_345, 1, ErrorCode::FetchSessionIdNotFound),
        (-1, 1, ErrorCode::FetchSessionIdNotFound),
        (i32::MIN, i32::MAX, ErrorCode::FetchSessionIdNotFound),
    ];
    for (session_id, session_epoch, expected) in sessions {
        let request = FetchRequest { session_id, session_epoch, ..fetch("t", 0, 0) };
        let answer = bed.answered("W28 session", FETCH, &request).await;
        bed.expect("W28 session", &[answer.error_code], expected);
    }
    // A session of this client's own, and then an epoch that it is not at.
    let request = FetchRequest { session_id: 0, session_epoch: 0, ..fetch("t", 0, 0) };
    let mut client = bed.connect().await;
    client.send(FETCH, &request).await;
    let begun: FetchResponse = client.answer(FETCH).await;
    let request = FetchRequest { session_id: begun.session_id, session_epoch: 77, ..request };
    client.send(FETCH, &request).await;
    let answer: FetchResponse = client.answer(FETCH).await;
    bed.expect("W28 session epoch", &[answer.error_code], ErrorCode::InvalidFetchSessionEpoch);
    bed.assert_serves("W28 session epoch").await;
}

async fn w29_epochs(bed: &mut Bed) {
    let mut request = fetch("t", 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = 999;
    let answer = bed.answered("W29 Fetch", FETCH, &request).await;
    bed.expect("W29 Fetch", &fetch_codes(&answer), ErrorCode::UnknownLeaderEpoch);
    let mut request = list_offsets(&[0], -1);
    request.topics[0].partitions[0].current_leader_epoch = 999;
    let answer = bed.answered("W29 ListOffsets", 7, &request).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    bed.expect("W29 ListOffsets", &codes, ErrorCode::UnknownLeaderEpoch);
    let answer = bed.answered("W29 OffsetForLeaderEpoch", 4, &epochs(0, 999)).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    bed.expect("W29 OffsetForLeaderEpoch", &codes, ErrorCode::UnknownLeaderEpoch);
}

async fn w29_former_epochs(bed: &mut Bed) {
    // A leader that comes back leads in a new epoch.
    bed.restart().await;
    let mut request = fetch("t", 0, 1);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let answer = bed.answered("W29 former Fetch", FETCH, &request).await;
    bed.expect("W29 former Fetch", &fetch_codes(&answer), ErrorCode::FencedLeaderEpoch);
    let mut request = list_offsets(&[0], -1);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let answer = bed.answered("W29 former ListOffsets", 7, &request).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    bed.expect("W29 former ListOffsets", &codes, ErrorCode::FencedLeaderEpoch);
    let answer = bed.answered("W29 former OffsetForLeaderEpoch", 4, &epochs(0, 0)).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    bed.expect("W29 former OffsetForLeaderEpoch", &codes, ErrorCode::FencedLeaderEpoch);
}

async fn w28_deleted(bed: &mut Bed) {
    for (offset, expected) in
        [(i64::MAX, ErrorCode::OffsetOutOfRange), (-2, ErrorCode::OffsetOutOfRange), (1, ErrorCode::None)]
    {
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
        let topics = vec![DeleteRecordsTopic { name: "t".to_owned(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 10_000 };
        let answer = bed.answered("W28 DeleteRecords", 2, &request).await;
        bed.expect("W28 DeleteRecords", &[answer.topics[0].partitions[0].error_code], expected);
    }
    let answer = bed.answered("W28 deleted", FETCH, &fetch("t", 0, 0)).await;
    bed.expect("W28 deleted", &fetch_codes(&answer), ErrorCode::OffsetOutOfRange);
}

async fn w30_replicas(bed: &mut Bed) {
    let request = FetchRequest { replica_id: 1, ..fetch("t", 0, 0) };
    let answer = bed.answered("W30 Fetch", FETCH, &request).await;
    bed.expect("W30 Fetch", &[answer.error_code], ErrorCode::ClusterAuthorizationFailed);
    let mut request = fetch("", 0, 0);
    request.topics[0].topic_id = bed.topic_id;
    request.replica_state.replica_id = 1;
    let answer = bed.answered("W30 Fetch by state", 17, &request).await;
    bed.expect("W30 Fetch by state", &[answer.error_code], ErrorCode::ClusterAuthorizationFailed);
}

async fn w41_compacted(bed: &mut Bed) {
    let answer = bed.answered("W41", PRODUCE, &produce("compacted", 0, batch(None, b"v"))).await;
    bed.expect("W41", &produce_codes(&answer), ErrorCode::InvalidRecord);
    let answer =
        bed.answered("W41 with a key", PRODUCE, &produce("compacted", 0, batch(Some(b"k"), b"v"))).await;
    bed.expect("W41 with a key", &produce_codes(&answer), ErrorCode::None);
}
