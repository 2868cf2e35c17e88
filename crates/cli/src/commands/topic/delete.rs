//! `klamm topic delete`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use klamm_protocol::ErrorCode;
use serde::Serialize;

use super::{complain, say};
use crate::exit::{Exit, Failure};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// Which topics to delete.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Names of the topics.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Take a topic that does not exist for done.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A topic that was deleted, in JSON.
#[derive(Serialize)]
struct DeletedRow<'a> {
    topic: &'a str,
    deleted: bool,
}

/// Asks whoever sits at the terminal.
pub(super) fn confirm(args: &DeleteArgs) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let refuse = |message: &str| Failure::Usage {
        message: message.to_owned(),
        hint: "deleted records cannot be had back; --yes means that you know",
    };
    if !io::stdin().is_terminal() {
        return Err(refuse("nobody is here to be asked"));
    }
    // A prompt that cannot be shown is answered with no.
    let _ = write!(io::stderr(), "delete {} with all records? [y/N] ", args.names.join(", "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refuse("nothing was deleted")) }
}

pub(super) async fn run(args: &DeleteArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let admin = args.connect.admin().await?;
    let mut exit = Exit::Done;
    for (name, result) in admin.delete_topics(&args.names).await? {
        match result {
            Ok(()) => match args.format.format() {
                Format::Json => json::line(stdout, &DeletedRow { topic: &name, deleted: true })?,
                Format::Table => writeln!(stdout, "{name} deleted")?,
            },
            Err(error) if error.code == ErrorCode::UnknownTopicOrPartition && args.if_exists => {
                say(&format!("{name} does not exist"));
            }
            Err(error) => {
                exit = exit.max(complain(&Failure::Refused { subject: format!("topic {name}"), error }));
            }
        }
    }
    Ok(exit)
}
