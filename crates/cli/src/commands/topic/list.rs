//! `klamm topic list`.

use std::io::Write;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::columns::Columns;
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// Which topics to list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Leave out the topics that the cluster made for itself.
    #[arg(long)]
    exclude_internal: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A topic, in JSON.
#[derive(Serialize)]
struct TopicRow<'a> {
    topic: &'a str,
    topic_id: String,
    internal: bool,
    partitions: usize,
    replication_factor: usize,
    under_replicated_partitions: usize,
    leaderless_partitions: usize,
}

pub(super) async fn run(args: &ListArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let topics = args.connect.admin().await?.list_topics().await?;
    let views = topics.iter().map(|topic| &topic.view);
    let rows = views.filter(|view| !(args.exclude_internal && view.is_internal)).map(|view| TopicRow {
        topic: &view.name,
        topic_id: view.topic_id.to_string(),
        internal: view.is_internal,
        partitions: view.partitions.len(),
        replication_factor: view.partitions.first().map_or(0, |partition| partition.replicas.len()),
        under_replicated_partitions: view
            .partitions
            .iter()
            .filter(|partition| partition.in_sync_replicas.len() < partition.replicas.len())
            .count(),
        leaderless_partitions: view.partitions.iter().filter(|partition| partition.leader.is_none()).count(),
    });
    match args.format.format() {
        Format::Json => {
            for row in rows {
                json::line(stdout, &row)?;
            }
        }
        Format::Table => {
            let mut columns =
                Columns::new(["TOPIC", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "LEADERLESS"]);
            for row in rows {
                columns.row([
                    row.topic.to_owned(),
                    row.partitions.to_string(),
                    row.replication_factor.to_string(),
                    row.under_replicated_partitions.to_string(),
                    row.leaderless_partitions.to_string(),
                ]);
            }
            columns.print(stdout)?;
        }
    }
    Ok(Exit::Done)
}
