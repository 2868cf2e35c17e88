//! The broker of a node: its listeners around the broker, in the order in which they start and stop.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::broker::{Broker, BrokerOptions};
use klamm_broker::lifecycle::BrokerPhase;
use klamm_kafka_api::Front;
use klamm_log::fs::LogFs;
use klamm_metadata::{Endpoint, IncarnationId, SecurityProtocol};
use klamm_rpc::{ChannelPool, Deadline, KnownQuorum, NodeAddress};
use tokio::runtime::Handle;

use crate::client_listeners::{BoundSockets, ServedListeners};
use crate::derived::{self, DerivedSettings};
use crate::error::NodeError;
use crate::handlers::{HandlerParts, front};
use crate::node_config::NodeConfig;
use crate::resolve::host_name;
use crate::telemetry::Telemetry;

/// How often a broker that is not let serve says so in the log.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the parts of a broker run.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes {
    /// For the session with the controller: nothing that clients do may hold it up.
    pub(crate) control: Handle,
    /// For clients and replication.
    pub(crate) data: Handle,
}

/// What a broker is started with.
pub(crate) struct BrokerStart<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) derived: &'a DerivedSettings,
    pub(crate) cluster_id: &'a str,
    /// The quorum that this node belongs to.
    pub(crate) known_quorum: KnownQuorum,
    pub(crate) fs: Arc<dyn LogFs>,
    pub(crate) runtimes: Runtimes,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) open_files_max: usize,
}

/// A broker at work.
pub(crate) struct BrokerRole {
    broker: Arc<Broker>,
    front: Arc<Front>,
    data: Handle,
    bound: Option<BoundSockets>,
    served: Option<ServedListeners>,
    registration_timeout: Option<Duration>,
}

impl fmt::Debug for BrokerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerRole").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl BrokerRole {
    /// Binds the listeners, opens the logs, and starts to register; clients are not served yet. To be called on the
    /// data runtime.
    pub(crate) async fn start(start: BrokerStart<'_>) -> Result<Self, NodeError> {
        let BrokerStart {
            config,
            derived,
            cluster_id,
            known_quorum,
            fs,
            runtimes,
            telemetry,
            open_files_max,
        } = start;
        let bound = BoundSockets::bind(config, derived.front.listen_backlog).await?;
        let options = BrokerOptions {
            config: derived::broker(config, cluster_id, open_files_max),
            quorum: quorum(config),
            known_quorum,
            inter_broker_listener: config.listeners.inter_broker.clone(),
            endpoints: endpoints(config, &bound),
            rack: config.rack.clone(),
            features: derived.control.features.clone(),
            cordoned: false,
            incarnation: IncarnationId(*uuid::Uuid::new_v4().as_bytes()),
            fetchers: derived.fetcher.clone(),
            channels: ChannelPool::default(),
            control: runtimes.control,
        };
        let broker = Arc::new(Broker::start_on(fs, options).await?);
        let front = front(HandlerParts { config, derived, cluster_id, broker: &broker, telemetry })?;
        let registration_timeout =
            (!config.roles.controller).then(|| derived::registration_timeout(&config.settings));
        Ok(Self {
            broker,
            front,
            data: runtimes.data,
            bound: Some(bound),
            served: None,
            registration_timeout,
        })
    }

    /// The broker itself.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What serves clients.
    pub(crate) fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// Waits until the controller has let the broker serve, and opens the listeners. A broker without a controller
    /// in its own process gives up after `initial.broker.registration.timeout.ms`.
    ///
    /// # Errors
    /// The controllers do not take it in time.
    pub(crate) async fn serve(&mut self) -> Result<(), NodeError> {
        let lifecycle = self.broker.lifecycle();
        if let Some(timeout) = self.registration_timeout {
            let is_registered = |phase: BrokerPhase| phase != BrokerPhase::Starting;
            let deadline = Deadline::after(timeout);
            if lifecycle.wait_until(|state| is_registered(state.phase), deadline).await.is_none() {
                return Err(NodeError::NotRegistered { millis: timeout.as_millis() });
            }
        }
        let is_active = |phase: BrokerPhase| phase == BrokerPhase::Active;
        while lifecycle.wait_until(|state| is_active(state.phase), Deadline::after(PATIENCE)).await.is_none()
        {
            let phase = lifecycle.state().phase;
            tracing::info!(?phase, "waiting for the controllers to let this broker serve");
        }
        if let Some(bound) = self.bound.take() {
            let routes = tonic::service::Routes::new(self.broker.replica_service().server());
            let _on_data = self.data.enter();
            self.served = Some(bound.serve(&self.front, routes, &self.data)?);
        }
        Ok(())
    }

    /// Where clients are served; empty before [`Self::serve`] is done.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.served.as_ref().map(ServedListeners::addresses).unwrap_or_default()
    }

    /// Hands the leaderships over while clients are still answered, then answers what is under way, and closes the
    /// logs with the mark of an orderly end.
    pub(crate) async fn shut_down(mut self, deadline: Deadline) {
        // What it returns is said again, and logged, by the broker's own shutdown.
        let _ = self.broker.lifecycle().shut_down(deadline).await;
        if self.broker.lifecycle().state().phase == BrokerPhase::Released {
            tracing::info!("the leaderships are handed over");
        }
        drop(self.bound.take());
        // Followers still copy: what waits for them is answered while clients are drained.
        let calls = match self.served.take() {
            Some(served) => Some(served.drain().await),
            None => None,
        };
        match self.broker.shut_down(deadline).await {
            Ok(()) => tracing::info!("the logs are closed"),
            Err(error) => tracing::warn!(%error, "the broker did not stop in order"),
        }
        if let Some(calls) = calls {
            calls.stop().await;
        }
    }
}

fn quorum(config: &NodeConfig) -> Vec<NodeAddress> {
    let addresses = config.quorum.addresses.iter();
    addresses.map(|(host, port)| NodeAddress::new(host.clone(), *port)).collect()
}

fn endpoints(config: &NodeConfig, bound: &BoundSockets) -> Vec<Endpoint> {
    let endpoints = config.listeners.advertised.iter().map(|endpoint| Endpoint {
        listener: endpoint.name.clone(),
        host: if endpoint.host.is_empty() { host_name() } else { endpoint.host.clone() },
        port: if endpoint.port == 0 { bound.port(&endpoint.name) } else { endpoint.port },
        security_protocol: SecurityProtocol::Plaintext,
    });
    endpoints.collect()
}
