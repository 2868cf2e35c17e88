//! How far the followers of all partitions are behind that this broker leads.

use klamm_types::{BrokerId, TopicPartition};

use super::ReplicaManager;
use crate::partition::{PartitionHandle, ReplicaLag};

/// The followers of the partitions that a broker leads, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaLags {
    /// The most records that any lacks.
    pub records_max: u64,
    /// The longest that any has not held all of its leader's log, in milliseconds.
    pub millis_max: u64,
    /// How many have not held all of it for longer than asked for.
    pub lagging: usize,
    /// Those of them that have lagged longest, the worst first; at most as many as asked for.
    pub worst: Vec<LaggingReplica>,
}

/// One follower that lags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaggingReplica {
    /// The partition.
    pub partition: TopicPartition,
    /// The follower.
    pub broker: BrokerId,
    /// How far it is behind.
    pub lag: ReplicaLag,
}

impl ReplicaManager {
    /// Looks at all partitions that this broker leads, and names up to `named_max` followers that lag for longer than
    /// `lagging_after_ms`. A partition of which all is committed, with all replicas in sync, costs two loads and no
    /// lock: so do idle ones.
    #[must_use]
    pub fn replica_lags(&self, lagging_after_ms: u64, named_max: usize) -> ReplicaLags {
        let mut lags = ReplicaLags::default();
        let mut lagging: Vec<(ReplicaLag, BrokerId, PartitionHandle)> = Vec::new();
        for handle in self.partitions().into_iter().filter(PartitionHandle::may_have_lag) {
            // It may have lost the leadership since.
            let Ok(view) = handle.leader_view() else { continue };
            for follower in &view.followers {
                let lag = view.lag_of(follower);
                lags.records_max = lags.records_max.max(lag.records);
                lags.millis_max = lags.millis_max.max(lag.millis);
                if lag.millis > lagging_after_ms {
                    lagging.push((lag, follower.broker, handle.clone()));
                }
            }
        }
        lags.lagging = lagging.len();
        lagging.sort_unstable_by(|(left, left_broker, left_handle), (right, right_broker, right_handle)| {
            let by_place =
                (left_handle.partition(), left_broker).cmp(&(right_handle.partition(), right_broker));
            right.cmp(left).then(by_place)
        });
        let named = lagging.into_iter().take(named_max).map(|(lag, broker, handle)| LaggingReplica {
            partition: handle.partition().clone(),
            broker,
            lag,
        });
        lags.worst = named.collect();
        lags
    }
}
