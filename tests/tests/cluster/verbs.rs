//! The administrator's verbs against a running cluster.

use std::process::{Output, Stdio};

use klamm_tests::cluster::Cluster;
use klamm_tests::node_process::binary;
use klamm_tests::requests::{Record, Requests};
use serde_json::Value;
use tokio::process::Command;

use super::three;

/// The verbs of one cluster.
struct Verbs(String);

impl Verbs {
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary().unwrap());
        command.args(args).args(["--bootstrap-server", &self.0]).stdin(Stdio::null());
        command.output().await.unwrap()
    }

    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(&[args, &["--output", "json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test]
async fn topics_are_created_listed_described_and_deleted() {
    let cluster = Cluster::start(&three()).await.unwrap();
    let servers: Vec<_> = cluster.bootstrap().iter().map(ToString::to_string).collect();
    let verbs = Verbs(servers.join(","));

    let created = verbs.lines(&["topic", "create", "orders", "-p", "4", "-c", "retention.ms=60000"]).await;
    assert_eq!((&created[0]["topic"], &created[0]["partitions"]), (&"orders".into(), &4.into()));
    assert_eq!(created[0]["replication_factor"], 3);
    assert!(verbs.refused(&["topic", "create", "orders"]).await.contains("TOPIC_ALREADY_EXISTS"));
    assert!(verbs.run(&["topic", "create", "orders", "--if-not-exists"]).await.status.success());
    let too_many = verbs.refused(&["topic", "create", "more", "-r", "4"]).await;
    assert!(too_many.contains("INVALID_REPLICATION_FACTOR") && too_many.contains("klamm cluster brokers"));

    cluster.admin().wait_for_leaders("orders").await.unwrap();
    let listed = verbs.lines(&["topic", "list"]).await;
    assert!(listed.iter().any(|row| row["topic"] == "orders" && row["partitions"] == 4), "{listed:?}");
    let described = verbs.lines(&["topic", "describe", "orders"]).await;
    assert_eq!(described.len(), 4);
    for row in &described {
        assert_eq!(row["replicas"].as_array().unwrap().len(), 3, "{row}");
        assert!(row["leader"].as_i64().is_some_and(|id| (1..=3).contains(&id)), "{row}");
    }
    let text = String::from_utf8(verbs.run(&["topic", "describe", "orders"]).await.stdout).unwrap();
    assert!(text.contains("retention.ms=60000") && text.contains("PARTITION  LEADER"), "{text}");

    let quorum = verbs.lines(&["cluster", "quorum"]).await;
    assert_eq!(quorum.iter().filter(|row| row["role"] == "leader").count(), 1, "{quorum:?}");
    assert_eq!(quorum.iter().filter(|row| row["role"] != "observer").count(), 3, "{quorum:?}");
    let brokers = verbs.lines(&["cluster", "brokers"]).await;
    assert_eq!(brokers.iter().filter(|row| row["fenced"] == false).count(), 3, "{brokers:?}");

    let run = verbs.lines(&["perf", "produce", "--topic", "orders", "--records", "1000"]).await;
    assert!(run[0]["records"].as_u64().unwrap() >= 1_000 && run[0]["errors"] == 0, "{run:?}");
    let read = verbs.lines(&["perf", "consume", "--topic", "orders", "--check"]).await;
    assert_eq!(read[0]["records"], run[0]["records"]);

    let deleted = verbs.lines(&["topic", "delete", "orders", "--yes"]).await;
    assert_eq!(deleted[0]["deleted"], true);
    assert!(verbs.refused(&["topic", "describe", "orders"]).await.contains("klamm topic list"));

    // Nobody else has asked this cluster for anything.
    let asked = Requests::answered(&cluster).await.unwrap().since(&Requests::default());
    Record::check("klamm", &asked).unwrap();
}
