//! Entries as record batches: one entry, one batch of one record; its offset is the index, its leader epoch the term.
//!
//! | payload | batch | key | value |
//! | --- | --- | --- | --- |
//! | records | plain | none | the encoded records, as they are |
//! | blank | control | version 0, [`BLANK_CONTROL_TYPE`] | none |
//! | membership | control | version 0, [`MEMBERSHIP_CONTROL_TYPE`] | the voters, in an envelope |
//!
//! Batches carry no time: the same entry has the same bytes on every node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_record::{BatchBuilder, Compression, ControlRecord, NewRecord, RecordBatch};
use klamm_types::{LeaderEpoch, Offset, Timestamp};
use serde::{Deserialize, Serialize};

use super::envelope::{self, Durable};
use super::error::{EntryError, LogStoreError};
use super::types::{
    CommittedLeaderId, ControllerNode, EncodedRecords, Entry, EntryPayload, LogId, Membership,
};

/// The control record type of an entry without content, with which a leader begins its term. Kafka's own types end at
/// 6; its readers pass over those that they do not know.
pub const BLANK_CONTROL_TYPE: i16 = 0x4b00;
/// The control record type of an entry that names the voters.
pub const MEMBERSHIP_CONTROL_TYPE: i16 = 0x4b01;
/// The most bytes of an entry's records. Refuse a larger change before it is proposed: in the log it would stop the
/// node.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// The version field in the key of a control record.
const CONTROL_VERSION: i16 = 0;

/// Appends the batch of `entry` to `batches`.
pub(super) fn encode(entry: &Entry, batches: &mut Vec<u8>) -> Result<(), LogStoreError> {
    let index = entry.log_id.index;
    let batch = batch_of(entry).map_err(|source| LogStoreError::Entry { index, source })?;
    batches.extend_from_slice(&batch);
    Ok(())
}

fn batch_of(entry: &Entry) -> Result<Vec<u8>, EntryError> {
    let LogId { leader_id: CommittedLeaderId { term }, index } = entry.log_id;
    let builder = BatchBuilder::new(Compression::NONE)
        .base_offset(offset_of(index).ok_or(EntryError::Index { index })?)
        .leader_epoch(LeaderEpoch(i32::try_from(term).map_err(|_| EntryError::Term { term })?));
    let (mut builder, key, value) = match &entry.payload {
        EntryPayload::Normal(EncodedRecords(records)) => (builder, None, Some(records.clone())),
        EntryPayload::Blank => (builder.control(), Some(control_key(BLANK_CONTROL_TYPE)), None),
        EntryPayload::Membership(membership) => {
            let mut value = Vec::new();
            envelope::seal(&MembershipV1::from(membership), &mut value)?;
            (builder.control(), Some(control_key(MEMBERSHIP_CONTROL_TYPE)), Some(value.into()))
        }
    };
    let len = value.as_ref().map_or(0, Bytes::len);
    if len > ENTRY_BYTES_MAX {
        return Err(EntryError::TooLarge { len, max: ENTRY_BYTES_MAX });
    }
    let key = key.as_ref().map(<[u8; 4]>::as_slice);
    builder.append(&NewRecord::new(Timestamp::NONE, key, value.as_deref()))?;
    Ok(builder.build()?)
}

/// The entry that `batch` is. Checks its CRC.
pub(super) fn decode(batch: &RecordBatch<'_>) -> Result<Entry, EntryError> {
    batch.verify_crc()?;
    let log_id = log_id_of(batch)?;
    let mut records = batch.records(ENTRY_BYTES_MAX as u64)?;
    let Some(record) = records.next_record()? else { return Err(EntryError::NoValue) };
    let payload = if batch.attributes().is_control() {
        match ControlRecord::parse(&record)? {
            ControlRecord::Other { kind: BLANK_CONTROL_TYPE } => EntryPayload::Blank,
            ControlRecord::Other { kind: MEMBERSHIP_CONTROL_TYPE } => {
                let stored: MembershipV1 = envelope::open_only(record.value.ok_or(EntryError::NoValue)?)?;
                EntryPayload::Membership(stored.try_into()?)
            }
            ControlRecord::Other { kind } => return Err(EntryError::ControlType { control_type: kind }),
            ControlRecord::EndTxn(_) => return Err(EntryError::ControlType { control_type: 1 }),
        }
    } else {
        let value = record.value.ok_or(EntryError::NoValue)?;
        EntryPayload::Normal(EncodedRecords(Bytes::copy_from_slice(value)))
    };
    Ok(Entry { log_id, payload })
}

/// The log id in the header of `batch`.
pub(super) fn log_id_of(batch: &RecordBatch<'_>) -> Result<LogId, EntryError> {
    let header = batch.header();
    let index = u64::try_from(header.base_offset().0);
    let term = u64::try_from(header.leader_epoch().0);
    match (index, term, header.record_count(), header.last_offset_delta()) {
        (Ok(index), Ok(term), 1, 0) => Ok(LogId { leader_id: CommittedLeaderId::new(term), index }),
        (_, _, records, _) => Err(EntryError::Header {
            base_offset: header.base_offset().0,
            epoch: header.leader_epoch().0,
            records,
        }),
    }
}

/// The offset of the entry `index`; `None` if it, or the one after it, would pass the range of offsets.
pub(super) fn offset_of(index: u64) -> Option<Offset> {
    i64::try_from(index).ok().filter(|offset| *offset < i64::MAX).map(Offset)
}

fn control_key(control_type: i16) -> [u8; 4] {
    let ([v0, v1], [t0, t1]) = (CONTROL_VERSION.to_be_bytes(), control_type.to_be_bytes());
    [v0, v1, t0, t1]
}

/// The voters on the disk, version 1. Frozen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct MembershipV1 {
    /// One set of voters, or two while they change.
    pub(super) configs: Vec<Vec<u64>>,
    /// Voters and learners, by id.
    pub(super) nodes: Vec<NodeV1>,
}

/// A node on the disk, version 1. Frozen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct NodeV1 {
    pub(super) id: u64,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) directory_id: [u8; 16],
}

impl Durable for MembershipV1 {
    const RECORD_TYPE: u16 = 4;
    const SCHEMA_VERSION: u16 = 1;
}

impl From<&Membership> for MembershipV1 {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config().iter();
        let nodes = membership.nodes().map(|(id, node)| NodeV1 {
            id: *id,
            host: node.host.clone(),
            port: node.port,
            directory_id: node.directory_id,
        });
        Self {
            configs: configs.map(|voters| voters.iter().copied().collect()).collect(),
            nodes: nodes.collect(),
        }
    }
}

impl TryFrom<MembershipV1> for Membership {
    type Error = EntryError;

    fn try_from(stored: MembershipV1) -> Result<Self, EntryError> {
        let configs: Vec<BTreeSet<u64>> =
            stored.configs.into_iter().map(|voters| voters.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, ControllerNode> = stored
            .nodes
            .into_iter()
            .map(|NodeV1 { id, host, port, directory_id }| (id, ControllerNode { host, port, directory_id }))
            .collect();
        Self::new(configs, nodes).map_err(|error| EntryError::Membership { reason: error.to_string() })
    }
}

#[cfg(test)]
#[path = "entry_test.rs"]
mod tests;
