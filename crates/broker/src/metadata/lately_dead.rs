//! Brokers that died a moment ago.

use std::collections::BTreeSet;

use klamm_metadata::{BrokerRegistration, MetadataImage};
use klamm_types::BrokerId;

use super::marks::Marks;

/// Incarnations of brokers that were fenced while they served. One that left in an orderly way is none. Clients are told
/// of them for as long as [marks](Marks) are kept; Kafka's are for as long as a session lasts, nine seconds by default.
#[derive(Debug, Default)]
pub(super) struct LatelyDead(Marks);

impl LatelyDead {
    /// Compares an image with the one before.
    pub(super) fn watch(&self, old: &MetadataImage, new: &MetadataImage) {
        let is_fenced = |was: &BrokerRegistration| {
            new.cluster.broker(was.id).is_some_and(|told| told.epoch == was.epoch && told.fenced)
        };
        let served = old.cluster.brokers().filter(|was| !was.fenced && !was.shutting_down);
        served.filter(|was| is_fenced(was)).for_each(|was| self.0.note(was.id, was.epoch));
    }

    /// Those that have not come back.
    pub(super) fn in_image(&self, image: &MetadataImage) -> BTreeSet<BrokerId> {
        self.0.in_image(image, |told| told.fenced).into_keys().collect()
    }
}
