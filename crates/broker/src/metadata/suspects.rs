//! Brokers that may be dead, as long as the metadata does not tell.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_metadata::MetadataImage;
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::time::Instant;

/// How long a broker is suspected at most. A death is fenced sooner, with an election of the controllers before it, too, or it
/// was none.
pub const SUSPICION_TIME: Duration = Duration::from_millis(300);

/// A broker that was suspected in vain is not suspected again for so long: streams that break again and again must not
/// hold clients up each time.
const TRUSTED_AFTER: Duration = Duration::from_secs(10);

/// Incarnations of brokers whose replication streams to this broker broke, and when.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<BTreeMap<BrokerId, (BrokerEpoch, Instant)>>);

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, (BrokerEpoch, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, broker: BrokerId, epoch: BrokerEpoch) {
        let now = Instant::now();
        let mut known = self.lock();
        let is_known = |(of, since): &(BrokerEpoch, Instant)| *of == epoch && now < *since + TRUSTED_AFTER;
        if !known.get(&broker).is_some_and(is_known) {
            known.insert(broker, (epoch, now));
        }
    }

    /// Those of whom `image` still says that they live, and until when they are suspected.
    pub(super) fn in_image(&self, image: &MetadataImage) -> BTreeMap<BrokerId, Instant> {
        let now = Instant::now();
        let mut known = self.lock();
        known.retain(|broker, (epoch, since)| {
            now < *since + TRUSTED_AFTER
                && image.cluster.broker(*broker).is_some_and(|told| told.epoch == *epoch && !told.fenced)
        });
        let until = known.iter().map(|(broker, (_, since))| (*broker, *since + SUSPICION_TIME));
        until.filter(|(_, until)| now < *until).collect()
    }
}
