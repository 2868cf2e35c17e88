//! The names of a log's files, which are Kafka's.

use std::path::Path;

use klamm_types::Offset;

/// The files that a segment, or a producer snapshot, has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offset to position.
    OffsetIndex,
    /// `.timeindex`: timestamp to offset.
    TimeIndex,
    /// `.txnindex`: the aborted transactions.
    TxnIndex,
    /// `.snapshot`: the producer state at an offset.
    Snapshot,
}

impl FileKind {
    const ALL: [Self; 5] = [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex, Self::Snapshot];

    /// The kinds of file that belong to a segment.
    pub(crate) const OF_SEGMENT: [Self; 4] = [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex];

    /// The ending of the file's name, with its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }

    /// Reads a file name, such as `00000000000000000042.log`. `None` if it is no such name.
    #[must_use]
    pub fn parse_name(name: &str) -> Option<(Offset, Self)> {
        let (digits, _) = name.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| name[digits.len()..] == *kind.suffix())?;
        let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        let offset: i64 = digits.parse().ok()?;
        canonical.then_some((Offset(offset), kind))
    }

    /// [`parse_name`](Self::parse_name) of the last part of `path`.
    #[must_use]
    pub fn parse_path(path: &Path) -> Option<(Offset, Self)> {
        Self::parse_name(path.file_name()?.to_str()?)
    }
}

/// `base_offset` in twenty digits, then the ending of `kind`.
#[must_use]
pub fn segment_file_name(base_offset: Offset, kind: FileKind) -> String {
    format!("{:020}{}", base_offset.0, kind.suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for kind in FileKind::ALL {
            let name = segment_file_name(Offset(42), kind);
            assert_eq!(FileKind::parse_name(&name), Some((Offset(42), kind)));
        }
        assert_eq!(segment_file_name(Offset(42), FileKind::Log), "00000000000000000042.log");
        for bad in ["42.log", "00000000000000000042.log.deleted", "0000000000000000004x.log", ".log", "x", ""]
        {
            assert_eq!(FileKind::parse_name(bad), None, "{bad}");
        }
    }
}
