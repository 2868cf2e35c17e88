//! Looking at the files of a log, sound and damaged, without opening it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_log::fs::{CrashPlan, LogFs, MemoryFs, OpenMode, RealFs, read_file, write_all_at};
use klamm_log::inspect::{
    ContentKind, Finding, IndexFile, InspectError, Problem, SegmentFile, SegmentItem, Severity, StateFile,
    VerifyReport, read_state, verify,
};
use klamm_log::{AppendOrigin, Log, LogConfig, LogManager, ManagerOptions};
use klamm_record::{
    BatchBuilder, BatchError, Codec, Compression, EndTxnMarker, NewRecord, TransactionResult,
};
use klamm_types::{
    BrokerEpoch, BrokerId, CoordinatorEpoch, LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, Timestamp,
    TopicId, TopicName, TopicPartition,
};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DIR: &str = "/data";
const PARTITION: &str = "/data/orders-0";

/// Writes a log of every kind of batch, and keeps time and sequences.
struct Writer {
    log: Arc<Log>,
    epoch: LeaderEpoch,
    now: Timestamp,
    sequences: [i32; 2],
}

impl Writer {
    fn batch(&mut self, codec: Codec, records: usize) -> BatchBuilder {
        let mut builder = BatchBuilder::new(codec.into());
        for i in 0..records {
            self.now = self.now.plus_millis(1);
            let value = format!("value {i} of {}", self.now);
            builder.append(&NewRecord::new(self.now, Some(b"key"), Some(value.as_bytes()))).unwrap();
        }
        builder
    }

    fn append(&self, builder: BatchBuilder) {
        let bytes = builder.build().unwrap();
        self.log.append_as_leader(&bytes, self.epoch, AppendOrigin::Client, self.now).unwrap();
    }

    fn transactional(&mut self, producer: i64) {
        let sequence = self.sequences[producer as usize];
        self.sequences[producer as usize] += 1;
        let builder = self.batch(Codec::None, 1);
        let builder = builder.producer(ProducerId(producer), ProducerEpoch(0), sequence).transactional();
        self.append(builder);
    }

    fn end(&mut self, producer: i64, result: TransactionResult) {
        self.now = self.now.plus_millis(1);
        let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(3) };
        let (id, epoch) = (ProducerId(producer), ProducerEpoch(0));
        let bytes = marker.batch(id, epoch, self.now, LeaderEpoch(-1)).unwrap();
        self.log.append_as_leader(&bytes, self.epoch, AppendOrigin::Internal, self.now).unwrap();
    }

    fn everything(&mut self) {
        for codec in Codec::ALL {
            self.append(self.clone_batch(codec));
            let batch = self.batch(codec, 3);
            self.append(batch);
        }
        self.epoch = LeaderEpoch(2);
        for _ in 0..3 {
            self.transactional(0);
            self.transactional(1);
            self.end(0, TransactionResult::Abort);
            self.transactional(1);
            self.end(1, TransactionResult::Commit);
            self.transactional(1);
            self.end(1, TransactionResult::Abort);
        }
        self.epoch = LeaderEpoch(3);
        for _ in 0..5 {
            let batch = self.batch(Codec::None, 1);
            self.append(batch);
        }
    }

    /// A batch with one record of the time of the last one.
    fn clone_batch(&self, codec: Codec) -> BatchBuilder {
        let mut builder = BatchBuilder::new(Compression::from(codec));
        builder.append(&NewRecord::new(self.now, None, Some(b"same time"))).unwrap();
        builder
    }
}

fn manager(fs: &MemoryFs) -> LogManager {
    let options = ManagerOptions::new(vec![PathBuf::from(DIR)], BrokerId(1), "cluster");
    LogManager::open(Arc::new(fs.clone()), options, &|_| config(), NOW).unwrap().0
}

fn config() -> Arc<LogConfig> {
    Arc::new(LogConfig { segment_bytes: 900, index_interval_bytes: 100, ..LogConfig::default() })
}

fn write_log(fs: &MemoryFs) -> LogManager {
    let manager = manager(fs);
    let partition = TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0));
    let log = manager.create(&partition, TopicId([7; 16]), config(), NOW).unwrap();
    let mut writer = Writer { log, epoch: LeaderEpoch(0), now: NOW, sequences: [0; 2] };
    writer.everything();
    manager
}

/// A log directory that was closed in order.
fn closed() -> MemoryFs {
    let fs = MemoryFs::new();
    let manager = write_log(&fs);
    manager.shut_down(BrokerEpoch(9)).unwrap();
    fs
}

fn check(fs: &MemoryFs) -> VerifyReport {
    verify(fs, Path::new(DIR)).unwrap()
}

/// The files of the partition of one kind, in the order of their names.
fn files(fs: &MemoryFs, kind: ContentKind) -> Vec<PathBuf> {
    let entries = fs.list(Path::new(PARTITION)).unwrap();
    let paths = entries.into_iter().map(|entry| Path::new(PARTITION).join(entry.name));
    paths.filter(|path| ContentKind::of_path(path) == Some(kind)).collect()
}

fn len(fs: &MemoryFs, path: &Path) -> u64 {
    fs.stat(path).unwrap().unwrap().len
}

fn replace(fs: &MemoryFs, path: &Path, bytes: &[u8]) {
    let file = fs.open(path, OpenMode::Truncate).unwrap();
    write_all_at(file.as_ref(), bytes, 0).unwrap();
}

fn codes(report: &VerifyReport) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.problem.code()).collect()
}

fn errors(report: &VerifyReport) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect()
}

#[test]
fn a_log_that_was_closed_in_order_has_nothing_to_find() {
    let fs = closed();
    let report = check(&fs);
    assert_eq!(codes(&report), [""; 0]);
    let segments = files(&fs, ContentKind::Batches);
    assert!(segments.len() > 3);
    assert_eq!((report.partitions, report.segments), (1, segments.len() as u64));
    assert_eq!((report.batches, report.records), (10 + 21 + 5, 5 + 15 + 21 + 5));
    assert_eq!(report.bytes, segments.iter().map(|path| len(&fs, path)).sum::<u64>());
    // The partition alone is judged by the checkpoints beside it.
    let alone = verify(&fs, Path::new(PARTITION)).unwrap();
    assert!(alone.is_sound() && alone.findings.is_empty());
}

#[test]
fn a_flipped_bit_anywhere_in_a_binary_file_is_found() {
    let fs = closed();
    let kinds = [
        ContentKind::Batches,
        ContentKind::OffsetIndex,
        ContentKind::TimeIndex,
        ContentKind::TxnIndex,
        ContentKind::Producers,
    ];
    for kind in kinds {
        // A batch lasts long enough to be hit in each of its fields, though not in every bit.
        let step = if kind == ContentKind::Batches { 3 } else { 1 };
        let paths = files(&fs, kind);
        let flipped: u64 = paths.iter().map(|path| len(&fs, path)).sum();
        assert!(flipped > 0, "{kind:?}");
        for path in paths {
            for position in (0..len(&fs, &path)).step_by(step) {
                let is_version = kind == ContentKind::TxnIndex && position % 34 < 2;
                let mask = 1 << (position % 8);
                fs.flip(&path, position, mask).unwrap();
                let report = check(&fs);
                // An entry of a later version may say anything.
                assert!(is_version || !report.is_sound(), "{} byte {position} mask {mask}", path.display());
                fs.flip(&path, position, mask).unwrap();
            }
        }
    }
    assert!(check(&fs).is_sound());
}

#[test]
fn a_text_file_that_does_not_read_is_found() {
    let fs = closed();
    let in_dir = ["meta.properties", "recovery-point-offset-checkpoint", "replication-offset-checkpoint"];
    let in_partition = ["leader-epoch-checkpoint", "partition.metadata"];
    let paths = in_dir.map(|name| Path::new(DIR).join(name)).into_iter();
    for path in paths.chain(in_partition.map(|name| Path::new(PARTITION).join(name))) {
        let sound = read_file(&fs, &path, 1 << 20).unwrap();
        for damaged in [&sound[..sound.len() / 2], b"", b"0\n1\n\xff\n", b"version: 0\ntopic_id: x\n"] {
            replace(&fs, &path, damaged);
            let report = check(&fs);
            let found: Vec<_> = errors(&report).into_iter().filter(|found| found.path == path).collect();
            assert!(
                matches!(found[..], [Finding { problem: Problem::Unreadable { .. }, .. }]),
                "{}: {:?}",
                path.display(),
                report.findings
            );
        }
        replace(&fs, &path, &sound);
    }
    assert!(check(&fs).is_sound());
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let fs = closed();
    for kind in
        [ContentKind::Batches, ContentKind::OffsetIndex, ContentKind::TxnIndex, ContentKind::Producers]
    {
        for path in files(&fs, kind) {
            let whole = read_file(&fs, &path, 1 << 20).unwrap();
            for end in (0..whole.len()).step_by(5) {
                replace(&fs, &path, &whole[..end]);
                let report = check(&fs);
                // An offset index is sparse: whole entries may be missing.
                let legal = kind == ContentKind::OffsetIndex && end % 8 == 0;
                // Between two batches of a segment that another follows: a gap, as compaction leaves it.
                let gap = codes(&report).contains(&"segment_gap");
                assert!(legal || gap || !report.is_sound(), "{} cut at {end}", path.display());
            }
            replace(&fs, &path, &whole);
        }
    }
    assert!(check(&fs).is_sound());
}

#[test]
fn a_damaged_batch_is_named_and_the_walk_goes_on_behind_it() {
    let fs = closed();
    let path = &files(&fs, ContentKind::Batches)[0];
    let walk = |fs: &MemoryFs| {
        let file = SegmentFile::open(fs, path).unwrap();
        let mut walk = file.walk();
        std::iter::from_fn(|| walk.next_item().unwrap()).collect::<Vec<_>>()
    };
    let sound = walk(&fs);
    let SegmentItem::Batch(second) = sound[1] else { panic!("a batch") };
    // The length, so that framing is lost.
    fs.flip(path, second.position + 9, 1).unwrap();
    let found = walk(&fs);
    let SegmentItem::Damage(damage) = found[1] else { panic!("damage") };
    assert_eq!((damage.position, damage.resumes_at), (second.position, Some(second.end())));
    assert_eq!((&found[..1], &found[2..]), (&sound[..1], &sound[2..]));
    let report = check(&fs);
    let [first, ..] = errors(&report)[..] else { panic!("an error") };
    assert!(
        matches!(first.problem, Problem::NoBatch { bytes, .. } if bytes == second.end() - second.position)
    );
    assert_eq!(first.path, *path);
    assert_eq!((first.position, first.offset), (Some(second.position), Some(second.header.base_offset())));
    fs.flip(path, second.position + 9, 1).unwrap();
    // The payload, so that framing holds.
    fs.flip(path, second.position + 61, 1).unwrap();
    let found = walk(&fs);
    let SegmentItem::Batch(batch) = found[1] else { panic!("a batch") };
    assert!(matches!(batch.crc_error, Some(BatchError::Crc { .. })));
    assert_eq!(found.len(), sound.len());
    assert_eq!(codes(&check(&fs)), ["checksum"]);
}

#[test]
fn a_torn_write_past_the_recovery_point_is_a_note() {
    let fs = MemoryFs::new();
    let manager = write_log(&fs);
    let log = manager.logs().remove(0);
    log.checkpoint().unwrap();
    manager.tick(NOW.plus_millis(1 << 40)).unwrap();
    let path = files(&fs, ContentKind::Batches).pop().unwrap();
    let end = len(&fs, &path);
    let mut writer = Writer { log, epoch: LeaderEpoch(3), now: NOW.plus_millis(999), sequences: [9; 2] };
    let batch = writer.batch(Codec::None, 1);
    writer.append(batch);
    drop((writer, manager));
    let report = check(&fs);
    assert!(report.is_sound(), "{:?}", report.findings);
    let torn = files(&fs, ContentKind::Batches).pop().unwrap();
    let end = if torn == path { end } else { 0 };
    for position in [end + 40, end + 8] {
        fs.flip(&torn, position, 0x40).unwrap();
        let report = check(&fs);
        assert!(report.is_sound(), "{:?}", report.findings);
        assert!(codes(&report).contains(&"torn_write"));
    }
    // Below the recovery point nothing may be torn.
    let first = &files(&fs, ContentKind::Batches)[0];
    fs.flip(first, 40, 1).unwrap();
    assert!(!check(&fs).is_sound());
}

#[test]
fn what_a_power_cut_may_leave_is_no_damage() {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.record();
    let manager = write_log(&fs);
    let log = manager.logs().remove(0);
    log.checkpoint().unwrap();
    manager.tick(NOW.plus_millis(1 << 40)).unwrap();
    let mut writer = Writer { log, epoch: LeaderEpoch(3), now: NOW.plus_millis(999), sequences: [9; 2] };
    for _ in 0..20 {
        let batch = writer.batch(Codec::None, 1);
        writer.append(batch);
    }
    // An orderly stop would promise more than its writes: what nobody syncs may still be torn right after it.
    drop((writer, manager));
    let mut points = fs.crash_points();
    let mut judged = 0;
    while let Some(point) = points.next() {
        let plans = [
            CrashPlan::nothing_pending(),
            CrashPlan::everything_pending(),
            CrashPlan::masked(0x5555_5555_5555_5555),
            CrashPlan::masked(0xaaaa_aaaa_aaaa_aaaa),
        ];
        for plan in &plans {
            let found = point.power_cut(plan);
            if let Ok(report) = verify(&found, Path::new(DIR)) {
                judged += 1;
                assert!(report.is_sound(), "{} {:#?}", point.position(), errors(&report));
            }
        }
    }
    assert!(judged > 200, "{judged}");
}

#[test]
fn what_is_missing_or_left_over_is_noted() {
    let fs = closed();
    let segments = files(&fs, ContentKind::Batches);
    fs.remove_file(&segments[1]).unwrap();
    for name in ["00000000000000000000.log.deleted", "00000000000000000009.log.cleaned", "notes.txt"] {
        replace(&fs, &Path::new(PARTITION).join(name), b"x");
    }
    fs.create_dir_all(&Path::new(DIR).join("orders-1.0123-delete")).unwrap();
    fs.create_dir_all(&Path::new(DIR).join("lost+found")).unwrap();
    let report = check(&fs);
    let mut found = codes(&report);
    found.sort_unstable();
    found.dedup();
    let expected = ["index_alone", "leftover", "segment_gap", "unknown_directory", "unknown_file"];
    assert_eq!(found, expected);
    assert!(report.is_sound());
}

#[test]
fn checkpoints_that_contradict_the_log_are_found() {
    let fs = closed();
    let rows = |offset: i64| format!("0\n1\norders 0 {offset}\n");
    let point = Path::new(DIR).join("recovery-point-offset-checkpoint");
    let sound = read_file(&fs, &point, 1 << 20).unwrap();
    for (offset, code) in [(1000, "recovery_point_past_end"), (1, "not_as_closed")] {
        replace(&fs, &point, rows(offset).as_bytes());
        assert_eq!(codes(&check(&fs)), [code]);
    }
    replace(&fs, &point, &sound);
    let epochs = Path::new(PARTITION).join("leader-epoch-checkpoint");
    let Ok(StateFile::LeaderEpochs(cache)) = read_state(&fs, &epochs) else { panic!("epochs") };
    assert_eq!(cache.entries().iter().map(|entry| entry.epoch.0).collect::<Vec<_>>(), [0, 2, 3]);
    for (text, code) in [
        ("0\n2\n0 0\n2 20\n", "epoch_disagrees"),
        ("0\n3\n0 1\n2 20\n3 41\n", "epoch_disagrees"),
        ("0\n4\n0 0\n2 20\n3 41\n4 999\n", "epoch_past_end"),
        ("0\n2\n2 20\n0 0\n", "damaged_file"),
    ] {
        replace(&fs, &epochs, text.as_bytes());
        assert_eq!(codes(&check(&fs)), [code], "{text}");
    }
    replace(&fs, &epochs, b"0\n3\n0 0\n2 20\n3 41\n");
    assert!(check(&fs).is_sound());
    replace(&fs, &Path::new(DIR).join("replication-offset-checkpoint"), b"0\n1\ngone 4 7\n");
    assert_eq!(codes(&check(&fs)), ["no_such_partition"]);
}

#[test]
fn what_is_no_log_is_refused() {
    let fs = MemoryFs::new();
    let dir = Path::new("/elsewhere");
    assert!(matches!(verify(&fs, dir), Err(InspectError::Storage(_))));
    fs.create_dir_all(dir).unwrap();
    assert!(matches!(verify(&fs, dir), Err(InspectError::EmptyDirectory { .. })));
    let file = dir.join("notes.txt");
    replace(&fs, &file, b"x");
    assert!(matches!(verify(&fs, dir), Err(InspectError::NoLog { .. })));
    assert!(matches!(verify(&fs, &file), Err(InspectError::NotDirectory { .. })));
    assert!(matches!(SegmentFile::open(&fs, dir), Err(InspectError::IsDirectory { .. })));
    assert!(matches!(IndexFile::open(&fs, &file), Err(InspectError::UnknownKind { .. })));
    assert!(matches!(read_state(&fs, &file), Err(InspectError::UnknownKind { .. })));
}

#[test]
fn a_file_of_nothing_but_findings_makes_a_bounded_report() {
    let fs = closed();
    let path = files(&fs, ContentKind::OffsetIndex).remove(0);
    replace(&fs, &path, &vec![0xff; 8 * 100_000]);
    let report = check(&fs);
    assert_eq!(report.findings.len(), VerifyReport::PER_FILE_MAX);
    assert_eq!(report.unlisted, 100_000 - VerifyReport::PER_FILE_MAX as u64);
    assert_eq!(report.errors, 100_000);
    // Kafka makes an index at its full size, and cuts it when it closes it.
    replace(&fs, &path, &vec![0; 8 * 100_000]);
    let report = check(&fs);
    assert_eq!((codes(&report), report.is_sound()), (vec!["index_unused"], true));
}

#[test]
fn a_directory_that_kafka_wrote_is_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop/golden/kafka-4.3.1/data");
    let report = verify(&RealFs, &dir).unwrap();
    assert_eq!(errors(&report).len(), 0, "{:?}", report.findings);
    assert!(report.partitions > 10 && report.records > 500);
    // The compacted topic has gaps, and nothing else has anything to note.
    assert_eq!(codes(&report), ["offset_gaps"]);
    assert!(report.findings[0].path.ends_with("compacted-0/00000000000000000000.log"));
}

/// Reads a file in every way there is.
fn read_all_ways(fs: &MemoryFs, path: &Path) {
    if let Ok(file) = SegmentFile::open(fs, path) {
        let mut walk = file.walk();
        let mut position = 0;
        while let Some(item) = walk.next_item().unwrap() {
            let at = match item {
                SegmentItem::Batch(batch) => {
                    assert!(batch.end() <= file.len());
                    assert!(file.read(&batch).unwrap().is_some());
                    batch.position
                }
                SegmentItem::Damage(damage) => damage.position,
            };
            assert!(at >= position);
            position = at;
        }
    }
    if let Ok(mut index) = IndexFile::open(fs, path) {
        while index.next_item().unwrap().is_some() {}
    }
    let _: Result<StateFile, InspectError> = read_state(fs, path);
}

const NAMES: [&str; 11] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000003.snapshot",
    "00000000000000000000-0000000000.checkpoint",
    "leader-epoch-checkpoint",
    "partition.metadata",
    "meta.properties",
    "recovery-point-offset-checkpoint",
    ".kafka_cleanshutdown",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(name in prop::sample::select(&NAMES[..]), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new(PARTITION)).unwrap();
        for dir in [PARTITION, DIR] {
            let path = Path::new(dir).join(name);
            replace(&fs, &path, &bytes);
            read_all_ways(&fs, &path);
        }
        replace(&fs, &Path::new(PARTITION).join("00000000000000000000.log"), &bytes);
        for dir in [PARTITION, DIR] {
            let _: Result<VerifyReport, InspectError> = verify(&fs, Path::new(dir));
        }
    }

    #[test]
    fn damage_anywhere_never_panics(
        file in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        zeros in 0..200usize,
    ) {
        let fs = closed();
        let entries = fs.list(Path::new(PARTITION)).unwrap();
        let path = Path::new(PARTITION).join(&file.get(&entries).name);
        let mut bytes = read_file(&fs, &path, 1 << 20).unwrap();
        for (at, mask) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
        bytes.resize(bytes.len() + zeros, 0);
        replace(&fs, &path, &bytes);
        read_all_ways(&fs, &path);
        check(&fs);
    }
}
