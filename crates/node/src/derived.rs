//! The settings of the parts of a node, from the settings of the node.

use std::time::Duration;

use klamm_broker::BrokerConfig;
use klamm_broker::fetcher::FetcherConfig;
use klamm_config::{Notice, ServerSettings};
use klamm_control::ControlConfig;
use klamm_controller::RaftTiming;
use klamm_kafka_api::{DataConfig, FrontConfig};
use klamm_log::{ConfigError as LogConfigError, LogConfig};

use crate::config_error::ConfigError;
use crate::node_config::NodeConfig;
use crate::sources::{LoadedSettings, Origin};

/// What `queued.max.request.bytes` is where it is -1 or 0, in bytes.
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
    /// Settings that were given a value which is allowed, and of which another one is made.
    pub notices: Vec<(Origin, Notice)>,
}

impl DerivedSettings {
    /// Reads what the parts need.
    ///
    /// # Errors
    /// A setting that a part cannot have.
    pub fn new(loaded: &LoadedSettings) -> Result<Self, ConfigError> {
        let settings = &loaded.settings;
        let front = front(settings);
        front.validate().map_err(|error| {
            let problem = format!("is {}, it must be from {} to {}", error.value, error.min, error.max);
            unfit(loaded, front_name(error.name), problem)
        })?;
        let control = control(settings);
        control.validate().map_err(|error| {
            unfit(loaded, "broker.session.timeout.ms", format!("and its like do not fit: {error}"))
        })?;
        check_log_defaults(loaded)?;
        let election_timeout = u32::try_from(settings.unsigned("controller.quorum.election.timeout.ms"));
        Ok(Self {
            front,
            data: data(settings),
            control,
            timing: RaftTiming::of_election_timeout(election_timeout.unwrap_or(u32::MAX)),
            fetcher: FetcherConfig {
                // No bytes and one byte both mean one batch at a time.
                partition_bytes_max: number::<u32>(settings, "replica.fetch.max.bytes").max(1),
                streams_per_leader: number(settings, "num.replica.fetchers"),
            },
            notices: bounded(loaded),
        })
    }
}

/// What topics have that set nothing themselves must be readable: it would be missed only when a topic is made.
fn check_log_defaults(loaded: &LoadedSettings) -> Result<(), ConfigError> {
    let given = loaded.settings.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (name, problem) = match LogConfig::from_broker_properties(&given.collect()) {
        Ok(_) => return Ok(()),
        Err(LogConfigError::InvalidValue { name, value, allowed }) => {
            (name, format!("cannot be {value:?}: it must be {allowed}"))
        }
        Err(LogConfigError::NotSupported { name, value, default }) => {
            (name, format!("cannot be {value:?}: only {default:?} is built yet"))
        }
        Err(LogConfigError::CompactionLags { min_ms, max_ms }) => {
            let problem = format!("is {min_ms}, above log.cleaner.max.compaction.lag.ms, {max_ms}");
            ("log.cleaner.min.compaction.lag.ms", problem)
        }
        // It takes no names but those that it knows.
        Err(LogConfigError::UnknownName { .. }) => return Ok(()),
    };
    Err(unfit(loaded, name, problem))
}

/// Which settings have a value that is allowed and that cannot be had as it is.
fn bounded(loaded: &LoadedSettings) -> Vec<(Origin, Notice)> {
    const TENDED: &str = "logs are tended once a second";
    const ELECTION: &str = "less than 100 is taken as 100: heartbeats need time within it";
    const QUEUED: &str = "there is always a limit, here 536870912 or what a few of the longest requests take";
    let lowest = [
        ("controller.quorum.election.timeout.ms", i64::from(RaftTiming::ELECTION_TIMEOUT_LEAST_MS), ELECTION),
        ("log.retention.check.interval.ms", 1_000, TENDED),
        ("log.flush.offset.checkpoint.interval.ms", 1_000, TENDED),
        ("replica.high.watermark.checkpoint.interval.ms", 1_000, TENDED),
        ("queued.max.request.bytes", 1, QUEUED),
    ];
    let is_given = |name: &str| loaded.settings.given(name).is_some();
    let below = lowest
        .into_iter()
        .filter(|(name, least, _)| is_given(name) && loaded.settings.integer(name) < *least)
        .map(|(name, _, reason)| (loaded.origin(name), Notice { name: name.to_owned(), reason }));
    below.collect()
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
        // -1 is never, for which the front has the largest number.
        connections_idle_max_ms: u64::try_from(settings.integer("connections.max.idle.ms"))
            .unwrap_or(i64::MAX.unsigned_abs()),
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
        Ok(bytes) if bytes > 0 => bytes,
        // Kafka's "no limit".
        Ok(_) | Err(_) => QUEUED_BYTES_DEFAULT.max(front.queued_request_bytes_min()),
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
        write_caching: settings.boolean("klamm.write.caching"),
        delete_topic_enable: settings.boolean("delete.topic.enable"),
        session_timeout_ms,
        // Only the default can be below.
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
    Duration::from_millis(settings.unsigned("initial.broker.registration.timeout.ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    fn load(settings: &[&str]) -> LoadedSettings {
        let overrides = settings.iter().map(|text| (*text).to_owned()).collect();
        Sources { overrides, ..Sources::default() }.load().unwrap()
    }

    fn noticed(settings: &[&str]) -> Vec<String> {
        let derived = DerivedSettings::new(&load(settings)).unwrap();
        derived.notices.into_iter().map(|(_, notice)| notice.name).collect()
    }

    #[test]
    fn a_value_that_is_bounded_is_told() {
        assert!(noticed(&[]).is_empty());
        for (name, bounded, free) in [
            ("controller.quorum.election.timeout.ms", "99", "100"),
            ("log.retention.check.interval.ms", "999", "1000"),
            ("log.flush.offset.checkpoint.interval.ms", "0", "1000"),
            ("replica.high.watermark.checkpoint.interval.ms", "500", "1000"),
            ("queued.max.request.bytes", "-1", "8000000000"),
        ] {
            assert_eq!(noticed(&[&format!("{name}={bounded}")]), [name]);
            assert!(noticed(&[&format!("{name}={free}")]).is_empty(), "{name}={free}");
        }
    }

    #[test]
    fn defaults_of_topics_that_cannot_be_read_stop_the_start() {
        for (settings, part) in [
            (&["log.cleanup.policy=compact,,delete"][..], "log.cleanup.policy cannot be"),
            (
                &["log.cleaner.min.compaction.lag.ms=2", "log.cleaner.max.compaction.lag.ms=1"],
                "--override: log.cleaner.min.compaction.lag.ms is 2, above",
            ),
        ] {
            let told = DerivedSettings::new(&load(settings)).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn limits_of_the_front_are_told_by_the_names_of_their_settings() {
        let told = DerivedSettings::new(&load(&["queued.max.request.bytes=1000"])).unwrap_err().to_string();
        assert!(told.starts_with("--override: queued.max.request.bytes is 1000, it must be from "), "{told}");
    }

    #[test]
    fn what_is_never_in_kafka_is_never_here() {
        let derived = DerivedSettings::new(&load(&["connections.max.idle.ms=-1"])).unwrap();
        assert_eq!(derived.front.connections_idle_max_ms, i64::MAX.unsigned_abs());
        let derived = DerivedSettings::new(&load(&["queued.max.request.bytes=0"])).unwrap();
        assert!(derived.front.queued_request_bytes_max >= QUEUED_BYTES_DEFAULT);
        let derived = DerivedSettings::new(&load(&["broker.session.timeout.ms=20000"])).unwrap();
        assert_eq!(derived.control.session_timeout_max_ms, 20_000);
    }
}
