//! What the decisions depend on besides the image.

use klamm_metadata::FeatureRange;

/// Settings of the active controller. All are static; settings of topics and brokers that can change live in the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlConfig {
    /// `num.partitions`: of a topic created without a number. Default 1, from 1.
    pub num_partitions: u32,
    /// `default.replication.factor`: of a topic created without one. Default 1, from 1.
    pub default_replication_factor: u16,
    /// `min.insync.replicas` where neither topic nor cluster has a value. Default 1, from 1.
    pub min_insync_replicas: u16,
    /// `unclean.leader.election.enable` where neither topic nor cluster has a value. Default false.
    pub unclean_leader_election_enable: bool,
    /// `klamm.write.caching`: whether topics that do not say acknowledge what is not on the disk. Default false.
    pub write_caching: bool,
    /// `delete.topic.enable`. Default true.
    pub delete_topic_enable: bool,
    /// `broker.session.timeout.ms`: silence after which a broker is fenced. Default 3000, from 1.
    pub session_timeout_ms: u32,
    /// How far long pauses may raise a broker's session timeout. Default 9000, at least the timeout itself.
    pub session_timeout_max_ms: u32,
    /// `broker.heartbeat.interval.ms`. Default 500, from 1, below the session timeout.
    pub heartbeat_interval_ms: u32,
    /// A gap between two ticks longer than this was the controller's own pause, and counts against no broker.
    /// Default 200 ms, from 1.
    pub tick_gap_max_ms: u32,
    /// How long a broker must have been in every ISR before leaderships move back to it. Default 30,000 ms.
    pub rebalance_settle_ms: u32,
    /// The most leaderships that the balancer moves in a second. Default 500, from 1.
    pub rebalance_moves_per_second: u32,
    /// What this binary supports, ordered by name.
    pub features: Vec<FeatureRange>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            num_partitions: 1,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            unclean_leader_election_enable: false,
            write_caching: false,
            delete_topic_enable: true,
            session_timeout_ms: 3_000,
            session_timeout_max_ms: 9_000,
            heartbeat_interval_ms: 500,
            tick_gap_max_ms: 200,
            rebalance_settle_ms: 30_000,
            rebalance_moves_per_second: 500,
            features: klamm_metadata::supported_features(),
        }
    }
}

/// A setting outside its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{setting} cannot be {value}: {bounds}")]
pub struct ControlConfigError {
    /// The field.
    pub setting: &'static str,
    /// Its value.
    pub value: u32,
    /// What is allowed.
    pub bounds: &'static str,
}

impl ControlConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`ControlConfigError`] for the first setting outside its bounds.
    pub fn validate(&self) -> Result<(), ControlConfigError> {
        let from_one = [
            ("num_partitions", self.num_partitions),
            ("default_replication_factor", u32::from(self.default_replication_factor)),
            ("min_insync_replicas", u32::from(self.min_insync_replicas)),
            ("session_timeout_ms", self.session_timeout_ms),
            ("heartbeat_interval_ms", self.heartbeat_interval_ms),
            ("tick_gap_max_ms", self.tick_gap_max_ms),
            ("rebalance_moves_per_second", self.rebalance_moves_per_second),
        ];
        if let Some(&(setting, value)) = from_one.iter().find(|(_, value)| *value == 0) {
            return Err(ControlConfigError { setting, value, bounds: "it is at least 1" });
        }
        if self.heartbeat_interval_ms >= self.session_timeout_ms {
            let (setting, value) = ("heartbeat_interval_ms", self.heartbeat_interval_ms);
            return Err(ControlConfigError { setting, value, bounds: "it is below session_timeout_ms" });
        }
        if self.session_timeout_max_ms < self.session_timeout_ms {
            let (setting, value) = ("session_timeout_max_ms", self.session_timeout_max_ms);
            return Err(ControlConfigError { setting, value, bounds: "it is at least session_timeout_ms" });
        }
        Ok(())
    }
}
