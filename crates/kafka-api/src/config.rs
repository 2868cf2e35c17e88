//! The settings of the client-facing front, by Kafka's names where Kafka has one.
//!
//! All of them are read when the broker starts (static). Settings marked *ours* have no counterpart in Kafka: they
//! bound what a client may make the broker keep.

use klamm_protocol::Budget;

/// What one connection may have read ahead before its requests are whole, at least, in bytes.
const REQUEST_BYTES_MIN: usize = 4 << 10;
/// One hour: the longest time that a timeout of ours may be.
const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// The settings of all client listeners of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontConfig {
    /// `socket.request.max.bytes`: the longest request in bytes, its four bytes of length not counted. From
    /// 4,096 to 2,147,483,647; 104,857,600 by default.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`: a connection without a request under way for so long is closed. From 1, and
    /// 9,223,372,036,854,775,807 is never; 600,000 by default.
    pub connections_idle_max_ms: u64,
    /// `max.connections`: connections that are open at a time, over all listeners. At the limit no more are
    /// accepted until one ends, as in Kafka. A listener that waits for a client counts as one. From 1; 2,147,483,647 by default.
    pub connections_max: usize,
    /// `max.connections.per.ip`: connections from one address that are open at a time. More are closed at once.
    /// From 1; 2,147,483,647 by default.
    pub connections_per_ip_max: usize,
    /// `queued.max.request.bytes`: the memory for requests that are being received or handled, in bytes, over all
    /// connections. When it is spent, sockets are not read. Kafka has no limit by default (-1), which a broker
    /// on a public port cannot afford: 536,870,912 by default, at least [`Self::queued_request_bytes_min`].
    pub queued_request_bytes_max: u64,
    /// `socket.listen.backlog.size`: connections that the kernel completes before they are accepted. From 1;
    /// 50 by default.
    pub listen_backlog: u32,
    /// Ours: requests of one connection that are handled at a time; further ones stay in the socket. From 1 to
    /// 1,000; 64 by default.
    pub requests_in_flight_max: usize,
    /// Ours: answers of one connection, in bytes, that may wait for the client to read them before no further
    /// request of it is read. One answer may exceed it. From 1; 8,388,608 by default.
    pub responses_queued_bytes_max: usize,
    /// Ours: a client that has begun a request must send at least 64 KiB of it, or the rest of it, within each such
    /// time. From 1 to 3,600,000; 30,000 by default.
    pub request_read_timeout_ms: u64,
    /// Ours: a client that has an answer waiting must take at least 64 KiB of it, or the rest of it, within each
    /// such time. From 1 to 3,600,000; 30,000 by default.
    pub response_write_timeout_ms: u64,
    /// Ours: how long requests under way may take to be answered once their connection takes no more, because
    /// the client closed its side, sent something that is no request, or the listener shuts down. From 1 to
    /// 3,600,000; 10,000 by default.
    pub drain_timeout_ms: u64,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            request_bytes_max: 104_857_600,
            connections_idle_max_ms: 600_000,
            connections_max: i32::MAX as usize,
            connections_per_ip_max: i32::MAX as usize,
            queued_request_bytes_max: 512 << 20,
            listen_backlog: 50,
            requests_in_flight_max: 64,
            responses_queued_bytes_max: 8 << 20,
            request_read_timeout_ms: 30_000,
            response_write_timeout_ms: 30_000,
            drain_timeout_ms: 10_000,
        }
    }
}

/// A setting outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, it must be from {min} to {max}")]
pub struct ConfigError {
    /// The property.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The least value allowed.
    pub min: u64,
    /// The greatest value allowed.
    pub max: u64,
}

impl ConfigError {
    /// Never: the operator must change the setting.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl FrontConfig {
    /// What decoded requests may take of the memory for requests, in bytes: enough for any one request.
    pub(crate) fn decoded_bytes_max(&self) -> u64 {
        as_u64(decode_bytes(self.request_bytes_max))
    }

    /// What is kept back for the one connection that may finish its request when all else is spent, in bytes:
    /// buffers grow by doubling.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        as_u64(self.request_bytes_max).saturating_mul(2).saturating_add(128 << 10)
    }

    /// The least [`Self::queued_request_bytes_max`] that fits [`Self::request_bytes_max`]: three requests of the
    /// greatest length and the greatest one decoded.
    pub fn queued_request_bytes_min(&self) -> u64 {
        self.reserve_bytes()
            .saturating_add(as_u64(self.request_bytes_max))
            .saturating_add(self.decoded_bytes_max())
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that is outside its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let int_max = as_u64(i32::MAX as usize);
        let ranges = [
            ("socket.request.max.bytes", as_u64(self.request_bytes_max), as_u64(REQUEST_BYTES_MIN), int_max),
            ("connections.max.idle.ms", self.connections_idle_max_ms, 1, i64::MAX.unsigned_abs()),
            ("max.connections", as_u64(self.connections_max), 1, int_max),
            ("max.connections.per.ip", as_u64(self.connections_per_ip_max), 1, int_max),
            (
                "queued.max.request.bytes",
                self.queued_request_bytes_max,
                self.queued_request_bytes_min(),
                i64::MAX.unsigned_abs(),
            ),
            ("socket.listen.backlog.size", u64::from(self.listen_backlog), 1, int_max),
            ("requests.in.flight.max", as_u64(self.requests_in_flight_max), 1, 1_000),
            ("responses.queued.max.bytes", as_u64(self.responses_queued_bytes_max), 1, int_max),
            ("request.read.timeout.ms", self.request_read_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("response.write.timeout.ms", self.response_write_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("drain.timeout.ms", self.drain_timeout_ms, 1, TIMEOUT_MS_MAX),
        ];
        let outside = ranges.into_iter().find(|(_, value, min, max)| value < min || value > max);
        outside.map_or(Ok(()), |(name, value, min, max)| Err(ConfigError { name, value, min, max }))
    }
}

/// What decoding a request of `frame_len` bytes may allocate, in bytes. The structures of a request with many short
/// names take up to six times its length.
pub(crate) fn decode_bytes(frame_len: usize) -> usize {
    frame_len.saturating_mul(8).saturating_add(1 << 10).min(Budget::REQUEST_BYTES_MAX)
}

/// Lengths as the memory pools count them; no machine has longer ones.
pub(crate) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_kafkas() {
        let config = FrontConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.request_bytes_max, 104_857_600);
        assert_eq!(config.connections_idle_max_ms, 600_000);
        assert_eq!((config.connections_max, config.connections_per_ip_max), (2_147_483_647, 2_147_483_647));
        assert_eq!(config.listen_backlog, 50);
    }

    #[test]
    fn each_setting_is_refused_outside_its_range() {
        type Change = fn(&mut FrontConfig);
        let cases: [(&str, Change); 12] = [
            ("socket.request.max.bytes", |config| config.request_bytes_max = 4095),
            ("socket.request.max.bytes", |config| config.request_bytes_max = 1 << 31),
            ("connections.max.idle.ms", |config| config.connections_idle_max_ms = 0),
            ("max.connections", |config| config.connections_max = 0),
            ("max.connections.per.ip", |config| config.connections_per_ip_max = 0),
            ("queued.max.request.bytes", |config| config.queued_request_bytes_max = 300 << 20),
            ("socket.listen.backlog.size", |config| config.listen_backlog = 0),
            ("requests.in.flight.max", |config| config.requests_in_flight_max = 1_001),
            ("responses.queued.max.bytes", |config| config.responses_queued_bytes_max = 0),
            ("request.read.timeout.ms", |config| config.request_read_timeout_ms = 0),
            ("response.write.timeout.ms", |config| config.response_write_timeout_ms = 3_600_001),
            ("drain.timeout.ms", |config| config.drain_timeout_ms = 0),
        ];
        for (name, change) in cases {
            let mut config = FrontConfig::default();
            change(&mut config);
            assert_eq!(config.validate().map_err(|error| error.name), Err(name));
        }
    }

    #[test]
    fn the_least_memory_follows_the_longest_request() {
        let small = FrontConfig { request_bytes_max: 1 << 20, ..FrontConfig::default() };
        let least = small.queued_request_bytes_min();
        assert_eq!(FrontConfig { queued_request_bytes_max: least, ..small.clone() }.validate(), Ok(()));
        assert!(FrontConfig { queued_request_bytes_max: least - 1, ..small }.validate().is_err());
    }
}
