//! A log directory written here, with a model of what is in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use klamm_log::{AppendOrigin, FetchIsolation, Log, LogConfig};
use klamm_record::{Codec, Compression, EndTxnMarker, RecordBatchMut, TimestampType, TransactionResult};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::dump_tool::Line;
use crate::expected::{Blob, RecordFacts};
use crate::golden_segments::{Consumed, Transactions};
use crate::our_batches::{Shape, record_sets};
use crate::our_directory::{NOW, OurDirectory, kept};

const BASE_TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// What one producer left in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerFacts {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) txn_first_offset: Option<i64>,
}

impl ProducerFacts {
    /// From a line that the dump tool printed about a snapshot.
    pub(crate) fn dumped(line: &Line) -> Self {
        let narrow = |name| i32::try_from(line.number(name)).expect("32 bits");
        // Without a batch in the producer's epoch the tool says nothing of one.
        let has_batch = line.text("lastSequence").is_some();
        Self {
            epoch: i16::try_from(line.number("producerEpoch")).expect("16 bits"),
            coordinator_epoch: narrow("coordinatorEpoch"),
            last_sequence: if has_batch { narrow("lastSequence") } else { -1 },
            last_offset: if has_batch { line.number("lastOffset") } else { -1 },
            txn_first_offset: line.optional("currentTxnFirstOffset"),
        }
    }
}

/// A partition's log, and everything that was put into it.
pub(crate) struct OurPartition {
    log: Arc<Log>,
    epoch: LeaderEpoch,
    pub(crate) end: Offset,
    /// As they stand in the log, with offsets and epoch assigned.
    pub(crate) batches: Vec<Vec<u8>>,
    pub(crate) records: Vec<RecordFacts>,
    transactions: Transactions,
    /// Producer id, first and last offset, and last stable offset of each aborted transaction.
    pub(crate) aborted: Vec<[i64; 4]>,
    pub(crate) producers: BTreeMap<i64, ProducerFacts>,
}

impl OurPartition {
    fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            epoch: LeaderEpoch(0),
            end: Offset(0),
            batches: Vec::new(),
            records: Vec::new(),
            transactions: Transactions::default(),
            aborted: Vec::new(),
            producers: BTreeMap::new(),
        }
    }

    /// What consumers must read from `start` on.
    pub(crate) fn consumed(&self, start: i64) -> Consumed {
        let mut consumed =
            Consumed { committed: self.transactions.committed(), records: self.records.clone() };
        consumed.records.retain(|record| record.offset >= start);
        consumed.committed.retain(|offset| *offset >= start);
        consumed
    }

    fn append(&mut self, mut bytes: Vec<u8>, origin: AppendOrigin) -> Offset {
        let info = self.log.append_as_leader(&bytes, self.epoch, origin, NOW).expect("an append");
        assert_eq!(info.first_offset, self.end);
        let mut batch = RecordBatchMut::parse(&mut bytes).expect("our own batch");
        batch.assign(info.first_offset, self.epoch).expect("an offset");
        if info.append_time != Timestamp::NONE {
            batch.set_append_time(info.append_time);
        }
        self.batches.push(bytes);
        self.end = info.last_offset.next();
        self.log.advance_high_watermark(self.end);
        info.first_offset
    }

    /// Appends one batch of a client.
    fn batch(&mut self, shape: Shape, records: &[RecordFacts]) {
        let first = self.append(shape.build(records), AppendOrigin::Client).0;
        let placed = records.iter().zip(first..).map(|(record, offset)| {
            let timestamp = shape.append_time.unwrap_or(record.timestamp);
            RecordFacts { offset, timestamp, ..record.clone() }
        });
        self.records.extend(placed);
        let (id, epoch, base_sequence) = shape.producer;
        let offsets = first..self.end.0;
        if id >= 0 {
            let count = i64::try_from(records.len()).expect("a count");
            // Sequences go from 2^31 - 1 to 0.
            let last = (i64::from(base_sequence) + count - 1).rem_euclid(1 << 31);
            let before = self.producers.get(&id);
            let facts = ProducerFacts {
                epoch,
                coordinator_epoch: before.map_or(-1, |before| before.coordinator_epoch),
                last_sequence: i32::try_from(last).expect("31 bits"),
                last_offset: offsets.end - 1,
                txn_first_offset: before
                    .and_then(|before| before.txn_first_offset)
                    .or(shape.transactional.then_some(first)),
            };
            self.producers.insert(id, facts);
        }
        self.transactions.add(shape.transactional.then_some(id), offsets);
    }

    /// Ends the transaction of a producer.
    fn end(&mut self, id: i64, coordinator_epoch: i32, result: TransactionResult) {
        let facts = self.producers.get_mut(&id).expect("a producer with a transaction");
        let first = facts.txn_first_offset.take().expect("an open transaction");
        facts.coordinator_epoch = coordinator_epoch;
        let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(coordinator_epoch) };
        let epoch = ProducerEpoch(facts.epoch);
        let bytes = marker.batch(ProducerId(id), epoch, NOW, self.epoch).expect("a marker");
        let last = self.append(bytes, AppendOrigin::Internal).0;
        self.transactions.end(id, result);
        if result == TransactionResult::Abort {
            let stable = self.producers.values().filter_map(|facts| facts.txn_first_offset).min();
            self.aborted.push([id, first, last, stable.unwrap_or(last + 1)]);
        }
    }
}

/// Writes every partition of the directory, and stops it cleanly.
pub(crate) fn write(path: &Path) -> BTreeMap<&'static str, OurPartition> {
    let directory = OurDirectory::open(path);
    let partitions = BTreeMap::from([
        ("codecs", codecs(&directory)),
        ("idempotent", idempotent(&directory)),
        ("transactions", transactions(&directory)),
        ("append-time", append_time(&directory)),
        ("moved-start", moved_start(&directory)),
    ]);
    directory.close();
    partitions
}

/// Every codec with every shape of record, under several leader epochs; segments roll by size.
fn codecs(directory: &OurDirectory) -> OurPartition {
    let config = LogConfig { segment_bytes: 200_000, index_interval_bytes: 1_000, ..kept() };
    let mut partition = OurPartition::new(directory.create("codecs", config));
    let sets = record_sets();
    for epoch in [0, 1, 4, 5] {
        partition.epoch = LeaderEpoch(epoch);
        for codec in Codec::ALL {
            let shape = Shape::plain(Compression::from(codec));
            partition.batch(shape, &sets["every_shape"]);
            partition.batch(shape, &sets["large"]);
        }
    }
    partition
}

/// Three producers that take turns, one over the wrap of its sequence and one into a new epoch; segments roll by time.
fn idempotent(directory: &OurDirectory) -> OurPartition {
    let config = LogConfig { segment_ms: 60_000, index_interval_bytes: 100, ..kept() };
    let mut partition = OurPartition::new(directory.create("idempotent", config));
    let mut sequences = BTreeMap::from([(1_000, 0), (2_000, i32::MAX - 5), (3_000, 7)]);
    for n in 0..30 {
        let id = i64::from(n % 3 + 1) * 1_000;
        let sequence = sequences.get_mut(&id).expect("a producer");
        let mut epoch = 2;
        if id == 3_000 && n >= 15 {
            epoch = 3;
            *sequence = if n < 18 { 0 } else { *sequence };
        }
        let shape = Shape { producer: (id, epoch, *sequence), ..Shape::plain(Compression::from(Codec::Lz4)) };
        partition.batch(shape, &pair(n * 10_000));
        *sequence = i32::try_from((i64::from(*sequence) + 2).rem_euclid(1 << 31)).expect("31 bits");
    }
    partition
}

/// Transactions of two producers that overlap, committed and aborted, with plain batches between; one is never decided.
fn transactions(directory: &OurDirectory) -> OurPartition {
    let config = LogConfig { segment_bytes: 4_000, index_interval_bytes: 200, ..kept() };
    let mut partition = OurPartition::new(directory.create("transactions", config));
    let shape = |id, n| Shape {
        producer: (id, 0, 4 * n),
        transactional: true,
        ..Shape::plain(Compression::from(Codec::Zstd))
    };
    let outcome = |committed| if committed { TransactionResult::Commit } else { TransactionResult::Abort };
    for n in 0..20 {
        partition.batch(shape(7, n), &pair(n * 1_000));
        partition.batch(shape(8, n), &pair(n * 1_000 + 1));
        partition.batch(Shape::plain(Compression::NONE), &pair(n * 1_000 + 2));
        let mut second = shape(7, n);
        second.producer.2 += 2;
        partition.batch(second, &pair(n * 1_000 + 3));
        partition.end(7, 3, outcome(n % 2 == 0));
        let mut second = shape(8, n);
        second.producer.2 += 2;
        partition.batch(second, &pair(n * 1_000 + 4));
        partition.end(8, 4, outcome(n % 3 == 0));
    }
    partition.batch(shape(9, 0), &pair(100_000));
    partition.batch(Shape::plain(Compression::NONE), &pair(100_001));
    partition
}

/// The broker's clock in place of the producers'.
fn append_time(directory: &OurDirectory) -> OurPartition {
    let config = LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..kept() };
    let mut partition = OurPartition::new(directory.create("append-time", config));
    for (n, codec) in (0..).zip(Codec::ALL) {
        let shape = Shape { append_time: Some(NOW.0), ..Shape::plain(Compression::from(codec)) };
        partition.batch(shape, &pair(n * 10));
    }
    partition
}

/// The tail was truncated and written again by a later leader, and the head was deleted within a batch.
fn moved_start(directory: &OurDirectory) -> OurPartition {
    let config = LogConfig { segment_bytes: 1_000, index_interval_bytes: 100, ..kept() };
    let mut partition = OurPartition::new(directory.create("moved-start", config));
    let shape = Shape::plain(Compression::NONE);
    for n in 0..30 {
        partition.batch(shape, &pair(n * 10));
        if n == 20 {
            let end = partition.log.truncate_to(Offset(36), NOW).expect("a truncation");
            assert_eq!(end, Offset(36));
            partition.end = end;
            partition.batches.truncate(18);
            partition.records.truncate(36);
            partition.transactions.truncate(36);
            partition.epoch = LeaderEpoch(3);
        }
    }
    partition.log.advance_log_start(Offset(15)).expect("a log start below the high watermark");
    assert!(
        partition.log.apply_retention(NOW).expect("retention") > 0,
        "no segment lies below the log start"
    );
    let later = Timestamp(NOW.0 + partition.log.config().file_delete_delay_ms);
    assert_eq!(partition.log.remove_deleted(later).expect("removed files"), 0);
    partition
}

fn pair(after: i32) -> [RecordFacts; 2] {
    let record = |offset: i64, text: &str| RecordFacts {
        offset,
        timestamp: BASE_TIMESTAMP_MS + i64::from(after) + offset,
        key: Some(Blob(format!("key {after}").into_bytes())),
        value: Some(Blob(text.repeat(10).into_bytes())),
        headers: vec![("n".to_owned(), None)],
    };
    [record(0, "one and "), record(1, "another ")]
}

/// Whole batches from `start` to the end that `isolation` sets, and the aborted transactions told on the way, as
/// producer id and first offset.
pub(crate) fn read_all(log: &Log, start: Offset, isolation: FetchIsolation) -> (Vec<u8>, Vec<(i64, i64)>) {
    const FETCH_BYTES_MAX: usize = 10_000;
    let (mut bytes, mut aborted, mut next) = (Vec::new(), Vec::new(), start);
    loop {
        let found = log.read(next, FETCH_BYTES_MAX, isolation).expect("a read within the log");
        let Some(slice) = found.slice else { break };
        let piece = slice.to_vec().expect("the bytes of a slice");
        let before = next;
        for batch in klamm_record::Batches::new(&piece).map_while(Result::ok) {
            bytes.extend_from_slice(batch.bytes());
            next = batch.next_offset();
        }
        assert!(next > before, "a read at {before} holds no whole batch");
        aborted.extend(found.aborted.iter().map(|txn| (txn.producer_id.0, txn.first_offset.0)));
    }
    aborted.sort_unstable();
    aborted.dedup();
    (bytes, aborted)
}
