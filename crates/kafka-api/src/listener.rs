//! A socket that clients connect to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::dispatch::Peer;
use crate::errors::{CloseCause, ListenerError};
use crate::front::{AddressSlot, Front, Phase};
use crate::table::BoxFuture;

/// How long the listener waits after it could not accept, first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a connection may take to close beyond its drain time.
const CLOSE_SLACK: Duration = Duration::from_secs(1);

/// The name of a listener that was given none, Kafka's for the default one.
const LISTENER_NAME_DEFAULT: &str = "PLAINTEXT";

/// Tells the connections of Kafka's protocol from those of another one on the same socket.
pub trait ConnectionSorter: Send + Sync + 'static {
    /// Looks at the first bytes without taking them, for a bounded time, and gives the connection back if it speaks
    /// Kafka. `None`: it was handed to somebody else, or it said nothing in time and was closed.
    fn sort(&self, socket: TcpStream) -> BoxFuture<Option<TcpStream>>;
}

/// A bound socket; clients that connect wait until it is started.
pub struct Listener {
    front: Arc<Front>,
    socket: TcpListener,
    address: SocketAddr,
    name: Arc<str>,
    sorter: Option<Arc<dyn ConnectionSorter>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("shared", &self.sorter.is_some())
            .finish_non_exhaustive()
    }
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
        Ok(Self { front, socket, address: local, name: LISTENER_NAME_DEFAULT.into(), sorter: None })
    }

    /// A listener on a socket that was bound before there was a front.
    ///
    /// # Errors
    /// A socket that has no address.
    pub fn of_socket(front: Arc<Front>, socket: TcpListener) -> Result<Self, ListenerError> {
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let address =
            socket.local_addr().map_err(|source| ListenerError::Bind { address: unbound, source })?;
        Ok(Self { front, socket, address, name: LISTENER_NAME_DEFAULT.into(), sorter: None })
    }

    /// The listener's name as in `listeners`, `PLAINTEXT` if it is not told: it says which endpoints of the brokers a
    /// client is told.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Shares the socket with another protocol. Its connections do not count as clients', and are taken even when
    /// there are as many of those as there may be: the nodes of a cluster must always reach one another.
    #[must_use]
    pub fn shared(mut self, sorter: Arc<dyn ConnectionSorter>) -> Self {
        self.sorter = Some(sorter);
        self
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
            name: self.name,
            sorter: self.sorter,
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
    name: Arc<str>,
    sorter: Option<Arc<dyn ConnectionSorter>>,
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
                accepted = accept_one(&self.front, &self.socket, self.sorter.is_some(), &mut self.backoff) => {
                    self.on_accepted(accepted);
                }
            }
        }
        self.drain().await
    }

    fn on_accepted(&mut self, accepted: Option<Accepted>) {
        let Some(Accepted { socket, address, slots }) = accepted else { return };
        let peer = Peer { connection: self.front.next_connection(), address, listener: self.name.clone() };
        let (front, phases) = (self.front.clone(), self.phases.clone());
        match (slots, &self.sorter) {
            (Slots::Client(slots), _) => {
                self.connections
                    .spawn_on(serve(front, Served { socket, peer, slots }, phases), &self.runtime);
            }
            (Slots::Unsorted(slot), Some(sorter)) => {
                let sorting = sort(front, sorter.clone(), (socket, slot), peer, phases);
                self.connections.spawn_on(sorting, &self.runtime);
            }
            // Only listeners with a sorter accept unsorted connections.
            (Slots::Unsorted(_), None) => {}
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

/// The places of a client's connection under the limits.
type ClientSlots = (OwnedSemaphorePermit, AddressSlot);

/// A connection with its places under the limits.
struct Served {
    socket: TcpStream,
    peer: Peer,
    slots: ClientSlots,
}

/// A connection just accepted.
struct Accepted {
    socket: TcpStream,
    address: SocketAddr,
    slots: Slots,
}

enum Slots {
    Client(ClientSlots),
    /// Until the connection has shown its protocol.
    Unsorted(OwnedSemaphorePermit),
}

/// Accepts one connection, or waits if the system cannot give one. May be dropped at any await.
async fn accept_one(
    front: &Arc<Front>,
    socket: &TcpListener,
    shared: bool,
    backoff: &mut Duration,
) -> Option<Accepted> {
    let slot = if shared { None } else { Some(front.connection_slot().await?) };
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
    let slots = match slot {
        Some(slot) => Slots::Client((slot, address_slot(front, address)?)),
        None => {
            let slot = front.unsorted_slot();
            if slot.is_none() {
                front.metrics.refused_full();
            }
            Slots::Unsorted(slot?)
        }
    };
    // A socket that refuses this is already closed, which its first read tells.
    drop(socket.set_nodelay(true));
    Some(Accepted { socket, address, slots })
}

fn address_slot(front: &Front, address: SocketAddr) -> Option<AddressSlot> {
    let slot = front.address_slot(address.ip());
    if slot.is_none() {
        front.metrics.refused_per_ip();
    }
    slot
}

/// Finds out what a connection speaks, and serves it if that is Kafka.
async fn sort(
    front: Arc<Front>,
    sorter: Arc<dyn ConnectionSorter>,
    (socket, unsorted): (TcpStream, OwnedSemaphorePermit),
    peer: Peer,
    mut phases: watch::Receiver<Phase>,
) {
    let sorted = tokio::select! {
        biased;
        stopped = phases.wait_for(|phase| *phase == Phase::Draining) => {
            drop(stopped);
            None
        }
        sorted = sorter.sort(socket) => sorted,
    };
    drop(unsorted);
    let Some(socket) = sorted else { return };
    let Some(slot) = front.try_connection_slot() else { return front.metrics.refused_full() };
    let Some(address) = address_slot(&front, peer.address) else { return };
    serve(front, Served { socket, peer, slots: (slot, address) }, phases).await;
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
    front.metrics.opened();
    let cause = Connection::new(front.clone(), socket, peer.clone()).run(phases).await;
    front.metrics.closed(&cause);
    report(&front, &peer, &cause);
    drop(slots);
}

fn report(front: &Front, peer: &Peer, cause: &CloseCause) {
    let connection = peer.connection.get();
    match cause {
        CloseCause::Refused(error) if front.is_first_refusal(peer.address.ip()) => {
            tracing::warn!(connection, peer = %peer.address, %error, "refused what a client sent");
        }
        CloseCause::Unanswerable(error) => {
            tracing::warn!(connection, peer = %peer.address, %error, "connection closed without an answer");
        }
        CloseCause::Unreadable(error) => {
            tracing::warn!(connection, peer = %peer.address, %error, "connection closed within an answer");
        }
        cause => tracing::debug!(connection, peer = %peer.address, %cause, "connection closed"),
    }
}
