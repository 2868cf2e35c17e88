//! A quorum that is founded anew under the same cluster id, beside a broker that knows the former one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::fixture::{Reaped, get, klamm, ports, server, topic, wait_for};

const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

/// A controller and a broker, each a process of its own.
struct Apart<'a> {
    dir: &'a Path,
    controller: u16,
    client: u16,
    admin: u16,
}

impl Apart<'_> {
    fn start(&self, role: &str, more: &[(&str, &str)]) -> Reaped {
        let voters = format!("1@127.0.0.1:{}", self.controller);
        let data = self.dir.join(role);
        let mut settings = vec![
            ("process.roles", role),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", &voters),
            ("klamm.cluster.id", CLUSTER),
            ("log.dirs", data.to_str().unwrap()),
        ];
        settings.extend(more);
        let log = File::create(self.log(role)).unwrap();
        Reaped(server(&settings).stderr(log).stdout(Stdio::null()).spawn().unwrap())
    }

    fn controller(&self) -> Reaped {
        let listeners = format!("CONTROLLER://127.0.0.1:{}", self.controller);
        let more = [("node.id", "1"), ("listeners", listeners.as_str()), ("klamm.admin.listener", "none")];
        self.start("controller", &more)
    }

    fn broker(&self) -> Reaped {
        let listeners = format!("PLAINTEXT://127.0.0.1:{}", self.client);
        let admin = format!("127.0.0.1:{}", self.admin);
        self.start("broker", &[("node.id", "2"), ("listeners", &listeners), ("klamm.admin.listener", &admin)])
    }

    fn log(&self, role: &str) -> PathBuf {
        self.dir.join(role).with_extension("log")
    }

    fn wait_until_ready(&self) {
        wait_for("a broker that serves", || get(self.admin, "/readyz").starts_with("HTTP/1.1 200"));
    }

    fn wait_for_warning(&self) {
        wait_for("the warning", || {
            let logged = fs::read_to_string(self.log("broker")).unwrap();
            logged.contains("the metadata of this controller is not followed")
        });
    }

    fn creates(&self, name: &str) -> bool {
        let bootstrap = format!("127.0.0.1:{}", self.client);
        topic(&bootstrap, &["create", name, "--timeout", "3"]).status.success()
    }

    fn topics(&self) -> String {
        let bootstrap = format!("127.0.0.1:{}", self.client);
        String::from_utf8(topic(&bootstrap, &["list"]).stdout).unwrap()
    }
}

/// What the former quorum had acknowledged is not lost in silence: the broker keeps to it, over restarts too, and goes on
/// as soon as the former metadata is there again.
#[test]
fn a_broker_does_not_follow_a_quorum_that_was_founded_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [controller, client, admin] = ports();
    let nodes = Apart { dir: dir.path(), controller, client, admin };
    let first = nodes.controller();
    let broker = nodes.broker();
    nodes.wait_until_ready();
    assert!(nodes.creates("orders"));
    let meta = dir.path().join("broker/meta.properties");
    wait_for("the id of the quorum", || fs::read_to_string(&meta).unwrap().contains("\nquorum.id="));

    drop(first);
    let (metadata, kept) = (dir.path().join("controller"), dir.path().join("kept"));
    fs::rename(&metadata, &kept).unwrap();
    let anew = nodes.controller();
    nodes.wait_for_warning();
    assert!(!nodes.creates("lost"), "a change that the former quorum does not know");
    assert!(nodes.topics().contains("orders"));
    wait_for("the end of the session", || get(admin, "/readyz").contains("no controller has answered it"));

    drop(broker);
    let broker = nodes.broker();
    nodes.wait_for_warning();
    assert!(dir.path().join("broker/orders-0").is_dir(), "the broker did what the new metadata says");
    assert!(!get(admin, "/readyz").starts_with("HTTP/1.1 200"));

    drop(anew);
    fs::remove_dir_all(&metadata).unwrap();
    fs::rename(&kept, &metadata).unwrap();
    let _former = nodes.controller();
    nodes.wait_until_ready();
    assert!(nodes.creates("more"));
    let topics = nodes.topics();
    assert!(topics.contains("orders") && topics.contains("more") && !topics.contains("lost"), "{topics}");
    drop(broker);
}

/// Somebody has to say that the metadata is lost before a node that knows a quorum takes part in another.
#[test]
fn a_controller_that_knows_a_quorum_founds_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [controller, client, admin] = ports();
    let nodes = Apart { dir: dir.path(), controller, client, admin };
    let meta = dir.path().join("controller/meta.properties");
    let first = nodes.controller();
    let known = || fs::read_to_string(&meta).is_ok_and(|meta| meta.contains("\nquorum.id="));
    wait_for("the id of the quorum", known);
    drop(first);
    for entry in fs::read_dir(dir.path().join("controller")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let mut emptied = nodes.controller();
    assert_eq!(emptied.0.wait().unwrap().code(), Some(1));
    let logged = fs::read_to_string(nodes.log("controller")).unwrap();
    assert!(logged.contains("belongs to a quorum (quorum.id in meta.properties)"), "{logged}");
    let printed = klamm().args(["log", "dump"]).arg(&meta).output().unwrap();
    assert!(String::from_utf8(printed.stdout).unwrap().contains(" quorum "));
}

/// One of three nodes, broker and controller at once.
struct Trio<'a> {
    dir: &'a Path,
    controllers: [u16; 3],
    admins: [u16; 3],
}

impl Trio<'_> {
    fn start(&self, id: usize, voters: &[usize]) -> Reaped {
        let port = |id: usize| self.controllers[id - 1];
        let voters: Vec<_> = voters.iter().map(|id| format!("{id}@127.0.0.1:{}", port(*id))).collect();
        let listeners = format!("PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{}", port(id));
        let settings = [
            ("node.id", id.to_string()),
            ("process.roles", "broker,controller".to_owned()),
            ("listeners", listeners),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("controller.quorum.voters", voters.join(",")),
            ("klamm.cluster.id", CLUSTER.to_owned()),
            ("log.dirs", self.data(id).to_str().unwrap().to_owned()),
            ("klamm.admin.listener", format!("127.0.0.1:{}", self.admins[id - 1])),
        ];
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let log = File::create(self.data(id).with_extension("log")).unwrap();
        Reaped(server(&settings).stderr(log).stdout(Stdio::null()).spawn().unwrap())
    }

    fn data(&self, id: usize) -> PathBuf {
        self.dir.join(format!("node{id}"))
    }

    fn quorum(&self, id: usize) -> Option<String> {
        let meta = fs::read_to_string(self.data(id).join("meta.properties")).ok()?;
        meta.lines().find_map(|line| line.strip_prefix("quorum.id=")).map(str::to_owned)
    }

    fn wait_until_ready(&self, id: usize) {
        let admin = self.admins[id - 1];
        wait_for("readiness", || get(admin, "/readyz").starts_with("HTTP/1.1 200"));
        wait_for("the id of the quorum", || self.quorum(id).is_some());
    }
}

/// The one that was founded beside the other must not win because it answers first.
#[test]
fn an_emptied_node_that_hears_of_two_quorums_takes_part_in_neither() {
    let dir = tempfile::tempdir().unwrap();
    let (controllers, admins) = (ports(), ports());
    let trio = Trio { dir: dir.path(), controllers, admins };
    let nodes: Vec<_> = (1..=3).map(|id| trio.start(id, &[1, 2, 3])).collect();
    (1..=3).for_each(|id| trio.wait_until_ready(id));
    let former = trio.quorum(2);

    drop(nodes);
    fs::remove_dir_all(trio.data(1)).unwrap();
    let beside = trio.start(1, &[1]);
    trio.wait_until_ready(1);
    assert_ne!(trio.quorum(1), former);
    let _second = trio.start(2, &[1, 2, 3]);
    fs::remove_dir_all(trio.data(3)).unwrap();
    let _third = trio.start(3, &[1, 2, 3]);
    let log = trio.data(3).with_extension("log");
    let logged = || fs::read_to_string(&log).unwrap();
    wait_for("word of two quorums", || logged().contains("two controllers belong to different quorums"));
    assert!(!logged().contains("following the metadata"), "{}", logged());
    assert_eq!(trio.quorum(3), None);

    // As the line says: the wrong one is stopped and emptied.
    drop(beside);
    fs::remove_dir_all(trio.data(1)).unwrap();
    let _first = trio.start(1, &[1, 2, 3]);
    (1..=3).for_each(|id| trio.wait_until_ready(id));
    assert!((1..=3).all(|id| trio.quorum(id) == former));
}

/// Nobody can have it back: the sooner that is said, the better.
#[test]
fn a_node_ends_and_says_so_when_all_have_lost_their_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let (controllers, admins) = (ports(), ports());
    let trio = Trio { dir: dir.path(), controllers, admins };
    let nodes: Vec<_> = (1..=3).map(|id| trio.start(id, &[1, 2, 3])).collect();
    (1..=3).for_each(|id| trio.wait_until_ready(id));
    drop(nodes);
    // The first loses everything, the others their metadata alone.
    fs::remove_dir_all(trio.data(1)).unwrap();
    for id in [2, 3] {
        fs::remove_dir_all(trio.data(id).join("metadata")).unwrap();
    }
    let mut nodes: Vec<_> = (1..=3).map(|id| trio.start(id, &[1, 2, 3])).collect();
    // Who hears of it last waits for the one that has ended already.
    let mut ended = None;
    wait_for("the end of one of them", || {
        ended = [2, 3].into_iter().find(|id| nodes[id - 1].0.try_wait().unwrap().is_some());
        ended.is_some()
    });
    let id = ended.unwrap();
    assert_eq!(nodes[id - 1].0.wait().unwrap().code(), Some(1), "node {id}");
    let logged = fs::read_to_string(trio.data(id).with_extension("log")).unwrap();
    assert!(logged.contains("belongs to a quorum (quorum.id in meta.properties)"), "{logged}");
    // What is lost binds nobody: with the others emptied, too, the nodes begin anew.
    assert_eq!(trio.quorum(1), None);
    nodes.truncate(1);
    for id in [2, 3] {
        fs::remove_dir_all(trio.data(id)).unwrap();
        nodes.push(trio.start(id, &[1, 2, 3]));
    }
    (1..=3).for_each(|id| trio.wait_until_ready(id));
}
