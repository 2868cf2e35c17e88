//! Deleting records before an offset (KIP-107).

use std::time::Duration;

use klamm_replica::{DeletionError, DeletionRequest, DeletionTicket, Event};
use klamm_types::Offset;
use tokio::sync::oneshot;

use super::effects::StepIo;
use super::{DeletionFailure, PartitionHandle, State};

/// A deletion that has begun, or was refused.
#[derive(Debug)]
#[must_use = "a deletion is answered by `done`"]
pub struct PendingDeletion(Outcome);

#[derive(Debug)]
enum Outcome {
    Known(Result<Offset, DeletionFailure>),
    Awaited(oneshot::Receiver<Result<Offset, DeletionError>>),
}

/// Who waits for a deletion.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Sender<Result<Offset, DeletionError>>);

impl Waiting {
    pub(super) fn answer(self, outcome: Result<Offset, DeletionError>) {
        // A client that has gone does not want to know.
        let _ = self.0.send(outcome);
    }
}

impl PendingDeletion {
    /// Waits until the logs of all live replicas start at the offset or later; the new log start. No longer than the
    /// deletion's timeout.
    ///
    /// # Errors
    /// [`DeletionFailure`].
    pub async fn done(self) -> Result<Offset, DeletionFailure> {
        match self.0 {
            Outcome::Known(outcome) => outcome,
            Outcome::Awaited(answer) => Ok(answer.await.unwrap_or(Err(DeletionError::LogFailed))?),
        }
    }
}

impl PartitionHandle {
    /// Deletes the records before `before`, or all that are committed if it is `None`.
    pub fn delete_records(&self, before: Option<Offset>, timeout: Duration) -> PendingDeletion {
        let known = |outcome| PendingDeletion(Outcome::Known(outcome));
        if !self.shared.log.config().cleanup_policy.delete {
            return known(Err(DeletionFailure::NotDeletable));
        }
        let Ok(mut state) = self.enter() else { return known(Err(DeletionError::LogFailed.into())) };
        state.ticket += 1;
        let ticket = DeletionTicket(state.ticket);
        let offset = before.unwrap_or_else(|| state.replica.log().high_watermark());
        let deadline = self.shared.around.clock.after(timeout);
        let mut io = StepIo::deleting(ticket);
        let request = DeletionRequest { ticket: Some(ticket), offset, deadline };
        self.run(&mut state, Event::DeletionRequested(request), &mut io);
        let outcome = match io.deleted {
            Some(outcome) => Outcome::Known(outcome.map_err(Into::into)),
            None => {
                let (sender, answer) = oneshot::channel();
                state.deletions.insert(ticket, Waiting(sender));
                Outcome::Awaited(answer)
            }
        };
        self.leave(state);
        PendingDeletion(outcome)
    }

    /// Retention has removed segments: the replica takes note of where the log starts now.
    pub(super) fn adopt_log_start(&self, state: &mut State) {
        let offset = self.shared.log.log_start_offset();
        if offset <= state.replica.log().log_start_offset() || state.replica.is_failed() {
            return;
        }
        let deadline = self.now();
        let request = DeletionRequest { ticket: None, offset, deadline };
        self.run(state, Event::DeletionRequested(request), &mut StepIo::default());
    }
}
