//! Runs steps against one cluster, Klamm's or Kafka's.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use klamm_client::{ClientOptions, Connection, Endpoint};
use klamm_protocol::messages::MetadataRequest;
use klamm_tests::cluster::wait_for;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::normal::Normal;
use crate::script::{Repeat, Step};
use crate::tool_runner::ToolRunner;

/// How long a step that reads may be repeated.
const REPEAT_TIME_MAX: Duration = Duration::from_secs(15);

/// A cluster with the tools at hand.
pub(crate) struct Bench {
    runner: ToolRunner,
    nodes: Vec<Endpoint>,
    bootstrap: String,
    normal: Normal,
    /// Where the files are that tools read.
    dir: TempDir,
}

impl Bench {
    /// `names` says what is to be shown instead of a port, a path or an id of this cluster.
    pub(crate) fn new(runner: ToolRunner, nodes: Vec<Endpoint>, mut names: BTreeMap<String, String>) -> Self {
        let addresses: Vec<_> = nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
        let dir = tempfile::tempdir().unwrap();
        names.insert(dir.path().display().to_string(), "{dir}".to_owned());
        Self { runner, nodes, bootstrap: addresses.join(","), normal: Normal::new(names), dir }
    }

    /// Runs a step, and repeats one that reads until its lines are `as_expected`; gives the last lines.
    pub(crate) async fn run(&mut self, step: &Step, as_expected: impl Fn(&[String]) -> bool) -> Vec<String> {
        for (name, content) in &step.files {
            fs::write(self.dir.path().join(name), content).unwrap();
        }
        let deadline = Instant::now() + REPEAT_TIME_MAX;
        loop {
            let (text, lines) = self.run_once(step).await;
            let is_done = match &step.repeat {
                Repeat::Once => break lines,
                Repeat::Read => as_expected(&lines),
                Repeat::Until(wanted) => text.contains(wanted.as_str()) && as_expected(&lines),
            };
            if is_done || Instant::now() >= deadline {
                break lines;
            }
        }
    }

    async fn run_once(&mut self, step: &Step) -> (String, Vec<String>) {
        let dir = self.dir.path().display().to_string();
        let fill =
            |argument: &String| argument.replace("{bootstrap}", &self.bootstrap).replace("{dir}", &dir);
        let arguments: Vec<_> = step.arguments.iter().map(fill).collect();
        let class = step.class();
        let printed = if step.alone {
            self.runner.run_alone(&class, &arguments).await
        } else {
            self.runner.run(&class, &arguments, &step.input).await
        };
        let printed = printed.unwrap_or_else(|error| panic!("{}: {error}", step.name));
        let lines = self.normal.lines(&step.tool, &printed);
        (printed.out + &printed.err, lines)
    }

    /// After a step that changes something: waits until all nodes show the same topics, as the next tool may ask any
    /// of them.
    pub(crate) async fn settle(&self, step: &Step) {
        if step.repeat != Repeat::Once {
            return;
        }
        let agreed = wait_for("all nodes show the same", REPEAT_TIME_MAX, async || {
            let mut views = Vec::new();
            for node in &self.nodes {
                views.push(view(node).await?);
            }
            let same = views.windows(2).all(|pair| pair.first() == pair.last());
            if same { Ok(()) } else { Err(views.join("\n")) }
        });
        agreed.await.unwrap();
    }
}

/// The topics and partitions that a node shows.
async fn view(node: &Endpoint) -> Result<String, String> {
    let options = ClientOptions::default();
    let connection = Connection::open(node.clone(), &options).await.map_err(|error| error.to_string())?;
    let request =
        MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    let mut answer = connection.call(&request).await.map_err(|error| error.to_string())?;
    answer.topics.sort_by(|one, other| one.name.cmp(&other.name));
    for topic in &mut answer.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    Ok(format!("{:?}", answer.topics))
}
