//! Which producer ids are taken.

use klamm_types::{BrokerEpoch, BrokerId, ProducerId};

use crate::delta::ReplayError;

/// The end of the producer ids given away, and who got the last block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProducerIdsImage {
    newest: Option<(BrokerId, BrokerEpoch, ProducerId)>,
}

impl ProducerIdsImage {
    /// The first id that is still free.
    #[must_use]
    pub fn end(&self) -> ProducerId {
        self.newest.map_or(ProducerId(0), |(_, _, end)| end)
    }

    /// The newest allocation: broker, its epoch, exclusive end.
    #[must_use]
    pub fn newest(&self) -> Option<(BrokerId, BrokerEpoch, ProducerId)> {
        self.newest
    }

    pub(crate) fn allocate(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        end: ProducerId,
    ) -> Result<(), ReplayError> {
        if end <= self.end() {
            return Err(ReplayError::ProducerIds { found: end, known: self.end() });
        }
        self.newest = Some((broker, epoch, end));
        Ok(())
    }
}
