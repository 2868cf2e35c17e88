//! The segment files of a real Kafka, read batch by batch without the log; needs no foreign tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use klamm_record::{ControlRecord, RecordBatch, TransactionResult};
use serde::Deserialize;

use crate::dump_tool::{Dump, Line};
use crate::expected::{
    DECOMPRESSED_BYTES_MAX, HeaderFacts, RecordFacts, batches_of, interop, read_bytes, read_json, records_of,
};
use crate::kafka_log::Fetched;
use crate::kafka_tools::files_of_kind;

/// What Kafka's consumer read from one partition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consumed {
    /// The offsets that a consumer with `read_committed` was given.
    pub(crate) committed: Vec<i64>,
    /// Every record, decided or not.
    pub(crate) records: Vec<RecordFacts>,
}

/// A log directory that Kafka wrote, with what Kafka itself says of it.
pub(crate) struct KafkaDirectory {
    pub(crate) data: PathBuf,
    pub(crate) dump: Dump,
    pub(crate) consumed: BTreeMap<String, Consumed>,
    pub(crate) fetched: BTreeMap<String, Fetched>,
}

impl KafkaDirectory {
    pub(crate) fn golden() -> Self {
        Self::at(&interop().join("golden").join("kafka-4.3.1"))
    }

    pub(crate) fn at(directory: &Path) -> Self {
        let truth = directory.join("truth");
        let dump = Dump::parse(&String::from_utf8(read_bytes(&truth.join("dump.txt"))).expect("text"));
        assert_eq!(dump.complaints, Vec::<String>::new(), "Kafka complains of its own files");
        assert!(!dump.gaps.is_empty(), "nothing was compacted away");
        assert!(dump.gaps.iter().all(|(path, ..)| path.starts_with("compacted-0/")), "{:?}", dump.gaps);
        let consumed = read_json(&truth.join("records.json"));
        let fetched = read_json(&truth.join("fetched.json"));
        Self { data: directory.join("data"), dump, consumed, fetched }
    }
}

#[test]
fn segments_of_kafka_are_read_as_its_tools_and_clients_read_them() {
    read_segments(&KafkaDirectory::golden());
}

/// Compares every batch with the line that `DumpLogSegments` has for it, and every record with the consumer's.
pub(crate) fn read_segments(directory: &KafkaDirectory) {
    let mut covered = BTreeSet::new();
    for (partition, consumed) in &directory.consumed {
        let mut records = Vec::new();
        let mut transactions = Transactions::default();
        for segment in files_of_kind(&directory.data.join(partition), ".log") {
            let name = segment.file_name().and_then(|name| name.to_str()).expect("a segment's name");
            let place = format!("{partition}/{name}");
            let bytes = read_bytes(&segment);
            let batches = batches_of(&bytes, &place);
            let listed = listed_batches(directory.dump.file(&place));
            assert_eq!(batches.len(), listed.len(), "{place}");
            for (batch, (line, about_records)) in batches.iter().zip(listed) {
                compare_header(batch, line, &place);
                covered.extend(line.text("compresscodec"));
                if let [marker] = about_records.as_slice() {
                    let result = compare_marker(batch, marker, &place);
                    transactions.end(batch.producer_id().0, result);
                    covered.extend(marker.text("endTxnMarker"));
                } else {
                    let found = records_of(batch, &place);
                    let producer = batch.attributes().is_transactional().then_some(batch.producer_id().0);
                    transactions.add(producer, found.iter().map(|record| record.offset));
                    records.extend(found);
                }
            }
        }
        // Records below the log's start stay in their segment until the segment goes.
        let start = consumed.records.first().map_or(0, |record| record.offset);
        records.retain(|record| record.offset >= start);
        assert_eq!(records, consumed.records, "{partition}");
        let mut committed = transactions.committed();
        committed.retain(|offset| *offset >= start);
        assert_eq!(committed, consumed.committed, "{partition}");
    }
    for feature in ["none", "gzip", "snappy", "lz4", "zstd", "COMMIT", "ABORT"] {
        assert!(covered.contains(feature), "nothing with {feature} in {covered:?}");
    }
}

/// The batches of a segment as the tool lists them, each with the lines about its records.
pub(crate) fn listed_batches(lines: &[Line]) -> Vec<(&Line, Vec<&Line>)> {
    let mut listed: Vec<(&Line, Vec<&Line>)> = Vec::new();
    for line in lines {
        match listed.last_mut() {
            Some((_, records)) if line.is_record => records.push(line),
            _ => listed.push((line, Vec::new())),
        }
    }
    listed
}

/// Compares a batch's header with the tool's line, field by field.
pub(crate) fn compare_header(batch: &RecordBatch<'_>, line: &Line, place: &str) {
    let header = HeaderFacts::of(batch);
    let time = if header.log_append_time { "LogAppendTime" } else { "CreateTime" };
    let numbers = [
        ("baseOffset", header.base_offset),
        ("lastOffset", header.last_offset),
        ("count", header.record_count.into()),
        ("baseSequence", header.base_sequence.into()),
        ("lastSequence", batch.last_sequence().into()),
        ("producerId", header.producer_id),
        ("producerEpoch", header.producer_epoch.into()),
        ("partitionLeaderEpoch", header.leader_epoch.into()),
        (time, header.max_timestamp),
        ("size", i64::try_from(header.size).expect("a size")),
        ("magic", 2),
        ("crc", header.crc.into()),
    ];
    for (name, number) in numbers {
        assert_eq!(line.number(name), number, "{place}: {name} of the batch at {}", header.base_offset);
    }
    let codec = batch.attributes().compression().expect("a known codec");
    assert_eq!(line.text("compresscodec"), Some(codec.name()), "{place}: {line:?}");
    assert_eq!(line.flag("isTransactional"), header.transactional, "{place}: {line:?}");
    assert_eq!(line.flag("isControl"), header.control, "{place}: {line:?}");
    let has_horizon = line.optional("deleteHorizonMs").is_some();
    assert_eq!(batch.attributes().has_delete_horizon(), has_horizon, "{place}: {line:?}");
}

/// Compares a control batch with what the tool read from its one record.
fn compare_marker(batch: &RecordBatch<'_>, line: &Line, place: &str) -> TransactionResult {
    let mut records = batch.records(DECOMPRESSED_BYTES_MAX).expect("records");
    let record = records.next_record().expect("a control record").expect("one record");
    assert_eq!(record.offset.0, line.number("offset"), "{place}");
    let ControlRecord::EndTxn(marker) = ControlRecord::parse(&record).expect("a control record") else {
        panic!("{place}: no transaction marker at {}", record.offset);
    };
    let result = match marker.result {
        TransactionResult::Abort => "ABORT",
        TransactionResult::Commit => "COMMIT",
    };
    assert_eq!(line.text("endTxnMarker"), Some(result), "{place}: {line:?}");
    assert_eq!(i64::from(marker.coordinator_epoch.0), line.number("coordinatorEpoch"), "{place}: {line:?}");
    assert!(records.next_record().expect("the end").is_none(), "{place}: a second control record");
    marker.result
}

/// Which records a reader of committed data may see, from what was appended in its order.
#[derive(Default)]
pub(crate) struct Transactions {
    decided: BTreeSet<i64>,
    open: BTreeMap<i64, Vec<i64>>,
}

impl Transactions {
    /// Records at `offsets`, in the transaction of a producer or in none.
    pub(crate) fn add(&mut self, producer_id: Option<i64>, offsets: impl IntoIterator<Item = i64>) {
        match producer_id {
            Some(producer_id) => self.open.entry(producer_id).or_default().extend(offsets),
            None => self.decided.extend(offsets),
        }
    }

    pub(crate) fn end(&mut self, producer_id: i64, result: TransactionResult) {
        let offsets = self.open.remove(&producer_id).unwrap_or_default();
        if result == TransactionResult::Commit {
            self.decided.extend(offsets);
        }
    }

    /// Forgets what was decided from `end` on.
    pub(crate) fn truncate(&mut self, end: i64) {
        self.decided.retain(|offset| *offset < end);
    }

    /// Nothing from the first record of an open transaction on.
    pub(crate) fn committed(&self) -> Vec<i64> {
        let end = self.open.values().flatten().min().copied().unwrap_or(i64::MAX);
        self.decided.range(..end).copied().collect()
    }
}
