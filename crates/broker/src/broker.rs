//! The broker as a whole: starts and stops its parts in order.
//!
//! ```text
//!   log directories ─▶ replica manager ─▶ metadata loader ─▶ lifecycle (registers, keeps the session)
//!                       │        ▲
//!            fetchers, proposer  replica service (served by the node's listener)
//! ```
//! The metadata is followed before the broker is registered; replicas begin with the first image from after the
//! registration. Stopping goes the other way, and the session ends last: until the logs are closed, nobody may take this
//! broker for dead.

use std::fmt;
use std::sync::Arc;

use klamm_log::fs::{LogFs, RealFs};
use klamm_log::{LogError, ManagerError};
use klamm_metadata::{DirectoryId, Endpoint, FeatureRange, IncarnationId};
use klamm_rpc::{ChannelPool, Deadline, KnownQuorum, NodeAddress, NodeIdentity};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::controller_client::{ControllerClient, ControllerClientConfig, ControllerError};
use crate::fetcher::{FetcherConfig, MetadataPeers, ReplicaFetchers};
use crate::isr_proposer::IsrProposer;
use crate::lifecycle::{BrokerLifecycle, LifecycleOptions, NotReleased, RegistrationFacts};
use crate::log_dirs::LogDirs;
use crate::log_reporter::LogReporter;
use crate::metadata::{LoaderFault, MetadataCache, MetadataLoader};
use crate::metrics::BrokerMetrics;
use crate::offline_reporter::OfflineReporter;
use crate::partition::{SessionLease, Surroundings};
use crate::producer_ids::{ControllerBlocks, ProducerIds};
use crate::replica_manager::ReplicaManager;
use crate::replica_service::ReplicaService;

/// What a broker is started with.
#[derive(Debug)]
pub struct BrokerOptions {
    /// Its settings.
    pub config: BrokerConfig,
    /// Where controllers listen, at least one.
    pub quorum: Vec<NodeAddress>,
    /// The quorum that this node belongs to, shared with its other parts.
    pub known_quorum: KnownQuorum,
    /// `inter.broker.listener.name`: the listener at which brokers reach one another.
    pub inter_broker_listener: String,
    /// Where clients and brokers reach it, in the order in which they are told; at least one.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// What its binary supports, ordered by name.
    pub features: Vec<FeatureRange>,
    /// Whether new replicas are unwelcome (KIP-1066).
    pub cordoned: bool,
    /// Drawn at this start of the process.
    pub incarnation: IncarnationId,
    /// Settings of the fetchers.
    pub fetchers: FetcherConfig,
    /// Connections to other nodes.
    pub channels: ChannelPool,
    /// The runtime of heartbeats, metadata and proposals: one that the data path cannot starve.
    pub control: Handle,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerStartError {
    /// No log directory can be brought into service.
    #[error("no log directory can be used")]
    LogDirs(#[from] ManagerError),
    /// A log directory has no identity to register with.
    #[error("no log directory has an identity")]
    NoDirectoryId,
    /// The start was given up, as its runtime ended.
    #[error("the runtime ended during the start")]
    Interrupted,
}

/// Why a broker cannot go on; its node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum BrokerFailure {
    /// The controller will never take this broker.
    #[error("the controller refuses this broker: {0}")]
    Refused(ControllerError),
    /// The metadata cannot be understood.
    #[error(transparent)]
    Metadata(LoaderFault),
    /// No log directory is in service any more.
    #[error("no log directory is in service any more; the last failure: {reason}")]
    NoLogDir {
        /// Why the last one failed.
        reason: String,
    },
    /// A part of the broker ended that must not.
    #[error("a part of the broker has ended: {part}")]
    Ended {
        /// Which.
        part: &'static str,
    },
}

/// Why a shutdown was not an orderly one. Nothing acknowledged is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The leaderships were not handed over in time; others take over as after a crash.
    #[error(transparent)]
    NotReleased(#[from] NotReleased),
    /// Not all logs were closed; the next start recovers them.
    #[error(transparent)]
    Logs(#[from] LogError),
}

/// A running broker.
pub struct Broker {
    metadata: Arc<MetadataCache>,
    controller: ControllerClient,
    replicas: Arc<ReplicaManager>,
    lifecycle: BrokerLifecycle,
    producer_ids: Arc<ProducerIds>,
    service: ReplicaService,
    fetchers: ReplicaFetchers,
    clock: Clock,
    lease: SessionLease,
    stop: watch::Sender<bool>,
    loader: tokio::sync::Mutex<Option<oneshot::Receiver<LoaderFault>>>,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("state", &self.lifecycle.state()).finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the logs, which takes as long as they need to recover, then follows the metadata and registers. Returns
    /// before the broker is registered; [`lifecycle`](Self::lifecycle) tells when it serves.
    ///
    /// The server that is to answer other brokers routes to [`replica_service`](Self::replica_service).
    ///
    /// # Errors
    /// [`BrokerStartError`].
    pub async fn start(options: BrokerOptions) -> Result<Self, BrokerStartError> {
        Self::start_on(Arc::new(RealFs), options).await
    }

    /// As [`start`](Self::start), on a file system of the caller's choice.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(fs: Arc<dyn LogFs>, options: BrokerOptions) -> Result<Self, BrokerStartError> {
        let clock = Clock::start();
        let dirs = open_dirs(fs, options.config.clone(), clock).await?;
        let directory = dirs.registration_id().ok_or(BrokerStartError::NoDirectoryId)?;
        let identity = NodeIdentity::new(&options.config.cluster_id, options.config.node_id)
            .of_quorum(options.known_quorum.clone());
        let controller = controller_client(&options, &identity);
        let metadata = Arc::new(MetadataCache::new());
        let peers =
            MetadataPeers::new(Arc::clone(&metadata), &options.inter_broker_listener, controller.clone());
        let fetchers = ReplicaFetchers::new(
            identity.clone(),
            options.fetchers.clone(),
            options.channels.clone(),
            Arc::new(peers),
        );
        let proposer = Arc::new(IsrProposer::new());
        let lease = SessionLease::expired();
        let around = Surroundings {
            node: options.config.node_id,
            clock,
            lease: lease.clone(),
            fetches: Arc::new(fetchers.clone()),
            proposals: Arc::clone(&proposer) as _,
            metrics: Arc::new(BrokerMetrics::default()),
        };
        let replicas = ReplicaManager::new(options.config.clone(), dirs, around);
        let service = ReplicaService::new(identity, Arc::clone(&replicas) as _);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&replicas).run());
        tasks.spawn_on(proposer.run(controller.clone(), told(stopped.clone())), &options.control);
        let (following, loader) = follow_metadata(&controller, &metadata, &replicas, stopped.clone());
        tasks.spawn_on(following, &options.control);
        let lifecycle = {
            let _on_control = options.control.enter();
            BrokerLifecycle::start(LifecycleOptions {
                facts: facts(&options, directory, replicas.log_dirs()),
                client: controller.clone(),
                cache: Arc::clone(&metadata),
                incarnations: Box::new(Arc::clone(&replicas)),
                clock,
                lease: lease.clone(),
            })
        };
        let reporter = OfflineReporter {
            replicas: Arc::clone(&replicas),
            client: controller.clone(),
            metadata: Arc::clone(&metadata),
            lifecycle: lifecycle.clone(),
        };
        tasks.spawn_on(reporter.run(told(stopped.clone())), &options.control);
        let reporter = LogReporter { replicas: Arc::clone(&replicas), client: controller.clone() };
        tasks.spawn_on(reporter.run(told(stopped)), &options.control);
        let blocks = ControllerBlocks { client: controller.clone(), lifecycle: lifecycle.clone() };
        Ok(Self {
            metadata,
            controller,
            replicas,
            lifecycle,
            producer_ids: Arc::new(ProducerIds::new(Arc::new(blocks))),
            service,
            fetchers,
            clock,
            lease,
            stop,
            loader: tokio::sync::Mutex::new(Some(loader)),
            tasks: std::sync::Mutex::new(tasks),
        })
    }

    /// The newest image of the metadata.
    #[must_use]
    pub fn metadata(&self) -> &Arc<MetadataCache> {
        &self.metadata
    }

    /// The way to the active controller.
    #[must_use]
    pub fn controller(&self) -> &ControllerClient {
        &self.controller
    }

    /// The replicas of this broker.
    #[must_use]
    pub fn replicas(&self) -> &Arc<ReplicaManager> {
        &self.replicas
    }

    /// The broker's standing with the controller.
    #[must_use]
    pub fn lifecycle(&self) -> &BrokerLifecycle {
        &self.lifecycle
    }

    /// Whether a controller has answered it within the session timeout. Without that it takes no writes.
    #[must_use]
    pub fn is_in_session(&self) -> bool {
        self.clock.now() < self.lease.until()
    }

    /// Ids for idempotent producers.
    #[must_use]
    pub fn producer_ids(&self) -> &Arc<ProducerIds> {
        &self.producer_ids
    }

    /// The service for the followers on other brokers.
    #[must_use]
    pub fn replica_service(&self) -> &ReplicaService {
        &self.service
    }

    /// The broker's clocks.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns when the broker cannot go on. While some of its log directories are in service it does.
    pub async fn failed(&self) -> BrokerFailure {
        tokio::select! {
            refusal = self.lifecycle.refusal() => BrokerFailure::Refused(refusal),
            failure = self.loader_failed() => failure,
            failure = self.log_dirs_failed() => failure,
        }
    }

    async fn loader_failed(&self) -> BrokerFailure {
        let mut loader = self.loader.lock().await;
        let Some(fault) = loader.as_mut() else { return std::future::pending().await };
        let outcome = fault.await;
        *loader = None;
        match outcome {
            Ok(fault) => BrokerFailure::Metadata(fault),
            Err(_) if *self.stop.borrow() => std::future::pending().await,
            Err(_) => BrokerFailure::Ended { part: "the metadata loader" },
        }
    }

    async fn log_dirs_failed(&self) -> BrokerFailure {
        let dirs = self.replicas.log_dirs();
        let mut statuses = dirs.statuses();
        loop {
            let mut failures = statuses.iter().map(|dir| dir.failure.as_ref());
            let reason = failures.clone().flatten().next_back().cloned();
            if let Some(reason) = reason.filter(|_| failures.all(|failure| failure.is_some())) {
                return BrokerFailure::NoLogDir { reason };
            }
            statuses = dirs.changed_from(&statuses).await;
        }
    }

    /// Hands over what the broker leads, ends replication, closes the logs and leaves the mark of an orderly shutdown;
    /// then ends the session. The front must take no more requests by then. `deadline` bounds the handing over; the logs
    /// are closed in any case.
    ///
    /// # Errors
    /// The first [`ShutdownError`]; everything has been stopped all the same.
    pub async fn shut_down(&self, deadline: Deadline) -> Result<(), ShutdownError> {
        let released = self.lifecycle.shut_down(deadline).await;
        if let Err(error) = &released {
            tracing::warn!(%error, "leaderships were not handed over");
        }
        self.service.stop().await;
        self.fetchers.stop().await;
        let closed = self.replicas.shut_down().await;
        self.lifecycle.stop().await;
        self.stop.send_replace(true);
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        tasks.shutdown().await;
        released?;
        Ok(closed?)
    }
}

/// Completes when `stopped` says so.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error says that the broker is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn open_dirs(
    fs: Arc<dyn LogFs>,
    config: BrokerConfig,
    clock: Clock,
) -> Result<Arc<LogDirs>, BrokerStartError> {
    let opening = tokio::task::spawn_blocking(move || LogDirs::open(fs, &config, clock.wall()));
    match opening.await {
        Ok(opened) => Ok(Arc::new(opened?)),
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(BrokerStartError::Interrupted),
        },
    }
}

fn controller_client(options: &BrokerOptions, identity: &NodeIdentity) -> ControllerClient {
    let config = ControllerClientConfig::new(identity.clone(), options.quorum.clone());
    ControllerClient::new(config, options.channels.clone())
}

/// Follows the metadata until `stopped`; the fault that ends it before that.
fn follow_metadata(
    controller: &ControllerClient,
    metadata: &Arc<MetadataCache>,
    replicas: &Arc<ReplicaManager>,
    stopped: watch::Receiver<bool>,
) -> (impl Future<Output = ()> + Send + 'static, oneshot::Receiver<LoaderFault>) {
    let loader = MetadataLoader::new(controller.clone(), Arc::clone(metadata));
    let loader = loader.with_publisher(Arc::clone(replicas));
    let (sender, fault) = oneshot::channel();
    let following = async move {
        if let Err(fault) = loader.run(told(stopped)).await {
            tracing::error!(error = %fault, cause = %fault.source, "the metadata loader has stopped");
            // Nobody waits for it any more during a shutdown.
            let _ = sender.send(fault);
        }
    };
    (following, fault)
}

fn facts(options: &BrokerOptions, directory: DirectoryId, dirs: &LogDirs) -> RegistrationFacts {
    RegistrationFacts {
        incarnation: options.incarnation,
        directory,
        endpoints: options.endpoints.clone(),
        rack: options.rack.clone(),
        features: options.features.clone(),
        cordoned: options.cordoned,
        marker_epoch: dirs.previous_broker_epoch(),
        verdict: dirs.recovery_verdict(),
    }
}
