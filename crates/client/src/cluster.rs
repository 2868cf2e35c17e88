//! A cluster: who leads what, and one connection to each broker that is talked to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ApiKey, ApiRequest};
use klamm_types::{BrokerId, LeaderEpoch, TopicPartition};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::view::{ClusterView, Leader, TopicView};

/// A connection to one endpoint, dialled by one caller at a time.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// What is known of a cluster. Cheap to clone; all clones share connections and knowledge.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ClientOptions,
    bootstrap: Vec<Endpoint>,
    view: Mutex<ClusterView>,
    slots: Mutex<HashMap<Endpoint, Slot>>,
    /// Who answered last: asked first.
    preferred: Mutex<Option<Endpoint>>,
    /// Held while the metadata is being looked up, so that many waiters cost one request.
    refreshing: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// Asks the first of `bootstrap` that answers who the brokers are; tries until the operation's time is over.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] if none answers, [`ClientError::NoBootstrap`] if none was named.
    pub async fn connect(bootstrap: Vec<Endpoint>, options: ClientOptions) -> Result<Self, ClientError> {
        let cluster = Self::new(bootstrap, options);
        let mut backoff = Backoff::for_operation(&cluster.shared.options);
        loop {
            match cluster.metadata(Some(&[])).await {
                Ok(_) => return Ok(cluster),
                Err(error) if error.is_retryable() => backoff.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// A cluster of which nothing is known yet; nobody is dialled before the first request.
    #[must_use]
    pub fn new(bootstrap: Vec<Endpoint>, options: ClientOptions) -> Self {
        let shared = Shared {
            options,
            bootstrap,
            view: Mutex::default(),
            slots: Mutex::default(),
            preferred: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same cluster by other connections. A broker answers the requests of one connection in order, so that a fetch
    /// that waits for records would hold up all that comes behind it.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::new(self.candidates(), self.shared.options.clone())
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// The cluster's id, once a broker has told it.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.view().cluster_id.clone()
    }

    /// The brokers of the last answer, by ascending id.
    #[must_use]
    pub fn brokers(&self) -> Vec<(BrokerId, Endpoint)> {
        self.view().brokers.iter().map(|(id, endpoint)| (*id, endpoint.clone())).collect()
    }

    /// Looks up the brokers and the named topics (all topics for `None`) at the first broker that answers. One try.
    /// Topics are never created by asking for them.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] if none answers in [`ClientOptions::metadata_timeout`] each.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<MetadataResponse, ClientError> {
        let topic = |name: &String| MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|names| names.iter().map(topic).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let answer = self.ask_any(&request, self.shared.options.metadata_timeout).await?;
        self.view().learn(&answer, None)?;
        Ok(answer)
    }

    /// Sends a request to each broker in turn until one answers. One round.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] if none answers within `limit` each; errors that are not about the connection at once.
    pub async fn ask_any<R: ApiRequest>(
        &self,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let mut last = ClientError::NoBootstrap;
        for endpoint in self.candidates() {
            let asked = match timeout(limit, self.connection(&endpoint)).await {
                Ok(Ok(connection)) => connection.call_within(request, limit).await,
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    Err(ClientError::Timeout { endpoint: endpoint.clone(), api: R::KEY, timeout: limit })
                }
            };
            match asked {
                Ok(answer) => {
                    *lock(&self.shared.preferred) = Some(endpoint);
                    return Ok(answer);
                }
                Err(error) if error.is_unreachable() => last = error,
                Err(error) => return Err(error),
            }
            lock(&self.shared.preferred).take_if(|preferred| *preferred == endpoint);
        }
        match last {
            ClientError::NoBootstrap => Err(last),
            last => Err(ClientError::NoBroker { last: Box::new(last) }),
        }
    }

    /// A connection to the first broker that can be reached. One round.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] if none can be reached.
    pub async fn any_broker(&self) -> Result<Connection, ClientError> {
        let mut last = ClientError::NoBootstrap;
        for endpoint in self.candidates() {
            match self.connection(&endpoint).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = ClientError::NoBroker { last: Box::new(error) },
            }
            lock(&self.shared.preferred).take_if(|preferred| *preferred == endpoint);
        }
        Err(last)
    }

    /// The connection to a broker, dialled if need be.
    ///
    /// # Errors
    /// [`ClientError`] if the broker is unknown (after a lookup) or cannot be reached.
    pub async fn broker(&self, id: BrokerId) -> Result<Connection, ClientError> {
        let known = self.view().brokers.get(&id).cloned();
        let endpoint = match known {
            Some(endpoint) => endpoint,
            None => {
                self.metadata(Some(&[])).await?;
                let known = self.view().brokers.get(&id).cloned();
                known.ok_or_else(|| crate::error::ApiError {
                    code: klamm_protocol::ErrorCode::BrokerNotAvailable,
                    message: Some(format!("broker {id} is not in the cluster's list")),
                })?
            }
        };
        self.connection(&endpoint).await
    }

    /// What is known of a topic; looked up if nothing is, or if a broker has contradicted it. One try.
    ///
    /// # Errors
    /// What the broker says about the topic, or [`ClientError::NoBroker`].
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicView>, ClientError> {
        if let Some(view) = self.view().topic(name) {
            return Ok(view);
        }
        let _one_at_a_time = self.shared.refreshing.lock().await;
        if let Some(view) = self.view().topic(name) {
            return Ok(view);
        }
        let answer = self.metadata(Some(&[name.to_owned()])).await?;
        let mut view = self.view();
        view.learn(&answer, Some(name))?;
        view.topic(name).ok_or_else(|| ClientError::Mismatch {
            endpoint: lock(&self.shared.preferred).clone().unwrap_or_else(unknown_endpoint),
            api: ApiKey::Metadata,
        })
    }

    /// Who leads a partition, with a connection to there. One try: call it again after a pause if the error is
    /// retryable.
    ///
    /// # Errors
    /// [`ClientError::UnknownPartition`], `LEADER_NOT_AVAILABLE`, or that the leader cannot be reached; what was known
    /// of the topic is then looked up at the next call.
    pub async fn leader(&self, at: &TopicPartition) -> Result<Leader, ClientError> {
        let result = self.known_leader(at).await;
        if result.as_ref().is_err_and(ClientError::is_stale_view) {
            self.mark_stale(at);
        }
        result
    }

    async fn known_leader(&self, at: &TopicPartition) -> Result<Leader, ClientError> {
        let topic = self.topic(at.topic.as_str()).await?;
        let partition = topic
            .partition(at.partition)
            .ok_or_else(|| ClientError::UnknownPartition { partition: at.clone() })?;
        let endpoint = partition.leader.and_then(|id| Some((id, self.view().brokers.get(&id)?.clone())));
        let (broker, endpoint) = endpoint.ok_or(crate::error::ApiError {
            code: klamm_protocol::ErrorCode::LeaderNotAvailable,
            message: None,
        })?;
        let connection = self.connection(&endpoint).await?;
        Ok(Leader { broker, epoch: partition.leader_epoch, topic_id: topic.topic_id, connection })
    }

    /// Lets the next request for the topic look it up anew: a broker has contradicted what is known.
    pub fn mark_stale(&self, at: &TopicPartition) {
        self.view().mark_stale(at.topic.as_str());
    }

    /// Takes a broker's hint at the current leader (KIP-951). `true` if it is news, so that a retry needs no pause.
    pub(crate) fn learn_leader(
        &self,
        at: &TopicPartition,
        broker: i32,
        epoch: i32,
        endpoint: Option<(&str, i32)>,
    ) -> bool {
        let endpoint = endpoint.and_then(|(host, port)| Endpoint::from_wire(host, port));
        self.view().learn_leader(at, BrokerId(broker), LeaderEpoch(epoch), endpoint)
    }

    /// The open connection to `endpoint`, or a new one; concurrent callers share one dial.
    async fn connection(&self, endpoint: &Endpoint) -> Result<Connection, ClientError> {
        let slot = Arc::clone(lock(&self.shared.slots).entry(endpoint.clone()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(endpoint.clone(), &self.shared.options).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Whom to ask: who answered last, then all known brokers, then the bootstrap servers.
    fn candidates(&self) -> Vec<Endpoint> {
        let mut candidates: Vec<Endpoint> = lock(&self.shared.preferred).clone().into_iter().collect();
        let known: Vec<Endpoint> = self.view().brokers.values().cloned().collect();
        for endpoint in known.into_iter().chain(self.shared.bootstrap.iter().cloned()) {
            if !candidates.contains(&endpoint) {
                candidates.push(endpoint);
            }
        }
        candidates
    }

    fn view(&self) -> MutexGuard<'_, ClusterView> {
        lock(&self.shared.view)
    }
}

fn unknown_endpoint() -> Endpoint {
    Endpoint { host: "unknown".to_owned(), port: 0 }
}

/// No code that holds one of these locks can panic half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
