//! A log directory that Apache Kafka writes while the test waits.

use klamm_tests::skip;

use crate::golden_segments::{KafkaDirectory, read_segments};
use crate::kafka_tools::KafkaTools;

#[test]
fn a_fresh_directory_of_kafka_is_read_as_kafka_reads_it() {
    let test = "a_fresh_directory_of_kafka_is_read_as_kafka_reads_it";
    let Some(kafka) = skip::unless(test, KafkaTools::find()) else { return };
    let out = tempfile::tempdir().expect("a directory");
    kafka.write_directory(out.path());
    let directory = KafkaDirectory::at(out.path());
    read_segments(&directory);
    let sized =
        directory.dump.files.keys().filter(|path| path.starts_with("sized-0/") && path.ends_with(".log"));
    assert!(sized.count() > 1, "no segment was rolled by its size");
}
