//! `DumpLogSegments` as a judge.

use std::fs;

use std::path::Path;

use klamm_record::RecordBatch;
use klamm_tests::skip;

use crate::dump_tool::Dump;
use crate::expected::records_of;
use crate::golden_segments::{KafkaDirectory, compare_header, listed_batches};
use crate::kafka_log::dumped_producers;
use crate::kafka_tools::{KafkaTools, base_offset, files_of_kind};
use crate::our_log::{self, OurPartition};

#[test]
fn the_dump_tool_finds_our_directory_as_it_was_written() {
    let test = "the_dump_tool_finds_our_directory_as_it_was_written";
    let Some(kafka) = skip::unless(test, KafkaTools::find()) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let partitions = our_log::write(directory.path());
    let files = |kinds: &[&str]| {
        let folders = partitions.keys().map(|topic| directory.path().join(format!("{topic}-0")));
        let found =
            folders.flat_map(|folder| kinds.iter().flat_map(move |kind| files_of_kind(&folder, kind)));
        found.collect::<Vec<_>>()
    };
    let indexes = files(&[".index", ".timeindex"]);
    let sane = kafka.dump(&["--index-sanity-check"], &indexes);
    assert_eq!(sane.complaints, Vec::<String>::new());
    assert_eq!(sane.sane.len() + sane.empty.len(), indexes.len(), "{sane:?}");
    assert!(sane.sane.len() > sane.empty.len(), "{sane:?}");
    assert_eq!(kafka.dump(&["--verify-index-only"], &indexes).complaints, Vec::<String>::new());

    let dump = kafka
        .dump(&["--deep-iteration"], &files(&[".log", ".index", ".timeindex", ".txnindex", ".snapshot"]));
    assert_eq!(dump.complaints, Vec::<String>::new());
    assert_eq!(dump.gaps, Vec::new());
    for (topic, partition) in &partitions {
        let folder = directory.path().join(format!("{topic}-0"));
        compare_segments(&dump, &folder, partition);
        compare_aborted(&dump, &folder, partition);
        compare_producers(&dump, &folder, partition);
    }
    let with_entries =
        |kind: &str| dump.files.iter().any(|(path, lines)| path.ends_with(kind) && !lines.is_empty());
    for kind in [".index", ".timeindex", ".txnindex", ".snapshot"] {
        assert!(with_entries(kind), "no {kind} with an entry");
    }
}

/// The tool lists every batch that was appended, where it stands, and every record of it.
fn compare_segments(dump: &Dump, folder: &Path, partition: &OurPartition) {
    let segments = files_of_kind(folder, ".log");
    let parsed = partition.batches.iter().map(|bytes| RecordBatch::parse(bytes).expect("our own batch"));
    let mut batches: Vec<_> = parsed.collect();
    let first = segments.first().map_or(0, |segment| base_offset(segment));
    batches.retain(|batch| batch.base_offset().0 >= first);
    let mut batches = batches.iter();
    for segment in &segments {
        let place = segment.to_str().expect("a path in UTF-8");
        let mut position = 0;
        for (line, records) in listed_batches(dump.file(place)) {
            let batch = batches.next().unwrap_or_else(|| panic!("{place}: an unknown batch: {line:?}"));
            compare_header(batch, line, place);
            assert_eq!(line.number("position"), position, "{place}");
            position += line.number("size");
            let offsets: Vec<_> = records.iter().map(|record| record.number("offset")).collect();
            let expected: Vec<_> = records_of(batch, place).iter().map(|record| record.offset).collect();
            assert_eq!(offsets, expected, "{place}");
        }
        assert!(segments.len() == 1 || position > 0, "{place} is empty");
    }
    assert!(batches.next().is_none(), "{}: a batch is missing", folder.display());
}

/// The transaction indexes hold the aborted transactions, each in the segment of its marker.
fn compare_aborted(dump: &Dump, folder: &Path, partition: &OurPartition) {
    let mut found = Vec::new();
    for file in files_of_kind(folder, ".txnindex") {
        let lines = dump.file(file.to_str().expect("a path in UTF-8"));
        let names = ["producerId", "firstOffset", "lastOffset", "lastStableOffset"];
        found.extend(lines.iter().map(|line| names.map(|name| line.number(name))));
    }
    assert_eq!(found, partition.aborted, "{}", folder.display());
}

/// The newest snapshot holds each producer's state at the log end.
fn compare_producers(dump: &Dump, folder: &Path, partition: &OurPartition) {
    let snapshots = files_of_kind(folder, ".snapshot");
    let newest = snapshots.last().unwrap_or_else(|| panic!("{}: no snapshot", folder.display()));
    assert_eq!(base_offset(newest), partition.end.0, "{}", folder.display());
    let lines = dump.file(newest.to_str().expect("a path in UTF-8"));
    assert_eq!(dumped_producers(lines), partition.producers, "{}", newest.display());
}

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
