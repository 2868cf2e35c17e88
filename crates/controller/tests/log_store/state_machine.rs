//! The least state machine that openraft's suite can work with: it remembers what was applied last, and who votes.

use std::io;

use futures_util::{Stream, StreamExt as _};
use klamm_controller::raft::{AppliedEntry, EntryPayload, LogId, TypeConfig};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};

/// Snapshots carry nothing but their description.
#[derive(Clone, Default)]
pub(crate) struct LastApplied {
    applied: Option<LogId>,
    voters: StoredMembershipOf<TypeConfig>,
    snapshot: Option<SnapshotMetaOf<TypeConfig>>,
}

/// Keeps the snapshot in the machine that it was made for.
pub(crate) struct Builder(SnapshotMetaOf<TypeConfig>);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, ()>> {
        Ok(openraft::Snapshot { meta: self.0.clone(), snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for LastApplied {
    type SnapshotData = ();
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<TypeConfig>)> {
        Ok((self.applied, self.voters.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(voters) = &entry.payload {
                self.voters = StoredMembershipOf::<TypeConfig>::new(Some(entry.log_id), voters.clone());
            }
            if let Some(responder) = responder {
                responder.send(AppliedEntry { index: entry.log_id.index });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta =
            SnapshotMetaOf::<TypeConfig> { last_log_id: self.applied, last_membership: self.voters.clone() };
        self.snapshot = Some(meta.clone());
        Builder(meta)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, (): ()) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.voters = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        Ok(self.snapshot.clone().map(|meta| openraft::Snapshot { meta, snapshot: () }))
    }
}
