//! The table of APIs: one row per handler, and what follows from the rows.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::{
    ApiKey, ApiMessage, ApiRequest, Encoded, Reader, VersionRange, Writer, encode_response_header,
};

use crate::context::{RequestContext, RequestMemory};
use crate::errors::{AnswerError, RequestError, TableError};
use crate::file_payload::FilePayloads;
use crate::handlers::api_versions::{ApiVersionsHandler, FeatureSource};

/// A future that a connection drives.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done to a resource, as Kafka's ACLs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `READ`.
    Read,
    /// `WRITE`.
    Write,
    /// `CREATE`.
    Create,
    /// `DELETE`.
    Delete,
    /// `ALTER`.
    Alter,
    /// `DESCRIBE`.
    Describe,
    /// `CLUSTER_ACTION`: what only brokers do.
    ClusterAction,
    /// `DESCRIBE_CONFIGS`.
    DescribeConfigs,
    /// `ALTER_CONFIGS`.
    AlterConfigs,
    /// `IDEMPOTENT_WRITE`.
    IdempotentWrite,
}

/// The access that an API needs at least. A handler may need more for single items of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// None, also before the client has said who it is.
    Anyone,
    /// To the cluster as a whole.
    Cluster(Operation),
    /// To each topic that the request names.
    Topic(Operation),
    /// To each group that the request names.
    Group(Operation),
    /// To the transactional id that the request names.
    TransactionalId(Operation),
    /// To each resource whose configuration the request names, by the resource's kind.
    Config(Operation),
}

/// What an API needs, and in which versions it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The API.
    pub key: ApiKey,
    /// The versions that its handler takes.
    pub versions: VersionRange,
    /// The access it needs at least.
    pub access: Access,
}

/// Answers the requests of one API. One value serves all connections.
pub trait Handler: Send + Sync + 'static {
    /// The request; it knows its API and its response.
    type Request: ApiRequest<Response: Send + 'static>;

    /// The versions that are served. Others never get here.
    const VERSIONS: VersionRange;
    /// The access that the API needs at least.
    const ACCESS: Access;
    /// Whether byte fields of the request are slices of what was received, as a Produce request's records should
    /// be, and not copies.
    const KEEPS_FRAME: bool = false;

    /// How many bytes behind a request are ignored, because clients in use are known to leave them there.
    const IGNORED_BEHIND_MAX: usize = 0;

    /// Takes a request. This runs on the connection's task, so it must not block; what takes long belongs into
    /// the ticket's futures.
    fn handle(
        &self,
        context: RequestContext,
        request: Self::Request,
    ) -> Ticket<<Self::Request as ApiRequest>::Response>;
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<R> {
    /// The response is sent.
    Response(R),
    /// The response is sent, and bytes of files in the places where it refers to them.
    WithFiles(R, FilePayloads),
    /// The client waits for nothing (`acks=0`).
    Nothing,
    /// The connection ends, once the answers before this one are sent.
    Close,
}

/// The two moments of a request: when its order among the others is fixed, so that the connection may read on, and
/// when its answer is ready. Answers leave in the order of the requests, whenever they become ready.
#[must_use]
pub struct Ticket<R> {
    accepted: Option<BoxFuture<()>>,
    done: Done<R>,
}

enum Done<R> {
    Now(Answer<R>),
    Later(BoxFuture<Answer<R>>),
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("accepted", &self.accepted.is_none())
            .field("done", &matches!(self.done, Done::Now(_)))
            .finish()
    }
}

impl<R> Ticket<R> {
    /// The answer is there.
    pub fn ready(answer: Answer<R>) -> Self {
        Self { accepted: None, done: Done::Now(answer) }
    }

    /// The order is fixed or does not matter; the answer comes later.
    pub fn later(done: impl Future<Output = Answer<R>> + Send + 'static) -> Self {
        Self { accepted: None, done: Done::Later(Box::pin(done)) }
    }

    /// The answer, without regard to the order of requests.
    #[cfg(test)]
    pub(crate) async fn into_answer(self) -> Answer<R> {
        match self.done {
            Done::Now(answer) => answer,
            Done::Later(done) => done.await,
        }
    }

    /// Whether the connection's next request has to wait for this one.
    #[cfg(test)]
    pub(crate) fn waits_for_order(&self) -> bool {
        self.accepted.is_some()
    }

    /// No further request of the connection is taken before `accepted` is over. `done` is driven meanwhile.
    pub fn staged(
        accepted: impl Future<Output = ()> + Send + 'static,
        done: impl Future<Output = Answer<R>> + Send + 'static,
    ) -> Self {
        Self { accepted: Some(Box::pin(accepted)), done: Done::Later(Box::pin(done)) }
    }
}

/// An encoded answer, and what it refers to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) encoded: Encoded,
    pub(crate) files: FilePayloads,
}

impl Outgoing {
    /// The number of bytes that the client gets.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len()
    }
}

impl From<Encoded> for Outgoing {
    fn from(encoded: Encoded) -> Self {
        Self { encoded, files: FilePayloads::default() }
    }
}

/// An answer to be sent, `None` if the client waits for none.
pub(crate) type Sealed = Result<Option<Outgoing>, AnswerError>;

/// An answer on its way, whatever its API.
pub(crate) enum PendingAnswer {
    Now(Option<Sealed>),
    Later(BoxFuture<Sealed>),
}

impl Future for PendingAnswer {
    type Output = Sealed;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sealed> {
        match &mut *self {
            Self::Now(sealed) => sealed.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(future) => future.as_mut().poll(context),
        }
    }
}

/// A request that its handler has taken.
pub(crate) struct Dispatched {
    pub(crate) accepted: Option<BoxFuture<()>>,
    pub(crate) answer: PendingAnswer,
    /// The row and version that it is counted as once it is answered, `None` if no handler has taken it.
    pub(crate) served: Option<ServedVersion>,
}

trait AnyHandler: Send + Sync {
    fn call(&self, context: RequestContext, body: Reader<'_>) -> Result<Dispatched, RequestError>;
}

struct Typed<H>(H);

/// What an answer needs besides its body.
#[derive(Clone, Copy)]
struct AnswerHead {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
}

fn seal<R: ApiMessage>(head: AnswerHead, answer: Answer<R>) -> Sealed {
    let AnswerHead { key, version, correlation_id } = head;
    let (response, files) = match answer {
        Answer::Response(response) => (response, FilePayloads::default()),
        Answer::WithFiles(response, files) => (response, files),
        Answer::Nothing => return Ok(None),
        Answer::Close => return Err(AnswerError::ClosedByHandler { key }),
    };
    let mut writer = Writer::framed();
    encode_response_header(key, version, correlation_id, &mut writer)
        .and_then(|()| response.encode_into(version, &mut writer))
        .and_then(|()| writer.finish())
        .map(|encoded| Some(Outgoing { encoded, files }))
        .map_err(|source| AnswerError::Encode { key, version, source })
}

impl<H: Handler> AnyHandler for Typed<H> {
    fn call(&self, context: RequestContext, body: Reader<'_>) -> Result<Dispatched, RequestError> {
        let RequestContext { key, version, correlation_id, .. } = context;
        let memory = context.memory.clone();
        let body = body.ignoring_behind(H::IGNORED_BEHIND_MAX);
        let request = H::Request::decode_whole(version, body).map_err(|source| RequestError::Body {
            key,
            version,
            source,
        })?;
        let Ticket { accepted, done } = self.0.handle(context, request);
        let head = AnswerHead { key, version, correlation_id };
        let answer = match done {
            Done::Now(answer) => {
                memory.release();
                PendingAnswer::Now(Some(seal(head, answer)))
            }
            Done::Later(done) => PendingAnswer::Later(seal_later(head, memory, done)),
        };
        Ok(Dispatched { accepted, answer, served: None })
    }
}

fn seal_later<R: ApiMessage + Send + 'static>(
    head: AnswerHead,
    memory: RequestMemory,
    done: BoxFuture<Answer<R>>,
) -> BoxFuture<Sealed> {
    Box::pin(async move {
        let answer = done.await;
        memory.release();
        seal(head, answer)
    })
}

struct Entry {
    row: Row,
    /// The place of the row's first version among all versions of all rows.
    first_version: usize,
    keeps_frame: bool,
    handler: Box<dyn AnyHandler>,
}

/// Handlers by API. ApiVersions is always among them and tells what the rows say.
pub struct ApiTable {
    entries: BTreeMap<ApiKey, Entry>,
}

impl fmt::Debug for ApiTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rows()).finish()
    }
}

impl ApiTable {
    /// Begins a table.
    pub fn builder() -> ApiTableBuilder {
        ApiTableBuilder { entries: BTreeMap::new(), error: None }
    }

    /// The rows by ascending API.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.entries.values().map(|entry| entry.row)
    }

    pub(crate) fn row(&self, key: ApiKey) -> Option<Row> {
        self.entries.get(&key).map(|entry| entry.row)
    }

    /// Whether the API's requests keep the frame that they arrived in.
    pub(crate) fn keeps_frame(&self, key: ApiKey) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.keeps_frame)
    }

    /// Decodes the body and hands it to the handler of `context.key`.
    pub(crate) fn call(&self, context: RequestContext, body: Reader<'_>) -> Result<Dispatched, RequestError> {
        let (key, version) = (context.key, context.version);
        let entry = self.entries.get(&key).ok_or(RequestError::NotServed { key })?;
        let behind_first = usize::try_from(version - entry.row.versions.min()).unwrap_or_default();
        let served = ServedVersion(entry.first_version + behind_first);
        let dispatched = entry.handler.call(context, body)?;
        Ok(Dispatched { served: Some(served), ..dispatched })
    }

    /// Every version of every row, each at its place.
    pub(crate) fn served_versions(&self) -> impl Iterator<Item = (ApiKey, i16)> {
        self.rows().flat_map(|row| row.versions.iter().map(move |version| (row.key, version)))
    }
}

/// The place of one version of one row among all versions of all rows, as
/// [`ApiTable::served_versions`] numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServedVersion(pub(crate) usize);

/// A table in the making.
#[must_use]
pub struct ApiTableBuilder {
    entries: BTreeMap<ApiKey, Entry>,
    error: Option<TableError>,
}

impl fmt::Debug for ApiTableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.keys()).finish()
    }
}

impl ApiTableBuilder {
    /// Adds a handler and the row that follows from it.
    pub fn handler<H: Handler>(mut self, handler: H) -> Self {
        let key = H::Request::KEY;
        let (claimed, known) = (H::VERSIONS, key.versions());
        let row = Row { key, versions: claimed, access: H::ACCESS };
        let handler = Box::new(Typed(handler));
        let entry = Entry { row, first_version: 0, keeps_frame: H::KEEPS_FRAME, handler };
        if claimed.intersect(known) != Some(claimed) {
            self.error.get_or_insert(TableError::Versions { key, claimed, known });
        }
        if self.entries.insert(key, entry).is_some() {
            self.error.get_or_insert(TableError::Duplicate { key });
        }
        self
    }

    /// Ends the table: adds ApiVersions, which tells the rows, itself included, and what `features` knows.
    ///
    /// # Errors
    /// Two handlers for one API (ApiVersions must not be added by the caller), and versions that the protocol
    /// does not know.
    pub fn build(self, features: Arc<dyn FeatureSource>) -> Result<ApiTable, TableError> {
        let mut advertised: Vec<_> =
            self.entries.values().map(|entry| (entry.row.key, entry.row.versions)).collect();
        advertised.push((ApiKey::ApiVersions, ApiVersionsHandler::VERSIONS));
        advertised.sort_unstable_by_key(|(key, _)| *key);
        let advertised = advertised.into_iter().map(|(key, versions)| advertise(key, versions)).collect();
        let mut table = self.handler(ApiVersionsHandler::new(advertised, features));
        let mut next = 0;
        for entry in table.entries.values_mut() {
            entry.first_version = next;
            next += entry.row.versions.iter().count();
        }
        table.error.map_or(Ok(ApiTable { entries: table.entries }), Err)
    }
}

/// What clients are told of a row. Produce is told from version 0 on, though the versions below 3 are refused:
/// librdkafka takes a broker without them for one that cannot compress (KAFKA-18659).
fn advertise(key: ApiKey, versions: VersionRange) -> ApiVersion {
    let min_version = if key == ApiKey::Produce { 0 } else { versions.min() };
    ApiVersion { api_key: key.code(), min_version, max_version: versions.max() }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
