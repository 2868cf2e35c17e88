//! One replica of one partition: what `replica` decides, done.
//!
//! A [`PartitionHandle`] is a lock around the [`Replica`], its log and those who wait for it. Callers run it inline:
//! they hold the lock for a step and for the writes of the log that it asks for, never for a sync or another node.
//! Syncs are asked of the log's flusher and come back as events; fetches and proposals leave by the
//! [`ports`](FollowerFetches).
//!
//! Readers take no lock: they look at the published [`Role`] and at the log's own published offsets.
//!
//! # Invariants
//! - Each write of the log ends, and its outcome is fed back, before the next event (the contract of `replica`).
//! - Every append that was accepted is answered once: by the replica, or with the partition's end.
//! - After a panic in a step, the partition serves nothing any more: what it knows may be half of the truth.

mod append;
mod closest;
mod deletion;
mod describe;
mod effects;
mod errors;
mod following;
mod lag;
mod lease;
mod offsets;
mod ports;
mod read;
mod role;
mod waiters;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use klamm_log::{FlushListener, FlushQueue, Log};
use klamm_replica::{
    AppendTicket, BrokerStates, DeletionTicket, Durability, Effect, Effects, Event, LogPosition,
    LogPositionError, Registration, Replica, ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp, TopicId, TopicPartition};

use crate::clock::Clock;
use crate::metrics::BrokerMetrics;
use crate::replica_manager::Wakeups;

pub use append::{AppendOptions, Appended, FirstSequence, PendingAppend};
pub use deletion::PendingDeletion;
pub use describe::PartitionDescription;
pub use errors::{AppendFailure, DeletionFailure, NotServing, ReadFailure};
pub use klamm_log::AppendOrigin;
pub use klamm_replica::{
    Acks, AppendError, DeletionError, FetchBounds, FetchId, FetchRefusal, FollowerFetch, IsrProposal,
};
pub use lag::{FollowerView, LeaderView, ReplicaLag};
pub use lease::SessionLease;
pub use offsets::{ListedOffset, OffsetQuery};
pub use ports::{FetchOutcome, FollowerFetches, IsrProposals};
pub use read::{PartitionRead, ReadFrom, ReadIsolation, ReadRequest};
pub use role::Role;
pub use waiters::{Interest, WakeUp, Wakes, Watch};

use effects::StepIo;
use waiters::Waiters;

/// What all partitions of a broker share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// This broker.
    pub node: BrokerId,
    /// The broker's clocks.
    pub clock: Clock,
    /// The broker's session with the controller.
    pub lease: SessionLease,
    /// Where fetches of followers go.
    pub fetches: Arc<dyn FollowerFetches>,
    /// Where proposals of in-sync sets go.
    pub proposals: Arc<dyn IsrProposals>,
    /// What is counted.
    pub metrics: Arc<BrokerMetrics>,
}

/// One replica of one partition on this broker. Cheap to clone; it stays usable, though useless, after the partition
/// was taken away.
#[derive(Clone)]
pub struct PartitionHandle {
    shared: Arc<Shared>,
}

struct Shared {
    topic: TopicId,
    partition: TopicPartition,
    log: Arc<Log>,
    flush_queue: FlushQueue,
    around: Surroundings,
    wakeups: Wakeups,
    role: ArcSwap<Role>,
    /// It has refused an append, as the disk is full, and nobody was told yet.
    lacks_room: AtomicBool,
    waiters: Arc<Waiters>,
    state: Mutex<State>,
}

/// What only the holder of the partition's lock sees.
struct State {
    replica: Replica,
    effects: Effects,
    /// What is left to be done of a step; empty between steps.
    queue: VecDeque<Effect>,
    appends: HashMap<AppendTicket, append::Waiting, foldhash::fast::FixedState>,
    deletions: HashMap<DeletionTicket, deletion::Waiting, foldhash::fast::FixedState>,
    /// The last ticket given out.
    ticket: u64,
    /// When the timer is set to, if it is.
    wakeup: Option<Timestamp>,
    /// When the replica was last ticked.
    ticked_at: Timestamp,
    /// The settings last told to the replica.
    config: ReplicaConfig,
    /// The partition is no longer this broker's.
    closed: bool,
}

/// A [`PartitionHandle`] that does not keep the partition alive.
#[derive(Clone)]
pub(crate) struct WeakPartition(std::sync::Weak<Shared>);

impl WeakPartition {
    pub(crate) fn upgrade(&self) -> Option<PartitionHandle> {
        self.0.upgrade().map(|shared| PartitionHandle { shared })
    }
}

impl fmt::Debug for WeakPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakPartition")
    }
}

impl fmt::Debug for PartitionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionHandle({} of {})", self.shared.partition, self.shared.topic)
    }
}

/// The lock of a partition whose step panicked.
#[derive(Clone, Copy, Debug)]
struct Poisoned;

impl PartitionHandle {
    /// The replica whose log is `log`, in this incarnation of the broker. It has no role before its first
    /// registration.
    ///
    /// # Errors
    /// [`LogPositionError`] if the log contradicts itself.
    pub(crate) fn open(
        topic: TopicId,
        log: Arc<Log>,
        flush_queue: FlushQueue,
        setup: Setup,
    ) -> Result<Self, LogPositionError> {
        let position = position_of(&log)?;
        let Setup { around, wakeups, broker_epoch, config } = setup;
        let replica = Replica::new(around.node, broker_epoch, config, position);
        let shared = Arc::new(Shared {
            topic,
            partition: log.partition().clone(),
            role: ArcSwap::from_pointee(Role::unassigned()),
            lacks_room: AtomicBool::new(false),
            waiters: Arc::default(),
            state: Mutex::new(State {
                replica,
                effects: Effects::new(),
                queue: VecDeque::new(),
                appends: HashMap::default(),
                deletions: HashMap::default(),
                ticket: 0,
                wakeup: None,
                ticked_at: Timestamp::NONE,
                config,
                closed: false,
            }),
            flush_queue,
            around,
            wakeups,
            log,
        });
        let weak = Arc::downgrade(&shared);
        let listener = move |_: Offset| {
            if let Some(shared) = weak.upgrade() {
                Self { shared }.on_flushed();
            }
        };
        shared.log.set_flush_listener(FlushListener(Arc::new(listener)));
        Ok(Self { shared })
    }

    /// The topic's identity.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.shared.topic
    }

    /// The topic's name and the partition's number.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.shared.partition
    }

    pub(crate) fn downgrade(&self) -> WeakPartition {
        WeakPartition(Arc::downgrade(&self.shared))
    }

    /// The log, for what changes nothing.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.shared.log
    }

    /// Who leads, and in which epoch, as of the last step.
    #[must_use]
    pub fn role(&self) -> Arc<Role> {
        self.shared.role.load_full()
    }

    /// Has `wake_up` woken whenever something happens that `interest` names, until the returned [`Watch`] is dropped.
    /// Watch first, then look, then sleep.
    pub fn watch(&self, interest: Interest, wake_up: &WakeUp) -> Watch {
        self.watch_with(interest, wake_up.as_wakes())
    }

    /// As [`watch`](Self::watch), for one who sleeps for many partitions and wants to know which of them it was.
    pub fn watch_with(&self, interest: Interest, wakes: Arc<dyn Wakes>) -> Watch {
        self.shared.waiters.watch(interest, wakes)
    }

    /// The metadata has a new image in which the partition or a broker of it changed. `config` is that image's.
    pub(crate) fn on_image(&self, config: ReplicaConfig, registration: Registration, brokers: BrokerStates) {
        let Ok(mut state) = self.enter() else { return };
        if state.closed {
            return;
        }
        let config = (state.config != config).then_some(config);
        state.config = config.unwrap_or(state.config);
        let event = Event::RegistrationChanged { config, registration, brokers };
        self.run(&mut state, event, &mut StepIo::default());
        self.shared.log.set_retention(state.replica.is_leader());
        self.adopt_log_start(&mut state);
        self.leave(state);
    }

    /// The timer went off.
    pub(crate) fn on_wakeup(&self, at: Timestamp) {
        let Ok(mut state) = self.enter() else { return };
        if state.wakeup == Some(at) {
            state.wakeup = None;
        }
        state.ticked_at = self.now();
        self.run(&mut state, Event::Tick, &mut StepIo::default());
        self.leave(state);
    }

    /// Time has passed: takes note of what retention removed, and asks again for a flush that a full disk may have
    /// refused.
    pub(crate) fn tend(&self) {
        let Ok(mut state) = self.enter() else { return };
        let log = &self.shared.log;
        let waits = log.flushed_end_offset() < log.log_end_offset();
        if waits && state.config.durability == Durability::Flushed && !state.closed {
            self.shared.flush_queue.request(log);
        }
        self.adopt_log_start(&mut state);
        self.leave(state);
    }

    /// Takes note that an append was refused as the disk is full; whether that was known.
    fn lack_room(&self) -> bool {
        self.shared.lacks_room.swap(true, Ordering::Relaxed)
    }

    /// Whether an append was refused since the last [`Self::take_lack_of_room`], as the disk is full.
    pub(crate) fn lacks_room(&self) -> bool {
        self.shared.lacks_room.load(Ordering::Relaxed)
    }

    /// The same, and forgets it: the next append tells.
    pub(crate) fn take_lack_of_room(&self) -> bool {
        self.shared.lacks_room.swap(false, Ordering::Relaxed)
    }

    /// The broker is registered anew, as the incarnation `epoch`: what the replica knew of its role is void. Whoever
    /// waits is told that the leadership is lost.
    pub(crate) fn renew(&self, epoch: BrokerEpoch) {
        let Ok(mut state) = self.enter() else { return };
        if state.replica.is_failed() || state.replica.broker_epoch() == epoch {
            return;
        }
        self.take_leave(&mut state, None);
        match position_of(&self.shared.log) {
            Ok(position) => {
                state.replica = Replica::new(self.shared.around.node, epoch, state.config, position);
                self.publish_role(&state);
            }
            Err(error) => {
                tracing::error!(partition = %self.shared.partition, %error, "the log contradicts itself");
                self.run(&mut state, Event::LogFailed, &mut StepIo::default());
            }
        }
        self.leave(state);
    }

    /// The partition is no longer this broker's; `registration` is what the metadata says of it now, if anything.
    pub(crate) fn close(&self, registration: Option<Registration>) {
        let Ok(mut state) = self.enter() else { return };
        state.closed = true;
        self.take_leave(&mut state, registration);
        self.leave(state);
    }

    /// Gives up the role, whatever it is, and answers whoever waits.
    fn take_leave(&self, state: &mut State, registration: Option<Registration>) {
        let Some(known) = state.replica.registration() else { return };
        let node = self.shared.around.node;
        let registration = registration.filter(|new| !new.replicas.contains(&node)).unwrap_or_else(|| {
            let mut gone = known.clone();
            gone.replicas.retain(|replica| *replica != node);
            gone.in_sync_replicas.remove(&node);
            gone.leader = None;
            gone
        });
        let brokers = BrokerStates::new();
        let event = Event::RegistrationChanged { config: None, registration, brokers };
        self.run(state, event, &mut StepIo::default());
    }

    /// The log's directory has failed: whoever waits is told, and the replica plays no part until the broker starts
    /// anew.
    pub(crate) fn on_log_failed(&self) {
        let Ok(mut state) = self.enter() else { return };
        self.run(&mut state, Event::LogFailed, &mut StepIo::default());
        self.leave(state);
    }

    /// More of the log is on disk.
    fn on_flushed(&self) {
        let Ok(mut state) = self.enter() else { return };
        // Looked up here, under the lock under which alone the log is truncated: what the flusher saw may be gone.
        let mut token = state.replica.flush_token();
        token.end_offset = self.shared.log.flushed_end_offset();
        self.run(&mut state, Event::Flushed(token), &mut StepIo::default());
        self.adopt_log_start(&mut state);
        self.leave(state);
    }

    /// Takes the lock, unless a step has panicked: then nobody is served any more, and who waits is told so.
    fn enter(&self) -> Result<MutexGuard<'_, State>, Poisoned> {
        self.shared.state.lock().map_err(|poisoned| {
            let mut state = poisoned.into_inner();
            state.appends.clear();
            state.deletions.clear();
            let failed = Role { is_failed: true, is_leader: false, ..Role::clone(&self.shared.role.load()) };
            self.shared.role.store(Arc::new(failed));
            Poisoned
        })
    }

    /// Sets the timer, and lets go of the lock.
    fn leave(&self, mut state: MutexGuard<'_, State>) {
        if let Some(at) = state.replica.next_wakeup(state.ticked_at)
            && state.wakeup.is_none_or(|set| at < set)
            && !state.closed
        {
            state.wakeup = Some(at);
            self.shared.wakeups.set(at, self);
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.around.clock.now()
    }
}

/// What a replica is opened with, beside its log.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) around: Surroundings,
    pub(crate) wakeups: Wakeups,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) config: ReplicaConfig,
}

fn position_of(log: &Log) -> Result<LogPosition, LogPositionError> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    LogPosition::recovered(start, log.high_watermark(), end, log.leader_epochs())?
        .with_flushed_end(log.flushed_end_offset())
}
