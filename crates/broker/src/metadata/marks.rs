//! What was noticed of brokers a moment ago.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use klamm_metadata::{BrokerRegistration, MetadataImage};
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::time::Instant;

/// For how long a mark is kept.
const KEPT: Duration = Duration::from_secs(10);

/// Incarnations of brokers of which something was noticed, and when: the first time within [`KEPT`].
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<BTreeMap<BrokerId, (BrokerEpoch, Instant)>>);

impl Marks {
    pub(super) fn note(&self, broker: BrokerId, epoch: BrokerEpoch) {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |(of, since): &(BrokerEpoch, Instant)| *of == epoch && now < *since + KEPT;
        if !known.get(&broker).is_some_and(is_kept) {
            known.insert(broker, (epoch, now));
        }
    }

    /// Those whose incarnation `image` still has, as one of which `holds` is true, and since when. Others are forgotten.
    pub(super) fn in_image(
        &self,
        image: &MetadataImage,
        holds: impl Fn(&BrokerRegistration) -> bool,
    ) -> BTreeMap<BrokerId, Instant> {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|broker, (epoch, since)| {
            let told = image.cluster.broker(*broker).filter(|told| told.epoch == *epoch);
            now < *since + KEPT && told.is_some_and(|told| holds(told))
        });
        known.iter().map(|(broker, (_, since))| (*broker, *since)).collect()
    }
}
