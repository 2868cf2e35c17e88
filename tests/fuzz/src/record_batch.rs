//! Whatever the bytes: parsing, validating, reading and converting batches never panics, allocates no more than stated,
//! and what validation lets pass is consistent.
#![no_main]

use klamm_fuzz::{CountingAllocator, assert_allocates_at_most};
use klamm_record::{
    BatchBuilder, BatchError, Batches, Codec, CodecMemory, Compression, ControlRecord, HEADER_LEN, Origin,
    RecordBatch, RecordBatchMut, TimestampType, ValidationOptions, recompress, validate, validate_with,
};
use klamm_types::{LeaderEpoch, Offset, Timestamp};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The limit given to every decompressor, in bytes.
const DECOMPRESSED_MAX: usize = 256 << 10;
/// What decompressors and compressors take whatever their input: tables, and pieces of 32 KiB.
const FIXED: usize = 512 << 10;
/// What validation may allocate: one piece of output, never a multiple of its input.
const VALIDATE_MAX: usize = DECOMPRESSED_MAX + FIXED;
/// What reading may allocate: one piece, and a record gathered from several, in a vector that grows by doubling.
const READ_MAX: usize = 4 * DECOMPRESSED_MAX + FIXED;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    walk(bytes);
    check(bytes);
    if let Some(sealed) = sealed(bytes) {
        walk(&sealed);
        check(&sealed);
        patch(sealed);
    }
});

/// The bytes with what no mutation can guess put right: length, magic and CRC.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < HEADER_LEN {
        return None;
    }
    let mut bytes = bytes.to_vec();
    let length = i32::try_from(bytes.len() - 12).ok()?;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(bytes)
}

/// Reads all records of all batches.
fn walk(bytes: &[u8]) {
    let mut batches = Batches::new(bytes);
    while let Some(Ok(batch)) = batches.next() {
        assert!(batches.position() <= bytes.len());
        let _ = assert_allocates_at_most(READ_MAX, "reading", || read(&batch));
    }
}

/// Reads all records and returns how many there are.
fn read(batch: &RecordBatch<'_>) -> Result<i32, BatchError> {
    let mut records = batch.records(DECOMPRESSED_MAX as u64)?;
    let mut count = 0;
    while let Some(record) = records.next_record()? {
        assert!((batch.base_offset()..=batch.last_offset()).contains(&record.offset));
        let headers = record.headers();
        assert_eq!(headers.len(), headers.count());
        let _ = ControlRecord::parse(&record);
        count += 1;
    }
    Ok(count)
}

/// Validates, under options that the input does not choose, and holds validation to its word.
fn check(bytes: &[u8]) {
    // What the first validation leaves behind must not show in the second.
    let mut memory = CodecMemory::default();
    for (origin, timestamp_type) in
        [(Origin::Client, TimestampType::CreateTime), (Origin::Coordinator, TimestampType::LogAppendTime)]
    {
        let options = ValidationOptions {
            origin,
            key_required: false,
            timestamp_type,
            now: NOW,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            decompressed_bytes_max: DECOMPRESSED_MAX as u64,
        };
        let validated = assert_allocates_at_most(VALIDATE_MAX, "validation", || {
            validate_with(bytes, &options, &mut memory)
        });
        assert_eq!(validated.is_ok(), validate(bytes, &options).is_ok());
        let Ok(validated) = validated else { continue };
        let batch = validated.batch;
        assert_eq!(batch.bytes().len(), bytes.len());
        assert_eq!(validated.record_count, batch.last_offset_delta() + 1);
        if timestamp_type == TimestampType::CreateTime {
            assert_eq!(read(&batch), Ok(validated.record_count), "what is valid can be read");
            convert(&batch, validated.max_timestamp);
        }
    }
}

/// Rebuilds and recompresses a valid batch; nothing may change but its encoding.
fn convert(batch: &RecordBatch<'_>, max_timestamp: Timestamp) {
    let mut builder = BatchBuilder::new(Compression::NONE);
    let mut records = batch.records(DECOMPRESSED_MAX as u64).expect("a valid batch");
    while let Some(record) = records.next_record().expect("a valid record") {
        builder.append_record(&record).expect("a record that was in a batch");
    }
    let rebuilt = builder.build().expect("a batch");
    let rebuilt = RecordBatch::parse(&rebuilt).expect("a batch");
    assert_eq!(rebuilt.max_timestamp(), max_timestamp);
    let codec = [Codec::Lz4, Codec::Snappy, Codec::Gzip, Codec::Zstd, Codec::None][batch.crc() as usize % 5];
    let other = recompress(batch, codec.into(), DECOMPRESSED_MAX as u64).expect("a valid batch");
    let other = RecordBatch::parse(&other).expect("a batch");
    other.verify_crc().expect("a crc");
    let (mut left, mut right) =
        (rebuilt.records(u64::MAX).expect("records"), other.records(u64::MAX).expect("records"));
    loop {
        let (left, right) = (left.next_record().expect("a record"), right.next_record().expect("a record"));
        let (Some(left), Some(right)) = (left, right) else {
            assert_eq!(left, right);
            break;
        };
        assert_eq!((left.offset, left.timestamp), (right.offset, right.timestamp));
        assert_eq!((left.key, left.value), (right.key, right.value));
        assert!(left.headers().eq(right.headers()));
    }
}

/// Patches the batch in place; its CRC must follow.
fn patch(mut bytes: Vec<u8>) {
    let Ok(mut batch) = RecordBatchMut::parse(&mut bytes) else { return };
    batch.set_append_time(NOW);
    batch.as_batch().verify_crc().expect("a corrected crc");
    batch.set_max_timestamp(Timestamp(i64::MAX));
    batch.as_batch().verify_crc().expect("a corrected crc");
    if batch.assign(Offset(1 << 40), LeaderEpoch(7)).is_ok() {
        batch.as_batch().verify_crc().expect("a crc that does not cover offset and epoch");
    }
    let header = *batch.header();
    assert_eq!(RecordBatch::parse(&bytes).expect("a batch").header(), &header);
}
