//! The batches of one partition that are not acknowledged yet, in order.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use klamm_protocol::messages::ProduceResponse;
use klamm_protocol::messages::produce_response::PartitionProduceResponse;
use klamm_types::Offset;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::{Delivered, ProduceError};
use crate::error::ClientError;

/// An answer that is awaited.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<ProduceResponse, ClientError>> + Send>>;

/// Who waits for a record, and the room that it takes until then.
pub(super) struct Waiter {
    pub(super) done: oneshot::Sender<Result<Delivered, ProduceError>>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// A batch as it is sent, and sent again.
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    pub(super) deadline: Instant,
    pub(super) waiters: Vec<Waiter>,
    /// `None` while it must be sent, for the first time or again.
    pub(super) answer: Option<Answer>,
}

/// At most as many batches as may be under way. Those that were sent come before those that were not.
#[derive(Default)]
pub(super) struct Window {
    batches: VecDeque<Batch>,
}

impl Batch {
    /// Tells everybody where the records are.
    pub(super) fn complete(self, answer: &PartitionProduceResponse) {
        let base = (answer.base_offset >= 0).then_some(Offset(answer.base_offset));
        for (i, waiter) in (0..).zip(self.waiters) {
            let offset = base.and_then(|base| base.checked_plus(i));
            // Nobody may care.
            let _ = waiter.done.send(Ok(Delivered { offset }));
        }
    }

    /// Tells everybody why the records did not arrive, or may not have.
    pub(super) fn fail(self, error: &ProduceError) {
        for waiter in self.waiters {
            // Nobody may care.
            let _ = waiter.done.send(Err(error.clone()));
        }
    }
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    pub(super) fn front(&self) -> Option<&Batch> {
        self.batches.front()
    }

    pub(super) fn pop(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    /// The first batch that must be sent.
    pub(super) fn next_unsent(&mut self) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|batch| batch.answer.is_none())
    }

    /// Forgets all answers, so that everything is sent again, in order.
    pub(super) fn rewind(&mut self) {
        for batch in &mut self.batches {
            batch.answer = None;
        }
    }

    /// Waits for the first batch's answer; for ever if it was not sent.
    pub(super) async fn answer(&mut self) -> Result<ProduceResponse, ClientError> {
        match self.batches.front_mut().and_then(|batch| batch.answer.as_mut()) {
            Some(answer) => answer.await,
            None => std::future::pending().await,
        }
    }
}
