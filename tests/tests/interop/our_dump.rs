//! `DumpLogSegments` as a judge.

use std::fs;

use klamm_tests::skip;

use crate::golden_segments::KafkaDirectory;
use crate::kafka_tools::KafkaTools;

/// A judge that finds nothing proves nothing: entries that point elsewhere must be reported.
#[test]
fn the_dump_tool_reports_damaged_indexes() {
    let test = "the_dump_tool_reports_damaged_indexes";
    let Some(kafka) = skip::unless(test, KafkaTools::find()) else { return };
    let copy = tempfile::tempdir().expect("a directory");
    let name = "00000000000000000000";
    // The last byte of the last entry's offset, and of its timestamp.
    for (kind, from_end) in [("log", None), ("index", Some(5)), ("timeindex", Some(5))] {
        let source = KafkaDirectory::golden().data.join("segments-0").join(name).with_extension(kind);
        let mut bytes = fs::read(source).expect("a golden file");
        if let Some(from_end) = from_end {
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
        }
        fs::write(copy.path().join(name).with_extension(kind), bytes).expect("a copy");
    }
    let files: Vec<_> = ["index", "timeindex"].map(|kind| copy.path().join(name).with_extension(kind)).into();
    let dump = kafka.dump(&["--verify-index-only"], &files);
    for kind in ["Mismatches", "timestamp mismatch"] {
        assert!(dump.complaints.iter().any(|line| line.contains(kind)), "{kind}: {:?}", dump.complaints);
    }
}
