//! Kafka's own command-line tools, unchanged, at work on three nodes: what they print and the codes that they end with
//! are compared with what they print against Apache Kafka 4.3.1 on the same commands.
//!
//! What Kafka had them print is in `kafka-4.3.1.txt`, a recording that an ignored test compares with a live Kafka. Every
//! difference is one of the table in `differences.rs`, from which `docs/compatibility.md` tells them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod compare;
mod differences;
mod normal;
mod page;
mod recording;
mod script;
mod tool_runner;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use klamm_tests::cluster::{Cluster, ClusterSpec};
use klamm_tests::kafka::{self, Kafka, KafkaSpec};
use klamm_tests::requests::{self, Record, Requests, Versions};
use klamm_tests::skip;
use klamm_tests::tools::{Jars, ToolError};

use bench::Bench;
use compare::{Hits, unexplained};
use recording::Recording;
use script::Script;
use tool_runner::ToolRunner;

#[tokio::test]
async fn kafkas_tools_print_what_they_print_against_kafka() {
    let test = "kafkas_tools_print_what_they_print_against_kafka";
    let Some(jars) = skip::unless(test, jars().await) else { return };
    let cluster = Cluster::start(&ClusterSpec::default()).await.unwrap();
    let mut names = BTreeMap::new();
    for id in cluster.ids() {
        names.insert(cluster.home(id).join("data").display().to_string(), format!("{{data{id}}}"));
        names.insert(cluster.endpoint(id).port.to_string(), format!("{{client{id}}}"));
        names.insert(cluster.controller_endpoint(id).port.to_string(), format!("{{controller{id}}}"));
        names.insert(cluster.admin_endpoint(id).port.to_string(), format!("{{admin{id}}}"));
    }
    names.insert(klamm_tests::node_process::CLUSTER_ID.to_owned(), "{cluster}".to_owned());
    let script = Script::read();
    let recording = Recording::read();
    assert_eq!(recording.names(), script.names(), "the recording is of another script: make it anew");
    let mut bench = Bench::new(ToolRunner::start(&jars).unwrap(), cluster.bootstrap(), names);
    let mut hits = Hits::default();
    let mut findings = Vec::new();
    let mut asked = Versions::new();
    for step in script.steps() {
        let expected = recording.printed(&step.name);
        let before = Requests::answered(&cluster).await.unwrap();
        let found = bench.run(step, |lines| unexplained(&step.name, expected, lines).is_empty()).await;
        requests::add(&mut asked, Requests::answered(&cluster).await.unwrap().since(&before));
        bench.settle(step).await;
        hits.note(&step.name, expected, &found);
        findings.extend(unexplained(&step.name, expected, &found));
    }
    findings.extend(hits.never());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    Record::check("kafka-tools", &asked).unwrap();
}

#[test]
fn the_page_tells_every_difference() {
    let path = klamm_tests::tools::workspace().join("docs/compatibility.md");
    let page = fs::read_to_string(&path).unwrap();
    let wanted = page::with_differences(&page);
    if page != wanted {
        let copy = std::env::temp_dir().join("klamm-compatibility.md");
        fs::write(&copy, wanted).unwrap();
        panic!("docs/compatibility.md differs from the table; what it should be is in {}", copy.display());
    }
}

/// Fails where the recording is not what Kafka has its tools print, and leaves what it is.
#[ignore = "starts three nodes of Apache Kafka, and takes minutes"]
#[tokio::test]
async fn the_recording_is_what_kafka_has_its_tools_print() {
    let test = "the_recording_is_what_kafka_has_its_tools_print";
    let Some(jars) = skip::unless(test, jars().await) else { return };
    let kafka = Kafka::start(&jars, &KafkaSpec::light(3)).await.unwrap();
    let script = Script::read();
    let recording = Recording::read();
    let mut bench = Bench::new(ToolRunner::start(&jars).unwrap(), kafka.bootstrap(), names_of(&kafka));
    let mut anew = Recording::default();
    for step in script.steps() {
        let expected = recording.printed(&step.name);
        let found = bench.run(step, |lines| lines == expected || expected.is_empty()).await;
        anew.add(&step.name, found);
        bench.settle(step).await;
    }
    if anew != recording {
        let copy = std::env::temp_dir().join(recording::NAME);
        fs::write(&copy, anew.to_string()).unwrap();
        panic!("Kafka has its tools print something else; it is in {}", copy.display());
    }
}

/// What is to be shown instead of Kafka's ports, paths and id.
fn names_of(kafka: &Kafka) -> BTreeMap<String, String> {
    let mut names = BTreeMap::from([(kafka::CLUSTER_ID.to_owned(), "{cluster}".to_owned())]);
    for id in kafka.ids() {
        let ports = kafka.ports(id);
        names.insert(ports.client.to_string(), format!("{{client{id}}}"));
        names.insert(ports.controller.to_string(), format!("{{controller{id}}}"));
        names.insert(kafka.data(id).display().to_string(), format!("{{data{id}}}"));
    }
    names
}

async fn jars() -> Result<Jars, ToolError> {
    let found = tokio::task::spawn_blocking(|| {
        klamm_tests::tools::on_path("javac")?;
        Jars::of_pom("interop", &java().join("pom.xml"))
    });
    found.await.unwrap()
}

/// Where the sources of Java programs are.
fn java() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/java"))
}
