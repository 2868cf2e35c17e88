//! What a decision comes to.

use klamm_metadata::MetadataRecord;
use klamm_types::Offset;

/// The most records that go into one entry of the log, unless they must not be torn apart.
pub const ENTRY_RECORDS_MAX: usize = 1_000;

/// A decision: facts to append, and the answer to give once they are committed and applied.
///
/// An answer without records waits too, for the last entry of the image that it was read from: that image may hold
/// entries that are not committed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a decision that is not appended never happened"]
pub struct ControlResult<T> {
    /// In the order of replay.
    pub records: Vec<MetadataRecord>,
    /// Whether the records form one entry. If not, every prefix of them leaves a sound image.
    pub atomic: bool,
    /// The answer.
    pub response: T,
}

impl<T> ControlResult<T> {
    /// A decision whose records stand or fall together.
    pub fn atomic(records: Vec<MetadataRecord>, response: T) -> Self {
        Self { records, atomic: true, response }
    }

    /// A decision that may be half done when the controller fails.
    pub fn stepwise(records: Vec<MetadataRecord>, response: T) -> Self {
        Self { records, atomic: false, response }
    }

    /// The entries to append, none of them empty, and the answer.
    #[must_use]
    pub fn into_entries(self) -> (Vec<Vec<MetadataRecord>>, T) {
        let Self { records, atomic, response } = self;
        let size = if atomic { records.len() } else { ENTRY_RECORDS_MAX };
        let mut records = records.into_iter();
        let mut entries = Vec::new();
        while records.len() > 0 {
            entries.push(records.by_ref().take(size).collect());
        }
        (entries, response)
    }

    /// The same decision with another answer.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> ControlResult<U> {
        ControlResult { records: self.records, atomic: self.atomic, response: f(self.response) }
    }
}

/// The offset of the entry that will hold the last of `records` stepwise records, if the next entry gets `next`.
/// With no records at all it is the offset before `next`.
pub(crate) fn last_entry_offset(next: Offset, records: usize) -> Offset {
    Offset(next.0.saturating_add(records.div_ceil(ENTRY_RECORDS_MAX) as i64).saturating_sub(1))
}
