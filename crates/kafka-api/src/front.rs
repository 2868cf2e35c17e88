//! What all client listeners of one broker share.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_protocol::ApiKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{ConfigError, FrontConfig};
use crate::context::ConnectionId;
use crate::memory::MemoryPool;
use crate::metrics::{AnsweredRequests, FrontCounts, FrontMetrics};
use crate::table::ApiTable;

/// Addresses whose refused requests have been logged; when there are more, they are forgotten and logged again.
const LOGGED_ADDRESSES_MAX: usize = 1 << 10;

/// Connections whose protocol is not known yet; more are closed at once.
const UNSORTED_CONNECTIONS_MAX: usize = 1 << 10;

/// Whether connections take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Requests under way are answered, no more are taken.
    Draining,
}

/// The handlers, the limits, the memory and the counters of one broker's client listeners.
#[derive(Debug)]
pub struct Front {
    pub(crate) config: FrontConfig,
    pub(crate) table: ApiTable,
    /// For requests as they arrive.
    pub(crate) request_memory: Arc<MemoryPool>,
    /// For decoded requests. Apart from the other, so that a request that is here can never wait for one that
    /// waits for it.
    pub(crate) decode_memory: Arc<MemoryPool>,
    pub(crate) metrics: FrontMetrics,
    pub(crate) answered: AnsweredRequests,
    connections: Arc<Semaphore>,
    unsorted: Arc<Semaphore>,
    per_ip: Arc<PerIp>,
    next_connection: AtomicU64,
    logged: Mutex<HashSet<IpAddr>>,
}

/// How much of the memory for requests is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes held now.
    pub used: u64,
    /// The most bytes that were ever held. Frames and decoded requests are counted apart, so this is at most the sum
    /// of both peaks.
    pub used_peak: u64,
    /// Bytes that may be held (`queued.max.request.bytes`).
    pub limit: u64,
}

impl Front {
    /// A front that serves the APIs of `table`.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(config: FrontConfig, table: ApiTable) -> Result<Arc<Self>, ConfigError> {
        config.validate()?;
        let decoded = config.decoded_bytes_max();
        let shared = config.queued_request_bytes_max - config.reserve_bytes() - decoded;
        Ok(Arc::new(Self {
            request_memory: MemoryPool::new(shared, true),
            decode_memory: MemoryPool::new(decoded, false),
            metrics: FrontMetrics::default(),
            answered: AnsweredRequests::of(&table),
            connections: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
            unsorted: Arc::new(Semaphore::new(UNSORTED_CONNECTIONS_MAX)),
            per_ip: Arc::new(PerIp { max: config.connections_per_ip_max, open: Mutex::default() }),
            next_connection: AtomicU64::new(0),
            logged: Mutex::default(),
            config,
            table,
        }))
    }

    /// The counters.
    pub fn counts(&self) -> FrontCounts {
        self.metrics.counts()
    }

    /// How many requests of each API and version were answered since the start, `acks=0` writes among them; what was
    /// never asked is left out. Kafka counts the same as `RequestsPerSec` of its `RequestMetrics`.
    pub fn answered(&self) -> impl Iterator<Item = (ApiKey, i16, u64)> {
        let served = self.table.served_versions().zip(self.answered.counts());
        served.filter(|(_, count)| *count > 0).map(|((key, version), count)| (key, version, count))
    }

    /// The memory for requests.
    pub fn memory(&self) -> MemoryUse {
        let (requests, decoded) = (&self.request_memory, &self.decode_memory);
        MemoryUse {
            used: requests.used().saturating_add(decoded.used()),
            used_peak: requests.used_peak().saturating_add(decoded.used_peak()),
            limit: self.config.queued_request_bytes_max,
        }
    }

    /// Waits until one more connection may be open.
    pub(crate) async fn connection_slot(&self) -> Option<OwnedSemaphorePermit> {
        // It fails only when closed, and nobody closes it.
        self.connections.clone().acquire_owned().await.ok()
    }

    /// A place among the connections, `None` if there is none now.
    pub(crate) fn try_connection_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// A place among the connections that have not shown their protocol, `None` if there is none now.
    pub(crate) fn unsorted_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.unsorted.clone().try_acquire_owned().ok()
    }

    /// A place among the connections from `address`, `None` if there are too many.
    pub(crate) fn address_slot(&self, address: IpAddr) -> Option<AddressSlot> {
        PerIp::enter(&self.per_ip, address)
    }

    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a refusal of something from `address` is news.
    pub(crate) fn is_first_refusal(&self, address: IpAddr) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED_ADDRESSES_MAX {
            logged.clear();
        }
        logged.insert(address)
    }
}

/// Open connections by the address they come from; no address without one.
#[derive(Debug)]
struct PerIp {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl PerIp {
    fn enter(this: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        // The same machine, whichever way the system spells its address.
        let address = address.to_canonical();
        let mut open = this.lock();
        let count = open.get(&address).copied().unwrap_or(0);
        if count >= this.max {
            return None;
        }
        open.insert(address, count + 1);
        Some(AddressSlot { per_ip: this.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections from one address; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    per_ip: Arc<PerIp>,
    address: IpAddr,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut open = self.per_ip.lock();
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_address_and_come_back() {
        let per_ip = Arc::new(PerIp { max: 2, open: Mutex::default() });
        let [here, mapped, there] =
            ["127.0.0.1", "::ffff:127.0.0.1", "127.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let first = PerIp::enter(&per_ip, here).unwrap();
        let second = PerIp::enter(&per_ip, mapped).unwrap();
        assert!(PerIp::enter(&per_ip, here).is_none());
        assert!(PerIp::enter(&per_ip, there).is_some());
        drop(first);
        assert!(PerIp::enter(&per_ip, here).is_some());
        drop(second);
        assert!(per_ip.lock().is_empty());
    }
}
