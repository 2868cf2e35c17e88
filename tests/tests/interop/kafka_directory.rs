//! A broker of Apache Kafka at work while the test waits: it writes a log directory, and opens one of ours.

use std::collections::BTreeMap;
use std::path::Path;

use klamm_tests::skip;

use crate::expected::{read_bytes, read_json};
use crate::golden_segments::{Consumed, KafkaDirectory, read_segments};
use crate::kafka_log::{opens_as_it_was_left, recovers_from_segments};
use crate::kafka_tools::{KafkaTools, base_offset, files_of_kind};
use crate::our_log::{self, OurPartition};

#[test]
fn a_fresh_directory_of_kafka_is_read_as_kafka_reads_it() {
    let test = "a_fresh_directory_of_kafka_is_read_as_kafka_reads_it";
    let Some(kafka) = skip::unless(test, KafkaTools::with_broker()) else { return };
    let out = tempfile::tempdir().expect("a directory");
    kafka.write_directory(out.path());
    let directory = KafkaDirectory::at(out.path());
    read_segments(&directory);
    let sized =
        directory.dump.files.keys().filter(|path| path.starts_with("sized-0/") && path.ends_with(".log"));
    assert!(sized.count() > 1, "no segment was rolled by its size");
    opens_as_it_was_left(&directory);
    let recovered = recovers_from_segments(&directory);
    judge_indexes(&kafka, recovered.path(), directory.fetched.keys());
}

/// Kafka's tool finds the indexes and snapshots sound that recovery made.
fn judge_indexes<'a>(kafka: &KafkaTools, directory: &Path, partitions: impl Iterator<Item = &'a String>) {
    let kinds = [".log", ".index", ".timeindex", ".txnindex", ".snapshot"];
    let folders = partitions.map(|name| directory.join(name));
    let files: Vec<_> =
        folders.flat_map(|folder| kinds.iter().flat_map(move |kind| files_of_kind(&folder, kind))).collect();
    let dump = kafka.dump(&["--deep-iteration"], &files);
    assert_eq!(dump.complaints, Vec::<String>::new());
    assert!(dump.gaps.iter().all(|(path, ..)| path.contains("compacted-0")), "{:?}", dump.gaps);
    let made = |kind: &str| dump.files.iter().any(|(path, lines)| path.ends_with(kind) && !lines.is_empty());
    assert!(kinds.iter().all(|kind| made(kind)), "a kind of file without an entry: {:?}", dump.files.keys());
}

#[test]
fn kafka_opens_our_directory_and_serves_it() {
    let test = "kafka_opens_our_directory_and_serves_it";
    let Some(kafka) = skip::unless(test, KafkaTools::with_broker()) else { return };
    let (directory, out) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let partitions = our_log::write(directory.path());
    kafka.serve_directory(directory.path(), out.path());
    for run in ["clean", "recovered"] {
        let mut seen: BTreeMap<String, Consumed> = read_json(&out.path().join(run).with_extension("json"));
        for (topic, partition) in &partitions {
            let name = format!("{topic}-0");
            let segments = files_of_kind(&directory.path().join(&name), ".log");
            // Where the log starts within its first segment stands in a checkpoint of the directory as a whole.
            let start = segments.first().map_or(0, |segment| base_offset(segment));
            let found = seen.remove(&name).unwrap_or_else(|| panic!("{run}: {name} is not there"));
            let expected = partition.consumed(start);
            assert_eq!(found.records, expected.records, "{run}: {name}");
            assert_eq!(found.committed, expected.committed, "{run}: {name}");
        }
        assert!(seen.keys().all(|name| name.starts_with("__")), "{run}: {:?}", seen.keys());
        let output = read_bytes(&out.path().join(run).with_extension("output"));
        judge_output(&String::from_utf8_lossy(&output), run, &partitions);
    }
}

/// Kafka has found nothing to complain of, and has looked at what this run was to make it look at.
fn judge_output(output: &str, run: &str, partitions: &BTreeMap<&str, OurPartition>) {
    let bad =
        |line: &&str| [" ERROR ", "orrupt", "recovering segment"].iter().any(|word| line.contains(word));
    assert_eq!(output.lines().filter(bad).collect::<Vec<_>>(), Vec::<&str>::new(), "{run}");
    for (topic, partition) in partitions {
        let says = |who: &str, what: &str| {
            let who = format!("[{who} partition={topic}-0");
            output.lines().any(|line| line.contains(&who) && line.contains(what))
        };
        let checked = says("LogLoader", "Recovering unflushed segment");
        let loaded =
            format!("Loading producer state from snapshot file 'SnapshotFile(offset={},", partition.end);
        let trusted = says("ProducerStateManager", &loaded);
        match run {
            "clean" => assert!(trusted && !checked, "{topic}: our snapshot was not used"),
            _ => assert!(checked, "{topic}: our batches were not checked"),
        }
    }
}
