//! One follower's stream: the fetches it waits for, and the answers that it gets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _};
use klamm_pb::replication::v1 as pb;
use klamm_replica::{FetchBounds, FetchRefusal, FollowerFetch};
use klamm_types::BrokerId;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::fetcher::wire::{PartitionKey, fetch_from_pb, refusal_to_pb};
use crate::partition::{Interest, PartitionHandle, Wakes, Watch};

use super::Context;
use super::reader::BatchReader;

/// A message is sent when its batches have this many bytes. A batch that is larger is sent in parts of this size.
const MESSAGE_BYTES: usize = 1 << 20;
/// A message that has no more room than this for batches is full.
const MESSAGE_ROOM_MIN: usize = 64 << 10;
/// The most answers in a message.
const ANSWERS_MAX: usize = 1024;
/// While so many answers wait for the transport, no more requests are read.
const ANSWERS_WAITING_MAX: usize = 1 << 16;
/// How long an answer without records may wait for records that it could go with. Nobody waits for it but readers of a
/// follower.
const BOUNDS_LINGER: Duration = Duration::from_millis(5);

/// The partitions of a session that have changed.
#[derive(Debug, Default)]
struct Changed {
    keys: Mutex<Vec<PartitionKey>>,
    notify: Notify,
}

/// What one partition wakes. Only the first change since it was armed is told.
#[derive(Debug)]
struct Bell {
    key: PartitionKey,
    armed: AtomicBool,
    changed: Arc<Changed>,
}

impl Wakes for Bell {
    fn wake(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            self.changed.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.changed.notify.notify_one();
        }
    }
}

/// A partition that the follower has asked for at least once.
#[derive(Debug)]
struct Followed {
    partition: PartitionHandle,
    fetch: Option<StandingFetch>,
    /// Whether it stands in the queue of what is to be read.
    queued: bool,
    bell: Arc<Bell>,
    _watch: Watch,
}

/// A fetch without an answer.
#[derive(Clone, Copy, Debug)]
struct StandingFetch {
    id: u64,
    fetch: FollowerFetch,
}

/// What there is to say to a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Records,
    /// A higher high watermark or log start that the follower can take over without records.
    Bounds,
    Nothing,
}

/// The rest of a batch that is sent in parts.
#[derive(Debug)]
struct Rest {
    fetch_id: u64,
    batch: Bytes,
    bounds: FetchBounds,
}

/// One stream of one follower.
#[derive(Debug)]
pub(super) struct FollowerSession {
    context: Arc<Context>,
    follower: BrokerId,
    partition_bytes_max: usize,
    responses: mpsc::Sender<Result<pb::FetchResponse, Status>>,
    followed: HashMap<PartitionKey, Followed>,
    by_fetch_id: HashMap<u64, PartitionKey>,
    changed: Arc<Changed>,
    /// Answers that are ready to be sent.
    answers: VecDeque<pb::PartitionAnswer>,
    /// Partitions with something to read, oldest first.
    readable: VecDeque<PartitionKey>,
    /// Partitions with bounds to tell, and until when that may wait.
    lingering: Vec<PartitionKey>,
    linger_until: Option<Instant>,
    rest: Option<Rest>,
    reader: BatchReader,
}

impl FollowerSession {
    pub(super) fn new(
        context: Arc<Context>,
        follower: BrokerId,
        partition_bytes_max: usize,
        responses: mpsc::Sender<Result<pb::FetchResponse, Status>>,
    ) -> Self {
        Self {
            context,
            follower,
            partition_bytes_max,
            responses,
            followed: HashMap::new(),
            by_fetch_id: HashMap::new(),
            changed: Arc::default(),
            answers: VecDeque::new(),
            readable: VecDeque::new(),
            lingering: Vec::new(),
            linger_until: None,
            rest: None,
            reader: BatchReader::default(),
        }
    }

    /// Serves the stream until the follower or the broker ends it.
    pub(super) async fn run(
        mut self,
        first: pb::FetchRequest,
        mut requests: Streaming<pb::FetchRequest>,
        mut stop: watch::Receiver<bool>,
    ) {
        let accepted = pb::FetchSessionAccepted { broker_epoch: self.context.hosted.broker_epoch().0 };
        let opening = pb::FetchResponse { accepted: Some(accepted), answers: Vec::new() };
        let served = async {
            if self.responses.send(Ok(opening)).await.is_ok() {
                self.serve(first, &mut requests).await;
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = served => {}
        }
    }

    async fn serve(&mut self, first: pb::FetchRequest, requests: &mut Streaming<pb::FetchRequest>) {
        let mut outcome = self.on_request(&first);
        let responses = self.responses.clone();
        let changed = Arc::clone(&self.changed);
        loop {
            if let Err(status) = outcome {
                // An error means that the follower is gone, which is what it would have been told.
                let _ = responses.send(Err(status)).await;
                return;
            }
            let linger_until = self.linger_until;
            outcome = tokio::select! {
                biased;
                request = requests.message(), if self.answers.len() < ANSWERS_WAITING_MAX => match request {
                    Ok(Some(request)) => self.on_request(&request),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(follower = %self.follower, %error, "the stream of a follower is gone");
                        return;
                    }
                },
                () = changed.notify.notified() => {
                    self.on_changed();
                    Ok(())
                }
                () = sleep_until(linger_until) => {
                    self.on_lingered();
                    Ok(())
                }
                permit = responses.reserve(), if self.has_answers() => match permit {
                    Ok(permit) => {
                        let response = self.next_response();
                        if !response.answers.is_empty() {
                            permit.send(Ok(response));
                        }
                        Ok(())
                    }
                    Err(_) => return,
                },
            };
        }
    }

    fn on_request(&mut self, request: &pb::FetchRequest) -> Result<(), Status> {
        for fetch_id in &request.cancelled {
            self.on_cancelled(*fetch_id);
        }
        for fetch in &request.fetches {
            let decoded = fetch_from_pb(self.follower, fetch);
            let (key, follower_fetch) =
                decoded.map_err(|error| Status::invalid_argument(error.to_string()))?;
            self.on_fetch(fetch.fetch_id, key, follower_fetch);
        }
        Ok(())
    }

    fn on_cancelled(&mut self, fetch_id: u64) {
        if let Some(key) = self.by_fetch_id.remove(&fetch_id)
            && let Some(followed) = self.followed.get_mut(&key)
            && followed.fetch.is_some_and(|standing| standing.id == fetch_id)
        {
            followed.fetch = None;
        }
        if self.rest.as_ref().is_some_and(|rest| rest.fetch_id == fetch_id) {
            self.rest = None;
        }
    }

    fn on_fetch(&mut self, id: u64, key: PartitionKey, fetch: FollowerFetch) {
        if !self.followed.contains_key(&key) {
            let Some(partition) = self.context.hosted.hosted(key.topic, key.partition) else {
                return self.answers.push_back(refused(id, FetchRefusal::NotLeader));
            };
            self.followed.insert(key, Followed::new(key, partition, &self.changed));
        }
        let Some(followed) = self.followed.get_mut(&key) else { return };
        let standing = StandingFetch { id, fetch };
        if let Some(replaced) = followed.fetch.replace(standing) {
            self.by_fetch_id.remove(&replaced.id);
        }
        self.by_fetch_id.insert(id, key);
        // Armed before the question, so that no change after the answer goes unheard.
        followed.bell.armed.store(true, Ordering::Release);
        let checked = followed.partition.on_follower_fetch(&fetch);
        self.judge(key, checked);
    }

    fn on_changed(&mut self) {
        let keys = std::mem::take(&mut *self.changed.keys.lock().unwrap_or_else(PoisonError::into_inner));
        for key in keys {
            self.look_again(key);
        }
    }

    fn on_lingered(&mut self) {
        self.linger_until = None;
        for key in std::mem::take(&mut self.lingering) {
            let Some(followed) = self.followed.get_mut(&key) else { continue };
            let Some(standing) = followed.fetch.filter(|_| !followed.queued) else { continue };
            match followed.partition.check_follower_fetch(&standing.fetch) {
                Ok(bounds) if news(&bounds, &standing.fetch) == News::Bounds => {
                    self.finish(key, records(standing.id, Bytes::new(), &bounds, false));
                }
                checked => self.judge(key, checked),
            }
        }
    }

    /// A partition has changed, or may have.
    fn look_again(&mut self, key: PartitionKey) {
        let Some(followed) = self.followed.get_mut(&key) else { return };
        let Some(standing) = followed.fetch.filter(|_| !followed.queued) else { return };
        followed.bell.armed.store(true, Ordering::Release);
        let checked = followed.partition.check_follower_fetch(&standing.fetch);
        self.judge(key, checked);
    }

    /// Decides what becomes of the fetch of a partition: it is refused, queued to be answered, or held.
    fn judge(&mut self, key: PartitionKey, checked: Result<FetchBounds, FetchRefusal>) {
        let Some(followed) = self.followed.get_mut(&key) else { return };
        let Some(standing) = followed.fetch else { return };
        match checked.map(|bounds| news(&bounds, &standing.fetch)) {
            Err(refusal) => {
                let answer = refused(standing.id, refusal);
                self.finish(key, answer);
                // The replica may be another by the next time.
                self.followed.remove(&key);
            }
            Ok(News::Records) if followed.queued => {}
            Ok(News::Records)
                if self.context.is_throttled(&followed.partition, self.follower)
                    && self.context.is_exhausted() =>
            {
                self.linger(key);
            }
            Ok(News::Records) => {
                followed.queued = true;
                self.readable.push_back(key);
            }
            Ok(News::Bounds) => self.linger(key),
            Ok(News::Nothing) => {}
        }
    }

    /// Looks at the partition again a little later.
    fn linger(&mut self, key: PartitionKey) {
        self.lingering.push(key);
        self.linger_until.get_or_insert_with(|| Instant::now() + BOUNDS_LINGER);
    }

    /// Takes the fetch of a partition as answered.
    fn finish(&mut self, key: PartitionKey, answer: pb::PartitionAnswer) {
        self.by_fetch_id.remove(&answer.fetch_id);
        if let Some(followed) = self.followed.get_mut(&key) {
            followed.fetch = None;
            followed.bell.armed.store(false, Ordering::Release);
        }
        self.answers.push_back(answer);
    }

    fn has_answers(&self) -> bool {
        !self.answers.is_empty() || !self.readable.is_empty() || self.rest.is_some()
    }

    /// The next message: what is ready, then as many batches as it has room for.
    fn next_response(&mut self) -> pb::FetchResponse {
        let mut bytes = 0;
        if let Some(rest) = self.rest.take() {
            bytes = rest.batch.len().min(MESSAGE_BYTES);
            let part = self.next_part(rest);
            self.answers.push_back(part);
        }
        while bytes + MESSAGE_ROOM_MIN <= MESSAGE_BYTES && self.answers.len() < ANSWERS_MAX {
            let Some(key) = self.readable.pop_front() else { break };
            bytes += self.read(key, MESSAGE_BYTES - bytes);
        }
        let count = self.answers.len().min(ANSWERS_MAX);
        pb::FetchResponse { accepted: None, answers: self.answers.drain(..count).collect() }
    }

    /// Reads for the fetch of a partition and answers it. Returns the number of bytes read.
    fn read(&mut self, key: PartitionKey, room: usize) -> usize {
        let Some(followed) = self.followed.get_mut(&key) else { return 0 };
        followed.queued = false;
        let Some(StandingFetch { id, fetch }) = followed.fetch else { return 0 };
        let bytes_max = self.partition_bytes_max.min(room);
        let read = self.reader.read(&followed.partition, &fetch, bytes_max);
        match read {
            Ok(Some((bounds, batches))) => {
                let bytes = batches.len();
                if self.context.is_throttled(&followed.partition, self.follower) {
                    self.context.throttle.take(bytes);
                }
                let answer = match batches.len() > MESSAGE_BYTES {
                    true => self.next_part(Rest { fetch_id: id, batch: batches, bounds }),
                    false => records(id, batches, &bounds, false),
                };
                self.finish(key, answer);
                bytes
            }
            // The log is about to change: look again, but not at once.
            Ok(None) => {
                self.linger(key);
                0
            }
            Err(refusal) => {
                self.judge(key, Err(refusal));
                0
            }
        }
    }

    /// One part of a batch that is too large for a message; the rest is kept for the next.
    fn next_part(&mut self, mut rest: Rest) -> pb::PartitionAnswer {
        let part = rest.batch.split_to(MESSAGE_BYTES.min(rest.batch.len()));
        let continues = !rest.batch.is_empty();
        let answer = records(rest.fetch_id, part, &rest.bounds, continues);
        if continues {
            self.rest = Some(rest);
        }
        answer
    }
}

impl Followed {
    fn new(key: PartitionKey, partition: PartitionHandle, changed: &Arc<Changed>) -> Self {
        let bell = Arc::new(Bell { key, armed: AtomicBool::new(false), changed: Arc::clone(changed) });
        let watch = partition.watch_with(Interest::Anything, Arc::clone(&bell) as Arc<dyn Wakes>);
        Self { partition, fetch: None, queued: false, bell, _watch: watch }
    }
}

/// What the bounds are to a follower that knows what its fetch says.
fn news(bounds: &FetchBounds, fetch: &FollowerFetch) -> News {
    if bounds.log_end_offset > fetch.offset {
        return News::Records;
    }
    let high_watermark = bounds.high_watermark.min(fetch.offset).max(fetch.high_watermark);
    let log_start_offset = bounds.log_start_offset.min(high_watermark);
    if high_watermark > fetch.high_watermark || log_start_offset > fetch.log_start_offset {
        return News::Bounds;
    }
    News::Nothing
}

fn records(fetch_id: u64, batches: Bytes, bounds: &FetchBounds, continues: bool) -> pb::PartitionAnswer {
    let records = pb::FetchedRecords {
        batches,
        high_watermark: bounds.high_watermark.0,
        log_start_offset: bounds.log_start_offset.0,
        continues,
    };
    pb::PartitionAnswer { fetch_id, outcome: Some(pb::partition_answer::Outcome::Records(records)) }
}

fn refused(fetch_id: u64, refusal: FetchRefusal) -> pb::PartitionAnswer {
    let outcome = pb::partition_answer::Outcome::Refusal(refusal_to_pb(refusal));
    pb::PartitionAnswer { fetch_id, outcome: Some(outcome) }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
