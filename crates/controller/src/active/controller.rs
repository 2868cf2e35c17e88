//! The task: follows the leadership, takes requests, ticks.

use std::sync::Arc;
use std::time::Duration;

use klamm_control::{ConfigSchema, ControlConfig, Evidence};
use klamm_metadata::MetadataImage;
use klamm_rpc::{ControllerLocation, NodeAddress};
use klamm_types::{BrokerEpoch, BrokerId, Timestamp};
use openraft::Instant as _;
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::appender::Appender;
use super::handle::{Command, ControllerHandle, Mailboxes};
use super::leading::{Leading, OutOfStep, ProbeOrder};
use super::quorum::{QuorumView, VoterChange, broker_view, view};
use super::sessions::SessionEvent;
use crate::ControllerError;
use crate::clock::{Clock, wall_clock};
use crate::detection::{Probe, probe_dying};
use crate::raft::{LogId, Raft, ServerMetrics, WatchReceiver as _};
use crate::status::ControllerStatus;

/// How often silence is looked for; control wants it at least every 200 ms.
const TICK: Duration = Duration::from_millis(50);
/// Between the probes of a suspect that did not refuse the last ones.
const PROBE_AGAIN: Duration = Duration::from_millis(250);
/// How long a change of voters may hold up everything else.
const VOTER_CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings of the active controller.
#[derive(Clone)]
pub(crate) struct ActiveSettings {
    pub(crate) control: ControlConfig,
    pub(crate) schema: Arc<dyn ConfigSchema + Send + Sync>,
    pub(crate) inter_broker_listener: Option<String>,
    pub(crate) leader_rebalance_enabled: bool,
    pub(crate) leader_rebalance_interval: Duration,
    pub(crate) leaderless_election_interval: Duration,
    /// How long a leader counts as one that no quorum has acknowledged.
    pub(crate) lease: Duration,
}

/// The task's state.
pub(crate) struct ActiveController {
    pub(crate) raft: Raft,
    pub(crate) settings: ActiveSettings,
    pub(crate) clock: Clock,
    pub(crate) handle: ControllerHandle,
    pub(crate) committed: watch::Receiver<MetadataImage>,
    pub(crate) status: watch::Sender<ControllerStatus>,
    pub(crate) leading: Option<Leading>,
}

impl ActiveController {
    /// Runs until `stop` says so, or Raft has stopped.
    pub(crate) async fn run(mut self, mut mailboxes: Mailboxes, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.raft.server_metrics();
        let mut committed = self.committed.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => break,
                changed = committed.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let image = committed.borrow_and_update().clone();
                    self.on_committed(&image).await;
                }
                changed = leadership.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_leadership().await;
                }
                _ = tick.tick() => self.on_tick().await,
                Some(command) = mailboxes.lifecycle.recv() => self.on_command(command).await,
                Some(command) = mailboxes.changes.recv() => self.on_command(command).await,
            }
        }
        self.step_down();
        close(&mut mailboxes);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn on_committed(&mut self, image: &MetadataImage) {
        match &mut self.leading {
            Some(leading) => leading.release(image),
            None => self.follow_leadership().await,
        }
    }

    /// Takes over, or steps down, as Raft has it.
    async fn follow_leadership(&mut self) {
        let led_term = led_term(&self.raft.server_metrics().borrow_watched());
        if self.leading.as_ref().is_some_and(|leading| Some(leading.term) != led_term) {
            self.step_down();
        }
        if let (None, Some(term)) = (&self.leading, led_term) {
            self.try_take_over(term).await;
        }
    }

    /// Becomes active once everything up to the first entry of the own term, and all after it, is applied.
    async fn try_take_over(&mut self, term: u64) {
        let committed = self.committed.borrow().clone();
        let provenance = committed.provenance;
        #[cfg(not(mutant = "B42"))]
        if u64::try_from(provenance.last_epoch) != Ok(term) || !self.is_acknowledged() {
            return;
        }
        let Some(last) = last_log_id(&self.raft).await else { return };
        #[cfg(not(mutant = "B42"))]
        if last.leader_id.term != term || u64::try_from(provenance.last_offset.0) != Ok(last.index) {
            return;
        }
        let mut appender = Appender::new(self.raft.clone(), term, committed);
        if cfg!(mutant = "B42") {
            appender.skip_to(last);
        }
        let mut leading = Leading::new(term, appender, &self.settings.control, self.now());
        if leading.bootstrap(&self.settings.control).await.is_err() {
            return;
        }
        tracing::info!(term, end = %leading.appender.next_offset(), "this node is the active controller");
        let unfenced = leading.unfenced();
        self.leading = Some(leading);
        self.status.send_modify(|status| status.is_active = true);
        self.finish_voter_change().await;
        for (broker, epoch) in unfenced {
            self.on_evidence(broker, epoch, Evidence::StreamEnded).await;
        }
    }

    /// Whether a quorum has answered this leader within its lease.
    fn is_acknowledged(&self) -> bool {
        if cfg!(mutant = "B43") {
            return true;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.membership().voter_ids().all(|voter| voter == metrics.id);
        alone || metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() <= self.settings.lease)
    }

    fn step_down(&mut self) {
        if let Some(mut leading) = self.leading.take() {
            tracing::info!(term = leading.term, "this node is not the active controller any more");
            leading.parked.fail(&ControllerError::Interrupted);
            self.status.send_modify(|status| status.is_active = false);
        }
    }

    /// What follows if the log was not as `latest` had it: everything starts anew from what is committed.
    fn keep_step<T>(&mut self, outcome: Result<T, OutOfStep>) -> Option<T> {
        if outcome.is_err() {
            self.step_down();
        }
        outcome.ok()
    }

    async fn on_tick(&mut self) {
        if self.leading.is_some() && !self.is_acknowledged() {
            tracing::warn!("no quorum answers this leader");
            self.step_down();
        }
        if self.leading.is_none() {
            self.follow_leadership().await;
        }
        let now = self.now();
        let Some(leading) = &mut self.leading else { return };
        leading.caught_up.observe(&self.raft.metrics().borrow_watched(), wall_clock());
        let outcome = leading.tick(&self.settings, now).await;
        self.keep_step(outcome);
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Decide(request) => {
                let now = self.now();
                let Some(leading) = &mut self.leading else {
                    return request.refuse(self.not_active());
                };
                let outcome = leading.decide(request, &self.settings, now).await;
                if let Some(leading) = &mut self.leading {
                    leading.release(&self.committed.borrow());
                }
                self.keep_step(outcome);
            }
            Command::Session(event) => self.on_session(event).await,
            Command::Evidence(broker, epoch, evidence) => self.on_evidence(broker, epoch, evidence).await,
            Command::ChangeVoters(change, reply) => {
                let outcome = self.change_voters(change).await;
                let _ = reply.send(outcome);
            }
            Command::Describe(reply) => self.describe(reply),
        }
    }

    fn not_active(&self) -> ControllerError {
        ControllerError::NotActive { hint: leader_location(&self.raft.server_metrics().borrow_watched()) }
    }

    async fn on_session(&mut self, event: SessionEvent) {
        let Some(leading) = &mut self.leading else { return };
        match event {
            SessionEvent::Opened { broker, epoch, stream } => {
                leading.sessions.open(broker, epoch, stream);
                self.on_evidence(broker, epoch, Evidence::Answered).await;
            }
            SessionEvent::Ended { broker, epoch, stream } => {
                if leading.sessions.end(broker, epoch, stream) {
                    tracing::info!(%broker, %epoch, "a broker's session stream has ended");
                    self.on_evidence(broker, epoch, Evidence::StreamEnded).await;
                }
            }
        }
    }

    async fn on_evidence(&mut self, broker: BrokerId, epoch: BrokerEpoch, evidence: Evidence) {
        let now = self.now();
        let Some(leading) = &mut self.leading else { return };
        let outcome = leading.evidence(broker, epoch, evidence, &self.settings, now).await;
        if let Some(Some(order)) = self.keep_step(outcome) {
            self.probe(order);
        }
    }

    /// Probes beside the task, for as long as a session lasts: a refusal comes back as evidence. Answers are none, as
    /// the listener may be that of the next process; that the broker is back shows in its stream.
    fn probe(&self, order: ProbeOrder) {
        let handle = self.handle.clone();
        let wait = u64::try_from(order.at.millis_since(self.now())).unwrap_or(0);
        let lasts = Duration::from_millis(u64::from(self.settings.control.session_timeout_ms));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let end = tokio::time::Instant::now() + lasts;
            let mut found = probe_dying(&order.addresses).await;
            while found != Probe::Refused && tokio::time::Instant::now() < end {
                tracing::debug!(broker = %order.broker, ?found, "a suspect is probed again");
                if found == Probe::Silent {
                    let _ = handle.evidence(order.broker, order.epoch, Evidence::ProbeUnanswered);
                }
                tokio::time::sleep(PROBE_AGAIN).await;
                found = probe_dying(&order.addresses).await;
            }
            if found == Probe::Refused {
                // With a full mailbox the broker's silence will tell.
                let _ = handle.evidence(order.broker, order.epoch, Evidence::ProbeRefused);
            }
        });
    }

    /// Changes who votes. Nothing else is appended meanwhile, so that offsets stay known.
    async fn change_voters(&mut self, change: VoterChange) -> Result<(), ControllerError> {
        if self.leading.is_none() {
            return Err(self.not_active());
        }
        tracing::info!(?change, "changing who votes");
        let (change, retain) = change.into_change();
        let changed =
            tokio::time::timeout(VOTER_CHANGE_TIMEOUT, self.raft.change_membership(change, retain)).await;
        self.skip_quorum_entries().await;
        match changed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the voters stay as they are");
                Err(if error.fatal().is_some() { ControllerError::Stopped } else { ControllerError::Failed })
            }
            Err(_) => Err(ControllerError::Interrupted),
        }
    }

    /// Ends a change of voters that an earlier leader began.
    async fn finish_voter_change(&mut self) {
        let metrics = self.raft.server_metrics();
        let joint = metrics.borrow_watched().membership_config.membership().get_joint_config().clone();
        if joint.len() < 2 {
            return;
        }
        let Some(target) = joint.into_iter().next_back() else { return };
        tracing::info!(?target, "finishing a change of voters that was interrupted");
        let change = openraft::ChangeMembers::ReplaceAllVoters(target);
        let finished =
            tokio::time::timeout(VOTER_CHANGE_TIMEOUT, self.raft.change_membership(change, false)).await;
        if !matches!(finished, Ok(Ok(_))) {
            tracing::warn!("the change of voters is still under way");
        }
        self.skip_quorum_entries().await;
    }

    async fn skip_quorum_entries(&mut self) {
        let last = last_log_id(&self.raft).await;
        match (&mut self.leading, last) {
            (Some(leading), Some(last)) if last.leader_id.term == leading.term => {
                leading.appender.skip_to(last);
            }
            _ => self.step_down(),
        }
    }

    fn describe(&self, reply: oneshot::Sender<Result<QuorumView, ControllerError>>) {
        let answer = match &self.leading {
            None => Err(self.not_active()),
            Some(leading) => {
                let metrics = self.raft.metrics();
                let mut view = view(&metrics.borrow_watched(), &leading.caught_up, wall_clock());
                let end = view.high_watermark;
                let brokers = leading.appender.latest().cluster.brokers().map(|broker| broker.id);
                let voters: Vec<u64> = view.voters.iter().map(|voter| voter.node_id).collect();
                let observers =
                    brokers.filter(|broker| !voters.contains(&u64::from(broker.0.unsigned_abs())));
                view.observers.extend(observers.map(|broker| {
                    broker_view(broker, leading.liveness.applied(broker), leading.heard.of(broker), end)
                }));
                Ok(view)
            }
        };
        let _ = reply.send(answer);
    }
}

/// The term in which this node leads.
fn led_term(metrics: &ServerMetrics) -> Option<u64> {
    let leads = metrics.state == openraft::ServerState::Leader && metrics.current_leader == Some(metrics.id);
    leads.then_some(metrics.vote.leader_id.term)
}

/// Where the leader is, as far as Raft knows.
pub(crate) fn leader_location(metrics: &ServerMetrics) -> Option<ControllerLocation> {
    let id = metrics.current_leader?;
    let node = metrics.membership_config.membership().get_node(&id)?;
    let node_id = BrokerId(i32::try_from(id).ok()?);
    Some(ControllerLocation { node_id, address: NodeAddress::new(node.host.clone(), node.port) })
}

/// The end of the log, flushed or not; `None` if it is empty or Raft has stopped.
async fn last_log_id(raft: &Raft) -> Option<LogId> {
    raft.with_raft_state(|state| state.log_ids.last().copied()).await.ok().flatten()
}

/// Waits until `flag` is true, or nobody can set it any more.
pub(crate) async fn told(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// Refuses everything that still waits.
fn close(mailboxes: &mut Mailboxes) {
    for mailbox in [&mut mailboxes.lifecycle, &mut mailboxes.changes] {
        mailbox.close();
        while let Ok(command) = mailbox.try_recv() {
            match command {
                Command::Decide(request) => request.refuse(ControllerError::Stopped),
                Command::ChangeVoters(_, reply) => _ = reply.send(Err(ControllerError::Stopped)),
                Command::Describe(reply) => _ = reply.send(Err(ControllerError::Stopped)),
                Command::Session(_) | Command::Evidence(..) => {}
            }
        }
    }
}
