//! The brokers of the cluster.

use std::sync::Arc;

use klamm_types::{BrokerEpoch, BrokerId};

use crate::delta::ReplayError;
use crate::{BrokerChanged, BrokerRegistration, PersistentMap};

/// All registered brokers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterImage {
    brokers: PersistentMap<BrokerId, Arc<BrokerRegistration>>,
}

impl ClusterImage {
    /// The registration of `broker`.
    #[must_use]
    pub fn broker(&self, broker: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&broker)
    }

    /// All registrations, ordered by id.
    pub fn brokers(&self) -> impl DoubleEndedIterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values()
    }

    /// The number of registered brokers, fenced ones included.
    #[must_use]
    pub fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// Whether `broker` is registered, not fenced and not shutting down.
    #[must_use]
    pub fn is_active(&self, broker: BrokerId) -> bool {
        self.broker(broker).is_some_and(|registration| registration.is_active())
    }

    pub(crate) fn register(&mut self, registration: &BrokerRegistration) -> Result<(), ReplayError> {
        let BrokerRegistration { id, epoch, .. } = *registration;
        if let Some(old) = self.broker(id).filter(|old| old.epoch >= epoch) {
            return Err(ReplayError::BrokerEpoch { broker: id, found: epoch, known: old.epoch });
        }
        self.brokers.insert(id, Arc::new(registration.clone()));
        Ok(())
    }

    pub(crate) fn change(&mut self, change: &BrokerChanged) -> Result<(), ReplayError> {
        self.check_epoch(change.broker, change.epoch)?;
        if let Some(registration) = self.brokers.get_mut(&change.broker) {
            let registration = Arc::make_mut(registration);
            registration.fenced = change.fenced.unwrap_or(registration.fenced);
            registration.shutting_down = change.shutting_down.unwrap_or(registration.shutting_down);
            registration.cordoned = change.cordoned.unwrap_or(registration.cordoned);
        }
        Ok(())
    }

    pub(crate) fn unregister(&mut self, broker: BrokerId, epoch: BrokerEpoch) -> Result<(), ReplayError> {
        self.check_epoch(broker, epoch)?;
        self.brokers.remove(&broker);
        Ok(())
    }

    pub(crate) fn check_epoch(&self, broker: BrokerId, found: BrokerEpoch) -> Result<(), ReplayError> {
        let known = self.broker(broker).ok_or(ReplayError::UnknownBroker { broker })?.epoch;
        if known == found { Ok(()) } else { Err(ReplayError::BrokerEpoch { broker, found, known }) }
    }
}
