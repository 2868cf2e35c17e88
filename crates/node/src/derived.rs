//! The settings of the parts of a node, from the settings of the node.

use std::time::Duration;

use klamm_broker::BrokerConfig;
use klamm_broker::fetcher::FetcherConfig;
use klamm_config::ServerSettings;
use klamm_control::ControlConfig;
use klamm_controller::RaftTiming;
use klamm_kafka_api::{DataConfig, FrontConfig};

use crate::config_error::ConfigError;
use crate::node_config::NodeConfig;
use crate::sources::LoadedSettings;

/// What `queued.max.request.bytes` is where it is -1, in bytes.
const QUEUED_BYTES_DEFAULT: u64 = 512 << 20;

/// The settings that the parts of a node have, all of them checked.
#[derive(Clone, Debug)]
pub struct DerivedSettings {
    /// Of the client listeners.
    pub front: FrontConfig,
    /// Of the handlers that touch records.
    pub data: DataConfig,
    /// Of the controller's decisions.
    pub control: ControlConfig,
    /// Of the quorum.
    pub timing: RaftTiming,
    /// Of the fetchers of followers.
    pub fetcher: FetcherConfig,
}

impl DerivedSettings {
    /// Reads what the parts need.
    ///
    /// # Errors
    /// A setting that a part cannot have.
    pub fn new(loaded: &LoadedSettings) -> Result<Self, ConfigError> {
        let settings = &loaded.settings;
        let front = front(settings);
        front.validate().map_err(|error| unfit(loaded, front_name(error.name), error.to_string()))?;
        let control = control(settings);
        control.validate().map_err(|error| {
            unfit(loaded, "broker.session.timeout.ms", format!("and its like do not fit: {error}"))
        })?;
        let election_timeout = u32::try_from(settings.unsigned("controller.quorum.election.timeout.ms"));
        Ok(Self {
            front,
            data: data(settings),
            control,
            timing: RaftTiming::of_election_timeout(election_timeout.unwrap_or(u32::MAX)),
            fetcher: FetcherConfig {
                partition_bytes_max: number::<u32>(settings, "replica.fetch.max.bytes").max(1),
                streams_per_leader: number(settings, "num.replica.fetchers"),
            },
        })
    }
}

fn unfit(loaded: &LoadedSettings, name: &'static str, problem: String) -> ConfigError {
    ConfigError::Unfit { name, origin: loaded.origin(name), problem }
}

/// A setting as a number of another type; what does not fit is the most that does. The table bounds all of them.
fn number<T: TryFrom<u64> + Bounded>(settings: &ServerSettings, name: &str) -> T {
    T::try_from(settings.unsigned(name)).unwrap_or(T::MOST)
}

/// Types with a largest value.
trait Bounded {
    const MOST: Self;
}

impl Bounded for u16 {
    const MOST: Self = Self::MAX;
}

impl Bounded for u32 {
    const MOST: Self = Self::MAX;
}

impl Bounded for usize {
    const MOST: Self = Self::MAX;
}

fn front(settings: &ServerSettings) -> FrontConfig {
    let mut front = FrontConfig {
        request_bytes_max: number(settings, "socket.request.max.bytes"),
        connections_idle_max_ms: settings.unsigned("connections.max.idle.ms"),
        connections_max: number(settings, "max.connections"),
        connections_per_ip_max: number(settings, "max.connections.per.ip"),
        listen_backlog: number(settings, "socket.listen.backlog.size"),
        requests_in_flight_max: number(settings, "klamm.connection.requests.max"),
        responses_queued_bytes_max: number(settings, "klamm.connection.responses.max.bytes"),
        request_read_timeout_ms: settings.unsigned("klamm.connection.read.timeout.ms"),
        response_write_timeout_ms: settings.unsigned("klamm.connection.write.timeout.ms"),
        drain_timeout_ms: settings.unsigned("klamm.connection.drain.timeout.ms"),
        ..FrontConfig::default()
    };
    let given = settings.integer("queued.max.request.bytes");
    front.queued_request_bytes_max = match u64::try_from(given) {
        Ok(bytes) => bytes,
        Err(_) => QUEUED_BYTES_DEFAULT.max(front.queued_request_bytes_min()),
    };
    front
}

/// The setting behind a field of the front.
fn front_name(name: &'static str) -> &'static str {
    match name {
        "requests.in.flight.max" => "klamm.connection.requests.max",
        "responses.queued.max.bytes" => "klamm.connection.responses.max.bytes",
        "request.read.timeout.ms" => "klamm.connection.read.timeout.ms",
        "response.write.timeout.ms" => "klamm.connection.write.timeout.ms",
        "drain.timeout.ms" => "klamm.connection.drain.timeout.ms",
        kafkas => kafkas,
    }
}

fn data(settings: &ServerSettings) -> DataConfig {
    DataConfig {
        fetch_bytes_max: number(settings, "fetch.max.bytes"),
        fetch_sessions_max: number(settings, "max.incremental.fetch.session.cache.slots"),
        ..DataConfig::default()
    }
}

fn control(settings: &ServerSettings) -> ControlConfig {
    let session_timeout_ms: u32 = number(settings, "broker.session.timeout.ms");
    let session_timeout_max_ms: u32 = number(settings, "klamm.broker.session.timeout.max.ms");
    ControlConfig {
        num_partitions: number(settings, "num.partitions"),
        default_replication_factor: number(settings, "default.replication.factor"),
        min_insync_replicas: number(settings, "min.insync.replicas"),
        unclean_leader_election_enable: settings.boolean("unclean.leader.election.enable"),
        delete_topic_enable: settings.boolean("delete.topic.enable"),
        session_timeout_ms,
        session_timeout_max_ms: session_timeout_max_ms.max(session_timeout_ms),
        heartbeat_interval_ms: number(settings, "broker.heartbeat.interval.ms"),
        rebalance_settle_ms: number(settings, "klamm.leader.rebalance.settle.ms"),
        rebalance_moves_per_second: number(settings, "klamm.leader.rebalance.moves.per.second"),
        ..ControlConfig::default()
    }
}

/// The settings of the broker of a node.
#[must_use]
pub(crate) fn broker(config: &NodeConfig, cluster_id: &str, open_files_max: usize) -> BrokerConfig {
    let settings = &config.settings;
    BrokerConfig {
        properties: settings.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        replica_lag_time_max_ms: settings.integer("replica.lag.time.max.ms"),
        recovery_threads_per_dir: number(settings, "num.recovery.threads.per.data.dir"),
        open_files_max,
        retention_interval_ms: settings.integer("log.retention.check.interval.ms"),
        checkpoint_interval_ms: settings.integer("log.flush.offset.checkpoint.interval.ms"),
        high_watermark_interval_ms: settings.integer("replica.high.watermark.checkpoint.interval.ms"),
        producer_id_expiration_ms: settings.integer("producer.id.expiration.ms"),
        ..BrokerConfig::new(config.node_id, cluster_id, config.log_dirs.clone())
    }
}

/// How long a broker tries to register before it gives up.
#[must_use]
pub(crate) fn registration_timeout(settings: &ServerSettings) -> Duration {
    Duration::from_millis(settings.unsigned("initial.broker.registration.timeout.ms").max(1))
}
