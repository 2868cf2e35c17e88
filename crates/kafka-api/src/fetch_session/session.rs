//! One fetch session.

use std::collections::{BTreeMap, HashMap};

use klamm_protocol::messages::fetch_response::{EpochEndOffset, PartitionData};
use klamm_protocol::{ErrorCode, Records};

use super::{FetchWish, Fetched, PartitionKey};

/// The high watermark that nothing equals: the next answer names the partition, whatever it says.
const UNTOLD: i64 = -1;

/// What one client asked for and was told, partition by partition, in the order in which they are served: who was
/// given records goes to the end, so that no partition starves another.
#[derive(Debug)]
pub(crate) struct Session {
    by_id: bool,
    /// The epoch that the next request must have.
    epoch: i32,
    places: HashMap<PartitionKey, u64>,
    partitions: BTreeMap<u64, (PartitionKey, Told)>,
    next_place: u64,
    cost: usize,
    is_retired: bool,
}

/// What the client wants of a partition, and what it knows of it.
#[derive(Clone, Copy, Debug)]
struct Told {
    wish: FetchWish,
    high_watermark: i64,
    log_start_offset: i64,
}

impl Session {
    /// The session that a full request opens, once it has been answered.
    pub(super) fn new(by_id: bool, wishes: &[(PartitionKey, FetchWish)], fetched: &[Fetched]) -> Self {
        let mut session = Self {
            by_id,
            epoch: 1,
            places: HashMap::new(),
            partitions: BTreeMap::new(),
            next_place: 0,
            cost: 0,
            is_retired: false,
        };
        wishes.iter().for_each(|(key, wish)| session.ask(key, *wish));
        for (key, data) in fetched {
            if let Some((_, told)) = session.partition(key) {
                told.note(data);
            }
        }
        session
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn by_id(&self) -> bool {
        self.by_id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Bytes that it takes, roughly.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Whether it has ended, and only a request that came late still holds it.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// Ends it: nothing is asked for any more. Returns the bytes that it took.
    pub(super) fn retire(&mut self) -> usize {
        self.is_retired = true;
        self.places.clear();
        self.partitions.clear();
        std::mem::take(&mut self.cost)
    }

    /// Takes the changes of a request.
    pub(super) fn update(&mut self, wishes: Vec<(PartitionKey, FetchWish)>, forgotten: &[PartitionKey]) {
        for (key, wish) in wishes {
            self.ask(&key, wish);
        }
        for key in forgotten {
            if let Some(place) = self.places.remove(key) {
                self.partitions.remove(&place);
                self.cost = self.cost.saturating_sub(key.cost());
            }
        }
        // After 2^31 - 1 comes 1: 0 would open a session.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// All that is asked for, in the order in which it is served.
    pub(super) fn wishes(&self) -> Vec<(PartitionKey, FetchWish)> {
        self.partitions.values().map(|(key, told)| (key.clone(), told.wish)).collect()
    }

    /// Whether the client must be told of `data`; it is then taken as told.
    pub(super) fn is_news(&mut self, key: &PartitionKey, data: &PartitionData) -> bool {
        let Some((place, told)) = self.partition(key) else { return false };
        if !told.differs(data) {
            return false;
        }
        told.note(data);
        if has_records(data) {
            self.move_to_end(place);
        }
        true
    }

    fn ask(&mut self, key: &PartitionKey, wish: FetchWish) {
        if let Some((_, told)) = self.partition(key) {
            told.wish = wish;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(key.clone(), place);
        let told = Told { wish, high_watermark: UNTOLD, log_start_offset: UNTOLD };
        self.partitions.insert(place, (key.clone(), told));
        self.cost = self.cost.saturating_add(key.cost());
    }

    fn partition(&mut self, key: &PartitionKey) -> Option<(u64, &mut Told)> {
        let place = *self.places.get(key)?;
        self.partitions.get_mut(&place).map(|(_, told)| (place, told))
    }

    fn move_to_end(&mut self, place: u64) {
        let Some((key, told)) = self.partitions.remove(&place) else { return };
        if let Some(known) = self.places.get_mut(&key) {
            *known = self.next_place;
        }
        self.partitions.insert(self.next_place, (key, told));
        self.next_place += 1;
    }
}

impl Told {
    fn differs(&self, data: &PartitionData) -> bool {
        has_records(data)
            || data.error_code != ErrorCode::None as i16
            || data.diverging_epoch != EpochEndOffset::default()
            || data.preferred_read_replica >= 0
            || self.high_watermark != data.high_watermark
            || self.log_start_offset != data.log_start_offset
    }

    fn note(&mut self, data: &PartitionData) {
        let is_fault = data.error_code != ErrorCode::None as i16;
        let is_whole = !is_fault && data.diverging_epoch == EpochEndOffset::default();
        // After a fault the client is told when it is over.
        self.high_watermark = if is_whole { data.high_watermark } else { UNTOLD };
        self.log_start_offset = data.log_start_offset;
    }
}

fn has_records(data: &PartitionData) -> bool {
    data.records.as_ref().is_some_and(|records: &Records| !records.is_empty())
}

#[cfg(test)]
impl Session {
    pub(super) fn set_epoch(&mut self, epoch: i32) {
        self.epoch = epoch;
    }
}
