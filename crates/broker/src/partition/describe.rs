//! What a partition tells about itself.

use std::path::PathBuf;

use klamm_log::ProducerEntry;
use klamm_record::Codec;
use klamm_types::{Offset, ProducerId};

use super::{NotServing, PartitionHandle};

/// The log of a partition, as DescribeLogDirs shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionDescription {
    /// The log directory that holds it.
    pub log_dir: PathBuf,
    /// Bytes of all segments.
    pub size_bytes: u64,
    /// How far the log end is behind the high watermark of the partition, in offsets: always 0 for a log that is no
    /// future replica and whose own high watermark is not past its end.
    pub offset_lag: u64,
    /// The log end.
    pub log_end_offset: Offset,
}

impl PartitionHandle {
    /// Sizes and place of the log.
    #[must_use]
    pub fn describe(&self) -> PartitionDescription {
        let log = &self.shared.log;
        let log_end_offset = log.log_end_offset();
        PartitionDescription {
            log_dir: log.log_dir().path().to_owned(),
            size_bytes: log.size_bytes(),
            offset_lag: log_end_offset.distance_to(log.high_watermark()),
            log_end_offset,
        }
    }

    /// The producers that the log remembers, by id (DescribeProducers, KIP-664). Every replica tells what it knows: it is
    /// by comparing them that a transaction is found which hangs on one of them.
    ///
    /// # Errors
    /// [`NotServing`], if the log is out of service or the replica no longer this broker's.
    pub fn describe_producers(&self) -> Result<Vec<(ProducerId, ProducerEntry)>, NotServing> {
        let role = self.shared.role.load();
        if role.is_failed {
            return Err(NotServing::LogFailed);
        }
        if !role.is_assigned {
            return Err(NotServing::NotLeader { leader: role.leader, leader_epoch: role.leader_epoch });
        }
        Ok(self.shared.log.producers())
    }

    /// Whether an uncompressed batch is compressed before it is appended, by the effective `compression.type`.
    #[must_use]
    pub fn compresses(&self) -> bool {
        self.shared.log.config().compression().is_some_and(|target| target.codec() != Codec::None)
    }

    /// `max.message.bytes` of the topic.
    #[must_use]
    pub fn max_message_bytes(&self) -> u32 {
        self.shared.log.config().max_message_bytes
    }
}
