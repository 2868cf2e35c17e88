//! Incremental fetch sessions (KIP-227): what a consumer asked for last, so that it need not say it again, and what
//! it was told last, so that it is told only what changed.
//!
//! A client could open sessions without end, so their number and their memory are bounded. When there is no room, a
//! session that nobody has used for two minutes makes way, or else the smallest that is older than that, if it is
//! smaller than the new one. Otherwise the client gets no session, and goes on with full requests.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_types::TopicId;
use tokio::time::Instant;

mod session;

use session::Session;

/// "No session" on the wire.
pub(crate) const NO_SESSION: i32 = 0;
/// The epoch of a request that wants a new session.
const EPOCH_INITIAL: i32 = 0;
/// The epoch of a request that wants no session (any more).
const EPOCH_FINAL: i32 = -1;

/// How a client names a topic: by name before version 13, by id since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    /// As the client wrote it; it need not be a valid name.
    Name(Arc<str>),
    /// As the client wrote it; it may be no topic's.
    Id(TopicId),
}

/// A partition as a client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    /// The topic.
    pub(crate) topic: TopicKey,
    /// Its number; any at all.
    pub(crate) partition: i32,
}

impl PartitionKey {
    /// Bytes that a session takes for it, roughly.
    fn cost(&self) -> usize {
        const FIXED: usize = 320;
        FIXED
            + match &self.topic {
                TopicKey::Name(name) => name.len(),
                TopicKey::Id(_) => 0,
            }
    }
}

/// What a client wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchWish {
    /// The leader epoch that the client knows, or -1.
    pub(crate) current_leader_epoch: i32,
    /// The first offset it wants.
    pub(crate) fetch_offset: i64,
    /// The epoch of the last record it has, or -1.
    pub(crate) last_fetched_epoch: i32,
    /// The most bytes it wants from this partition.
    pub(crate) bytes_max: i32,
}

/// The part of a request that speaks of sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRequest {
    /// The session, 0 for none.
    pub(crate) id: i32,
    /// The epoch: 0 opens a session, -1 closes it, others continue it.
    pub(crate) epoch: i32,
    /// Whether the request names topics by id.
    pub(crate) by_id: bool,
}

/// Bounds of [`FetchSessions`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// How many sessions there may be (`max.incremental.fetch.session.cache.slots`).
    pub(crate) sessions_max: usize,
    /// How many bytes they may take together, roughly.
    pub(crate) bytes_max: usize,
    /// How long a session is safe from others, from its creation and after each use.
    pub(crate) protected_for: Duration,
}

/// How the answer to a request is made.
#[derive(Debug)]
pub(crate) enum FetchContext {
    /// Everything asked for is answered, and no session comes of it.
    Sessionless,
    /// Everything asked for is answered, and a session is opened if there is room.
    Opening {
        /// Whether the client names topics by id.
        by_id: bool,
    },
    /// Only what changed is answered.
    Incremental {
        /// The session's id.
        id: i32,
        /// The session.
        session: Arc<Mutex<Session>>,
        /// Its epoch once this request was taken; another by the time of the answer means that the client has given
        /// this request up.
        epoch: i32,
    },
}

/// What is asked for, and how the answer is made.
#[derive(Debug)]
pub(crate) struct FetchPlan {
    /// How the answer is made.
    pub(crate) context: FetchContext,
    /// All that is asked for, by this request or those before it.
    pub(crate) wishes: Vec<(PartitionKey, FetchWish)>,
}

/// The answer for one partition.
pub(crate) type Fetched = (PartitionKey, PartitionData);

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    limits: SessionLimits,
    bytes: AtomicUsize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<i32, Entry>,
    ids: RandomState,
    ids_drawn: u64,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Mutex<Session>>,
    created: Instant,
    last_used: Instant,
}

impl FetchSessions {
    /// No sessions.
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { limits, bytes: AtomicUsize::new(0), cache: Mutex::default() }
    }

    /// How many sessions there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.cache().entries.len()
    }

    /// Takes a request: finds its session and brings it up to date.
    ///
    /// # Errors
    /// The code that the whole request is answered with.
    pub(crate) fn begin(
        &self,
        request: SessionRequest,
        wishes: Vec<(PartitionKey, FetchWish)>,
        forgotten: &[PartitionKey],
        now: Instant,
    ) -> Result<FetchPlan, ErrorCode> {
        let SessionRequest { id, epoch, by_id } = request;
        if epoch == EPOCH_INITIAL || epoch == EPOCH_FINAL {
            if id != NO_SESSION {
                self.remove(id);
            }
            let context = if epoch == EPOCH_FINAL {
                FetchContext::Sessionless
            } else {
                FetchContext::Opening { by_id }
            };
            return Ok(FetchPlan { context, wishes });
        }
        let session = self.touch(id, now).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let (plan, is_over) = {
            let mut state = lock(&session);
            if state.is_retired() {
                return Err(ErrorCode::FetchSessionIdNotFound);
            }
            if state.epoch() != epoch {
                return Err(ErrorCode::InvalidFetchSessionEpoch);
            }
            if state.by_id() != by_id {
                return Err(ErrorCode::FetchSessionTopicIdError);
            }
            let cost_before = state.cost();
            state.update(wishes, forgotten);
            let room = self.recharge(cost_before, state.cost());
            let context =
                FetchContext::Incremental { id, session: Arc::clone(&session), epoch: state.epoch() };
            (FetchPlan { context, wishes: state.wishes() }, !room || state.is_empty())
        };
        if !is_over {
            return Ok(plan);
        }
        // A session that has nothing left, or has grown past all bounds, ends: the client asks in full again.
        self.remove(id);
        if plan.wishes.is_empty() {
            return Ok(FetchPlan { context: FetchContext::Sessionless, wishes: Vec::new() });
        }
        Err(ErrorCode::FetchSessionIdNotFound)
    }

    /// Makes the answer: drops what the client knows already, and opens a session if it is to.
    ///
    /// # Errors
    /// The code that the whole request is answered with: the session has moved on meanwhile.
    pub(crate) fn finish(
        &self,
        context: &FetchContext,
        wishes: &[(PartitionKey, FetchWish)],
        fetched: Vec<Fetched>,
        now: Instant,
    ) -> Result<(i32, Vec<Fetched>), ErrorCode> {
        match context {
            FetchContext::Sessionless => Ok((NO_SESSION, fetched)),
            FetchContext::Opening { by_id } => {
                let id = self.open(Session::new(*by_id, wishes, &fetched), now);
                Ok((id.unwrap_or(NO_SESSION), fetched))
            }
            FetchContext::Incremental { id, session, epoch } => {
                let mut state = lock(session);
                if state.epoch() != *epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                let changed = fetched.into_iter().filter(|(key, data)| state.is_news(key, data)).collect();
                Ok((*id, changed))
            }
        }
    }

    /// Gives the session a place and a number, `None` if there is no room.
    fn open(&self, session: Session, now: Instant) -> Option<i32> {
        let cost = session.cost();
        if session.is_empty() || cost > self.limits.bytes_max {
            return None;
        }
        let mut cache = self.cache();
        while cache.entries.len() >= self.limits.sessions_max
            || self.bytes.load(Ordering::Relaxed).saturating_add(cost) > self.limits.bytes_max
        {
            let victim = cache.victim(cost, now, self.limits.protected_for)?;
            self.forget(&mut cache, victim);
        }
        let id = cache.draw_id();
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        let entry = Entry { session: Arc::new(Mutex::new(session)), created: now, last_used: now };
        cache.entries.insert(id, entry);
        Some(id)
    }

    fn touch(&self, id: i32, now: Instant) -> Option<Arc<Mutex<Session>>> {
        let mut cache = self.cache();
        let entry = cache.entries.get_mut(&id)?;
        entry.last_used = now;
        Some(Arc::clone(&entry.session))
    }

    fn remove(&self, id: i32) {
        let mut cache = self.cache();
        self.forget(&mut cache, id);
    }

    fn forget(&self, cache: &mut Cache, id: i32) {
        if let Some(entry) = cache.entries.remove(&id) {
            // A request that holds the session meanwhile may not grow it any more.
            let cost = lock(&entry.session).retire();
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    /// Accounts for a session that has changed; tells whether all sessions are within their bounds.
    fn recharge(&self, before: usize, after: usize) -> bool {
        if after >= before {
            let grown = after - before;
            let total = self.bytes.fetch_add(grown, Ordering::Relaxed).saturating_add(grown);
            grown == 0 || total <= self.limits.bytes_max
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
            true
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// The session that makes way for one of `cost` bytes.
    fn victim(&self, cost: usize, now: Instant, protected_for: Duration) -> Option<i32> {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used);
        if let Some((id, entry)) = oldest
            && now.duration_since(entry.last_used) > protected_for
        {
            return Some(*id);
        }
        let open_to_all =
            self.entries.iter().filter(|(_, entry)| now.duration_since(entry.created) > protected_for);
        let sizes = open_to_all.map(|(id, entry)| (lock(&entry.session).cost(), *id));
        sizes.min().filter(|(size, _)| *size < cost).map(|(_, id)| id)
    }

    /// A positive number that no session has, and that other clients cannot foresee.
    fn draw_id(&mut self) -> i32 {
        loop {
            self.ids_drawn = self.ids_drawn.wrapping_add(1);
            let bytes = self.ids.hash_one(self.ids_drawn).to_be_bytes();
            let [a, b, c, d, ..] = bytes;
            let id = i32::from_be_bytes([a, b, c, d]) & i32::MAX;
            if id != NO_SESSION && !self.entries.contains_key(&id) {
                return id;
            }
        }
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "fetch_session_test.rs"]
mod tests;
