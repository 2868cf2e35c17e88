//! What is built reads back, whatever the codec; what is not a batch never panics.

use klamm_record::{
    BatchBuilder, BatchError, Batches, Codec, Compression, ControlRecord, EndTxnMarker, HEADER_LEN,
    NewRecord, RecordBatch, RecordBatchMut, TimestampType, TransactionResult, recompress,
};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use proptest::prelude::*;

const NO_LIMIT: u64 = u64::MAX;

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

/// A record that owns its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

/// A field that is null, empty, short, or longer than the pieces that codecs are read in; now and then random.
fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        3 => (any::<u8>(), 0..3000usize).prop_map(|(byte, len)| Some(vec![byte; len])),
        1 => (any::<u8>(), 30_000..140_000usize).prop_map(|(byte, len)| Some(vec![byte; len])),
    ]
}

fn header() -> impl Strategy<Value = OwnedHeader> {
    let key = prop_oneof![
        Just(Vec::new()),
        "[a-c]".prop_map(String::into_bytes),
        ".{0,20}".prop_map(String::into_bytes)
    ];
    (key, prop::option::of(prop::collection::vec(any::<u8>(), 0..30)))
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let record = (1..4i64, -5000..5000i64, field(), field(), prop::collection::vec(header(), 0..4));
    prop::collection::vec(record, 0..20).prop_map(|parts| {
        let mut next = 0;
        let owned = parts.into_iter().map(|(gap, timestamp, key, value, headers)| {
            let offset = next + gap - 1;
            next = offset + 1;
            Owned { offset, timestamp: 1_700_000_000_000 + timestamp, key, value, headers }
        });
        owned.collect()
    })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

fn build(builder: BatchBuilder, base_offset: i64, records: &[Owned]) -> Vec<u8> {
    let mut builder = builder.base_offset(Offset(base_offset));
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let new = NewRecord {
            timestamp: Timestamp(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder.append_at(Offset(base_offset + record.offset), &new).expect("a record within bounds");
    }
    builder.build().expect("a batch within bounds")
}

fn read(batch: &RecordBatch<'_>) -> Result<Vec<Owned>, BatchError> {
    let mut records = batch.records(NO_LIMIT)?;
    let mut read = Vec::new();
    while let Some(record) = records.next_record()? {
        let headers: Vec<_> = record.headers().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
        assert_eq!(headers.len(), record.header_count() as usize);
        read.push(Owned {
            offset: record.offset.0 - batch.base_offset().0,
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
        });
    }
    Ok(read)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_built_batch_reads_back(records in records(), codec in codec(), base_offset in 0..i64::from(u32::MAX)) {
        let builder = BatchBuilder::new(codec.into())
            .producer(ProducerId(77), ProducerEpoch(3), i32::MAX - 1)
            .leader_epoch(LeaderEpoch(9))
            .transactional();
        let bytes = build(builder, base_offset, &records);
        let batch = RecordBatch::parse(&bytes).unwrap();
        prop_assert_eq!(batch.bytes(), &bytes[..]);
        prop_assert_eq!(batch.verify_crc(), Ok(()));
        prop_assert_eq!(batch.base_offset(), Offset(base_offset));
        prop_assert_eq!(batch.record_count() as usize, records.len());
        prop_assert_eq!(batch.last_offset_delta() as i64, records.last().map_or(0, |last| last.offset));
        prop_assert_eq!(batch.next_offset(), batch.last_offset().next());
        prop_assert_eq!(batch.producer_id(), ProducerId(77));
        prop_assert_eq!(batch.producer_epoch(), ProducerEpoch(3));
        prop_assert_eq!(batch.leader_epoch(), LeaderEpoch(9));
        prop_assert!(batch.attributes().is_transactional() && !batch.attributes().is_control());
        prop_assert_eq!(batch.max_timestamp().0, records.iter().map(|r| r.timestamp).max().unwrap_or(-1));
        prop_assert_eq!(read(&batch), Ok(records));
    }

    #[test]
    fn another_codec_keeps_everything_else(records in records(), from in codec(), to in codec()) {
        let builder = BatchBuilder::new(from.into()).producer(ProducerId(5), ProducerEpoch(0), 12);
        let bytes = build(builder, 40, &records);
        let source = RecordBatch::parse(&bytes).unwrap();
        let recompressed = recompress(&source, to.into(), NO_LIMIT).unwrap();
        let batch = RecordBatch::parse(&recompressed).unwrap();
        prop_assert_eq!(batch.verify_crc(), Ok(()));
        prop_assert_eq!(batch.attributes().compression(), Ok(to));
        prop_assert_eq!(batch.base_offset(), source.base_offset());
        prop_assert_eq!(batch.last_offset(), source.last_offset());
        prop_assert_eq!(batch.base_timestamp(), source.base_timestamp());
        prop_assert_eq!(batch.max_timestamp(), source.max_timestamp());
        prop_assert_eq!(batch.base_sequence(), 12);
        prop_assert_eq!(read(&batch), Ok(records));
    }

    #[test]
    fn the_size_is_known_before_a_record_is_appended(records in records()) {
        let mut builder = BatchBuilder::new(Compression::NONE);
        for record in &records {
            let headers: Vec<_> = record.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            let timestamp = Timestamp(record.timestamp);
            let mut new = NewRecord::new(timestamp, record.key.as_deref(), record.value.as_deref());
            new.headers = &headers;
            let expected = builder.size_with(&new);
            builder.append(&new).unwrap();
            prop_assert_eq!(builder.size(), expected);
        }
        let size = builder.size();
        prop_assert_eq!(builder.build().unwrap().len(), size);
    }

    #[test]
    fn records_copied_one_by_one_are_the_same(records in records(), codec in codec()) {
        let bytes = build(BatchBuilder::new(codec.into()), 1000, &records);
        let source = RecordBatch::parse(&bytes).unwrap();
        let mut copy = BatchBuilder::new(Compression::NONE).base_offset(Offset(1000));
        let mut cursor = source.records(NO_LIMIT).unwrap();
        while let Some(record) = cursor.next_record().unwrap() {
            copy.append_record(&record).unwrap();
        }
        let copy = copy.build().unwrap();
        prop_assert_eq!(read(&RecordBatch::parse(&copy).unwrap()), Ok(records));
    }

    #[test]
    fn a_patched_batch_has_the_crc_of_its_bytes(
        records in records(),
        codec in codec(),
        now: i64,
        offset in 0..i64::MAX / 2,
        epoch: i32,
    ) {
        let mut bytes = build(BatchBuilder::new(codec.into()), 0, &records);
        let before = bytes.clone();
        let mut batch = RecordBatchMut::parse(&mut bytes).unwrap();
        batch.assign(Offset(offset), LeaderEpoch(epoch)).unwrap();
        batch.set_append_time(Timestamp(now));
        prop_assert_eq!(batch.as_batch().verify_crc(), Ok(()));
        prop_assert_eq!(batch.header().attributes().timestamp_type(), TimestampType::LogAppendTime);
        let view = *batch.header();
        let reparsed = RecordBatch::parse(&bytes).unwrap();
        prop_assert_eq!(reparsed.header(), &view);
        prop_assert_eq!(view.base_offset(), Offset(offset));
        prop_assert_eq!(view.leader_epoch(), LeaderEpoch(epoch));
        prop_assert_eq!(view.max_timestamp(), Timestamp(now));
        prop_assert!(read(&reparsed).unwrap().iter().all(|record| record.timestamp == now));
        // And back: the timestamps of the records were never touched.
        let max_timestamp = RecordBatch::parse(&before).unwrap().max_timestamp();
        RecordBatchMut::parse(&mut bytes).unwrap().set_max_timestamp(max_timestamp);
        let restored = RecordBatch::parse(&bytes).unwrap();
        prop_assert_eq!(restored.verify_crc(), Ok(()));
        prop_assert_eq!(read(&restored), Ok(records));
    }

    #[test]
    fn consecutive_batches_are_walked_to_the_end(counts in prop::collection::vec(0..4usize, 0..6), cut in 1..60usize) {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for (i, count) in counts.iter().enumerate() {
            let mut builder = BatchBuilder::new(Codec::Lz4.into()).base_offset(Offset(i as i64 * 10));
            for _ in 0..*count {
                builder.append(&NewRecord::new(Timestamp(1), None, Some(b"value"))).unwrap();
            }
            starts.push(bytes.len());
            bytes.extend(builder.build().unwrap());
        }
        let mut batches = Batches::new(&bytes);
        for (i, count) in counts.iter().enumerate() {
            prop_assert_eq!(batches.position(), starts[i]);
            prop_assert_eq!(batches.next().unwrap().unwrap().record_count() as usize, *count);
        }
        prop_assert!(batches.next().is_none());
        prop_assert_eq!(batches.position(), bytes.len());
        if let Some(last) = starts.last() {
            let mut batches = Batches::new(&bytes[..bytes.len() - cut]);
            let truncated = batches.by_ref().find(Result::is_err);
            let truncated = matches!(truncated, Some(Err(BatchError::Truncated { .. })));
            prop_assert!(truncated);
            prop_assert_eq!(batches.position(), *last);
            prop_assert!(batches.next().is_none());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for batch in Batches::new(&bytes).flatten() {
            let _ = read(&batch);
        }
    }

    #[test]
    fn a_damaged_batch_never_panics(
        records in records(),
        codec in codec(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(BatchBuilder::new(codec.into()), 0, &records);
        for (index, byte) in damage {
            // Behind the length, so that the damage is not always found by the framing.
            let at = 12 + index.index(bytes.len() - 12);
            bytes[at] = byte;
        }
        if let Ok(batch) = RecordBatch::parse(&bytes)
            && let Ok(mut records) = batch.records(1 << 20)
        {
            let mut count = 0;
            while let Ok(Some(record)) = records.next_record() {
                count += 1 + record.headers().count();
            }
            prop_assert!(count <= bytes.len().max(1 << 20), "a record or header takes at least a byte");
        }
    }
}

#[test]
fn every_level_of_every_codec_reads_back() {
    let text: Vec<u8> = (0..60_000u32).flat_map(|i| (i * i % 977).to_string().into_bytes()).collect();
    for codec in Codec::ALL {
        let (least, _, greatest) = codec.levels().unwrap_or_default();
        for level in [least, -1, 1, 2, 5, 9, 12, 17, greatest] {
            let Ok(compression) = Compression::new(codec, level) else { continue };
            let mut builder = BatchBuilder::new(compression);
            builder.append(&NewRecord::new(Timestamp(1), None, Some(&text))).unwrap();
            let bytes = builder.build().unwrap();
            let batch = RecordBatch::parse(&bytes).unwrap();
            assert_eq!(
                read(&batch).unwrap()[0].value.as_deref(),
                Some(&text[..]),
                "{codec} at level {level}"
            );
        }
    }
}

#[test]
fn the_encoding_is_that_of_kafka() {
    let mut builder = BatchBuilder::new(Compression::NONE)
        .base_offset(Offset(5))
        .leader_epoch(LeaderEpoch(2))
        .producer(ProducerId(1), ProducerEpoch(4), 6);
    let mut record = NewRecord::new(Timestamp(1000), Some(b"k"), Some(b"v"));
    record.headers = &[(b"h", None)];
    builder.append(&record).unwrap();
    builder.append(&NewRecord::new(Timestamp(997), None, None)).unwrap();
    let bytes = builder.build().unwrap();
    let expected_head = [
        0, 0, 0, 0, 0, 0, 0, 5, // base offset
        0, 0, 0, 68, // length
        0, 0, 0, 2, // leader epoch
        2, // magic
    ];
    let expected_tail = [
        0, 0, // attributes
        0, 0, 0, 1, // last offset delta
        0, 0, 0, 0, 0, 0, 3, 232, // base timestamp
        0, 0, 0, 0, 0, 0, 3, 232, // max timestamp
        0, 0, 0, 0, 0, 0, 0, 1, // producer id
        0, 4, // producer epoch
        0, 0, 0, 6, // base sequence
        0, 0, 0, 2, // record count
        // length, attributes, timestamp delta, offset delta, key, value, headers
        22, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1, //
        12, 0, 5, 2, 1, 1, 0,
    ];
    assert_eq!(bytes[..17], expected_head);
    assert_eq!(bytes[21..], expected_tail[..]);
    assert_eq!(bytes.len(), HEADER_LEN + 19);
}

#[test]
fn a_sequence_wraps_to_zero() {
    for (base, count, last) in [(-1, 3, -1), (0, 1, 0), (i32::MAX, 1, i32::MAX), (i32::MAX - 1, 4, 1)] {
        let mut builder =
            BatchBuilder::new(Compression::NONE).producer(ProducerId(1), ProducerEpoch(0), base);
        for _ in 0..count {
            builder.append(&NewRecord::new(Timestamp(1), None, None)).unwrap();
        }
        let bytes = builder.build().unwrap();
        assert_eq!(RecordBatch::parse(&bytes).unwrap().last_sequence(), last);
    }
}

#[test]
fn a_transaction_marker_reads_back() {
    for result in [TransactionResult::Abort, TransactionResult::Commit] {
        let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(21) };
        let bytes = marker.batch(ProducerId(8), ProducerEpoch(1), Timestamp(500), LeaderEpoch(3)).unwrap();
        let batch = RecordBatch::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        assert!(batch.attributes().is_control() && batch.attributes().is_transactional());
        assert_eq!((batch.base_sequence(), batch.last_sequence(), batch.record_count()), (-1, -1, 1));
        let mut records = batch.records(NO_LIMIT).unwrap();
        let record = records.next_record().unwrap().unwrap();
        assert_eq!(record.timestamp, Timestamp(500));
        assert_eq!(ControlRecord::parse(&record), Ok(ControlRecord::EndTxn(marker)));
        assert_eq!(records.next_record(), Ok(None));
    }
}

#[test]
fn a_batch_at_the_end_of_all_offsets_is_refused() {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.append(&NewRecord::new(Timestamp(1), None, None)).unwrap();
    builder.append(&NewRecord::new(Timestamp(1), None, None)).unwrap();
    let mut bytes = builder.build().unwrap();
    let before = bytes.clone();
    let mut batch = RecordBatchMut::parse(&mut bytes).unwrap();
    for base_offset in [Offset(i64::MAX - 1), Offset(-1)] {
        let refused = Err(BatchError::OffsetRange { base_offset, last_offset_delta: 1 });
        assert_eq!(batch.assign(base_offset, LeaderEpoch(1)), refused);
    }
    assert_eq!(batch.as_batch().bytes(), before);
    batch.assign(Offset(i64::MAX - 2), LeaderEpoch(1)).unwrap();
    assert_eq!(batch.header().next_offset(), Offset(i64::MAX));
    bytes[..8].copy_from_slice(&(i64::MAX - 1).to_be_bytes());
    assert!(matches!(RecordBatch::parse(&bytes), Err(BatchError::OffsetRange { .. })));
}
