//! Damage below the flush point, in every field of a batch: nothing is cut on its account, and the log stays usable.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use klamm_log::fs::{CrashPlan, LogFs, MemoryFs, OpenMode, write_all_at};
use klamm_log::{
    AppendError, AppendInfo, AppendOrigin, DamagedRange, FetchIsolation, FileCache, FlushPoint, Log,
    LogConfig, LogDir, OpenOptions, ProducerLimits, ReadError, RecoveryReport,
};
use klamm_record::{BatchBuilder, Compression, EndTxnMarker, NewRecord, RecordBatch, TransactionResult};
use klamm_types::{
    CoordinatorEpoch, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId,
    TopicName, TopicPartition,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const FIRST_LOG: &str = "/data/orders-3/00000000000000000000.log";

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

    fn copy(&self) -> Self {
        let fs = self.fs.crash_point().power_cut(&CrashPlan::everything_pending());
        Self { fs, config: self.config.clone() }
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
            high_watermark: Offset(i64::MAX),
            now: NOW,
        })
        .unwrap()
    }

    fn flip(&self, path: &str, position: u64, mask: u8) {
        self.fs.flip(Path::new(path), position, mask).unwrap();
    }
}

fn batch(records: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::NONE);
    for i in 0..records {
        builder.append(&NewRecord::new(NOW, Some(b"key"), Some(format!("v{i}").as_bytes()))).unwrap();
    }
    builder
}

fn append_in(log: &Log, batch: BatchBuilder, epoch: i32) -> Result<AppendInfo, AppendError> {
    log.append_as_leader(&batch.build().unwrap(), LeaderEpoch(epoch), AppendOrigin::Client, NOW)
}

fn append(log: &Log, batch: BatchBuilder) -> Result<AppendInfo, AppendError> {
    append_in(log, batch, 1)
}

fn checkpoint(log: &Log) {
    let point = log.checkpoint().unwrap();
    log.log_dir().store_recovery_points([(log.partition().clone(), Some(point))]).unwrap();
}

/// The bytes of the batch that a read of `offset` begins with.
fn first_batch(log: &Log, offset: i64, isolation: FetchIsolation) -> Result<Vec<u8>, ReadError> {
    let bytes =
        log.read(Offset(offset), 1, isolation)?.slice.map_or_else(|| Ok(Vec::new()), |s| s.to_vec())?;
    let size = RecordBatch::parse(&bytes).map_or(bytes.len(), |batch| batch.size());
    Ok(bytes[..size].to_vec())
}

/// A disk with twenty flushed batches of one record and one size, which the index has no entry for.
fn twenty() -> (Disk, u64) {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    for _ in 0..20 {
        append(&log, batch(1)).unwrap();
    }
    checkpoint(&log);
    let size = log.size_bytes() / 20;
    (disk, size)
}

#[test]
fn a_base_offset_that_jumps_costs_its_own_batch_and_cuts_none() {
    for (number, byte, mask) in [(5, 5, 1), (5, 0, 0x80), (5, 7, 2), (19, 7, 16), (19, 5, 1), (0, 5, 1)] {
        let (disk, size) = twenty();
        disk.flip(FIRST_LOG, size * number + byte, mask);
        let (log, report) = disk.open();
        let hit = DamagedRange { start: Offset(number as i64), end: Offset(number as i64 + 1) };
        assert_eq!(
            (&report.damage[..], report.truncated_bytes),
            (&[hit][..], 0),
            "batch {number}, byte {byte}"
        );
        assert_eq!(log.log_end_offset(), Offset(20));
    }
}

#[test]
fn a_leader_epoch_that_jumps_neither_hides_batches_nor_refuses_appends() {
    for number in [0, 5, 19] {
        let (disk, size) = twenty();
        disk.flip(FIRST_LOG, size * number + 13, 1);
        let (log, report) = disk.open();
        let hit = DamagedRange { start: Offset(number as i64), end: Offset(number as i64 + 1) };
        assert_eq!((&report.damage[..], report.truncated_bytes), (&[hit][..], 0), "batch {number}");
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)), "batch {number}");
        assert_eq!(append(&log, batch(1)).unwrap().first_offset, Offset(20), "batch {number}");
    }
}

#[test]
fn a_batch_within_a_record_is_not_taken_for_one_of_the_log() {
    let written = Disk::new(LogConfig::default());
    let (log, _) = written.open();
    append(&log, batch(1)).unwrap();
    let inner = batch(1).base_offset(Offset(1_000_000)).leader_epoch(LeaderEpoch(9)).build().unwrap();
    let mut outer = BatchBuilder::new(Compression::NONE);
    outer.append(&NewRecord::new(NOW, None, Some(&inner))).unwrap();
    let start = log.size_bytes();
    append(&log, outer).unwrap();
    for _ in 0..10 {
        append(&log, batch(1)).unwrap();
    }
    checkpoint(&log);
    // A byte of the payload, of the length, the magic byte.
    for byte in [62, 11, 10, 16] {
        let disk = written.copy();
        disk.flip(FIRST_LOG, start + byte, 1);
        let (log, report) = disk.open();
        let hit = DamagedRange { start: Offset(1), end: Offset(2) };
        assert_eq!((&report.damage[..], report.truncated_bytes), (&[hit][..], 0), "byte {byte}");
        assert_eq!(log.log_end_offset(), Offset(12), "byte {byte}");
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)), "byte {byte}");
        assert!(!first_batch(&log, 5, FetchIsolation::LogEnd).unwrap().is_empty(), "byte {byte}");
    }
}

#[test]
fn what_stands_behind_broken_framing_can_be_read_bounded_and_truncated() {
    let (disk, size) = twenty();
    disk.flip(FIRST_LOG, size * 10 + 16, 0x40);
    let (log, _) = disk.open();
    for offset in [0, 9, 11, 19] {
        let read = first_batch(&log, offset, FetchIsolation::HighWatermark).unwrap();
        assert_eq!(RecordBatch::parse(&read).unwrap().header().base_offset(), Offset(offset));
    }
    let read = log.read(Offset(10), 1, FetchIsolation::LogEnd);
    assert!(matches!(read, Err(ReadError::Damaged { .. })));
    assert_eq!(log.truncate_to(Offset(18), NOW).unwrap(), Offset(18));
    // Repair: the damaged batch goes, with all that follows, and comes anew.
    assert_eq!(log.truncate_to(Offset(10), NOW).unwrap(), Offset(10));
    assert!(log.damage().is_empty());
    assert_eq!(log.size_bytes(), size * 10);
    append(&log, batch(1)).unwrap();
    assert!(!first_batch(&log, 10, FetchIsolation::LogEnd).unwrap().is_empty());
    checkpoint(&log);
    let (log, report) = disk.open();
    assert_eq!((log.log_end_offset(), report.damage), (Offset(11), vec![]));
}

/// Two segments: offset 0, and one record at 3 000 000 000, which the first segment cannot reach.
fn with_far_gap() -> Disk {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, batch(1)).unwrap();
    let far = batch(1).base_offset(Offset(3_000_000_000)).leader_epoch(LeaderEpoch(1)).build().unwrap();
    log.append_as_follower(&far, NOW).unwrap();
    disk
}

#[test]
fn a_segment_past_a_gap_that_none_can_span_survives_recovery() {
    let disk = with_far_gap();
    let (log, report) = disk.open();
    assert_eq!(log.log_end_offset(), Offset(3_000_000_001), "{report:?}");
    assert_eq!(report.damage, vec![]);
    for offset in [0, 3_000_000_000] {
        assert!(!first_batch(&log, offset, FetchIsolation::LogEnd).unwrap().is_empty());
    }
}

#[test]
fn a_segment_past_such_a_gap_never_survives_what_comes_before_it() {
    let disk = with_far_gap();
    let fs = disk.fs.crash_point().power_cut(&CrashPlan::nothing_pending());
    let (log, _) = Disk { fs, config: LogConfig::default() }.open();
    assert!(!first_batch(&log, 0, FetchIsolation::LogEnd).unwrap().is_empty());
}

#[test]
fn aborted_transactions_survive_any_flipped_bit_of_their_index() {
    let written = Disk::new(LogConfig::default());
    let (log, _) = written.open();
    for i in 0..3 {
        append(&log, batch(2).producer(ProducerId(5), ProducerEpoch(0), i * 2).transactional()).unwrap();
        let marker =
            EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: CoordinatorEpoch(0) };
        let bytes = marker.batch(ProducerId(5), ProducerEpoch(0), NOW, LeaderEpoch(1)).unwrap();
        log.append_as_leader(&bytes, LeaderEpoch(1), AppendOrigin::Internal, NOW).unwrap();
    }
    checkpoint(&log);
    let path = "/data/orders-3/00000000000000000000.txnindex";
    let len = written.fs.stat(Path::new(path)).unwrap().unwrap().len;
    let ranges = |log: &Log| -> Vec<_> {
        let aborted = log.aborted_between(Offset(0), Offset(9)).unwrap();
        aborted.iter().map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset)).collect()
    };
    let before = ranges(&log);
    assert_eq!((before.len(), len), (3, 3 * 34));
    for position in 0..len {
        for bit in [0, 3, 7] {
            let disk = written.copy();
            disk.flip(path, position, 1 << bit);
            let (log, report) = disk.open();
            // What the flip may change is only how far a reader looks.
            assert_eq!(ranges(&log), before, "bit {bit} of byte {position}: {report:?}");
            assert_eq!(log.producers().len(), 1);
        }
    }
}

/// What was written: the bytes of each batch, its offsets, and where it starts in which file.
struct Written {
    base: i64,
    next: i64,
    bytes: Vec<u8>,
    path: String,
    start: u64,
}

/// A log of several segments and epochs, checkpointed, with some unflushed batches behind if `tail`.
fn varied(tail: bool) -> (Disk, Vec<Written>, i64) {
    let disk =
        Disk::new(LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() });
    let (log, _) = disk.open();
    for i in 0..24_i32 {
        append_in(&log, batch(1 + i as usize % 3), i / 5).unwrap();
    }
    checkpoint(&log);
    let promised = log.log_end_offset().0;
    for _ in 0..if tail { 3 } else { 0 } {
        append_in(&log, batch(2), 5).unwrap();
    }
    let mut written = Vec::new();
    let mut offset = 0;
    while offset < log.log_end_offset().0 {
        let slice = log.read(Offset(offset), 1, FetchIsolation::LogEnd).unwrap().slice.unwrap();
        let bytes = slice.to_vec().unwrap();
        let next = RecordBatch::parse(&bytes).unwrap().header().next_offset().0;
        let start = slice.position();
        let base =
            if start > 0 { written.last().map_or(offset, |w: &Written| base_of(&w.path)) } else { offset };
        written.push(Written { base: offset, next, bytes, path: path_of(base), start });
        offset = next;
    }
    (disk, written, promised)
}

fn path_of(base: i64) -> String {
    format!("/data/orders-3/{base:020}.log")
}

fn base_of(path: &str) -> i64 {
    path.rsplit('/').next().unwrap().trim_end_matches(".log").parse().unwrap()
}

/// Reads every flushed batch but number `hit` in the way of a consumer, under both bounds.
fn others_read_as_written(log: &Log, written: &[Written], promised: i64, hit: usize, what: &str) {
    for (i, batch) in written.iter().enumerate().filter(|(i, w)| *i != hit && w.next <= promised) {
        for isolation in [FetchIsolation::LogEnd, FetchIsolation::HighWatermark] {
            let read = first_batch(log, batch.base, isolation);
            assert_eq!(read.as_ref().ok(), Some(&batch.bytes), "{what}: batch {i} {isolation:?}: {read:?}");
        }
    }
    // The damaged one is either refused by name, or comes as the damaged bytes that its checksum does not match.
    let batch = &written[hit];
    match first_batch(log, batch.base, FetchIsolation::LogEnd) {
        Err(ReadError::Damaged { .. } | ReadError::Corrupt { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(bytes) => {
            let is_next = written.iter().any(|w| w.bytes == bytes && w.base != batch.base);
            assert!(!is_next, "{what}: another batch is served in the place of the damaged one");
        }
    }
}

fn flip_every_bit(tail: bool, skip: usize, stride: usize) {
    let (disk, written, promised) = varied(tail);
    assert!(written.iter().filter(|w| w.start == 0).count() > 2, "a log of several segments");
    let mut reported = 0;
    for (hit, target) in written.iter().enumerate().skip(skip).filter(|(_, w)| w.next <= promised) {
        // Every bit of what the checksum does not cover and of the counts behind it, then one in `stride`.
        let bits = (0..27 * 8).chain((27 * 8..target.bytes.len() * 8).step_by(stride));
        for bit in bits {
            let what = format!("bit {} of byte {} of batch {hit} at {}", bit % 8, bit / 8, target.base);
            let disk = disk.copy();
            disk.flip(&target.path, target.start + bit as u64 / 8, 1 << (bit % 8));
            let (log, report) = disk.open();
            for range in &report.damage {
                let is_hit = range.start.0 == target.base && range.end.0 == target.next;
                assert!(is_hit, "{what}: {range} is reported as damaged");
            }
            reported += report.damage.len();
            assert!(log.log_end_offset().0 >= promised, "{what}: the log ends at {}", log.log_end_offset());
            assert!(tail || report.truncated_bytes == 0, "{what}: {report:?}");
            others_read_as_written(&log, &written, promised, hit, &what);
            let appended = append_in(&log, batch(3), 6).unwrap().first_offset.0;
            checkpoint(&log);
            let end = log.log_end_offset();
            drop(log);
            let (log, _) = disk.open();
            assert_eq!(log.log_end_offset(), end, "{what}, opened again");
            others_read_as_written(&log, &written, promised, hit, &what);
            assert!(!first_batch(&log, appended, FetchIsolation::LogEnd).unwrap().is_empty(), "{what}");
        }
    }
    assert!(reported > 100, "few flips were found: {reported}");
}

#[test]
fn no_flipped_bit_costs_more_than_its_batch_when_all_is_flushed() {
    flip_every_bit(false, 0, 61);
}

#[test]
fn no_flipped_bit_costs_more_than_its_batch_before_an_unflushed_tail() {
    flip_every_bit(true, 18, 61);
}

/// A log of three batches that nobody has flushed, with these bytes behind them, after a first value of so many bytes.
fn with_tail(value_len: usize, tail: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (u64, RecoveryReport) {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    let mut first = BatchBuilder::new(Compression::NONE);
    first.append(&NewRecord::new(NOW, None, Some(&vec![b'v'; value_len]))).unwrap();
    append(&log, first).unwrap();
    append(&log, batch(1)).unwrap();
    append(&log, batch(1)).unwrap();
    let end = log.size_bytes();
    let next = batch(1).base_offset(Offset(3)).leader_epoch(LeaderEpoch(1)).build().unwrap();
    let file = disk.fs.open(Path::new(FIRST_LOG), OpenMode::Write).unwrap();
    write_all_at(file.as_ref(), &tail(next.to_vec()), end).unwrap();
    let (log, report) = disk.copy().open();
    assert_eq!((log.log_end_offset(), log.size_bytes()), (Offset(3), end));
    (end, report)
}

/// What is never written, though the file counts it, is what a power cut leaves of the last write (ext4, XFS).
#[test]
fn a_tail_that_was_never_flushed_is_told_from_one_that_may_have_rotted() {
    let may_have_been_flushed = |tail: fn(Vec<u8>) -> Vec<u8>| {
        let (_, report) = with_tail(100, tail);
        assert!(report.truncated_bytes > 0 && report.damage.is_empty(), "{report:?}");
        report.cut_may_have_been_flushed
    };
    // The rest of the sector and more; less than that; the beginning of a header.
    assert!(!may_have_been_flushed(|_| vec![0; 2_000]));
    assert!(!may_have_been_flushed(|_| vec![0; 70]));
    assert!(!may_have_been_flushed(|next| next[..60].to_vec()));
    // A batch with a bit turned over, one whose end is missing, zeros with a batch behind them.
    assert!(may_have_been_flushed(|next| {
        let mut rotten = next;
        *rotten.last_mut().unwrap() ^= 1;
        rotten
    }));
    assert!(may_have_been_flushed(|next| next[..next.len() - 1].to_vec()));
    assert!(may_have_been_flushed(|next| [vec![0; 100], next].concat()));
    assert!(may_have_been_flushed(|next| [vec![0; 15], next[15..].to_vec()].concat()));
}

/// A sector that the disk lost looks like one that it never got.
#[test]
fn zeros_that_begin_with_a_sector_may_have_been_flushed() {
    let (end, _) = with_tail(100, |_| vec![0; 100]);
    let padding = 512 - end % 512;
    for (more, expected) in [(0, true), (1, false), (512 - 21, false), (512 - 20, true)] {
        let (at, report) = with_tail(100 + (padding + more) as usize, |_| vec![0; 2_000]);
        // The length of the record takes a byte more when the value is longer than 63 and 8191 bytes only.
        assert_eq!((at % 512, report.cut_may_have_been_flushed), (more, expected));
    }
}
