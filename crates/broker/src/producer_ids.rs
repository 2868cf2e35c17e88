//! Blocks of producer ids (KIP-730).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use klamm_pb::controller::v1::ProducerIdBlock;
use klamm_rpc::Deadline;
use klamm_types::{BrokerEpoch, ProducerId};
use tokio::sync::Mutex;

use crate::controller_client::{ControllerClient, ControllerError};
use crate::lifecycle::BrokerLifecycle;

/// Why there is no producer id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerIdError {
    /// No block came in time; another try may do better. Kafka: COORDINATOR_LOAD_IN_PROGRESS.
    #[error("no block of producer ids in time")]
    TimedOut,
    /// The controller gave none.
    #[error("no block of producer ids")]
    Controller(#[from] ControllerError),
    /// The controller gave a block that cannot be.
    #[error("the block of {length} producer ids from {first} cannot be")]
    BadBlock {
        /// The first id.
        first: i64,
        /// How many.
        length: i32,
    },
}

/// Where blocks come from.
pub trait ProducerIdBlocks: Send + Sync + fmt::Debug {
    /// A block that nobody else has.
    fn allocate(&self, timeout: Duration) -> BoxFuture<'_, Result<ProducerIdBlock, ControllerError>>;
}

/// Blocks from the active controller, for this broker's registration.
#[derive(Clone, Debug)]
pub struct ControllerBlocks {
    /// The way to the controller.
    pub client: ControllerClient,
    /// The registration.
    pub lifecycle: BrokerLifecycle,
}

impl ProducerIdBlocks for ControllerBlocks {
    fn allocate(&self, timeout: Duration) -> BoxFuture<'_, Result<ProducerIdBlock, ControllerError>> {
        let epoch: BrokerEpoch = self.lifecycle.state().epoch;
        Box::pin(self.client.allocate_producer_ids(epoch, timeout))
    }
}

/// Gives out producer ids, each once in the life of the cluster. At most one block is asked for at a time; ids of a
/// block that nobody got are lost.
#[derive(Debug)]
pub struct ProducerIds {
    blocks: Arc<dyn ProducerIdBlocks>,
    /// What is left of the block in hand: the next id, and the exclusive end.
    left: Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// Ids out of `blocks`.
    #[must_use]
    pub fn new(blocks: Arc<dyn ProducerIdBlocks>) -> Self {
        Self { blocks, left: Mutex::new((0, 0)) }
    }

    /// An id that nobody had before.
    ///
    /// # Errors
    /// [`ProducerIdError`].
    pub async fn next(&self, timeout: Duration) -> Result<ProducerId, ProducerIdError> {
        let deadline = Deadline::after(timeout);
        let locked = tokio::time::timeout_at(deadline.instant(), self.left.lock());
        let mut left = locked.await.map_err(|_| ProducerIdError::TimedOut)?;
        if left.0 >= left.1 {
            let asked = self.blocks.allocate(deadline.remaining());
            let block = tokio::time::timeout_at(deadline.instant(), asked);
            let ProducerIdBlock { first, length } = block.await.map_err(|_| ProducerIdError::TimedOut)??;
            let bad = ProducerIdError::BadBlock { first, length };
            let is_sound = first >= left.1 && length > 0;
            let end = first.checked_add(i64::from(length)).filter(|_| is_sound).ok_or(bad)?;
            *left = (first, end);
        }
        let id = ProducerId(left.0);
        left.0 += 1;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// Blocks of three ids, one after the other.
    #[derive(Debug, Default)]
    struct Threes {
        next: AtomicI64,
        asked: AtomicI64,
    }

    impl ProducerIdBlocks for Threes {
        fn allocate(&self, _: Duration) -> BoxFuture<'_, Result<ProducerIdBlock, ControllerError>> {
            Box::pin(async {
                self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(ProducerIdBlock { first: self.next.fetch_add(3, Ordering::Relaxed), length: 3 })
            })
        }
    }

    #[tokio::test]
    async fn many_callers_share_blocks_and_nobody_gets_an_id_twice() {
        let blocks = Arc::new(Threes::default());
        let ids = Arc::new(ProducerIds::new(Arc::clone(&blocks) as Arc<dyn ProducerIdBlocks>));
        let callers: Vec<_> = (0..30)
            .map(|_| {
                let ids = Arc::clone(&ids);
                tokio::spawn(async move { ids.next(Duration::from_secs(20)).await.unwrap() })
            })
            .collect();
        let mut got = Vec::new();
        for caller in callers {
            got.push(caller.await.unwrap().0);
        }
        got.sort_unstable();
        assert_eq!(got, (0..30).collect::<Vec<_>>());
        assert_eq!(blocks.asked.load(Ordering::Relaxed), 10);
    }

    /// Says the same every time.
    #[derive(Debug)]
    struct Same(Result<ProducerIdBlock, ControllerError>);

    impl ProducerIdBlocks for Same {
        fn allocate(&self, _: Duration) -> BoxFuture<'_, Result<ProducerIdBlock, ControllerError>> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    #[tokio::test]
    async fn blocks_that_cannot_be_are_refused() {
        for (first, length) in [(-1, 10), (5, 0), (5, -1), (i64::MAX, 1)] {
            let ids = ProducerIds::new(Arc::new(Same(Ok(ProducerIdBlock { first, length }))));
            let refused = ids.next(Duration::from_secs(20)).await.unwrap_err();
            assert_eq!(refused, ProducerIdError::BadBlock { first, length });
        }
        // The same block twice would give ids out twice.
        let ids = ProducerIds::new(Arc::new(Same(Ok(ProducerIdBlock { first: 7, length: 1 }))));
        assert_eq!(ids.next(Duration::from_secs(20)).await.unwrap(), ProducerId(7));
        let refused = ids.next(Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(refused, ProducerIdError::BadBlock { first: 7, length: 1 });
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let error = ControllerError::BadAnswer { missing: "result" };
        let ids = ProducerIds::new(Arc::new(Same(Err(error.clone()))));
        let refused = ids.next(Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(refused, ProducerIdError::Controller(error));
    }
}
