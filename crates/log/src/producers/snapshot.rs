//! The `.snapshot` file: the state of all producers at an offset.
//!
//! ```text
//!   version i16 = 1 | crc u32 | count i32 | entries
//!     | "KLM1" | count i32 | older batches | count i32 | ended transactions
//! ```
//!
//! The part up to the entries is Kafka's, which keeps a producer's newest batch only. What follows, covered by the
//! same CRC-32C, holds the other four, so that a repetition is known after a restart, too, whether no batch is missing
//! from sequence 0 on (the highest bit of their count), and the transactions whose marker was not below the high watermark
//! yet, so that the last stable offset does not jump. Kafka passes over it.

use std::collections::BTreeMap;
use std::path::Path;

use klamm_types::{CoordinatorEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use super::{BatchMetadata, ProducerEntry, Producers};
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, read_file};

const VERSION: i16 = 1;
const CRC_END: usize = 6;
const OLDER_BATCHES: [u8; 4] = *b"KLM1";
/// In the count of a producer's older batches: no batch is missing from sequence 0 on.
const IS_WHOLE: u8 = 0x80;

/// A million producers take some 150 MB.
const FILE_LEN_MAX: u64 = 1 << 30;

/// Replaces the state by that of `path`.
pub(crate) fn read(producers: &mut Producers, fs: &dyn LogFs, path: &Path) -> Result<(), LogError> {
    let bytes = read_file(fs, path, FILE_LEN_MAX).describe("read", path)?;
    producers.clear();
    let damaged = |reason: &str| LogError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let content = decode(&bytes).map_err(damaged)?;
    for (producer_id, entry) in content.entries {
        producers.insert(producer_id, entry);
    }
    producers.unreplicated = content.unreplicated;
    Ok(())
}

pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let entries = producers.entries();
    let mut bytes = VERSION.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    push_count(&mut bytes, entries.len());
    for (producer_id, entry) in &entries {
        let newest = entry.batches().last().unwrap_or(&BatchMetadata::NONE);
        bytes.extend_from_slice(&producer_id.0.to_be_bytes());
        bytes.extend_from_slice(&entry.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&newest.last_sequence.to_be_bytes());
        bytes.extend_from_slice(&newest.last_offset.0.to_be_bytes());
        bytes.extend_from_slice(&newest.offset_delta.to_be_bytes());
        bytes.extend_from_slice(&entry.last_timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.0.to_be_bytes());
        bytes.extend_from_slice(&entry.txn_first_offset.map_or(-1, |offset| offset.0).to_be_bytes());
    }
    bytes.extend_from_slice(&OLDER_BATCHES);
    let with_older = || entries.iter().filter(|(_, entry)| entry.len > 1);
    push_count(&mut bytes, with_older().count());
    for (producer_id, entry) in with_older() {
        bytes.extend_from_slice(&producer_id.0.to_be_bytes());
        bytes.push((entry.len - 1) | if entry.is_whole { IS_WHOLE } else { 0 });
        for batch in &entry.batches()[..usize::from(entry.len) - 1] {
            bytes.extend_from_slice(&batch.last_sequence.to_be_bytes());
            bytes.extend_from_slice(&batch.offset_delta.to_be_bytes());
            bytes.extend_from_slice(&batch.last_offset.0.to_be_bytes());
            bytes.extend_from_slice(&batch.timestamp.0.to_be_bytes());
        }
    }
    push_count(&mut bytes, producers.unreplicated.len());
    for (first_offset, last_offset) in &producers.unreplicated {
        bytes.extend_from_slice(&first_offset.0.to_be_bytes());
        bytes.extend_from_slice(&last_offset.0.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[CRC_END..]);
    bytes[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn push_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes());
}

/// What a snapshot file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) entries: Vec<(ProducerId, ProducerEntry)>,
    /// Ended transactions whose marker may still be lost: first offset to marker offset.
    pub(crate) unreplicated: BTreeMap<Offset, Offset>,
}

/// Reads a snapshot file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Content, &'static str> {
    let mut cursor = Cursor(bytes);
    if i16::from_be_bytes(cursor.take()?) != VERSION {
        return Err("the version is not 1");
    }
    let crc = u32::from_be_bytes(cursor.take()?);
    if crc32c::crc32c(cursor.0) != crc {
        return Err("the checksum does not match");
    }
    let mut entries = Vec::new();
    for _ in 0..i32::from_be_bytes(cursor.take()?) {
        entries.push(decode_entry(&mut cursor)?);
    }
    let mut unreplicated = BTreeMap::new();
    if !cursor.0.is_empty() && cursor.take()? == OLDER_BATCHES {
        decode_older_batches(&mut cursor, &mut entries)?;
        for _ in 0..i32::from_be_bytes(cursor.take()?) {
            let first_offset = Offset(i64::from_be_bytes(cursor.take()?));
            unreplicated.insert(first_offset, Offset(i64::from_be_bytes(cursor.take()?)));
        }
    }
    Ok(Content { entries, unreplicated })
}

fn decode_entry(cursor: &mut Cursor<'_>) -> Result<(ProducerId, ProducerEntry), &'static str> {
    let producer_id = ProducerId(i64::from_be_bytes(cursor.take()?));
    let epoch = ProducerEpoch(i16::from_be_bytes(cursor.take()?));
    let last_sequence = i32::from_be_bytes(cursor.take()?);
    let last_offset = Offset(i64::from_be_bytes(cursor.take()?));
    let offset_delta = i32::from_be_bytes(cursor.take()?);
    let timestamp = Timestamp(i64::from_be_bytes(cursor.take()?));
    let coordinator_epoch = CoordinatorEpoch(i32::from_be_bytes(cursor.take()?));
    let txn_first_offset = i64::from_be_bytes(cursor.take()?);
    let mut entry = ProducerEntry { epoch, coordinator_epoch, ..ProducerEntry::default() };
    let newest = BatchMetadata { last_sequence, offset_delta, last_offset, timestamp };
    if is_possible(&newest) {
        entry.push(newest);
    }
    entry.last_timestamp = timestamp;
    entry.txn_first_offset = (txn_first_offset >= 0).then_some(Offset(txn_first_offset));
    Ok((producer_id, entry))
}

/// Whether a batch can have such offsets. An entry without any batch has an offset of -1.
fn is_possible(batch: &BatchMetadata) -> bool {
    let (last, delta) = (batch.last_offset.0, i64::from(batch.offset_delta));
    delta >= 0 && delta <= last
}

fn decode_older_batches(
    cursor: &mut Cursor<'_>,
    entries: &mut [(ProducerId, ProducerEntry)],
) -> Result<(), &'static str> {
    for _ in 0..i32::from_be_bytes(cursor.take()?) {
        let producer_id = ProducerId(i64::from_be_bytes(cursor.take()?));
        let [counted] = cursor.take()?;
        let (count, is_whole) = (counted & !IS_WHOLE, counted & IS_WHOLE != 0);
        let found = entries.binary_search_by_key(&producer_id, |(id, _)| *id);
        let (_, entry) = &mut entries[found.map_err(|_| "batches of an unknown producer")?];
        if usize::from(count) >= ProducerEntry::BATCHES || entry.len != 1 {
            return Err("too many batches of a producer");
        }
        let (newest, last_timestamp) = (entry.batches[0], entry.last_timestamp);
        entry.len = 0;
        for _ in 0..count {
            let older = BatchMetadata {
                last_sequence: i32::from_be_bytes(cursor.take()?),
                offset_delta: i32::from_be_bytes(cursor.take()?),
                last_offset: Offset(i64::from_be_bytes(cursor.take()?)),
                timestamp: Timestamp(i64::from_be_bytes(cursor.take()?)),
            };
            if !is_possible(&older) {
                return Err("a batch with offsets that cannot be");
            }
            entry.push(older);
        }
        entry.push(newest);
        entry.is_whole = is_whole;
        entry.last_timestamp = last_timestamp;
    }
    Ok(())
}

/// What is left of the bytes.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }
}
