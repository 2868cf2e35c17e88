//! The way to the active controller.

use klamm_control::{ConfigSchema, ControlConfig, ControlResult, Evidence, Liveness, LogReports, Randomness};
use klamm_metadata::{MetadataImage, MetadataRecord};
use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::quorum::{QuorumView, VoterChange};
use super::sessions::{LastHeard, SessionEvent};
use crate::ControllerError;

/// How many heartbeats and registrations may wait.
const LIFECYCLE_LEN: usize = 1_024;
/// How many other requests may wait.
const CHANGES_LEN: usize = 1_024;

/// What a decision may look at.
pub(crate) struct Desk<'a> {
    /// The newest image: it may hold entries that are not committed yet.
    pub(crate) image: &'a MetadataImage,
    pub(crate) config: &'a ControlConfig,
    pub(crate) schema: &'a dyn ConfigSchema,
    pub(crate) liveness: &'a mut Liveness,
    /// Who was heard when.
    pub(crate) heard: &'a mut LastHeard,
    /// What was told about logs that nobody can lead.
    pub(crate) log_reports: &'a mut LogReports,
    pub(crate) randomness: &'a mut dyn Randomness,
    /// The offset that the next entry gets.
    pub(crate) next_offset: Offset,
    /// Monotonic.
    pub(crate) now: Timestamp,
}

/// The answer to a request, given when it is committed, with the last offset that it stands on.
pub(crate) type Answer = Box<dyn FnOnce(Result<Offset, ControllerError>) + Send>;

/// A decision that is ready to be appended.
pub(crate) struct Decided {
    pub(crate) entries: Vec<Vec<MetadataRecord>>,
    pub(crate) answer: Answer,
}

/// A request whose answer's type only its sender knows.
pub(crate) trait Request: Send {
    fn decide(self: Box<Self>, desk: &mut Desk<'_>) -> Decided;
    fn refuse(self: Box<Self>, error: ControllerError);
}

/// What the active controller is told.
pub(crate) enum Command {
    /// Decide, append, answer.
    Decide(Box<dyn Request>),
    /// A session stream has begun or ended.
    Session(SessionEvent),
    /// Somebody knows something of a broker's death.
    Evidence(BrokerId, BrokerEpoch, Evidence),
    /// Change who votes.
    ChangeVoters(VoterChange, oneshot::Sender<Result<(), ControllerError>>),
    /// Say who votes, and how far everybody is.
    Describe(oneshot::Sender<Result<QuorumView, ControllerError>>),
}

/// The receiving ends: heartbeats do not wait behind changes.
pub(crate) struct Mailboxes {
    pub(crate) lifecycle: mpsc::Receiver<Command>,
    pub(crate) changes: mpsc::Receiver<Command>,
}

/// The sending ends.
#[derive(Clone, Debug)]
pub(crate) struct ControllerHandle {
    lifecycle: mpsc::Sender<Command>,
    changes: mpsc::Sender<Command>,
}

/// Which mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Urgency {
    Lifecycle,
    Change,
}

impl ControllerHandle {
    pub(crate) fn new() -> (Self, Mailboxes) {
        let (lifecycle, lifecycle_mails) = mpsc::channel(LIFECYCLE_LEN);
        let (changes, changes_mails) = mpsc::channel(CHANGES_LEN);
        (Self { lifecycle, changes }, Mailboxes { lifecycle: lifecycle_mails, changes: changes_mails })
    }

    fn send(&self, urgency: Urgency, command: Command) -> Result<(), ControllerError> {
        let mailbox = match urgency {
            Urgency::Lifecycle => &self.lifecycle,
            Urgency::Change => &self.changes,
        };
        mailbox.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControllerError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ControllerError::Stopped,
        })
    }

    /// Has `decide` called on the newest image, its records appended, and returns its answer when they are committed
    /// and applied, with the offset up to which a reader must have applied to see it.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Desk<'_>) -> ControlResult<T> + Send + 'static,
    ) -> Result<(Offset, T), ControllerError> {
        self.decide(Urgency::Change, decide).await
    }

    /// As [`change`](Self::change), for what keeps brokers alive.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn lifecycle<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Desk<'_>) -> ControlResult<T> + Send + 'static,
    ) -> Result<(Offset, T), ControllerError> {
        self.decide(Urgency::Lifecycle, decide).await
    }

    async fn decide<T: Send + 'static>(
        &self,
        urgency: Urgency,
        decide: impl FnOnce(&mut Desk<'_>) -> ControlResult<T> + Send + 'static,
    ) -> Result<(Offset, T), ControllerError> {
        let (reply, answer) = oneshot::channel();
        self.send(urgency, Command::Decide(Box::new(Typed { decide, reply })))?;
        answer.await.unwrap_or(Err(ControllerError::Failed))
    }

    /// Tells of a session stream.
    ///
    /// # Errors
    /// [`ControllerError::Overloaded`] or [`ControllerError::Stopped`].
    pub(crate) fn session(&self, event: SessionEvent) -> Result<(), ControllerError> {
        self.send(Urgency::Lifecycle, Command::Session(event))
    }

    /// Gives a piece of evidence.
    ///
    /// # Errors
    /// [`ControllerError::Overloaded`] or [`ControllerError::Stopped`].
    pub(crate) fn evidence(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        evidence: Evidence,
    ) -> Result<(), ControllerError> {
        self.send(Urgency::Lifecycle, Command::Evidence(broker, epoch, evidence))
    }

    /// Changes who votes; returns when that is committed.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn change_voters(&self, change: VoterChange) -> Result<(), ControllerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Urgency::Change, Command::ChangeVoters(change, reply))?;
        answer.await.unwrap_or(Err(ControllerError::Failed))
    }

    /// Who votes, and how far everybody is.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn describe(&self) -> Result<QuorumView, ControllerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Urgency::Change, Command::Describe(reply))?;
        answer.await.unwrap_or(Err(ControllerError::Failed))
    }
}

struct Typed<F, T> {
    decide: F,
    reply: oneshot::Sender<Result<(Offset, T), ControllerError>>,
}

impl<F, T> Request for Typed<F, T>
where
    F: FnOnce(&mut Desk<'_>) -> ControlResult<T> + Send,
    T: Send + 'static,
{
    fn decide(self: Box<Self>, desk: &mut Desk<'_>) -> Decided {
        let Self { decide, reply } = *self;
        let (entries, response) = decide(desk).into_entries();
        let answer = move |outcome: Result<Offset, ControllerError>| {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(outcome.map(|offset| (offset, response)));
        };
        Decided { entries, answer: Box::new(answer) }
    }

    fn refuse(self: Box<Self>, error: ControllerError) {
        let _ = self.reply.send(Err(error));
    }
}
