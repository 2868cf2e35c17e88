//! What a handler knows about a request besides its body.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_protocol::ApiKey;

use crate::memory::MemoryPermit;

/// The number of a connection, unique within one front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    /// The number, counted from 0 in the order of acceptance.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Who sent a request, and how its answer must look.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The connection it came on.
    pub connection: ConnectionId,
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// The name of the listener that the client connected to: it is told the endpoints of this listener.
    pub listener: Arc<str>,
    /// The API.
    pub key: ApiKey,
    /// The version of the request, and so of its answer; one that the handler claims.
    pub version: i16,
    /// What the client numbers the request with. The connection puts it into the answer; it need not be unique.
    pub correlation_id: i32,
    /// What the client calls itself: up to 32,767 bytes of its choosing, so shorten it before it is logged.
    pub client_id: Option<Arc<str>>,
    /// The memory that the request takes.
    pub memory: RequestMemory,
}

/// The share of the memory for requests that one request holds, until its answer is ready.
///
/// A handler that parks its answer for long (a long poll, a group that gathers) lets go of the request first and
/// then calls [`Self::release`], or parked requests would keep others from being read.
#[derive(Clone, Debug, Default)]
pub struct RequestMemory(Arc<Mutex<Option<Held>>>);

/// The frame's share, if the frame lives on, and that of what was decoded.
#[derive(Debug)]
struct Held {
    _frame: Option<MemoryPermit>,
    _decoded: MemoryPermit,
}

impl RequestMemory {
    pub(crate) fn new(frame: Option<MemoryPermit>, decoded: MemoryPermit) -> Self {
        Self(Arc::new(Mutex::new(Some(Held { _frame: frame, _decoded: decoded }))))
    }

    /// Gives the share back. Only to be called once the request, and all that was sliced from it, is dropped;
    /// later calls do nothing.
    pub fn release(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: whoever waits for memory is served by this drop.
        drop(held);
    }
}
