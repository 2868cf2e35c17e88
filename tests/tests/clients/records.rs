//! The records that every client is asked to write.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::client::Client;
use super::work::Seen;

/// The greatest value: 900 KB, which with its batch stays below the broker's limit of a mebibyte.
const LARGE_BYTES: usize = 900 * 1024;
/// The time of the first record.
const FIRST_TIMESTAMP_MS: i64 = 1_700_000_000_000;
/// The time between two records.
const STEP_MS: i64 = 1_000;

/// One record to write.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Record {
    /// `None` if the client takes no timestamp: then it is the time at which the client sends it.
    pub(crate) timestamp: Option<i64>,
    #[serde(serialize_with = "optional_base64")]
    pub(crate) key: Option<Vec<u8>>,
    #[serde(serialize_with = "optional_base64")]
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, HeaderValue)>,
}

/// A header's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeaderValue(pub(crate) Option<Vec<u8>>);

impl Serialize for HeaderValue {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        optional_base64(&self.0, into)
    }
}

fn optional_base64<S: Serializer>(bytes: &Option<Vec<u8>>, into: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(into)
}

/// The hash by which dumps are compared.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record {
    /// What a reader must see of it at `offset`, if it bears `timestamp`.
    pub(crate) fn seen(&self, offset: i64, timestamp: i64) -> Seen {
        let hashed = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(hash);
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), hashed(&value.0))).collect();
        Seen { offset, timestamp, key: hashed(&self.key), value: hashed(&self.value), headers }
    }

    /// The record as `client` can write it: what it cannot say becomes null, or is left out.
    fn within(mut self, client: &Client) -> Self {
        if !client.takes_timestamps {
            self.timestamp = None;
        }
        if !client.writes_empty {
            self.key = self.key.filter(|key| !key.is_empty());
            self.value = self.value.filter(|value| !value.is_empty());
        }
        if !client.writes_nothing && self.value.is_none() {
            self.key.get_or_insert_with(|| b"some key".to_vec());
        }
        if !client.writes_null_headers {
            self.headers.retain(|(_, value)| value.0.is_some());
        }
        self
    }
}

/// Bytes without a pattern, the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress well, and differ all along.
fn prose(length: usize) -> Vec<u8> {
    let lines = (0_u32..).flat_map(|line| format!("line {line} of a long value\n").into_bytes());
    lines.take(length).collect()
}

/// A key or value.
type MaybeBytes = Option<Vec<u8>>;

/// Every shape of keys and values.
fn shapes() -> Vec<(MaybeBytes, MaybeBytes)> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut shapes = vec![
        (None, Some(b"no key".to_vec())),
        (Some(b"deleted".to_vec()), None),
        (None, None),
        (Some(Vec::new()), Some(b"empty key".to_vec())),
        (Some(b"empty value".to_vec()), Some(Vec::new())),
        (Some("größe ☂".into()), Some("wert 値".into())),
        (Some(every_byte.clone()), Some(every_byte)),
        (Some(noise(1, 3_000)), Some(noise(2, 5_000))),
        (Some(b"long".to_vec()), Some(prose(64 << 10))),
    ];
    shapes.extend((0..12).map(|n| (Some(format!("key {n}").into()), Some(format!("value {n}").into()))));
    shapes
}

/// No header; several, one name twice; none with a NUL, a comma or an equals sign in its value, which kcat cannot show.
fn headers(kind: usize) -> Vec<(String, HeaderValue)> {
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), HeaderValue(value.map(<[u8]>::to_vec)));
    match kind {
        0 => Vec::new(),
        1 => vec![header("trace", Some(b"4bf92f3577b34da6"))],
        _ => vec![
            header("twice", Some(b"first")),
            header("twice", Some(b"second")),
            header("größe", Some(&[0xff, 0x80, 0x01, 0xfe, b'\t'])),
            header("empty", Some(b"")),
            header("null", None),
        ],
    }
}

/// Small records of every shape with each kind of headers, one of 900 KB, and some after it. One record's timestamp is
/// older than its predecessor's.
pub(crate) fn records(client: &Client, partition: i32) -> Vec<Record> {
    let mut records = Vec::new();
    for kind in 0..3 {
        let shaped = shapes().into_iter().map(|(key, value)| Record {
            key,
            value,
            headers: headers(kind),
            ..Record::default()
        });
        records.extend(shaped);
    }
    let large = if partition % 2 == 0 {
        noise(u64::from(partition.unsigned_abs()) + 10, LARGE_BYTES)
    } else {
        prose(LARGE_BYTES)
    };
    records.push(Record { key: Some(b"large".to_vec()), value: Some(large), ..Record::default() });
    records.extend(tail_records());
    for (record, place) in records.iter_mut().zip(0..) {
        let place = if place == 7 { 5 } else { place };
        record.timestamp = Some(FIRST_TIMESTAMP_MS + place * STEP_MS);
    }
    records.into_iter().map(|record| record.within(client)).collect()
}

/// The few records that are written while a reader waits at the end.
pub(crate) fn few_records(client: &Client) -> Vec<Record> {
    let stamped = tail_records()
        .zip(0..)
        .map(|(record, place)| Record { timestamp: Some(FIRST_TIMESTAMP_MS + place * STEP_MS), ..record });
    stamped.map(|record| record.within(client)).collect()
}

fn tail_records() -> impl Iterator<Item = Record> {
    (0..4).map(|n| Record {
        key: (n % 2 == 0).then(|| format!("late key {n}").into()),
        value: Some(format!("late value {n}").into()),
        ..Record::default()
    })
}

/// A file of the records, as drivers read them.
pub(crate) fn to_file(records: &[Record]) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".records").unwrap();
    for record in records {
        serde_json::to_writer(&mut file, record).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
    file
}
