//! What an active controller holds, from when it takes over until it is deposed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use klamm_control::{
    ClusterControl, ControlConfig, ControlResult, Evidence, FeatureControl, LeaderBalancer, Liveness,
    LogReports, Randomness as _, ReplicationControl, Suspicion,
};
use klamm_metadata::{MetadataImage, MetadataRecord};
use klamm_rpc::NodeAddress;
use klamm_types::{BrokerEpoch, BrokerId, QuorumId, Timestamp};

use super::appender::{Appender, NotAppended};
use super::controller::ActiveSettings;
use super::handle::{Decided, Desk, Request};
use super::parked::Parked;
use super::quorum::CaughtUp;
use super::sessions::{LastHeard, Sessions};
use crate::ControllerError;
use crate::clock::SystemRandomness;

/// The state of one leadership.
pub(crate) struct Leading {
    pub(crate) term: u64,
    pub(crate) appender: Appender,
    pub(crate) parked: Parked,
    pub(crate) sessions: Sessions,
    pub(crate) liveness: Liveness,
    pub(crate) heard: LastHeard,
    log_reports: LogReports,
    pub(crate) caught_up: CaughtUp,
    balancer: LeaderBalancer,
    last_balanced: Timestamp,
    last_elected: Timestamp,
    randomness: SystemRandomness,
}

/// `latest` cannot be trusted any more: the leadership has to be given up, or taken up anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfStep;

/// When a broker that looked dead among too many is looked at again: the brake allows a minority in each second.
const BRAKED_MS: i64 = 1_000;

/// A broker that is to be probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProbeOrder {
    pub(crate) broker: BrokerId,
    pub(crate) epoch: BrokerEpoch,
    pub(crate) addresses: Vec<NodeAddress>,
    pub(crate) at: Timestamp,
}

impl Leading {
    pub(crate) fn new(term: u64, appender: Appender, control: &ControlConfig, now: Timestamp) -> Self {
        let liveness = Liveness::take_over(appender.latest(), control, now);
        Self {
            term,
            appender,
            parked: Parked::default(),
            sessions: Sessions::default(),
            liveness,
            heard: LastHeard::default(),
            log_reports: LogReports::default(),
            caught_up: CaughtUp::default(),
            balancer: LeaderBalancer::new(),
            last_balanced: now,
            last_elected: now,
            randomness: SystemRandomness,
        }
    }

    /// Whether everything in `committed` is of this leadership, so that what was read from its prefix is committed.
    pub(crate) fn has_committed(&self, committed: &MetadataImage) -> bool {
        u64::try_from(committed.provenance.last_epoch) == Ok(self.term)
    }

    /// Lets the answers go that stand on nothing but what is committed.
    pub(crate) fn release(&mut self, committed: &MetadataImage) {
        if self.has_committed(committed) {
            self.parked.release(committed.provenance.last_offset);
        }
    }

    /// The first facts of a new cluster, and what later binaries add to them.
    pub(crate) async fn bootstrap(&mut self, control: &ControlConfig) -> Result<(), OutOfStep> {
        let (high, low) = (self.randomness.next_u64(), self.randomness.next_u64());
        let drawn = QuorumId((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        let result = FeatureControl::new(self.appender.latest(), control).bootstrap(drawn);
        self.carry_out(result).await.map(|_| ())
    }

    /// Decides on a request and appends what was decided; the answer is parked.
    pub(crate) async fn decide(
        &mut self,
        request: Box<dyn Request>,
        settings: &ActiveSettings,
        now: Timestamp,
    ) -> Result<(), OutOfStep> {
        let Some(Decided { entries, answer }) = self.consider(request, settings, now) else { return Ok(()) };
        match self.append(&entries).await {
            Ok(()) => {
                self.parked.park(self.appender.last_offset(), answer);
                Ok(())
            }
            Err((error, step)) => {
                answer(Err(error));
                step
            }
        }
    }

    /// The decision; `None` if it broke an invariant, which changed nothing, and has answered its request.
    fn consider(
        &mut self,
        request: Box<dyn Request>,
        settings: &ActiveSettings,
        now: Timestamp,
    ) -> Option<Decided> {
        let mut desk = Desk {
            image: self.appender.latest(),
            config: &settings.control,
            schema: settings.schema.as_ref(),
            liveness: &mut self.liveness,
            heard: &mut self.heard,
            log_reports: &mut self.log_reports,
            randomness: &mut self.randomness,
            next_offset: self.appender.next_offset(),
            now,
        };
        let decided = catch_unwind(AssertUnwindSafe(|| request.decide(&mut desk)));
        if decided.is_err() {
            tracing::error!("a decision failed, and changed nothing");
        }
        decided.ok()
    }

    /// Appends what nobody waits for; returns the answer if all of it is in the log.
    async fn carry_out<T>(&mut self, result: ControlResult<T>) -> Result<Option<T>, OutOfStep> {
        let (entries, response) = result.into_entries();
        match self.append(&entries).await {
            Ok(()) => Ok(Some(response)),
            Err((error, step)) => {
                tracing::warn!(%error, "a decision was not appended");
                step.map(|()| None)
            }
        }
    }

    async fn append(
        &mut self,
        entries: &[Vec<MetadataRecord>],
    ) -> Result<(), (ControllerError, Result<(), OutOfStep>)> {
        let encoded = Appender::encode(entries).map_err(|error| (error, Ok(())))?;
        for (i, (records, encoded)) in entries.iter().zip(encoded).enumerate() {
            self.appender.append(records, encoded).await.map_err(|error| match error {
                NotAppended::Refused if i == 0 => (ControllerError::NotActive { hint: None }, Ok(())),
                NotAppended::Refused => (ControllerError::Interrupted, Ok(())),
                NotAppended::OutOfStep => (ControllerError::Interrupted, Err(OutOfStep)),
            })?;
        }
        Ok(())
    }

    fn cluster<'a>(appender: &'a Appender, control: &'a ControlConfig, now: Timestamp) -> ClusterControl<'a> {
        ClusterControl::new(appender.latest(), control, appender.next_offset(), now)
    }

    /// What time alone brings about: silent brokers are fenced, leaderships move home, leaders are found.
    pub(crate) async fn tick(&mut self, settings: &ActiveSettings, now: Timestamp) -> Result<(), OutOfStep> {
        let control = &settings.control;
        let silent = Self::cluster(&self.appender, control, now).fence_silent(&mut self.liveness);
        for broker in self.carry_out(silent).await?.into_iter().flatten() {
            tracing::warn!(%broker, "fenced: it has been silent for longer than its session");
        }
        if settings.leader_rebalance_enabled
            && passed(&mut self.last_balanced, now, settings.leader_rebalance_interval)
        {
            let replication = ReplicationControl::new(self.appender.latest(), control);
            let moved = self.balancer.tick(&replication, control, now);
            if let Some(count @ 1..) = self.carry_out(moved).await? {
                tracing::info!(count, "moved leaderships to their preferred replicas");
            }
        }
        if passed(&mut self.last_elected, now, settings.leaderless_election_interval) {
            let elected = ReplicationControl::new(self.appender.latest(), control).elect_leaderless();
            if let Some(count @ 1..) = self.carry_out(elected).await? {
                tracing::info!(count, "elected leaders where nobody led");
            }
        }
        Ok(())
    }

    /// Takes a piece of evidence: a dead broker is fenced, a suspect is to be probed.
    pub(crate) async fn evidence(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        evidence: Evidence,
        settings: &ActiveSettings,
        now: Timestamp,
    ) -> Result<Option<ProbeOrder>, OutOfStep> {
        let image = self.appender.latest();
        match self.liveness.on_evidence(image, broker, epoch, evidence, now) {
            Suspicion::None => {}
            Suspicion::Braked => {
                tracing::warn!(%broker, "looks dead, but too many do: it is looked at again in a second");
                return Ok(self.probe_order(broker, epoch, now.plus_millis(BRAKED_MS), settings));
            }
            Suspicion::Probe { at } => return Ok(self.probe_order(broker, epoch, at, settings)),
            Suspicion::Dead => {
                let fenced =
                    Self::cluster(&self.appender, &settings.control, now).fence(&self.liveness, broker);
                let is_news = !fenced.records.is_empty();
                if self.carry_out(fenced).await?.is_some() && is_news {
                    tracing::warn!(%broker, ?evidence, "fenced: its process is gone");
                }
            }
        }
        Ok(None)
    }

    /// To look where other brokers would. What clients outside are told may lead elsewhere from here: in containers whose ports
    /// are published on one machine, to this very node.
    fn probe_order(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        at: Timestamp,
        settings: &ActiveSettings,
    ) -> Option<ProbeOrder> {
        let registration = self.appender.latest().cluster.broker(broker)?;
        let name = settings.inter_broker_listener.as_deref();
        let addresses = match name.and_then(|name| registration.endpoint(name)) {
            Some(endpoint) => vec![NodeAddress::new(endpoint.host.clone(), endpoint.port)],
            None => {
                let endpoints = registration.endpoints.iter();
                endpoints.map(|endpoint| NodeAddress::new(endpoint.host.clone(), endpoint.port)).collect()
            }
        };
        Some(ProbeOrder { broker, epoch, addresses, at })
    }

    /// Every broker that should be alive. None of them has a stream to this controller yet.
    pub(crate) fn unfenced(&self) -> Vec<(BrokerId, BrokerEpoch)> {
        let brokers = self.appender.latest().cluster.brokers().filter(|broker| !broker.fenced);
        brokers.map(|broker| (broker.id, broker.epoch)).collect()
    }
}

/// Whether `interval` has passed since `last`, which then moves on.
fn passed(last: &mut Timestamp, now: Timestamp, interval: std::time::Duration) -> bool {
    let due = u128::try_from(now.millis_since(*last)).is_ok_and(|millis| millis >= interval.as_millis());
    if due {
        *last = now;
    }
    due
}
