//! The fetches that wait for one leader broker: which are to be sent, which were, and what has come of each so far.
//!
//! Pure bookkeeping. A fetch stands from when the partition asked until it is answered, cancelled or replaced; the loss
//! of a stream does not end it: it is sent again over the next one.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use foldhash::{HashMap, HashMapExt as _};
use klamm_pb::replication::v1 as pb;
use klamm_replica::{FetchId, FollowerFetch};

use super::wire::{PartitionKey, WireError, fetch_to_pb};

/// The most fetches and cancellations in one message.
const FETCHES_PER_REQUEST_MAX: usize = 1024;

/// Where the length field of a batch starts, and where it ends; the length counts from there.
const LENGTH_FIELD: std::ops::Range<usize> = 8..12;

/// One partition's fetch. `P` is who asked.
#[derive(Debug)]
pub(crate) struct StandingFetch<P> {
    pub(crate) key: PartitionKey,
    pub(crate) partition: P,
    pub(crate) id: FetchId,
    pub(crate) fetch: FollowerFetch,
    was_sent: bool,
    parts: Option<Parts>,
}

/// The parts of a batch that does not fit into one message, as far as they have come.
#[derive(Debug)]
struct Parts {
    bytes: BytesMut,
    size_max: usize,
}

/// All fetches that wait for one leader broker; at most one of each partition.
#[derive(Debug)]
pub(crate) struct StandingFetches<P> {
    by_wire_id: HashMap<u64, StandingFetch<P>>,
    by_partition: HashMap<PartitionKey, u64>,
    /// May name fetches that stand no longer.
    unsent: VecDeque<u64>,
    /// To be sent later; may name fetches that stand no longer.
    held: Vec<u64>,
    cancelled: Vec<u64>,
    last_wire_id: u64,
}

/// What an answer's bytes make.
#[derive(Debug)]
pub(crate) enum Received<P> {
    /// The fetch is answered, with these batches.
    Whole(StandingFetch<P>, Bytes),
    /// More is to come.
    Part,
    /// Nobody waits for it any longer.
    Unwanted,
}

impl<P> StandingFetches<P> {
    pub(crate) fn new() -> Self {
        Self {
            by_wire_id: HashMap::new(),
            by_partition: HashMap::new(),
            unsent: VecDeque::new(),
            held: Vec::new(),
            cancelled: Vec::new(),
            last_wire_id: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_wire_id.len()
    }

    /// Adds a fetch; it replaces an earlier one of the same partition, on the leader as well. With `hold` it is not sent
    /// before [`release_held`](Self::release_held).
    pub(crate) fn add(
        &mut self,
        key: PartitionKey,
        partition: P,
        id: FetchId,
        fetch: FollowerFetch,
        hold: bool,
    ) {
        self.last_wire_id += 1;
        let wire_id = self.last_wire_id;
        if let Some(replaced) = self.by_partition.insert(key, wire_id) {
            self.by_wire_id.remove(&replaced);
        }
        let standing = StandingFetch { key, partition, id, fetch, was_sent: false, parts: None };
        self.by_wire_id.insert(wire_id, standing);
        match hold {
            true => self.held.push(wire_id),
            false => self.unsent.push_back(wire_id),
        }
        self.forget_stale();
    }

    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets what was held be sent.
    pub(crate) fn release_held(&mut self) {
        self.unsent.extend(self.held.drain(..));
    }

    /// Drops the fetch of a partition, if it is this one; tells whether the leader has to know.
    pub(crate) fn cancel(&mut self, key: PartitionKey, id: FetchId) -> bool {
        let Some(&wire_id) = self.by_partition.get(&key) else { return false };
        if self.by_wire_id.get(&wire_id).is_none_or(|standing| standing.id != id) {
            return false;
        }
        let was_sent = self.take(wire_id).is_some_and(|standing| standing.was_sent);
        if was_sent {
            self.cancelled.push(wire_id);
        }
        self.forget_stale();
        was_sent
    }

    /// What is to be sent next; `None` if nothing is.
    pub(crate) fn take_request(&mut self) -> Option<pb::FetchRequest> {
        let mut request = pb::FetchRequest::default();
        let cancelled = self.cancelled.len().min(FETCHES_PER_REQUEST_MAX);
        request.cancelled.extend(self.cancelled.drain(..cancelled));
        while request.fetches.len() < FETCHES_PER_REQUEST_MAX
            && let Some(wire_id) = self.unsent.pop_front()
        {
            if let Some(standing) = self.by_wire_id.get_mut(&wire_id) {
                standing.was_sent = true;
                request.fetches.push(fetch_to_pb(wire_id, standing.key, &standing.fetch));
            }
        }
        (!request.fetches.is_empty() || !request.cancelled.is_empty()).then_some(request)
    }

    /// The stream is gone and what was sent over it with it: all is to be sent again, oldest first.
    pub(crate) fn on_stream_lost(&mut self) {
        self.cancelled.clear();
        self.unsent.clear();
        self.held.clear();
        for standing in self.by_wire_id.values_mut() {
            standing.was_sent = false;
            standing.parts = None;
        }
        let mut wire_ids: Vec<u64> = self.by_wire_id.keys().copied().collect();
        wire_ids.sort_unstable();
        self.unsent.extend(wire_ids);
    }

    /// Takes the fetch that has this id on the wire; it is answered.
    pub(crate) fn take(&mut self, wire_id: u64) -> Option<StandingFetch<P>> {
        let standing = self.by_wire_id.remove(&wire_id)?;
        if self.by_partition.get(&standing.key) == Some(&wire_id) {
            self.by_partition.remove(&standing.key);
        }
        Some(standing)
    }

    /// Takes in the bytes of an answer.
    ///
    /// # Errors
    /// [`WireError`] if the parts of an answer make more than one batch.
    pub(crate) fn receive(
        &mut self,
        wire_id: u64,
        batches: Bytes,
        continues: bool,
    ) -> Result<Received<P>, WireError> {
        let Some(standing) = self.by_wire_id.get_mut(&wire_id) else { return Ok(Received::Unwanted) };
        if !continues && standing.parts.is_none() {
            let standing = self.take(wire_id);
            return Ok(standing.map_or(Received::Unwanted, |standing| Received::Whole(standing, batches)));
        }
        let parts = match &mut standing.parts {
            Some(parts) => parts,
            parts @ None => {
                let size_max = batch_size(&batches).ok_or(WireError::PartTooSmall { fetch_id: wire_id })?;
                parts.insert(Parts { bytes: BytesMut::new(), size_max })
            }
        };
        if parts.bytes.len() + batches.len() > parts.size_max {
            return Err(WireError::PartsTooLarge { fetch_id: wire_id, size_max: parts.size_max });
        }
        parts.bytes.extend_from_slice(&batches);
        if continues {
            return Ok(Received::Part);
        }
        let Some(mut standing) = self.take(wire_id) else { return Ok(Received::Unwanted) };
        let bytes = standing.parts.take().map(|parts| parts.bytes.freeze()).unwrap_or_default();
        Ok(Received::Whole(standing, bytes))
    }

    /// Takes all fetches, sent or not.
    pub(crate) fn take_all(&mut self) -> Vec<StandingFetch<P>> {
        self.unsent.clear();
        self.held.clear();
        self.cancelled.clear();
        self.by_partition.clear();
        self.by_wire_id.drain().map(|(_, standing)| standing).collect()
    }

    /// Keeps the queues in proportion to what stands, while nothing takes from them.
    fn forget_stale(&mut self) {
        let standing = &self.by_wire_id;
        let enough = 2 * standing.len() + 64;
        if self.unsent.len() > enough {
            self.unsent.retain(|id| standing.contains_key(id));
        }
        if self.held.len() > enough {
            self.held.retain(|id| standing.contains_key(id));
        }
    }
}

/// The size that a batch says it has.
fn batch_size(bytes: &[u8]) -> Option<usize> {
    let field: [u8; 4] = bytes.get(LENGTH_FIELD)?.try_into().ok()?;
    let length = usize::try_from(i32::from_be_bytes(field)).ok()?;
    length.checked_add(LENGTH_FIELD.end)
}

#[cfg(test)]
mod tests {
    use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId};

    use super::*;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: TopicId([1; 16]), partition: PartitionId(partition) }
    }

    fn fetch(offset: i64) -> FollowerFetch {
        FollowerFetch {
            broker: BrokerId(1),
            broker_epoch: BrokerEpoch(1),
            leader_epoch: LeaderEpoch(1),
            offset: Offset(offset),
            last_epoch: LeaderEpoch::NONE,
            log_start_offset: Offset(0),
            high_watermark: Offset(0),
        }
    }

    fn sent(fetches: &mut StandingFetches<()>) -> Vec<(u64, i64)> {
        let request = fetches.take_request().unwrap_or_default();
        request.fetches.iter().map(|fetch| (fetch.fetch_id, fetch.offset)).collect()
    }

    #[test]
    fn a_fetch_is_sent_once_and_answered_once() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        fetches.add(key(1), (), FetchId(1), fetch(20), false);
        assert_eq!(sent(&mut fetches), [(1, 10), (2, 20)]);
        assert!(fetches.take_request().is_none());
        assert!(fetches.take(1).is_some());
        assert!(fetches.take(1).is_none());
        assert_eq!(fetches.len(), 1);
    }

    #[test]
    fn a_new_fetch_replaces_the_earlier_one_of_its_partition() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        fetches.add(key(0), (), FetchId(2), fetch(11), false);
        assert_eq!(sent(&mut fetches), [(2, 11)]);
        fetches.add(key(0), (), FetchId(3), fetch(12), false);
        assert!(matches!(fetches.receive(2, Bytes::new(), false), Ok(Received::Unwanted)));
        assert_eq!(sent(&mut fetches), [(3, 12)]);
    }

    #[test]
    fn cancelling_tells_the_leader_only_of_what_it_knows() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        assert!(!fetches.cancel(key(0), FetchId(1)));
        assert!(fetches.take_request().is_none() && fetches.len() == 0);
        fetches.add(key(0), (), FetchId(2), fetch(10), false);
        assert_eq!(sent(&mut fetches), [(2, 10)]);
        assert!(!fetches.cancel(key(0), FetchId(1)));
        assert_eq!(fetches.len(), 1, "another fetch than the one that is cancelled");
        assert!(fetches.cancel(key(0), FetchId(2)));
        assert_eq!(fetches.take_request().unwrap().cancelled, [2]);
    }

    #[test]
    fn a_lost_stream_voids_what_was_sent_and_in_part_received() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        fetches.add(key(1), (), FetchId(1), fetch(20), false);
        assert_eq!(sent(&mut fetches).len(), 2);
        assert!(fetches.cancel(key(1), FetchId(1)));
        let part = batch_of(100).slice(..50);
        assert!(matches!(fetches.receive(1, part, true), Ok(Received::Part)));
        fetches.on_stream_lost();
        let request = fetches.take_request().unwrap();
        assert!(request.cancelled.is_empty());
        assert_eq!(request.fetches.len(), 1);
        let Ok(Received::Whole(_, bytes)) = fetches.receive(1, batch_of(100), false) else { panic!() };
        assert_eq!(bytes, batch_of(100));
    }

    /// Bytes that begin like a batch of this size.
    fn batch_of(size: usize) -> Bytes {
        let mut bytes = vec![3; size];
        bytes[LENGTH_FIELD].copy_from_slice(&i32::try_from(size - 12).unwrap().to_be_bytes());
        Bytes::from(bytes)
    }

    #[test]
    fn parts_of_a_large_batch_become_one() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        let batch = batch_of(1000);
        assert!(matches!(fetches.receive(1, batch.slice(..400), true), Ok(Received::Part)));
        assert!(matches!(fetches.receive(1, batch.slice(400..800), true), Ok(Received::Part)));
        let Ok(Received::Whole(standing, bytes)) = fetches.receive(1, batch.slice(800..), false) else {
            panic!("the last part completes the batch")
        };
        assert_eq!((standing.id, bytes), (FetchId(1), batch));
    }

    #[test]
    fn parts_that_make_no_batch_are_refused() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), false);
        let short = Bytes::from_static(b"0123456789");
        assert!(matches!(fetches.receive(1, short, true), Err(WireError::PartTooSmall { fetch_id: 1 })));
        let batch = batch_of(100);
        assert!(matches!(fetches.receive(1, batch.clone(), true), Ok(Received::Part)));
        assert!(matches!(
            fetches.receive(1, batch, true),
            Err(WireError::PartsTooLarge { fetch_id: 1, size_max: 100 })
        ));
    }

    #[test]
    fn what_is_held_goes_out_when_it_is_released() {
        let mut fetches = StandingFetches::new();
        fetches.add(key(0), (), FetchId(1), fetch(10), true);
        fetches.add(key(1), (), FetchId(1), fetch(20), true);
        assert!(fetches.take_request().is_none() && fetches.has_held());
        assert!(!fetches.cancel(key(1), FetchId(1)));
        fetches.release_held();
        assert_eq!(sent(&mut fetches), [(1, 10)]);
        assert!(!fetches.has_held());
    }

    #[test]
    fn what_waits_for_a_dead_leader_stays_bounded() {
        let mut fetches = StandingFetches::new();
        for id in 0..10_000 {
            fetches.add(key(0), (), FetchId(id), fetch(10), false);
        }
        assert!(fetches.unsent.len() < 100);
        assert_eq!(sent(&mut fetches), [(10_000, 10)]);
    }
}
