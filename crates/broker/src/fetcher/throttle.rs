//! Limits on the bytes of replication in a second, for replicas that the topic names (KIP-73): what moves replicas
//! must not crowd out those that serve. Replicas in sync are never held up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use klamm_log::ThrottledReplicas;
use klamm_metadata::{ConfigResource, MetadataImage};
use klamm_types::{BrokerId, PartitionId};
use tokio::time::Instant;

/// The broker setting of the rate at which followers fetch, in bytes a second.
pub(crate) const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";
/// The broker setting of the rate at which leaders serve followers, in bytes a second.
pub(crate) const LEADER_RATE: &str = "leader.replication.throttled.rate";

/// How much of what was not used is kept for later.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket. What is taken may exceed what is there; the debt is waited for.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Negative: a debt.
    bytes: i64,
    filled_at: Instant,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Bucket { bytes: 0, filled_at: Instant::now() }))
    }

    /// Whether nothing may go at `rate` bytes a second now.
    pub(crate) fn is_exhausted(&self, rate: u64, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.filled_at);
        let earned = u128::from(rate) * elapsed.as_micros() / 1_000_000;
        if earned > 0 {
            let burst = i64::try_from(u128::from(rate) * BURST.as_micros() / 1_000_000).unwrap_or(i64::MAX);
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            bucket.bytes = bucket.bytes.saturating_add(earned).min(burst);
            bucket.filled_at = now;
        }
        bucket.bytes <= 0
    }

    /// Counts what went.
    pub(crate) fn take(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.bytes = bucket.bytes.saturating_sub(bytes);
    }
}

/// The rate that the metadata sets for `node`, if it limits anything.
pub(crate) fn rate(image: &MetadataImage, node: BrokerId, setting: &str) -> Option<u64> {
    let own = [ConfigResource::Broker(node), ConfigResource::BrokerDefault];
    let set = own.iter().find_map(|resource| image.configs.resource(resource)?.get(setting));
    let rate: i64 = set?.parse().ok()?;
    u64::try_from(rate).ok().filter(|_| rate < i64::MAX)
}

/// Whether the setting names the replica of `partition` on `broker`.
pub(crate) fn names(throttled: &ThrottledReplicas, partition: PartitionId, broker: BrokerId) -> bool {
    match throttled {
        ThrottledReplicas::None => false,
        ThrottledReplicas::All => true,
        ThrottledReplicas::Some(replicas) => replicas.contains(&(partition, broker)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_waited_for_and_leisure_is_kept_for_a_second() {
        let throttle = Throttle::new();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!throttle.is_exhausted(1000, at(100)));
        throttle.take(1100);
        assert!(throttle.is_exhausted(1000, at(1000)));
        assert!(!throttle.is_exhausted(1000, at(1200)));
        assert!(!throttle.is_exhausted(1000, at(60_000)));
        throttle.take(1000);
        assert!(throttle.is_exhausted(1000, at(60_000)));
        assert!(throttle.is_exhausted(0, at(90_000)));
    }

    #[test]
    fn a_setting_names_replicas() {
        let (one, two) = ((PartitionId(0), BrokerId(1)), (PartitionId(0), BrokerId(2)));
        let some = ThrottledReplicas::Some([one].into());
        assert!(names(&some, one.0, one.1) && !names(&some, two.0, two.1));
        assert!(names(&ThrottledReplicas::All, two.0, two.1));
        assert!(!names(&ThrottledReplicas::None, one.0, one.1));
    }
}
