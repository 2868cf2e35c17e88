//! The controller of a node: its log, its listener, its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_controller::{Controller, ControllerMetrics, ControllerOptions, ControllerStatus, Voter};
use klamm_log::fs::LogFs;
use klamm_log::{FileCache, LogDir};
use klamm_rpc::{
    Deadline, KnownQuorum, LineBudget, NodeAddress, Protocol, ServerConfig, first_bytes, likely_protocol,
    serve,
};
use klamm_types::BrokerId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::derived::DerivedSettings;
use crate::error::NodeError;
use crate::node_config::NodeConfig;
use crate::resolve::resolve;
use crate::schema::TableSchema;
use crate::storage::controller_dir;

/// How long a connection may take to show what it speaks.
pub(crate) const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not yet shown it; more wait to be accepted.
const UNSORTED_MAX: usize = 256;
/// How long connections of other nodes may take to end when the node stops, beyond the grace that they have anyway.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long a listener rests when the system cannot give it a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two lines about connections that speak something else.
const STRANGERS_INTERVAL: Duration = Duration::from_secs(10);
/// Open files of the metadata log.
const OPEN_FILES_MAX: usize = 64;
/// The metadata log, which is no partition of a broker.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A controller that runs and is served.
#[derive(Debug)]
pub(crate) struct ControllerRole {
    controller: Controller,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl ControllerRole {
    /// Binds the controller's listeners and starts it. To be called on the runtime that it shall run on.
    pub(crate) async fn start(
        config: &NodeConfig,
        derived: &DerivedSettings,
        (cluster_id, known_quorum): (&str, KnownQuorum),
        fs: Arc<dyn LogFs>,
    ) -> Result<Self, NodeError> {
        let mut sockets = Vec::new();
        for endpoint in &config.listeners.controller {
            let address = resolve(&endpoint.host, endpoint.port, "listeners").await?;
            let socket = TcpListener::bind(address).await;
            sockets.push(
                socket.map_err(|source| NodeError::bind(address, &endpoint.name, "listeners", source))?,
            );
        }
        let dir = controller_dir(config);
        let may_be_new = !holds_partitions(fs.as_ref(), config);
        let log_dir = open_dir(fs, &dir)?;
        let schema = Arc::new(TableSchema::new(config.settings.clone()));
        let settings = &config.settings;
        let mut options = ControllerOptions::new(cluster_id, config.node_id, voters(config), log_dir, schema);
        options.may_be_new = may_be_new;
        options.control = derived.control.clone();
        options.timing = derived.timing;
        options.quorum = known_quorum;
        options.inter_broker_listener = Some(config.listeners.inter_broker.clone());
        options.leader_rebalance_enabled = settings.boolean("auto.leader.rebalance.enable");
        let controller = Controller::start(options).await?;
        let (stop, stopped) = watch::channel(false);
        let mut serving = Vec::new();
        let mut addresses = Vec::new();
        for socket in sockets {
            addresses.extend(socket.local_addr());
            let (sender, incoming) = mpsc::channel(UNSORTED_MAX);
            serving.push(tokio::spawn(accept(socket, sender, stopped.clone())));
            let mut stopping = stopped.clone();
            let until_stopped = async move {
                // An error means that the role is gone.
                let _ = stopping.wait_for(|stopped| *stopped).await;
            };
            let routes = controller.routes();
            serving.push(tokio::spawn(async move {
                let incoming = ReceiverStream::new(incoming);
                if let Err(error) = serve(routes, incoming, until_stopped, ServerConfig::default()).await {
                    tracing::error!(%error, "the controller's listener cannot be served");
                }
            }));
        }
        Ok(Self { controller, addresses, stop, serving })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it is, at every moment.
    pub(crate) fn status(&self) -> watch::Receiver<ControllerStatus> {
        self.controller.status()
    }

    /// What it counts, and the cluster in numbers.
    pub(crate) fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    /// Hands leadership over, stops the quorum's work, then its listener.
    pub(crate) async fn shut_down(self, deadline: Deadline) {
        self.controller.shutdown(deadline).await;
        self.stop.send_replace(true);
        let patience = Deadline::after(STOP_PATIENCE).min(deadline);
        for mut task in self.serving {
            if tokio::time::timeout_at(patience.instant(), &mut task).await.is_err() {
                tracing::warn!("connections to the controller did not end in time");
                task.abort();
            }
        }
    }
}

fn voters(config: &NodeConfig) -> Vec<Voter> {
    let voters = config.quorum.voters.iter();
    voters
        .map(|voter| Voter {
            id: BrokerId(voter.id),
            address: NodeAddress::new(voter.host.clone(), voter.port),
        })
        .collect()
}

/// Whether a directory of this node has a partition in it, which no new node has.
fn holds_partitions(fs: &dyn LogFs, config: &NodeConfig) -> bool {
    let is_partition = |name: &str| {
        let number = name.rsplit_once('-').map(|(topic, number)| (topic != METADATA_TOPIC).then_some(number));
        number.flatten().is_some_and(|number| number.parse::<u32>().is_ok())
    };
    for dir in &config.log_dirs {
        match fs.list(dir) {
            Ok(entries) if entries.iter().any(|entry| is_partition(&entry.name)) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A directory that cannot be read is told of when the broker opens it.
            Err(error) => tracing::debug!(dir = %dir.display(), %error, "cannot be listed"),
        }
    }
    false
}

fn open_dir(fs: Arc<dyn LogFs>, path: &Path) -> Result<Arc<LogDir>, NodeError> {
    let made = fs.create_dir_all(path);
    made.map_err(|source| NodeError::System { what: "make the directory of the metadata log", source })?;
    Ok(LogDir::new(fs, path, FileCache::new(OPEN_FILES_MAX)))
}

/// Accepts connections of other nodes until it is told to stop. Connections that speak anything else are closed, and
/// that is said: the metadata quorum has no clients of Kafka's protocol.
async fn accept(
    socket: TcpListener,
    sender: mpsc::Sender<std::io::Result<TcpStream>>,
    mut stopped: watch::Receiver<bool>,
) {
    let unsorted = Arc::new(Semaphore::new(UNSORTED_MAX));
    let strangers = Arc::new(LineBudget::new(STRANGERS_INTERVAL));
    loop {
        let accepted = tokio::select! {
            biased;
            // An error means that the role is gone.
            _ = stopped.wait_for(|stopped| *stopped) => return,
            accepted = accept_one(&socket, &unsorted) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (sender, strangers) = (sender.clone(), Arc::clone(&strangers));
        tokio::spawn(async move {
            let protocol = first_bytes(&stream, FIRST_BYTES_TIMEOUT).await;
            drop(permit);
            match protocol {
                // An error means that the server has stopped.
                Ok(Protocol::Http2) => drop(sender.send(Ok(stream)).await),
                Ok(Protocol::Kafka) => tell_stranger(&stream, peer, &strangers),
                Err(error) => tracing::debug!(%peer, %error, "a connection to the controller was of no use"),
            }
        });
    }
}

fn tell_stranger(stream: &TcpStream, peer: SocketAddr, budget: &LineBudget) {
    if let Some(held_back) = budget.take() {
        tracing::warn!(
            %peer,
            speaks = likely_protocol(stream),
            held_back,
            "closed a connection to the controllers' listener: it takes only calls of other nodes, which are gRPC over \
             HTTP/2 in plain text; clients connect to a listener of a broker"
        );
    }
}

async fn accept_one(
    socket: &TcpListener,
    unsorted: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = unsorted.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "the controller's listener cannot accept connections");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
