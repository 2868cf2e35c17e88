//! What a node counts, in the text format that Prometheus reads.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_broker::broker::Broker;
use klamm_broker::lifecycle::BrokerPhase;
use klamm_broker::partition::ReplicaLag;
use klamm_broker::replica_manager::{LaggingReplica, ReplicaLags};
use klamm_controller::{ControllerMetrics, ControllerStatus, QuorumRole};
use klamm_kafka_api::Front;
use klamm_metadata::{MetadataProvenance, SnapshotWriter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::admin_http::NodeView;

/// What a broker shows of itself.
#[derive(Clone)]
pub(crate) struct BrokerView {
    pub(crate) broker: Arc<Broker>,
    pub(crate) front: Arc<Front>,
}

/// What a controller shows of itself.
#[derive(Clone)]
pub(crate) struct ControllerView {
    pub(crate) status: watch::Receiver<ControllerStatus>,
    pub(crate) metrics: ControllerMetrics,
}

/// The parts of a node, as they come and go.
#[derive(Default)]
struct Parts {
    broker: Option<BrokerView>,
    controller: Option<ControllerView>,
    is_serving: bool,
    is_stopping: bool,
}

/// A node as its admin listener shows it. Clones show the same node.
#[derive(Clone)]
pub(crate) struct Observed {
    parts: Arc<Mutex<Parts>>,
    registry: Arc<Registry>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl Observed {
    /// A node that starts.
    pub(crate) fn new() -> Self {
        let parts = Arc::new(Mutex::new(Parts::default()));
        let mut registry = Registry::with_prefix("klamm");
        registry.register_collector(Box::new(PartsCollector { parts: parts.clone() }));
        Self { parts, registry: Arc::new(registry) }
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        change(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn set_controller(&self, controller: ControllerView) {
        self.change(|parts| parts.controller = Some(controller));
    }

    pub(crate) fn set_broker(&self, broker: BrokerView) {
        self.change(|parts| parts.broker = Some(broker));
    }

    /// The listeners of clients are open, or there are none to open.
    pub(crate) fn set_serving(&self) {
        self.change(|parts| parts.is_serving = true);
    }

    pub(crate) fn set_stopping(&self) {
        self.change(|parts| parts.is_stopping = true);
    }

    /// Lets go of the parts, so that they end when their owners end them.
    pub(crate) fn forget_parts(&self) {
        self.change(|parts| (parts.broker, parts.controller) = (None, None));
    }
}

impl NodeView for Observed {
    fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn liveness(&self) -> (bool, String) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = parts.controller.as_ref().and_then(|view| view.status.borrow().failure.clone());
        match failure {
            Some(reason) => (false, format!("controller: stopped: {reason}")),
            None => (true, "alive".to_owned()),
        }
    }

    fn readiness(&self) -> (bool, String) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_ready = parts.is_serving && !parts.is_stopping;
        let mut lines = Vec::new();
        if let Some(view) = &parts.controller {
            let status = view.status.borrow();
            is_ready &= status.is_ready;
            let leader =
                status.leader.as_ref().map_or_else(|| "nobody".to_owned(), |at| at.node_id.to_string());
            let term = status.term;
            lines.push(format!("controller: {:?}, led by {leader} in term {term}", status.role));
            if !status.awaited.is_empty() {
                is_ready = false;
                lines.push(format!("controller: waits for {}", status.awaited.join(",")));
            }
        }
        if let Some(view) = &parts.broker {
            let state = view.broker.lifecycle().state();
            is_ready &= state.phase == BrokerPhase::Active;
            lines.push(format!("broker: {:?}, epoch {}", state.phase, state.epoch));
            if state.phase == BrokerPhase::Active && !view.broker.is_in_session() {
                is_ready = false;
                lines.push("broker: no controller has answered it for longer than its session".to_owned());
            }
        }
        lines.push(
            if parts.is_stopping {
                "stopping"
            } else if is_ready {
                "ready"
            } else {
                "starting"
            }
            .to_owned(),
        );
        (is_ready, lines.join("\n"))
    }

    fn metadata(&self) -> Option<String> {
        let image = {
            let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.broker.as_ref()?.broker.metadata().image()
        };
        // Equal images have equal snapshots, byte for byte.
        let digest = |(bytes, crc): (usize, u32), part: bytes::Bytes| {
            (bytes + part.len(), crc32c::crc32c_append(crc, &part))
        };
        let (bytes, crc) = SnapshotWriter::new(&image).parts().fold((0, 0), digest);
        let MetadataProvenance { last_offset, last_epoch } = image.provenance;
        Some(format!("offset={last_offset} epoch={last_epoch} bytes={bytes} crc32c={crc:08x}"))
    }
}

/// Reads the parts' own counters when somebody asks.
struct PartsCollector {
    parts: Arc<Mutex<Parts>>,
}

impl fmt::Debug for PartsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartsCollector").finish_non_exhaustive()
    }
}

impl Collector for PartsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (broker, controller) = {
            let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            (parts.broker.clone(), parts.controller.clone())
        };
        let mut samples = Samples { encoder: &mut encoder };
        of_process(&mut samples)?;
        if let Some(ControllerView { status, metrics }) = controller {
            let status = status.borrow().clone();
            of_controller(&status, &mut samples)?;
            of_cluster(&metrics, &mut samples)?;
        }
        if let Some(BrokerView { broker, front }) = broker {
            of_broker(&broker, &mut samples)?;
            of_followers(&broker, &mut samples)?;
            of_front(&front, &mut samples)?;
        }
        Ok(())
    }
}

/// Where samples go.
struct Samples<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Samples<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

impl Samples<'_, '_> {
    /// What was asked, as Kafka's `RequestsPerSec` tells it.
    fn requests(&mut self, front: &Front) -> fmt::Result {
        let help = "Requests answered, by API and version";
        let mut family = self.encoder.encode_descriptor("front_requests", help, None, MetricType::Counter)?;
        for (key, version, count) in front.answered() {
            let labels = [("request", key.name().to_owned()), ("version", version.to_string())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Samples<'_, '_> {
    /// One gauge for each follower that is named.
    fn lagging(
        &mut self,
        name: &str,
        help: &str,
        lags: &ReplicaLags,
        value: impl Fn(ReplicaLag) -> i64,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for LaggingReplica { partition, broker, lag } in &lags.worst {
            let labels = [
                ("topic", partition.topic.to_string()),
                ("partition", partition.partition.to_string()),
                ("replica", broker.to_string()),
            ];
            ConstGauge::new(value(*lag)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Sizes as gauges have them.
fn as_gauge(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// What the system counts of this process; nothing where it does not say.
fn of_process(samples: &mut Samples<'_, '_>) -> fmt::Result {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let status = read("/proc/self/status");
    for (name, help, field) in [
        ("process_resident_memory_kibibytes", "Memory that the process has in use", "VmRSS:"),
        ("process_threads", "Threads of the process", "Threads:"),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        if let Some(value) = value {
            samples.gauge(name, help, value)?;
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        samples.gauge(
            "process_open_files",
            "Files and sockets that the process has open",
            as_gauge(files.count()),
        )?;
    }
    Ok(())
}

fn of_controller(status: &ControllerStatus, samples: &mut Samples<'_, '_>) -> fmt::Result {
    let leader = status.leader.as_ref().map_or(-1, |leader| i64::from(leader.node_id.0));
    let term = i64::try_from(status.term).unwrap_or(i64::MAX);
    let leads = i64::from(status.role == QuorumRole::Leader);
    samples.gauge(
        "controller_active",
        "1 on the active controller, 0 elsewhere",
        i64::from(status.is_active),
    )?;
    samples.gauge("controller_leads_quorum", "1 on the leader of the metadata quorum", leads)?;
    samples.gauge(
        "controller_quorum_leader",
        "The node that leads the metadata quorum, -1 if none does",
        leader,
    )?;
    samples.gauge("controller_quorum_term", "The term of the metadata quorum", term)?;
    let committed = status.committed_end_offset.0;
    samples.gauge("controller_committed_end_offset", "Exclusive end of the committed metadata", committed)
}

/// The cluster, as every controller knows it.
fn of_cluster(metrics: &ControllerMetrics, samples: &mut Samples<'_, '_>) -> fmt::Result {
    let gauges = metrics.gauges();
    for (name, help, value) in [
        ("controller_topics", "Topics", gauges.topics),
        ("controller_partitions", "Partitions of all topics", gauges.partitions),
        ("controller_offline_partitions", "Partitions that nobody leads", gauges.offline_partitions),
        (
            "controller_offline_replicas",
            "Replicas that their brokers cannot serve, as log directories have failed",
            gauges.offline_replicas,
        ),
        (
            "controller_partitions_not_led_by_preferred",
            "Partitions that the first of their replicas does not lead",
            gauges.not_led_by_preferred,
        ),
        ("controller_active_brokers", "Brokers that are not fenced", gauges.active_brokers),
        ("controller_fenced_brokers", "Brokers that are registered and fenced", gauges.fenced_brokers),
    ] {
        samples.gauge(name, help, as_gauge(value))?;
    }
    let elections = metrics.elections();
    for (name, help, value) in [
        ("controller_leader_elections", "Elections of partition leaders", elections.all),
        (
            "controller_eligible_leader_elections",
            "Elections of a replica that was out of sync but eligible",
            elections.from_eligible,
        ),
        (
            "controller_unclean_leader_elections",
            "Elections of a replica that may lack committed records",
            elections.unclean,
        ),
    ] {
        samples.counter(name, help, value)?;
    }
    Ok(())
}

/// A follower that has not held all of its leader's log for longer is named.
const LAGGING_AFTER_MS: u64 = 1_000;
/// How many followers are named at most.
const LAGGING_NAMED_MAX: usize = 100;

/// How far followers are behind, as the leaders here see it.
fn of_followers(broker: &Broker, samples: &mut Samples<'_, '_>) -> fmt::Result {
    let lags = broker.replicas().replica_lags(LAGGING_AFTER_MS, LAGGING_NAMED_MAX);
    let as_gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (name, help, value) in [
        (
            "broker_replica_lag_records_max",
            "The most records that a follower of a partition led here lacks",
            as_gauge(lags.records_max),
        ),
        (
            "broker_replica_lag_milliseconds_max",
            "The longest that a follower has not held all of a partition led here",
            as_gauge(lags.millis_max),
        ),
        (
            "broker_lagging_replicas",
            "Followers that have not held all of a partition led here for a second",
            i64::try_from(lags.lagging).unwrap_or(i64::MAX),
        ),
    ] {
        samples.gauge(name, help, value)?;
    }
    let of_records = |lag: ReplicaLag| as_gauge(lag.records);
    let of_millis = |lag: ReplicaLag| as_gauge(lag.millis);
    samples.lagging(
        "broker_replica_lag_records",
        "Records that a lagging follower lacks",
        &lags,
        of_records,
    )?;
    samples.lagging(
        "broker_replica_lag_milliseconds",
        "For how long a lagging follower has not held all",
        &lags,
        of_millis,
    )
}

fn of_broker(broker: &Broker, samples: &mut Samples<'_, '_>) -> fmt::Result {
    let state = broker.lifecycle().state();
    let is_active = i64::from(state.phase == BrokerPhase::Active);
    samples.gauge("broker_active", "1 while the controller lets this broker serve", is_active)?;
    samples.gauge("broker_epoch", "The registration of this broker", state.epoch.0)?;
    let applied = broker.metadata().applied_offset().0;
    samples.gauge(
        "broker_metadata_applied_offset",
        "The last metadata offset that is applied here",
        applied,
    )?;
    let gauges = broker.replicas().gauges();
    for (name, help, value) in [
        ("broker_partitions", "Replicas on this broker", gauges.partitions),
        ("broker_leaders", "Replicas that lead", gauges.leaders),
        (
            "broker_under_replicated_partitions",
            "Led here with a replica out of sync",
            gauges.under_replicated,
        ),
        ("broker_under_min_isr_partitions", "Led here below min.insync.replicas", gauges.under_min_isr),
        ("broker_at_min_isr_partitions", "Led here just at min.insync.replicas", gauges.at_min_isr),
        ("broker_offline_replicas", "Replicas whose log is out of service", gauges.offline),
    ] {
        samples.gauge(name, help, as_gauge(value))?;
    }
    let dirs = broker.replicas().log_dirs().statuses();
    let offline = dirs.iter().filter(|dir| dir.failure.is_some()).count();
    samples.gauge("broker_log_dirs", "Log directories", as_gauge(dirs.len()))?;
    samples.gauge("broker_offline_log_dirs", "Log directories that are out of service", as_gauge(offline))?;
    let metrics = broker.replicas().metrics();
    for (name, help, counter) in [
        ("broker_bytes_in", "Bytes that clients appended", &metrics.bytes_in),
        ("broker_records_in", "Records that clients appended", &metrics.records_in),
        ("broker_bytes_out", "Bytes that consumers were given", &metrics.bytes_out),
        ("broker_replication_bytes_in", "Bytes copied from leaders", &metrics.replication_bytes_in),
        ("broker_replication_bytes_out", "Bytes given to followers", &metrics.replication_bytes_out),
        ("broker_isr_expands", "In-sync sets that grew", &metrics.isr_expands),
        ("broker_isr_shrinks", "In-sync sets that shrank", &metrics.isr_shrinks),
        ("broker_failed_appends", "Appends refused or not acknowledged", &metrics.failed_appends),
        ("broker_alarms", "Things that an operator must look at; each was logged", &metrics.alarms),
    ] {
        samples.counter(name, help, counter.get())?;
    }
    Ok(())
}

fn of_front(front: &Front, samples: &mut Samples<'_, '_>) -> fmt::Result {
    let counts = front.counts();
    for (name, help, value) in [
        ("front_connections_opened", "Connections served", counts.connections_opened),
        ("front_connections_closed", "Connections ended", counts.connections_closed),
        (
            "front_connections_refused_per_ip",
            "Refused by max.connections.per.ip",
            counts.connections_refused_per_ip,
        ),
        ("front_connections_refused_full", "Refused by max.connections", counts.connections_refused_full),
        ("front_accept_backoffs", "Failures to accept", counts.accept_backoffs),
        ("front_requests_received", "Requests handled", counts.requests_received),
        ("front_responses_sent", "Answers sent", counts.responses_sent),
        ("front_bytes_in", "Bytes read from clients", counts.bytes_in),
        ("front_bytes_out", "Bytes sent to clients", counts.bytes_out),
        ("front_memory_waits", "Times that a connection waited for memory", counts.memory_waits),
        ("front_closed_refused", "Connections that sent what is no request", counts.closed_refused),
        ("front_closed_idle", "Connections that were idle for too long", counts.closed_idle),
        (
            "front_closed_slow_request",
            "Connections whose request came too slowly",
            counts.closed_slow_request,
        ),
        (
            "front_closed_slow_reader",
            "Connections that took their answers too slowly",
            counts.closed_slow_reader,
        ),
        ("front_closed_panicked", "Connections that a defect ended", counts.closed_panicked),
    ] {
        samples.counter(name, help, value)?;
    }
    samples.requests(front)?;
    let memory = front.memory();
    let as_gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    samples.gauge("front_memory_used_bytes", "Memory that requests hold", as_gauge(memory.used))?;
    samples.gauge("front_memory_limit_bytes", "Memory that requests may hold", as_gauge(memory.limit))
}
