//! A node from its first breath to its last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::broker::{Broker, BrokerFailure};
use klamm_broker::controller_client::ControllerError;
use klamm_log::fs::{LogFs, RealFs};
use klamm_rpc::{Deadline, KnownQuorum, RpcError};
use klamm_types::BrokerEpoch;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin_http::{AdminListener, NodeView};
use crate::broker_role::{BrokerRole, BrokerStart, Runtimes};
use crate::controller_role::ControllerRole;
use crate::derived::DerivedSettings;
use crate::error::{ForeignDirectories, NodeError};
use crate::metrics::{BrokerView, ControllerView, Observed};
use crate::node_config::NodeConfig;
use crate::resolve::resolve;
use crate::signals::stop_reason;
use crate::sources::{LoadedSettings, Sources};
use crate::storage::{StoredIdentity, format_directories, keep_quorum, take_back};
use crate::telemetry::{Levels, Telemetry};

/// Threads for the quorum, the broker's session and the admin listener. They have little to do, and must never wait
/// for those that serve clients.
const CONTROL_THREADS: usize = 2;
/// Threads that may wait for disks at a time.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long the runtimes may take to end after everything else has.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node may take to end when a part of it has failed that nothing goes on without: it serves nobody, and the
/// sooner its connections end, the sooner others take over.
const FAILED_STOP: Duration = Duration::from_secs(1);
/// What is kept of the time for an orderly end when leaderships are handed over.
const AFTER_HANDOVER: Duration = Duration::from_secs(5);
/// Open files that logs may have at most; more gain nothing.
const OPEN_FILES_MAX: usize = 8_192;

/// How a node is run, besides its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerOptions {
    /// The node stops in order when its standard input ends.
    pub follow_stdin: bool,
}

/// Runs a node until it is told to stop, and has stopped in order.
///
/// # Errors
/// Why it does not start, or stopped by itself.
pub fn run(sources: &Sources, options: ServerOptions) -> Result<(), NodeError> {
    let loaded = sources.load()?;
    let config = NodeConfig::new(&loaded)?;
    let derived = DerivedSettings::new(&loaded)?;
    let levels = Levels::read(&config.log_level).map_err(|error| crate::ConfigError::Unfit {
        name: "klamm.log.level",
        origin: loaded.origin("klamm.log.level"),
        problem: format!("cannot be used: {error}"),
    })?;
    let telemetry = Arc::new(Telemetry::start(config.log_format, levels));
    log_panics();
    tell(&config, &loaded, &derived);
    let fs: Arc<dyn LogFs> = Arc::new(RealFs);
    let identity = format_directories(&*fs, &config)?;
    for dir in &identity.formatted {
        tracing::info!(dir = %dir.display(), cluster_id = identity.cluster_id, "new directory");
        keep_to_owner(dir);
    }
    let control = runtime("klamm-control", CONTROL_THREADS)?;
    let threads = config.worker_threads.unwrap_or_else(cores);
    let data = runtime("klamm-data", threads)?;
    let shutdown_timeout = config.shutdown_timeout;
    let runtimes = Runtimes { control: control.handle().clone(), data: data.handle().clone() };
    let formatted = identity.formatted.clone();
    let node = Node {
        config,
        derived,
        quorum: KnownQuorum::new(identity.quorum_id),
        identity,
        fs: Arc::clone(&fs),
        telemetry,
        runtimes,
        observed: Observed::new(),
    };
    let outcome = control.block_on(node.live(options, shutdown_timeout));
    data.shutdown_timeout(RUNTIME_TIMEOUT);
    control.shutdown_timeout(RUNTIME_TIMEOUT);
    if let Err(NodeError::ForeignCluster { directories: ForeignDirectories::TakenBack, .. }) = &outcome {
        take_back(&*fs, &formatted);
    }
    match &outcome {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "stopped"),
    }
    outcome
}

fn tell(config: &NodeConfig, loaded: &LoadedSettings, derived: &DerivedSettings) {
    for (origin, notice) in &loaded.notices {
        tracing::info!(setting = notice.name, %origin, reason = notice.reason, "setting without effect");
    }
    for (origin, notice) in &derived.notices {
        tracing::warn!(setting = notice.name, %origin, reason = notice.reason, "setting taken as another value");
    }
    for endpoint in config.listeners.clients.iter().filter(|endpoint| !endpoint.is_loopback()) {
        tracing::warn!(
            listener = %endpoint,
            "this listener is plain text and asks nobody who he is: whoever reaches it can read and change everything"
        );
    }
    let own_voter = config.quorum.voters.iter().find(|voter| voter.id == config.node_id.0);
    let listens_at = |port: u16| config.listeners.controller.iter().any(|endpoint| endpoint.port == port);
    if let Some(voter) = own_voter.filter(|voter| !listens_at(voter.port)) {
        tracing::warn!(
            port = voter.port,
            "controller.quorum.voters sends others to a port of this node that no listener of its controller has"
        );
    }
    let (node_id, roles) = (config.node_id, config.roles);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%node_id, broker = roles.broker, controller = roles.controller, version, "starting");
}

/// Records are nobody's business but this node's: others of the machine may not look into a new directory.
fn keep_to_owner(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Err(error) = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)) {
        tracing::warn!(dir = %dir.display(), %error, "others may be able to look into this directory");
    }
}

/// Has panics written where everything else is. Each is a bug; what it ended has said so to whoever waits for it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread, %panic, %backtrace, "a part of the node has panicked");
    }));
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, NodeError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads.max(1)).max_blocking_threads(BLOCKING_THREADS_MAX);
    let built = builder.thread_name(name).enable_all().build();
    built.map_err(|source| NodeError::System { what: "start threads", source })
}

/// How many files the logs may keep open. This process takes as many as the system gives on demand: a container often
/// begins with 1,024 and may have a million.
fn open_files_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    // No limit is more than enough.
    let allowed = allowed.and_then(|allowed| usize::try_from(allowed).ok()).unwrap_or(usize::MAX);
    if allowed < 2 * OPEN_FILES_MAX {
        tracing::info!(limit = allowed, "few open files are allowed; ulimit -Hn 100000 allows more");
    }
    (allowed / 2).clamp(64, OPEN_FILES_MAX)
}

struct Node {
    config: NodeConfig,
    derived: DerivedSettings,
    identity: StoredIdentity,
    /// The quorum that it belongs to.
    quorum: KnownQuorum,
    fs: Arc<dyn LogFs>,
    telemetry: Arc<Telemetry>,
    runtimes: Runtimes,
    observed: Observed,
}

/// The admin listener at work.
struct Admin {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

/// What a node has started so far.
#[derive(Default)]
struct Started {
    controller: Option<ControllerRole>,
    broker: Option<BrokerRole>,
}

impl Node {
    /// Starts, works, and stops in order; on the control runtime.
    async fn live(self, options: ServerOptions, shutdown_timeout: Duration) -> Result<(), NodeError> {
        let admin = self.start_admin().await?;
        let mut started = Started::default();
        let outcome = tokio::select! {
            biased;
            reason = stop_reason(options.follow_stdin) => match reason {
                Ok(reason) => {
                    tracing::info!(reason = reason.name(), "stopping");
                    Ok(())
                }
                Err(source) => Err(NodeError::System { what: "catch signals", source }),
            },
            failure = self.work(&mut started) => {
                tracing::error!(error = %failure, "stopping");
                Err(failure)
            }
        };
        self.observed.set_stopping();
        let is_dead = outcome.as_ref().is_err_and(NodeError::is_of_a_dead_part);
        let time = if is_dead { FAILED_STOP.min(shutdown_timeout) } else { shutdown_timeout };
        let deadline = Deadline::after(time);
        let stopping = self.stop(started, outcome.is_ok(), deadline);
        if tokio::time::timeout_at(deadline.instant(), stopping).await.is_err() {
            let millis = time.as_millis();
            tracing::warn!(millis, "stopped as it is: the time to stop is over, and the next start recovers");
        }
        if let Some(Admin { stop, running }) = admin {
            stop.send_replace(true);
            if let Err(error) = running.await {
                tracing::warn!(%error, "the admin listener ended badly");
            }
        }
        outcome
    }

    async fn start_admin(&self) -> Result<Option<Admin>, NodeError> {
        const SETTING: &str = "klamm.admin.listener";
        let Some((host, port)) = &self.config.admin else { return Ok(None) };
        let address = resolve(host, *port, SETTING).await?;
        let bound = AdminListener::bind(address).await;
        let listener = bound.map_err(|source| NodeError::bind(address, "admin", SETTING, source))?;
        tracing::info!(address = %listener.address(), "metrics and health are served");
        let (stop, stopped) = watch::channel(false);
        let view: Arc<dyn NodeView> = Arc::new(self.observed.clone());
        Ok(Some(Admin { stop, running: tokio::spawn(listener.run(view, stopped)) }))
    }

    /// Starts the roles and waits for what ends them.
    async fn work(&self, started: &mut Started) -> NodeError {
        match self.start(started).await {
            Ok(()) => {}
            Err(error) => return error,
        }
        let Started { controller, broker } = started;
        let controller_failed = async {
            match &*controller {
                Some(controller) => failure_of(controller.status()).await,
                None => std::future::pending().await,
            }
        };
        let broker_failed = async {
            let Some(broker) = broker else {
                if let Some(controller) = &*controller {
                    // An error means that it has stopped, which is noticed elsewhere.
                    let _ = controller.status().wait_for(|status| status.is_ready).await;
                }
                self.tell_ready(&[]);
                return std::future::pending().await;
            };
            let failing = broker.broker().clone();
            let serving = async {
                match broker.serve().await {
                    Ok(()) => {
                        self.tell_ready(&broker.addresses());
                        std::future::pending().await
                    }
                    Err(error) => error,
                }
            };
            tokio::select! {
                error = serving => error,
                failure = failing.failed() => self.broker_failure(&failing, failure),
            }
        };
        tokio::select! {
            failure = controller_failed => failure,
            failure = broker_failed => failure,
        }
    }

    /// Why the broker cannot go on, in terms of this node.
    fn broker_failure(&self, broker: &Broker, failure: BrokerFailure) -> NodeError {
        let message = match failure {
            BrokerFailure::Refused(ControllerError::Impossible(RpcError::ForeignCluster { message })) => {
                message
            }
            failure => return NodeError::BrokerFailed(failure),
        };
        let StoredIdentity { cluster_id, formatted, .. } = &self.identity;
        let was_taken = broker.lifecycle().state().epoch != BrokerEpoch::NONE;
        let directories = match formatted.as_slice() {
            [] => ForeignDirectories::Older(self.config.log_dirs.clone()),
            dirs if was_taken || self.config.roles.controller => ForeignDirectories::MadeNow(dirs.to_vec()),
            _ => ForeignDirectories::TakenBack,
        };
        NodeError::ForeignCluster { message, ours: cluster_id.clone(), directories }
    }

    async fn start(&self, started: &mut Started) -> Result<(), NodeError> {
        let cluster_id = &self.identity.cluster_id;
        self.keep_quorum();
        if self.config.roles.controller {
            let belongs = (cluster_id.as_str(), self.quorum.clone());
            let controller =
                ControllerRole::start(&self.config, &self.derived, belongs, self.fs.clone()).await?;
            tracing::info!(addresses = ?controller.addresses(), "the controller takes part in the quorum");
            let status = controller.status();
            let view = ControllerView { status: status.clone(), metrics: controller.metrics() };
            self.observed.set_controller(view);
            started.controller = Some(controller);
            if self.config.roles.broker {
                self.until_enlisted(status).await?;
            }
        }
        if self.config.roles.broker {
            let broker = self.start_broker().await?;
            let (inner, front) = (broker.broker().clone(), broker.front().clone());
            self.observed.set_broker(BrokerView { broker: inner, front });
            started.broker = Some(broker);
        }
        Ok(())
    }

    /// Waits until the controller of this node knows which quorum it is part of. With an empty disk it may hear of two, and
    /// a broker that had followed the wrong one before would have bound the node to it.
    async fn until_enlisted(
        &self,
        mut status: watch::Receiver<klamm_controller::ControllerStatus>,
    ) -> Result<(), NodeError> {
        let enlisted = async {
            let known = status.wait_for(|status| status.is_enlisted || status.failure.is_some()).await;
            known.map_or_else(|_| Some("its tasks have ended".to_owned()), |status| status.failure.clone())
        };
        tokio::select! {
            _ = self.quorum.settled() => Ok(()),
            failure = enlisted => failure.map_or(Ok(()), |reason| Err(NodeError::ControllerStopped { reason })),
        }
    }

    /// Has the directories name the quorum as soon as this node belongs to one.
    fn keep_quorum(&self) {
        let (quorum, config, fs) = (self.quorum.clone(), self.config.clone(), self.fs.clone());
        tokio::spawn(async move {
            let quorum_id = quorum.settled().await;
            // It ends early only with the runtime.
            let _ = tokio::task::spawn_blocking(move || keep_quorum(&*fs, &config, quorum_id)).await;
        });
    }

    /// The parts of a broker spawn their tasks where they are made: on the data runtime.
    async fn start_broker(&self) -> Result<BrokerRole, NodeError> {
        let (config, derived) = (self.config.clone(), self.derived.clone());
        let (cluster_id, fs) = (self.identity.cluster_id.clone(), self.fs.clone());
        let known_quorum = self.quorum.clone();
        let (runtimes, telemetry) = (self.runtimes.clone(), self.telemetry.clone());
        let starting = self.runtimes.data.spawn(async move {
            let start = BrokerStart {
                config: &config,
                derived: &derived,
                cluster_id: &cluster_id,
                known_quorum,
                fs,
                runtimes,
                telemetry,
                open_files_max: open_files_max(),
            };
            BrokerRole::start(start).await
        });
        starting.await.unwrap_or(Err(NodeError::TaskEnded { what: "the start of the broker" }))
    }

    fn tell_ready(&self, addresses: &[(String, SocketAddr)]) {
        self.observed.set_serving();
        for (listener, address) in addresses {
            tracing::info!(listener, %address, "clients are served");
        }
        let (node_id, cluster_id) = (self.config.node_id, &self.identity.cluster_id);
        tracing::info!(%node_id, cluster_id, "ready");
    }

    /// The broker first: its controller may be needed to let it go.
    async fn stop(&self, started: Started, in_order: bool, deadline: Deadline) {
        let Started { controller, broker } = started;
        if let Some(broker) = broker {
            let controlled = in_order && self.config.settings.boolean("controlled.shutdown.enable");
            let time =
                if controlled { deadline.remaining().saturating_sub(AFTER_HANDOVER) } else { Duration::ZERO };
            let handover = Deadline::after(time);
            // On the runtime of its parts: what they spawn while they end must outlive this call.
            let stopping = self.runtimes.data.spawn(broker.shut_down(handover));
            if let Err(error) = stopping.await {
                tracing::error!(%error, "the broker did not stop in order");
            }
        }
        if let Some(controller) = controller {
            controller.shut_down(deadline).await;
        }
        self.observed.forget_parts();
    }
}

async fn failure_of(mut status: watch::Receiver<klamm_controller::ControllerStatus>) -> NodeError {
    let stopped = "its tasks have ended";
    let reason = match status.wait_for(|status| status.failure.is_some()).await {
        Ok(status) => status.failure.clone().unwrap_or_default(),
        Err(_) => stopped.to_owned(),
    };
    NodeError::ControllerStopped { reason }
}
