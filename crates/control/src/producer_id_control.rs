//! Giving away producer ids (KIP-730).

use klamm_metadata::{MetadataImage, MetadataRecord};
use klamm_types::{BrokerEpoch, BrokerId, ProducerId};

use crate::{ControlResult, Refusal, Refused};

/// How many ids a broker gets at a time.
pub const PRODUCER_ID_BLOCK: i32 = 1_000;

/// Ids that belong to one broker alone, used or not: `first .. first + length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many.
    pub length: i32,
}

/// Why no block is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerIdError {
    /// `STALE_BROKER_EPOCH`.
    #[error("broker {broker} is not registered under epoch {epoch}")]
    StaleBrokerEpoch {
        /// The sender.
        broker: BrokerId,
        /// The epoch it named.
        epoch: BrokerEpoch,
    },
    /// `UNKNOWN_SERVER_ERROR`: fewer than a block of the 2^63 ids are left.
    #[error("producer ids are used up at {end}")]
    Exhausted {
        /// The first free id.
        end: ProducerId,
    },
}

impl Refused for ProducerIdError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::StaleBrokerEpoch { .. } => Refusal::StaleBrokerEpoch,
            Self::Exhausted { .. } => Refusal::UnknownServerError,
        }
    }
}

/// Decisions about producer ids, on one image.
#[derive(Clone, Copy, Debug)]
pub struct ProducerIdControl<'a> {
    image: &'a MetadataImage,
}

impl<'a> ProducerIdControl<'a> {
    /// Decisions on `image`, the newest one.
    #[must_use]
    pub fn new(image: &'a MetadataImage) -> Self {
        Self { image }
    }

    /// Gives `broker` the next block. A call that is repeated gets another one; the first is lost, which costs nothing.
    ///
    /// # Errors
    /// [`ProducerIdError`].
    pub fn allocate(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<ControlResult<ProducerIdBlock>, ProducerIdError> {
        if self.image.cluster.broker(broker).is_none_or(|known| known.epoch != epoch) {
            return Err(ProducerIdError::StaleBrokerEpoch { broker, epoch });
        }
        let first = self.image.producer_ids.end();
        let end = first.0.checked_add(i64::from(PRODUCER_ID_BLOCK)).map(ProducerId);
        let end = end.ok_or(ProducerIdError::Exhausted { end: first })?;
        let block = ProducerIdBlock { first, length: PRODUCER_ID_BLOCK };
        let record = MetadataRecord::ProducerIdsAllocated { broker, epoch, end };
        Ok(ControlResult::atomic(vec![record], block))
    }
}
