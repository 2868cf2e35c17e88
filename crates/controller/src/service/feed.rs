//! The metadata feed: what is committed, from an offset on, for as long as both sides live.
//!
//! Any controller serves it that is in touch with the quorum. Events are made only as fast as the follower takes them;
//! one that is too slow for the log gets a snapshot of the newest image instead of what it missed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use klamm_metadata::{MetadataImage, SnapshotWriter};
use klamm_pb::metadata::v1 as pb;
use klamm_rpc::stubs::metadata::v1::metadata_feed_server::MetadataFeed;
use openraft::raft::ReadPolicy;
use openraft::{Instant as _, RaftLogReader as _};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Contact, ServiceParts};
use crate::raft::{Entry, EntryPayload, LogReader, Raft, SnapshotStore, WatchReceiver as _};
use crate::status::ControllerStatus;

/// How many events wait for the network.
const EVENTS_AHEAD: usize = 4;
/// The longest event if the follower does not say, in bytes.
const EVENT_BYTES_DEFAULT: usize = 1 << 20;
/// How long nothing is said before a sign of life is given.
const IDLE: Duration = Duration::from_millis(500);

type Event = pb::follow_event::Event;

/// The service.
pub(super) struct FeedService {
    parts: Arc<ServiceParts>,
}

impl FeedService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl MetadataFeed for FeedService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<pb::FollowEvent, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<pb::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let message = request.into_inner();
        self.parts.identity.admit_follower(&message)?;
        let from = u64::try_from(message.from_offset)
            .map_err(|_| Status::invalid_argument(format!("{} is no offset", message.from_offset)))?;
        let parts = &self.parts;
        if !parts.status.borrow().is_ready {
            return Err(Status::unavailable("this controller has not caught up yet"));
        }
        let (events, stream) = mpsc::channel(EVENTS_AHEAD);
        let bytes_max = usize::try_from(message.event_bytes_max).ok().filter(|bytes| *bytes > 0);
        let feed = Feed {
            committed: parts.committed.clone(),
            reader: parts.reader.clone(),
            snapshots: Arc::clone(&parts.snapshots),
            touch: Touch {
                raft: parts.raft.clone(),
                status: parts.status.clone(),
                contact: Arc::clone(&parts.contact),
                lease: parts.lease,
            },
            events,
            bytes_max: bytes_max.unwrap_or(EVENT_BYTES_DEFAULT),
            next: from,
        };
        tokio::spawn(feed.run(message.previous_epoch, parts.stopped.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Whether this controller can still tell what is committed.
struct Touch {
    raft: Raft,
    status: watch::Receiver<ControllerStatus>,
    contact: Arc<Contact>,
    lease: Duration,
}

impl Touch {
    /// Whether this is the active controller, as a majority confirms now: it has all that was committed before.
    async fn is_confirmed(&self) -> bool {
        self.status.borrow().is_active && self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok()
    }

    fn is_in_touch(&self) -> bool {
        if self.status.borrow().is_active {
            return true;
        }
        let metrics = self.raft.metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        let acked = acked.is_some_and(|acked| acked.elapsed() <= self.lease);
        acked || self.contact.is_within(self.lease)
    }
}

/// One follower's stream.
struct Feed {
    committed: watch::Receiver<MetadataImage>,
    reader: LogReader,
    snapshots: Arc<SnapshotStore>,
    touch: Touch,
    events: mpsc::Sender<Result<pb::FollowEvent, Status>>,
    bytes_max: usize,
    /// The next offset to send.
    next: u64,
}

/// The follower is gone.
struct Gone;

impl Feed {
    async fn run(mut self, previous_epoch: i64, mut stopped: watch::Receiver<bool>) {
        let events = self.events.clone();
        let end = tokio::select! {
            Err(end) = self.feed(previous_epoch) => end,
            _ = stopped.wait_for(|stopped| *stopped) => Some(Status::unavailable("the controller shuts down")),
            () = events.closed() => None,
        };
        if let Some(end) = end {
            let _ = events.send(Err(end)).await;
        }
    }

    /// Sends for ever; ends with what the follower is to be told, if it is still there.
    async fn feed(&mut self, previous_epoch: i64) -> Result<std::convert::Infallible, Option<Status>> {
        self.until_committed().await?;
        if !self.is_our_history(previous_epoch).await {
            self.send_snapshot().await.map_err(|Gone| None)?;
        }
        if self.next >= self.committed_end() {
            // Whoever has everything is told so at once.
            self.send_idle().await.map_err(|Gone| None)?;
        }
        loop {
            let end = self.committed_end();
            if self.next >= end {
                self.wait().await?;
                continue;
            }
            match self.reader.limited_get_log_entries(self.next, end).await {
                Ok(entries) => self.send_entries(entries, end).await?,
                // The log does not reach back that far any more.
                Err(_) if !self.is_held(self.next) => self.send_snapshot().await.map_err(|Gone| None)?,
                Err(error) => {
                    tracing::error!(%error, offset = self.next, "the metadata log cannot be read");
                    return Err(Some(Status::internal("the metadata log cannot be read")));
                }
            }
        }
    }

    fn committed_end(&self) -> u64 {
        self.committed.borrow().provenance.last_offset.next().0.cast_unsigned()
    }

    /// A follower that is ahead of this controller waits for it, unless nobody is as far: then it follows another
    /// history than the quorum's.
    async fn until_committed(&mut self) -> Result<(), Option<Status>> {
        while self.committed_end() < self.next {
            if self.touch.is_confirmed().await && self.committed_end() < self.next {
                let committed_end_offset = self.committed_end().cast_signed();
                tracing::error!(
                    committed_end_offset,
                    applied_end_offset = self.next,
                    "a node has applied metadata that the quorum does not have: the disks of the controllers were replaced by older copies"
                );
                let behind = Event::Behind(pb::FeedBehind { committed_end_offset });
                self.send(behind).await.map_err(|Gone| None)?;
                return Err(Some(Status::data_loss("the quorum has gone back")));
            }
            self.wait().await?;
        }
        Ok(())
    }

    /// Whether the follower has what the quorum committed before `next`. If that cannot be told, it does not.
    async fn is_our_history(&mut self, previous_epoch: i64) -> bool {
        let Some(previous) = self.next.checked_sub(1) else { return true };
        let provenance = self.committed.borrow().provenance;
        let known = if provenance.last_offset.0.cast_unsigned() == previous {
            Some(provenance.last_epoch)
        } else {
            let entry = self.reader.limited_get_log_entries(previous, self.next).await;
            let entry = entry.ok().and_then(|entries| entries.into_iter().next());
            let snapshot = self.snapshots.current().and_then(|snapshot| snapshot.meta.last_log_id);
            let term = entry.map(|entry| entry.log_id).or(snapshot).filter(|log_id| log_id.index == previous);
            term.map(|log_id| log_id.leader_id.term.cast_signed())
        };
        known == Some(previous_epoch)
    }

    /// Whether the log still has the entry.
    fn is_held(&self, index: u64) -> bool {
        self.reader.first_index().is_some_and(|first| first <= index)
    }

    /// Waits for something new, and says now and then that there is nothing.
    async fn wait(&mut self) -> Result<(), Option<Status>> {
        match tokio::time::timeout(IDLE, self.committed.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Some(Status::unavailable("the controller has stopped"))),
            Err(_) if self.touch.is_in_touch() => self.send_idle().await.map_err(|Gone| None),
            Err(_) => Err(Some(Status::unavailable("this controller is out of touch with the quorum"))),
        }
    }

    async fn send_idle(&self) -> Result<(), Gone> {
        let committed_end_offset = self.committed_end().cast_signed();
        self.send(Event::Idle(pb::FeedIdle { committed_end_offset })).await
    }

    async fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.send(Ok(pb::FollowEvent { event: Some(event) })).await.map_err(|_| Gone)
    }

    async fn send_entries(&mut self, entries: Vec<Entry>, end: u64) -> Result<(), Option<Status>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let index = entry.log_id.index;
            let entry = committed_entry(entry).map_err(|error| {
                tracing::error!(%error, index, "a committed entry cannot be understood");
                Some(Status::internal("the metadata log cannot be understood"))
            })?;
            let len = entry.encoded_len();
            if !batch.is_empty() && bytes + len > self.bytes_max {
                self.send_batch(std::mem::take(&mut batch), end).await.map_err(|Gone| None)?;
                bytes = 0;
            }
            bytes += len;
            batch.push(entry);
            self.next = index + 1;
        }
        self.send_batch(batch, end).await.map_err(|Gone| None)
    }

    async fn send_batch(&self, entries: Vec<pb::CommittedEntry>, end: u64) -> Result<(), Gone> {
        if entries.is_empty() {
            return Ok(());
        }
        let committed_end_offset = end.cast_signed();
        self.send(Event::Entries(pb::CommittedEntries { entries, committed_end_offset })).await
    }

    /// Sends the newest image, part by part, and goes on after it.
    async fn send_snapshot(&mut self) -> Result<(), Gone> {
        let image = self.committed.borrow().clone();
        self.next = image.provenance.last_offset.next().0.cast_unsigned();
        let (parts, mut encoded) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            for part in SnapshotWriter::new(&image).parts() {
                if parts.blocking_send(part).is_err() {
                    return;
                }
            }
        });
        while let Some(part) = encoded.recv().await {
            // What was just encoded decodes.
            let part = pb::SnapshotPart::decode(part).map_err(|_| Gone)?;
            self.send(Event::Snapshot(part)).await?;
        }
        Ok(())
    }
}

fn committed_entry(entry: Entry) -> Result<pb::CommittedEntry, prost::DecodeError> {
    let batch = match entry.payload {
        EntryPayload::Normal(records) => Some(pb::RecordBatch::decode(records.0)?),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    };
    let log_id = entry.log_id;
    Ok(pb::CommittedEntry {
        offset: log_id.index.cast_signed(),
        epoch: log_id.leader_id.term.cast_signed(),
        batch,
    })
}
