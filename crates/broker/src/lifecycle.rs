//! The broker's life towards the controller: registration, session, shutdown.
//!
//! ```text
//!            register            caught up, unfenced         wants to go           nobody needs it
//!  Starting ──────────▶ Fenced ─────────────────────▶ Active ─────────────▶ ShuttingDown ──────────▶ Released
//!      ▲                  ▲ └───────────── fenced ──────┘ │                     │
//!      └── epoch refused ─┴───────────────────────────────┘   epoch refused ────┴──▶ Released
//! ```
//!
//! The session is a stream of heartbeats to the active controller. Each answer extends the [`SessionLease`], counted from
//! before its heartbeat was *sent*: the controller counts from when it came, so the lease ends before anybody else may
//! be elected on the grounds of silence, even if this process was stopped in between.

mod registration;
mod session;
mod stream;

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use klamm_rpc::Deadline;
use klamm_types::BrokerEpoch;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::controller_client::{ControllerClient, ControllerError};
use crate::metadata::MetadataCache;
use crate::partition::SessionLease;
use crate::{Clock, ReplicaManager};

use registration::Registrar;
pub use registration::RegistrationFacts;
use stream::{SessionEnd, SessionStreams};

/// Where a broker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BrokerPhase {
    /// It is not registered, or has to register anew.
    Starting,
    /// It is registered and does not serve.
    Fenced,
    /// It serves.
    Active,
    /// It serves what nobody else can, and hands over the rest.
    ShuttingDown,
    /// Nobody needs it any more: it may flush, write its marker and exit.
    Released,
    /// The controller will never take it, see [`BrokerLifecycle::refusal`].
    Refused,
}

/// A broker's standing, as far as it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerState {
    /// Where it is in its life.
    pub phase: BrokerPhase,
    /// Its registration; [`BrokerEpoch::NONE`] before the first.
    pub epoch: BrokerEpoch,
}

/// Hears of each new registration of the broker before its session begins.
pub trait Incarnations: Send + Sync + fmt::Debug + 'static {
    /// The broker is registered as the incarnation `epoch`. What it held of an earlier one is void.
    fn begin(&self, epoch: BrokerEpoch) -> BoxFuture<'_, ()>;

    /// Whether everything can be served, as far as is known. If not, an incarnation stays fenced until
    /// [`BrokerLifecycle::set_wants_fence`] says otherwise: it would be elected to lead what it cannot serve.
    fn is_whole(&self) -> bool;
}

impl Incarnations for Arc<ReplicaManager> {
    fn begin(&self, epoch: BrokerEpoch) -> BoxFuture<'_, ()> {
        Box::pin(self.begin_incarnation(epoch))
    }

    fn is_whole(&self) -> bool {
        self.log_dirs().is_whole()
    }
}

/// What a [`BrokerLifecycle`] needs.
#[derive(Debug)]
pub struct LifecycleOptions {
    /// What the broker says of itself.
    pub facts: RegistrationFacts,
    /// The way to the controller.
    pub client: ControllerClient,
    /// How far the metadata is applied.
    pub cache: Arc<MetadataCache>,
    /// Who must know the broker epoch before anything is served in it.
    pub incarnations: Box<dyn Incarnations>,
    /// The clock of the lease.
    pub clock: Clock,
    /// What the session extends.
    pub lease: SessionLease,
}

/// What the broker wants of the controller besides its life.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Wishes {
    fence: bool,
    shutdown: bool,
}

/// The broker's life: a task that registers it and keeps its session. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct BrokerLifecycle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<BrokerState>,
    wishes: watch::Sender<Wishes>,
    /// When a controller last answered, and how long the session lasts from then on.
    heard: watch::Sender<Heard>,
    refusal: std::sync::OnceLock<ControllerError>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// A sign of life of a controller.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    session: Duration,
}

/// The broker was not released in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not released by a controller in time, but {phase:?}")]
pub struct NotReleased {
    /// Where it was instead.
    pub phase: BrokerPhase,
}

impl BrokerLifecycle {
    /// Registers the broker and keeps its session, until it is released or [`stop`](Self::stop)ped. To be called
    /// within a tokio runtime.
    #[must_use]
    pub fn start(options: LifecycleOptions) -> Self {
        let state = BrokerState { phase: BrokerPhase::Starting, epoch: BrokerEpoch::NONE };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            wishes: watch::Sender::default(),
            heard: watch::Sender::new(Heard { at: Instant::now(), session: SESSION_DEFAULT }),
            refusal: std::sync::OnceLock::new(),
            task: std::sync::Mutex::new(None),
        });
        let wishes = shared.wishes.subscribe();
        let life = Life { state: Arc::clone(&shared), options, wishes };
        let task = tokio::spawn(life.live());
        *shared.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(task);
        Self { shared }
    }

    /// The broker's standing now.
    #[must_use]
    pub fn state(&self) -> BrokerState {
        *self.shared.state.borrow()
    }

    /// Waits until the broker's standing satisfies `condition`, and gives it; `None` if it does not by the deadline.
    pub async fn wait_until(
        &self,
        mut condition: impl FnMut(BrokerState) -> bool,
        deadline: Deadline,
    ) -> Option<BrokerState> {
        let mut state = self.shared.state.subscribe();
        let reached = state.wait_for(|state| condition(*state));
        tokio::time::timeout_at(deadline.instant(), reached).await.ok()?.ok().map(|state| *state)
    }

    /// Waits until the controller has refused the broker for good, and tells why. The node must stop then.
    pub async fn refusal(&self) -> ControllerError {
        let mut state = self.shared.state.subscribe();
        loop {
            if let Some(refusal) = self.shared.refusal.get() {
                return refusal.clone();
            }
            if state.changed().await.is_err() {
                // The sender lives as long as `self`.
                return std::future::pending().await;
            }
        }
    }

    /// Says whether the broker as a whole cannot serve at present: it has replicas that it cannot serve, and the controller
    /// does not know them.
    pub fn set_wants_fence(&self, fence: bool) {
        self.shared.set_wants_fence(fence);
    }

    /// Asks the controller to let the broker go, and waits until it does: its leaderships have moved then, as far as
    /// somebody can take them. Returns at once if there is nothing to hand over.
    ///
    /// # Errors
    /// [`NotReleased`] if that takes longer than the deadline, or if no controller answers for as long as a session
    /// lasts: the quorum may have been stopped before. Asked again, it then says so at once. The broker may exit all the
    /// same: others then learn of it as of a crash.
    pub async fn shut_down(&self, deadline: Deadline) -> Result<(), NotReleased> {
        let is_new =
            self.shared.wishes.send_if_modified(|wishes| !std::mem::replace(&mut wishes.shutdown, true));
        if is_new {
            self.shared.heard.send_modify(|heard| heard.at = Instant::now());
        }
        let mut answers = self.shared.heard.subscribe();
        let done = |state: BrokerState| matches!(state.phase, BrokerPhase::Released | BrokerPhase::Refused);
        let abandoned = async {
            loop {
                let Heard { at, session } = *answers.borrow_and_update();
                // The sender lives as long as `self`: only time runs out.
                if !matches!(tokio::time::timeout_at(at + session, answers.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        let released = tokio::select! {
            biased;
            released = self.wait_until(done, deadline) => released.is_some(),
            () = abandoned => false,
        };
        if released { Ok(()) } else { Err(NotReleased { phase: self.state().phase }) }
    }

    /// Ends the session, released or not.
    pub async fn stop(&self) {
        let task = self.shared.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // It says that the task was stopped, which is what was wanted.
            let _ = task.await;
        }
    }
}

impl Shared {
    fn set_wants_fence(&self, fence: bool) {
        self.wishes.send_if_modified(|wishes| std::mem::replace(&mut wishes.fence, fence) != fence);
    }

    fn set(&self, phase: BrokerPhase, epoch: BrokerEpoch) {
        self.state.send_if_modified(|state| {
            let new = BrokerState { phase, epoch };
            let old = std::mem::replace(state, new);
            if old != new {
                info!(from = ?old.phase, to = ?phase, broker_epoch = %epoch, "broker state");
            }
            old != new
        });
    }
}

/// The task.
struct Life {
    state: Arc<Shared>,
    options: LifecycleOptions,
    wishes: watch::Receiver<Wishes>,
}

/// Longest pause of a broker that is not taken because its former process still has a session.
const DUPLICATE_PAUSE: Duration = Duration::from_millis(100);
/// How long a session lasts as long as no controller has said so.
const SESSION_DEFAULT: Duration = Duration::from_secs(3);
/// How long one search for a controller to register with lasts before it is said in the log.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

impl Life {
    async fn live(mut self) {
        let mut registrar = Registrar::new(self.options.facts.clone());
        loop {
            let previous = self.state.state.borrow().epoch;
            self.state.set(BrokerPhase::Starting, previous);
            let registered = match self.register(&mut registrar).await {
                Ok(Some(registered)) => registered,
                Ok(None) => return self.state.set(BrokerPhase::Released, previous),
                Err(refusal) => {
                    let cause = refusal.source().map(ToString::to_string).unwrap_or_default();
                    warn!(error = %refusal, cause, "the controller refuses this broker");
                    // Set once: the task ends here.
                    let _ = self.state.refusal.set(refusal);
                    return self.state.set(BrokerPhase::Refused, previous);
                }
            };
            let epoch = BrokerEpoch(registered.broker_epoch);
            self.state.set(BrokerPhase::Fenced, epoch);
            // Before anybody can report for the new epoch what would lift the fence again.
            if !self.options.incarnations.is_whole() {
                self.state.set_wants_fence(true);
            }
            self.options.incarnations.begin(epoch).await;
            let mut streams = SessionStreams::new(&self.options, &registered, self.wishes.clone());
            let heard = |phase, session| {
                self.state.heard.send_replace(Heard { at: Instant::now(), session });
                self.state.set(phase, epoch);
            };
            let end = streams.run(heard).await;
            self.options.lease.end();
            match end {
                SessionEnd::Released => return self.state.set(BrokerPhase::Released, epoch),
                SessionEnd::EpochRefused => {}
            }
        }
    }

    /// Registers, however long it takes; `None` if the broker wants to go instead.
    async fn register(
        &mut self,
        registrar: &mut Registrar,
    ) -> Result<Option<klamm_pb::controller::v1::Registered>, ControllerError> {
        let mut wishes = self.wishes.clone();
        tokio::select! {
            biased;
            // An error means that all handles are gone: nobody can wish for anything any more.
            Ok(_) = wishes.wait_for(|wishes| wishes.shutdown) => Ok(None),
            registered = registrar.register(&self.options.client) => registered.map(Some),
        }
    }
}

#[cfg(test)]
#[path = "lifecycle_test.rs"]
mod tests;
