use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
use klamm_protocol::messages::fetch_request::{FetchPartition, ForgottenTopic, ReplicaState};
use klamm_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch};
use klamm_protocol::{External, Payload, Uuid};
use klamm_record::Batches;
use klamm_types::Offset;

use super::*;
use crate::data_bed::{DataBed, batch, context, outcome};
use crate::data_plane::DataConfig;
use crate::fixture::topic_id;

const LATEST: i16 = 18;

/// Appends a batch with these values and waits until it is committed.
async fn append(bed: &DataBed, partition: i32, values: &[&str]) {
    let options = AppendOptions {
        acks: Acks::All,
        timeout: Duration::from_secs(10),
        leader_epoch: None,
        origin: AppendOrigin::Client,
        first_sequence: None,
    };
    bed.partition(partition).append(batch(values), &options).done().await.unwrap();
}

fn wanted(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() }
}

fn request(partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic { topic: "t".to_owned(), topic_id: topic_id(1).into(), partitions };
    FetchRequest { max_wait_ms: 0, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

async fn ask(bed: &DataBed, version: i16, request: FetchRequest) -> FetchResponse {
    let handler = FetchHandler::new(bed.plane.clone());
    in_memory(outcome(handler.handle(context::<FetchRequest>(version), request)).await)
}

/// An answer with its records read into memory.
fn in_memory(answer: Answer<FetchResponse>) -> FetchResponse {
    let (mut response, files) = match answer {
        Answer::Response(response) => return response,
        Answer::WithFiles(response, files) => (response, files),
        Answer::Nothing | Answer::Close => panic!("there is a response"),
    };
    for data in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if let Some(Records::One(Payload::External(External { token, len }))) = data.records {
            let bytes = files.get(token).unwrap().to_vec().unwrap();
            assert_eq!(bytes.len(), len);
            data.records = Some(Bytes::from(bytes).into());
        }
    }
    response
}

fn code(data: &PartitionData) -> ErrorCode {
    ErrorCode::from_code(data.error_code).unwrap()
}

fn bytes_of(data: &PartitionData) -> &[u8] {
    data.records.as_ref().unwrap().as_bytes().unwrap()
}

/// The base offsets of the whole batches in an answer.
fn offsets(data: &PartitionData) -> Vec<i64> {
    let whole = Batches::new(bytes_of(data)).map_while(Result::ok);
    whole.map(|batch| batch.base_offset().0).collect()
}

/// The answers of the first topic.
fn answers(response: &FetchResponse) -> &[PartitionData] {
    assert_eq!(response.error_code, 0);
    response.responses.first().map_or(&[], |topic| &topic.partitions)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_reads_what_was_appended() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a", "b"]).await;
    append(&bed, 0, &["c"]).await;
    for version in FetchRequest::VERSIONS.iter() {
        let response = ask(&bed, version, request(vec![wanted(0, 0)])).await;
        let topic = &response.responses[0];
        if version >= BY_ID_SINCE {
            assert_eq!((topic.topic.as_str(), topic.topic_id), ("", topic_id(1).into()));
        } else {
            assert_eq!((topic.topic.as_str(), topic.topic_id), ("t", Uuid::ZERO));
        }
        let data = &topic.partitions[0];
        assert_eq!((code(data), data.high_watermark, data.last_stable_offset), (ErrorCode::None, 3, 3));
        assert_eq!((data.log_start_offset, data.aborted_transactions.as_ref()), (0, None));
        assert_eq!(offsets(data), [0, 2], "version {version}");
        let mut writer = klamm_protocol::Writer::new();
        response.encode(version, &mut writer).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_within_a_batch_gives_the_whole_batch() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a", "b", "c"]).await;
    append(&bed, 0, &["d"]).await;
    let response = ask(&bed, LATEST, request(vec![wanted(0, 1)])).await;
    assert_eq!(offsets(&answers(&response)[0]), [0, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outside_of_the_log_are_refused() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a", "b"]).await;
    for (offset, expected) in [
        (2, ErrorCode::None),
        (3, ErrorCode::OffsetOutOfRange),
        (-1, ErrorCode::OffsetOutOfRange),
        (i64::MAX, ErrorCode::OffsetOutOfRange),
        (i64::MIN, ErrorCode::OffsetOutOfRange),
    ] {
        let response = ask(&bed, LATEST, request(vec![wanted(0, offset)])).await;
        let data = &answers(&response)[0];
        assert_eq!((code(data), bytes_of(data).len()), (expected, 0), "{offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_not_here_are_refused_one_by_one() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    let numbers = [0, 2, 3, -1, i32::MAX];
    let asked = request(numbers.iter().map(|number| wanted(*number, 0)).collect());
    let response = ask(&bed, LATEST, asked).await;
    let codes: Vec<_> = answers(&response).iter().map(code).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::None, ErrorCode::NotLeaderOrFollower, unknown, unknown, unknown]);
    assert_eq!(answers(&response)[1].current_leader, LeaderIdAndEpoch { leader_id: 2, leader_epoch: 0 });
    let nodes: Vec<_> = response.node_endpoints.iter().map(|n| (n.node_id, n.port)).collect();
    assert_eq!(nodes, [(2, 9002)]);
    let older = ask(&bed, 15, request(vec![wanted(2, 0)])).await;
    assert_eq!((older.node_endpoints.len(), answers(&older)[0].current_leader.leader_id), (0, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_topics_have_codes_of_their_own() {
    let bed = DataBed::new().await;
    let mut asked = request(vec![wanted(0, 0)]);
    asked.topics[0].topic = "nobody".to_owned();
    asked.topics[0].topic_id = Uuid([9; 16]);
    for (version, expected) in [(12, ErrorCode::UnknownTopicOrPartition), (13, ErrorCode::UnknownTopicId)] {
        let response = ask(&bed, version, asked.clone()).await;
        assert_eq!(code(&answers(&response)[0]), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_nobody_knows_does_not_end_the_wait_for_others() {
    let bed = DataBed::new().await;
    let waiting = |partitions| FetchRequest { max_wait_ms: 60_000, ..request(partitions) };
    // Nothing else to wait for.
    let alone = ask(&bed, LATEST, waiting(vec![wanted(3, 0)])).await;
    assert_eq!(code(&answers(&alone)[0]), ErrorCode::UnknownTopicOrPartition);
    let handler = FetchHandler::new(bed.plane.clone());
    let asked = waiting(vec![wanted(3, 0), wanted(0, 0)]);
    let mut answer = Box::pin(outcome(handler.handle(context::<FetchRequest>(LATEST), asked)));
    assert!((&mut answer).now_or_never().is_none(), "it waits for records");
    append(&bed, 0, &["a"]).await;
    let response = in_memory(answer.await);
    let codes: Vec<_> = answers(&response).iter().map(code).collect();
    assert_eq!(codes, [ErrorCode::UnknownTopicOrPartition, ErrorCode::None]);
    assert_eq!(offsets(&answers(&response)[1]), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_is_answered_at_once() {
    let bed = DataBed::new().await;
    let asked = FetchRequest { max_wait_ms: i32::MAX, min_bytes: i32::MAX, ..FetchRequest::default() };
    let response = ask(&bed, LATEST, asked).await;
    assert_eq!((response.error_code, response.responses.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_epochs_are_fenced() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    for (epoch, expected) in [(-1, ErrorCode::None), (0, ErrorCode::None), (1, ErrorCode::UnknownLeaderEpoch)]
    {
        let partition = FetchPartition { current_leader_epoch: epoch, ..wanted(0, 0) };
        let response = ask(&bed, LATEST, request(vec![partition])).await;
        assert_eq!(code(&answers(&response)[0]), expected, "{epoch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_another_history_is_told_where_it_parts() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    let partition = FetchPartition { last_fetched_epoch: 0, ..wanted(0, 5) };
    let response = ask(&bed, LATEST, request(vec![partition])).await;
    let data = &answers(&response)[0];
    assert_eq!(code(data), ErrorCode::None);
    assert_eq!(data.diverging_epoch, EpochEndOffset { epoch: 0, end_offset: 1 });
    assert_eq!(bytes_of(data).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_and_unknown_isolation_levels_are_refused() {
    let bed = DataBed::new().await;
    let broker = FetchRequest { replica_id: 2, ..request(vec![wanted(0, 0)]) };
    let response = ask(&bed, 14, broker.clone()).await;
    assert_eq!(response.error_code, ErrorCode::ClusterAuthorizationFailed as i16);
    let response = ask(&bed, 4, broker).await;
    assert_eq!(code(&answers(&response)[0]), ErrorCode::ClusterAuthorizationFailed);
    let replica_state = ReplicaState { replica_id: 2, replica_epoch: 1 };
    let broker = FetchRequest { replica_state, ..request(vec![wanted(0, 0)]) };
    let response = ask(&bed, LATEST, broker).await;
    assert_eq!(response.error_code, ErrorCode::ClusterAuthorizationFailed as i16);
    let other = FetchRequest { isolation_level: 2, ..request(vec![wanted(0, 0)]) };
    assert_eq!(ask(&bed, LATEST, other).await.error_code, ErrorCode::InvalidRequest as i16);
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_readers_are_told_of_aborted_transactions() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    let asked = FetchRequest { isolation_level: 1, ..request(vec![wanted(0, 0)]) };
    let response = ask(&bed, LATEST, asked).await;
    assert_eq!(answers(&response)[0].aborted_transactions, Some(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_bound_an_answer_but_for_its_first_batch() {
    let bed = DataBed::new().await;
    let value = "x".repeat(1000);
    for partition in [0, 1, 0, 1] {
        append(&bed, partition, &[&value]).await;
    }
    let count = |response: &FetchResponse| -> Vec<usize> {
        answers(response).iter().map(|data| offsets(data).len()).collect()
    };
    let both = || vec![wanted(0, 0), wanted(1, 0)];
    let whole = ask(&bed, LATEST, request(both())).await;
    assert_eq!(count(&whole), [2, 2]);
    for bytes_max in [i32::MIN, 0, 1, 1100] {
        let asked = FetchRequest { max_bytes: bytes_max, ..request(both()) };
        let response = ask(&bed, LATEST, asked).await;
        assert_eq!(count(&response), [1, 0], "{bytes_max}");
        assert_eq!(answers(&response)[1].high_watermark, 2);
    }
    let asked = FetchRequest { max_bytes: 2500, ..request(both()) };
    assert_eq!(count(&ask(&bed, LATEST, asked).await), [2, 0]);
    for partition_max in [i32::MIN, 0, 1100] {
        let small = |partition| FetchPartition { partition_max_bytes: partition_max, ..wanted(partition, 0) };
        let response = ask(&bed, LATEST, request(vec![small(0), small(1)])).await;
        let expected = if partition_max == 1100 { [1, 1] } else { [1, 0] };
        assert_eq!(count(&response), expected, "{partition_max}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_own_limit_counts_too() {
    let config = DataConfig { fetch_bytes_max: 1200, ..DataConfig::default() };
    let bed = DataBed::with_config(config).await;
    let value = "x".repeat(1000);
    for _ in 0..3 {
        append(&bed, 0, &[&value]).await;
    }
    let asked = FetchRequest { max_wait_ms: i32::MAX, min_bytes: i32::MAX, ..request(vec![wanted(0, 0)]) };
    let response = ask(&bed, LATEST, asked).await;
    assert_eq!(offsets(&answers(&response)[0]), [0]);
    assert_eq!(bytes_of(&answers(&response)[0]).len(), 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_come_whole() {
    let bed = DataBed::new().await;
    let value = "x".repeat(100_000);
    for _ in 0..5 {
        append(&bed, 0, &[&value]).await;
    }
    let response = ask(&bed, LATEST, request(vec![wanted(0, 0)])).await;
    assert_eq!(offsets(&answers(&response)[0]), [0, 1, 2, 3, 4]);
}

/// A request that waits, polled once.
fn parked(bed: &DataBed, asked: FetchRequest) -> impl Future<Output = FetchResponse> + use<> {
    let handler = FetchHandler::new(bed.plane.clone());
    let mut answer = Box::pin(handler.handle(context::<FetchRequest>(LATEST), asked).into_answer());
    assert!(answer.as_mut().now_or_never().is_none(), "it waits");
    async move {
        in_memory(tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer in time"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_records() {
    let bed = DataBed::new().await;
    let asked = FetchRequest { max_wait_ms: i32::MAX, ..request(vec![wanted(0, 0), wanted(1, 0)]) };
    let waiting = parked(&bed, asked);
    append(&bed, 1, &["a"]).await;
    let response = waiting.await;
    let count: Vec<_> = answers(&response).iter().map(|data| offsets(data).len()).collect();
    assert_eq!(count, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_as_many_bytes_as_it_wants() {
    let bed = DataBed::new().await;
    let asked = FetchRequest { max_wait_ms: i32::MAX, min_bytes: 1500, ..request(vec![wanted(0, 0)]) };
    let mut waiting = pin!(parked(&bed, asked));
    let value = "x".repeat(1000);
    append(&bed, 0, &[&value]).await;
    tokio::task::yield_now().await;
    assert!(waiting.as_mut().now_or_never().is_none(), "one is too little");
    append(&bed, 0, &[&value]).await;
    assert_eq!(offsets(&answers(&waiting.await)[0]), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_time_asked_for() {
    let bed = DataBed::new().await;
    let asked = FetchRequest { max_wait_ms: 30, ..request(vec![wanted(0, 0)]) };
    let response = ask(&bed, LATEST, asked).await;
    assert_eq!((code(&answers(&response)[0]), bytes_of(&answers(&response)[0]).len()), (ErrorCode::None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_partition_goes_away() {
    let bed = DataBed::new().await;
    let asked = FetchRequest { max_wait_ms: i32::MAX, ..request(vec![wanted(0, 0)]) };
    let waiting = parked(&bed, asked);
    bed.learn(&[klamm_metadata::MetadataRecord::TopicDeleted { id: topic_id(1) }]).await;
    let response = waiting.await;
    assert_ne!(code(&answers(&response)[0]), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_only_of_partitions_that_moved() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    let open = FetchRequest { session_epoch: 0, ..request(vec![wanted(0, 0), wanted(1, 0)]) };
    let opened = ask(&bed, LATEST, open).await;
    assert!(opened.session_id > 0);
    assert_eq!(answers(&opened).len(), 2);
    let next = |session_epoch, topics| FetchRequest {
        session_id: opened.session_id,
        session_epoch,
        min_bytes: 1,
        topics,
        ..FetchRequest::default()
    };
    let moved = request(vec![wanted(0, 1)]).topics;
    let quiet = ask(&bed, LATEST, next(1, moved)).await;
    assert_eq!((quiet.session_id, answers(&quiet).len()), (opened.session_id, 0));
    append(&bed, 1, &["b"]).await;
    let told = ask(&bed, LATEST, next(2, Vec::new())).await;
    assert_eq!(answers(&told).len(), 1);
    assert_eq!((answers(&told)[0].partition_index, offsets(&answers(&told)[0])), (1, vec![0]));
    let forgotten =
        ForgottenTopic { topic_id: topic_id(1).into(), partitions: vec![1], ..Default::default() };
    let less = FetchRequest { forgotten_topics_data: vec![forgotten], ..next(3, Vec::new()) };
    assert_eq!(answers(&ask(&bed, LATEST, less).await).len(), 0);
    let stale = ask(&bed, LATEST, next(3, Vec::new())).await;
    assert_eq!(stale.error_code, ErrorCode::InvalidFetchSessionEpoch as i16);
    let by_name = ask(&bed, 12, next(4, Vec::new())).await;
    assert_eq!(by_name.error_code, ErrorCode::FetchSessionTopicIdError as i16);
    let garbage = FetchRequest { session_id: -7, ..next(4, Vec::new()) };
    assert_eq!(ask(&bed, LATEST, garbage).await.error_code, ErrorCode::FetchSessionIdNotFound as i16);
    let closing =
        FetchRequest { session_id: opened.session_id, session_epoch: -1, ..FetchRequest::default() };
    assert_eq!(ask(&bed, LATEST, closing).await.session_id, 0);
    assert_eq!(bed.plane.sessions.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_wishes_for_a_partition_the_last_counts() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    append(&bed, 0, &["b"]).await;
    let response = ask(&bed, LATEST, request(vec![wanted(0, 0), wanted(0, 1)])).await;
    assert_eq!(answers(&response).len(), 1);
    assert_eq!(offsets(&answers(&response)[0]), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_session_ran_out_gives_nothing() {
    let bed = DataBed::new().await;
    append(&bed, 0, &["a"]).await;
    bed.lease.end();
    let response = ask(&bed, LATEST, request(vec![wanted(0, 0)])).await;
    assert_eq!(code(&answers(&response)[0]), ErrorCode::NotLeaderOrFollower);
    assert_eq!(bed.partition(0).bounds().high_watermark, Offset(1));
}
