//! Choosing brokers for new replicas.

use std::collections::BTreeMap;

use klamm_metadata::{BrokerLoad, MetadataImage};
use klamm_types::BrokerId;

use crate::Randomness;
use crate::randomness::shuffle;

/// A broker that may get new replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsableBroker {
    /// The broker.
    pub id: BrokerId,
    /// Its rack; brokers without one share a rack of their own.
    pub rack: Option<String>,
    /// Whether it is in service now.
    pub active: bool,
    /// What it carries already.
    pub load: BrokerLoad,
}

/// The replicas of one new partition, the preferred leader first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// At least one, none twice.
    pub replicas: Vec<BrokerId>,
}

/// Why replicas cannot be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlacementError {
    /// Each replica needs a broker of its own.
    #[error("a replication factor of {replication_factor} needs as many brokers, and {usable} can be used")]
    TooFewBrokers {
        /// What was asked for.
        replication_factor: usize,
        /// How many brokers can get replicas.
        usable: usize,
    },
    /// Nobody could lead the new partition.
    #[error("all brokers are fenced or shutting down")]
    NoActiveBroker,
}

/// Places replicas one partition after the other.
///
/// Rules, each subordinate to those before it: a partition has no two replicas on one broker; its preferred leader
/// is active; its replicas are on as many racks as there are, equally often; active brokers come before fenced ones; those
/// with the fewest preferred leaders (for the first replica) or the fewest replicas (for the others) come first; the
/// rest is chance, drawn once per request.
#[derive(Clone, Debug)]
pub struct ReplicaPlacer {
    brokers: Vec<UsableBroker>,
}

impl ReplicaPlacer {
    /// A placer on `brokers`, in an order that `randomness` draws.
    #[must_use]
    pub fn new(mut brokers: Vec<UsableBroker>, randomness: &mut dyn Randomness) -> Self {
        shuffle(&mut brokers, randomness);
        Self { brokers }
    }

    /// A placer on the brokers of `image` that are neither cordoned nor on their way out.
    #[must_use]
    pub fn of_image(image: &MetadataImage, randomness: &mut dyn Randomness) -> Self {
        let usable = image.cluster.brokers().filter(|broker| !broker.cordoned && !broker.shutting_down);
        let usable = usable.map(|broker| UsableBroker {
            id: broker.id,
            rack: broker.rack.clone(),
            active: broker.is_active(),
            load: image.topics.load(broker.id),
        });
        Self::new(usable.collect(), randomness)
    }

    /// Places one partition, and counts it against the brokers it chose.
    ///
    /// # Errors
    /// [`PlacementError`]; nothing is counted then.
    pub fn place(&mut self, replication_factor: usize) -> Result<Placement, PlacementError> {
        let usable = self.brokers.len();
        if replication_factor > usable || replication_factor == 0 {
            return Err(PlacementError::TooFewBrokers { replication_factor, usable });
        }
        if !self.brokers.iter().any(|broker| broker.active) {
            return Err(PlacementError::NoActiveBroker);
        }
        let mut chosen: Vec<usize> = Vec::with_capacity(replication_factor);
        let mut on_rack: BTreeMap<Option<String>, usize> = BTreeMap::new();
        while chosen.len() < replication_factor {
            let free = self.brokers.iter().enumerate().filter(|(i, _)| !chosen.contains(i));
            let next = free.min_by_key(|(_, broker)| {
                let crowd = on_rack.get(&broker.rack).copied().unwrap_or(0);
                let leads = if chosen.is_empty() { broker.load.preferred } else { 0 };
                let unfit_to_lead = chosen.is_empty() && !broker.active;
                (unfit_to_lead, crowd, !broker.active, leads, broker.load.replicas)
            });
            let Some((next, broker)) = next else { break };
            *on_rack.entry(broker.rack.clone()).or_default() += 1;
            chosen.push(next);
        }
        Ok(self.count(&chosen))
    }

    fn count(&mut self, chosen: &[usize]) -> Placement {
        let mut replicas = Vec::with_capacity(chosen.len());
        for &at in chosen {
            let broker = &mut self.brokers[at];
            broker.load.replicas += 1;
            broker.load.preferred += u32::from(replicas.is_empty());
            replicas.push(broker.id);
        }
        Placement { replicas }
    }
}
