//! The log through its public face, on the in-memory file system.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use klamm_log::fs::{LogFs, MemoryFs};
use klamm_log::{
    AppendError, AppendOrigin, FetchIsolation, FileCache, FlushPoint, Log, LogConfig, LogDir, LogError,
    OpenOptions, ProducerError, ProducerLimits, ReadError, RecoveryReport,
};
use klamm_record::{
    BatchBuilder, Batches, Codec, Compression, EndTxnMarker, NewRecord, RecordBatch, TimestampType,
    TransactionResult,
};
use klamm_types::{
    CoordinatorEpoch, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId,
    TopicName, TopicPartition,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

struct Disk {
    fs: MemoryFs,
    config: LogConfig,
}

impl Disk {
    fn new(config: LogConfig) -> Self {
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new("/data")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        Self { fs, config }
    }

    fn open(&self) -> (Arc<Log>, RecoveryReport) {
        let dir = LogDir::new(Arc::new(self.fs.clone()), Path::new("/data"), FileCache::new(100));
        let points = dir.load_recovery_points().unwrap();
        let partition = TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(3));
        let flush_point = FlushPoint::Known(points.0.get(&partition).copied().unwrap_or(Offset::ZERO));
        Log::open(OpenOptions {
            log_dir: dir,
            partition,
            topic_id: Some(TopicId([7; 16])),
            config: Arc::new(self.config.clone()),
            producers: ProducerLimits::default(),
            flush_point,
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            now: NOW,
        })
        .unwrap()
    }
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn batch(records: &[&str]) -> BatchBuilder {
    batch_with(Compression::NONE, records)
}

fn batch_with(compression: Compression, records: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression);
    for (i, value) in records.iter().enumerate() {
        let time = NOW.plus_millis(i as i64);
        builder.append(&NewRecord::new(time, Some(b"key"), Some(value.as_bytes()))).unwrap();
    }
    builder
}

fn append(log: &Log, builder: BatchBuilder) -> Result<klamm_log::AppendInfo, AppendError> {
    let bytes = builder.build().unwrap();
    log.append_as_leader(&bytes, LeaderEpoch(1), AppendOrigin::Client, NOW)
}

/// All values from `offset` on, with their offsets.
fn values(log: &Log, offset: i64) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let mut next = Offset(offset);
    loop {
        let outcome = log.read(next, 1, FetchIsolation::LogEnd).unwrap();
        let Some(slice) = outcome.slice else { return found };
        let bytes = slice.to_vec().unwrap();
        for batch in Batches::new(&bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let mut records = batch.records(1 << 20).unwrap();
            while let Some(record) = records.next_record().unwrap() {
                if record.offset >= next {
                    let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
                    found.push((record.offset.0, value));
                }
            }
            next = batch.next_offset();
        }
    }
}

fn owned(pairs: &[(i64, &str)]) -> Vec<(i64, String)> {
    pairs.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[test]
fn a_record_in_is_a_record_out_after_a_restart() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    let info = append(&log, batch(&["a", "b"])).unwrap();
    assert_eq!((info.first_offset, info.last_offset), (Offset(0), Offset(1)));
    append(&log, batch(&["c"])).unwrap();
    assert_eq!(log.flushed_end_offset(), Offset(0));
    assert_eq!(log.flush().unwrap(), Offset(3));
    assert_eq!(log.flushed_end_offset(), Offset(3));
    let expected = owned(&[(0, "a"), (1, "b"), (2, "c")]);
    assert_eq!(values(&log, 0), expected);
    assert_eq!(values(&log, 1), expected[1..]);
    drop(log);
    let (log, report) = disk.open();
    assert_eq!(values(&log, 0), expected);
    assert_eq!((log.log_end_offset(), report.truncated_bytes), (Offset(3), 0));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
}

#[test]
fn every_codec_is_read_back_and_a_topic_codec_replaces_the_clients() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let config = LogConfig { compression_type: Some(codec), ..LogConfig::default() };
        let (log, _) = Disk::new(config).open();
        append(&log, batch_with(Codec::Gzip.into(), &["a", "b"])).unwrap();
        append(&log, batch(&["c"])).unwrap();
        assert_eq!(values(&log, 0), owned(&[(0, "a"), (1, "b"), (2, "c")]));
        let bytes =
            log.read(Offset(0), 1 << 20, FetchIsolation::LogEnd).unwrap().slice.unwrap().to_vec().unwrap();
        for stored in Batches::new(&bytes) {
            assert_eq!(stored.unwrap().attributes().compression(), Ok(codec));
        }
    }
}

#[test]
fn segments_roll_and_reads_cross_them() {
    let disk = Disk::new(small_segments());
    let (log, _) = disk.open();
    let expected: Vec<(i64, String)> = (0..100).map(|i| (i, format!("value {i}"))).collect();
    for (_, value) in &expected {
        append(&log, batch(&[value])).unwrap();
    }
    assert!(log.segment_count() > 5, "{}", log.segment_count());
    for from in 0..=100 {
        assert_eq!(values(&log, from), expected[from as usize..]);
    }
    log.checkpoint().unwrap();
    drop(log);
    let (log, _) = disk.open();
    for from in [0, 50, 99, 100] {
        assert_eq!(values(&log, from), expected[from as usize..]);
    }
    assert!(matches!(log.read(Offset(101), 1, FetchIsolation::LogEnd), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn segments_roll_by_time_and_by_index_size() {
    let by_time = LogConfig { segment_ms: 1000, ..LogConfig::default() };
    let (log, _) = Disk::new(by_time).open();
    for i in 0..30 {
        let mut builder = BatchBuilder::new(Compression::NONE);
        builder.append(&NewRecord::new(NOW.plus_millis(100 * i), None, Some(b"x"))).unwrap();
        append(&log, builder).unwrap();
    }
    // A segment takes what is at most 1000 ms younger than its first record: eleven records.
    assert_eq!(log.segment_count(), 3);
    let by_index = LogConfig { segment_index_bytes: 48, index_interval_bytes: 0, ..LogConfig::default() };
    let (log, _) = Disk::new(by_index).open();
    for _ in 0..30 {
        append(&log, batch(&["x"])).unwrap();
    }
    assert_eq!(log.segment_count(), 5);
    assert_eq!(values(&log, 0).len(), 30);
}

#[test]
fn the_wrong_records_are_refused_and_leave_the_log_as_it_was() {
    let config = LogConfig { max_message_bytes: 200, ..LogConfig::default() };
    let (log, _) = Disk::new(config).open();
    append(&log, batch(&["a"])).unwrap();
    assert!(matches!(append(&log, batch(&["b"; 50])), Err(AppendError::TooLarge { max: 200, .. })));
    let mut damaged = batch(&["c"]).build().unwrap();
    damaged[70] ^= 1;
    let refused = log.append_as_leader(&damaged, LeaderEpoch(1), AppendOrigin::Client, NOW);
    assert!(matches!(refused, Err(AppendError::Invalid(_))));
    let refused = log.append_as_leader(&[], LeaderEpoch(1), AppendOrigin::Client, NOW);
    assert!(matches!(refused, Err(AppendError::Empty)));
    let below_end = batch(&["d"]).leader_epoch(LeaderEpoch(1)).build().unwrap();
    let refused = log.append_as_follower(&below_end, NOW);
    assert!(matches!(refused, Err(AppendError::NotAtEnd { .. })));
    let old_epoch = batch(&["d"]).base_offset(Offset(1)).leader_epoch(LeaderEpoch(0)).build().unwrap();
    assert!(matches!(log.append_as_follower(&old_epoch, NOW), Err(AppendError::EpochWentBack { .. })));
    assert_eq!(values(&log, 0), owned(&[(0, "a")]));
    // A gap is legal: compaction on the leader leaves them.
    let past_gap = batch(&["e"]).base_offset(Offset(9)).leader_epoch(LeaderEpoch(2)).build().unwrap();
    log.append_as_follower(&past_gap, NOW).unwrap();
    assert_eq!(values(&log, 1), owned(&[(9, "e")]));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(2)));
    assert!(matches!(log.advance_log_start(Offset(1)), Err(LogError::OutOfRange { .. })));
}

#[test]
fn append_time_replaces_the_clients() {
    let config = LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let (log, _) = Disk::new(config).open();
    let info = append(&log, batch(&["a"])).unwrap();
    assert_eq!(info.append_time, NOW);
    let bytes = log.read(Offset(0), 1, FetchIsolation::LogEnd).unwrap().slice.unwrap().to_vec().unwrap();
    let stored = RecordBatch::parse(&bytes).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.attributes().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(stored.max_timestamp(), NOW);
}

#[test]
fn truncation_takes_everything_with_it() {
    let disk = Disk::new(small_segments());
    let (log, _) = disk.open();
    for i in 0..50 {
        append(&log, batch(&[&format!("value {i}")])).unwrap();
    }
    log.assign_epoch_start(LeaderEpoch(2));
    log.advance_high_watermark(Offset(10));
    log.flush().unwrap();
    assert_eq!(log.truncate_to(Offset(20), NOW).unwrap(), Offset(20));
    assert_eq!(
        (log.log_end_offset(), log.flushed_end_offset(), log.high_watermark()),
        (Offset(20), Offset(20), Offset(10))
    );
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
    append(&log, batch(&["again"])).unwrap();
    let found = values(&log, 18);
    assert_eq!(found, owned(&[(18, "value 18"), (19, "value 19"), (20, "again")]));
    log.flush().unwrap();
    drop(log);
    let (log, _) = disk.open();
    assert_eq!(values(&log, 18), found);
    log.truncate_fully_and_start_at(Offset(1000), NOW).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(1000), Offset(1000)));
    drop(log);
    let (log, _) = disk.open();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(1000), Offset(1000)));
    append(&log, batch(&["new"])).unwrap();
    assert_eq!(values(&log, 1000), owned(&[(1000, "new")]));
}

#[test]
fn reads_stop_at_their_isolation() {
    let (log, _) = Disk::new(small_segments()).open();
    for i in 0..20 {
        append(&log, batch(&[&format!("value {i}")])).unwrap();
    }
    log.advance_high_watermark(Offset(13));
    let end = |isolation| {
        let mut next = Offset(0);
        while let Some(slice) = log.read(next, 1 << 20, isolation).unwrap().slice {
            let bytes = slice.to_vec().unwrap();
            next = Batches::new(&bytes).last().unwrap().unwrap().next_offset();
        }
        next
    };
    assert_eq!(end(FetchIsolation::LogEnd), Offset(20));
    assert_eq!(end(FetchIsolation::HighWatermark), Offset(13));
    assert_eq!(end(FetchIsolation::LastStable), Offset(13));
}

fn producer_batch(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> BatchBuilder {
    batch(values).producer(ProducerId(id), ProducerEpoch(epoch), sequence)
}

#[test]
fn a_repeated_batch_is_known_again_also_after_a_restart() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    for sequence in 0..7 {
        append(&log, producer_batch(9, 0, sequence, &["x"])).unwrap();
    }
    log.checkpoint().unwrap();
    drop(log);
    let (log, _) = disk.open();
    for sequence in 2..7 {
        let info = append(&log, producer_batch(9, 0, sequence, &["x"])).unwrap();
        assert_eq!((info.duplicate.is_some(), info.first_offset), (true, Offset(i64::from(sequence))));
    }
    let refusal = |builder| match append(&log, builder) {
        Err(AppendError::Producer(error)) => error,
        other => panic!("{other:?}"),
    };
    let (producer_id, sequence) = (ProducerId(9), 9);
    assert_eq!(
        refusal(producer_batch(9, 0, 9, &["x"])),
        ProducerError::OutOfOrderSequence { producer_id, sequence, expected: 7 }
    );
    append(&log, producer_batch(9, 1, 0, &["y"])).unwrap();
    let (epoch, current) = (ProducerEpoch(0), ProducerEpoch(1));
    assert_eq!(
        refusal(producer_batch(9, 0, 7, &["x"])),
        ProducerError::Fenced { producer_id, epoch, current }
    );
}

#[test]
fn a_follower_that_leads_knows_the_producers_whose_batches_it_copied() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    for sequence in 0..3 {
        let copied = producer_batch(9, 0, sequence, &["x"]);
        let copied =
            copied.base_offset(Offset(i64::from(sequence))).leader_epoch(LeaderEpoch(0)).build().unwrap();
        log.append_as_follower(&copied, NOW).unwrap();
    }
    for sequence in 0..3 {
        let info = append(&log, producer_batch(9, 0, sequence, &["x"])).unwrap();
        assert_eq!((info.duplicate.is_some(), info.first_offset), (true, Offset(i64::from(sequence))));
    }
    let info = append(&log, producer_batch(9, 0, 3, &["y"])).unwrap();
    assert_eq!((info.duplicate.is_some(), info.first_offset), (false, Offset(3)));
}

fn end_txn(log: &Log, id: i64, result: TransactionResult) {
    let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(0) };
    let bytes = marker.batch(ProducerId(id), ProducerEpoch(0), NOW, LeaderEpoch(1)).unwrap();
    log.append_as_leader(&bytes, LeaderEpoch(1), AppendOrigin::Internal, NOW).unwrap();
}

#[test]
fn the_last_stable_offset_waits_for_transactions() {
    let disk = Disk::new(small_segments());
    let (log, _) = disk.open();
    append(&log, batch(&["plain"])).unwrap();
    append(&log, producer_batch(1, 0, 0, &["one"]).transactional()).unwrap();
    append(&log, producer_batch(2, 0, 0, &["two"]).transactional()).unwrap();
    log.advance_high_watermark(log.log_end_offset());
    assert_eq!(log.last_stable_offset(), Offset(1));
    end_txn(&log, 1, TransactionResult::Abort);
    assert_eq!(log.last_stable_offset(), Offset(1));
    log.advance_high_watermark(log.log_end_offset());
    assert_eq!(log.last_stable_offset(), Offset(2));
    end_txn(&log, 2, TransactionResult::Commit);
    log.advance_high_watermark(log.log_end_offset());
    assert_eq!(log.last_stable_offset(), log.high_watermark());
    for _ in 0..2 {
        log.flush().unwrap();
        let (log, _) = disk.open();
        log.advance_high_watermark(log.log_end_offset());
        let aborted = log.read(Offset(0), 1 << 20, FetchIsolation::LastStable).unwrap().aborted;
        assert_eq!(aborted.len(), 1);
        assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (ProducerId(1), Offset(1)));
        log.checkpoint().unwrap();
    }
}

#[test]
fn times_are_found() {
    let (log, _) = Disk::new(small_segments()).open();
    for i in 0..40 {
        let mut builder = BatchBuilder::new(Codec::Lz4.into());
        for j in 0..3 {
            let time = NOW.plus_millis(1000 * i + 10 * j);
            builder.append(&NewRecord::new(time, None, Some(b"some value of a length"))).unwrap();
        }
        append(&log, builder).unwrap();
    }
    let at = |ms: i64| log.offset_for_timestamp(NOW.plus_millis(ms)).unwrap().map(|found| found.offset.0);
    assert_eq!(
        [at(-5), at(0), at(1), at(10), at(25), at(20_015)],
        [Some(0), Some(0), Some(1), Some(1), Some(3), Some(62)]
    );
    assert_eq!(at(39_021), None);
    assert_eq!(log.max_timestamp_offset().unwrap().unwrap().offset, Offset(119));
}

#[test]
fn retention_takes_whole_segments_below_the_high_watermark() {
    let config = LogConfig { retention_bytes: Some(2500), retention_ms: Some(1000), ..small_segments() };
    let disk = Disk::new(config);
    let (log, _) = disk.open();
    for i in 0..60 {
        append(&log, batch(&[&format!("value {i}")])).unwrap();
    }
    assert_eq!(log.apply_retention(NOW).unwrap(), 0);
    log.advance_high_watermark(Offset(60));
    assert!(log.apply_retention(NOW).unwrap() > 0);
    assert!(log.size_bytes() < 3600, "{}", log.size_bytes());
    let start = log.log_start_offset();
    assert!(start > Offset(0));
    assert!(matches!(log.read(Offset(0), 1, FetchIsolation::LogEnd), Err(ReadError::OutOfRange { .. })));
    log.apply_retention(NOW.plus_millis(5000)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size_bytes()), (Offset(60), Offset(60), 0));
    assert!(log.remove_deleted(NOW).unwrap() > 0);
    assert_eq!(log.remove_deleted(NOW.plus_millis(70_000)).unwrap(), 0);
    drop(log);
    let (log, _) = disk.open();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(60), Offset(60)));
}
