//! Committed entries become the committed image.
//!
//! An entry that does not decode, or whose facts cannot follow, stops the node: it comes from a newer binary, from a
//! bug or from a damaged log, and whatever would be served after it would not be the truth.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use klamm_metadata::{
    MetadataDelta, MetadataImage, MetadataProvenance, RecordError, ReplayError, decode_batch,
};
use klamm_types::Offset;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use tokio::sync::watch;

use super::snapshot_store::{Snapshot, SnapshotStore, SnapshotStoreError};
use super::types::{AppliedEntry, EncodedRecords, Entry, EntryPayload, LogId, TypeConfig};
use crate::metrics::ElectionCounter;

/// Why a committed entry cannot be applied. The node has to stop.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// Its bytes are no records that this binary knows.
    #[error("entry {index} cannot be understood: {source}")]
    Record {
        /// The entry.
        index: u64,
        /// What is wrong.
        source: RecordError,
    },
    /// Its facts cannot follow those before it.
    #[error("entry {index} cannot follow what was committed before: {source}")]
    Replay {
        /// The entry.
        index: u64,
        /// What is wrong.
        source: ReplayError,
    },
}

/// The committed image, and where it is published.
pub(crate) struct MetadataStateMachine {
    image: MetadataImage,
    last_applied: Option<LogId>,
    membership: StoredMembershipOf<TypeConfig>,
    snapshots: Arc<SnapshotStore>,
    committed: watch::Sender<MetadataImage>,
    elections: Arc<ElectionCounter>,
}

impl MetadataStateMachine {
    /// The machine as its newest snapshot left it. Everything that is applied is published through `committed`, and
    /// `elections` counts in it.
    pub(crate) fn new(
        snapshots: Arc<SnapshotStore>,
        committed: watch::Sender<MetadataImage>,
        elections: Arc<ElectionCounter>,
    ) -> Self {
        let mut machine = Self {
            image: MetadataImage::empty(),
            last_applied: None,
            membership: StoredMembershipOf::<TypeConfig>::default(),
            snapshots,
            committed,
            elections,
        };
        if let Some(snapshot) = machine.snapshots.current() {
            machine.adopt(snapshot);
        }
        machine
    }

    fn adopt(&mut self, snapshot: Snapshot) {
        self.last_applied = snapshot.meta.last_log_id;
        self.membership = snapshot.meta.last_membership;
        self.image = snapshot.snapshot;
        self.committed.send_replace(self.image.clone());
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<(), ApplyError> {
        let log_id = entry.log_id;
        let records = match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(EncodedRecords(bytes)) => {
                decode_batch(bytes).map_err(|source| ApplyError::Record { index: log_id.index, source })?
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembershipOf::<TypeConfig>::new(Some(log_id), membership);
                Vec::new()
            }
        };
        let mut delta = MetadataDelta::new(self.image.clone());
        for record in &records {
            delta.replay(record).map_err(|source| ApplyError::Replay { index: log_id.index, source })?;
        }
        self.elections.count(&self.image, &records);
        self.image = delta.apply(provenance_of(log_id));
        self.last_applied = Some(log_id);
        Ok(())
    }
}

/// Entries as a prefix of the log.
pub(crate) fn provenance_of(log_id: LogId) -> MetadataProvenance {
    MetadataProvenance {
        last_offset: Offset(log_id.index.cast_signed()),
        last_epoch: log_id.leader_id.term.cast_signed(),
    }
}

impl RaftStateMachine<TypeConfig> for MetadataStateMachine {
    type SnapshotData = MetadataImage;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<TypeConfig>)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let index = entry.log_id.index;
            self.apply_entry(entry).map_err(|error| {
                tracing::error!(%error, "the metadata log cannot be applied");
                io::Error::other(error)
            })?;
            self.committed.send_replace(self.image.clone());
            if let Some(responder) = responder {
                responder.send(AppliedEntry { index });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        let snapshot = Snapshot { meta, snapshot: self.image.clone() };
        SnapshotBuilder { snapshot, snapshots: Arc::clone(&self.snapshots) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        image: MetadataImage,
    ) -> io::Result<()> {
        let snapshot = Snapshot { meta: meta.clone(), snapshot: image };
        save(&self.snapshots, &snapshot).await?;
        self.adopt(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, MetadataImage>>> {
        Ok(self.snapshots.current())
    }
}

/// Writes one snapshot, beside the machine: it holds an image of its own, which costs a few pointers.
pub(crate) struct SnapshotBuilder {
    snapshot: Snapshot,
    snapshots: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = MetadataImage;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, MetadataImage>> {
        save(&self.snapshots, &self.snapshot).await?;
        Ok(self.snapshot.clone())
    }
}

async fn save(snapshots: &Arc<SnapshotStore>, snapshot: &Snapshot) -> Result<(), io::Error> {
    let (snapshots, snapshot) = (Arc::clone(snapshots), snapshot.clone());
    let saved = tokio::task::spawn_blocking(move || snapshots.save(&snapshot)).await;
    saved.map_err(io::Error::other)?.map_err(|error: SnapshotStoreError| {
        tracing::error!(%error, "a snapshot of the metadata cannot be saved");
        io::Error::from(error)
    })
}

#[cfg(test)]
#[path = "state_machine_test.rs"]
mod tests;
