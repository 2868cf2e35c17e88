//! How far this replica's log reaches.

use std::hash::{Hash, Hasher};

use klamm_types::{LeaderEpoch, LeaderEpochCache, Offset};

use crate::registration::Durability;

/// The ends of one replica's log.
///
/// ```text
///   log_start  <=  high_watermark  <=  log_end          flushed_end  <=  log_end
/// ```
///
/// All but `log_start` are exclusive ends. **Invariant** INV9: the picture; INV10: no cached epoch starts past
/// `log_end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogPosition {
    pub(crate) log_start_offset: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) flushed_end_offset: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) epochs: LeaderEpochCache,
    /// Counts the truncations, so that a flush that began before one is not believed after it.
    pub(crate) generation: u64,
}

/// Why a recovered log's ends cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogPositionError {
    /// The log would end before it starts.
    #[error("log end {log_end_offset} lies before log start {log_start_offset}")]
    EndBeforeStart {
        /// First offset kept.
        log_start_offset: Offset,
        /// Exclusive end.
        log_end_offset: Offset,
    },
    /// The log would be flushed further than it is written.
    #[error("flushed end {flushed_end_offset} lies past log end {log_end_offset}")]
    FlushedPastEnd {
        /// Exclusive end of what is on disk.
        flushed_end_offset: Offset,
        /// Exclusive end of what is written.
        log_end_offset: Offset,
    },
    /// A cached epoch would start past the end of the log.
    #[error("leader epoch {epoch} starts past log end {log_end_offset}")]
    EpochPastEnd {
        /// The epoch.
        epoch: LeaderEpoch,
        /// Exclusive end of what is written.
        log_end_offset: Offset,
    },
}

impl LogPositionError {
    /// Whether trying again may succeed: a log that contradicts itself goes on doing so.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl LogPosition {
    /// An empty log that starts at offset 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            flushed_end_offset: Offset::ZERO,
            log_end_offset: Offset::ZERO,
            epochs: LeaderEpochCache::new(),
            generation: 0,
        }
    }

    /// A log as recovery left it. Recovery ends with a flush, so that all of it is on disk. The checkpointed
    /// `high_watermark` is a hint: it is brought within the log.
    ///
    /// # Errors
    /// [`LogPositionError`] if the ends contradict each other.
    pub fn recovered(
        log_start_offset: Offset,
        high_watermark: Offset,
        log_end_offset: Offset,
        epochs: LeaderEpochCache,
    ) -> Result<Self, LogPositionError> {
        if log_end_offset < log_start_offset {
            return Err(LogPositionError::EndBeforeStart { log_start_offset, log_end_offset });
        }
        if let Some(latest) = epochs.latest().filter(|latest| latest.start_offset > log_end_offset) {
            return Err(LogPositionError::EpochPastEnd { epoch: latest.epoch, log_end_offset });
        }
        let high_watermark = high_watermark.clamp(log_start_offset, log_end_offset);
        let flushed_end_offset = log_end_offset;
        Ok(Self {
            log_start_offset,
            high_watermark,
            flushed_end_offset,
            log_end_offset,
            epochs,
            generation: 0,
        })
    }

    /// The same log, of which only the part before `flushed_end_offset` is known to be on disk: for a body
    /// whose recovery does not flush (page-cache mode).
    ///
    /// # Errors
    /// [`LogPositionError::FlushedPastEnd`].
    pub fn with_flushed_end(mut self, flushed_end_offset: Offset) -> Result<Self, LogPositionError> {
        let log_end_offset = self.log_end_offset;
        if flushed_end_offset > log_end_offset {
            return Err(LogPositionError::FlushedPastEnd { flushed_end_offset, log_end_offset });
        }
        self.flushed_end_offset = flushed_end_offset;
        Ok(self)
    }

    /// First offset kept.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Exclusive end of what is known to be committed; a lower bound of the truth.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Exclusive end of what is known to be on disk.
    #[must_use]
    pub fn flushed_end_offset(&self) -> Offset {
        self.flushed_end_offset
    }

    /// Exclusive end of what is written.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Which leader wrote which part.
    #[must_use]
    pub fn epochs(&self) -> &LeaderEpochCache {
        &self.epochs
    }

    /// How far this replica holds the log in the sense of `durability`.
    #[must_use]
    pub fn held_end_offset(&self, durability: Durability) -> Offset {
        match durability {
            #[cfg(not(mutant = "B27"))]
            Durability::Flushed => self.flushed_end_offset,
            #[cfg(mutant = "B27")]
            Durability::Flushed => self.log_end_offset,
            Durability::PageCache => self.log_end_offset,
        }
    }

    /// The epoch of the record just before `offset`, or [`LeaderEpoch::NONE`] if the log holds none there.
    #[must_use]
    pub fn epoch_before(&self, offset: Offset) -> LeaderEpoch {
        if offset <= self.log_start_offset {
            return LeaderEpoch::NONE;
        }
        self.epochs.epoch_at(Offset(offset.0 - 1)).unwrap_or(LeaderEpoch::NONE)
    }

    /// Whether `epoch` is older than all that the history still has.
    pub(crate) fn is_before_history(&self, epoch: LeaderEpoch) -> bool {
        // B47: takes the log start for the end of every epoch before.
        let earliest = self.epochs.entries().first();
        cfg!(not(mutant = "B47")) && earliest.is_some_and(|earliest| epoch < earliest.epoch)
    }

    /// Takes note that the log now ends at `log_end_offset`; forgets the epochs and the flush past it.
    pub(crate) fn truncate_to(&mut self, log_end_offset: Offset) {
        assert!(
            self.log_start_offset <= log_end_offset && log_end_offset <= self.log_end_offset,
            "INV9: a truncation to {log_end_offset} leaves {self:?}"
        );
        self.log_end_offset = log_end_offset;
        self.flushed_end_offset = self.flushed_end_offset.min(log_end_offset);
        self.high_watermark = self.high_watermark.min(log_end_offset);
        self.epochs.truncate_from_end(log_end_offset);
        self.generation += 1;
    }

    /// Takes note that the log is empty and starts at `offset`.
    pub(crate) fn restart_at(&mut self, offset: Offset) {
        self.log_start_offset = offset;
        self.log_end_offset = offset;
        self.flushed_end_offset = offset;
        // KAFKA-9491: the high watermark moves along, or it would lie outside the log.
        #[cfg(not(mutant = "B23"))]
        {
            self.high_watermark = offset;
        }
        self.epochs.clear();
        self.generation += 1;
    }

    pub(crate) fn advance_log_start(&mut self, to: Offset) -> bool {
        assert!(to <= self.high_watermark, "INV9: log start {to} would pass high watermark {self:?}");
        self.epochs.truncate_from_start(to);
        self.log_start_offset.advance_to(to)
    }
}

/// Two positions that hash alike behave alike: the count of truncations only tells flushes apart.
impl Hash for LogPosition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.log_start_offset.hash(state);
        self.high_watermark.hash(state);
        self.flushed_end_offset.hash(state);
        self.log_end_offset.hash(state);
        for entry in self.epochs.entries() {
            (entry.epoch, entry.start_offset).hash(state);
        }
    }
}
