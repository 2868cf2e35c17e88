use std::sync::Mutex;

use klamm_metadata::{DirectoryId, Endpoint, IncarnationId, SecurityProtocol};
use klamm_pb::controller::v1 as pb;
use klamm_types::{Offset, Timestamp};

use super::*;
use crate::controller_client::fake::{FakeController, PATIENCE, Script, client_of};
use crate::log_dirs::RecoveryVerdict;

/// Notes the incarnations that it hears of.
#[derive(Clone, Debug, Default)]
struct Noted {
    epochs: Arc<Mutex<Vec<BrokerEpoch>>>,
    /// Something cannot be served.
    is_impaired: bool,
}

impl Incarnations for Noted {
    fn begin(&self, epoch: BrokerEpoch) -> BoxFuture<'_, ()> {
        self.epochs.lock().unwrap().push(epoch);
        Box::pin(std::future::ready(()))
    }

    fn is_whole(&self) -> bool {
        !self.is_impaired
    }
}

struct Broker {
    lifecycle: BrokerLifecycle,
    lease: SessionLease,
    clock: Clock,
    cache: Arc<MetadataCache>,
    begun: Noted,
}

impl Broker {
    fn start(nodes: &[&FakeController]) -> Self {
        Self::start_with(nodes, Noted::default())
    }

    fn start_with(nodes: &[&FakeController], begun: Noted) -> Self {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "b1".to_owned(),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        };
        let facts = RegistrationFacts {
            incarnation: IncarnationId([1; 16]),
            directory: DirectoryId([2; 16]),
            endpoints: vec![endpoint],
            rack: Some("r".to_owned()),
            features: Vec::new(),
            cordoned: false,
            marker_epoch: Some(BrokerEpoch(9)),
            verdict: RecoveryVerdict::CrashedDurable,
        };
        let (clock, lease) = (Clock::start(), SessionLease::expired());
        let cache = Arc::new(MetadataCache::new());
        let lifecycle = BrokerLifecycle::start(LifecycleOptions {
            facts,
            client: client_of(nodes),
            cache: Arc::clone(&cache),
            incarnations: Box::new(begun.clone()),
            clock,
            lease: lease.clone(),
        });
        Self { lifecycle, lease, clock, cache, begun }
    }

    async fn until(&self, phase: BrokerPhase) -> BrokerState {
        let reached = self.lifecycle.wait_until(|state| state.phase == phase, soon()).await;
        reached.unwrap_or_else(|| panic!("{:?} instead of {phase:?}", self.lifecycle.state()))
    }

    async fn until_epoch(&self, epoch: i64) -> BrokerState {
        let epoch = BrokerEpoch(epoch);
        let active = |state: BrokerState| state.epoch == epoch && state.phase == BrokerPhase::Active;
        self.lifecycle.wait_until(active, soon()).await.unwrap()
    }
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

fn fenced() -> pb::BrokerStanding {
    pb::BrokerStanding { fenced: true, session_timeout_ms: 3_000, ..Default::default() }
}

#[tokio::test]
async fn a_broker_registers_and_serves_once_it_is_unfenced() {
    let controller = FakeController::start(Script { standing: fenced(), ..Script::default() }).await;
    let broker = Broker::start(&[&controller]);
    let state = broker.until(BrokerPhase::Fenced).await;
    assert_eq!(state.epoch, BrokerEpoch(100));
    controller.wait_for(|script| script.heartbeats().count() > 2).await;
    assert_eq!(*broker.begun.epochs.lock().unwrap(), [BrokerEpoch(100)]);
    assert_eq!(broker.lease.until(), Timestamp(i64::MIN));
    let script = controller.script();
    let request = script.registrations().next().unwrap();
    assert_eq!(request.verdict(), pb::RecoveryVerdict::CrashedDurable);
    assert_eq!((request.marker_epoch, request.rack.as_deref()), (Some(9), Some("r")));
    let before = broker.clock.now();
    controller.tell(|script| script.standing.fenced = false);
    broker.until(BrokerPhase::Active).await;
    assert!(broker.lease.until() >= before.plus_millis(2_900));
    assert!(broker.lease.until() <= broker.clock.now().plus_millis(3_000));
    broker.lifecycle.stop().await;
}

#[tokio::test]
async fn a_broker_that_cannot_serve_everything_asks_to_stay_fenced_from_its_first_heartbeat_on() {
    let controller = FakeController::start(Script::default()).await;
    let broker = Broker::start_with(&[&controller], Noted { is_impaired: true, ..Noted::default() });
    let script = controller.wait_for(|script| script.heartbeats().count() > 2).await;
    assert!(script.heartbeats().all(|heartbeat| heartbeat.want_fence));
    broker.lifecycle.set_wants_fence(false);
    controller.wait_for(|script| script.heartbeats().any(|heartbeat| !heartbeat.want_fence)).await;
}

#[tokio::test]
async fn heartbeats_carry_what_is_applied_as_soon_as_it_is() {
    let script = Script { heartbeat_interval_ms: 60_000, ..Script::default() };
    let controller = FakeController::start(script).await;
    let broker = Broker::start(&[&controller]);
    broker.until(BrokerPhase::Active).await;
    broker.cache.on_applied(Offset(42));
    let says = |script: &Script| script.heartbeats().any(|heartbeat| heartbeat.applied_offset == 42);
    controller.wait_for(says).await;
    broker.lifecycle.set_wants_fence(true);
    controller.wait_for(|script| script.heartbeats().any(|heartbeat| heartbeat.want_fence)).await;
}

#[tokio::test]
async fn the_session_goes_on_with_another_controller_when_one_dies() {
    let first = FakeController::start(Script::default()).await;
    let passive = Script { active: false, hint: Some(first.location()), ..Script::default() };
    let second = FakeController::start(passive).await;
    let broker = Broker::start(&[&second, &first]);
    broker.until(BrokerPhase::Active).await;
    first.kill().await;
    second.tell(|script| (script.active, script.hint) = (true, None));
    let asked = second.wait_for(|script| script.heartbeats().any(|beat| beat.sequence > 0)).await;
    assert!(asked.heartbeats().all(|heartbeat| heartbeat.broker_epoch == 100));
    // The registration is the cluster's, not the controller's.
    assert!(asked.registrations().count() <= 1);
    let until = broker.lease.until();
    second.wait_for(|script| script.heartbeats().count() >= asked.heartbeats().count() + 3).await;
    assert!(broker.lease.until() > until);
    assert_eq!(broker.lifecycle.state().phase, BrokerPhase::Active);
}

#[tokio::test]
async fn a_controller_that_falls_silent_is_left_for_another() {
    let first = FakeController::start(Script::default()).await;
    let second = FakeController::start(Script::default()).await;
    let broker = Broker::start(&[&first, &second]);
    broker.until(BrokerPhase::Active).await;
    first.tell(|script| script.mute = true);
    second.wait_for(|script| script.heartbeats().count() > 0).await;
    // It did not take the whole session to find out.
    assert!(broker.lease.until() > broker.clock.now());
}

#[tokio::test]
async fn without_answers_the_lease_runs_out_by_itself() {
    let standing = pb::BrokerStanding { session_timeout_ms: 100, ..Default::default() };
    let controller = FakeController::start(Script { standing, ..Script::default() }).await;
    let broker = Broker::start(&[&controller]);
    broker.until(BrokerPhase::Active).await;
    controller.tell(|script| script.mute = true);
    let count = controller.script().heartbeats().count();
    controller.wait_for(|script| script.heartbeats().count() > count + 1).await;
    let last_moment = broker.clock.now().plus_millis(100);
    tokio::time::sleep_until(broker.clock.instant(last_moment)).await;
    assert!(broker.lease.until() <= last_moment);
}

#[tokio::test]
async fn a_refused_epoch_ends_the_lease_and_is_replaced_by_a_new_registration() {
    let controller = FakeController::start(Script::default()).await;
    let broker = Broker::start(&[&controller]);
    broker.until_epoch(100).await;
    controller.tell(|script| {
        script.heartbeat_refusal = Some(pb::RefusalCode::StaleBrokerEpoch);
        script.refusal = Some(pb::RefusalCode::DuplicateBrokerRegistration);
    });
    broker.until(BrokerPhase::Starting).await;
    assert_eq!(broker.lease.until(), Timestamp(i64::MIN));
    // A former process may still be in session: it is asked again.
    controller.wait_for(|script| script.registrations().count() > 2).await;
    controller.tell(|script| {
        script.heartbeat_refusal = None;
        script.refusal = None;
        script.broker_epoch = 200;
    });
    broker.until_epoch(200).await;
    assert_eq!(*broker.begun.epochs.lock().unwrap(), [BrokerEpoch(100), BrokerEpoch(200)]);
    // What it found at its start is history: since then it has lost nothing.
    let script = controller.script();
    let last = script.registrations().next_back().unwrap();
    assert_eq!((last.verdict(), last.marker_epoch), (pb::RecoveryVerdict::Clean, None));
}

#[tokio::test]
async fn a_broker_that_is_never_taken_says_why() {
    let refusal = Some(pb::RefusalCode::UnsupportedVersion);
    let controller = FakeController::start(Script { refusal, ..Script::default() }).await;
    let broker = Broker::start(&[&controller]);
    let refusal = tokio::time::timeout(PATIENCE, broker.lifecycle.refusal()).await.unwrap();
    let code = pb::RefusalCode::UnsupportedVersion;
    assert_eq!(refusal, ControllerError::Refused { code, message: "as told".to_owned() });
    broker.until(BrokerPhase::Refused).await;
}

#[tokio::test]
async fn a_broker_goes_when_the_controller_lets_it() {
    let controller = FakeController::start(Script::default()).await;
    let broker = Broker::start(&[&controller]);
    broker.until(BrokerPhase::Active).await;
    let short = Deadline::after(Duration::from_millis(100));
    broker.lifecycle.shut_down(short).await.unwrap_err();
    broker.until(BrokerPhase::ShuttingDown).await;
    // It serves what nobody else can.
    assert!(broker.lease.until() > broker.clock.now());
    controller.tell(|script| script.standing.may_shut_down = true);
    broker.lifecycle.shut_down(soon()).await.unwrap();
    assert_eq!(broker.lifecycle.state().phase, BrokerPhase::Released);
    assert_eq!(broker.lease.until(), Timestamp(i64::MIN));
    broker.lifecycle.stop().await;
}

#[tokio::test]
async fn a_broker_does_not_wait_for_a_quorum_that_is_gone() {
    let standing = pb::BrokerStanding { session_timeout_ms: 1_000, ..Default::default() };
    let controller = FakeController::start(Script { standing, ..Script::default() }).await;
    let broker = Broker::start(&[&controller]);
    broker.until(BrokerPhase::Active).await;
    controller.kill().await;
    let started = broker.clock.now();
    broker.lifecycle.shut_down(Deadline::after(Duration::from_secs(3_600))).await.unwrap_err();
    assert!(broker.clock.now().millis_since(started) >= 900);
    let again = Deadline::after(Duration::from_secs(3_600));
    tokio::time::timeout(Duration::from_millis(900), broker.lifecycle.shut_down(again))
        .await
        .unwrap()
        .unwrap_err();
}

#[tokio::test]
async fn a_broker_that_was_never_registered_goes_at_once() {
    let passive = FakeController::start(Script { active: false, ..Script::default() }).await;
    let broker = Broker::start(&[&passive]);
    broker.lifecycle.shut_down(soon()).await.unwrap();
    assert_eq!(broker.lifecycle.state().epoch, BrokerEpoch::NONE);
}
