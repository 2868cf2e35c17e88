//! The newest image, for everybody on this node.

use std::sync::Arc;

use arc_swap::ArcSwap;
use klamm_metadata::MetadataImage;
use klamm_rpc::Deadline;
use klamm_types::Offset;
use tokio::sync::watch;

/// The metadata did not come as far in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata is applied up to {applied}, not yet to {wanted}")]
pub struct NotApplied {
    /// The last offset that is applied.
    pub applied: Offset,
    /// What was waited for.
    pub wanted: Offset,
}

/// The metadata as this broker knows it. Reading takes no lock.
///
/// The image may be ahead of [`applied_offset`](Self::applied_offset): the replicas of this broker may not have
/// acted on it yet.
#[derive(Debug)]
pub struct MetadataCache {
    image: ArcSwap<MetadataImage>,
    applied: watch::Sender<Offset>,
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self::new()
    }
}

impl MetadataCache {
    /// A cache that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_with(MetadataImage::empty())
    }

    /// A cache that starts with an image, of which everything is applied.
    #[must_use]
    pub fn starting_with(image: MetadataImage) -> Self {
        let applied = watch::Sender::new(image.provenance.last_offset);
        Self { image: ArcSwap::from_pointee(image), applied }
    }

    /// The newest image. Take it once for whatever must fit together.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// The last offset of the metadata log that everybody on this node has acted on; -1 for none.
    #[must_use]
    pub fn applied_offset(&self) -> Offset {
        *self.applied.borrow()
    }

    /// Waits until everything up to `offset` (inclusive) is applied.
    ///
    /// # Errors
    /// [`NotApplied`] if it is not by the deadline.
    pub async fn wait_for(&self, offset: Offset, deadline: Deadline) -> Result<(), NotApplied> {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= offset);
        match tokio::time::timeout_at(deadline.instant(), reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives as long as `self`, so nothing but time runs out.
            Ok(Err(_)) | Err(_) => Err(NotApplied { applied: self.applied_offset(), wanted: offset }),
        }
    }

    /// Waits until an image that satisfies `condition` is applied, and gives it.
    ///
    /// # Errors
    /// [`NotApplied`] if there is none by the deadline, wanting the offset after the newest.
    pub async fn wait_until(
        &self,
        mut condition: impl FnMut(&MetadataImage) -> bool,
        deadline: Deadline,
    ) -> Result<Arc<MetadataImage>, NotApplied> {
        let mut applied = self.applied.subscribe();
        loop {
            let seen = *applied.borrow_and_update();
            let image = self.image();
            if image.provenance.last_offset <= seen && condition(&image) {
                return Ok(image);
            }
            let changed = tokio::time::timeout_at(deadline.instant(), applied.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(NotApplied { applied: seen, wanted: seen.next() });
            }
        }
    }

    /// Waits until something after `offset` is applied; tells how far.
    pub async fn applied_past(&self, offset: Offset) -> Offset {
        let mut applied = self.applied.subscribe();
        match applied.wait_for(|applied| *applied > offset).await.map(|applied| *applied) {
            Ok(applied) => applied,
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Replaces the image; images come in order.
    pub(super) fn publish(&self, image: Arc<MetadataImage>) {
        self.image.store(image);
    }

    /// Everybody has acted on what lies up to `offset`.
    pub(crate) fn on_applied(&self, offset: Offset) {
        self.applied.send_if_modified(|applied| applied.advance_to(offset));
    }
}
