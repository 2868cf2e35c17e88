//! What `deploy/` holds, run as a user runs it: the image that the Dockerfile makes and the nodes of the compose file, on an
//! engine of the test's own.
//!
//! Unmodified clients write from this machine and from a container between the nodes' while containers that lead are killed; then
//! the nodes are stopped in order, started, taken down and brought up again, and nothing that was acknowledged is gone.

use std::path::Path;
use std::time::Duration;

use klamm_client::{Admin, NewTopic};
use klamm_tests::cluster::wait_for;
use klamm_tests::containers::{self, Builder, Deployment, WORKBENCH};
use klamm_tests::node_process::binary;
use klamm_tests::skip;
use klamm_tests::tools::{debian_tree, workspace};
use klamm_tests::workload::read_all;
use klamm_types::{Offset, PartitionId, TopicName, TopicPartition};
use serde_json::Value;

use super::campaign::run;
use super::judge::Logs;
use super::producers::Tools;
use super::schedule::{Counts, Kind};
use super::server::Server;
use super::{PARTITIONS, plan, replicas};

/// How long a program in a container may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The topic that is written to and read from between the containers.
const BETWEEN: &str = "between";
/// How many of its records are acknowledged at least.
const RECORDS_MIN: usize = 600;
/// Where the containers' network has the nodes.
const INSIDE: &str = "klamm-1:19092,klamm-2:19092,klamm-3:19092";
/// Counts all records of a topic from its beginning to the end that it has now.
const COUNT: &str = "
import sys
from kafka import KafkaConsumer, TopicPartition
consumer = KafkaConsumer(bootstrap_servers=sys.argv[1].split(','), enable_auto_commit=False)
places = [TopicPartition(sys.argv[2], place) for place in range(int(sys.argv[3]))]
consumer.assign(places)
consumer.seek_to_beginning(*places)
ends = consumer.end_offsets(places)
count = 0
while any(consumer.position(place) < ends[place] for place in places):
    count += sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
print('records', count)
";

/// All but the compilation, which a program takes the place of that was built beside this test.
#[ignore = "wants root, Debian's container engine and the ports 9092 to 9094; takes two minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_with_the_program_of_this_build_keep_what_they_acknowledged() {
    let test = "containers_with_the_program_of_this_build_keep_what_they_acknowledged";
    deploy(test, &Builder::Program(binary().unwrap())).await;
}

#[ignore = "builds the program in a container, optimised: ten minutes and more"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_the_image_as_users_build_it_keep_what_they_acknowledged() {
    let test = "containers_of_the_image_as_users_build_it_keep_what_they_acknowledged";
    deploy(test, &Builder::Toolchain).await;
}

async fn deploy(test: &str, builder: &Builder) {
    let Some(()) = skip::unless(test, containers::available()) else { return };
    let Some(clients) = skip::unless(test, Tools::install().await) else { return };
    let Some(_) = skip::unless(test, debian_tree("slim", &[])) else { return };
    let deployment = Deployment::build(builder).unwrap();
    deployment.compose(&["up", "-d"]).unwrap();
    deployment.wait_for_ready_service().await.unwrap();
    is_confined(&deployment);
    let written = write_between_containers(&deployment, &clients).await;

    let plan = plan(Counts::of(&[
        (Kind::Calm, 1),
        (Kind::Leader, 3),
        (Kind::LeaderAndController, 1),
        (Kind::Follower, 1),
    ]));
    let (server, reckoning) = run(Server::Containers(deployment), &clients, plan).await;
    assert_eq!(count_between_containers(&server, &clients), written);

    for (leave, come_back) in [("stop", "start"), ("down", "up")] {
        let deployment = containers_of(&server);
        let nodes: Vec<_> = deployment.ids().map(|id| format!("klamm-{id}")).collect();
        // `down` leaves nothing to look at.
        deployment.compose(&["stop"]).unwrap();
        nodes.iter().for_each(|node| ended_in_order(deployment, node));
        deployment.compose(&[leave]).unwrap();
        for id in deployment.ids() {
            replicas::verify(&deployment.data(id).unwrap()).await;
        }
        let come_back = if come_back == "up" { &["up", "-d"][..] } else { &["start"] };
        deployment.compose(come_back).unwrap();
        deployment.wait_ready().await.unwrap();
        deployment.admin().wait_for_leaders(super::TOPIC).await.unwrap();
        assert_eq!(Logs::read(&server).await, reckoning.logs, "after {leave}");
        assert_eq!(count_between_containers(&server, &clients), written, "after {leave}");
        println!("{leave} and {}: all data are there", come_back.join(" "));
    }
}

fn containers_of(server: &Server) -> &Deployment {
    let Server::Containers(deployment) = server else { panic!("{server:?}") };
    deployment
}

/// Nobody in a node's container is root or becomes it, and nothing but the data can be written.
fn is_confined(deployment: &Deployment) {
    for id in deployment.ids() {
        let node = format!("klamm-{id}");
        let shown = |format: &str| deployment.inspect(&node, format).unwrap();
        assert_eq!(shown("{{.State.Health.Status}}"), "healthy");
        assert_eq!(shown("{{.Config.StopSignal}} {{.Config.User}}"), "SIGTERM 1000:1000");
        let status = deployment.exec(id, &["cat", "/proc/1/status"]).unwrap();
        let field = |name: &str| -> Vec<&str> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.split_whitespace().collect()
        };
        assert_eq!(field("Name"), ["klamm"]);
        assert_eq!(field("Uid"), ["1000"; 4]);
        assert_eq!(field("Gid"), ["1000"; 4]);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        assert_eq!(field("NoNewPrivs"), ["1"]);
        for place in ["/", "/etc", "/tmp", "/usr/local/bin"] {
            let refused = deployment.exec(id, &["touch", &format!("{place}/file")]).unwrap_err();
            assert!(refused.to_string().contains("Read-only file system"), "{place}: {refused}");
        }
        deployment.exec(id, &["touch", "/var/lib/klamm/file"]).unwrap();
        deployment.exec(id, &["rm", "/var/lib/klamm/file"]).unwrap();
    }
}

/// A node that was asked to end did so by itself, within the time that the compose file allows, and says so.
fn ended_in_order(deployment: &Deployment, node: &str) {
    let state =
        deployment.inspect(node, "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}").unwrap();
    let container = deployment.container(node).unwrap();
    let log = deployment.engine().docker(["logs", "--tail", "20", &container]).unwrap();
    assert_eq!(state, "exited 0 false", "{node}: {log}");
    assert!(log.lines().last().is_some_and(|line| line.contains("stopped")), "{node}: {log}");
    assert!(!log.contains("stopped as it is"), "{node}: {log}");
}

/// Starts Python in a container on the nodes' network, with kafka-python.
fn python_inside(deployment: &Deployment, clients: &Tools, how: &[&str], arguments: &[&str]) -> String {
    let packages = clients.python_packages();
    let scripts = workspace().join("tests").join("clients").join("python");
    let mount = |from: &Path, to: &str| format!("{}:{to}:ro", from.display());
    let (packages, scripts) = (mount(&packages, "/packages"), mount(&scripts, "/clients"));
    let fixed =
        ["run", "--network", "deploy_default", "--user", "1000:1000", "--env", "PYTHONPATH=/packages"];
    let mounts = ["--volume", &packages, "--volume", &scripts];
    let all = fixed.iter().chain(&mounts).chain(how).chain(&[WORKBENCH, "python3", "-B"]).chain(arguments);
    deployment.engine().docker(all).unwrap()
}

/// Has a producer between the nodes write, and compares with what is read from here. Gives the number of records.
async fn write_between_containers(deployment: &Deployment, clients: &Tools) -> usize {
    let admin: Admin = deployment.admin();
    let count = i32::try_from(PARTITIONS).unwrap();
    let topic = NewTopic { partitions: Some(count), replication_factor: Some(3), ..NewTopic::named(BETWEEN) };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders(BETWEEN).await.unwrap();
    let partitions = PARTITIONS.to_string();
    let arguments =
        ["/clients/verifiable_producer.py", "kafka-python", INSIDE, BETWEEN, &partitions, "0", "300"];
    python_inside(deployment, clients, &["--detach", "--name", "writer"], &arguments);
    let engine = deployment.engine();
    let acked = || -> Vec<Value> {
        let lines = engine.docker(["logs", "writer"]).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
        lines.filter(|line: &Value| line["name"] == "producer_send_success").collect()
    };
    let written = wait_for("a producer between the containers writes", PATIENCE, async || {
        let count = acked().len();
        if count < RECORDS_MIN { Err(format!("{count} acknowledged")) } else { Ok(()) }
    });
    written.await.unwrap();
    engine.docker(["stop", "--time", "60", "writer"]).unwrap();
    assert_eq!(engine.docker(["inspect", "--format", "{{.State.ExitCode}}", "writer"]).unwrap(), "0");
    let acked = acked();
    engine.docker(["rm", "writer"]).unwrap();

    let name = TopicName::new(BETWEEN).unwrap();
    let places = (0..count).map(|place| TopicPartition::new(name.clone(), PartitionId(place)));
    let logs = read_all(deployment.admin().cluster(), places).await.unwrap();
    let read: usize = logs.values().map(Vec::len).sum();
    assert_eq!(read, acked.len());
    for ack in &acked {
        let place = PartitionId(i32::try_from(ack["partition"].as_i64().unwrap()).unwrap());
        let offset = Offset(ack["offset"].as_i64().unwrap());
        let log = &logs[&TopicPartition::new(name.clone(), place)];
        let found = log.iter().find(|record| record.offset == offset).and_then(|record| record.value.clone());
        let found = String::from_utf8(found.unwrap_or_default().to_vec()).unwrap();
        assert_eq!(found.split(' ').next(), ack["value"].as_str(), "{ack}");
    }
    read
}

/// How many records a consumer between the nodes reads.
fn count_between_containers(server: &Server, clients: &Tools) -> usize {
    let partitions = PARTITIONS.to_string();
    let said = python_inside(
        containers_of(server),
        clients,
        &["--rm"],
        &["-c", COUNT, INSIDE, BETWEEN, &partitions],
    );
    let count = said.lines().find_map(|line| line.strip_prefix("records ")?.parse().ok());
    count.unwrap_or_else(|| panic!("{said}"))
}
