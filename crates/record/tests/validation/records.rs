//! W38, W39 and W41: what the records say.

use klamm_record::{
    Codec, RecordError, Refusal, TimestampType, ValidationError, ValidationOptions, validate,
};
use klamm_types::Timestamp;

use crate::raw::{
    HOUR_MS, NOW, Raw, body, nullable, one_record, options, record, record_error, varint, with_length,
};

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
