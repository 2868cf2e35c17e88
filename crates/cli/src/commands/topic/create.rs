//! `klamm topic create`.

use std::io::Write;

use klamm_client::NewTopic;
use klamm_protocol::ErrorCode;
use serde::Serialize;

use super::{complain, say};
use crate::exit::{Exit, Failure};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// Which topics, and how they shall be.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Names of the topics.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How many partitions each gets; the brokers' num.partitions if not given.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// On how many brokers each partition is kept; the brokers' default.replication.factor if not given.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of the topics, as retention.ms=60000; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Take a topic that exists already for done.
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A topic that was created, in JSON.
#[derive(Serialize)]
struct CreatedRow<'a> {
    topic: &'a str,
    topic_id: String,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
    created: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(args: &CreateArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let admin = args.connect.admin().await?;
    let topic = |name: &String| NewTopic {
        name: name.clone(),
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        assignment: Vec::new(),
        configs: args.config.clone(),
    };
    let topics: Vec<_> = args.names.iter().map(topic).collect();
    let mut exit = Exit::Done;
    for (name, result) in admin.create_topics(&topics, args.dry_run).await? {
        let created = match result {
            Ok(created) => created,
            Err(error) if error.code == ErrorCode::TopicAlreadyExists && args.if_not_exists => {
                say(&format!("{name} exists already"));
                continue;
            }
            Err(error) => {
                exit = exit.max(complain(&Failure::Refused { subject: format!("topic {name}"), error }));
                continue;
            }
        };
        match args.format.format() {
            Format::Json => {
                let row = CreatedRow {
                    topic: &name,
                    topic_id: created.topic_id.to_string(),
                    partitions: created.partitions,
                    replication_factor: created.replication_factor,
                    created: !args.dry_run,
                };
                json::line(stdout, &row)?;
            }
            Format::Table => {
                let verb = if args.dry_run { "could be created" } else { "created" };
                let count = |n: Option<i64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
                writeln!(
                    stdout,
                    "{name} {verb}: partitions {}, replication factor {}",
                    count(created.partitions.map(i64::from)),
                    count(created.replication_factor.map(i64::from)),
                )?;
            }
        }
    }
    Ok(exit)
}
