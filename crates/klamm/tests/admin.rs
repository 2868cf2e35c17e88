//! `klamm topic`, `klamm cluster` and `klamm perf` where no broker is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn klamm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klamm")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// An address where nobody listens: the port was free a moment ago.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Checks that nothing was printed but one line that says all of `parts`.
fn assert_one_line(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part} is not in: {stderr}");
    }
}

#[test]
fn that_no_broker_answers_is_said_in_one_line_with_exit_code_three() {
    let address = nobody();
    for verb in [
        &["topic", "list"][..],
        &["topic", "create", "orders"],
        &["topic", "describe", "orders"],
        &["topic", "delete", "orders", "--yes"],
        &["cluster", "quorum"],
        &["cluster", "brokers"],
        &["perf", "produce", "--topic", "orders"],
        &["perf", "consume", "--topic", "orders"],
        &["perf", "latency", "--topic", "orders"],
    ] {
        let mut args = verb.to_vec();
        args.extend(["--bootstrap-server", &address]);
        assert_one_line(&klamm(&args), 3, &[&address, "klamm dev", "--bootstrap-server"]);
    }
}

#[test]
fn nothing_is_deleted_when_nobody_can_be_asked() {
    let output = klamm(&["topic", "delete", "orders", "--bootstrap-server", &nobody()]);
    assert_one_line(&output, 2, &["--yes"]);
}

#[test]
fn a_latency_without_acknowledgements_is_refused() {
    let server = nobody();
    let args = ["perf", "latency", "--topic", "orders", "--acks", "0", "--bootstrap-server", &server];
    assert_one_line(&klamm(&args), 2, &["--acks"]);
}

#[test]
fn wrong_arguments_end_with_two() {
    for args in [
        &["topic"][..],
        &["topic", "create"],
        &["topic", "create", "orders", "--partitions", "0"],
        &["topic", "create", "orders", "--config", "retention"],
        &["topic", "list", "--bootstrap-server", "localhost"],
        &["topic", "list", "--json", "--output", "table"],
        &["perf", "produce"],
        &["perf", "produce", "--topic", "or/ders"],
        &["perf", "produce", "--topic", "orders", "--acks", "2"],
        &["perf", "produce", "--topic", "orders", "--compression", "rar"],
    ] {
        let output = klamm(args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}");
    }
}
