//! Follows the metadata feed of a controller.

use std::sync::Arc;
use std::time::Duration;

use klamm_pb::metadata::v1 as pb;
use klamm_rpc::stubs::metadata::v1::metadata_feed_client::MetadataFeedClient;
use klamm_rpc::{Backoff, Deadline, KnownQuorum, Lane, LineBudget, NodeAddress, RpcError};
use klamm_types::Offset;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use super::feed::{Feed, FeedError, Step};
use super::{MetadataCache, MetadataPublisher};
use crate::controller_client::ControllerClient;

/// How long opening the stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stream may be silent before it is given up: a controller that lives, and is in touch with the quorum, says
/// so twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The longest event that is asked for, in bytes; a longer entry comes alone.
const EVENT_BYTES_MAX: u32 = 4 << 20;
/// Between two lines that say who is followed. Of controllers that stop, or are out of touch with their quorum, several
/// may be followed in turn, each for a moment.
const TOLD_INTERVAL: Duration = Duration::from_secs(5);
/// Between two lines about controllers of another quorum.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(30);
/// How many records are replayed without a change of thread: some tens of microseconds of work.
const INLINE_RECORDS_MAX: usize = 64;

/// The metadata cannot be understood: the node must stop, for what it would go on to serve is not the truth.
#[derive(Debug, thiserror::Error)]
#[error("the metadata after offset {applied} cannot be followed")]
pub struct LoaderFault {
    /// The last offset that was applied.
    pub applied: Offset,
    /// What is wrong with the next.
    pub source: FeedError,
}

/// Brings the metadata of the cluster to this node: follows the active controller's feed from where the cache is,
/// replays it, and tells everybody.
///
/// A stream that breaks is opened again, where the active controller now is, from the offset that was reached.
#[derive(Debug)]
pub struct MetadataLoader {
    client: ControllerClient,
    follower: Follower,
}

/// What a stream feeds.
#[derive(Debug)]
struct Follower {
    /// The quorum that this node belongs to.
    quorum: KnownQuorum,
    cache: Arc<MetadataCache>,
    feed: Feed,
    publishers: Vec<Box<dyn MetadataPublisher>>,
    /// Who was last said to be followed.
    told: Option<NodeAddress>,
    budget: LineBudget,
    /// For controllers of another quorum.
    foreign: LineBudget,
}

enum Ended {
    /// The stream is of no more use.
    Broken(RpcError),
    /// The stream made no sense.
    Senseless(FeedError),
    /// The active controller is elsewhere.
    Moved,
}

impl MetadataLoader {
    /// A loader that goes on from what `cache` has.
    #[must_use]
    pub fn new(client: ControllerClient, cache: Arc<MetadataCache>) -> Self {
        let feed = Feed::new(cache.image());
        let (budget, foreign) = (LineBudget::new(TOLD_INTERVAL), LineBudget::new(FOREIGN_INTERVAL));
        let quorum = client.identity().quorum().clone();
        Self {
            client,
            follower: Follower { quorum, cache, feed, publishers: Vec::new(), told: None, budget, foreign },
        }
    }

    /// The same, with one more publisher after those that it has.
    #[must_use]
    pub fn with_publisher(mut self, publisher: impl MetadataPublisher) -> Self {
        self.follower.publishers.push(Box::new(publisher));
        self
    }

    /// Follows until `shutdown` completes.
    ///
    /// # Errors
    /// [`LoaderFault`] if the metadata cannot be understood.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), LoaderFault> {
        tokio::select! {
            biased;
            () = shutdown => Ok(()),
            fault = self.follow() => Err(fault),
        }
    }

    async fn follow(self) -> LoaderFault {
        let Self { client, mut follower } = self;
        let mut backoff = client.backoff();
        loop {
            let (address, channel) = match client.target() {
                Ok(target) => target,
                Err(error) => {
                    debug!(%error, "no controller to follow");
                    tokio::time::sleep(backoff.next_pause()).await;
                    continue;
                }
            };
            let (back, ended) = follower.follow_one(&client, &address, channel, &mut backoff).await;
            follower = back;
            let applied = follower.feed.provenance().last_offset;
            match ended {
                Ended::Senseless(source) if source.is_fatal() => {
                    error!(%applied, error = %source, "the metadata cannot be followed");
                    return LoaderFault { applied, source };
                }
                Ended::Senseless(error) => {
                    warn!(controller = %address, %applied, %error, "metadata feed made no sense");
                    client.on_failure(&address, &RpcError::Failed { message: error.to_string() });
                }
                Ended::Broken(error @ RpcError::ForeignQuorum { .. }) => {
                    if let Some(held_back) = follower.foreign.take() {
                        warn!(
                            controller = %address, %error, held_back,
                            "the metadata of this controller is not followed: restore the metadata that this broker knows, or have it begin anew"
                        );
                    }
                    client.on_failure(&address, &error);
                }
                Ended::Broken(error) => {
                    debug!(controller = %address, %applied, %error, "metadata feed ended");
                    client.on_failure(&address, &error);
                }
                Ended::Moved => {
                    debug!(controller = %address, %applied, "metadata feed is elsewhere");
                    continue;
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

impl Follower {
    /// Follows one stream to its end.
    async fn follow_one(
        mut self,
        client: &ControllerClient,
        address: &NodeAddress,
        channel: Channel,
        backoff: &mut Backoff,
    ) -> (Self, Ended) {
        let mut active = client.active_changes();
        let mut stream = match self.open(client, channel).await {
            Ok(stream) => stream,
            Err(error) => return (self, Ended::Broken(error)),
        };
        self.feed.on_reconnected();
        let mut is_new = true;
        loop {
            let event = tokio::select! {
                biased;
                () = active.away_from(address) => return (self, Ended::Moved),
                event = tokio::time::timeout(SILENCE_MAX, stream.message()) => event,
            };
            let event = match event {
                Err(_) => return (self, Ended::Broken(RpcError::TimedOut)),
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => {
                    let reason = "the controller ended the stream".to_owned();
                    return (self, Ended::Broken(RpcError::Lost { reason }));
                }
                Ok(Err(status)) => return (self, Ended::Broken(status.into())),
            };
            if std::mem::take(&mut is_new) {
                backoff.reset();
                debug!(controller = %address, "the metadata feed has begun");
            }
            self.tell_followed(address);
            let (back, outcome) = self.take(event).await;
            self = back;
            if let Err(error) = outcome {
                return (self, Ended::Senseless(error));
            }
        }
    }

    /// Says who is followed if that is somebody else than was said last; if it was said a moment ago, a later event of the
    /// stream does.
    fn tell_followed(&mut self, address: &NodeAddress) {
        if self.told.as_ref() == Some(address) {
            return;
        }
        if let Some(held_back) = self.budget.take() {
            let applied = self.feed.provenance().last_offset;
            info!(controller = %address, %applied, held_back, "following the metadata");
            self.told = Some(address.clone());
        }
    }

    async fn open(
        &self,
        client: &ControllerClient,
        channel: Channel,
    ) -> Result<Streaming<pb::FollowEvent>, RpcError> {
        let provenance = self.feed.provenance();
        let request = pb::FollowRequest {
            from_offset: provenance.last_offset.next().0,
            previous_epoch: provenance.last_epoch,
            event_bytes_max: EVENT_BYTES_MAX,
            ..client.identity().follow_request()
        };
        let bytes_max = Lane::Control.limits().message_bytes_max;
        let mut feed = MetadataFeedClient::new(channel).max_decoding_message_size(bytes_max);
        // Without a timeout in the request: the stream lasts.
        Deadline::after(OPEN_TIMEOUT).run(feed.follow(request)).await
    }

    /// Takes one event, and has everybody act on what it brings.
    async fn take(mut self, event: pb::FollowEvent) -> (Self, Result<(), FeedError>) {
        let (feed, outcome) = replay(self.feed, event).await;
        self.feed = feed;
        let step = match outcome {
            Ok(Some(step)) => step,
            Ok(None) => return (self, Ok(())),
            Err(error) => return (self, Err(error)),
        };
        // Before anything is done by it: what a broker does by a foreign quorum's metadata is to delete.
        if let Some(Err(foreign)) = step.image.quorum_id.map(|quorum| self.quorum.settle(quorum)) {
            return (self, Err(foreign.into()));
        }
        self.cache.publish(Arc::clone(&step.image));
        for publisher in &mut self.publishers {
            publisher.publish(&step.delta, &step.image).await;
        }
        self.cache.on_applied(step.image.provenance.last_offset);
        (self, Ok(()))
    }
}

/// What `event` comes to; a large one is replayed on a thread for such work.
async fn replay(mut feed: Feed, event: pb::FollowEvent) -> (Feed, Result<Option<Step>, FeedError>) {
    if records(&event) <= INLINE_RECORDS_MAX {
        let outcome = feed.on_event(event);
        return (feed, outcome);
    }
    let replayed = tokio::task::spawn_blocking(move || {
        let outcome = feed.on_event(event);
        (feed, outcome)
    });
    match replayed.await {
        Ok(replayed) => replayed,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// How many records an event brings; the end of a snapshot brings all of them to bear.
fn records(event: &pb::FollowEvent) -> usize {
    use pb::follow_event::Event;
    use pb::snapshot_part::Part;
    match &event.event {
        Some(Event::Entries(entries)) => {
            entries.entries.iter().filter_map(|entry| Some(entry.batch.as_ref()?.records.len())).sum()
        }
        Some(Event::Snapshot(part)) => match &part.part {
            Some(Part::Chunk(chunk)) => chunk.records.len(),
            Some(Part::Trailer(_)) => usize::MAX,
            Some(Part::Header(_)) | None => 0,
        },
        Some(Event::Idle(_) | Event::Behind(_)) | None => 0,
    }
}

#[cfg(test)]
#[path = "loader_test.rs"]
mod tests;
