//! `klamm cluster quorum`.

use std::io::Write;

use klamm_client::{QuorumDescription, QuorumReplica};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::columns::{Columns, or_hyphen};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// How to show the quorum.
#[derive(Debug, clap::Args)]
pub struct QuorumArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A voter or observer, in JSON.
#[derive(Serialize)]
struct ReplicaRow {
    node: i32,
    role: &'static str,
    leader_epoch: i32,
    high_watermark: i64,
    log_end_offset: Option<i64>,
    lag: Option<i64>,
    last_fetch_ms: Option<i64>,
    last_caught_up_ms: Option<i64>,
    directory_id: String,
}

pub(super) async fn run(args: &QuorumArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let quorum = args.connect.admin().await?.describe_quorum().await?;
    let voters = quorum.voters.iter().map(|replica| {
        row(&quorum, replica, if quorum.leader == Some(replica.id) { "leader" } else { "follower" })
    });
    let rows = voters.chain(quorum.observers.iter().map(|replica| row(&quorum, replica, "observer")));
    match args.format.format() {
        Format::Json => {
            for row in rows {
                json::line(stdout, &row)?;
            }
        }
        Format::Table => {
            writeln!(
                stdout,
                "active controller {}, term {}, committed up to {}",
                or_hyphen(quorum.leader),
                quorum.leader_epoch,
                quorum.high_watermark
            )?;
            let mut columns = Columns::new(["NODE", "ROLE", "LOG END", "BEHIND", "LISTENS AT"]);
            for row in rows {
                columns.row([
                    row.node.to_string(),
                    row.role.to_owned(),
                    or_hyphen(row.log_end_offset),
                    or_hyphen(row.lag),
                    listens_at(&quorum, row.node),
                ]);
            }
            columns.print(stdout)?;
        }
    }
    Ok(Exit::Done)
}

fn row(quorum: &QuorumDescription, replica: &QuorumReplica, role: &'static str) -> ReplicaRow {
    let log_end_offset = replica.log_end_offset.map(|offset| offset.0);
    let leader = quorum.voters.iter().find(|voter| Some(voter.id) == quorum.leader);
    let leader_end = leader.and_then(|leader| leader.log_end_offset).map(|offset| offset.0);
    let lag = leader_end.zip(log_end_offset).map(|(leader, own)| (leader - own).max(0));
    ReplicaRow {
        node: replica.id.0,
        role,
        leader_epoch: quorum.leader_epoch,
        high_watermark: quorum.high_watermark.0,
        log_end_offset,
        lag,
        last_fetch_ms: replica.last_fetch.map(|at| at.0),
        last_caught_up_ms: replica.last_caught_up.map(|at| at.0),
        directory_id: replica.directory_id.to_string(),
    }
}

fn listens_at(quorum: &QuorumDescription, node: i32) -> String {
    let node = quorum.nodes.iter().find(|known| known.id.0 == node);
    let listener = node.and_then(|node| node.listeners.first());
    listener.map_or_else(|| "-".to_owned(), |(_, host, port)| format!("{host}:{port}"))
}
