//! A real data set goes in through librdkafka and comes out of Java's consumer, compared by checksum.
//!
//! The records are the lines of the sources that this workspace was built from: every text file of every crate in
//! `Cargo.lock`, and then of Go's standard library, in the order of their paths. A file's lines share a key and a partition,
//! and the checksum runs over the records in the order of their offsets, so that it tells of order as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use klamm_record::Codec;
use klamm_tests::cluster::Cluster;
use klamm_tests::skip;
use klamm_tests::tools::{self, ToolError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::batches::{judge_way, on_disk};
use super::client::{Driver, JAVA, LIBRDKAFKA};
use super::work::{CreateWork, From, ReadWork};
use super::{bootstrap, three};

const TOPIC: &str = "sources";
const PARTITIONS: u16 = 6;
/// A file with a longer line is left out: it would exceed the size of a batch.
const LINE_BYTES_MAX: usize = 900_000;

/// Files are taken until they have as many bytes.
const BYTES_MIN: usize = 220_000_000;
const TEST: &str = "sources_written_by_librdkafka_are_read_by_java";

#[tokio::test(flavor = "multi_thread")]
async fn sources_written_by_librdkafka_are_read_by_java() {
    let ready = spawn_blocking(prepare).await.unwrap();
    let Some((writer, reader, files)) = skip::unless(TEST, ready) else { return };
    let sums = sums_of(&files);
    let bytes: usize = files.iter().map(|file| file.bytes).sum();
    let records: i64 = sums.iter().map(|sum| sum.records).sum();
    assert!(records > 1_000_000 && bytes >= BYTES_MIN, "{records} records of {bytes} bytes");

    let mut cluster = Cluster::start(&three()).await.unwrap();
    let bootstrap = bootstrap(&cluster);
    let topic = CreateWork { topic: TOPIC.to_owned(), partitions: PARTITIONS.into(), replication: 3 };
    writer.run::<serde_json::Value>("create", &bootstrap, &[topic]).await;
    let view = cluster.admin().wait_for_leaders(TOPIC).await.unwrap();

    let begun = Instant::now();
    writer.run::<serde_json::Value>("load", &bootstrap, &files).await;
    let written_s = begun.elapsed().as_secs_f64();
    for partition in &view.partitions {
        let leader = u16::try_from(partition.leader.unwrap().0).unwrap();
        let batches = on_disk(&mut cluster, leader, TOPIC, partition.partition.0);
        judge_way(&batches, Codec::Lz4, true).unwrap();
    }

    let reads: Vec<_> = sums.iter().enumerate().map(|(read, sum)| to_the_end(read, sum)).collect();
    let begun = Instant::now();
    let found: Vec<Sum> = reader.run("sum", &bootstrap, &reads).await;
    let read_s = begun.elapsed().as_secs_f64();
    assert_eq!(found, sums);
    println!("{records} records of {bytes} bytes: written in {written_s:.1} s, read in {read_s:.1} s");
}

/// One file, as the driver takes it.
#[derive(Clone, Debug, Serialize)]
struct FileWork {
    topic: &'static str,
    partition: u16,
    key: String,
    path: PathBuf,
    #[serde(skip)]
    bytes: usize,
}

/// What a partition holds, in sum.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    partition: u16,
    records: i64,
    /// SHA-256 over each record's key and value, each after its length in four bytes.
    sum: String,
}

fn to_the_end(read: usize, sum: &Sum) -> ReadWork {
    let (topic, partition) = (TOPIC.to_owned(), sum.partition.into());
    ReadWork { read, topic, partition, from: From::Beginning, until: sum.records }
}

fn prepare() -> Result<(Driver, Driver, Vec<FileWork>), ToolError> {
    let (writer, reader) = (LIBRDKAFKA.driver()?, JAVA.driver()?);
    let mut roots = crates();
    roots.push(go_sources()?);
    let mut files = Vec::new();
    let mut left = BYTES_MIN;
    for root in roots {
        if left == 0 {
            break;
        }
        collect(&root, &mut left, &mut files);
    }
    Ok((writer, reader, files))
}

/// The directories of all crates that `Cargo.lock` names and cargo has fetched, in the order of their names.
fn crates() -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        source: Option<String>,
        manifest_path: PathBuf,
    }
    let cargo = tools::on_path("cargo").unwrap();
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    let output = command.current_dir(tools::workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
    let foreign = metadata.packages.iter().filter(|package| package.source.is_some());
    let mut roots: Vec<_> =
        foreign.filter_map(|package| package.manifest_path.parent()).map(Path::to_owned).collect();
    roots.sort();
    roots
}

/// Where Go keeps the sources of its standard library.
fn go_sources() -> Result<PathBuf, ToolError> {
    let output = Command::new(tools::go(1, 26)?).args(["env", "GOROOT"]).output().unwrap();
    Ok(Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("src"))
}

/// Adds the text files below `directory`, in the order of their names, until no bytes are `left` to take.
fn collect(directory: &Path, left: &mut usize, files: &mut Vec<FileWork>) {
    let listed = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if *left == 0 {
            return;
        }
        if path.is_dir() && !path.is_symlink() {
            collect(&path, left, files);
        } else if let Some(bytes) = text_length(&path) {
            *left = left.saturating_sub(bytes);
            let number = files.len();
            let partition = u16::try_from(number % usize::from(PARTITIONS)).unwrap();
            files.push(FileWork { topic: TOPIC, partition, key: number.to_string(), path, bytes });
        }
    }
}

/// The length of a file that holds text in lines.
fn text_length(path: &Path) -> Option<usize> {
    let bytes = if path.is_file() { fs::read(path).ok()? } else { return None };
    let text = std::str::from_utf8(&bytes).ok()?;
    let fits = text.len() <= LINE_BYTES_MAX || text.split('\n').all(|line| line.len() <= LINE_BYTES_MAX);
    (fits && !bytes.contains(&0) && !bytes.is_empty()).then_some(bytes.len())
}

/// What each partition must hold, by the files alone.
fn sums_of(files: &[FileWork]) -> Vec<Sum> {
    let mut sums = vec![(0_i64, Sha256::new()); usize::from(PARTITIONS)];
    for file in files {
        let text = fs::read_to_string(&file.path).unwrap();
        let (records, digest) = &mut sums[usize::from(file.partition)];
        let key = framed(&file.key);
        let mut content = Vec::with_capacity(2 * text.len());
        for line in text.split('\n') {
            *records += 1;
            content.extend_from_slice(&key);
            content.extend_from_slice(&length_of(line));
            content.extend_from_slice(line.as_bytes());
        }
        digest.update(&content);
    }
    let told = (0..).zip(sums).map(|(partition, (records, digest))| Sum {
        partition,
        records,
        sum: digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    told.collect()
}

fn length_of(part: &str) -> [u8; 4] {
    u32::try_from(part.len()).unwrap().to_be_bytes()
}

fn framed(part: &str) -> Vec<u8> {
    [&length_of(part), part.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_of_order_and_of_where_records_end() {
        let directory = tempfile::tempdir().unwrap();
        let sum = |text: &str| {
            let path = directory.path().join("text");
            fs::write(&path, text).unwrap();
            sums_of(&[FileWork { topic: TOPIC, partition: 2, key: "0".to_owned(), path, bytes: text.len() }])
        };
        let sums = sum("a\nbc\n");
        assert_eq!(sums.iter().map(|sum| sum.records).collect::<Vec<_>>(), [0, 0, 3, 0, 0, 0]);
        assert_eq!(sums, sum("a\nbc\n"));
        assert_ne!(sums, sum("bc\na\n"));
        assert_ne!(sums, sum("ab\nc\n"));
        assert_ne!(sums, sum("a\nbc"));
    }

    #[test]
    fn files_are_taken_by_name_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("b");
        fs::create_dir(&inner).unwrap();
        fs::write(directory.path().join("c"), "after").unwrap();
        fs::write(directory.path().join("d"), "too many").unwrap();
        fs::write(directory.path().join("a"), "first\n").unwrap();
        fs::write(directory.path().join("binary"), b"\xff\0").unwrap();
        fs::write(inner.join("x"), "inside").unwrap();
        let mut files = Vec::new();
        let mut left = 13;
        collect(directory.path(), &mut left, &mut files);
        let taken: Vec<_> =
            files.iter().map(|file| (file.key.as_str(), file.partition, file.bytes)).collect();
        assert_eq!((taken.as_slice(), left), ([("0", 0, 6), ("1", 1, 6), ("2", 2, 5)].as_slice(), 0));
        assert!(files[1].path.ends_with("b/x"));
    }
}
