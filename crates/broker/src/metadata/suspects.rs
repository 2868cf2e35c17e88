//! Brokers that may be dead, as long as the metadata does not tell.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_metadata::MetadataImage;
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::time::Instant;

use super::marks::Marks;

/// How long a broker is suspected at most. A death is fenced sooner, with an election of the controllers before it, too, or it
/// was none.
pub const SUSPICION_TIME: Duration = Duration::from_millis(300);

/// How long it takes to notice that a stream has ended after the peer's death, with some reserve. The kernel closes the
/// connections of a dead process one after the other, and a client that asks at once for metadata (librdkafka does) came
/// first in one kill of five: it was told of the dead leader, and asked anew after up to a second.
pub const NOTICE_TIME: Duration = Duration::from_millis(2);

/// Incarnations of brokers whose replication streams to this broker broke. One that was suspected in vain is not suspected
/// again for as long as [marks](Marks) are kept: streams that break again and again must not hold clients up each time.
#[derive(Debug, Default)]
pub(super) struct Suspects(Marks);

impl Suspects {
    pub(super) fn add(&self, broker: BrokerId, epoch: BrokerEpoch) {
        self.0.note(broker, epoch);
    }

    /// Those of whom `image` still says that they live, and until when they are suspected.
    pub(super) fn in_image(&self, image: &MetadataImage) -> BTreeMap<BrokerId, Instant> {
        let now = Instant::now();
        let known = self.0.in_image(image, |told| !told.fenced).into_iter();
        let until = known.map(|(broker, since)| (broker, since + SUSPICION_TIME));
        until.filter(|(_, until)| now < *until).collect()
    }
}
