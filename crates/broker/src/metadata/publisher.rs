//! Who hears of new metadata.

use std::sync::Arc;

use klamm_metadata::{MetadataDelta, MetadataImage};

/// Hears of every step of the metadata, in order and one at a time.
///
/// Publishers are called in the order in which the loader was given them, after the
/// [`MetadataCache`](super::MetadataCache) has the image. A step counts as applied when the last of them has returned.
pub trait MetadataPublisher: Send + 'static {
    /// The metadata went by `delta` to `image`. May write files, since it is called on a thread for such work; the
    /// next step waits.
    fn publish(&mut self, delta: &MetadataDelta, image: &Arc<MetadataImage>);
}

impl<F> MetadataPublisher for F
where
    F: FnMut(&MetadataDelta, &Arc<MetadataImage>) + Send + 'static,
{
    fn publish(&mut self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        self(delta, image);
    }
}
