//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use klamm_cli::AdminCommand;

/// A streaming platform that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: a broker, a controller, or both.
    Server(ServerArgs),
    /// Run a small cluster on this machine, to try things out. Its data stays between runs.
    Dev(DevArgs),
    /// Ask a node on this machine whether it is ready: exit code 0 if it is, 1 if not, 3 if it does not answer.
    Health(HealthArgs),
    #[command(flatten)]
    Admin(AdminCommand),
}

/// Settings come from the file, then from `KAFKA_*` variables and `CLUSTER_ID` as for the Apache image, then from
/// `--override`; the last one that says something wins.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// A file in the format of Kafka's server.properties.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A file for where neither --config nor a KAFKA_* variable says anything: for images.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) fallback_config: Option<PathBuf>,
    /// A setting, as name=value; may be given more than once.
    #[arg(long = "override", value_name = "NAME=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Stop in order when standard input ends: for programs that start nodes.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
    /// Do not look at the environment: for programs that start nodes.
    #[arg(long, hide = true)]
    pub(crate) ignore_environment: bool,
}

/// For health checks of containers and services.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// Where the node serves its health, as klamm.admin.listener says.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9190")]
    pub(crate) admin: String,
}

/// A cluster of nodes that are broker and controller at once.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// How many nodes, from 1 to 9. Default 3, or as many as the data directory has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) brokers: Option<u16>,
    /// Where the nodes keep their data.
    #[arg(long, value_name = "DIR", default_value = "klamm-data")]
    pub(crate) data: PathBuf,
    /// The port of the first node; the others take those after it. Ports that are in use are passed over.
    #[arg(long, value_name = "P", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub(crate) port: u16,
}
