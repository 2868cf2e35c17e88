//! `klamm cluster`.

use std::io::Write;

use clap::Subcommand;

use crate::exit::{Exit, Failure};
use crate::session::block_on;

mod brokers;
mod quorum;

/// What can be seen of the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the metadata quorum: the active controller, the voters, and how far each has come.
    Quorum(quorum::QuorumArgs),
    /// Show the brokers: where they listen, and whether they are fenced.
    Brokers(brokers::BrokersArgs),
}

impl ClusterCommand {
    pub(super) fn run(self, stdout: &mut impl Write) -> Result<Exit, Failure> {
        match self {
            Self::Quorum(args) => block_on(quorum::run(&args, stdout)),
            Self::Brokers(args) => block_on(brokers::run(&args, stdout)),
        }
    }
}
