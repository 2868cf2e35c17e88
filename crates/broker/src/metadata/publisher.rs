//! Who hears of new metadata.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use klamm_metadata::{MetadataDelta, MetadataImage};

use crate::ReplicaManager;

/// Hears of every step of the metadata, in order and one at a time.
///
/// Publishers are called in the order in which the loader was given them, after the
/// [`MetadataCache`](super::MetadataCache) has the image. A step counts as applied when the last of them is done; the
/// next step waits.
pub trait MetadataPublisher: Send + Sync + fmt::Debug + 'static {
    /// The metadata went by `delta` to `image`.
    fn publish<'a>(
        &'a mut self,
        delta: &'a Arc<MetadataDelta>,
        image: &'a Arc<MetadataImage>,
    ) -> BoxFuture<'a, ()>;
}

impl MetadataPublisher for Arc<ReplicaManager> {
    fn publish<'a>(
        &'a mut self,
        delta: &'a Arc<MetadataDelta>,
        image: &'a Arc<MetadataImage>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(self.apply(Arc::clone(delta), Arc::clone(image)))
    }
}
