use klamm_log::LogSlice;
use klamm_metadata::{MetadataRecord, PartitionChanged, PartitionRegistration};
use klamm_record::{BatchBuilder, Batches, Compression, TimestampType};
use klamm_types::{
    BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId, ProducerEpoch, ProducerId, Timestamp,
};

use super::*;
use crate::data_bed::{DataBed, append, batch, compressed, context, outcome, stamped, wall};
use crate::fixture::topic_id;
use crate::malformed::malformed_batches;

fn data(index: i32, records: Bytes) -> PartitionProduceData {
    PartitionProduceData { index, records: Some(records.into()) }
}

fn request(acks: i16, partitions: Vec<PartitionProduceData>) -> ProduceRequest {
    let topic = TopicProduceData { name: "t".to_owned(), partition_data: partitions, ..Default::default() };
    ProduceRequest { acks, timeout_ms: 5000, topic_data: vec![topic], transactional_id: None }
}

async fn ask(bed: &DataBed, version: i16, request: ProduceRequest) -> ProduceResponse {
    bed.ask(&ProduceHandler::new(bed.plane.clone()), version, request).await
}

/// What becomes of these records in partition 0.
async fn produce(bed: &DataBed, records: Bytes) -> PartitionProduceResponse {
    let response = ask(bed, 12, request(-1, vec![data(0, records)])).await;
    response.responses[0].partition_responses[0].clone()
}

fn code(answer: &PartitionProduceResponse) -> ErrorCode {
    ErrorCode::from_code(answer.error_code).unwrap()
}

/// The bytes of a partition's log.
fn stored(bed: &DataBed, partition: i32) -> Vec<u8> {
    use klamm_broker::partition::{ReadFrom, ReadIsolation, ReadRequest};
    let request = ReadRequest {
        offset: bed.partition(partition).bounds().log_start_offset,
        bytes_max: 1 << 20,
        isolation: ReadIsolation::ReadUncommitted,
        from: ReadFrom::Leader,
        leader_epoch: None,
        last_fetched_epoch: None,
    };
    let slice = bed.partition(partition).read(&request).unwrap().outcome.slice;
    slice.as_ref().map(LogSlice::to_vec).transpose().unwrap().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_and_acknowledged() {
    let bed = DataBed::new().await;
    for (acks, offset) in [(-1, 0), (1, 2), (-1, 4)] {
        let response = ask(&bed, 9, request(acks, vec![data(0, batch(&["a", "b"]))])).await;
        let topic = &response.responses[0];
        let answer = &topic.partition_responses[0];
        assert_eq!((topic.name.as_str(), answer.index, answer.error_code), ("t", 0, 0));
        assert_eq!((answer.base_offset, answer.log_append_time_ms, answer.log_start_offset), (offset, -1, 0));
        assert_eq!(answer.error_message, None);
    }
    assert_eq!(bed.partition(0).bounds().high_watermark, Offset(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_served() {
    let bed = DataBed::new().await;
    for version in ProduceRequest::VERSIONS.iter() {
        let mut asked = request(-1, vec![data(0, batch(&["a"]))]);
        asked.topic_data[0].topic_id = if version >= BY_ID_SINCE { topic_id(1).into() } else { Uuid::ZERO };
        let response = ask(&bed, version, asked).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{version}");
        let mut writer = klamm_protocol::Writer::new();
        response.encode(version, &mut writer).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acks_there_is_no_answer_and_a_failure_ends_the_connection() {
    let bed = DataBed::new().await;
    let handler = ProduceHandler::new(bed.plane.clone());
    let good = handler.handle(context::<ProduceRequest>(9), request(0, vec![data(0, batch(&["a"]))]));
    assert_eq!(outcome(good).await, Answer::Nothing);
    assert_eq!(bed.partition(0).bounds().log_end_offset, Offset(1));
    let bad = request(0, vec![data(1, batch(&["a"])), data(0, Bytes::from_static(b"nonsense"))]);
    assert_eq!(outcome(handler.handle(context::<ProduceRequest>(9), bad)).await, Answer::Close);
    assert_eq!(bed.partition(1).bounds().log_end_offset, Offset(1), "the good part is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_acks_are_refused_for_every_partition() {
    let bed = DataBed::new().await;
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let asked = request(acks, vec![data(0, batch(&["a"])), data(7, batch(&["a"]))]);
        let response = ask(&bed, 9, asked).await;
        for answer in &response.responses[0].partition_responses {
            assert_eq!((code(answer), answer.base_offset), (ErrorCode::InvalidRequiredAcks, -1));
        }
    }
    assert_eq!(bed.partition(0).bounds().log_end_offset, Offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_not_here_are_refused_one_by_one() {
    let bed = DataBed::new().await;
    let numbers = [0, 2, 3, -1, i32::MAX, 0];
    let asked = request(-1, numbers.iter().map(|number| data(*number, batch(&["a"]))).collect());
    let response = ask(&bed, 12, asked).await;
    let codes: Vec<_> = response.responses[0].partition_responses.iter().map(code).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let moved = ErrorCode::NotLeaderOrFollower;
    assert_eq!(codes, [ErrorCode::None, moved, unknown, unknown, unknown, ErrorCode::InvalidRequest]);
    // KIP-951: the client is told who leads, and where that is.
    let leader = LeaderIdAndEpoch { leader_id: 2, leader_epoch: 0 };
    assert_eq!(response.responses[0].partition_responses[1].current_leader, leader);
    let nodes: Vec<_> =
        response.node_endpoints.iter().map(|n| (n.node_id, n.host.as_str(), n.port)).collect();
    assert_eq!(nodes, [(2, "host2", 9002)]);
    let older = ask(&bed, 9, request(-1, vec![data(2, batch(&["a"]))])).await;
    assert_eq!(older.node_endpoints, []);
    assert_eq!(older.responses[0].partition_responses[0].current_leader, LeaderIdAndEpoch::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_named_by_name_or_by_id() {
    let bed = DataBed::new().await;
    for name in ["nobody", "", "..", "a/b", "T"] {
        let mut asked = request(-1, vec![data(0, batch(&["a"]))]);
        asked.topic_data[0].name = name.to_owned();
        let answer = ask(&bed, 12, asked).await.responses.remove(0);
        assert_eq!(answer.name, name);
        assert_eq!(code(&answer.partition_responses[0]), ErrorCode::UnknownTopicOrPartition);
    }
    let mut by_id = request(-1, vec![data(0, batch(&["a"]))]);
    for (id, expected) in [(Uuid::ZERO, ErrorCode::UnknownTopicId), (topic_id(1).into(), ErrorCode::None)] {
        by_id.topic_data[0].topic_id = id;
        let answer = ask(&bed, 13, by_id.clone()).await.responses.remove(0);
        assert_eq!((answer.topic_id, code(&answer.partition_responses[0])), (id, expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_write_to_the_clusters_own_topics() {
    let bed = DataBed::new().await;
    bed.learn(&crate::fixture::topic(2, "__consumer_offsets", &[&[1]])).await;
    let mut asked = request(-1, vec![data(0, batch(&["a"]))]);
    asked.topic_data[0].name = "__consumer_offsets".to_owned();
    let answer = ask(&bed, 12, asked).await.responses.remove(0);
    assert_eq!(code(&answer.partition_responses[0]), ErrorCode::InvalidTopicException);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_batches_are_refused_with_their_codes() {
    let bed = DataBed::new().await;
    for (name, records, expected) in malformed_batches() {
        let answer = produce(&bed, records).await;
        assert_eq!((code(&answer), answer.base_offset), (expected, -1), "{name}");
        assert!(answer.error_message.is_some(), "{name}");
    }
    assert_eq!(bed.partition(0).bounds().log_end_offset, Offset(0));
    assert_eq!(code(&produce(&bed, batch(&["a"])).await), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn null_records_are_refused() {
    let bed = DataBed::new().await;
    let asked = request(-1, vec![PartitionProduceData { index: 0, records: None }]);
    let response = ask(&bed, 12, asked).await;
    assert_eq!(code(&response.responses[0].partition_responses[0]), ErrorCode::InvalidRecord);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_at_fault_is_named() {
    let bed = DataBed::new().await;
    bed.set("cleanup.policy", "compact").await;
    let mut builder = BatchBuilder::new(Compression::NONE);
    append(&mut builder, wall(), &["with key"]);
    let keyless = klamm_record::NewRecord::new(wall(), None, Some(b"v"));
    builder.append(&keyless).unwrap();
    let answer = produce(&bed, builder.build().unwrap().into()).await;
    assert_eq!(code(&answer), ErrorCode::InvalidRecord);
    assert_eq!(answer.record_errors.len(), 1);
    assert_eq!(answer.record_errors[0].batch_index, 1);
    assert!(answer.error_message.unwrap().contains("compacted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_settings_bound_what_is_taken() {
    let bed = DataBed::new().await;
    bed.set("max.message.bytes", "200").await;
    let large = "x".repeat(300);
    assert_eq!(code(&produce(&bed, batch(&[&large])).await), ErrorCode::MessageTooLarge);
    bed.set("message.timestamp.before.max.ms", "1000").await;
    let old = stamped(wall().plus_millis(-60_000), &["a"]);
    assert_eq!(code(&produce(&bed, old).await), ErrorCode::InvalidTimestamp);
    bed.set("message.timestamp.type", "LogAppendTime").await;
    let before = wall();
    let answer = produce(&bed, stamped(Timestamp(1000), &["a", "b"])).await;
    assert_eq!(code(&answer), ErrorCode::None);
    assert!(answer.log_append_time_ms >= before.0, "{}", answer.log_append_time_ms);
    let stored = stored(&bed, 0);
    let batch = Batches::new(&stored).next().unwrap().unwrap();
    assert_eq!(batch.attributes().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.max_timestamp().0, answer.log_append_time_ms);
    batch.verify_crc().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_is_taken_and_the_topics_own_is_kept() {
    let bed = DataBed::new().await;
    let long = "the same again and again ".repeat(4000);
    let last_codec = |bed: &DataBed| {
        let stored = stored(bed, 0);
        let batches: Vec<_> = Batches::new(&stored).map(Result::unwrap).collect();
        batches.last().unwrap().attributes().compression().unwrap()
    };
    for codec in Codec::ALL {
        for values in [&["short"][..], &[long.as_str(); 9]] {
            assert_eq!(code(&produce(&bed, compressed(codec, values)).await), ErrorCode::None, "{codec:?}");
            assert_eq!(last_codec(&bed), codec);
        }
    }
    bed.set("compression.type", "zstd").await;
    for codec in Codec::ALL {
        let answer = produce(&bed, compressed(codec, &[long.as_str()])).await;
        assert_eq!((code(&answer), last_codec(&bed)), (ErrorCode::None, Codec::Zstd));
    }
    bed.set("compression.type", "uncompressed").await;
    assert_eq!(code(&produce(&bed, compressed(Codec::Lz4, &["a"])).await), ErrorCode::None);
    assert_eq!(last_codec(&bed), Codec::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_does_not_keep_the_connection_busy() {
    let bed = DataBed::new().await;
    let handler = ProduceHandler::new(bed.plane.clone());
    let goes_aside = async |records: Bytes| {
        let ticket = handler.handle(context::<ProduceRequest>(9), request(-1, vec![data(0, records)]));
        let aside = ticket.waits_for_order();
        outcome(ticket).await;
        aside
    };
    let long = "again and again ".repeat(5_000);
    assert!(!goes_aside(batch(&[&long])).await, "a large batch is only written");
    assert!(!goes_aside(compressed(Codec::Zstd, &["short"])).await);
    let noise: String =
        (0..40_000_u32).map(|i| char::from(33 + (i.wrapping_mul(i ^ 0x9e37) >> 7) as u8 % 90)).collect();
    assert!(goes_aside(compressed(Codec::Lz4, &[&noise])).await, "it must be decompressed");
    let resource = klamm_metadata::ConfigResource::BrokerDefault;
    bed.learn(&[crate::fixture::setting(resource, "compression.type", "gzip")]).await;
    assert!(goes_aside(batch(&[&long])).await, "all topics of the broker are compressed");
    assert!(!goes_aside(batch(&["short"])).await);
    bed.set("compression.type", "uncompressed").await;
    assert!(!goes_aside(batch(&[&long])).await, "but for this one");
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_refused_from_clients_that_cannot_read_it() {
    let bed = DataBed::new().await;
    for (version, expected) in [(6, ErrorCode::UnsupportedCompressionType), (7, ErrorCode::None)] {
        let asked = request(-1, vec![data(0, compressed(Codec::Zstd, &["a"]))]);
        let response = ask(&bed, version, asked).await;
        assert_eq!(code(&response.responses[0].partition_responses[0]), expected);
    }
}

fn sequenced(epoch: i16, sequence: i32, is_transactional: bool) -> Bytes {
    let builder = BatchBuilder::new(Compression::NONE);
    let mut builder = builder.producer(ProducerId(4000), ProducerEpoch(epoch), sequence);
    if is_transactional {
        builder = builder.transactional();
    }
    append(&mut builder, wall(), &["a", "b"]);
    builder.build().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_appends_each_batch_once() {
    let bed = DataBed::new().await;
    let answers = [(1, 0), (1, 2), (1, 0), (1, 2)];
    for ((epoch, sequence), offset) in answers.into_iter().zip([0, 2, 0, 2]) {
        let answer = produce(&bed, sequenced(epoch, sequence, false)).await;
        assert_eq!((code(&answer), answer.base_offset), (ErrorCode::None, offset));
    }
    assert_eq!(bed.partition(0).bounds().log_end_offset, Offset(4));
    let gap = produce(&bed, sequenced(1, 9, false)).await;
    assert_eq!(code(&gap), ErrorCode::OutOfOrderSequenceNumber);
    // Ten records later the first batch is not remembered, but that nothing is missing.
    for sequence in [4, 6, 8, 10, 12] {
        assert_eq!(code(&produce(&bed, sequenced(1, sequence, false)).await), ErrorCode::None);
    }
    let known = produce(&bed, sequenced(1, 4, false)).await;
    assert_eq!((code(&known), known.base_offset), (ErrorCode::None, 4));
    let forgotten = produce(&bed, sequenced(1, 2, false)).await;
    assert_eq!((code(&forgotten), forgotten.base_offset), (ErrorCode::DuplicateSequenceNumber, -1));
    let fenced = produce(&bed, sequenced(0, 4, false)).await;
    assert_eq!(code(&fenced), ErrorCode::InvalidProducerEpoch);
    // A newer epoch begins at 0.
    let last = produce(&bed, sequenced(2, 0, false)).await;
    assert_eq!(code(&last), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_cannot_be_open() {
    let bed = DataBed::new().await;
    let answer = produce(&bed, sequenced(0, 0, true)).await;
    assert_eq!(code(&answer), ErrorCode::InvalidTxnState);
    assert_eq!(bed.partition(0).bounds().log_end_offset, Offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_session_ran_out_takes_nothing() {
    let bed = DataBed::new().await;
    bed.lease.end();
    let answer = produce(&bed, batch(&["a"])).await;
    assert_eq!(code(&answer), ErrorCode::NotLeaderOrFollower);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_names_the_new_one() {
    let bed = DataBed::new().await;
    bed.learn(&crate::fixture::topic(2, "u", &[&[1, 2]])).await;
    let image = bed.plane.image();
    let old = image.topics.partition(topic_id(2), PartitionId(0)).unwrap();
    let new = PartitionRegistration {
        leader: Some(BrokerId(2)),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        ..PartitionRegistration::clone(old)
    };
    let change = PartitionChanged::between(topic_id(2), PartitionId(0), old, &new);
    bed.learn(&[MetadataRecord::PartitionChanged(change)]).await;
    let mut asked = request(-1, vec![data(0, batch(&["a"]))]);
    asked.topic_data[0].name = "u".to_owned();
    let answer = ask(&bed, 10, asked).await.responses[0].partition_responses[0].clone();
    assert_eq!(code(&answer), ErrorCode::NotLeaderOrFollower);
    assert_eq!(answer.current_leader, LeaderIdAndEpoch { leader_id: 2, leader_epoch: 1 });
}

fn named(name: &str, records: Bytes) -> ProduceRequest {
    let mut asked = request(-1, vec![data(0, records)]);
    asked.topic_data[0].name = name.to_owned();
    asked
}

fn identified(topic: u8, records: Bytes) -> ProduceRequest {
    let mut asked = request(-1, vec![data(0, records)]);
    asked.topic_data[0].topic_id = topic_id(topic).into();
    asked
}

/// The codes that batches from sequences 0, 2 and 4 get, when the first is refused with `refusal` before
/// `remedy`, and the others come before it is sent again.
async fn overtaken<F: Future<Output = ()>>(
    bed: &DataBed,
    version: i16,
    asked: impl Fn(Bytes) -> ProduceRequest,
    remedy: impl FnOnce() -> F,
) -> Vec<ErrorCode> {
    let first = async |sequence| {
        let response = ask(bed, version, asked(sequenced(0, sequence, false))).await;
        code(&response.responses[0].partition_responses[0])
    };
    let mut codes = vec![first(0).await];
    remedy().await;
    for sequence in [2, 4, 0, 2, 4] {
        codes.push(first(sequence).await);
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_does_not_overtake_one_that_was_refused_for_now() {
    use ErrorCode::{NotEnoughReplicas, NotLeaderOrFollower, UnknownTopicId, UnknownTopicOrPartition};
    let expected = |refusal| {
        let late = NotEnoughReplicas;
        vec![refusal, late, late, ErrorCode::None, ErrorCode::None, ErrorCode::None]
    };
    let bed = DataBed::new().await;
    let until = bed.lease.until();
    bed.lease.end();
    let extend = async || bed.lease.extend(until);
    let codes = overtaken(&bed, 12, |records| named("t", records), extend).await;
    assert_eq!(codes, expected(NotLeaderOrFollower), "no session with the controller");

    let appear = async || bed.learn(&crate::fixture::topic(2, "u", &[&[1]])).await;
    let codes = overtaken(&bed, 12, |records| named("u", records), appear).await;
    assert_eq!(codes, expected(UnknownTopicOrPartition), "a topic that is not known yet");

    let appear = async || bed.learn(&crate::fixture::topic(3, "v", &[&[1]])).await;
    let codes = overtaken(&bed, 13, |records| identified(3, records), appear).await;
    assert_eq!(codes, expected(UnknownTopicId), "an id that is not known yet");

    bed.learn(&crate::fixture::topic(4, "w", &[&[2]])).await;
    let arrive = async || {
        let image = bed.plane.image();
        let old = image.topics.partition(topic_id(4), PartitionId(0)).unwrap();
        let here = crate::fixture::topic(4, "w", &[&[1]]);
        let MetadataRecord::PartitionCreated { registration, .. } = &here[1] else { panic!("a partition") };
        let new = PartitionRegistration {
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            ..registration.clone()
        };
        let change = PartitionChanged::between(topic_id(4), PartitionId(0), old, &new);
        bed.learn(&[MetadataRecord::PartitionChanged(change)]).await;
    };
    let codes = overtaken(&bed, 12, |records| named("w", records), arrive).await;
    assert_eq!(codes, expected(NotLeaderOrFollower), "another broker led");
    assert!(bed.plane.refused.is_empty(), "what came again is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_while_a_larger_one_before_it_is_divided() {
    let bed = DataBed::new().await;
    bed.set("max.message.bytes", "100").await;
    let large = "x".repeat(100);
    let builder = BatchBuilder::new(Compression::NONE);
    let mut builder = builder.producer(ProducerId(4000), ProducerEpoch(0), 0);
    append(&mut builder, wall(), &[&large, "b"]);
    let answer = produce(&bed, builder.build().unwrap().into()).await;
    assert_eq!(code(&answer), ErrorCode::MessageTooLarge);
    let answer = produce(&bed, sequenced(0, 2, false)).await;
    assert_eq!(code(&answer), ErrorCode::NotEnoughReplicas);
    let told = "producer 4000 sent sequence 2, expected 0, which may be on its way";
    assert_eq!(answer.error_message.as_deref(), Some(told));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_not_known_begins_with_any_sequence() {
    let bed = DataBed::new().await;
    // Its state may have expired (KIP-360).
    assert_eq!(code(&produce(&bed, sequenced(0, 40, false)).await), ErrorCode::None);
    // Another producer's refusal, or one for good, is nothing to it.
    bed.learn(&crate::fixture::topic(2, "u", &[&[1]])).await;
    let ask = async |records| {
        let response = ask(&bed, 12, named("u", records)).await;
        code(&response.responses[0].partition_responses[0])
    };
    assert_eq!(ask(sequenced(0, 2, true)).await, ErrorCode::InvalidTxnState);
    assert_eq!(ask(sequenced(0, 4, false)).await, ErrorCode::None);
    // A topic of the same name is another one, where what its namesake refused does not matter.
    let until = bed.lease.until();
    bed.lease.end();
    assert_eq!(ask(sequenced(0, 6, false)).await, ErrorCode::NotLeaderOrFollower);
    bed.lease.extend(until);
    bed.learn(&[MetadataRecord::TopicDeleted { id: topic_id(2) }]).await;
    bed.learn(&crate::fixture::topic(3, "u", &[&[1]])).await;
    assert_eq!(ask(sequenced(0, 8, false)).await, ErrorCode::None);
}
