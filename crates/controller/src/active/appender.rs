//! Appending decided entries, each at the offset that it was decided for.

use klamm_metadata::{BATCH_BYTES_MAX, MetadataDelta, MetadataImage, MetadataRecord, encode_batch};
use klamm_types::Offset;

use crate::ControllerError;
use crate::raft::{CommittedLeaderId, ENTRY_BYTES_MAX, EncodedRecords, LogId, Raft, provenance_of};

/// The speculative end of the log, as the leader of one term knows it.
#[derive(Debug)]
pub(crate) struct Appender {
    raft: Raft,
    term: u64,
    latest: MetadataImage,
    next_index: u64,
}

/// Why an entry was not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotAppended {
    /// Raft refused it, for now or for good: the log is as it was.
    Refused,
    /// The log is not as `latest` has it. `latest` must be dropped.
    OutOfStep,
}

impl Appender {
    /// Appends in `term`, after `committed`, which must be all that the log holds.
    pub(crate) fn new(raft: Raft, term: u64, committed: MetadataImage) -> Self {
        let next_index = committed.provenance.last_offset.next().0.cast_unsigned();
        Self { raft, term, latest: committed, next_index }
    }

    pub(crate) fn latest(&self) -> &MetadataImage {
        &self.latest
    }

    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.next_index.cast_signed())
    }

    /// The last offset that `latest` stands on.
    pub(crate) fn last_offset(&self) -> Offset {
        self.latest.provenance.last_offset
    }

    /// Checks that every entry fits into the log, and encodes them.
    pub(crate) fn encode(entries: &[Vec<MetadataRecord>]) -> Result<Vec<EncodedRecords>, ControllerError> {
        let max = BATCH_BYTES_MAX.min(ENTRY_BYTES_MAX);
        let encoded = entries.iter().map(|records| encode_batch(records));
        let fits = |bytes: bytes::Bytes| {
            let too_large = ControllerError::TooLarge { bytes: bytes.len(), max };
            if bytes.len() > max { Err(too_large) } else { Ok(EncodedRecords(bytes)) }
        };
        encoded.map(fits).collect()
    }

    /// Appends one entry, and moves `latest` past it once it is in the log. It is not committed then.
    pub(crate) async fn append(
        &mut self,
        records: &[MetadataRecord],
        encoded: EncodedRecords,
    ) -> Result<(), NotAppended> {
        let expected = LogId { leader_id: CommittedLeaderId::new(self.term), index: self.next_index };
        let write = self.raft.write(encoded).with_leader(expected.leader_id);
        write.await.map_err(|_| NotAppended::OutOfStep)?;
        // The core takes messages in order: what it says now is after the write.
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await;
        let last = last.map_err(|_| NotAppended::OutOfStep)?;
        if last.is_some_and(|last| last.index + 1 == expected.index) {
            return Err(NotAppended::Refused);
        }
        if last != Some(expected) {
            return Err(NotAppended::OutOfStep);
        }
        let mut delta = MetadataDelta::new(self.latest.clone());
        for record in records {
            // Decisions are replayed as they are made; another outcome here would mean another image.
            delta.replay(record).map_err(|error| {
                tracing::error!(%error, index = expected.index, "a decided entry cannot be replayed");
                NotAppended::OutOfStep
            })?;
        }
        self.latest = delta.apply(provenance_of(expected));
        self.next_index += 1;
        Ok(())
    }

    /// The log holds more than `latest`, all of it entries that concern the quorum alone.
    pub(crate) fn skip_to(&mut self, last: LogId) {
        self.latest = MetadataDelta::new(self.latest.clone()).apply(provenance_of(last));
        self.next_index = last.index + 1;
    }
}
