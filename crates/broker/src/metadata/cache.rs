//! The newest image, for everybody on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use klamm_metadata::MetadataImage;
use klamm_rpc::Deadline;
use klamm_types::{BrokerEpoch, BrokerId, Offset};
use tokio::sync::watch;
use tokio::time::Instant;

use super::lately_dead::LatelyDead;
use super::suspects::Suspects;

/// The metadata did not come as far in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata is applied up to {applied}, not yet to {wanted}")]
pub struct NotApplied {
    /// The last offset that is applied.
    pub applied: Offset,
    /// What was waited for.
    pub wanted: Offset,
}

/// The metadata as this broker knows it. Reading takes no lock.
///
/// The image may be ahead of [`applied_offset`](Self::applied_offset): the replicas of this broker may not have
/// acted on it yet.
#[derive(Debug)]
pub struct MetadataCache {
    image: ArcSwap<MetadataImage>,
    applied: watch::Sender<Offset>,
    suspects: Suspects,
    lately_dead: LatelyDead,
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self::new()
    }
}

impl MetadataCache {
    /// A cache that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_with(MetadataImage::empty())
    }

    /// A cache that starts with an image, of which everything is applied.
    #[must_use]
    pub fn starting_with(image: MetadataImage) -> Self {
        let applied = watch::Sender::new(image.provenance.last_offset);
        Self {
            image: ArcSwap::from_pointee(image),
            applied,
            suspects: Suspects::default(),
            lately_dead: LatelyDead::default(),
        }
    }

    /// The newest image. Take it once for whatever must fit together.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// The last offset of the metadata log that everybody on this node has acted on; -1 for none.
    #[must_use]
    pub fn applied_offset(&self) -> Offset {
        *self.applied.borrow()
    }

    /// Waits until everything up to `offset` (inclusive) is applied.
    ///
    /// # Errors
    /// [`NotApplied`] if it is not by the deadline.
    pub async fn wait_for(&self, offset: Offset, deadline: Deadline) -> Result<(), NotApplied> {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= offset);
        match tokio::time::timeout_at(deadline.instant(), reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives as long as `self`, so nothing but time runs out.
            Ok(Err(_)) | Err(_) => Err(NotApplied { applied: self.applied_offset(), wanted: offset }),
        }
    }

    /// Waits until an image that satisfies `condition` is applied, and gives it.
    ///
    /// # Errors
    /// [`NotApplied`] if there is none by the deadline, wanting the offset after the newest.
    pub async fn wait_until(
        &self,
        mut condition: impl FnMut(&MetadataImage) -> bool,
        deadline: Deadline,
    ) -> Result<Arc<MetadataImage>, NotApplied> {
        let mut applied = self.applied.subscribe();
        loop {
            let seen = *applied.borrow_and_update();
            let image = self.image();
            if image.provenance.last_offset <= seen && condition(&image) {
                return Ok(image);
            }
            let changed = tokio::time::timeout_at(deadline.instant(), applied.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(NotApplied { applied: seen, wanted: seen.next() });
            }
        }
    }

    /// Waits until something after `offset` is applied; tells how far.
    pub async fn applied_past(&self, offset: Offset) -> Offset {
        let mut applied = self.applied.subscribe();
        match applied.wait_for(|applied| *applied > offset).await.map(|applied| *applied) {
            Ok(applied) => applied,
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// The stream from this incarnation of `broker` broke: it may be dead, and what the metadata says of its leaderships
    /// about to change.
    pub fn suspect(&self, broker: BrokerId, epoch: BrokerEpoch) {
        self.suspects.add(broker, epoch);
    }

    /// Who is suspected at present, and until when, at most [`SUSPICION_TIME`](super::SUSPICION_TIME) from the time that its
    /// stream broke. A broker that the newest image knows as fenced, or under another epoch, is not.
    #[must_use]
    pub fn suspects(&self) -> BTreeMap<BrokerId, Instant> {
        self.suspects.in_image(&self.image())
    }

    /// Waits until the metadata has told what became of `broker`, or it is suspected no more.
    pub async fn wait_unsuspected(&self, broker: BrokerId) {
        let mut applied = self.applied.subscribe();
        while let Some(until) = self.suspects().get(&broker) {
            // The sender lives as long as `self`. When the time has run out, the next look finds nobody.
            drop(tokio::time::timeout_at(*until, applied.changed()).await);
        }
    }

    /// Brokers that were fenced while they served, within the last ten seconds, and have not come back.
    #[must_use]
    pub fn lately_dead(&self) -> BTreeSet<BrokerId> {
        self.lately_dead.in_image(&self.image())
    }

    /// Replaces the image; images come in order.
    pub(super) fn publish(&self, image: Arc<MetadataImage>) {
        self.lately_dead.watch(&self.image(), &image);
        self.image.store(image);
    }

    /// Everybody has acted on what lies up to `offset`.
    pub(crate) fn on_applied(&self, offset: Offset) {
        self.applied.send_if_modified(|applied| applied.advance_to(offset));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use klamm_metadata::{
        BrokerChanged, BrokerRegistration, DirectoryId, IncarnationId, MetadataDelta, MetadataProvenance,
        MetadataRecord,
    };

    use super::*;
    use crate::metadata::SUSPICION_TIME;

    const BROKER: BrokerId = BrokerId(2);

    fn registration(epoch: i64) -> BrokerRegistration {
        BrokerRegistration {
            id: BROKER,
            epoch: BrokerEpoch(epoch),
            incarnation: IncarnationId([1; 16]),
            directory: DirectoryId([1; 16]),
            endpoints: Vec::new(),
            rack: None,
            features: Vec::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
        }
    }

    fn apply(cache: &MetadataCache, record: &MetadataRecord) {
        let image = cache.image();
        let last_offset = image.provenance.last_offset.next();
        let mut delta = MetadataDelta::new((*image).clone());
        delta.replay(record).unwrap();
        cache.publish(Arc::new(delta.apply(MetadataProvenance { last_offset, last_epoch: 1 })));
        cache.on_applied(last_offset);
    }

    fn cache() -> MetadataCache {
        let cache = MetadataCache::new();
        apply(&cache, &MetadataRecord::BrokerRegistered(registration(7)));
        cache
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_ends_when_the_broker_is_fenced_or_comes_anew() {
        let fenced = BrokerChanged { fenced: Some(true), ..BrokerChanged::of(&registration(7)) };
        for record in
            [MetadataRecord::BrokerChanged(fenced), MetadataRecord::BrokerRegistered(registration(8))]
        {
            let cache = cache();
            cache.suspect(BROKER, BrokerEpoch(7));
            let mut waiting = std::pin::pin!(cache.wait_unsuspected(BROKER));
            assert_eq!(waiting.as_mut().now_or_never(), None);
            assert!(cache.lately_dead().is_empty());
            apply(&cache, &record);
            assert_eq!(waiting.now_or_never(), Some(()));
            assert!(cache.suspects().is_empty());
            let has_died = matches!(record, MetadataRecord::BrokerChanged(_));
            assert_eq!(cache.lately_dead().contains(&BROKER), has_died);
            tokio::time::advance(Duration::from_secs(10)).await;
            assert!(cache.lately_dead().is_empty());
        }
    }

    #[test]
    fn a_broker_that_left_in_an_orderly_way_or_came_back_is_not_lately_dead() {
        let leaving = BrokerChanged { shutting_down: Some(true), ..BrokerChanged::of(&registration(7)) };
        let fenced = BrokerChanged { fenced: Some(true), ..BrokerChanged::of(&registration(7)) };
        let left = cache();
        apply(&left, &MetadataRecord::BrokerChanged(leaving));
        apply(&left, &MetadataRecord::BrokerChanged(fenced));
        assert!(left.lately_dead().is_empty());
        let back = cache();
        apply(&back, &MetadataRecord::BrokerChanged(fenced));
        assert!(!back.lately_dead().is_empty());
        apply(&back, &MetadataRecord::BrokerRegistered(registration(9)));
        assert!(back.lately_dead().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_that_proves_wrong_ends_by_itself() {
        let cache = cache();
        cache.suspect(BROKER, BrokerEpoch(7));
        let begin = Instant::now();
        assert_eq!(cache.suspects(), BTreeMap::from([(BROKER, begin + SUSPICION_TIME)]));
        cache.wait_unsuspected(BROKER).await;
        assert!(begin.elapsed() >= SUSPICION_TIME, "{:?}", begin.elapsed());
        assert!(cache.suspects().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_break_again_and_again_hold_nobody_up_twice() {
        let cache = cache();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            cache.suspect(BROKER, BrokerEpoch(7));
            assert_eq!(cache.suspects().is_empty(), begin.elapsed() >= SUSPICION_TIME);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        cache.suspect(BROKER, BrokerEpoch(7));
        assert!(!cache.suspects().is_empty(), "it may have died by now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_incarnation_is_not_suspected() {
        let cache = cache();
        cache.suspect(BROKER, BrokerEpoch(6));
        assert!(cache.suspects().is_empty());
        cache.wait_unsuspected(BROKER).await;
    }
}
