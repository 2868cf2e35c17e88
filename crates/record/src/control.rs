//! Control records: marks that brokers leave in a log for each other and for the clients' libraries.
//!
//! ```text
//!   key:   version i16 | type i16
//!   value: version i16 | coordinator epoch i32          (types 0 and 1)
//! ```

use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::builder::{BatchBuilder, BuildError, NewRecord};
use crate::compression::Compression;
use crate::record::Record;

/// The version written in keys and values. Higher ones start with the same fields.
const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionResult {
    /// Its records are to be skipped by readers of committed data.
    Abort,
    /// Its records are committed.
    Commit,
}

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's transaction has ended.
    EndTxn(EndTxnMarker),
    /// Something this version does not know, or that only Raft logs hold; readers pass over it.
    Other {
        /// The number of the type: 2 leader change, 3 and 4 snapshot header and footer, 5 and 6 Raft version and voters.
        kind: i16,
    },
}

/// The end of a transaction in one partition (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// How it ended.
    pub result: TransactionResult,
    /// The epoch of the transaction coordinator that wrote it; an older one is fenced.
    pub coordinator_epoch: CoordinatorEpoch,
}

/// Why a record is no control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The key is null or shorter than its two fields.
    #[error("control record has a key of {len} bytes, fewer than 4")]
    Key {
        /// The key's length in bytes; 0 if it is null.
        len: usize,
    },
    /// The key's version is negative.
    #[error("control record has key version {version}")]
    KeyVersion {
        /// The version field.
        version: i16,
    },
    /// The value of an end marker is null or shorter than its two fields.
    #[error("transaction marker has a value of {len} bytes, fewer than 6")]
    Value {
        /// The value's length in bytes; 0 if it is null.
        len: usize,
    },
    /// The value's version is negative.
    #[error("transaction marker has value version {version}")]
    ValueVersion {
        /// The version field.
        version: i16,
    },
}

impl ControlRecord {
    /// Reads a record of a control batch.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn parse(record: &Record<'_>) -> Result<Self, ControlError> {
        let key = record.key.unwrap_or_default();
        let Some(&[v0, v1, k0, k1]) = key.first_chunk() else {
            return Err(ControlError::Key { len: key.len() });
        };
        let version = i16::from_be_bytes([v0, v1]);
        if version < 0 {
            return Err(ControlError::KeyVersion { version });
        }
        let result = match i16::from_be_bytes([k0, k1]) {
            ABORT => TransactionResult::Abort,
            COMMIT => TransactionResult::Commit,
            kind => return Ok(Self::Other { kind }),
        };
        let value = record.value.unwrap_or_default();
        let Some(&[v0, v1, e0, e1, e2, e3]) = value.first_chunk() else {
            return Err(ControlError::Value { len: value.len() });
        };
        let version = i16::from_be_bytes([v0, v1]);
        if version < 0 {
            return Err(ControlError::ValueVersion { version });
        }
        let coordinator_epoch = CoordinatorEpoch(i32::from_be_bytes([e0, e1, e2, e3]));
        Ok(Self::EndTxn(EndTxnMarker { result, coordinator_epoch }))
    }
}

impl EndTxnMarker {
    /// The control batch that ends the transaction of this producer; base offset 0, for the log to assign.
    ///
    /// # Errors
    /// [`BuildError`]; no timestamp or epoch can cause one.
    pub fn batch(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        timestamp: Timestamp,
        leader_epoch: LeaderEpoch,
    ) -> Result<Vec<u8>, BuildError> {
        let kind = match self.result {
            TransactionResult::Abort => ABORT,
            TransactionResult::Commit => COMMIT,
        };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let value = [&VERSION.to_be_bytes()[..], &self.coordinator_epoch.0.to_be_bytes()[..]].concat();
        let mut batch = BatchBuilder::new(Compression::NONE)
            .base_offset(Offset::ZERO)
            .leader_epoch(leader_epoch)
            .producer(producer_id, producer_epoch, -1)
            .transactional()
            .control();
        batch.append(&NewRecord::new(timestamp, Some(&key), Some(&value)))?;
        batch.build()
    }
}
