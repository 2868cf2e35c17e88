//! The settings of a broker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klamm_types::BrokerId;

/// What a broker is told at its start, by Kafka's names.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// The cluster's id; log directories of another cluster are refused.
    pub cluster_id: String,
    /// `log.dirs`; at least one.
    pub log_dirs: Vec<PathBuf>,
    /// The properties of the broker's own file and environment, as given: topics that set nothing themselves have
    /// their `log.*` and the like. What the cluster keeps for all brokers, then for this one, comes on top.
    pub properties: BTreeMap<String, String>,
    /// `replica.lag.time.max.ms`: how long a member of the in-sync set may go without catching up, in milliseconds.
    pub replica_lag_time_max_ms: i64,
    /// `num.recovery.threads.per.data.dir`, from 1.
    pub recovery_threads_per_dir: usize,
    /// How many logs of one directory are flushed at once, from 1.
    pub flush_threads_per_dir: usize,
    /// How many files of logs may be open.
    pub open_files_max: usize,
    /// `log.retention.check.interval.ms`, in milliseconds.
    pub retention_interval_ms: i64,
    /// `log.flush.offset.checkpoint.interval.ms`, in milliseconds.
    pub checkpoint_interval_ms: i64,
    /// `replica.high.watermark.checkpoint.interval.ms`, in milliseconds.
    pub high_watermark_interval_ms: i64,
    /// `producer.id.expiration.ms`, in milliseconds.
    pub producer_id_expiration_ms: i64,
}

impl BrokerConfig {
    /// Kafka's defaults for a broker that keeps its logs in `log_dirs`.
    #[must_use]
    pub fn new(node_id: BrokerId, cluster_id: &str, log_dirs: Vec<PathBuf>) -> Self {
        Self {
            node_id,
            cluster_id: cluster_id.to_owned(),
            log_dirs,
            properties: BTreeMap::new(),
            replica_lag_time_max_ms: 30_000,
            recovery_threads_per_dir: 2,
            flush_threads_per_dir: 16,
            open_files_max: 8192,
            retention_interval_ms: 300_000,
            checkpoint_interval_ms: 60_000,
            high_watermark_interval_ms: 5_000,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}
