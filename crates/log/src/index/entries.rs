//! The entries of the three indexes, in Kafka's on-disk forms. All numbers are big-endian.

use klamm_types::{Offset, ProducerId, Timestamp};

use super::IndexEntry;
use crate::names::FileKind;

/// An entry of `.index`: the batch whose last offset is `relative_offset` starts at `position`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEntry {
    /// The last offset of a batch, less the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch starts in the segment's file, in bytes.
    pub position: u32,
}

/// An entry of `.timeindex`: no batch up to the one with `relative_offset` has a larger timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    /// The largest timestamp so far.
    pub timestamp: Timestamp,
    /// The last offset of the batch that has it, less the segment's base offset.
    pub relative_offset: u32,
}

/// An entry of `.txnindex`: a transaction that was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTxn {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// The first offset it wrote in this partition.
    pub first_offset: Offset,
    /// The offset of its abort marker.
    pub last_offset: Offset,
    /// The last stable offset once it was aborted.
    pub last_stable_offset: Offset,
}

impl IndexEntry for OffsetEntry {
    const KIND: FileKind = FileKind::OffsetIndex;
    const LEN: usize = 8;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.relative_offset.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (relative_offset, rest) = bytes.split_first_chunk()?;
        let (position, _) = rest.split_first_chunk()?;
        Some(Self {
            relative_offset: u32::from_be_bytes(*relative_offset),
            position: u32::from_be_bytes(*position),
        })
    }

    fn follows(&self, previous: &Self) -> bool {
        self.relative_offset > previous.relative_offset && self.position > previous.position
    }
}

impl IndexEntry for TimeEntry {
    const KIND: FileKind = FileKind::TimeIndex;
    const LEN: usize = 12;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, rest) = bytes.split_first_chunk()?;
        let (relative_offset, _) = rest.split_first_chunk()?;
        Some(Self {
            timestamp: Timestamp(i64::from_be_bytes(*timestamp)),
            relative_offset: u32::from_be_bytes(*relative_offset),
        })
    }

    fn follows(&self, previous: &Self) -> bool {
        self.timestamp > previous.timestamp && self.relative_offset > previous.relative_offset
    }
}

impl AbortedTxn {
    const VERSION: i16 = 0;
}

impl IndexEntry for AbortedTxn {
    const KIND: FileKind = FileKind::TxnIndex;
    const LEN: usize = 34;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&Self::VERSION.to_be_bytes());
        for field in [self.producer_id.0, self.first_offset.0, self.last_offset.0, self.last_stable_offset.0]
        {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        if i16::from_be_bytes(*version) < Self::VERSION {
            return None;
        }
        let mut fields = rest.chunks_exact(8).filter_map(<[u8]>::first_chunk).map(|f| i64::from_be_bytes(*f));
        let mut next = || fields.next();
        let entry = Self {
            producer_id: ProducerId(next()?),
            first_offset: Offset(next()?),
            last_offset: Offset(next()?),
            last_stable_offset: Offset(next()?),
        };
        // A marker comes after what it ends. Zeros, as a torn write leaves them, are no entry.
        (entry.last_offset > entry.first_offset && entry.first_offset.0 >= 0).then_some(entry)
    }

    fn follows(&self, previous: &Self) -> bool {
        self.last_offset > previous.last_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_kafkas_layout() {
        let mut bytes = Vec::new();
        OffsetEntry { relative_offset: 1, position: 2 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 0, 2]);
        bytes.clear();
        TimeEntry { timestamp: Timestamp(3), relative_offset: 4 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
        bytes.clear();
        let txn = AbortedTxn {
            producer_id: ProducerId(5),
            first_offset: Offset(6),
            last_offset: Offset(7),
            last_stable_offset: Offset(8),
        };
        txn.encode(&mut bytes);
        assert_eq!(bytes.len(), AbortedTxn::LEN);
        assert_eq!(AbortedTxn::decode(&bytes), Some(txn));
        assert_eq!(AbortedTxn::decode(&bytes[..33]), None);
    }
}
