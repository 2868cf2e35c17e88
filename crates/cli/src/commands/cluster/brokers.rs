//! `klamm cluster brokers`.

use std::collections::BTreeMap;
use std::io::Write;

use klamm_types::BrokerId;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::columns::{Columns, or_hyphen};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// How to show the brokers.
#[derive(Debug, clap::Args)]
pub struct BrokersArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A broker, in JSON.
#[derive(Serialize)]
struct BrokerRow {
    broker: i32,
    host: String,
    port: i32,
    rack: Option<String>,
    fenced: bool,
    replicas: usize,
    leaders: usize,
}

/// How many partitions a broker keeps and leads.
#[derive(Clone, Copy, Default)]
struct Load {
    replicas: usize,
    leaders: usize,
}

pub(super) async fn run(args: &BrokersArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let admin = args.connect.admin().await?;
    let cluster = admin.describe_cluster().await?;
    let mut loads: BTreeMap<BrokerId, Load> = BTreeMap::new();
    for topic in admin.list_topics().await? {
        for partition in &topic.view.partitions {
            for replica in &partition.replicas {
                loads.entry(*replica).or_default().replicas += 1;
            }
            if let Some(leader) = partition.leader {
                loads.entry(leader).or_default().leaders += 1;
            }
        }
    }
    let rows = cluster.brokers.into_iter().map(|broker| {
        let load = loads.get(&broker.id).copied().unwrap_or_default();
        BrokerRow {
            broker: broker.id.0,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            fenced: broker.is_fenced,
            replicas: load.replicas,
            leaders: load.leaders,
        }
    });
    match args.format.format() {
        Format::Json => {
            for row in rows {
                json::line(stdout, &row)?;
            }
        }
        Format::Table => {
            writeln!(stdout, "cluster {}", cluster.cluster_id)?;
            let mut columns = Columns::new(["BROKER", "LISTENS AT", "RACK", "STATE", "REPLICAS", "LEADERS"]);
            for row in rows {
                columns.row([
                    row.broker.to_string(),
                    if row.host.is_empty() { "-".to_owned() } else { format!("{}:{}", row.host, row.port) },
                    or_hyphen(row.rack),
                    if row.fenced { "FENCED".to_owned() } else { "active".to_owned() },
                    row.replicas.to_string(),
                    row.leaders.to_string(),
                ]);
            }
            columns.print(stdout)?;
        }
    }
    Ok(Exit::Done)
}
