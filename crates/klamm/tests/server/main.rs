//! `klamm server` and `klamm dev` as processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test measures how long it waits")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

mod fixture;
mod refounded;

use fixture::*;

#[test]
fn a_node_starts_serves_and_keeps_its_topics_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Alone::start(&data);
    let created = topic(&node.bootstrap(), &["create", "orders", "--partitions", "2"]);
    assert!(created.status.success(), "{created:?}");
    let metrics = get(node.admin_port, "/metrics");
    assert!(
        metrics.contains("klamm_controller_active 1\n") && metrics.contains("klamm_broker_active 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nklamm_process_threads ") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(get(node.admin_port, "/livez").starts_with("HTTP/1.1 200"));
    assert_eq!(node.stop(), Some(0));

    let node = Alone::start(&data);
    let listed = topic(&node.bootstrap(), &["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("orders"), "{listed:?}");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_node_with_partitions_and_without_metadata_does_not_begin_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Alone::start(&data);
    let created = topic(&node.bootstrap(), &["create", "orders", "--partitions", "2"]);
    assert!(created.status.success(), "{created:?}");
    let address = format!("CONTROLLER://127.0.0.1:{}", node.controller_port);
    let (bootstrap, voters) = (node.bootstrap(), format!("1@127.0.0.1:{}", node.controller_port));
    assert_eq!(node.stop(), Some(0));
    // As if the disk with the metadata were not mounted.
    std::fs::remove_dir_all(data.join("metadata")).unwrap();
    let output = server(&[
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("listeners", &format!("PLAINTEXT://{bootstrap},{address}")),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", &voters),
        ("log.dirs", data.to_str().unwrap()),
        ("klamm.admin.listener", "none"),
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("this node holds partitions"), "{stderr}");
    assert!(data.join("orders-0").is_dir(), "the records are where they were");
}

#[test]
fn health_is_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let node = Alone::start(&dir.path().join("data"));
    let health =
        |port: u16| klamm().args(["health", "--admin", &format!("127.0.0.1:{port}")]).output().unwrap();
    let well = health(node.admin_port);
    assert!(well.status.success() && String::from_utf8_lossy(&well.stdout).contains("ready"), "{well:?}");
    let [nobody] = ports();
    assert_eq!(health(nobody).status.code(), Some(3));
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn the_fallback_counts_only_where_nothing_else_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let fallback = dir.path().join("fallback.properties");
    std::fs::write(&fallback, "num.partitions=none\n").unwrap();
    let run = |variable: Option<(&str, &str)>| {
        let mut command = klamm();
        command.arg("server").arg("--fallback-config").arg(&fallback).env_clear().envs(variable);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(run(None).contains("num.partitions cannot be"));
    let told = run(Some(("KAFKA_NODE_ID", "1")));
    assert!(told.contains("process.roles is missing") && !told.contains("num.partitions"), "{told}");
}

/// A node of two, which are one quorum.
fn one_of_two(id: usize, dir: &Path, controllers: [u16; 2], admin_port: u16) -> Reaped {
    let voters = format!("1@127.0.0.1:{},2@127.0.0.1:{}", controllers[0], controllers[1]);
    let listeners = format!("PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{}", controllers[id - 1]);
    let mut command = server(&[
        ("node.id", &id.to_string()),
        ("process.roles", "broker,controller"),
        ("listeners", &listeners),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", &voters),
        ("klamm.cluster.id", "4L6g3nShT-eMCtK--X86sw"),
        ("log.dirs", dir.join(id.to_string()).to_str().unwrap()),
        ("klamm.admin.listener", &format!("127.0.0.1:{admin_port}")),
        ("klamm.log.level", "off"),
    ]);
    Reaped(command.spawn().unwrap())
}

#[test]
fn a_controller_that_waits_for_others_says_for_whom() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, admin, other_admin] = ports();
    let _node = one_of_two(1, dir.path(), [first, second], admin);
    let waits = format!("controller: waits for 2@127.0.0.1:{second}\n");
    wait_for("whom it waits for", || get(admin, "/readyz").contains(&waits));
    let _other = one_of_two(2, dir.path(), [first, second], other_admin);
    wait_for("readiness", || get(admin, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(!get(admin, "/readyz").contains("waits"));
}

#[test]
fn a_second_signal_ends_a_node_that_cannot_stop_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, admin, other_admin] = ports();
    let mut node = one_of_two(1, dir.path(), [first, second], admin);
    let other = one_of_two(2, dir.path(), [first, second], other_admin);
    wait_for("readiness", || get(admin, "/readyz").starts_with("HTTP/1.1 200"));
    // Without a quorum nobody can take over, and the first signal waits for that.
    drop(other);
    let signal = || {
        let sent = Command::new("kill").args(["-TERM", &node.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal();
    wait_for("the end", || get(admin, "/readyz").contains("stopping"));
    signal();
    assert_eq!(node.0.wait().unwrap().code(), Some(130));
}

#[test]
fn a_directory_belongs_to_one_node_and_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(Alone::start(&data).stop(), Some(0));
    let other = |more: &[(&str, &str)]| {
        let mut settings = vec![
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:1"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", "1@127.0.0.1:1,2@127.0.0.1:2"),
            ("log.dirs", data.to_str().unwrap()),
            ("klamm.admin.listener", "none"),
            ("klamm.log.level", "off"),
        ];
        settings.extend(more);
        let output = server(&settings).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = other(&[("node.id", "2")]);
    assert!(told.contains("belongs to node 1, and this is node 2"), "{told}");
    let told = other(&[("klamm.cluster.id", "4L6g3nShT-eMCtK--X86sw")]);
    assert!(told.contains("and this node to 4L6g3nShT-eMCtK--X86sw"), "{told}");
    let new = dir.path().join("new");
    let told = other(&[("log.dirs", new.to_str().unwrap())]);
    assert!(
        told.contains("set the variable CLUSTER_ID") && told.contains("for example CLUSTER_ID="),
        "{told}"
    );
}

#[test]
fn a_node_of_another_cluster_is_told_both_ids_and_keeps_no_trace_of_the_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = Alone::start(&dir.path().join("data"));
    let meta = std::fs::read_to_string(dir.path().join("data/meta.properties")).unwrap();
    let theirs = meta.lines().find_map(|line| line.strip_prefix("cluster.id=")).unwrap();
    let stranger = dir.path().join("stranger");
    let join = |cluster_id: &str| {
        let voters = format!("1@127.0.0.1:{}", node.controller_port);
        server(&[
            ("node.id", "2"),
            ("process.roles", "broker"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", &voters),
            ("klamm.cluster.id", cluster_id),
            ("log.dirs", stranger.to_str().unwrap()),
            ("klamm.admin.listener", "none"),
        ])
    };
    let ours = "4L6g3nShT-eMCtK--X86sw";
    let output = join(ours).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let told = stderr.lines().find_map(|line| line.strip_prefix("klamm: ")).unwrap();
    for part in [ours, theirs, "set CLUSTER_ID", "controller.quorum.voters", "stay without an id"] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    assert!(!stranger.join("meta.properties").exists(), "{stderr}");
    let from = node.logged();
    assert!(from.contains("a call from or for another node was refused") && from.contains(ours), "{from}");
    // The same directory then does for the right id.
    let mut joined = Reaped(join(theirs).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the second broker", || {
        let brokers =
            klamm().args(["cluster", "brokers", "--bootstrap-server"]).arg(node.bootstrap()).output();
        let brokers = String::from_utf8(brokers.unwrap().stdout).unwrap();
        assert_eq!(joined.0.try_wait().unwrap(), None);
        brokers.lines().any(|line| line.trim_start().starts_with('2'))
    });
}

#[test]
fn voters_of_two_clusters_say_so_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ports();
    let voters = format!("1@127.0.0.1:{first},2@127.0.0.1:{second}");
    let ids = ["4L6g3nShT-eMCtK--X86sw", "5L6g3nShT-eMCtK--X86sw"];
    let log = |id: &str| dir.path().join(id).with_extension("log");
    let start = |id: &str, port: u16, cluster_id: &str| {
        let mut command = server(&[
            ("node.id", id),
            ("process.roles", "controller"),
            ("listeners", &format!("CONTROLLER://127.0.0.1:{port}")),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", &voters),
            ("klamm.cluster.id", cluster_id),
            ("log.dirs", dir.path().join(id).to_str().unwrap()),
            ("klamm.admin.listener", "none"),
        ]);
        Reaped(command.stderr(File::create(log(id)).unwrap()).spawn().unwrap())
    };
    let _nodes = [start("1", first, ids[0]), start("2", second, ids[1])];
    for id in ["1", "2"] {
        wait_for("the warning", || {
            let logged = std::fs::read_to_string(log(id)).unwrap();
            let told = |line: &str| line.contains("a voter is of another cluster");
            // Without a quorum there is nothing that it could be ready for.
            assert!(!logged.contains(" ready node_id="), "{logged}");
            logged.lines().any(|line| told(line) && ids.iter().all(|id| line.contains(id)))
        });
    }
}

#[test]
fn a_stranger_on_the_controllers_listener_is_told_to_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let node = Alone::start(&dir.path().join("data"));
    let started = Instant::now();
    for _ in 0..30 {
        let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, node.controller_port)).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Closed or reset, as the system has it.
        let _ = stranger.read_to_end(&mut Vec::new());
    }
    let logged = node.logged();
    let lines: Vec<_> = logged.lines().filter(|line| line.contains("the controllers' listener")).collect();
    let most = 1 + started.elapsed().as_secs() / 10;
    assert!((1..=most).contains(&(lines.len() as u64)), "{logged}");
    let line = lines[0];
    assert!(line.contains("peer=127.0.0.1:") && line.contains("HTTP/1") && line.contains("gRPC"), "{line}");
    assert_eq!(node.stop(), Some(0));
}

/// A fetch of the first partition of `t` that waits an hour for a gigabyte (version 4).
fn fetch_that_waits() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend([0, 1, 0, 4, 0, 0, 0, 7, 0xff, 0xff]);
    for number in [-1, 3_600_000, 1 << 30, 1 << 30] {
        body.extend(i32::to_be_bytes(number));
    }
    body.push(0);
    body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend(i64::to_be_bytes(0));
    body.extend(i32::to_be_bytes(1 << 30));
    let length = i32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[..], &body].concat()
}

#[test]
fn a_node_whose_quorum_dies_ends_at_once_whatever_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    // No file may grow beyond 32 or 64 KiB, as the shell counts, so that the metadata log fails as on a full disk.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_klamm")]);
    let hour = "3600000";
    let patient = [("klamm.shutdown.timeout.ms", hour), ("klamm.connection.drain.timeout.ms", hour)];
    let mut node = Alone::start_by(limited, &dir.path().join("data"), &patient);
    let create = |name: &str, partitions: &str| {
        let args = ["create", name, "--partitions", partitions, "--timeout", "5"];
        topic(&node.bootstrap(), &args).status.success()
    };
    assert!(create("t", "1"), "{}", node.logged());
    let mut waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, node.client_port)).unwrap();
    waiting.write_all(&fetch_that_waits()).unwrap();
    let died = (0..20).any(|n| !create(&format!("t{n}"), "500"));
    assert!(died, "{}", node.logged());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = node.child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "{}", node.logged());
        std::thread::sleep(TICK);
    };
    assert_eq!(status.code(), Some(1), "{}", node.logged());
    let logged = node.logged();
    let told = logged.lines().find_map(|line| line.strip_prefix("klamm: ")).unwrap();
    assert!(told.contains("the controller has stopped: ") && told.contains("cannot write "), "{told}");
}

/// As in a container, where 1,024 are allowed at first and many more on demand.
#[test]
fn a_node_takes_as_many_open_files_as_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 1024; ulimit -Hn 2000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_klamm")]);
    let node = Alone::start_by(limited, &dir.path().join("data"), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["2000", "2000"], "{line}");
    assert!(node.logged().contains("few open files are allowed"), "{}", node.logged());
}

#[test]
fn every_wrong_setting_is_one_line_and_the_exit_code_is_two() {
    let output = server(&[("num.partition", "1"), ("log.retention.ms", "soon")]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains("log.retention.ms cannot be \"soon\""), "{stderr}");
    assert!(lines[1].contains("did you mean num.partitions?"), "{stderr}");
}

#[test]
fn a_variable_that_is_no_text_is_not_passed_over() {
    use std::os::unix::ffi::OsStrExt as _;
    let value = std::ffi::OsStr::from_bytes(b"/data/\xff");
    let output = klamm().arg("server").env("KAFKA_LOG_DIRS", value).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "klamm: variable KAFKA_LOG_DIRS: its value is not UTF-8 text; set it anew\n");
}

#[test]
fn variables_count_as_in_the_apache_image() {
    let mut command = klamm();
    let output =
        command.arg("server").env("KAFKA_NODE_ID", "x").env("KAFKA_HEAP_OPTS", "-Xmx1g").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("variable KAFKA_NODE_ID: node.id cannot be \"x\""), "{stderr}");
    // Where nothing starts, only what stops it is told.
    assert!(!stderr.contains("HEAP"), "{stderr}");
}

#[test]
fn what_the_apache_image_has_for_java_gets_one_line_that_says_why_it_does_nothing() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let idle = [
        ("KAFKA_HEAP_OPTS", "-Xmx1g -Dsecret"),
        ("KAFKA_OPTS", "-Dsecret"),
        ("KAFKA_JMX_OPTS", "-Dsecret"),
        ("KAFKA_LOG4J_ROOT_LOGLEVEL", "secret"),
    ];
    let output = klamm()
        .arg("server")
        .env_clear()
        .env("KAFKA_NODE_ID", "1")
        .env("KAFKA_PROCESS_ROLES", "controller")
        .env("KAFKA_LISTENERS", format!("CONTROLLER://{address}"))
        .env("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .env("KAFKA_CONTROLLER_QUORUM_VOTERS", format!("1@{address}"))
        .env("KAFKA_CONTROLLER_QUORUM_ELECTION_TIMEOUT_MS", "50")
        .env("KAFKA_LOG_DIRS", dir.path())
        .env("KAFKA_KLAMM_ADMIN_LISTENER", "none")
        .envs(idle)
        .output()
        .unwrap();
    // It gets as far as its listener, where somebody else is.
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for (variable, _) in idle {
        let lines: Vec<_> = stderr.lines().filter(|line| line.contains(variable)).collect();
        let [line] = lines[..] else { panic!("{variable}: {stderr}") };
        assert!(line.contains("without effect") && line.contains("there is no "), "{line}");
    }
    assert!(!stderr.contains("secret"), "{stderr}");
    let bounded = "variable KAFKA_CONTROLLER_QUORUM_ELECTION_TIMEOUT_MS";
    assert!(stderr.lines().any(|line| line.contains(bounded) && line.contains("taken as 100")), "{stderr}");
}

#[test]
fn a_directory_is_no_configuration_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = klamm().args(["server", "--config"]).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("is a directory; name the file in it") && !stderr.contains("chmod"), "{stderr}");
}

#[test]
fn a_taken_port_is_told_with_the_setting() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = server(&[
        ("node.id", "1"),
        ("process.roles", "controller"),
        ("listeners", &format!("CONTROLLER://{address}")),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", &format!("1@{address}")),
        ("log.dirs", dir.path().to_str().unwrap()),
        ("klamm.admin.listener", "none"),
        ("klamm.log.level", "off"),
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&format!("cannot listen on {address} (CONTROLLER)")), "{stderr}");
    assert!(stderr.contains("change listeners"), "{stderr}");
}

#[test]
fn a_local_cluster_starts_tells_where_it_is_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // It looks from there on, and a thousand above for the controllers: not where the other tests get theirs.
    let port = 8_000 + std::process::id() % 1_000;
    let mut dev = klamm()
        .args(["dev", "--brokers", "2", "--port", &port.to_string(), "--data"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    // Its output ends if it fails.
    for line in lines.by_ref() {
        told.push(line.unwrap());
        if told.last().unwrap().starts_with("Ctrl-C") {
            break;
        }
    }
    let told = told.join("\n");
    let bootstrap = told.split_once("bootstrap.servers=").unwrap().1.lines().next().unwrap();
    let listed = topic(bootstrap, &["create", "orders", "--partitions", "2", "--replication-factor", "2"]);
    assert!(listed.status.success(), "{told}\n{listed:?}");
    let pids: Vec<&str> =
        told.split("  pid ").skip(1).map(|rest| rest.split_whitespace().next().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{told}");
    // As a crash of the parent: nobody tells the children anything.
    dev.kill().unwrap();
    dev.wait().unwrap();
    let started = Instant::now();
    for pid in pids {
        while Path::new("/proc").join(pid).exists() {
            assert!(started.elapsed() < PATIENCE, "node {pid} outlives its parent");
            std::thread::sleep(TICK);
        }
    }
}
