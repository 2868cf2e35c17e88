//! W31 to W37 and W42: what the header says.

use klamm_record::{
    BatchError, Codec, EndTxnMarker, Origin, RecordError, Refusal, TimestampType, TransactionResult,
    ValidationError, ValidationOptions, validate,
};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::raw::{NOW, Raw, options, record_error};

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
