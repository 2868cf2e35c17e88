//! Looking for what a fetch wants, and waiting for it.

use std::sync::Arc;

use klamm_broker::PartitionHandle;
use klamm_broker::partition::{Interest, PartitionRead, ReadFrom, ReadIsolation, ReadRequest, WakeUp, Watch};
use klamm_log::LogSlice;
use klamm_protocol::messages::fetch_response::{AbortedTransaction, EpochEndOffset, PartitionData};
use klamm_protocol::{ErrorCode, Records};
use klamm_types::{BrokerId, Offset, TopicId};
use tokio::time::{Instant, timeout_at};

use crate::closest_replica::{Consumer, ReplicaSelector};
use crate::data_plane::{DataPlane, known_epoch};
use crate::fetch_session::{FetchWish, PartitionKey};
use crate::partition_codes::{not_serving_code, read_code};

/// What bounds an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of records that are worth an answer before the time is over.
    pub(super) bytes_min: usize,
    /// Bytes of records that are enough, but at least one batch.
    pub(super) bytes_max: usize,
    /// How far the consumer may see.
    pub(super) isolation: ReadIsolation,
    /// Whether followers answer.
    pub(super) from: ReadFrom,
}

impl Limits {
    /// The same, but at most `bytes_max` bytes.
    pub(super) fn within(self, bytes_max: usize) -> Self {
        let bytes_max = self.bytes_max.min(bytes_max);
        Self { bytes_max, bytes_min: self.bytes_min.min(bytes_max), ..self }
    }
}

/// What a request asks for, with the partitions found.
pub(super) struct Search {
    pub(super) wishes: Vec<(PartitionKey, FetchWish)>,
    /// In the order of the wishes.
    pub(super) targets: Vec<Target>,
    limits: Limits,
    reader: Reader,
    plane: Arc<DataPlane>,
}

/// Who asks.
pub(super) struct Reader {
    /// Its `client.rack`; empty if it does not say.
    pub(super) rack: String,
    /// The listener that it is connected to.
    pub(super) listener: Arc<str>,
}

/// A partition asked for.
pub(super) struct Target {
    /// The topic, if it is known.
    pub(super) topic: Option<TopicId>,
    found: Result<PartitionHandle, ErrorCode>,
}

impl Target {
    fn is_unknown(&self) -> bool {
        matches!(self.found, Err(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId))
    }
}

/// What one look found, in the order of the wishes.
pub(super) struct Found {
    pub(super) partitions: Vec<(PartitionData, Option<LogSlice>)>,
    is_enough: bool,
}

impl Found {
    /// Whether waiting for more makes no sense.
    pub(super) fn is_enough(&self) -> bool {
        self.is_enough
    }
}

impl Search {
    pub(super) fn new(
        plane: &Arc<DataPlane>,
        wishes: Vec<(PartitionKey, FetchWish)>,
        limits: Limits,
        reader: Reader,
    ) -> Self {
        let image = plane.image();
        let target = |(key, _): &(PartitionKey, FetchWish)| match DataPlane::topic(&image, &key.topic) {
            Ok(topic) => Target { topic: Some(topic.id), found: plane.partition(&topic, key.partition) },
            Err(code) => Target { topic: None, found: Err(code) },
        };
        let targets = wishes.iter().map(target).collect();
        Self { wishes, targets, limits, reader, plane: Arc::clone(plane) }
    }

    pub(super) fn len(&self) -> usize {
        self.wishes.len()
    }

    /// Looks once at every partition. Finds where records lie, and does not read them.
    pub(super) fn look(&self) -> Found {
        let mut partitions = Vec::with_capacity(self.wishes.len());
        let (mut bytes, mut is_final) = (0, self.targets.iter().all(Target::is_unknown));
        for ((key, wish), target) in self.wishes.iter().zip(&self.targets) {
            let room = Room { bytes_left: self.limits.bytes_max.saturating_sub(bytes), is_first: bytes == 0 };
            let outcome = match &target.found {
                Ok(partition) => self.look_at(partition, key.partition, wish, room),
                Err(code) => (super::refusal(key.partition, *code), None),
            };
            let (data, slice) = &outcome;
            bytes = bytes.saturating_add(slice.as_ref().map_or(0, LogSlice::len));
            // One that nobody knows, as when it was deleted, does not end the wait for the others.
            is_final |= (data.error_code != ErrorCode::None as i16 && !target.is_unknown())
                || data.diverging_epoch != EpochEndOffset::default()
                || data.preferred_read_replica >= 0;
            partitions.push(outcome);
        }
        Found { partitions, is_enough: is_final || bytes >= self.limits.bytes_min }
    }

    /// Looks again and again, until there is enough or the time is over.
    pub(super) async fn wait(&self, deadline: Instant) -> Found {
        let wake_up = WakeUp::new();
        let partitions = self.targets.iter().filter_map(|target| target.found.as_ref().ok());
        let _watches: Vec<Watch> =
            partitions.map(|partition| partition.watch(Interest::Committed, &wake_up)).collect();
        loop {
            let found = self.look();
            if found.is_enough() {
                return found;
            }
            if timeout_at(deadline, wake_up.woken()).await.is_err() {
                return self.look();
            }
        }
    }

    fn look_at(
        &self,
        partition: &PartitionHandle,
        index: i32,
        wish: &FetchWish,
        room: Room,
    ) -> (PartitionData, Option<LogSlice>) {
        let epoch = known_epoch(wish.current_leader_epoch);
        let closer = self.closer_replica(partition, Offset(wish.fetch_offset));
        if closer.is_some() || (room.bytes_left == 0 && !room.is_first) {
            // There are records elsewhere, or no room for any: only the bounds are told.
            return match partition.check_serving(epoch, self.limits.from) {
                Ok(()) => {
                    let read = PartitionRead { outcome: partition.bounds(), diverging: None };
                    let preferred_read_replica = closer.map_or(-1, |broker| broker.0);
                    (PartitionData { preferred_read_replica, ..self.describe(index, &read) }, None)
                }
                Err(error) => (super::refusal(index, not_serving_code(&error)), None),
            };
        }
        let wanted = usize::try_from(wish.bytes_max).unwrap_or(0);
        let request = ReadRequest {
            offset: Offset(wish.fetch_offset),
            bytes_max: wanted.min(room.bytes_left),
            isolation: self.limits.isolation,
            from: self.limits.from,
            leader_epoch: epoch,
            last_fetched_epoch: known_epoch(wish.last_fetched_epoch),
        };
        match partition.read(&request) {
            Ok(mut read) => {
                // Only the first records of an answer may be more than is allowed.
                let fits = |slice: &LogSlice| room.is_first || slice.len() <= request.bytes_max;
                let slice = read.outcome.slice.take().filter(fits);
                if slice.is_none() {
                    read.outcome.aborted.clear();
                }
                (self.describe(index, &read), slice)
            }
            Err(error) => (super::refusal(index, read_code(&error)), None),
        }
    }

    /// The follower that this consumer should ask instead.
    fn closer_replica(&self, partition: &PartitionHandle, offset: Offset) -> Option<BrokerId> {
        let selector = self.plane.selector;
        if selector == ReplicaSelector::Leader || self.limits.from == ReadFrom::Leader {
            return None;
        }
        let consumer = Consumer { rack: &self.reader.rack, listener: &self.reader.listener };
        selector.select(&consumer, &self.plane.image(), partition, offset)
    }

    fn describe(&self, partition_index: i32, read: &PartitionRead) -> PartitionData {
        let PartitionRead { outcome, diverging } = read;
        let aborted = outcome.aborted.iter().map(|txn| AbortedTransaction {
            producer_id: txn.producer_id.0,
            first_offset: txn.first_offset.0,
        });
        let diverging =
            diverging.map(|end| EpochEndOffset { epoch: end.epoch.0, end_offset: end.end_offset.0 });
        let is_committed = self.limits.isolation == ReadIsolation::ReadCommitted;
        PartitionData {
            partition_index,
            error_code: ErrorCode::None as i16,
            high_watermark: outcome.high_watermark.0,
            last_stable_offset: outcome.last_stable_offset.0,
            log_start_offset: outcome.log_start_offset.0,
            diverging_epoch: diverging.unwrap_or_default(),
            aborted_transactions: is_committed.then(|| aborted.collect()),
            records: Some(Records::default()),
            ..PartitionData::default()
        }
    }
}

/// What is left of an answer's size.
#[derive(Clone, Copy)]
struct Room {
    bytes_left: usize,
    /// No records yet: the next batch is given whatever its size.
    is_first: bool,
}
