//! Kinds of traffic between two nodes.

use std::time::Duration;

/// What a connection is for. Each lane between two nodes is a TCP connection of its own, so that megabytes of
/// replication in flight delay neither votes nor heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Consensus between controllers.
    Raft,
    /// Heartbeats, metadata, requests to the active controller.
    Control,
    /// Replication of partitions.
    Bulk,
}

/// Limits that follow from what a lane carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneLimits {
    /// The longest message that may be received, in bytes. Give it to `max_decoding_message_size` of the stub on
    /// both sides: the default of the stubs, 4 MiB, is shorter than a metadata entry may be.
    pub message_bytes_max: usize,
    /// How many bytes of one stream may be on their way unread.
    pub stream_window_bytes: u32,
    /// How many bytes of all streams may be on their way unread.
    pub connection_window_bytes: u32,
    /// How long a connection may be silent before it is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long that sign may take. A peer may be starved of processor time for a while without being dead.
    pub keep_alive_timeout: Duration,
}

const MIB: u32 = 1 << 20;

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Raft, Self::Control, Self::Bulk];

    /// The limits of this lane.
    #[must_use]
    pub const fn limits(self) -> LaneLimits {
        match self {
            Self::Raft | Self::Control => LaneLimits {
                message_bytes_max: 64 * MIB as usize,
                stream_window_bytes: 4 * MIB,
                connection_window_bytes: 8 * MIB,
                keep_alive_interval: Duration::from_secs(1),
                keep_alive_timeout: Duration::from_secs(2),
            },
            Self::Bulk => LaneLimits {
                // A fetch answer holds at least one batch, however long the topic lets batches be.
                message_bytes_max: 256 * MIB as usize,
                stream_window_bytes: 16 * MIB,
                connection_window_bytes: 32 * MIB,
                keep_alive_interval: Duration::from_secs(2),
                keep_alive_timeout: Duration::from_secs(3),
            },
        }
    }
}
