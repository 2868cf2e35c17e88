#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use klamm_protocol::Records;
use klamm_record::{BatchBuilder, Codec, EndTxnMarker, NewRecord};
use klamm_types::{
    CoordinatorEpoch, LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicName,
};

use super::*;

fn at() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0))
}

fn batch(base: i64, count: i64, producer: Option<i64>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::Lz4.into()).base_offset(Offset(base));
    if let Some(id) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), 0).transactional();
    }
    for i in 0..count {
        builder.append(&NewRecord::new(Timestamp(base + i), None, Some(b"value"))).unwrap();
    }
    builder.build().unwrap()
}

fn marker(base: i64, producer: i64, result: TransactionResult) -> Vec<u8> {
    let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(0) };
    let mut bytes =
        marker.batch(ProducerId(producer), ProducerEpoch(0), Timestamp(0), LeaderEpoch(0)).unwrap();
    let mut batch = klamm_record::RecordBatchMut::parse(&mut bytes).unwrap();
    batch.assign(Offset(base), LeaderEpoch(0)).unwrap();
    bytes
}

fn read(bytes: Vec<u8>, from: i64, isolation: Isolation, aborted: &[(i64, i64)]) -> (Vec<i64>, i64) {
    let aborted = aborted
        .iter()
        .map(|&(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset })
        .collect();
    let partition = PartitionData {
        aborted_transactions: Some(aborted),
        records: Some(Records::from(Bytes::from(bytes))),
        ..PartitionData::default()
    };
    let options = ConsumerOptions { isolation, ..ConsumerOptions::default() };
    let mut found = Vec::new();
    let next = records(&at(), Offset(from), &partition, &options, &mut found).unwrap();
    (found.iter().map(|record| record.offset.0).collect(), next.0)
}

#[test]
fn records_before_the_position_are_skipped() {
    let bytes = [batch(10, 5, None), batch(15, 2, None)].concat();
    assert_eq!(read(bytes, 13, Isolation::ReadUncommitted, &[]), (vec![13, 14, 15, 16], 17));
}

#[test]
fn a_cut_batch_at_the_end_is_left_for_the_next_fetch() {
    let mut bytes = [batch(0, 2, None), batch(2, 2, None)].concat();
    bytes.pop();
    assert_eq!(read(bytes, 0, Isolation::ReadUncommitted, &[]), (vec![0, 1], 2));
}

#[test]
fn a_first_batch_that_is_cut_is_an_error() {
    let mut bytes = batch(0, 2, None);
    bytes.pop();
    let partition =
        PartitionData { records: Some(Records::from(Bytes::from(bytes))), ..PartitionData::default() };
    let result = records(&at(), Offset(0), &partition, &ConsumerOptions::default(), &mut Vec::new());
    assert!(matches!(result, Err(BatchError::Truncated { .. })));
}

#[test]
fn a_wrong_checksum_is_an_error() {
    let mut bytes = batch(0, 2, None);
    *bytes.last_mut().unwrap() ^= 1;
    let partition =
        PartitionData { records: Some(Records::from(Bytes::from(bytes))), ..PartitionData::default() };
    let result = records(&at(), Offset(0), &partition, &ConsumerOptions::default(), &mut Vec::new());
    assert!(matches!(result, Err(BatchError::Crc { .. })));
}

#[test]
fn aborted_records_are_seen_only_by_who_reads_uncommitted() {
    let bytes = [
        batch(0, 2, Some(7)),
        batch(2, 1, Some(8)),
        marker(3, 7, TransactionResult::Abort),
        batch(4, 1, Some(7)),
        marker(5, 8, TransactionResult::Commit),
        marker(6, 7, TransactionResult::Commit),
    ]
    .concat();
    let aborted = [(7, 0)];
    assert_eq!(read(bytes.clone(), 0, Isolation::ReadCommitted, &aborted), (vec![2, 4], 7));
    assert_eq!(read(bytes, 0, Isolation::ReadUncommitted, &aborted), (vec![0, 1, 2, 4], 7));
}
