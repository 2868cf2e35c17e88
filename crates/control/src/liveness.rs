//! Who is believed to be alive, and on what grounds (FAULTS 5.3).
//!
//! Nothing here is needed for safety: a fence is a record, and takes effect by its epochs. A wrong belief costs one
//! election.

use std::collections::{BTreeMap, VecDeque};

use klamm_metadata::MetadataImage;
use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp};

use crate::ControlConfig;

/// Something that speaks for a broker's death, or against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// The broker's session stream with this controller has ended.
    StreamEnded,
    /// A probe found nobody listening, or no route.
    ProbeRefused,
    /// A probe got no answer, or its name is nobody's.
    ProbeUnanswered,
    /// Another broker's fetch stream from it has ended.
    PeerStreamEnded,
    /// The broker's stream is back. An answered probe is none: the next process may listen on the port.
    Answered,
}

/// What a piece of evidence comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a broker found dead must be fenced, and a suspected one probed"]
pub enum Suspicion {
    /// Nothing follows: the broker is unknown, or under another epoch, or cleared.
    None,
    /// The body is to probe the broker, not before this time.
    Probe {
        /// When.
        at: Timestamp,
    },
    /// The broker is dead: fence it.
    Dead,
    /// It looks dead, but too many do at once: only its silence counts.
    Braked,
}

/// Time between two probes of a suspect.
const PROBE_INTERVAL_MS: i64 = 10;
/// The window in which evidence may fence only a minority.
const BRAKE_WINDOW_MS: i64 = 1_000;
/// How long a peer's report corroborates.
const PEER_REPORT_MS: i64 = 1_000;
/// A broker's session timeout is at least this often its longest recent pause.
const PAUSE_FACTOR: i64 = 4;
/// For how long a broker is a newcomer. Clients that met it dead may not try it again for ten seconds (librdkafka's
/// `reconnect.backoff.max.ms`), and then some.
const NEWCOMER_MS: i64 = 15_000;
/// How long a pause is remembered, in buckets of a minute.
const PAUSE_MINUTES: usize = 10;

/// What the active controller has seen of the brokers since it became active. All of it is soft state: a new
/// active controller grants everybody a new session. Times are of one monotonic clock that also counts suspension.
#[derive(Clone, Debug)]
pub struct Liveness {
    config: ControlConfig,
    sessions: BTreeMap<BrokerId, Session>,
    fenced_on_evidence: VecDeque<Timestamp>,
    last_tick: Timestamp,
}

#[derive(Clone, Debug)]
struct Session {
    epoch: BrokerEpoch,
    /// When it registered, if this controller saw it.
    registered: Option<Timestamp>,
    last_heartbeat: Timestamp,
    applied: Offset,
    pauses: VecDeque<(i64, i64)>,
    stream_ended: bool,
    refused_probes: u32,
    unanswered: bool,
    last_refusal: Option<Timestamp>,
    peer_report: Option<Timestamp>,
    dead: bool,
    /// The metadata that everybody must have applied before the broker may go; set while it shuts down.
    shutdown_offset: Option<Offset>,
}

impl Session {
    fn new(epoch: BrokerEpoch, now: Timestamp) -> Self {
        Self {
            epoch,
            registered: None,
            last_heartbeat: now,
            applied: Offset(-1),
            pauses: VecDeque::new(),
            stream_ended: false,
            refused_probes: 0,
            unanswered: false,
            last_refusal: None,
            peer_report: None,
            dead: false,
            shutdown_offset: None,
        }
    }

    fn clear_suspicion(&mut self) {
        self.stream_ended = false;
        self.refused_probes = 0;
        self.unanswered = false;
        self.last_refusal = None;
        self.peer_report = None;
    }

    /// Remembers a pause of `millis` that ended at `now`: the longest of each of the last ten minutes.
    fn note_pause(&mut self, now: Timestamp, millis: i64) {
        let minute = now.0.div_euclid(60_000);
        match self.pauses.back_mut() {
            Some((last, longest)) if *last == minute => *longest = millis.max(*longest),
            _ => self.pauses.push_back((minute, millis)),
        }
        if self.pauses.len() > PAUSE_MINUTES {
            self.pauses.pop_front();
        }
    }

    fn longest_pause(&self, now: Timestamp) -> i64 {
        let oldest = now.0.div_euclid(60_000) - PAUSE_MINUTES as i64;
        let recent = self.pauses.iter().filter(|(minute, _)| *minute > oldest);
        recent.map(|(_, millis)| *millis).max().unwrap_or(0)
    }
}

impl Liveness {
    /// What a controller knows that becomes active at `now`: every registered broker that is not fenced gets a
    /// whole session. Evidence that it holds is to be given afterwards, and counts at once.
    #[must_use]
    pub fn take_over(image: &MetadataImage, config: &ControlConfig, now: Timestamp) -> Self {
        let unfenced = image.cluster.brokers().filter(|broker| !broker.fenced);
        let sessions = unfenced.map(|broker| (broker.id, Session::new(broker.epoch, now))).collect();
        Self { config: config.clone(), sessions, fenced_on_evidence: VecDeque::new(), last_tick: now }
    }

    /// A broker has registered under `epoch`: it gets a session.
    pub(crate) fn on_registered(&mut self, broker: BrokerId, epoch: BrokerEpoch, now: Timestamp) {
        let pauses = self.sessions.remove(&broker).map(|session| session.pauses).unwrap_or_default();
        self.sessions.insert(broker, Session { pauses, registered: Some(now), ..Session::new(epoch, now) });
    }

    /// A broker has left, or may leave: nothing is expected of it any more.
    pub(crate) fn end_session(&mut self, broker: BrokerId) {
        self.sessions.remove(&broker);
    }

    /// A heartbeat came from `broker`, which has applied the metadata up to `applied`.
    pub(crate) fn on_heartbeat(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        applied: Offset,
        now: Timestamp,
    ) {
        let interval = i64::from(self.config.heartbeat_interval_ms);
        let session = self.sessions.entry(broker).or_insert_with(|| Session::new(epoch, now));
        if session.epoch != epoch {
            *session = Session::new(epoch, now);
        }
        let gap = now.millis_since(session.last_heartbeat);
        if gap > interval {
            session.note_pause(now, gap);
        }
        session.last_heartbeat = session.last_heartbeat.max(now);
        session.applied.advance_to(applied);
        session.dead = false;
        session.clear_suspicion();
    }

    /// Takes a piece of evidence about the process that registered under `epoch`.
    pub fn on_evidence(
        &mut self,
        image: &MetadataImage,
        broker: BrokerId,
        epoch: BrokerEpoch,
        evidence: Evidence,
        now: Timestamp,
    ) -> Suspicion {
        let current = image.cluster.broker(broker).is_some_and(|known| known.epoch == epoch);
        let Some(session) =
            self.sessions.get_mut(&broker).filter(|session| current && session.epoch == epoch)
        else {
            return Suspicion::None;
        };
        let reported = |session: &Session| {
            session.peer_report.is_some_and(|report| now.millis_since(report) <= PEER_REPORT_MS)
        };
        match evidence {
            Evidence::Answered => {
                session.clear_suspicion();
                return Suspicion::None;
            }
            Evidence::PeerStreamEnded => {
                session.peer_report = Some(now);
                if !session.stream_ended || (session.refused_probes == 0 && !session.unanswered) {
                    return Suspicion::None;
                }
            }
            // Silence alone may be the network's. That two peers saw their streams closed, which takes word from its side,
            // and that nobody answers now, is a process that went with its host's address.
            Evidence::ProbeUnanswered => {
                session.unanswered |= session.stream_ended;
                if !session.stream_ended || !reported(session) {
                    return Suspicion::None;
                }
            }
            Evidence::StreamEnded => {
                session.stream_ended = true;
                return Suspicion::Probe { at: now };
            }
            Evidence::ProbeRefused => {
                // A probe that nobody's ended stream led to proves nothing: a broker may have closed its listener.
                if !session.stream_ended {
                    return Suspicion::None;
                }
                let early =
                    session.last_refusal.is_some_and(|last| now.millis_since(last) < PROBE_INTERVAL_MS);
                if !early {
                    session.refused_probes += 1;
                    session.last_refusal = Some(now);
                }
                if session.refused_probes < 2 && !reported(session) {
                    return Suspicion::Probe { at: now.plus_millis(PROBE_INTERVAL_MS) };
                }
            }
        }
        self.judge(image, broker, now)
    }

    /// The brake: within a second evidence fences at most a minority of those that were active, though always one.
    fn judge(&mut self, image: &MetadataImage, broker: BrokerId, now: Timestamp) -> Suspicion {
        while self.fenced_on_evidence.front().is_some_and(|at| now.millis_since(*at) >= BRAKE_WINDOW_MS) {
            self.fenced_on_evidence.pop_front();
        }
        let Some(session) = self.sessions.get_mut(&broker) else { return Suspicion::None };
        if session.dead {
            return Suspicion::Dead;
        }
        if image.cluster.broker(broker).is_none_or(|known| known.fenced) {
            // Nothing to fence; but the next process with this id need not wait for the session to end.
            session.dead = true;
            return Suspicion::None;
        }
        let fenced = self.fenced_on_evidence.len();
        let active = image.cluster.brokers().filter(|broker| !broker.fenced).count() + fenced;
        let minority = (active.saturating_sub(1) / 2).max(1);
        if fenced >= minority {
            return Suspicion::Braked;
        }
        session.dead = true;
        self.fenced_on_evidence.push_back(now);
        Suspicion::Dead
    }

    /// The brokers that are not fenced and have been silent for longer than their session allows, in order. To be
    /// called every `tick_gap_max_ms` or more often: a longer gap was this process's own pause, in which nobody could
    /// have been heard, and every session is extended by it.
    pub fn silent(&mut self, image: &MetadataImage, now: Timestamp) -> Vec<BrokerId> {
        let gap = now.millis_since(self.last_tick);
        if gap > i64::from(self.config.tick_gap_max_ms) {
            for session in self.sessions.values_mut() {
                session.last_heartbeat = session.last_heartbeat.plus_millis(gap).min(now);
            }
        }
        self.last_tick = self.last_tick.max(now);
        for broker in image.cluster.brokers().filter(|broker| !broker.fenced) {
            self.sessions.entry(broker.id).or_insert_with(|| Session::new(broker.epoch, now));
        }
        let unfenced = image.cluster.brokers().filter(|broker| !broker.fenced).map(|broker| broker.id);
        unfenced.filter(|broker| !self.has_session(*broker, now)).collect()
    }

    /// Whether `broker` was heard within its session and is not known to be dead.
    #[must_use]
    pub fn has_session(&self, broker: BrokerId, now: Timestamp) -> bool {
        let Some(session) = self.sessions.get(&broker) else { return false };
        let silence = now.millis_since(session.last_heartbeat);
        !session.dead && silence <= i64::from(self.session_timeout_ms(broker, now))
    }

    /// The brokers that registered a moment ago, as far as this controller saw it, in order.
    #[must_use]
    pub fn newcomers(&self, now: Timestamp) -> Vec<BrokerId> {
        let is_newcomer =
            |session: &Session| session.registered.is_some_and(|at| now.millis_since(at) < NEWCOMER_MS);
        self.sessions.iter().filter(|(_, session)| is_newcomer(session)).map(|(broker, _)| *broker).collect()
    }

    /// The session timeout of `broker`: the configured one, or four times its longest pause in the last ten minutes,
    /// up to the configured maximum.
    #[must_use]
    pub fn session_timeout_ms(&self, broker: BrokerId, now: Timestamp) -> u32 {
        let pause = self.sessions.get(&broker).map_or(0, |session| session.longest_pause(now));
        let raised = u32::try_from(pause.saturating_mul(PAUSE_FACTOR)).unwrap_or(u32::MAX);
        raised.clamp(self.config.session_timeout_ms, self.config.session_timeout_max_ms)
    }

    /// How far `broker` has applied the metadata, as it last said.
    #[must_use]
    pub fn applied(&self, broker: BrokerId) -> Option<Offset> {
        self.sessions.get(&broker).map(|session| session.applied)
    }

    pub(crate) fn shutdown_offset(&self, broker: BrokerId) -> Option<Offset> {
        self.sessions.get(&broker)?.shutdown_offset
    }

    /// Remembers what everybody must have applied before `broker` may go; it only grows.
    pub(crate) fn require_for_shutdown(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.shutdown_offset = Some(session.shutdown_offset.map_or(offset, |known| known.max(offset)));
        }
    }
}
