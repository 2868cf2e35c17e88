//! A socket that clients connect to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::dispatch::Peer;
use crate::errors::{CloseCause, ListenerError};
use crate::front::{AddressSlot, Front, Phase};

/// How long the listener waits after it could not accept, first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a connection may take to close beyond its drain time.
const CLOSE_SLACK: Duration = Duration::from_secs(1);

/// A bound socket; clients that connect wait until it is started.
#[derive(Debug)]
pub struct Listener {
    front: Arc<Front>,
    socket: TcpListener,
    address: SocketAddr,
}

/// A listener at work. Dropping it without [`Self::shutdown`] also stops it and lets its connections drain.
#[derive(Debug)]
#[must_use]
pub struct RunningListener {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<usize>,
    drain_max: Duration,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Fully,
    /// Some had to be cut off.
    CutOff {
        /// How many.
        connections: usize,
    },
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. Called within a tokio runtime that has I/O and time.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn bind(front: Arc<Front>, address: SocketAddr) -> Result<Self, ListenerError> {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(front.config.listen_backlog)?;
            socket.local_addr().map(|address| (socket, address))
        };
        let (socket, local) = bound().map_err(|source| ListenerError::Bind { address, source })?;
        Ok(Self { front, socket, address: local })
    }

    /// Where clients connect to, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to serve on `runtime`.
    pub fn start(self, runtime: &Handle) -> RunningListener {
        let (phase, phases) = watch::channel(Phase::Serving);
        let drain_max = Duration::from_millis(self.front.config.drain_timeout_ms) + CLOSE_SLACK;
        let address = self.address;
        let acceptor = Acceptor {
            front: self.front,
            socket: self.socket,
            runtime: runtime.clone(),
            phases,
            connections: JoinSet::new(),
            backoff: BACKOFF_MIN,
            drain_max,
        };
        RunningListener { address, phase, accepting: runtime.spawn(acceptor.run()), drain_max }
    }
}

impl RunningListener {
    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the socket, lets the requests under way be answered for `drain.timeout.ms`, and then cuts off the
    /// connections that are left.
    pub async fn shutdown(self) -> Drained {
        self.phase.send_replace(Phase::Draining);
        let grace = self.drain_max + CLOSE_SLACK;
        match timeout(grace, self.accepting).await {
            Ok(Ok(0)) => Drained::Fully,
            Ok(Ok(connections)) => Drained::CutOff { connections },
            // The accepting task keeps its own deadline; it can only be missing if its runtime is.
            Ok(Err(_)) | Err(_) => Drained::CutOff { connections: 0 },
        }
    }
}

/// The task behind a listener.
struct Acceptor {
    front: Arc<Front>,
    socket: TcpListener,
    runtime: Handle,
    phases: watch::Receiver<Phase>,
    connections: JoinSet<()>,
    backoff: Duration,
    drain_max: Duration,
}

impl Acceptor {
    /// Accepts until it is told to stop, then drains; returns how many connections it had to cut off.
    async fn run(mut self) -> usize {
        let mut phases = self.phases.clone();
        loop {
            tokio::select! {
                biased;
                stopped = phases.wait_for(|phase| *phase == Phase::Draining) => {
                    // An error means that the handle was dropped, which stops the listener too.
                    drop(stopped);
                    break;
                }
                Some(ended) = self.connections.join_next() => self.on_ended(ended),
                served = accept_one(&self.front, &self.socket, &mut self.backoff) => self.on_accepted(served),
            }
        }
        self.drain().await
    }

    fn on_accepted(&mut self, served: Option<Served>) {
        if let Some(served) = served {
            let serving = serve(self.front.clone(), served, self.phases.clone());
            self.connections.spawn_on(serving, &self.runtime);
        }
    }

    fn on_ended(&mut self, ended: Result<(), JoinError>) {
        note_panic(&self.front, ended);
    }

    async fn drain(self) -> usize {
        let Self { front, socket, mut connections, drain_max, .. } = self;
        drop(socket);
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                note_panic(&front, ended);
            }
        };
        if timeout(drain_max, all_ended).await.is_ok() {
            return 0;
        }
        let left = connections.len();
        connections.shutdown().await;
        left
    }
}

/// A defect in a handler ends its connection and is seen.
fn note_panic(front: &Front, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        front.metrics.panicked();
        tracing::error!(%error, "a handler panicked, its connection is closed");
    }
}

/// A connection with its places under the limits.
struct Served {
    socket: TcpStream,
    peer: Peer,
    slots: (OwnedSemaphorePermit, AddressSlot),
}

/// Accepts one connection, or waits if the system cannot give one. May be dropped at any await.
async fn accept_one(front: &Arc<Front>, socket: &TcpListener, backoff: &mut Duration) -> Option<Served> {
    let slot = front.connection_slot().await?;
    let (socket, address) = match socket.accept().await {
        Ok(accepted) => accepted,
        Err(error) if is_about_one_client(&error) => return None,
        Err(error) => {
            front.metrics.accept_backed_off();
            tracing::warn!(%error, wait_ms = backoff.as_millis(), "cannot accept connections");
            let wait = *backoff;
            *backoff = (wait * 2).min(BACKOFF_MAX);
            sleep(wait).await;
            return None;
        }
    };
    *backoff = BACKOFF_MIN;
    let Some(address_slot) = front.address_slot(address.ip()) else {
        front.metrics.refused_per_ip();
        return None;
    };
    // A socket that refuses this is already closed, which its first read tells.
    drop(socket.set_nodelay(true));
    front.metrics.opened();
    let peer = Peer { connection: front.next_connection(), address };
    Some(Served { socket, peer, slots: (slot, address_slot) })
}

/// Whether a failure to accept concerns only the client that was about to be accepted.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}

async fn serve(front: Arc<Front>, served: Served, phases: watch::Receiver<Phase>) {
    let Served { socket, peer, slots } = served;
    let cause = Connection::new(front.clone(), socket, peer).run(phases).await;
    front.metrics.closed(&cause);
    report(&front, peer, &cause);
    drop(slots);
}

fn report(front: &Front, peer: Peer, cause: &CloseCause) {
    let connection = peer.connection.get();
    match cause {
        CloseCause::Refused(error) if front.is_first_refusal(peer.address.ip()) => {
            tracing::warn!(connection, peer = %peer.address, %error, "refused what a client sent");
        }
        CloseCause::Unanswerable(error) => {
            tracing::warn!(connection, peer = %peer.address, %error, "connection closed without an answer");
        }
        cause => tracing::debug!(connection, peer = %peer.address, %cause, "connection closed"),
    }
}
