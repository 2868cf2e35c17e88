//! The malformed-input table, rows W31 to W42: what a broker must refuse, and as what.

mod compressed;
mod framing;
mod raw;
mod records;

use klamm_record::{
    BatchBuilder, Codec, Compression, NewRecord, TimestampType, Validated, ValidationOptions, validate,
};
use klamm_types::{ProducerEpoch, ProducerId, Timestamp};

use crate::raw::{NOW, Raw, options, record};

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
