//! Channels to other nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::{AddressError, Lane, NodeAddress};

/// The longest HTTP/2 frame that is accepted, 1 MiB: a sixteenth of the frames, and less work for each byte.
pub(crate) const FRAME_BYTES_MAX: u32 = 1 << 20;
/// The longest list of headers that is accepted.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Settings of a [`ChannelPool`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelConfig {
    /// How long making a connection may take. Default 1 s.
    pub connect_timeout: Duration,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1) }
    }
}

/// One channel per node and lane, shared by all callers.
///
/// A channel connects with its first call and again with the first call after its connection broke: a call to a node
/// that is down fails as fast as the system refuses the connection, and the pauses between attempts are the
/// caller's ([`Backoff`](crate::Backoff)). Bind every call with a [`Deadline`](crate::Deadline): one that waits for a
/// connection knows no other.
#[derive(Clone, Debug)]
pub struct ChannelPool {
    config: ChannelConfig,
    channels: Arc<Mutex<HashMap<(NodeAddress, Lane), Channel>>>,
}

impl ChannelPool {
    /// A pool without channels.
    #[must_use]
    pub fn new(config: ChannelConfig) -> Self {
        Self { config, channels: Arc::default() }
    }

    /// The channel to `address` in `lane`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`AddressError`] if the host cannot stand in an address.
    pub fn channel(&self, address: &NodeAddress, lane: Lane) -> Result<Channel, AddressError> {
        let key = (address.clone(), lane);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.endpoint(address, lane)?.connect_lazy();
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// Gives up the channel: the next caller gets a new connection, those that hold the old one keep it. For a
    /// connection on which a call was not answered in time, and which may lead nowhere.
    pub fn forget(&self, address: &NodeAddress, lane: Lane) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.remove(&(address.clone(), lane));
    }

    /// Gives up all channels but those to nodes that `keep` names, so that nodes that left do not stay for ever.
    pub fn retain(&self, keep: impl Fn(&NodeAddress) -> bool) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(address, _), _| keep(address));
    }

    fn endpoint(&self, address: &NodeAddress, lane: Lane) -> Result<Endpoint, AddressError> {
        let limits = lane.limits();
        let endpoint = Endpoint::from(address.uri()?)
            .connect_timeout(self.config.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keep_alive_interval(limits.keep_alive_interval)
            .keep_alive_timeout(limits.keep_alive_timeout)
            .keep_alive_while_idle(true);
        Ok(endpoint)
    }
}

impl Default for ChannelPool {
    fn default() -> Self {
        Self::new(ChannelConfig::default())
    }
}
