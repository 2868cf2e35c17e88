//! Records and batch headers in a form that every reader can be brought to, and the generators' JSON of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klamm_record::{Batches, RecordBatch, TimestampType};
use klamm_tests::tools;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// More than any batch of these tests becomes when it is decompressed.
pub(crate) const DECOMPRESSED_BYTES_MAX: u64 = 16 << 20;

/// How many bytes of a blob a failed comparison shows.
const SHOWN_BYTES_MAX: usize = 40;

/// The directory of generators and golden files.
pub(crate) fn interop() -> PathBuf {
    tools::workspace().join("tests").join("interop")
}

/// Bytes that JSON gives as hex, or as `[hex, times]` where they repeat.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN_BYTES_MAX).unwrap_or(&self.0);
        write!(out, "{} bytes \"{}\"", self.0.len(), shown.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Hex(String),
            Repeated(String, usize),
        }
        let (hex, times) = match Text::deserialize(source)? {
            Text::Hex(hex) => (hex, 1),
            Text::Repeated(hex, times) => (hex, times),
        };
        let unit = from_hex(&hex).ok_or_else(|| D::Error::custom(format!("{hex} is not hex")))?;
        Ok(Self(unit.repeat(times)))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordFacts {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Blob>,
    pub(crate) value: Option<Blob>,
    pub(crate) headers: Vec<(String, Option<Blob>)>,
}

/// One batch header, as a reader that knows nothing but the layout sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderFacts {
    pub(crate) base_offset: i64,
    pub(crate) size: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) codec: u8,
    pub(crate) log_append_time: bool,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    pub(crate) last_offset: i64,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl HeaderFacts {
    pub(crate) fn of(batch: &RecordBatch<'_>) -> Self {
        let attributes = batch.attributes();
        Self {
            base_offset: batch.base_offset().0,
            size: batch.size(),
            leader_epoch: batch.leader_epoch().0,
            crc: batch.crc(),
            codec: attributes.compression().expect("a known codec") as u8,
            log_append_time: attributes.timestamp_type() == TimestampType::LogAppendTime,
            transactional: attributes.is_transactional(),
            control: attributes.is_control(),
            last_offset: batch.last_offset().0,
            base_timestamp: batch.base_timestamp().0,
            max_timestamp: batch.max_timestamp().0,
            producer_id: batch.producer_id().0,
            producer_epoch: batch.producer_epoch().0,
            base_sequence: batch.base_sequence(),
            record_count: batch.record_count(),
        }
    }
}

/// Every record of a batch; fails the test, naming `place`, if it does not read to its end.
pub(crate) fn records_of(batch: &RecordBatch<'_>, place: &str) -> Vec<RecordFacts> {
    let fail = |error| -> ! { panic!("{place}: batch at {}: {error}", batch.base_offset()) };
    let mut records = batch.records(DECOMPRESSED_BYTES_MAX).unwrap_or_else(|error| fail(error));
    let mut found = Vec::new();
    while let Some(record) = records.next_record().unwrap_or_else(|error| fail(error)) {
        let blob = |bytes: Option<&[u8]>| bytes.map(|bytes| Blob(bytes.to_vec()));
        let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a header's key in UTF-8");
        found.push(RecordFacts {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: blob(record.key),
            value: blob(record.value),
            headers: record.headers().map(|(key, value)| (name(key), blob(value))).collect(),
        });
    }
    found
}

/// The batches of a file, each with its CRC verified.
pub(crate) fn batches_of<'a>(bytes: &'a [u8], place: &str) -> Vec<RecordBatch<'a>> {
    let batches = Batches::new(bytes).map(|batch| {
        let batch = batch.unwrap_or_else(|error| panic!("{place}: {error}"));
        batch
            .verify_crc()
            .unwrap_or_else(|error| panic!("{place}: batch at {}: {error}", batch.base_offset()));
        batch
    });
    batches.collect()
}

/// What one encoder was asked to write, with the files that it wrote.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) writer: String,
    pub(crate) version: String,
    pub(crate) record_sets: BTreeMap<String, Vec<RecordFacts>>,
    pub(crate) cases: Vec<WrittenCase>,
}

/// One file of batches.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenCase {
    pub(crate) name: String,
    /// Which of the record sets.
    pub(crate) records: String,
    pub(crate) batches: Vec<HeaderFacts>,
}

impl Written {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        read_json(&directory.join("expected.json"))
    }

    /// The records that `case` must hold.
    pub(crate) fn records(&self, case: &WrittenCase) -> &[RecordFacts] {
        self.record_sets.get(&case.records).unwrap_or_else(|| panic!("no record set {}", case.records))
    }
}

pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn read_bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a command to its end and gives what it printed on its two outputs; fails the test with both if it fails.
pub(crate) fn run(command: &mut Command) -> Printed {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let printed = Printed { output: text(output.stdout), errors: text(output.stderr) };
    let Printed { output: stdout, errors: stderr } = &printed;
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    printed
}

/// What a command printed.
pub(crate) struct Printed {
    pub(crate) output: String,
    pub(crate) errors: String,
}
