//! `klamm log` as its users run it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use klamm_log::fs::RealFs;
use klamm_log::{AppendOrigin, LogConfig, LogManager, ManagerOptions};
use klamm_record::{BatchBuilder, Codec, NewRecord};
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition,
};
use serde_json::Value;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A log directory with one partition, `orders-0`, closed in order.
struct Data(TempDir);

impl Data {
    /// `batches` batches of two records: a text with a header, and bytes that are no text.
    fn with(batches: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let options = ManagerOptions::new(vec![dir.path().to_owned()], BrokerId(1), "cluster");
        let config = Arc::new(LogConfig { index_interval_bytes: 100, ..LogConfig::default() });
        let (manager, _) =
            LogManager::open(Arc::new(RealFs), options, &|_| Arc::clone(&config), NOW).unwrap();
        let partition = TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0));
        let log = manager.create(&partition, TopicId([7; 16]), Arc::clone(&config), NOW).unwrap();
        for i in 0..batches {
            let now = NOW.plus_millis(i as i64);
            let mut builder = BatchBuilder::new(Codec::Zstd.into());
            let mut text = NewRecord::new(now, Some(b"key"), Some("gr\u{fc}n".as_bytes()));
            text.headers = &[(b"trace", Some(&[0xff]))];
            builder.append(&text).unwrap();
            builder.append(&NewRecord::new(now, None, Some(&[0xff, 0x00]))).unwrap();
            let bytes = builder.build().unwrap();
            log.append_as_leader(&bytes, LeaderEpoch(0), AppendOrigin::Client, now).unwrap();
        }
        log.advance_high_watermark(Offset(batches as i64 * 2));
        manager.shut_down(BrokerEpoch(5)).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join("orders-0").join(name)
    }

    fn segment(&self) -> PathBuf {
        self.file("00000000000000000000.log")
    }

    fn flip(&self, file: &Path, at: usize) {
        let mut bytes = fs::read(file).unwrap();
        bytes[at] ^= 1;
        fs::write(file, bytes).unwrap();
    }
}

fn klamm<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klamm")).args(args).output().unwrap()
}

fn log(verb: &str, path: &Path, more: &[&str]) -> Output {
    klamm(["log".as_ref(), verb.as_ref(), path.as_os_str()].into_iter().chain(more.iter().map(AsRef::as_ref)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The exit code is `code`, nothing is on stdout, and stderr is one line that has all of `words`.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let told = stderr(output);
    assert_eq!((output.status.code(), stdout(output).as_str()), (Some(code), ""), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    for word in words {
        assert!(told.contains(word), "'{word}' is not in: {told}");
    }
}

#[test]
fn a_sound_directory_verifies_in_both_forms() {
    let data = Data::with(20);
    let table = log("verify", data.path(), &[]);
    assert_eq!((table.status.code(), stderr(&table).as_str()), (Some(0), ""));
    assert!(
        stdout(&table).contains("sound, 0 errors, 0 notes; 1 partitions, 1 segments, 20 batches, 40 records")
    );
    let json = log("verify", data.path(), &["--output", "json"]);
    let [report] = &json_lines(&json)[..] else { panic!("one object") };
    assert_eq!(
        (&report["sound"], &report["records"], &report["unlisted"]),
        (&true.into(), &40.into(), &0.into())
    );
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    // The partition alone, by a path that has no parent.
    let inside = Command::new(env!("CARGO_BIN_EXE_klamm"))
        .args(["log", "verify", "orders-0"])
        .current_dir(data.path())
        .output()
        .unwrap();
    assert_eq!(inside.status.code(), Some(0), "{}", stdout(&inside));
}

#[test]
fn damage_ends_with_one_and_says_where() {
    let data = Data::with(3);
    data.flip(&data.segment(), 70);
    let table = log("verify", data.path(), &[]);
    assert_eq!(table.status.code(), Some(1));
    assert!(stdout(&table).contains("00000000000000000000.log, byte 0, offset 0: record batch has crc"));
    assert!(stderr(&table).contains("is damaged (1 errors)"));
    let json = log("verify", &data.path().join("orders-0"), &["--output", "json"]);
    let [report] = &json_lines(&json)[..] else { panic!("one object") };
    let finding = &report["findings"][0];
    assert_eq!((&finding["severity"], &finding["code"]), (&"error".into(), &"checksum".into()));
    assert_eq!((&finding["position"], &finding["offset"]), (&0.into(), &0.into()));
    assert!(finding["meaning"].as_str().unwrap().contains("another replica"));
    let dump = log("dump", &data.segment(), &["--output", "json", "--no-records"]);
    assert_eq!(dump.status.code(), Some(1));
    let ok: Vec<_> = json_lines(&dump).iter().map(|row| row["crc_ok"].clone()).collect();
    assert_eq!(ok, [false, true, true]);
    // The first byte of the length: no batch is there any more.
    data.flip(&data.segment(), 8);
    let dump = log("dump", &data.segment(), &["--output", "json", "--no-records"]);
    let rows = json_lines(&dump);
    assert_eq!((rows.len(), &rows[0]["type"], &rows[0]["position"]), (3, &"damage".into(), &0.into()));
    assert_eq!(&rows[1]["position"], &rows[0]["size"]);
}

#[test]
fn a_dump_shows_batches_records_and_bytes_that_are_no_text() {
    let data = Data::with(2);
    let json = log("dump", &data.segment(), &["--output", "json"]);
    assert_eq!((json.status.code(), stderr(&json).as_str()), (Some(0), ""));
    let rows = json_lines(&json);
    let types: Vec<_> = rows.iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["batch", "record", "record", "batch", "record", "record"]);
    let batch = &rows[3];
    assert_eq!((&batch["base_offset"], &batch["last_offset"]), (&2.into(), &3.into()));
    assert_eq!((&batch["codec"], &batch["crc_ok"]), (&"zstd".into(), &true.into()));
    assert_eq!(batch["max_timestamp_ms"], NOW.0 + 1);
    let text = &rows[1];
    assert_eq!((&text["key"], &text["key_encoding"]), (&"key".into(), &"utf8".into()));
    assert_eq!((&text["value"], &text["value_encoding"]), (&"gr\u{fc}n".into(), &"utf8".into()));
    let header = &text["headers"][0];
    assert_eq!((&header["key"], &header["value"]), (&"trace".into(), &"/w==".into()));
    assert_eq!(header["value_encoding"], "base64");
    let bytes = &rows[2];
    assert_eq!((&bytes["key"], &bytes["key_encoding"]), (&Value::Null, &Value::Null));
    assert_eq!((&bytes["value"], &bytes["value_encoding"]), (&"/wA=".into(), &"base64".into()));
    let batches_only = json_lines(&log("dump", &data.segment(), &["--output", "json", "--no-records"]));
    assert_eq!(batches_only.len(), 2);
    let table = stdout(&log("dump", &data.segment(), &[]));
    assert!(table.contains("batch position 0 size"), "{table}");
    assert!(table.contains(r#"key "key" value "grün" header "trace"=0xff"#), "{table}");
    // The later of two flags counts.
    let again = stdout(&log("dump", &data.segment(), &["--no-records", "--records"]));
    assert_eq!(again, table);
}

#[test]
fn every_other_kind_of_file_is_dumped() {
    let data = Data::with(30);
    let first = |path: PathBuf| {
        let output = log("dump", &path, &["--output", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        json_lines(&output).first().cloned().unwrap_or(Value::Null)
    };
    let index = first(data.file("00000000000000000000.index"));
    assert_eq!(index["type"], "offset_entry");
    let batches = json_lines(&log("dump", &data.segment(), &["--output", "json", "--no-records"]));
    let named = batches.iter().find(|batch| batch["position"] == index["target"]).unwrap();
    assert_eq!(named["last_offset"], index["offset"]);
    assert_eq!(first(data.file("00000000000000000000.timeindex"))["type"], "time_entry");
    assert_eq!(first(data.file("leader-epoch-checkpoint"))["start_offset"], 0);
    assert_eq!(first(data.file("partition.metadata"))["topic_id"], TopicId([7; 16]).to_string());
    assert_eq!(first(data.path().join("recovery-point-offset-checkpoint"))["offset"], 60);
    assert_eq!(first(data.path().join("meta.properties"))["cluster_id"], "cluster");
    assert_eq!(first(data.path().join(".kafka_cleanshutdown"))["broker_epoch"], 5);
    // Looking does not take the mark away.
    assert_eq!(first(data.path().join(".kafka_cleanshutdown"))["type"], "clean_shutdown");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_with_what_to_do() {
    let data = Data::with(1);
    let dir = data.path();
    assert_refused(
        &log("dump", &dir.join("absent.log"), &[]),
        1,
        &["absent.log", "does not exist", "check the path"],
    );
    assert_refused(&log("verify", &dir.join("absent"), &[]), 1, &["does not exist", "check the path"]);
    assert_refused(&log("dump", dir, &[]), 2, &["is a directory", "klamm log verify"]);
    let notes = dir.join("notes.txt");
    fs::write(&notes, "x").unwrap();
    assert_refused(&log("dump", &notes, &[]), 2, &["notes.txt", "*.timeindex"]);
    assert_refused(&log("verify", &notes, &[]), 2, &["is not a directory", "klamm log dump"]);
    let empty = TempDir::new().unwrap();
    assert_refused(&log("verify", empty.path(), &[]), 2, &["is empty", "orders-0"]);
    fs::write(empty.path().join("x"), "x").unwrap();
    assert_refused(&log("verify", empty.path(), &[]), 2, &["holds no log", "log.dirs"]);
    fs::write(data.file("partition.metadata"), "x").unwrap();
    assert_refused(
        &log("dump", &data.file("partition.metadata"), &[]),
        1,
        &["version: 0", "klamm log verify"],
    );
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    let data = Data::with(1);
    fs::set_permissions(data.segment(), fs::Permissions::from_mode(0o000)).unwrap();
    let readable = fs::File::open(data.segment()).is_ok();
    let dump = log("dump", &data.segment(), &["--output", "json"]);
    let verify = log("verify", data.path(), &[]);
    if readable {
        // For root there are no permissions: then the file is as any other.
        assert_eq!((dump.status.code(), verify.status.code()), (Some(0), Some(0)));
    } else {
        assert_refused(&dump, 1, &["permission denied", "run as the user"]);
        assert_eq!(verify.status.code(), Some(1));
        assert!(stdout(&verify).contains("[unreadable]"));
    }
}

#[test]
fn wrong_arguments_end_with_two_and_help_with_zero() {
    for args in [
        &["log"][..],
        &["log", "dump"],
        &["log", "verify"],
        &["log", "dump", "x", "--output", "xml"],
        &["lg"],
    ] {
        let output = klamm(args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}");
        assert!(stderr(&output).contains("--help"), "{args:?}");
    }
    for args in
        [&["--help"][..], &["log", "--help"], &["log", "dump", "--help"], &["log", "verify", "--help"]]
    {
        assert_eq!(klamm(args).status.code(), Some(0), "{args:?}");
    }
    let help = stdout(&klamm(["log", "dump", "--help"]));
    assert!(help.contains("in bytes") && help.contains("milliseconds"), "{help}");
    assert_eq!(stdout(&klamm(["--version"])), concat!("klamm ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let data = Data::with(5000);
    for verb in ["dump", "verify"] {
        let path = if verb == "dump" { data.segment() } else { data.path().to_owned() };
        let mut child = Command::new(env!("CARGO_BIN_EXE_klamm"))
            .args(["log", verb])
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        if verb == "dump" {
            pipe.read_exact(&mut [0; 10]).unwrap();
        }
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{verb}");
    }
}

#[test]
fn several_files_are_dumped_though_one_fails() {
    let data = Data::with(1);
    let absent = data.file("absent.index");
    let args = ["log".as_ref(), "dump".as_ref(), absent.as_os_str()];
    let output = klamm(args.into_iter().chain([data.segment().as_os_str()]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("batch position 0"));
    assert!(stderr(&output).contains("absent.index does not exist"));
}

#[test]
fn what_kafka_wrote_verifies_and_dumps() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop/golden/kafka-4.3.1/data");
    let output = log("verify", &dir, &["--output", "json"]);
    let [report] = &json_lines(&output)[..] else { panic!("one object") };
    assert_eq!((output.status.code(), &report["errors"]), (Some(0), &0.into()), "{report}");
    let mut dumped = 0;
    for partition in
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let files = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| !path.ends_with("quorum-state")).collect();
        let start = ["log".as_ref(), "dump".as_ref()].into_iter();
        let end = ["--output".as_ref(), "json".as_ref()];
        let output = klamm(start.chain(files.iter().map(|file| file.as_os_str())).chain(end));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        dumped += json_lines(&output).iter().filter(|row| row["type"] == "record").count() as u64;
    }
    // `verify` also counts the records of the one batch file that is not in a partition's directory.
    let outside = json_lines(&log("dump", &dir.join("bootstrap.checkpoint"), &["--output", "json"]));
    dumped += outside.iter().filter(|row| row["type"] == "record").count() as u64;
    assert_eq!(report["records"], dumped);
}
