//! Batches made field by field, right or wrong.

use klamm_record::{
    BatchError, Codec, CodecError, CompressError, Compressor, Origin, RecordError, Refusal, TimestampType,
    ValidationError, ValidationOptions, validate,
};
use klamm_types::Timestamp;

pub(crate) const NOW: i64 = 1_700_000_000_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;

pub(crate) fn options() -> ValidationOptions {
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
pub(crate) struct Raw {
    pub(crate) base_offset: i64,
    pub(crate) length_change: i32,
    pub(crate) magic: i8,
    pub(crate) crc_change: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// A good batch with these records.
    pub(crate) fn new(records: &[Vec<u8>]) -> Self {
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
    pub(crate) fn small(count: i32) -> Self {
        Self::new(&(0..count).map(|delta| record(0, delta, Some(b"key"), Some(b"value"))).collect::<Vec<_>>())
    }

    /// The batch with this payload, said to be of that codec.
    pub(crate) fn with_payload(mut self, codec: Codec, payload: Vec<u8>) -> Self {
        let number = Codec::ALL.iter().position(|c| *c == codec).expect("a known codec");
        self.attributes = self.attributes & !7 | number as i16;
        self.payload = payload;
        self
    }

    /// The batch with its payload compressed.
    pub(crate) fn compressed(self, codec: Codec) -> Self {
        let payload = compress(codec, &self.payload).expect("compression works");
        self.with_payload(codec, payload)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
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

    pub(crate) fn error(&self) -> ValidationError {
        self.error_under(&options())
    }

    pub(crate) fn error_under(&self, options: &ValidationOptions) -> ValidationError {
        validate(&self.bytes(), options).expect_err("a batch to be refused")
    }

    pub(crate) fn refusal(&self) -> Refusal {
        self.error().refusal()
    }

    /// Refused alike as it is and under every codec: the walk over the records is one.
    pub(crate) fn refused_under_every_codec(&self, expected: Refusal) {
        for codec in Codec::ALL {
            let error = self.clone().compressed(codec).error();
            assert_eq!(error.refusal(), expected, "{codec}: {error}");
        }
    }
}

pub(crate) fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
    let mut compressor = Compressor::new(codec.into(), Vec::new())?;
    compressor.write(bytes)?;
    compressor.finish()
}

pub(crate) fn varint(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
    bytes
}

pub(crate) fn nullable(bytes: Option<&[u8]>) -> Vec<u8> {
    bytes.map_or(varint(-1), |bytes| [varint(bytes.len() as i64), bytes.to_vec()].concat())
}

pub(crate) fn with_length(body: &[u8]) -> Vec<u8> {
    [varint(body.len() as i64), body.to_vec()].concat()
}

pub(crate) fn record(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    with_length(&body(timestamp_delta, offset_delta, &[nullable(key), nullable(value), varint(0)]))
}

pub(crate) fn body(timestamp_delta: i64, offset_delta: i32, fields: &[Vec<u8>]) -> Vec<u8> {
    [&[0][..], &varint(timestamp_delta), &varint(i64::from(offset_delta)), &fields.concat()].concat()
}

/// A batch of one record with these bytes after the deltas.
pub(crate) fn one_record(fields: &[Vec<u8>]) -> Raw {
    Raw::new(&[with_length(&body(0, 0, fields))])
}

pub(crate) fn record_error(error: ValidationError) -> RecordError {
    match error {
        ValidationError::Batch(BatchError::Record { error, .. }) => error,
        other => panic!("not a record's fault: {other}"),
    }
}

pub(crate) fn codec_error(error: ValidationError) -> CodecError {
    match error {
        ValidationError::Batch(BatchError::Codec(error)) => error,
        other => panic!("not a codec's fault: {other}"),
    }
}
