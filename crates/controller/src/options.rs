//! What a controller is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_control::{ConfigSchema, ControlConfig, ControlConfigError};
use klamm_log::LogDir;
use klamm_rpc::{ChannelPool, KnownQuorum, NodeAddress};
use klamm_types::BrokerId;

/// A controller that votes from the first start of the cluster on: one element of `controller.quorum.voters`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// Its `node.id`.
    pub id: BrokerId,
    /// Its controller listener.
    pub address: NodeAddress,
}

/// How fast Raft notices that nobody leads. A follower that hears nothing for the longest timeout waits a random
/// time between the two before it stands for election, so an election begins `min + max` to `2 max` after the leader
/// fell silent; evidence of its death begins one at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RaftTiming {
    /// How often a leader that has nothing to say gives a sign of life, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// The shortest election timeout, in milliseconds; at least three heartbeats.
    pub election_timeout_min_ms: u32,
    /// The longest, in milliseconds; above the shortest.
    pub election_timeout_max_ms: u32,
}

impl Default for RaftTiming {
    /// That of an election timeout of 1 s, Kafka's default.
    fn default() -> Self {
        Self::of_election_timeout(1_000)
    }
}

impl RaftTiming {
    /// The shortest `controller.quorum.election.timeout.ms` that is taken as it is, in milliseconds.
    pub const ELECTION_TIMEOUT_LEAST_MS: u32 = 100;

    /// The timing that goes with `controller.quorum.election.timeout.ms`: heartbeats in a tenth of it, elections after
    /// two to four fifths. What is below [`Self::ELECTION_TIMEOUT_LEAST_MS`] is taken as that; who reads the setting
    /// has to say so.
    #[must_use]
    pub const fn of_election_timeout(millis: u32) -> Self {
        let least = Self::ELECTION_TIMEOUT_LEAST_MS;
        let millis = if millis < least { least } else { millis };
        Self {
            heartbeat_interval_ms: millis / 10,
            election_timeout_min_ms: millis / 5 * 2,
            election_timeout_max_ms: millis / 5 * 4,
        }
    }

    pub(crate) fn election_timeout_max(self) -> Duration {
        Duration::from_millis(u64::from(self.election_timeout_max_ms))
    }
}

/// Everything that a controller needs to know. Made by [`new`](Self::new) with defaults.
#[derive(Clone)]
pub struct ControllerOptions {
    /// `cluster.id`: calls of another cluster are refused.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: BrokerId,
    /// Who founds the quorum; the same on every node, in any order. A node that is not among them waits to be added.
    pub voters: Vec<Voter>,
    /// `metadata.log.dir`. The controller opens its log in it before other logs of the directory may be opened.
    pub log_dir: Arc<LogDir>,
    /// The quorum that this node belongs to, shared with its other parts. Default: none yet.
    pub quorum: KnownQuorum,
    /// Whether this node may be new: false if it holds what only a member of a quorum can have, such as partitions. It
    /// then founds none, even if nobody remembers one. Default true.
    pub may_be_new: bool,
    /// The settings of the decisions.
    pub control: ControlConfig,
    /// Which settings topics, brokers and groups have.
    pub schema: Arc<dyn ConfigSchema + Send + Sync>,
    /// Connections to other nodes, shared with whoever else in this process makes some.
    pub channels: ChannelPool,
    /// `inter.broker.listener.name`: where brokers that may be dead are looked for. Without it, or at a broker without such
    /// a listener, everywhere that the broker says, which may be an address that leads elsewhere from here.
    pub inter_broker_listener: Option<String>,
    /// How fast Raft notices that nobody leads.
    pub timing: RaftTiming,
    /// `metadata.log.segment.bytes`. Default 64 MiB.
    pub segment_bytes: u32,
    /// After how many entries a snapshot is made; the log keeps half as many behind it. Default 10,000, from 1.
    pub snapshot_entries: u64,
    /// `auto.leader.rebalance.enable`. Default true.
    pub leader_rebalance_enabled: bool,
    /// `leader.imbalance.check.interval.seconds` is for all at once; ours moves a few leaderships every second.
    /// Default 1 s.
    pub leader_rebalance_interval: Duration,
    /// `unclean.leader.election.interval.ms`: how often elections are held where nobody leads. Default 5 s.
    pub leaderless_election_interval: Duration,
}

impl fmt::Debug for ControllerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerOptions")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .field("voters", &self.voters)
            .field("log_dir", &self.log_dir.path())
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// Options that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    /// A node id below 0.
    #[error("{id} is no node id")]
    NodeId {
        /// The id.
        id: BrokerId,
    },
    /// The cluster has no name.
    #[error("the cluster id is empty")]
    ClusterId,
    /// Nobody founds the quorum.
    #[error("there are no voters")]
    NoVoters,
    /// Two voters with one id.
    #[error("voter {id} is named twice")]
    VoterTwice {
        /// The id.
        id: BrokerId,
    },
    /// Timeouts that do not leave room for heartbeats, or for chance.
    #[error(
        "{timing:?} leaves no room: three heartbeats must fit into the shortest timeout, and that below the longest"
    )]
    Timing {
        /// The timing.
        timing: RaftTiming,
    },
    /// A number that must be at least 1.
    #[error("{option} is 0")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// A setting of the decisions.
    #[error(transparent)]
    Control(#[from] ControlConfigError),
}

impl ControllerOptions {
    /// Options with defaults for everything that has one.
    #[must_use]
    pub fn new(
        cluster_id: impl Into<String>,
        node_id: BrokerId,
        voters: Vec<Voter>,
        log_dir: Arc<LogDir>,
        schema: Arc<dyn ConfigSchema + Send + Sync>,
    ) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            node_id,
            voters,
            log_dir,
            quorum: KnownQuorum::default(),
            may_be_new: true,
            control: ControlConfig::default(),
            schema,
            channels: ChannelPool::default(),
            inter_broker_listener: None,
            timing: RaftTiming::default(),
            segment_bytes: 64 << 20,
            snapshot_entries: 10_000,
            leader_rebalance_enabled: true,
            leader_rebalance_interval: Duration::from_secs(1),
            leaderless_election_interval: Duration::from_secs(5),
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`OptionsError`] for the first option that cannot be.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let ids = self.voters.iter().map(|voter| voter.id).chain([self.node_id]);
        if let Some(id) = ids.into_iter().find(|id| id.0 < 0) {
            return Err(OptionsError::NodeId { id });
        }
        if self.cluster_id.is_empty() {
            return Err(OptionsError::ClusterId);
        }
        if self.voters.is_empty() {
            return Err(OptionsError::NoVoters);
        }
        let mut addresses = BTreeMap::new();
        for Voter { id, address } in &self.voters {
            if addresses.insert(*id, address).is_some() {
                return Err(OptionsError::VoterTwice { id: *id });
            }
        }
        let timing = self.timing;
        let room = timing.heartbeat_interval_ms.saturating_mul(3) <= timing.election_timeout_min_ms;
        if timing.heartbeat_interval_ms == 0
            || !room
            || timing.election_timeout_min_ms >= timing.election_timeout_max_ms
        {
            return Err(OptionsError::Timing { timing });
        }
        let zeros = [
            ("snapshot_entries", self.snapshot_entries == 0),
            ("segment_bytes", self.segment_bytes == 0),
            ("leader_rebalance_interval", self.leader_rebalance_interval.is_zero()),
            ("leaderless_election_interval", self.leaderless_election_interval.is_zero()),
        ];
        if let Some((option, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(OptionsError::Zero { option });
        }
        Ok(self.control.validate()?)
    }
}
