//! Logs opened here, compared with what Apache Kafka says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use klamm_log::{FetchIsolation, Log, RecoveryReport};
use klamm_record::{ControlRecord, RecordBatch, TransactionResult};
use klamm_types::{Offset, Timestamp};
use serde::Deserialize;
use tempfile::TempDir;

use crate::dump_tool::Line;
use crate::expected::{DECOMPRESSED_BYTES_MAX, RecordFacts, batches_of, records_of};
use crate::golden_segments::{Consumed, KafkaDirectory};
use crate::kafka_tools::files_of_kind;
use crate::our_directory::OurDirectory;
use crate::our_log::{ProducerFacts, read_all};

#[test]
fn the_golden_directory_of_kafka_opens_and_reads_back_identically() {
    opens_as_it_was_left(&KafkaDirectory::golden());
}

#[test]
fn the_golden_directory_of_kafka_is_recovered_from_its_segments_alone() {
    drop(recovers_from_segments(&KafkaDirectory::golden()));
}

/// After Kafka's clean stop nothing is left to recover, and everything is as Kafka said, indexes and snapshots included.
pub(crate) fn opens_as_it_was_left(kafka: &KafkaDirectory) {
    let copy = tempfile::tempdir().expect("a directory");
    copy_directory(&kafka.data, copy.path(), |_| true);
    let directory = OurDirectory::open(copy.path());
    assert!(directory.content.clean_shutdown.is_some(), "Kafka's mark of a clean stop");
    assert_eq!(directory.content.strays, Vec::<String>::new());
    for start in &directory.content.logs {
        let report = start.result.as_ref().unwrap_or_else(|error| panic!("{}: {error}", start.partition));
        // What lies past the last index entry may be read again; nothing may be found wanting.
        let untouched = RecoveryReport { scanned_bytes: report.scanned_bytes, ..RecoveryReport::default() };
        assert_eq!(*report, untouched, "{}: nothing is to be recovered", start.partition);
    }
    for (name, fetched) in &kafka.fetched {
        let log = directory.existing(name);
        compare_reads(&log, fetched, &kafka.consumed[name], name);
        let noted = checkpointed_epochs(&kafka.data.join(name), fetched.high_watermark);
        assert_eq!(epochs(&log), noted, "{name}: leader epochs");
        let snapshot = newest_snapshot(&kafka.data.join(name));
        let dumped = snapshot.map(|file| dumped_producers(kafka.dump.file(&format!("{name}/{file}"))));
        assert_eq!(producers(&log), dumped.unwrap_or_default(), "{name}: producers");
    }
    directory.close();
}

/// Without indexes, snapshots and checkpoints, all but the log start comes back from the segments. Gives the
/// directory as it is after a clean stop of ours.
pub(crate) fn recovers_from_segments(kafka: &KafkaDirectory) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let kept = [".log", "partition.metadata", "log-start-offset-checkpoint", "meta.properties"];
    copy_directory(&kafka.data, copy.path(), |name| kept.iter().any(|end| name.ends_with(end)));
    let directory = OurDirectory::open(copy.path());
    assert_eq!(directory.content.clean_shutdown, None);
    for start in &directory.content.logs {
        let report = start.result.as_ref().unwrap_or_else(|error| panic!("{}: {error}", start.partition));
        assert_eq!((report.truncated_bytes, &report.damage), (0, &Vec::new()), "{}", start.partition);
    }
    for (name, fetched) in &kafka.fetched {
        let log = directory.existing(name);
        // The leader tells it; no checkpoint did.
        log.advance_high_watermark(log.log_end_offset());
        let consumed = &kafka.consumed[name];
        let mut fetched = fetched.clone();
        // An aborted transaction whose records were all compacted away leaves a marker without a beginning.
        fetched.aborted.retain(|(_, first)| consumed.records.iter().any(|record| record.offset == *first));
        compare_reads(&log, &fetched, consumed, name);
        assert_eq!(epochs(&log), epochs_of_batches(&fetched), "{name}: leader epochs");
        let snapshot = newest_snapshot(&kafka.data.join(name));
        let dumped = snapshot.map(|file| dumped_producers(kafka.dump.file(&format!("{name}/{file}"))));
        // Kafka had forgotten those that were silent for longer than a day, by their records' timestamps.
        let found = producers(&log);
        for (id, facts) in dumped.unwrap_or_default() {
            assert_eq!(found.get(&id), Some(&facts), "{name}: producer {id}");
        }
    }
    directory.close();
    copy
}

fn copy_directory(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) {
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("a directory entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        if path.is_dir() {
            fs::create_dir(to.join(name)).expect("a directory");
            copy_directory(&path, &to.join(name), wanted);
        } else if wanted(name) {
            fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}

fn newest_snapshot(partition: &Path) -> Option<String> {
    let newest = files_of_kind(partition, ".snapshot").pop()?;
    newest.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}

/// The leader epochs that have records. Of one that starts at the log end a log may keep note or not: Kafka drops it
/// when it opens the log, and its leader notes it again.
fn epochs(log: &Log) -> Vec<(i32, i64)> {
    let (epochs, end) = (log.leader_epochs(), log.log_end_offset());
    let with_records = epochs.entries().iter().filter(|entry| entry.start_offset < end);
    with_records.map(|entry| (entry.epoch.0, entry.start_offset.0)).collect()
}

/// The leader epochs of Kafka's checkpoint: a version, a count, and an epoch with its start offset on every line.
fn checkpointed_epochs(partition: &Path, log_end: i64) -> Vec<(i32, i64)> {
    let text = fs::read_to_string(partition.join("leader-epoch-checkpoint")).expect("leader epochs");
    let rows = text.lines().skip(2).map(|line| {
        let (epoch, start) = line.split_once(' ').expect("two numbers");
        (epoch.parse().expect("an epoch"), start.parse().expect("an offset"))
    });
    rows.filter(|(_, start)| *start < log_end).collect()
}

/// The leader epochs that the batches show.
fn epochs_of_batches(fetched: &Fetched) -> Vec<(i32, i64)> {
    let mut epochs: Vec<_> =
        fetched.batches.iter().map(|(base_offset, _, epoch, _)| (*epoch, *base_offset)).collect();
    epochs.dedup_by_key(|(epoch, _)| *epoch);
    epochs
}

/// What Kafka's Fetch answered for one partition.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fetched {
    log_start_offset: i64,
    high_watermark: i64,
    last_stable_offset: i64,
    /// Producer id and first offset.
    aborted: Vec<(i64, i64)>,
    /// Base offset, size, leader epoch and CRC, which covers all that follows, of every batch.
    batches: Vec<(i64, usize, i32, u32)>,
}

/// Compares everything that a reader can see of `log` with what Kafka's readers saw.
pub(crate) fn compare_reads(log: &Log, fetched: &Fetched, consumed: &Consumed, place: &str) {
    assert_eq!(log.log_start_offset().0, fetched.log_start_offset, "{place}: log start");
    assert_eq!(log.log_end_offset().0, fetched.high_watermark, "{place}: log end");
    assert_eq!(log.high_watermark().0, fetched.high_watermark, "{place}: high watermark");
    assert_eq!(log.last_stable_offset().0, fetched.last_stable_offset, "{place}: last stable offset");
    assert_eq!(log.damage(), Vec::new(), "{place}: damage");

    let start = log.log_start_offset();
    let (bytes, _) = read_all(log, start, FetchIsolation::HighWatermark);
    let batches = batches_of(&bytes, place);
    let identities = batches
        .iter()
        .map(|batch| (batch.base_offset().0, batch.size(), batch.leader_epoch().0, batch.crc()));
    assert_eq!(identities.collect::<Vec<_>>(), fetched.batches, "{place}: batches");
    let data = batches.iter().filter(|batch| !batch.attributes().is_control());
    let mut records: Vec<_> = data.flat_map(|batch| records_of(batch, place)).collect();
    records.retain(|record| record.offset >= start.0);
    assert_eq!(records, consumed.records, "{place}: records");

    let (bytes, aborted) = read_all(log, start, FetchIsolation::LastStable);
    assert_eq!(aborted, fetched.aborted, "{place}: aborted transactions");
    let committed = committed(&batches_of(&bytes, place), &aborted, start.0, place);
    assert_eq!(committed, consumed.committed, "{place}: committed records");
    compare_times(log, &batches, place);
}

/// What a consumer under `read_committed` shows, by the rule that clients follow: from the first offset of an aborted
/// transaction to the abort marker, the records of its producer are passed over.
fn committed(batches: &[RecordBatch<'_>], aborted: &[(i64, i64)], start: i64, place: &str) -> Vec<i64> {
    let (mut aborting, mut shown) = (BTreeSet::new(), Vec::new());
    for batch in batches {
        let id = batch.producer_id().0;
        let in_batch = batch.base_offset().0..=batch.last_offset().0;
        aborting.extend(aborted.iter().filter(|(_, first)| in_batch.contains(first)).map(|(id, _)| *id));
        if is_abort(batch) {
            aborting.remove(&id);
        }
        let skipped = batch.attributes().is_transactional() && aborting.contains(&id);
        if !skipped && !batch.attributes().is_control() {
            shown.extend(records_of(batch, place).iter().map(|record| record.offset));
        }
    }
    shown.retain(|offset| *offset >= start);
    shown
}

fn is_abort(batch: &RecordBatch<'_>) -> bool {
    if !batch.attributes().is_control() {
        return false;
    }
    let mut records = batch.records(DECOMPRESSED_BYTES_MAX).expect("records");
    let record = records.next_record().expect("a control record").expect("one record");
    match ControlRecord::parse(&record).expect("a control record") {
        ControlRecord::EndTxn(marker) => marker.result == TransactionResult::Abort,
        ControlRecord::Other { .. } => false,
    }
}

/// A look-up by time finds the first record, of data or control, that is not older.
fn compare_times(log: &Log, batches: &[RecordBatch<'_>], place: &str) {
    let start = log.log_start_offset().0;
    let mut records: Vec<RecordFacts> = batches.iter().flat_map(|batch| records_of(batch, place)).collect();
    records.retain(|record| record.offset >= start);
    let targets: BTreeSet<i64> = records
        .iter()
        .flat_map(|record| [record.timestamp - 1, record.timestamp, record.timestamp + 1])
        .collect();
    for target in targets {
        let first = records.iter().find(|record| record.timestamp >= target);
        let expected = first.map(|record| (Offset(record.offset), Timestamp(record.timestamp)));
        let found = log.offset_for_timestamp(Timestamp(target)).expect("a look-up");
        assert_eq!(found.map(|found| (found.offset, found.timestamp)), expected, "{place}: at {target}");
    }
}

/// The producers that a log remembers, in the words of a snapshot's dump.
pub(crate) fn producers(log: &Log) -> BTreeMap<i64, ProducerFacts> {
    let entries = log.producers().into_iter().map(|(id, entry)| {
        let facts = ProducerFacts {
            epoch: entry.epoch.0,
            coordinator_epoch: entry.coordinator_epoch.0,
            last_sequence: entry.last_sequence(),
            last_offset: entry.batches().last().map_or(-1, |batch| batch.last_offset.0),
            txn_first_offset: entry.txn_first_offset.map(|offset| offset.0),
        };
        (id.0, facts)
    });
    entries.collect()
}

/// The producers of a snapshot that the tool dumped.
pub(crate) fn dumped_producers(lines: &[Line]) -> BTreeMap<i64, ProducerFacts> {
    lines.iter().map(|line| (line.number("producerId"), ProducerFacts::dumped(line))).collect()
}
