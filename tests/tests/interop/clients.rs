//! kafka-python and librdkafka at work: fresh batches of theirs, and ours in their hands.

use std::collections::BTreeMap;
use std::fs;

use klamm_record::{Codec, Compression, EndTxnMarker, RecordBatchMut, TransactionResult};
use klamm_tests::skip;
use klamm_tests::tools::PythonEnvironment;
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::expected::{RecordFacts, interop, run};
use crate::golden_batches::read_as_written;
use crate::our_batches::{Shape, record_sets};

const LEADER_EPOCH: LeaderEpoch = LeaderEpoch(5);

#[test]
fn fresh_batches_of_kafka_python_are_read_as_written() {
    read_fresh("fresh_batches_of_kafka_python_are_read_as_written", "kafka-python");
}

#[test]
fn fresh_batches_of_librdkafka_are_read_as_written() {
    read_fresh("fresh_batches_of_librdkafka_are_read_as_written", "librdkafka");
}

#[test]
fn kafka_python_reads_our_batches() {
    let Some(python) = skip::unless("kafka_python_reads_our_batches", clients()) else { return };
    let files = our_files();
    let seen: BTreeMap<String, Vec<BatchSeen>> = read_by(&python, "kafka-python", &files);
    for file in &files {
        assert_eq!(seen.get(&file.name), Some(&file.batches), "{}", file.name);
    }
    assert_eq!(seen.len(), files.len());
}

#[test]
fn librdkafka_consumes_our_batches() {
    let Some(python) = skip::unless("librdkafka_consumes_our_batches", clients()) else { return };
    let files = our_files();
    let seen: BTreeMap<String, Vec<RecordFacts>> = read_by(&python, "librdkafka", &files);
    for file in &files {
        let records: Vec<_> = file.batches.iter().flat_map(|batch| batch.records.iter().cloned()).collect();
        assert_eq!(seen.get(&file.name), Some(&records), "{}", file.name);
    }
    assert_eq!(seen.len(), files.len());
}

/// The pinned clients, installed once.
fn clients() -> Result<PythonEnvironment, klamm_tests::tools::ToolError> {
    let packages: Vec<&str> = include_str!("../../interop/requirements.txt").lines().collect();
    PythonEnvironment::with("clients", &packages)
}

fn read_fresh(test: &str, writer: &str) {
    let Some(python) = skip::unless(test, clients()) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = python.command();
    command.arg(interop().join("write_batches.py")).args(["--writer", writer, "--out"]).arg(directory.path());
    run(&mut command);
    let written = read_as_written(&directory.path().join(writer));
    assert_eq!(written.writer, writer);
}

/// Lets a client read `files` and gives what it saw, by file name.
fn read_by<T: DeserializeOwned>(python: &PythonEnvironment, reader: &str, files: &[OurFile]) -> T {
    let directory = tempfile::tempdir().expect("a directory");
    for file in files {
        let path = directory.path().join(format!("{}.batches", file.name));
        fs::write(path, &file.bytes).expect("a file of batches");
    }
    let mut command = python.command();
    command.arg(interop().join("read_batches.py")).args(["--reader", reader]).arg(directory.path());
    let answer = run(&mut command).output;
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{reader}: {error}: {answer}"))
}

/// A batch as a decoder of batches shows it, and as it was meant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchSeen {
    base_offset: i64,
    last_offset: i64,
    leader_epoch: i32,
    codec: u8,
    log_append_time: bool,
    transactional: bool,
    control: bool,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    last_sequence: i32,
    record_count: i32,
    markers: Vec<(i64, String)>,
    records: Vec<RecordFacts>,
}

/// Batches built here, one after the other from offset 0, and what they are to hold.
struct OurFile {
    name: String,
    bytes: Vec<u8>,
    batches: Vec<BatchSeen>,
}

impl OurFile {
    fn new(name: String) -> Self {
        Self { name, bytes: Vec::new(), batches: Vec::new() }
    }

    fn end_offset(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.last_offset + 1)
    }

    /// Builds the next batch, as a producer's at offset 0 that the log then moves to its place.
    fn batch(&mut self, shape: Shape, records: &[RecordFacts]) {
        let mut bytes = shape.build(records);
        let base_offset = self.end_offset();
        let mut batch = RecordBatchMut::parse(&mut bytes).expect("our own batch");
        batch.assign(Offset(base_offset), LEADER_EPOCH).expect("an offset");
        if let Some(now) = shape.append_time {
            batch.set_append_time(Timestamp(now));
        }
        self.bytes.extend(bytes);
        self.batches.push(meant(shape, records, base_offset));
    }

    /// Ends the transaction of the producer of `shape`.
    fn marker(&mut self, shape: Shape, result: TransactionResult, now: i64) {
        let (id, epoch, _) = shape.producer;
        let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(11) };
        let batch = marker.batch(ProducerId(id), ProducerEpoch(epoch), Timestamp(now), LEADER_EPOCH);
        let mut bytes = batch.expect("a control batch");
        let base_offset = self.end_offset();
        let mut batch = RecordBatchMut::parse(&mut bytes).expect("our own batch");
        batch.assign(Offset(base_offset), LEADER_EPOCH).expect("an offset");
        self.bytes.extend(bytes);
        let outcome = if result == TransactionResult::Commit { "commit" } else { "abort" };
        self.batches.push(BatchSeen {
            codec: 0,
            transactional: true,
            control: true,
            base_timestamp: now,
            max_timestamp: now,
            base_sequence: -1,
            last_sequence: -1,
            record_count: 1,
            last_offset: base_offset,
            markers: vec![(base_offset, outcome.to_owned())],
            records: Vec::new(),
            ..meant(shape, &[], base_offset)
        });
    }
}

/// What a reader must see of a batch, from what it was made of alone.
fn meant(shape: Shape, records: &[RecordFacts], base_offset: i64) -> BatchSeen {
    let (producer_id, producer_epoch, base_sequence) = shape.producer;
    let record_count = i32::try_from(records.len()).expect("a record count");
    let last = i64::from(record_count) - 1;
    // Sequences go from 2^31 - 1 to 0.
    let wrapped = (i64::from(base_sequence) + last).rem_euclid(1 << 31);
    let last_sequence = if base_sequence < 0 { -1 } else { i32::try_from(wrapped).expect("31 bits") };
    let own_max = records.iter().map(|record| record.timestamp).max().unwrap_or(-1);
    let placed = records.iter().zip(base_offset..).map(|(record, offset)| {
        let timestamp = shape.append_time.unwrap_or(record.timestamp);
        RecordFacts { offset, timestamp, ..record.clone() }
    });
    BatchSeen {
        base_offset,
        last_offset: base_offset + last,
        leader_epoch: LEADER_EPOCH.0,
        codec: shape.compression.codec() as u8,
        log_append_time: shape.append_time.is_some(),
        transactional: shape.transactional,
        control: false,
        base_timestamp: records.first().map_or(-1, |record| record.timestamp),
        max_timestamp: shape.append_time.unwrap_or(own_max),
        producer_id,
        producer_epoch,
        base_sequence,
        last_sequence,
        record_count,
        markers: Vec::new(),
        records: placed.collect(),
    }
}

/// Every codec at its default, least and greatest level; producers' marks, transactions, append time, several batches.
fn our_files() -> Vec<OurFile> {
    let sets = record_sets();
    let (shapes, large) = (&sets["every_shape"], &sets["large"]);
    let mut files = Vec::new();
    let mut mixed = OurFile::new("every-codec".to_owned());
    for codec in Codec::ALL {
        let default = Compression::from(codec);
        for compression in levels(codec) {
            let mut file = OurFile::new(format!("{codec}-level-{}", compression.level()));
            file.batch(Shape::plain(compression), shapes);
            file.batch(Shape::plain(compression), large);
            files.push(file);
        }
        mixed.batch(Shape::plain(default), shapes);
        files.push(with_producers(codec, shapes));
    }
    files.push(mixed);
    files
}

/// Idempotent batches over the wrap of the sequence, append time, and a transaction committed and one aborted.
fn with_producers(codec: Codec, records: &[RecordFacts]) -> OurFile {
    let mut file = OurFile::new(format!("{codec}-producers"));
    let plain = Shape::plain(Compression::from(codec));
    file.batch(Shape { producer: (4_000_000_007, 3, i32::MAX - 4), ..plain }, records);
    file.batch(Shape { append_time: Some(1_800_000_000_000), ..plain }, records);
    for (n, result) in [TransactionResult::Commit, TransactionResult::Abort].into_iter().enumerate() {
        let base_sequence = i32::try_from(n * records.len()).expect("a sequence");
        let shape = Shape { producer: (9, i16::MAX, base_sequence), transactional: true, ..plain };
        file.batch(shape, records);
        file.marker(shape, result, 1_800_000_000_001);
    }
    file
}

/// The codec's default level, and its least and greatest within what takes no special memory to read.
fn levels(codec: Codec) -> Vec<Compression> {
    let mut found = vec![Compression::from(codec)];
    if let Some((least, _, greatest)) = codec.levels() {
        found.extend([least, greatest].map(|level| Compression::new(codec, level).expect("a level")));
        found.dedup();
    }
    found
}
