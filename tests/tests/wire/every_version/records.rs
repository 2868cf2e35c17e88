//! Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, InitProducerId, DescribeProducers, DescribeLogDirs,
//! DeleteRecords.

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{
    DeleteRecordsRequest, DescribeLogDirsRequest, DescribeProducersRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    describe_producers_request,
};
use klamm_record::{BatchBuilder, Batches, Compression, NewRecord};
use klamm_types::{ProducerEpoch, ProducerId, Timestamp};

use super::bed::{Bed, TOPIC, versions};

/// The versions of Produce and Fetch from which on topics go by their ids.
const BY_ID_SINCE: i16 = 13;
/// When the first record was made; the next ones a second after one another.
const FIRST_MS: i64 = 1_700_000_000_000;
const SECOND_MS: i64 = 1_000;

/// What the record says that was written in this version.
fn value(version: i16) -> Vec<u8> {
    format!("written in version {version}").into_bytes()
}

/// How many records [`are_written`] leaves in partition 0.
fn count() -> i64 {
    i64::try_from(versions::<ProduceRequest>().count()).unwrap()
}

fn produce(bed: &Bed, version: i16, partition: i32, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: partition, records: Some(records.into()) };
    let (name, topic_id) = named(bed, version);
    let topic = TopicProduceData { name, topic_id, partition_data: vec![partition] };
    let acks = if version % 2 == 0 { 1 } else { -1 };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], transactional_id: None }
}

/// The topic by its name, or by its id.
fn named(bed: &Bed, version: i16) -> (String, Uuid) {
    if version < BY_ID_SINCE { (TOPIC.to_owned(), Uuid::ZERO) } else { (String::new(), bed.topic_id) }
}

pub(crate) async fn are_written(bed: &mut Bed) {
    for (version, offset) in versions::<ProduceRequest>().zip(0..) {
        let mut builder = BatchBuilder::new(Compression::NONE);
        let time = Timestamp(FIRST_MS + offset * SECOND_MS);
        builder.append(&NewRecord::new(time, Some(b"k"), Some(&value(version)))).unwrap();
        let request = produce(bed, version, 0, builder.build().unwrap().into());
        let answer = bed.ask(version, &request).await;
        let topic = &answer.responses[0];
        assert_eq!((topic.name.clone(), topic.topic_id), named(bed, version));
        let partition = &topic.partition_responses[0];
        assert_eq!((partition.index, partition.error_code), (0, 0), "version {version}");
        assert_eq!((partition.base_offset, partition.log_append_time_ms), (offset, -1));
        assert_eq!(partition.log_start_offset, if version < 5 { -1 } else { 0 });
        assert!(partition.record_errors.is_empty() && partition.error_message.is_none());
    }
}

pub(crate) async fn are_read(bed: &mut Bed) {
    let written: Vec<_> = versions::<ProduceRequest>().map(value).collect();
    for version in versions::<FetchRequest>() {
        let (topic, topic_id) = named(bed, version);
        let partition = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
        let topic = FetchTopic { topic, topic_id, partitions: vec![partition] };
        let request = FetchRequest {
            max_wait_ms: 10_000,
            min_bytes: 1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        let topic = &answer.responses[0];
        assert_eq!((topic.topic.clone(), topic.topic_id), named(bed, version));
        let partition = &topic.partitions[0];
        assert_eq!((partition.partition_index, partition.error_code), (0, 0), "version {version}");
        assert_eq!((partition.high_watermark, partition.last_stable_offset), (count(), count()));
        assert_eq!(partition.log_start_offset, if version < 5 { -1 } else { 0 });
        assert_eq!(partition.preferred_read_replica, -1);
        let read = partition.records.as_ref().unwrap().as_bytes().unwrap();
        assert_eq!(values(read), written, "version {version}");
    }
}

/// The values of all records.
fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for (batch, offset) in Batches::new(bytes).zip(0..) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.base_offset().0, offset);
        let mut records = batch.records(1 << 20).unwrap();
        while let Some(record) = records.next_record().unwrap() {
            values.push(record.value.unwrap().to_vec());
        }
    }
    values
}

pub(crate) async fn are_found(bed: &mut Bed) {
    let last_ms = FIRST_MS + (count() - 1) * SECOND_MS;
    // The version from which on it may be asked for, the timestamp that stands for it, and what is found.
    let wanted = [
        (1, -2, (-1, 0)),
        (1, -1, (-1, count())),
        (1, FIRST_MS + 1, (FIRST_MS + SECOND_MS, 1)),
        (1, last_ms + 1, (-1, -1)),
        (7, -3, (last_ms, count() - 1)),
        (8, -4, (-1, 0)),
        (9, -5, (-1, -1)),
    ];
    for version in versions::<ListOffsetsRequest>() {
        for (_, timestamp, found) in wanted.iter().filter(|(since, ..)| version >= *since) {
            let partition = ListOffsetsPartition { timestamp: *timestamp, ..ListOffsetsPartition::default() };
            let topic = ListOffsetsTopic { name: TOPIC.to_owned(), partitions: vec![partition] };
            let request =
                ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
            let answer = bed.ask(version, &request).await;
            let partition = &answer.topics[0].partitions[0];
            let context = format!("{timestamp} in version {version}");
            assert_eq!((answer.topics[0].name.as_str(), partition.error_code), (TOPIC, 0), "{context}");
            assert_eq!((partition.timestamp, partition.offset), *found, "{context}");
            let has_epoch = version >= 4 && partition.offset >= 0;
            assert_eq!(partition.leader_epoch, if has_epoch { 0 } else { -1 }, "{context}");
        }
    }
    for version in versions::<OffsetForLeaderEpochRequest>() {
        let partition = OffsetForLeaderPartition { leader_epoch: 0, ..OffsetForLeaderPartition::default() };
        let topic = OffsetForLeaderTopic { topic: TOPIC.to_owned(), partitions: vec![partition] };
        let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
        let answer = bed.ask(version, &request).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_epoch), (0, 0), "version {version}");
        assert_eq!(partition.end_offset, count());
    }
}

pub(crate) async fn have_producers(bed: &mut Bed) {
    let mut ids = Vec::new();
    for version in versions::<InitProducerIdRequest>() {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let answer = bed.ask(version, &request).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0), "version {version}");
        assert!(answer.producer_id >= 0 && !ids.contains(&answer.producer_id), "{ids:?}");
        ids.push(answer.producer_id);
    }
    let id = ids[0];
    let mut builder = BatchBuilder::new(Compression::NONE).producer(ProducerId(id), ProducerEpoch(0), 0);
    builder.append(&NewRecord::new(Timestamp(FIRST_MS), None, Some(b"v"))).unwrap();
    let request = produce(bed, BY_ID_SINCE, 1, builder.build().unwrap().into());
    let answer = bed.ask(BY_ID_SINCE, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    for version in versions::<DescribeProducersRequest>() {
        let topic =
            describe_producers_request::TopicRequest { name: TOPIC.to_owned(), partition_indexes: vec![1] };
        let answer = bed.ask(version, &DescribeProducersRequest { topics: vec![topic] }).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.error_code), (1, 0));
        let producer = &partition.active_producers[0];
        assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (id, 0, 0));
        assert_eq!(producer.current_txn_start_offset, -1);
    }
}

pub(crate) async fn have_a_size(bed: &mut Bed) {
    for version in versions::<DescribeLogDirsRequest>() {
        let topic = DescribableLogDirTopic { topic: TOPIC.to_owned(), partitions: vec![0] };
        let answer = bed.ask(version, &DescribeLogDirsRequest { topics: Some(vec![topic]) }).await;
        let dir = &answer.results[0];
        assert_eq!((answer.error_code, answer.results.len(), dir.error_code), (0, 1, 0));
        assert_eq!(dir.log_dir, bed.cluster.home(1).join("data").display().to_string());
        assert_eq!((dir.total_bytes > 0, dir.usable_bytes > 0), (version >= 4, version >= 4));
        let partition = &dir.topics[0].partitions[0];
        assert_eq!((dir.topics[0].name.as_str(), partition.partition_index), (TOPIC, 0));
        let written: usize = versions::<ProduceRequest>().map(|version| value(version).len()).sum();
        assert!(partition.partition_size > i64::try_from(written).unwrap(), "version {version}");
        assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
    }
}

pub(crate) async fn are_deleted(bed: &mut Bed) {
    for (version, offset) in versions::<DeleteRecordsRequest>().zip(1..) {
        let partition = DeleteRecordsPartition { partition_index: 0, offset };
        let topic = DeleteRecordsTopic { name: TOPIC.to_owned(), partitions: vec![partition] };
        let answer =
            bed.ask(version, &DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 }).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (0, offset), "version {version}");
    }
}
