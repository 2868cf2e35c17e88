//! Batches that kafka-python and librdkafka wrote once; needs no foreign tool.

use std::collections::BTreeSet;
use std::path::Path;

use klamm_record::{
    Codec, Compression, Origin, RecordBatch, TimestampType, ValidationOptions, recompress, validate,
};
use klamm_types::Timestamp;

use crate::expected::{
    DECOMPRESSED_BYTES_MAX, HeaderFacts, RecordFacts, Written, batches_of, interop, read_bytes, records_of,
};

#[test]
fn kafka_python_batches_are_read_as_written() {
    let written = read_as_written(&interop().join("golden").join("kafka-python"));
    assert_eq!(written.writer, "kafka-python");
}

#[test]
fn librdkafka_batches_are_read_as_written() {
    let written = read_as_written(&interop().join("golden").join("librdkafka"));
    assert_eq!(written.writer, "librdkafka");
}

/// Compares every header and every record of every file in `directory` with what its encoder was asked to write.
pub(crate) fn read_as_written(directory: &Path) -> Written {
    let written = Written::in_directory(directory);
    let mut covered = BTreeSet::new();
    for case in &written.cases {
        let place = format!("{} {}: {}", written.writer, written.version, case.name);
        let bytes = read_bytes(&directory.join(&case.name).with_extension("batches"));
        let batches = batches_of(&bytes, &place);
        let headers: Vec<HeaderFacts> = batches.iter().map(HeaderFacts::of).collect();
        assert_eq!(headers, case.batches, "{place}");
        let records: Vec<_> = batches.iter().flat_map(|batch| records_of(batch, &place)).collect();
        assert_eq!(records, written.records(case), "{place}");
        for batch in &batches {
            validates(batch, &records, &place);
            recompresses(batch, &place);
        }
        covered.extend(
            headers.iter().map(|header| (header.codec, header.transactional, header.producer_id >= 0)),
        );
    }
    for codec in 0..=4 {
        for (transactional, idempotent) in [(false, false), (false, true), (true, true)] {
            let wanted = (codec, transactional, idempotent);
            assert!(covered.contains(&wanted), "{}: nothing with {wanted:?}", written.writer);
        }
    }
    written
}

/// A broker takes the batch, and finds in it what its encoder put there.
fn validates(batch: &RecordBatch<'_>, written: &[RecordFacts], place: &str) {
    let options = ValidationOptions {
        origin: Origin::Client,
        key_required: false,
        timestamp_type: TimestampType::CreateTime,
        now: batch.max_timestamp(),
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    };
    let found = validate(batch.bytes(), &options).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(usize::try_from(found.record_count), Ok(written.len()), "{place}");
    let max = written.iter().map(|record| record.timestamp).max();
    assert_eq!(Some(found.max_timestamp), max.map(Timestamp), "{place}");
    let first_with_max = written.iter().position(|record| Some(record.timestamp) == max);
    assert_eq!(usize::try_from(found.max_timestamp_offset_delta).ok(), first_with_max, "{place}");
}

/// Under any other codec the batch holds the same records and the same marks.
fn recompresses(batch: &RecordBatch<'_>, place: &str) {
    for codec in Codec::ALL {
        let bytes = recompress(batch, Compression::from(codec), DECOMPRESSED_BYTES_MAX)
            .unwrap_or_else(|error| panic!("{place}: to {codec}: {error}"));
        let again = batches_of(&bytes, place);
        let [again] = again.as_slice() else { panic!("{place}: {} batches in {codec}", again.len()) };
        let expected =
            HeaderFacts { size: bytes.len(), crc: again.crc(), codec: codec as u8, ..HeaderFacts::of(batch) };
        assert_eq!(HeaderFacts::of(again), expected, "{place}: in {codec}");
        assert_eq!(records_of(again, place), records_of(batch, place), "{place}: in {codec}");
    }
}
