//! Telling the operator of calls that are refused for what they are: malformed, or meant for somebody else.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use klamm_types::BrokerId;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use crate::LineBudget;

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);
/// What is told of a text that a peer may have written, in characters.
const TEXT_LEN_MAX: usize = 200;

/// Writes a line for a call that was refused because it makes no sense, or comes from or is meant for another node:
/// one in ten seconds of each kind, with the number of those in between. Refusals that belong to the work (not the
/// active controller, overloaded, too late) get none.
///
/// Clones share their budget.
#[derive(Clone, Debug)]
pub struct RefusedCalls {
    budgets: Arc<Budgets>,
}

#[derive(Debug)]
struct Budgets {
    malformed: LineBudget,
    misdirected: LineBudget,
}

impl Default for RefusedCalls {
    fn default() -> Self {
        Self::new()
    }
}

impl RefusedCalls {
    /// Nothing has been refused yet.
    #[must_use]
    pub fn new() -> Self {
        let budgets =
            Budgets { malformed: LineBudget::new(INTERVAL), misdirected: LineBudget::new(INTERVAL) };
        Self { budgets: Arc::new(budgets) }
    }

    /// Takes note that `call` of `peer`, which is `node` as far as it said, was answered with `status`.
    pub fn note(&self, call: &str, peer: Option<SocketAddr>, node: Option<BrokerId>, status: &Status) {
        let Some(is_malformed) = is_malformed(status.code()) else { return };
        let budget = if is_malformed { &self.budgets.malformed } else { &self.budgets.misdirected };
        let Some(held_back) = budget.take() else { return };
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let node = node.map_or_else(|| "unknown".to_owned(), |node| node.to_string());
        let (call, reason) = (cut(call), cut(status.message()));
        if is_malformed {
            tracing::warn!(%peer, %node, call, reason, held_back, "a call makes no sense and was refused");
        } else {
            tracing::warn!(%peer, %node, call, reason, held_back, "a call from or for another node was refused");
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_LEN_MAX).collect()
}

/// Whether the status says that a call was malformed, or that it came from or was for another node. `None` for all that
/// can happen between nodes that work as they should.
const fn is_malformed(code: Code) -> Option<bool> {
    match code {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal => Some(true),
        Code::PermissionDenied | Code::Unauthenticated | Code::NotFound | Code::DataLoss => Some(false),
        Code::Ok
        | Code::Cancelled
        // What a broken connection is to its service.
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable => None,
    }
}

impl<S> Layer<S> for RefusedCalls {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, refused: self.clone() }
    }
}

/// The services, with an eye on what they refuse before they begin to answer. What goes wrong within a stream, its own
/// service has to note.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    refused: RefusedCalls,
}

impl<S, B, T> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<T>>,
    S::Future: Send + 'static,
{
    type Response = Response<T>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<T>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let call = request.uri().clone();
        let refused = self.refused.clone();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            // Answers that are more than a refusal have their status behind them.
            if answer.headers().contains_key("grpc-status")
                && let Some(status) = Status::from_header_map(answer.headers())
            {
                refused.note(call.path(), peer, None, &status);
            }
            Ok(answer)
        })
    }
}
