//! One connection to one broker.
//!
//! Two tasks live as long as the connection: one writes requests in the order in which they were started, the other
//! reads answers. A request is known to the reader before its first byte is sent, so that an answer always finds its
//! request. The connection ends as a whole: at the first error, or when an answer is overdue, every request under way
//! fails, as later answers could not be told apart from lost ones.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{
    ApiKey, ApiMessage, ApiRequest, Budget, Encoded, ErrorCode, Reader, RequestHead, VersionRange, Writer,
    decode_response_header,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::options::ClientOptions;

mod tasks;

use tasks::{Outgoing, Pending};

/// A connection whose versions are agreed on. Cheap to clone; it closes when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    client_id: String,
    request_timeout: Duration,
    queue: mpsc::Sender<Outgoing>,
    next_correlation_id: AtomicI32,
    /// What the broker serves, by key; sorted.
    served: Vec<(ApiKey, VersionRange)>,
}

/// A request that has been queued for sending. Waiting for it gives the answer; dropping it leaves the request under
/// way and the answer unread.
#[derive(Debug)]
#[must_use]
pub struct PendingAnswer<A> {
    answer: oneshot::Receiver<Result<Bytes, ClientError>>,
    endpoint: Endpoint,
    api: ApiKey,
    version: i16,
    deadline: Instant,
    timeout: Duration,
    kind: PhantomData<fn() -> A>,
}

impl Connection {
    /// Dials `endpoint` and asks which versions it serves.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if it cannot be dialled in time; the errors of a request if it does not answer well.
    pub async fn open(endpoint: Endpoint, options: &ClientOptions) -> Result<Self, ClientError> {
        let deadline = Instant::now() + options.connect_timeout;
        let refused =
            |source: io::Error| ClientError::Connect { endpoint: endpoint.clone(), source: Arc::new(source) };
        let dial = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = match timeout_at(deadline, dial).await {
            Ok(stream) => stream.map_err(refused)?,
            Err(_) => return Err(refused(io::ErrorKind::TimedOut.into())),
        };
        stream.set_nodelay(true).map_err(refused)?;
        let mut shared = Shared {
            queue: tasks::spawn(stream, endpoint.clone(), options),
            endpoint,
            client_id: options.client_id.clone(),
            request_timeout: options.request_timeout,
            next_correlation_id: AtomicI32::new(0),
            served: Vec::new(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        shared.served = shared.negotiate(left).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Whether the connection has ended; requests fail at once then.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }

    /// The versions of `api` that both sides speak, `None` if there is none.
    #[must_use]
    pub fn versions(&self, api: ApiKey) -> Option<VersionRange> {
        let at = self.shared.served.binary_search_by_key(&api, |(key, _)| *key).ok()?;
        self.shared.served.get(at).and_then(|(_, range)| range.intersect(api.versions()))
    }

    /// Asks in the newest version that both sides speak, and waits for the answer as long as the options say.
    ///
    /// # Errors
    /// [`ClientError`], except for what the answer itself reports.
    pub async fn call<R: ApiRequest>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.call_within(request, self.shared.request_timeout).await
    }

    /// As [`call`](Self::call), with a time limit of its own, for requests that the broker may hold back.
    ///
    /// # Errors
    /// [`ClientError`], except for what the answer itself reports.
    pub async fn call_within<R: ApiRequest>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let version = self.newest(R::KEY, i16::MAX)?;
        self.start(request, version, timeout).await?.wait().await
    }

    /// The newest version of `api` that both sides speak, and that is at most `max`.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`].
    pub fn newest(&self, api: ApiKey, max: i16) -> Result<i16, ClientError> {
        let unsupported = || ClientError::Unsupported { endpoint: self.shared.endpoint.clone(), api };
        let range = self.versions(api).ok_or_else(unsupported)?;
        if range.min() > max { Err(unsupported()) } else { Ok(range.max().min(max)) }
    }

    /// Queues a request behind those started before it. Waits only while too many are under way.
    ///
    /// # Errors
    /// [`ClientError::Encode`], [`ClientError::Disconnected`], or [`ClientError::Timeout`] if the queue stays full.
    pub async fn start<R: ApiRequest>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<PendingAnswer<R::Response>, ClientError> {
        self.shared.start(request, version, timeout).await
    }

    /// Queues a request that the broker does not answer, as Produce with acks=0.
    ///
    /// # Errors
    /// As those of [`start`](Self::start).
    pub async fn tell<R: ApiRequest>(&self, request: &R, version: i16) -> Result<(), ClientError> {
        let (_, frame) = self.shared.encode(request, version)?;
        let deadline = Instant::now() + self.shared.request_timeout;
        self.shared
            .queue(Outgoing { frame, pending: None }, R::KEY, deadline, self.shared.request_timeout)
            .await
    }
}

impl Shared {
    fn encode<R: ApiRequest>(&self, request: &R, version: i16) -> Result<(i32, Encoded), ClientError> {
        // Wraps around after 2^32 requests, as correlation ids may.
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let head =
            RequestHead { key: R::KEY, version, correlation_id, client_id: Some(self.client_id.clone()) };
        let mut writer = Writer::framed();
        let encoded = head
            .encode(&mut writer)
            .and_then(|()| request.encode_into(version, &mut writer))
            .and_then(|()| writer.finish());
        match encoded {
            Ok(frame) => Ok((correlation_id, frame)),
            Err(source) => Err(ClientError::Encode { api: R::KEY, source }),
        }
    }

    async fn start<R: ApiRequest>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<PendingAnswer<R::Response>, ClientError> {
        let (correlation_id, frame) = self.encode(request, version)?;
        let (done, answer) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let pending = Pending { correlation_id, api: R::KEY, deadline, timeout, done };
        self.queue(Outgoing { frame, pending: Some(pending) }, R::KEY, deadline, timeout).await?;
        let endpoint = self.endpoint.clone();
        Ok(PendingAnswer { answer, endpoint, api: R::KEY, version, deadline, timeout, kind: PhantomData })
    }

    async fn queue(
        &self,
        outgoing: Outgoing,
        api: ApiKey,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        match timeout_at(deadline, self.queue.send(outgoing)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(disconnected(&self.endpoint)),
            Err(_) => Err(ClientError::Timeout { endpoint: self.endpoint.clone(), api, timeout }),
        }
    }

    /// Asks in the newest version we know; a broker that does not know it answers in version 0 with what it knows
    /// (KIP-511).
    async fn negotiate(&self, timeout: Duration) -> Result<Vec<(ApiKey, VersionRange)>, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "klamm".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let newest = ApiKey::ApiVersions.versions().max();
        let mut answer = self.start(&request, newest, timeout).await?.negotiated().await?;
        if answer.error_code == ErrorCode::UnsupportedVersion.code() {
            let served = answer.api_keys.iter().find(|row| row.api_key == ApiKey::ApiVersions.code());
            let version = served.map_or(0, |row| row.max_version.clamp(0, newest));
            let request = if version < 3 { ApiVersionsRequest::default() } else { request };
            answer = self.start(&request, version, timeout).await?.negotiated().await?;
        }
        crate::error::ApiError::check(answer.error_code, None)?;
        let known = |row: &ApiVersion| {
            let key = ApiKey::from_code(row.api_key)?;
            Some((key, VersionRange::new(row.min_version, row.max_version)))
        };
        let mut served: Vec<_> = answer.api_keys.iter().filter_map(known).collect();
        served.sort_unstable_by_key(|(key, _)| *key);
        Ok(served)
    }
}

impl<A: ApiMessage> PendingAnswer<A> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`], except for what the answer itself reports.
    pub async fn wait(self) -> Result<A, ClientError> {
        let (api, version, endpoint) = (self.api, self.version, self.endpoint.clone());
        let frame = self.frame().await?;
        decode(&frame, api, version).map_err(|source| ClientError::Decode { endpoint, api, source })
    }

    async fn frame(self) -> Result<Bytes, ClientError> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(disconnected(&self.endpoint)),
            Err(_) => {
                Err(ClientError::Timeout { endpoint: self.endpoint, api: self.api, timeout: self.timeout })
            }
        }
    }
}

impl PendingAnswer<ApiVersionsResponse> {
    /// Waits for an answer that is in version 0 if it reports an unsupported version.
    async fn negotiated(self) -> Result<ApiVersionsResponse, ClientError> {
        let (api, version, endpoint) = (self.api, self.version, self.endpoint.clone());
        let frame = self.frame().await?;
        // Correlation id, then the error code, in every version.
        let code = frame.get(4..6).and_then(|bytes| bytes.first_chunk::<2>()).copied();
        let refused = code.map(i16::from_be_bytes) == Some(ErrorCode::UnsupportedVersion.code());
        let version = if refused { 0 } else { version };
        decode(&frame, api, version).map_err(|source| ClientError::Decode { endpoint, api, source })
    }
}

fn decode<A: ApiMessage>(frame: &Bytes, api: ApiKey, version: i16) -> Result<A, klamm_protocol::DecodeError> {
    let mut reader = Reader::shared(frame, Budget::for_response(frame.len()));
    decode_response_header(api, version, &mut reader)?;
    A::decode_whole(version, reader)
}

fn disconnected(endpoint: &Endpoint) -> ClientError {
    let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionAborted));
    ClientError::Disconnected { endpoint: endpoint.clone(), source }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
