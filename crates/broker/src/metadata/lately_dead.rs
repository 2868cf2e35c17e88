//! Brokers that died a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_metadata::{BrokerRegistration, MetadataImage};
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::time::Instant;

/// For how long clients are told of a broker that died. Kafka's are told of it for as long as its session lasts, nine
/// seconds by default.
const MOURNED: Duration = Duration::from_secs(10);

/// Incarnations of brokers that were fenced while they served, and when. One that left in an orderly way is none.
#[derive(Debug, Default)]
pub(super) struct LatelyDead(Mutex<BTreeMap<BrokerId, (BrokerEpoch, Instant)>>);

impl LatelyDead {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, (BrokerEpoch, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares an image with the one before.
    pub(super) fn watch(&self, old: &MetadataImage, new: &MetadataImage) {
        let has_died =
            |was: &BrokerRegistration| !was.fenced && !was.shutting_down && is_fenced(new, was.id, was.epoch);
        for was in old.cluster.brokers().filter(|was| has_died(was)) {
            self.lock().insert(was.id, (was.epoch, Instant::now()));
        }
    }

    /// Those that have not come back, for [`MOURNED`].
    pub(super) fn in_image(&self, image: &MetadataImage) -> BTreeSet<BrokerId> {
        let now = Instant::now();
        let mut known = self.lock();
        known.retain(|broker, (epoch, since)| now < *since + MOURNED && is_fenced(image, *broker, *epoch));
        known.keys().copied().collect()
    }
}

fn is_fenced(image: &MetadataImage, broker: BrokerId, epoch: BrokerEpoch) -> bool {
    image.cluster.broker(broker).is_some_and(|told| told.epoch == epoch && told.fenced)
}
