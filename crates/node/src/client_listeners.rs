//! The listeners that clients and other brokers connect to.

use std::net::SocketAddr;
use std::sync::Arc;

use klamm_kafka_api::{BoxFuture, ConnectionSorter, Drained, Front, Listener, RunningListener};
use klamm_rpc::{Protocol, ServerConfig, first_bytes, serve};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use crate::controller_role::{FIRST_BYTES_TIMEOUT, STOP_PATIENCE};
use crate::error::NodeError;
use crate::node_config::NodeConfig;
use crate::resolve::resolve;

/// Connections of other brokers that wait to be served.
const INCOMING_MAX: usize = 64;

/// Bound sockets: who connects waits until they are served.
#[derive(Debug)]
pub(crate) struct BoundSockets {
    sockets: Vec<(String, TcpListener, SocketAddr)>,
    inter_broker: String,
}

/// Listeners at work.
#[derive(Debug)]
pub(crate) struct ServedListeners {
    running: Vec<(String, RunningListener)>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl BoundSockets {
    /// Binds all client listeners of a node.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub(crate) async fn bind(config: &NodeConfig, backlog: u32) -> Result<Self, NodeError> {
        let mut sockets = Vec::new();
        for endpoint in &config.listeners.clients {
            let address = resolve(&endpoint.host, endpoint.port, "listeners").await?;
            let bound = bind(address, backlog);
            let (socket, local) =
                bound.map_err(|source| NodeError::bind(address, &endpoint.name, "listeners", source))?;
            sockets.push((endpoint.name.clone(), socket, local));
        }
        Ok(Self { sockets, inter_broker: config.listeners.inter_broker.clone() })
    }

    /// The port of a listener; 0 if there is no such listener.
    pub(crate) fn port(&self, name: &str) -> u16 {
        self.sockets.iter().find(|(other, ..)| other == name).map_or(0, |(_, _, address)| address.port())
    }

    /// Serves clients on all, and the calls of other brokers on the one between brokers.
    ///
    /// # Errors
    /// A socket that is none any more.
    pub(crate) fn serve(
        self,
        front: &Arc<Front>,
        routes: Routes,
        runtime: &Handle,
    ) -> Result<ServedListeners, NodeError> {
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let (stop, mut stopped) = watch::channel(false);
        let until_stopped = async move {
            // An error means that the listeners are gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let serving = runtime.spawn(async move {
            let incoming = ReceiverStream::new(incoming);
            if let Err(error) = serve(routes, incoming, until_stopped, ServerConfig::default()).await {
                tracing::error!(%error, "calls of other brokers cannot be served");
            }
        });
        let sorter: Arc<dyn ConnectionSorter> = Arc::new(BrokerSorter { calls: sender });
        let mut running = Vec::new();
        for (name, socket, _) in self.sockets {
            let listener = Listener::of_socket(front.clone(), socket);
            let listener = listener.map_err(|source| NodeError::Listener { name: name.clone(), source })?;
            let mut listener = listener.named(&name);
            if name == self.inter_broker {
                listener = listener.shared(sorter.clone());
            }
            running.push((name, listener.start(runtime)));
        }
        Ok(ServedListeners { running, stop, serving })
    }
}

fn bind(address: SocketAddr, backlog: u32) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let socket = socket.listen(backlog)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

impl ServedListeners {
    /// Names and addresses.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.running.iter().map(|(name, listener)| (name.clone(), listener.address())).collect()
    }

    /// Stops accepting and lets what is under way be answered, then closes the connections of clients. Other brokers
    /// are served until the rest is stopped.
    pub(crate) async fn drain(self) -> ServedCalls {
        let draining = self.running.into_iter().map(|(name, listener)| async move {
            if let Drained::CutOff { connections } = listener.shutdown().await {
                tracing::warn!(listener = name, connections, "connections were cut off");
            }
        });
        let mut tasks = tokio::task::JoinSet::new();
        draining.for_each(|drain| drop(tasks.spawn(drain)));
        drop(tasks.join_all().await);
        tracing::info!("the listeners are closed");
        ServedCalls { stop: self.stop, serving: self.serving }
    }
}

/// The calls of other brokers that are still served.
#[derive(Debug)]
pub(crate) struct ServedCalls {
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl ServedCalls {
    /// Lets calls end for a moment, and then cuts their connections.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        match tokio::time::timeout(STOP_PATIENCE, &mut self.serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the server for other brokers ended badly"),
            Err(_) => {
                tracing::warn!("calls of other brokers did not end in time");
                self.serving.abort();
            }
        }
    }
}

/// Hands connections that speak HTTP/2 to the server for other brokers.
struct BrokerSorter {
    calls: mpsc::Sender<std::io::Result<TcpStream>>,
}

impl ConnectionSorter for BrokerSorter {
    fn sort(&self, socket: TcpStream) -> BoxFuture<Option<TcpStream>> {
        let calls = self.calls.clone();
        Box::pin(async move {
            match first_bytes(&socket, FIRST_BYTES_TIMEOUT).await {
                Ok(Protocol::Kafka) => Some(socket),
                Ok(Protocol::Http2) => {
                    // An error means that the server has stopped.
                    drop(calls.send(Ok(socket)).await);
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection said nothing");
                    None
                }
            }
        })
    }
}
