//! What comes from the feed, put together to steps of the metadata.
//!
//! ```text
//!   entries ──replay on the image──▶ step          header ──▶ chunks ──▶ trailer ──▶ step (between)
//! ```

use std::sync::Arc;

use klamm_metadata::{
    MetadataDelta, MetadataImage, MetadataProvenance, RecordError, ReplayError, SnapshotError,
    SnapshotReader, from_batch,
};
use klamm_pb::metadata::v1 as pb;
use klamm_rpc::ForeignQuorum;
use klamm_types::Offset;

/// Why the feed cannot be followed further.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// An entry does not follow the one before it.
    #[error("the feed goes on at offset {found} instead of {expected}")]
    Gap {
        /// The entry that came.
        found: Offset,
        /// The one that should have come.
        expected: Offset,
    },
    /// A snapshot that ends before what is applied already.
    #[error("the feed has a snapshot of offset {found}, but {applied} is applied")]
    WentBack {
        /// The last offset of the snapshot.
        found: Offset,
        /// The last offset that is applied.
        applied: Offset,
    },
    /// An event that makes no sense where it stands.
    #[error("the feed sent an event out of place")]
    OutOfPlace,
    /// A snapshot that was not whole, or does not fit together.
    #[error("the snapshot cannot be read")]
    Snapshot(#[source] SnapshotError),
    /// An entry that this binary does not understand.
    #[error("the entry at offset {offset} cannot be read")]
    Entry {
        /// Which.
        offset: Offset,
        /// Why.
        source: RecordError,
    },
    /// An entry whose facts cannot follow what is applied.
    #[error("the entry at offset {offset} cannot follow what is applied")]
    Replay {
        /// Which.
        offset: Offset,
        /// Why.
        source: ReplayError,
    },
    /// The quorum, as a majority has confirmed, does not have what was applied.
    #[error(
        "the quorum has committed the metadata before offset {committed_end} and this node had applied {applied}: the controllers' disks were replaced by older copies, and what was acknowledged since then is lost; start this node again to go on without it"
    )]
    QuorumWentBack {
        /// Exclusive end of what is committed.
        committed_end: Offset,
        /// The last offset that is applied.
        applied: Offset,
    },
    /// The metadata is that of another quorum than this node belongs to.
    #[error("the feed is of a foreign quorum")]
    Quorum(#[from] ForeignQuorum),
}

impl FeedError {
    /// Whether the metadata itself cannot be understood, so that asking again, or asking another, does not help:
    /// the node must stop rather than serve what is not the truth.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Entry { .. } | Self::Replay { .. } | Self::Quorum(_) | Self::QuorumWentBack { .. } => true,
            Self::Snapshot(error) => match error {
                SnapshotError::UnknownVersion { .. }
                | SnapshotError::Record(_)
                | SnapshotError::Replay(_) => true,
                SnapshotError::TooLong { .. }
                | SnapshotError::Malformed(_)
                | SnapshotError::OutOfPlace
                | SnapshotError::Incomplete { .. } => false,
            },
            Self::Gap { .. } | Self::WentBack { .. } | Self::OutOfPlace => false,
        }
    }
}

/// A step of the metadata: from the image before to the image after.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) delta: Arc<MetadataDelta>,
    pub(super) image: Arc<MetadataImage>,
}

/// The image that a feed has led to, and what of a snapshot has come since.
#[derive(Debug)]
pub(super) struct Feed {
    image: Arc<MetadataImage>,
    snapshot: Option<SnapshotReader>,
}

impl Feed {
    /// A feed that goes on from `image`.
    pub(super) fn new(image: Arc<MetadataImage>) -> Self {
        Self { image, snapshot: None }
    }

    /// What has been replayed.
    pub(super) fn provenance(&self) -> MetadataProvenance {
        self.image.provenance
    }

    /// A new stream begins after what has been replayed; half a snapshot of the one before is dropped.
    pub(super) fn on_reconnected(&mut self) {
        self.snapshot = None;
    }

    /// Takes one event; gives a step if it completes one. After an error nothing has changed, and the stream is of
    /// no more use.
    pub(super) fn on_event(&mut self, event: pb::FollowEvent) -> Result<Option<Step>, FeedError> {
        use pb::follow_event::Event;
        match event.event {
            Some(Event::Snapshot(part)) => self.on_snapshot_part(part),
            Some(Event::Entries(_)) if self.snapshot.is_some() => Err(FeedError::OutOfPlace),
            Some(Event::Entries(entries)) => self.on_entries(entries),
            Some(Event::Idle(_)) => Ok(None),
            Some(Event::Behind(behind)) => Err(FeedError::QuorumWentBack {
                committed_end: Offset(behind.committed_end_offset),
                applied: self.image.provenance.last_offset,
            }),
            None => Err(FeedError::OutOfPlace),
        }
    }

    fn on_snapshot_part(&mut self, part: pb::SnapshotPart) -> Result<Option<Step>, FeedError> {
        let mut reader = self.snapshot.take().unwrap_or_default();
        let Some(image) = reader.push_message(part).map_err(FeedError::Snapshot)? else {
            self.snapshot = Some(reader);
            return Ok(None);
        };
        let (found, applied) = (image.provenance.last_offset, self.image.provenance.last_offset);
        if found < applied {
            return Err(FeedError::WentBack { found, applied });
        }
        let base = MetadataImage::clone(&self.image);
        let delta = MetadataDelta::between(base, image.clone());
        Ok(Some(self.step_to(delta, image)))
    }

    fn on_entries(&mut self, entries: pb::CommittedEntries) -> Result<Option<Step>, FeedError> {
        let mut delta = MetadataDelta::new(MetadataImage::clone(&self.image));
        let mut provenance = self.image.provenance;
        for entry in entries.entries {
            let (found, expected) = (Offset(entry.offset), provenance.last_offset.next());
            if found != expected {
                return Err(FeedError::Gap { found, expected });
            }
            let batch = entry.batch.unwrap_or_default();
            let records = from_batch(batch).map_err(|source| FeedError::Entry { offset: found, source })?;
            for record in &records {
                delta.replay(record).map_err(|source| FeedError::Replay { offset: found, source })?;
            }
            provenance = MetadataProvenance { last_offset: found, last_epoch: entry.epoch };
        }
        if provenance == self.image.provenance {
            return Ok(None);
        }
        let image = MetadataImage { provenance, ..delta.image().clone() };
        Ok(Some(self.step_to(delta, image)))
    }

    fn step_to(&mut self, delta: MetadataDelta, image: MetadataImage) -> Step {
        self.image = Arc::new(image);
        Step { delta: Arc::new(delta), image: Arc::clone(&self.image) }
    }
}

#[cfg(test)]
#[path = "feed_test.rs"]
mod tests;
