//! The command line.

use clap::Parser;
use klamm_cli::AdminCommand;

/// A streaming platform that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: AdminCommand,
}
