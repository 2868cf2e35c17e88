//! One controller: its tasks, its services, its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_log::LogDir;
use klamm_metadata::MetadataImage;
use klamm_rpc::{Deadline, LineBudget, NodeIdentity};
use openraft::{Config, Instant as _, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::active::{ActiveController, ActiveSettings, ControllerHandle};
use crate::clock::Clock;
use crate::detection::{DeadLeader, LeaderWatch};
use crate::error::StartError;
use crate::metrics::{ControllerMetrics, ElectionCounter};
use crate::options::{ControllerOptions, RaftTiming};
use crate::parts::Parts;
use crate::raft::transport::{CallTimeouts, RaftTransport};
use crate::raft::{
    ControllerNode, LogStore, LogStoreOptions, MetadataStateMachine, Raft, SnapshotStore, WatchReceiver as _,
    wait_until,
};
use crate::service::{self, Contact, ServiceParts};
use crate::standing::{self, Enlisted, Enlistment, Standing};
use crate::status::{ControllerStatus, QuorumRole};

/// How long the next founder waits for the one before to found the quorum.
const FOUNDING_STAGGER: Duration = Duration::from_millis(200);
/// Between two lines about a voter of another cluster.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(30);
/// How long a leader that shuts down waits for somebody to take over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);

/// A running controller. Dropping it ends its tasks at once, as a crash would; [`shutdown`](Self::shutdown) is the
/// polite way.
#[derive(Debug)]
pub struct Controller {
    raft: Raft,
    routes: Routes,
    status: watch::Receiver<ControllerStatus>,
    metrics: ControllerMetrics,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Who has been silent for longer does not count as there.
    lease: Duration,
}

impl Controller {
    /// Opens the metadata log, recovers what was committed, joins the quorum and founds it if it is new.
    ///
    /// It returns before anybody leads: [`status`](Self::status) tells more, and [`routes`](Self::routes) must be served
    /// soon. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: ControllerOptions) -> Result<Self, StartError> {
        options.validate()?;
        let (store, snapshots) = open(&options).await?;
        let reader = store.reader();
        let (standing_sender, standing) = standing::of(&store);
        let lost = store.lost_record()?;
        let (machine, committed, metrics) = state_machine(&snapshots);
        let identity = identity(&options);
        let dead_leader = Arc::new(DeadLeader::default());
        let transport = transport(&options, &identity, &dead_leader);
        let this = raft_id(options.node_id.0);
        let raft = start_raft(&options, standing.get(), transport.clone(), (store, machine)).await?;
        let (status_sender, status) = watch::channel(ControllerStatus::NEW);
        let (stop, stopped) = watch::channel(false);
        let (handle, mailboxes) = ControllerHandle::new();
        let active = ActiveController {
            raft: raft.clone(),
            settings: active_settings(&options),
            clock: Clock::start(),
            handle: handle.clone(),
            committed: committed.clone(),
            status: status_sender.clone(),
            leading: None,
        };
        let watch_task = LeaderWatch {
            raft: raft.clone(),
            transport: transport.clone(),
            dead_leader: Arc::clone(&dead_leader),
            this,
            standing: standing.clone(),
        };
        let enlistment = Enlistment {
            raft: raft.clone(),
            transport: transport.clone(),
            reader: reader.clone(),
            lost,
            founders: founders(&options),
            this,
            may_be_new: options.may_be_new,
            standing: standing_sender,
            status: status_sender.clone(),
        };
        let parts = Parts { status: status_sender.clone() };
        let tasks = vec![
            parts.spawn("the active controller", active.run(mailboxes, stopped.clone())),
            parts.spawn("the watch on the leader", watch_task.run()),
            parts.spawn("the enlistment", enlist(enlistment, status_sender.clone())),
            parts
                .spawn("the quorum's id", settle(identity.clone(), committed.clone(), status_sender.clone())),
            parts.spawn("the status", report(raft.clone(), committed.clone(), status_sender.clone())),
            parts.spawn("the start", become_ready(raft.clone(), status_sender, metrics.elections.clone())),
        ];
        let routes = service::routes(ServiceParts {
            raft: raft.clone(),
            identity,
            transport,
            handle,
            control: options.control.clone(),
            committed,
            reader,
            snapshots,
            status: status.clone(),
            stopped,
            dead_leader,
            contact: Arc::new(Contact::default()),
            standing,
            lease: options.timing.election_timeout_max() * 2,
        });
        Ok(Self { raft, routes, status, metrics, stop, tasks, lease: options.timing.election_timeout_max() })
    }

    /// The services of this controller, to be served on the controller listener.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// What this controller is, at every moment.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ControllerStatus> {
        self.status.clone()
    }

    /// What this controller counts, and the cluster in numbers.
    #[must_use]
    pub fn metrics(&self) -> ControllerMetrics {
        self.metrics.clone()
    }

    /// Hands the leadership to another voter if it has it, and stops. What is committed here is on the disk on return.
    /// After `deadline` it does not wait for others any more.
    pub async fn shutdown(mut self, deadline: Deadline) {
        self.hand_over(deadline).await;
        self.stop.send_replace(true);
        // It ends by itself, with an answer for everybody who waits.
        let active = self.tasks.remove(0);
        let _ = tokio::time::timeout_at(deadline.instant(), active).await;
        let _ = self.raft.shutdown().await;
    }

    async fn hand_over(&self, deadline: Deadline) {
        let target = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let others = membership.voter_ids().filter(|voter| *voter != metrics.id);
            // Whoever is far behind, or has not been heard from, would only let the quorum wait.
            let fitness = |voter: &u64| {
                let matched = metrics.replication.as_ref().and_then(|r| r.get(voter).copied().flatten());
                let heard = metrics.heartbeat.as_ref().and_then(|h| h.get(voter).copied().flatten());
                (heard.is_some_and(|heard| heard.elapsed() <= self.lease), matched)
            };
            metrics.state.is_leader().then(|| others.max_by_key(fitness)).flatten()
        };
        let Some(target) = target else { return };
        if self.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
        let mut metrics = self.raft.server_metrics();
        let handed_over = wait_until(&mut metrics, |metrics| !metrics.state.is_leader());
        let patience = Deadline::after(TRANSFER_TIMEOUT).min(deadline);
        let _ = tokio::time::timeout_at(patience.instant(), handed_over).await;
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.tasks.iter().for_each(JoinHandle::abort);
        // Raft ends when its core sees that, or with the runtime.
        let raft = self.raft.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

/// Opens what lies on the disk, on a thread that may wait for it.
async fn open(options: &ControllerOptions) -> Result<(LogStore, Arc<SnapshotStore>), StartError> {
    let (log_dir, segment_bytes) = (Arc::clone(&options.log_dir), options.segment_bytes);
    let opened = tokio::task::spawn_blocking(move || open_store(log_dir, segment_bytes)).await;
    opened.map_err(|error| StartError::Task { reason: error.to_string() })?
}

fn open_store(
    log_dir: Arc<LogDir>,
    segment_bytes: u32,
) -> Result<(LogStore, Arc<SnapshotStore>), StartError> {
    let (store, report) = LogStore::open(LogStoreOptions { segment_bytes, log_dir: Arc::clone(&log_dir) })?;
    tracing::info!(?report, "the metadata log is open");
    if report.cut_may_have_been_flushed {
        tracing::warn!(
            bytes = report.truncated_bytes,
            "the end of the metadata log was damaged and is cut off: this controller votes again when the others have said what they have"
        );
    }
    let snapshots = SnapshotStore::open(log_dir, store.directory())?;
    Ok((store, Arc::new(snapshots)))
}

async fn start_raft(
    options: &ControllerOptions,
    standing: Standing,
    transport: RaftTransport,
    (store, machine): (LogStore, MetadataStateMachine),
) -> Result<Raft, StartError> {
    let (this, config) = (raft_id(options.node_id.0), Arc::new(raft_config(options, standing)?));
    let raft = Raft::new(this, config, transport, store, machine).await;
    raft.map_err(|error| StartError::Raft { reason: error.to_string() })
}

/// The state machine, the image that it has come to, and what it counts.
fn state_machine(
    snapshots: &Arc<SnapshotStore>,
) -> (MetadataStateMachine, watch::Receiver<MetadataImage>, ControllerMetrics) {
    let (sender, committed) = watch::channel(MetadataImage::empty());
    let elections = Arc::new(ElectionCounter::default());
    let machine = MetadataStateMachine::new(Arc::clone(snapshots), sender, Arc::clone(&elections));
    (machine, committed.clone(), ControllerMetrics { committed, elections })
}

fn identity(options: &ControllerOptions) -> NodeIdentity {
    NodeIdentity::new(&options.cluster_id, options.node_id).of_quorum(options.quorum.clone())
}

/// A node id as Raft has it. Options with a negative one do not get here.
fn raft_id(node_id: i32) -> u64 {
    u64::from(node_id.unsigned_abs())
}

fn founders(options: &ControllerOptions) -> BTreeMap<u64, ControllerNode> {
    let founders = options.voters.iter().map(|voter| {
        let node = ControllerNode {
            host: voter.address.host.clone(),
            port: voter.address.port,
            // Founders are known by what the configuration says of them, which is the same on every node.
            directory_id: [0; 16],
        };
        (raft_id(voter.id.0), node)
    });
    founders.collect()
}

fn transport(
    options: &ControllerOptions,
    identity: &NodeIdentity,
    dead_leader: &Arc<DeadLeader>,
) -> RaftTransport {
    RaftTransport {
        identity: identity.clone(),
        channels: options.channels.clone(),
        timeouts: call_timeouts(options.timing),
        dead_leader: Arc::clone(dead_leader),
        foreign: Arc::new(LineBudget::new(FOREIGN_INTERVAL)),
    }
}

fn call_timeouts(timing: RaftTiming) -> CallTimeouts {
    let election = timing.election_timeout_max();
    CallTimeouts { short: election / 2, append: election * 4 }
}

fn active_settings(options: &ControllerOptions) -> ActiveSettings {
    ActiveSettings {
        control: options.control.clone(),
        schema: Arc::clone(&options.schema),
        inter_broker_listener: options.inter_broker_listener.clone(),
        leader_rebalance_enabled: options.leader_rebalance_enabled,
        leader_rebalance_interval: options.leader_rebalance_interval,
        leaderless_election_interval: options.leaderless_election_interval,
        lease: options.timing.election_timeout_max() * 2,
    }
}

fn raft_config(options: &ControllerOptions, standing: Standing) -> Result<Config, StartError> {
    let RaftTiming { heartbeat_interval_ms, election_timeout_min_ms, election_timeout_max_ms } =
        options.timing;
    let config = Config {
        cluster_name: options.cluster_id.clone(),
        heartbeat_interval: u64::from(heartbeat_interval_ms),
        election_timeout_min: u64::from(election_timeout_min_ms),
        election_timeout_max: u64::from(election_timeout_max_ms),
        enable_elect: standing.may_stand(),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // A follower that comes back with less than it had acknowledged is sent everything again. To go on with what is
        // remembered of it would count records that nobody has.
        allow_log_reversion: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.snapshot_entries / 2,
        replication_lag_threshold: options.snapshot_entries.saturating_mul(2).max(1_000),
        max_payload_entries: 256,
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Raft { reason: error.to_string() })
}

/// Finds out whether this node has forgotten anything, and founds the quorum if it is new.
async fn enlist(enlistment: Enlistment, status: watch::Sender<ControllerStatus>) {
    let (raft, founders, this) = (enlistment.raft.clone(), enlistment.founders.clone(), enlistment.this);
    match enlistment.run().await {
        Ok(Enlisted::Founder) => found(raft, founders, this).await,
        Ok(Enlisted::Member) => {}
        Err(error) => status.send_modify(|status| {
            status.failure.get_or_insert_with(|| error.to_string());
        }),
    }
}

/// Founds the quorum with the same voters as every other founder does. A node that has heard of a quorum already leaves
/// it at that.
async fn found(raft: Raft, founders: BTreeMap<u64, ControllerNode>, this: u64) {
    let rank = founders.keys().filter(|founder| **founder < this).count();
    // The first in the order usually has done it by then, and stands for election unopposed.
    tokio::time::sleep(FOUNDING_STAGGER * u32::try_from(rank).unwrap_or(u32::MAX)).await;
    if matches!(raft.is_initialized().await, Ok(false))
        && let Err(error) = raft.initialize(founders).await
    {
        tracing::info!(%error, "the quorum was founded by another node");
    }
}

/// Learns from what is committed which quorum this is. A node of another one must not go on.
async fn settle(
    identity: NodeIdentity,
    mut committed: watch::Receiver<MetadataImage>,
    status: watch::Sender<ControllerStatus>,
) {
    // An error means that the state machine is gone, which is noticed elsewhere.
    let Ok(quorum) = committed.wait_for(|image| image.quorum_id.is_some()).await.map(|image| image.quorum_id)
    else {
        return;
    };
    if let Some(Err(foreign)) = quorum.map(|quorum| identity.quorum().settle(quorum)) {
        status.send_modify(|status| {
            status.failure.get_or_insert_with(|| foreign.to_string());
        });
    }
}

/// Keeps the status up to date, until Raft stops.
async fn report(
    raft: Raft,
    mut committed: watch::Receiver<MetadataImage>,
    status: watch::Sender<ControllerStatus>,
) {
    let mut metrics = raft.metrics();
    loop {
        let failure = {
            let server = raft.server_metrics();
            let server = server.borrow_watched();
            let failure = metrics.borrow_and_update().running_state.as_ref().err().map(ToString::to_string);
            let next = ControllerStatus {
                role: role(&server),
                leader: crate::active::leader_location(&server),
                term: server.vote.leader_id.term,
                committed_end_offset: committed.borrow_and_update().provenance.last_offset.next(),
                failure: failure.clone(),
                ..ControllerStatus::NEW
            };
            status.send_if_modified(|known| {
                let failure = next.failure.clone().or_else(|| known.failure.clone());
                let next = ControllerStatus {
                    is_active: known.is_active,
                    is_ready: known.is_ready,
                    is_enlisted: known.is_enlisted,
                    awaited: known.awaited.clone(),
                    failure,
                    ..next
                };
                let differs = *known != next;
                *known = next;
                differs
            });
            failure
        };
        if failure.is_some() {
            return;
        }
        let goes_on = tokio::select! {
            changed = metrics.changed() => changed.is_ok(),
            changed = committed.changed() => changed.is_ok(),
        };
        if !goes_on {
            status.send_modify(|status| {
                status.failure.get_or_insert_with(|| "raft has stopped".to_owned());
            });
            return;
        }
    }
}

fn role(server: &crate::raft::ServerMetrics) -> QuorumRole {
    match server.state {
        openraft::ServerState::Leader => QuorumRole::Leader,
        openraft::ServerState::Follower => QuorumRole::Follower,
        openraft::ServerState::Candidate => QuorumRole::Candidate,
        openraft::ServerState::Learner | openraft::ServerState::Shutdown => QuorumRole::Observer,
    }
}

/// Marks the controller ready once it has all that was committed when it started.
async fn become_ready(raft: Raft, status: watch::Sender<ControllerStatus>, elections: Arc<ElectionCounter>) {
    if raft.wait_for_recovery(None).await.is_ok() {
        elections.begin();
        status.send_modify(|status| status.is_ready = true);
    }
}
