//! Questions about offsets: by time, by name, by leader epoch.

use klamm_log::TimestampedOffset;
use klamm_types::{EpochEndOffset, LeaderEpoch, Offset, Timestamp};

use super::{PartitionHandle, ReadFailure, ReadFrom, ReadIsolation};

/// Which offset is asked for, by the names of ListOffsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetQuery {
    /// The log start (-2).
    Earliest,
    /// What a consumer could read up to (-1).
    Latest,
    /// The record with the largest timestamp (-3, KIP-734).
    MaxTimestamp,
    /// The first offset on this disk (-4, KIP-405): the log start, as nothing is kept elsewhere.
    EarliestLocal,
    /// The last offset in remote storage (-5, KIP-1005): there is none.
    LatestTiered,
    /// The first offset that is not in remote storage yet (-6, KIP-1023): there is none.
    EarliestPendingUpload,
    /// The first record of this time or later.
    At(Timestamp),
}

/// An offset that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The record's timestamp; [`Timestamp::NONE`] if no record was asked for.
    pub timestamp: Timestamp,
    /// The offset.
    pub offset: Offset,
    /// The leader epoch at that offset; [`LeaderEpoch::NONE`] if it is not known.
    pub leader_epoch: LeaderEpoch,
}

impl From<TimestampedOffset> for ListedOffset {
    fn from(found: TimestampedOffset) -> Self {
        let TimestampedOffset { timestamp, offset, leader_epoch } = found;
        Self { timestamp, offset, leader_epoch }
    }
}

impl PartitionHandle {
    /// Answers a consumer's question for an offset; `None` if there is none that fits. May read the disk, and
    /// decompress a batch, for [`OffsetQuery::At`] and [`OffsetQuery::MaxTimestamp`].
    ///
    /// # Errors
    /// [`ReadFailure`]; [`ReadFailure::OffsetNotAvailable`] from a new leader that does not know yet what is committed,
    /// for all but the earliest.
    pub fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: ReadIsolation,
        leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<ListedOffset>, ReadFailure> {
        let role = self.shared.role.load();
        role.check(leader_epoch, ReadFrom::Leader)?;
        self.check_lease(self.now())?;
        let bounds = self.bounds();
        let end = match isolation {
            ReadIsolation::ReadUncommitted => bounds.high_watermark,
            ReadIsolation::ReadCommitted => bounds.last_stable_offset,
        };
        let log = &self.shared.log;
        match query {
            OffsetQuery::Earliest | OffsetQuery::EarliestLocal => {
                let offset = bounds.log_start_offset;
                let epoch = log.leader_epochs().epoch_at(offset).unwrap_or(LeaderEpoch::NONE);
                return Ok(Some(ListedOffset { timestamp: Timestamp::NONE, offset, leader_epoch: epoch }));
            }
            OffsetQuery::LatestTiered | OffsetQuery::EarliestPendingUpload => return Ok(None),
            OffsetQuery::Latest | OffsetQuery::MaxTimestamp | OffsetQuery::At(_) => {}
        }
        let (high_watermark, epoch_start) = (bounds.high_watermark, role.epoch_start_offset);
        if high_watermark < epoch_start {
            return Err(ReadFailure::OffsetNotAvailable { high_watermark, epoch_start });
        }
        let found = match query {
            OffsetQuery::MaxTimestamp => log.max_timestamp_offset()?,
            OffsetQuery::At(target) => log.offset_for_timestamp(target)?,
            _ => {
                let leader_epoch = role.leader_epoch;
                return Ok(Some(ListedOffset { timestamp: Timestamp::NONE, offset: end, leader_epoch }));
            }
        };
        Ok(found.filter(|found| found.offset < end).map(ListedOffset::from))
    }

    /// Where `epoch` ended in this log (OffsetForLeaderEpoch, KIP-101, KIP-279); `None` if this log does not know.
    ///
    /// # Errors
    /// [`ReadFailure::NotServing`].
    pub fn epoch_end_offset(
        &self,
        epoch: LeaderEpoch,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEndOffset>, ReadFailure> {
        self.shared.role.load().check(current_leader_epoch, ReadFrom::Leader)?;
        Ok(self.shared.log.end_offset_for_epoch(epoch))
    }
}
