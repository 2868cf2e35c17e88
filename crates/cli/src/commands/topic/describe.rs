//! `klamm topic describe`.

use std::io::Write;

use klamm_client::{ConfigEntry, ConfigResource, ConfigSource, PartitionDescription, TopicDescription};
use klamm_types::BrokerId;
use serde::Serialize;

use super::complain;
use crate::exit::{Exit, Failure};
use crate::output::columns::{Columns, ids, or_hyphen};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// Which topics to describe.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// Names of the topics; all topics if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show only partitions with fewer in-sync replicas than replicas.
    #[arg(long)]
    under_replicated: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A partition, in JSON.
#[derive(Serialize)]
struct PartitionRow<'a> {
    topic: &'a str,
    topic_id: String,
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    elr: Option<Vec<i32>>,
    last_known_elr: Option<Vec<i32>>,
    offline: Vec<i32>,
    under_replicated: bool,
    preferred_leader: bool,
}

pub(super) async fn run(args: &DescribeArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let admin = args.connect.admin().await?;
    let names = if args.names.is_empty() {
        admin.list_topics().await?.into_iter().map(|topic| topic.view.name).collect()
    } else {
        args.names.clone()
    };
    let mut exit = Exit::Done;
    if names.is_empty() {
        return Ok(exit);
    }
    for (name, result) in admin.describe_topics(&names).await? {
        let mut topic = match result {
            Ok(topic) => topic,
            Err(error) => {
                exit = exit.max(complain(&Failure::Refused { subject: format!("topic {name}"), error }));
                continue;
            }
        };
        if args.under_replicated {
            topic.partitions.retain(is_under_replicated);
            if topic.partitions.is_empty() {
                continue;
            }
        }
        match args.format.format() {
            Format::Json => {
                for partition in &topic.partitions {
                    json::line(stdout, &row(&topic, partition))?;
                }
            }
            Format::Table => {
                let configs = admin.describe_configs(&ConfigResource::Topic(name)).await?;
                print(stdout, &topic, &configs)?;
            }
        }
    }
    Ok(exit)
}

fn is_under_replicated(partition: &PartitionDescription) -> bool {
    partition.view.in_sync_replicas.len() < partition.view.replicas.len()
}

fn is_led_by_preferred(partition: &PartitionDescription) -> bool {
    partition.view.leader.is_some() && partition.view.leader == partition.view.replicas.first().copied()
}

fn numbers(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

fn row<'a>(topic: &'a TopicDescription, partition: &PartitionDescription) -> PartitionRow<'a> {
    let view = &partition.view;
    PartitionRow {
        topic: &topic.name,
        topic_id: topic.topic_id.to_string(),
        partition: view.partition.0,
        leader: view.leader.map(|id| id.0),
        leader_epoch: view.leader_epoch.0,
        replicas: numbers(&view.replicas),
        isr: numbers(&view.in_sync_replicas),
        elr: partition.eligible_leader_replicas.as_deref().map(numbers),
        last_known_elr: partition.last_known_elr.as_deref().map(numbers),
        offline: numbers(&view.offline_replicas),
        under_replicated: is_under_replicated(partition),
        preferred_leader: is_led_by_preferred(partition),
    }
}

fn print(out: &mut impl Write, topic: &TopicDescription, configs: &[ConfigEntry]) -> std::io::Result<()> {
    let set = configs.iter().filter(|config| config.source == ConfigSource::Topic);
    let set: Vec<String> = set
        .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("(secret)")))
        .collect();
    let set = if set.is_empty() { String::new() } else { format!(", {}", set.join(", ")) };
    let internal = if topic.is_internal { ", internal" } else { "" };
    let count = topic.partitions.len();
    writeln!(out, "{} (id {}): {count} partitions{internal}{set}", topic.name, topic.topic_id)?;
    let mut columns = Columns::new(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "NOTE"]);
    for partition in &topic.partitions {
        let view = &partition.view;
        columns.row([
            view.partition.to_string(),
            or_hyphen(view.leader),
            view.leader_epoch.to_string(),
            ids(&view.replicas),
            ids(&view.in_sync_replicas),
            partition.eligible_leader_replicas.as_deref().map_or_else(|| "?".to_owned(), ids),
            note(partition),
        ]);
    }
    columns.print(out)?;
    writeln!(out)
}

/// What an administrator should see first.
fn note(partition: &PartitionDescription) -> String {
    let view = &partition.view;
    let mut notes = Vec::new();
    if view.leader.is_none() {
        notes.push("NO LEADER".to_owned());
    }
    if is_under_replicated(partition) {
        notes.push("under-replicated".to_owned());
    }
    if !view.offline_replicas.is_empty() {
        notes.push(format!("offline {}", ids(&view.offline_replicas)));
    }
    if view.leader.is_some() && !is_led_by_preferred(partition) {
        notes.push("not led by its preferred replica".to_owned());
    }
    if let Some(last) = partition.last_known_elr.as_deref().filter(|last| !last.is_empty()) {
        notes.push(format!("last eligible {}", ids(last)));
    }
    notes.join(", ")
}
