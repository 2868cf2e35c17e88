//! The malformed-input table, rows W31 to W42: what a broker must refuse, and as what.

use std::io::Write;

use klamm_record::{
    BatchBuilder, BatchError, Codec, CodecError, CompressError, Compression, Compressor, EndTxnMarker,
    NewRecord, Origin, RecordBatch, RecordError, Refusal, TimestampType, TransactionResult, Validated,
    ValidationError, ValidationOptions, validate,
};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

const NOW: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn options() -> ValidationOptions {
    ValidationOptions {
        origin: Origin::Client,
        key_required: false,
        timestamp_type: TimestampType::CreateTime,
        now: Timestamp(NOW),
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: HOUR_MS,
        decompressed_bytes_max: 64 << 20,
    }
}

/// The fields of a batch to be sent, right or wrong.
#[derive(Clone)]
struct Raw {
    base_offset: i64,
    length_change: i32,
    magic: i8,
    crc_change: u32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    record_count: i32,
    payload: Vec<u8>,
}

impl Raw {
    /// A good batch with these records.
    fn new(records: &[Vec<u8>]) -> Self {
        Self {
            base_offset: 0,
            length_change: 0,
            magic: 2,
            crc_change: 0,
            attributes: 0,
            last_offset_delta: records.len() as i32 - 1,
            base_timestamp: NOW,
            max_timestamp: NOW,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: records.len() as i32,
            payload: records.concat(),
        }
    }

    /// A good batch of `count` small records.
    fn small(count: i32) -> Self {
        Self::new(&(0..count).map(|delta| record(0, delta, Some(b"key"), Some(b"value"))).collect::<Vec<_>>())
    }

    /// The batch with this payload, said to be of that codec.
    fn with_payload(mut self, codec: Codec, payload: Vec<u8>) -> Self {
        let number = Codec::ALL.iter().position(|c| *c == codec).expect("a known codec");
        self.attributes = self.attributes & !7 | number as i16;
        self.payload = payload;
        self
    }

    /// The batch with its payload compressed.
    fn compressed(self, codec: Codec) -> Self {
        let payload = compress(codec, &self.payload).expect("compression works");
        self.with_payload(codec, payload)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.base_offset.to_be_bytes());
        bytes.extend((49 + self.payload.len() as i32 + self.length_change).to_be_bytes());
        bytes.extend((-1i32).to_be_bytes());
        bytes.extend(self.magic.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.attributes.to_be_bytes());
        bytes.extend(self.last_offset_delta.to_be_bytes());
        bytes.extend(self.base_timestamp.to_be_bytes());
        bytes.extend(self.max_timestamp.to_be_bytes());
        bytes.extend(self.producer_id.to_be_bytes());
        bytes.extend(self.producer_epoch.to_be_bytes());
        bytes.extend(self.base_sequence.to_be_bytes());
        bytes.extend(self.record_count.to_be_bytes());
        bytes.extend(&self.payload);
        let crc = crc32c::crc32c(&bytes[21..]) ^ self.crc_change;
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn error(&self) -> ValidationError {
        self.error_under(&options())
    }

    fn error_under(&self, options: &ValidationOptions) -> ValidationError {
        validate(&self.bytes(), options).expect_err("a batch to be refused")
    }

    fn refusal(&self) -> Refusal {
        self.error().refusal()
    }

    /// Refused alike as it is and under every codec: the walk over the records is one.
    fn refused_under_every_codec(&self, expected: Refusal) {
        for codec in Codec::ALL {
            let error = self.clone().compressed(codec).error();
            assert_eq!(error.refusal(), expected, "{codec}: {error}");
        }
    }
}

fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
    let mut compressor = Compressor::new(codec.into(), Vec::new())?;
    compressor.write(bytes)?;
    compressor.finish()
}

fn varint(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
    bytes
}

fn nullable(bytes: Option<&[u8]>) -> Vec<u8> {
    bytes.map_or(varint(-1), |bytes| [varint(bytes.len() as i64), bytes.to_vec()].concat())
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [varint(body.len() as i64), body.to_vec()].concat()
}

fn record(timestamp_delta: i64, offset_delta: i32, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    with_length(&body(timestamp_delta, offset_delta, &[nullable(key), nullable(value), varint(0)]))
}

fn body(timestamp_delta: i64, offset_delta: i32, fields: &[Vec<u8>]) -> Vec<u8> {
    [&[0][..], &varint(timestamp_delta), &varint(i64::from(offset_delta)), &fields.concat()].concat()
}

/// A batch of one record with these bytes after the deltas.
fn one_record(fields: &[Vec<u8>]) -> Raw {
    Raw::new(&[with_length(&body(0, 0, fields))])
}

fn record_error(error: ValidationError) -> RecordError {
    match error {
        ValidationError::Batch(BatchError::Record { error, .. }) => error,
        other => panic!("not a record's fault: {other}"),
    }
}

fn codec_error(error: ValidationError) -> CodecError {
    match error {
        ValidationError::Batch(BatchError::Codec(error)) => error,
        other => panic!("not a codec's fault: {other}"),
    }
}

#[test]
fn a_good_batch_passes_and_is_described() {
    for codec in Codec::ALL {
        let records =
            [record(5, 0, Some(b"a"), None), record(9, 1, None, Some(b"b")), record(9, 2, None, None)];
        let raw = Raw::new(&records).compressed(codec);
        let bytes = raw.bytes();
        let validated: Validated<'_> = validate(&bytes, &options()).unwrap();
        assert_eq!(validated.record_count, 3);
        assert_eq!(validated.max_timestamp, Timestamp(NOW + 9));
        assert_eq!(validated.max_timestamp_offset_delta, 1, "the first record with the largest timestamp");
        assert_eq!(validated.decompressed_bytes, records.concat().len() as u64);
        assert_eq!(validated.batch.bytes(), bytes);
        let append_time = ValidationOptions { timestamp_type: TimestampType::LogAppendTime, ..options() };
        let validated = validate(&bytes, &append_time).unwrap();
        assert_eq!((validated.max_timestamp, validated.max_timestamp_offset_delta), (Timestamp(NOW), 0));
    }
}

#[test]
fn a_record_longer_than_any_piece_passes() {
    let value: Vec<u8> = (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for codec in Codec::ALL {
        let records = [record(0, 0, None, Some(&value)), record(1, 1, Some(&value), None)];
        let bytes = Raw::new(&records).compressed(codec).bytes();
        let validated = validate(&bytes, &options()).unwrap();
        assert_eq!((validated.record_count, validated.max_timestamp_offset_delta), (2, 1));
        assert_eq!(validated.decompressed_bytes, records.concat().len() as u64);
    }
}

#[test]
fn w31_no_batch_is_invalid() {
    let error = validate(&[], &options()).unwrap_err();
    assert_eq!((error, error.refusal()), (ValidationError::Empty, Refusal::InvalidRecord));
}

#[test]
fn w31_records_shorter_than_the_batch_are_corrupt() {
    let bytes = Raw::small(2).bytes();
    for len in 1..bytes.len() {
        let error = validate(&bytes[..len], &options()).unwrap_err();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "{len} bytes: {error}");
    }
}

#[test]
fn w31_a_second_batch_is_invalid() {
    let one = Raw::small(2).bytes();
    let error = validate(&[one.clone(), one.clone()].concat(), &options()).unwrap_err();
    assert_eq!(error, ValidationError::SecondBatch { count: one.len() });
    assert_eq!(error.refusal(), Refusal::InvalidRecord);
    let error = validate(&[one, vec![0]].concat(), &options()).unwrap_err();
    assert_eq!(error, ValidationError::SecondBatch { count: 1 });
}

#[test]
fn w32_a_length_that_cannot_be_is_corrupt() {
    let good = Raw::small(1).bytes();
    let length = good.len() as i32 - 12;
    for wrong in [i32::MIN, -1, 0, 1, 14, 48, length + 1, length + 1000, i32::MAX] {
        let mut bytes = good.clone();
        bytes[8..12].copy_from_slice(&wrong.to_be_bytes());
        let error = validate(&bytes, &options()).unwrap_err();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "length {wrong}: {error}");
    }
}

#[test]
fn w33_another_magic_is_refused_by_its_kind() {
    for (magic, refusal) in [
        (0, Refusal::UnsupportedForMessageFormat),
        (1, Refusal::UnsupportedForMessageFormat),
        (3, Refusal::InvalidRecord),
        (127, Refusal::InvalidRecord),
        (-1, Refusal::InvalidRecord),
    ] {
        let error = Raw { magic, ..Raw::small(1) }.error();
        assert_eq!((error, error.refusal()), (ValidationError::Batch(BatchError::Magic { magic }), refusal));
    }
}

#[test]
fn w33_a_short_message_of_an_old_format_is_named_as_such() {
    // offset, length 14, crc, magic 1, attributes, timestamp cut short: less than the header of a batch.
    let mut bytes = [0; 26];
    bytes[11] = 14;
    bytes[16] = 1;
    let error = validate(&bytes, &options()).unwrap_err();
    assert_eq!(error.refusal(), Refusal::UnsupportedForMessageFormat);
}

#[test]
fn w33_a_second_batch_of_another_magic_is_invalid() {
    let bytes = [Raw::small(1).bytes(), Raw { magic: 1, ..Raw::small(1) }.bytes()].concat();
    assert_eq!(validate(&bytes, &options()).unwrap_err().refusal(), Refusal::InvalidRecord);
}

#[test]
fn w34_wrong_crc_is_corrupt() {
    let error = Raw { crc_change: 1, ..Raw::small(3) }.error();
    assert!(matches!(error, ValidationError::Batch(BatchError::Crc { .. })));
    assert!(error.is_retryable());
    let good = Raw::small(3).bytes();
    for at in 21..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        let error = validate(&bytes, &options()).unwrap_err();
        assert!(matches!(error, ValidationError::Batch(BatchError::Crc { .. })), "byte {at}: {error}");
    }
}

#[test]
fn w34_right_crc_over_a_wrong_length_is_corrupt() {
    // The CRC is that of the bytes that the length takes in, but the length cuts the last record.
    let mut raw = Raw::small(3);
    raw.payload.pop();
    let error = raw.error();
    assert_eq!(record_error(error), RecordError::Missing);
    // One byte less in the length field alone: the CRC no longer fits, whatever follows.
    let raw = Raw { length_change: -1, ..Raw::small(3) };
    let bytes = raw.bytes();
    let error = validate(&bytes[..bytes.len() - 1], &options()).unwrap_err();
    assert_eq!(error.refusal(), Refusal::CorruptMessage);
}

#[test]
fn w35_a_count_that_is_not_the_number_of_offsets_is_invalid() {
    for (record_count, last_offset_delta) in
        [(0, 2), (-1, 2), (i32::MIN, 2), (i32::MAX, 2), (2, 2), (4, 2), (0, 0), (3, 3), (3, i32::MAX)]
    {
        let error = Raw { record_count, last_offset_delta, ..Raw::small(3) }.error();
        assert_eq!(error, ValidationError::RecordCount { record_count, last_offset_delta });
        assert_eq!(error.refusal(), Refusal::InvalidRecord);
    }
}

#[test]
fn w35_a_count_that_lies_about_the_records_is_invalid() {
    for (record_count, claim) in [(2, "fewer"), (4, "more"), (i32::MAX, "far more")] {
        let raw = Raw { record_count, last_offset_delta: record_count - 1, ..Raw::small(3) };
        for codec in Codec::ALL {
            let error = raw.clone().compressed(codec).error();
            let expected = match claim {
                "fewer" => ValidationError::Batch(BatchError::Surplus { count: 2 }),
                _ => ValidationError::Batch(BatchError::Record { index: 3, error: RecordError::Missing }),
            };
            assert_eq!(error, expected, "{codec}: {claim} than there are");
            assert_eq!(error.refusal(), Refusal::InvalidRecord);
        }
    }
}

#[test]
fn w36_a_base_offset_that_is_not_zero_is_invalid() {
    for base_offset in [1, 77, i64::MAX - 10] {
        let error = Raw { base_offset, ..Raw::small(2) }.error();
        assert_eq!(error, ValidationError::BaseOffset { base_offset: Offset(base_offset) });
        assert_eq!(error.refusal(), Refusal::InvalidRecord);
    }
    for base_offset in [-1, i64::MIN, i64::MAX] {
        assert_eq!(Raw { base_offset, ..Raw::small(2) }.refusal(), Refusal::InvalidRecord);
    }
}

#[test]
fn w36_a_negative_last_offset_delta_is_invalid() {
    for last_offset_delta in [-1, i32::MIN] {
        let error = Raw { last_offset_delta, ..Raw::small(1) }.error();
        let range = BatchError::OffsetRange { base_offset: Offset::ZERO, last_offset_delta };
        assert_eq!((error, error.refusal()), (ValidationError::Batch(range), Refusal::InvalidRecord));
    }
}

#[test]
fn w37_a_control_batch_from_a_client_is_invalid() {
    let error = Raw { attributes: 0x20, ..Raw::small(1) }.error();
    assert_eq!((error, error.refusal()), (ValidationError::ControlBatch, Refusal::InvalidRecord));
}

#[test]
fn w37_a_control_batch_from_a_coordinator_passes() {
    let marker = EndTxnMarker { result: TransactionResult::Commit, coordinator_epoch: CoordinatorEpoch(3) };
    let bytes = marker.batch(ProducerId(9), ProducerEpoch(0), Timestamp(NOW), LeaderEpoch(1)).unwrap();
    let coordinator = ValidationOptions { origin: Origin::Coordinator, key_required: true, ..options() };
    assert_eq!(validate(&bytes, &coordinator).unwrap().record_count, 1);
    assert_eq!(validate(&bytes, &options()).unwrap_err(), ValidationError::ControlBatch);
}

#[test]
fn w37_reserved_attributes_are_invalid() {
    for bit in 6..16 {
        let attributes = (1u16 << bit).cast_signed();
        let error = Raw { attributes, ..Raw::small(1) }.error();
        assert_eq!(error, ValidationError::ReservedAttributes { attributes });
        assert_eq!(error.refusal(), Refusal::InvalidRecord);
    }
}

#[test]
fn w37_an_unknown_codec_is_unsupported() {
    for codec in 5..8 {
        let error = Raw { attributes: i16::from(codec), ..Raw::small(1) }.error();
        assert_eq!(error, ValidationError::Batch(BatchError::UnknownCodec { codec }));
        assert_eq!(error.refusal(), Refusal::UnsupportedCompressionType);
    }
}

#[test]
fn w37_append_time_from_a_client_is_an_invalid_timestamp() {
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        let options = ValidationOptions { timestamp_type, ..options() };
        let error = Raw { attributes: 0x08, ..Raw::small(1) }.error_under(&options);
        assert_eq!(
            (error, error.refusal()),
            (ValidationError::AppendTimeFromClient, Refusal::InvalidTimestamp)
        );
    }
}

#[test]
fn w38_a_record_length_too_small_or_too_large_is_invalid() {
    let body = body(0, 0, &[nullable(Some(b"key")), nullable(Some(b"value")), varint(0)]);
    let end = body.len() as i64;
    for (length, expected) in [
        (0, RecordError::Overrun),
        (1, RecordError::Overrun),
        (end - 1, RecordError::Overrun),
        (end + 1, RecordError::Missing),
        (i64::from(i32::MAX), RecordError::Missing),
        (-1, RecordError::Length { length: -1 }),
        (i64::from(i32::MIN), RecordError::Length { length: i32::MIN }),
        (1 << 31, RecordError::Varint),
    ] {
        let raw = Raw::new(&[[varint(length), body.clone()].concat()]);
        assert_eq!(record_error(raw.error()), expected, "length {length}");
        raw.refused_under_every_codec(Refusal::InvalidRecord);
    }
    let surplus = Raw::new(&[with_length(&[body, vec![0]].concat())]);
    assert_eq!(record_error(surplus.error()), RecordError::Surplus);
    surplus.refused_under_every_codec(Refusal::InvalidRecord);
}

#[test]
fn w38_an_overlong_integer_is_invalid() {
    for bytes in [&[0xff; 5][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0], &[0x80; 11]] {
        let raw = Raw::new(&[bytes.to_vec()]);
        assert_eq!(record_error(raw.error()), RecordError::Varint);
        raw.refused_under_every_codec(Refusal::InvalidRecord);
    }
    let timestamp = Raw::new(&[with_length(&[&[0][..], &[0xff; 11]].concat())]);
    assert_eq!(record_error(timestamp.error()), RecordError::Varint);
}

#[test]
fn w38_a_length_below_minus_one_is_invalid() {
    let (null, zero) = (|| varint(-1), || varint(0));
    for length in [-2, i32::MIN] {
        let wrong = || varint(i64::from(length));
        for (fields, expected) in [
            (vec![wrong(), null(), zero()], RecordError::KeyLength { length }),
            (vec![null(), wrong(), zero()], RecordError::ValueLength { length }),
            (vec![null(), null(), wrong()], RecordError::HeaderCount { count: length }),
            (vec![null(), null(), varint(1), wrong(), null()], RecordError::HeaderKeyLength { length }),
            (vec![null(), null(), varint(1), zero(), wrong()], RecordError::HeaderValueLength { length }),
        ] {
            let raw = one_record(&fields);
            assert_eq!(record_error(raw.error()), expected);
            raw.refused_under_every_codec(Refusal::InvalidRecord);
        }
    }
}

#[test]
fn w38_a_field_longer_than_its_record_is_invalid() {
    for length in [1, 100, i64::from(i32::MAX)] {
        for fields in [
            vec![varint(length)],
            vec![varint(-1), varint(length)],
            vec![varint(-1), varint(-1), varint(1), varint(length)],
        ] {
            let raw = one_record(&fields);
            assert_eq!(record_error(raw.error()), RecordError::Overrun);
            raw.refused_under_every_codec(Refusal::InvalidRecord);
        }
    }
}

#[test]
fn w38_a_header_count_beyond_the_record_is_invalid() {
    for (count, expected) in [(i64::from(i32::MAX), RecordError::Overrun), (1 << 31, RecordError::Varint)] {
        let raw = one_record(&[varint(-1), varint(-1), varint(count)]);
        assert_eq!(record_error(raw.error()), expected);
        raw.refused_under_every_codec(Refusal::InvalidRecord);
    }
}

#[test]
fn w38_a_null_header_key_is_invalid() {
    let raw = one_record(&[varint(-1), varint(-1), varint(1), varint(-1), varint(-1)]);
    assert_eq!(record_error(raw.error()), RecordError::HeaderKeyLength { length: -1 });
    raw.refused_under_every_codec(Refusal::InvalidRecord);
}

#[test]
fn w38_offset_deltas_out_of_order_are_invalid() {
    for deltas in [[0, 2, 2], [0, 0, 1], [1, 2, 3], [0, 2, 1], [-1, 0, 1], [0, 1, i32::MAX]] {
        let records = deltas.map(|delta| record(0, delta, None, None));
        let raw = Raw::new(&records);
        assert!(matches!(raw.error(), ValidationError::OffsetDelta { .. }));
        assert_eq!(raw.error().record_index(), (0..3).find(|i| deltas[*i as usize] != *i as i32));
        raw.refused_under_every_codec(Refusal::InvalidRecord);
    }
}

#[test]
fn w39_a_timestamp_out_of_the_topics_bounds_is_invalid() {
    let bounded = ValidationOptions { timestamp_before_max_ms: 1000, ..options() };
    let delta = |millis| Raw::new(&[record(0, 0, None, None), record(millis, 1, None, None)]);
    for millis in [-1000, 0, HOUR_MS] {
        assert!(validate(&delta(millis).bytes(), &bounded).is_ok(), "{millis} ms");
    }
    for millis in [-1001, HOUR_MS + 1] {
        let error = delta(millis).error_under(&bounded);
        assert_eq!(error, ValidationError::Timestamp { index: 1, timestamp: Timestamp(NOW + millis) });
        assert_eq!((error.refusal(), error.record_index()), (Refusal::InvalidTimestamp, Some(1)));
    }
    // By default the past is unbounded, the future is not.
    assert!(validate(&delta(-NOW).bytes(), &options()).is_ok());
    assert_eq!(delta(i64::MAX - NOW).refusal(), Refusal::InvalidTimestamp);
    // And nothing of this concerns a topic that keeps append times.
    let append_time = ValidationOptions { timestamp_type: TimestampType::LogAppendTime, ..bounded };
    assert!(validate(&delta(i64::MAX - NOW).bytes(), &append_time).is_ok());
}

#[test]
fn w39_a_negative_timestamp_is_invalid_but_for_none() {
    for (base_timestamp, good) in [(-1, true), (-2, false), (i64::MIN, false), (i64::MAX, false)] {
        let raw = Raw { base_timestamp, ..Raw::small(1) };
        match validate(&raw.bytes(), &options()) {
            Ok(validated) => assert!(good && validated.max_timestamp == Timestamp::NONE),
            Err(error) => {
                assert!(!good && error.refusal() == Refusal::InvalidTimestamp, "{base_timestamp}: {error}");
            }
        }
    }
}

#[test]
fn w39_a_timestamp_past_all_time_is_invalid() {
    for (base_timestamp, delta) in [(i64::MAX, 1), (i64::MIN, -1), (1, i64::MAX)] {
        let raw = Raw { base_timestamp, ..Raw::new(&[record(delta, 0, None, None)]) };
        assert_eq!(record_error(raw.error()), RecordError::TimestampDelta { timestamp_delta: delta });
        raw.refused_under_every_codec(Refusal::InvalidTimestamp);
    }
}

#[test]
fn w39_a_false_max_timestamp_does_not_reach_the_index() {
    for max_timestamp in [i64::MAX, i64::MIN, 0] {
        let bytes = Raw { max_timestamp, ..Raw::small(2) }.bytes();
        assert_eq!(validate(&bytes, &options()).unwrap().max_timestamp, Timestamp(NOW));
    }
}

#[test]
fn w40_truncated_compressed_records_are_corrupt() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let good = Raw::small(50).compressed(codec);
        for len in 0..good.payload.len() {
            let raw = good.clone().with_payload(codec, good.payload[..len].to_vec());
            let error = raw.error();
            let without_end = match codec {
                // A snappy stream has no end mark: cut between blocks it is whole, but records are missing.
                Codec::Snappy => error.refusal() == Refusal::InvalidRecord,
                _ => false,
            };
            assert!(
                error.refusal() == Refusal::CorruptMessage || without_end,
                "{codec}, {len} bytes: {error}"
            );
        }
    }
}

#[test]
fn w40_the_wrong_codec_is_corrupt() {
    for actual in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for claimed in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let raw = Raw::small(50).compressed(actual);
            let payload = raw.payload.clone();
            let error = match validate(&raw.with_payload(claimed, payload).bytes(), &options()) {
                Ok(_) => {
                    assert_eq!(actual, claimed);
                    continue;
                }
                Err(error) => error,
            };
            assert_ne!(actual, claimed);
            assert_eq!(error.refusal(), Refusal::CorruptMessage, "{actual} called {claimed}: {error}");
        }
    }
    let plain = Raw::small(50);
    for claimed in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let raw = plain.clone().with_payload(claimed, plain.payload.clone());
        assert_eq!(raw.refusal(), Refusal::CorruptMessage, "uncompressed called {claimed}");
    }
}

#[test]
fn w40_trailing_garbage_is_corrupt() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for garbage in [&[0][..], &[0; 30], b"garbage that follows"] {
            let good = Raw::small(50).compressed(codec);
            let payload = [&good.payload, garbage].concat();
            let error = good.with_payload(codec, payload).error();
            assert_eq!(error.refusal(), Refusal::CorruptMessage, "{codec} and {garbage:?}: {error}");
        }
    }
}

#[test]
fn w40_a_nested_batch_is_corrupt() {
    let inner = Raw::small(3);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut outer = inner.clone();
        outer.payload = inner.clone().compressed(codec).bytes();
        let error = outer.compressed(codec).error();
        assert_eq!((error, error.refusal()), (ValidationError::NestedBatch, Refusal::CorruptMessage));
    }
}

/// Records that compress a thousandfold and more: one value of zeros.
fn bomb(decompressed_len: usize) -> Raw {
    Raw::new(&[record(0, 0, None, Some(&vec![0; decompressed_len]))])
}

#[test]
fn w40_a_bomb_is_corrupt() {
    let limited = ValidationOptions { decompressed_bytes_max: 1 << 20, ..options() };
    let bomb = bomb(8 << 20);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let error = bomb.clone().compressed(codec).error_under(&limited);
        assert_eq!(codec_error(error), CodecError::OutputLimit { codec, limit: 1 << 20 });
        assert_eq!(error.refusal(), Refusal::CorruptMessage);
        assert!(
            validate(&bomb.clone().compressed(codec).bytes(), &options()).is_ok(),
            "{codec}, below the limit"
        );
    }
}

#[test]
fn w40_the_limit_is_exact() {
    let raw = bomb(100_000);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = raw.clone().compressed(codec).bytes();
        let len = raw.payload.len() as u64;
        let limited = |decompressed_bytes_max| ValidationOptions { decompressed_bytes_max, ..options() };
        assert!(validate(&bytes, &limited(len)).is_ok(), "{codec}");
        let error = validate(&bytes, &limited(len - 1)).unwrap_err();
        assert_eq!(codec_error(error), CodecError::OutputLimit { codec, limit: len - 1 });
    }
}

#[test]
fn w40_a_zstd_window_of_two_gib_is_corrupt() {
    // Magic, descriptor without content size, window descriptor: 2^(10 + exponent). Then one last raw block.
    let records = Raw::small(1).payload;
    let frame = |exponent: u8| {
        let block_header = (records.len() as u32) << 3 | 1;
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3], &block_header.to_le_bytes()[..3], &records[..]].concat()
    };
    for (exponent, good) in [(0, true), (17, true), (18, false), (21, false), (31, false)] {
        let raw = Raw::small(1).with_payload(Codec::Zstd, frame(exponent));
        match validate(&raw.bytes(), &options()) {
            Ok(_) => assert!(good, "window 2^{}", 10 + u32::from(exponent)),
            Err(error) => assert!(!good && error.refusal() == Refusal::CorruptMessage, "{exponent}: {error}"),
        }
    }
}

/// An LZ4 frame with one stored block, its header checksum right.
fn lz4_frame(flags: u8, block_size: u8, length: u32, block: &[u8]) -> Vec<u8> {
    let checksum = (twox_hash::XxHash32::oneshot(0, &[flags, block_size]) >> 8) as u8;
    let head = [0x04, 0x22, 0x4d, 0x18, flags, block_size, checksum];
    [&head[..], &length.to_le_bytes(), block, &[0; 4]].concat()
}

#[test]
fn w40_a_bad_lz4_frame_is_corrupt() {
    const STORED: u32 = 1 << 31;
    let records = Raw::small(1).payload;
    let len = records.len() as u32;
    let good = lz4_frame(0x60, 0x40, len | STORED, &records);
    assert!(validate(&Raw::small(1).with_payload(Codec::Lz4, good.clone()).bytes(), &options()).is_ok());
    let mut wrong_checksum = good.clone();
    wrong_checksum[6] ^= 1;
    for (what, frame) in [
        ("version 0", lz4_frame(0x20, 0x40, len | STORED, &records)),
        ("version 2", lz4_frame(0xa0, 0x40, len | STORED, &records)),
        ("linked blocks", lz4_frame(0x40, 0x40, len | STORED, &records)),
        ("reserved flag", lz4_frame(0x62, 0x40, len | STORED, &records)),
        ("dictionary", lz4_frame(0x61, 0x40, len | STORED, &records)),
        ("block size 3", lz4_frame(0x60, 0x30, len | STORED, &records)),
        ("block size 8", lz4_frame(0x60, 0x80, len | STORED, &records)),
        ("reserved block size", lz4_frame(0x60, 0x41, len | STORED, &records)),
        ("header checksum", wrong_checksum),
        ("block longer than the data", lz4_frame(0x60, 0x40, (len + 100) | STORED, &records)),
        ("block longer than the maximum", lz4_frame(0x60, 0x40, 65_537 | STORED, &[0; 65_537])),
        ("block of nonsense", lz4_frame(0x60, 0x40, len, &records)),
        ("old frame", [&[0x02, 0x21, 0x4c, 0x18][..], &good[4..]].concat()),
        ("no end mark", good[..good.len() - 4].to_vec()),
    ] {
        let error = Raw::small(1).with_payload(Codec::Lz4, frame).error();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "{what}: {error}");
    }
}

#[test]
fn w40_lz4_checksums_and_sizes_are_checked() {
    let records = Raw::small(50).payload;
    let frame = |block: bool, content: bool, size: Option<u64>| {
        let info = lz4_flex::frame::FrameInfo::new().block_checksums(block).content_checksum(content);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info.content_size(size), Vec::new());
        encoder.write_all(&records).unwrap();
        encoder.finish().unwrap()
    };
    for (frame, block) in [
        (frame(true, false, None), true),
        (frame(false, true, None), false),
        (frame(true, true, Some(records.len() as u64)), true),
    ] {
        let raw = Raw::small(50).with_payload(Codec::Lz4, frame.clone());
        assert!(validate(&raw.bytes(), &options()).is_ok());
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            let error = Raw::small(50).with_payload(Codec::Lz4, damaged).error();
            // A checksum at the end is compared only if the records before it could be walked over.
            let walked_first = !block && error.refusal() == Refusal::InvalidRecord;
            assert!(error.refusal() == Refusal::CorruptMessage || walked_first, "byte {at}: {error}");
        }
    }
    let mut wrong_size = frame(false, false, Some(records.len() as u64));
    wrong_size[6] += 1;
    wrong_size[14] = (twox_hash::XxHash32::oneshot(0, &wrong_size[4..14]) >> 8) as u8;
    let error = Raw::small(50).with_payload(Codec::Lz4, wrong_size).error();
    assert!(matches!(codec_error(error), CodecError::Corrupt { codec: Codec::Lz4, .. }));
}

#[test]
fn w40_a_bad_snappy_chunk_is_corrupt() {
    let good = Raw::small(50).compressed(Codec::Snappy);
    let length = i32::from_be_bytes(good.payload[16..20].try_into().unwrap());
    for wrong in [-1, i32::MIN, i32::MAX, length + 1, length - 1, 0] {
        let mut payload = good.payload.clone();
        payload[16..20].copy_from_slice(&wrong.to_be_bytes());
        let error = good.clone().with_payload(Codec::Snappy, payload).error();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "chunk length {wrong}: {error}");
    }
    let mut old_version = good.payload.clone();
    old_version[8..12].fill(0);
    assert_eq!(good.clone().with_payload(Codec::Snappy, old_version).refusal(), Refusal::CorruptMessage);
    // A bare block that claims 4 GiB in seven bytes: refused by its ratio, before anything is allocated.
    let claim = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x41];
    let error = good
        .with_payload(Codec::Snappy, claim)
        .error_under(&ValidationOptions { decompressed_bytes_max: u64::MAX, ..options() });
    assert_eq!(codec_error(error), CodecError::Corrupt { codec: Codec::Snappy, position: 0 });
}

#[test]
fn both_forms_of_snappy_are_read() {
    let good = Raw::small(5000);
    let bare = snap::raw::Encoder::new().compress_vec(&good.payload).unwrap();
    let framed = compress(Codec::Snappy, &good.payload).unwrap();
    assert_ne!(bare, framed);
    for payload in [bare, framed] {
        let bytes = good.clone().with_payload(Codec::Snappy, payload).bytes();
        let validated = validate(&bytes, &options()).unwrap();
        assert_eq!(validated.decompressed_bytes, good.payload.len() as u64);
        let batch = RecordBatch::parse(&bytes).unwrap();
        let mut records = batch.records(u64::MAX).unwrap();
        let mut count = 0;
        while let Some(record) = records.next_record().unwrap() {
            assert_eq!((record.offset, record.value), (Offset(count), Some(&b"value"[..])));
            count += 1;
        }
        assert_eq!(count, 5000);
    }
}

#[test]
fn frames_in_a_row_are_one_stream() {
    let good = Raw::small(50);
    for codec in [Codec::Gzip, Codec::Zstd] {
        let (front, back) = good.payload.split_at(101);
        let payload = [compress(codec, front).unwrap(), compress(codec, back).unwrap()].concat();
        let bytes = good.clone().with_payload(codec, payload).bytes();
        assert!(validate(&bytes, &options()).is_ok(), "{codec}");
    }
    // An LZ4 reader of Kafka's stops at the first end mark: it would not see what follows.
    let (front, back) = good.payload.split_at(101);
    let (front, back) = (compress(Codec::Lz4, front).unwrap(), compress(Codec::Lz4, back).unwrap());
    let error = good.with_payload(Codec::Lz4, [&front[..], &back].concat()).error();
    assert_eq!(codec_error(error), CodecError::Trailing { codec: Codec::Lz4, count: back.len() });
}

#[test]
fn w41_no_key_in_a_compacted_topic_is_invalid() {
    let compacted = ValidationOptions { key_required: true, ..options() };
    let records =
        [record(0, 0, Some(b"k"), None), record(0, 1, Some(b""), None), record(0, 2, None, Some(b"v"))];
    for codec in Codec::ALL {
        let raw = Raw::new(&records).compressed(codec);
        assert!(validate(&raw.bytes(), &options()).is_ok());
        let error = raw.error_under(&compacted);
        assert_eq!(error, ValidationError::KeyRequired { index: 2 });
        assert_eq!(error.refusal(), Refusal::InvalidRecord);
        let raw = Raw::new(&records[..2]).compressed(codec);
        assert!(validate(&raw.bytes(), &compacted).is_ok(), "an empty key is a key");
    }
}

#[test]
fn w42_producer_fields_that_do_not_fit_are_invalid() {
    const TRANSACTIONAL: i16 = 0x10;
    for (producer_id, producer_epoch, base_sequence, attributes, good) in [
        (-1, -1, -1, 0, true),
        (5, 0, 0, 0, true),
        (5, 0, i32::MAX, 0, true),
        (5, 0, 0, TRANSACTIONAL, true),
        (5, 0, -1, 0, false),
        (5, -1, 0, 0, false),
        (5, 0, i32::MIN, TRANSACTIONAL, false),
        (-1, -1, -1, TRANSACTIONAL, false),
    ] {
        let raw = Raw { producer_id, producer_epoch, base_sequence, attributes, ..Raw::small(2) };
        match validate(&raw.bytes(), &options()) {
            Ok(validated) => {
                let last = if base_sequence == i32::MAX { 0 } else { base_sequence.max(-2) + 1 };
                assert!(good && (base_sequence < 0 || validated.batch.last_sequence() == last));
            }
            Err(error) => {
                assert!(!good && matches!(error, ValidationError::Producer { .. }));
                assert_eq!(error.refusal(), Refusal::InvalidRecord);
            }
        }
    }
}

#[test]
fn what_the_builder_makes_passes() {
    for codec in Codec::ALL {
        for level in
            [codec.levels().map_or(0, |(least, _, _)| least), codec.levels().map_or(0, |(_, _, most)| most)]
        {
            let mut builder = BatchBuilder::new(Compression::new(codec, level).unwrap())
                .producer(ProducerId(3), ProducerEpoch(1), 100)
                .transactional();
            for i in 0..3000 {
                let value = vec![b'a' + (i % 26) as u8; i % 300];
                let mut record = NewRecord::new(Timestamp(NOW + i as i64), Some(b"key"), Some(&value));
                record.headers = &[(b"a", Some(b"1")), (b"a", None)];
                builder.append(&record).unwrap();
            }
            let size = builder.size();
            let bytes = builder.build().unwrap();
            let validated = validate(&bytes, &options()).unwrap();
            assert_eq!(validated.max_timestamp_offset_delta, 2999);
            assert_eq!(validated.decompressed_bytes as usize, size - klamm_record::HEADER_LEN);
        }
    }
}
