//! The streams that carry a session: one after the other, to whoever is the active controller.

use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_client::BrokerLifecycleClient;
use klamm_rpc::{Deadline, NodeAddress, RpcError};
use klamm_types::{Offset, Timestamp};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::session::{Answered, Heartbeat, OUTSTANDING_MAX, Session, Standing};
use super::{BrokerPhase, LifecycleOptions, Wishes};

/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionEnd {
    /// The broker may go.
    Released,
    /// The controller does not know the epoch: the broker must register anew.
    EpochRefused,
}

/// Why a stream is over.
enum StreamEnd {
    Session(SessionEnd),
    /// Another stream may do better, perhaps to another node.
    Broken(RpcError),
    /// Another node has shown that it is the active controller.
    Moved,
}

/// Keeps one session over as many streams as it takes.
pub(super) struct SessionStreams<'a> {
    options: &'a LifecycleOptions,
    epoch: i64,
    session: Session,
    wishes: watch::Receiver<Wishes>,
    /// Some stream of this session has been answered since the last one broke.
    is_answered: bool,
}

impl<'a> SessionStreams<'a> {
    pub(super) fn new(
        options: &'a LifecycleOptions,
        registered: &pb::Registered,
        wishes: watch::Receiver<Wishes>,
    ) -> Self {
        let session = Session::new(registered.heartbeat_interval_ms, registered.session_timeout_ms);
        Self { options, epoch: registered.broker_epoch, session, wishes, is_answered: false }
    }

    /// Keeps the session until it ends; tells with each answer the phase in which the controller has the broker, and how
    /// long the session lasts.
    pub(super) async fn run(&mut self, mut heard: impl FnMut(BrokerPhase, Duration)) -> SessionEnd {
        let client = &self.options.client;
        let mut backoff = client.backoff();
        loop {
            let (address, channel) = match client.target() {
                Ok(target) => target,
                Err(error) => {
                    debug!(%error, "no controller for the session");
                    tokio::time::sleep(backoff.next_pause()).await;
                    continue;
                }
            };
            let end = self.run_stream(&address, channel, &mut heard).await;
            self.session.on_stream_ended();
            if std::mem::take(&mut self.is_answered) {
                backoff.reset();
            }
            match end {
                StreamEnd::Session(end) => return end,
                StreamEnd::Moved => debug!(controller = %address, "the session moves to another controller"),
                StreamEnd::Broken(error) => {
                    debug!(controller = %address, %error, "session stream ended");
                    client.on_failure(&address, &error);
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    async fn run_stream(
        &mut self,
        address: &NodeAddress,
        channel: Channel,
        heard: &mut impl FnMut(BrokerPhase, Duration),
    ) -> StreamEnd {
        let mut active = self.options.client.active_changes();
        let (heartbeats, outgoing) = mpsc::channel(OUTSTANDING_MAX + 1);
        // The first one goes with the opening: a controller may wait for it.
        if let Err(end) = self.send(&heartbeats) {
            return end;
        }
        let mut stub = BrokerLifecycleClient::new(channel);
        let opening = Deadline::after(OPEN_TIMEOUT).run(stub.session(ReceiverStream::new(outgoing)));
        let mut answers = match opening.await {
            Ok(answers) => answers,
            Err(error) => return StreamEnd::Broken(error),
        };
        loop {
            match self.turn(&mut answers, &heartbeats, active.away_from(address)).await {
                Ok(None) => {}
                Ok(Some(answered)) => {
                    if !self.is_answered {
                        info!(controller = %address, "in session");
                        self.is_answered = true;
                        self.options.client.on_served(address);
                    }
                    if let Some(end) = self.act_on(answered, heard) {
                        return StreamEnd::Session(end);
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Waits for what comes next: an answer, a heartbeat to send, or the end.
    async fn turn(
        &mut self,
        answers: &mut Streaming<pb::HeartbeatResponse>,
        heartbeats: &mpsc::Sender<pb::HeartbeatRequest>,
        moved: impl Future<Output = ()>,
    ) -> Result<Option<Answered>, StreamEnd> {
        let (clock, cache) = (self.options.clock, &self.options.cache);
        let (applied, wishes) = (cache.applied_offset(), *self.wishes.borrow_and_update());
        let due = self.session.due_at(applied, wishes);
        let silent = self.session.silent_at();
        let until = |at: Option<Timestamp>| async move {
            match at {
                Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answers.message() => self.on_answer(answer).map(Some),
            () = moved => Err(StreamEnd::Moved),
            () = until(silent) => Err(StreamEnd::Broken(RpcError::TimedOut)),
            () = until(due) => self.send(heartbeats).map(|()| None),
            // News: the next turn finds that a heartbeat is due earlier.
            _ = cache.applied_past(applied) => Ok(None),
            Ok(()) = self.wishes.changed() => Ok(None),
        }
    }

    fn send(&mut self, heartbeats: &mpsc::Sender<pb::HeartbeatRequest>) -> Result<(), StreamEnd> {
        let applied: Offset = self.options.cache.applied_offset();
        let wishes = *self.wishes.borrow();
        let now = self.options.clock.now();
        let Heartbeat { sequence, applied, wishes } = self.session.heartbeat(now, applied, wishes);
        let message = pb::HeartbeatRequest {
            caller: Some(self.options.client.identity().caller()),
            broker_epoch: self.epoch,
            applied_offset: applied.0,
            want_fence: wishes.fence,
            want_shutdown: wishes.shutdown,
            sequence,
        };
        heartbeats.try_send(message).map_err(|_| {
            let reason = "the stream takes no more heartbeats".to_owned();
            StreamEnd::Broken(RpcError::Lost { reason })
        })
    }

    fn on_answer(
        &mut self,
        answer: Result<Option<pb::HeartbeatResponse>, Status>,
    ) -> Result<Answered, StreamEnd> {
        use pb::heartbeat_response::Result as Outcome;
        let broken = |reason: &str| StreamEnd::Broken(RpcError::Lost { reason: reason.to_owned() });
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(broken("the controller ended the stream")),
            Err(status) => return Err(StreamEnd::Broken(status.into())),
        };
        match answer.result {
            Some(Outcome::Standing(standing)) => {
                let standing = Standing {
                    fenced: standing.fenced,
                    may_shut_down: standing.may_shut_down,
                    session_timeout_ms: standing.session_timeout_ms,
                };
                let answered = self.session.on_answer(answer.sequence, standing);
                answered.ok_or_else(|| broken("an answer out of turn"))
            }
            Some(Outcome::Refusal(refusal)) => Err(self.on_refusal(&refusal)),
            None => Err(broken("an answer without a result")),
        }
    }

    fn on_refusal(&self, refusal: &pb::Refusal) -> StreamEnd {
        match refusal.code() {
            pb::RefusalCode::StaleBrokerEpoch | pb::RefusalCode::BrokerIdNotRegistered => {
                warn!(broker_epoch = self.epoch, code = ?refusal.code(), "the session is refused");
                // Who wants to go and is not known any more has nothing to hand over.
                let wants_shutdown = self.wishes.borrow().shutdown;
                StreamEnd::Session(if wants_shutdown {
                    SessionEnd::Released
                } else {
                    SessionEnd::EpochRefused
                })
            }
            pb::RefusalCode::NotController => StreamEnd::Broken(RpcError::NotActiveController { hint: None }),
            code => {
                warn!(?code, message = refusal.message, "a heartbeat is refused");
                StreamEnd::Broken(RpcError::Failed { message: refusal.message.clone() })
            }
        }
    }

    fn act_on(
        &self,
        answered: Answered,
        heard: &mut impl FnMut(BrokerPhase, Duration),
    ) -> Option<SessionEnd> {
        let Answered { phase, lease_until } = answered;
        match lease_until {
            Some(until) => self.options.lease.extend(until),
            None => self.options.lease.end(),
        }
        if phase == BrokerPhase::Released {
            return Some(SessionEnd::Released);
        }
        heard(phase, self.session.timeout());
        None
    }
}
