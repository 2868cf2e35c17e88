//! `klamm topic`.

use std::io::Write;

use clap::Subcommand;

use super::{complain, say};
use crate::exit::{Exit, Failure};
use crate::session::block_on;

mod create;
mod delete;
mod describe;
mod list;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics.
    Create(create::CreateArgs),
    /// List the topics, with how many partitions and replicas they have.
    List(list::ListArgs),
    /// Show leader, replicas and in-sync replicas of every partition, and what is wrong with it.
    Describe(describe::DescribeArgs),
    /// Delete topics with all their records.
    Delete(delete::DeleteArgs),
}

impl TopicCommand {
    pub(super) fn run(self, stdout: &mut impl Write) -> Result<Exit, Failure> {
        match self {
            Self::Create(args) => block_on(create::run(&args, stdout)),
            Self::List(args) => block_on(list::run(&args, stdout)),
            Self::Describe(args) => block_on(describe::run(&args, stdout)),
            Self::Delete(args) => {
                delete::confirm(&args)?;
                block_on(delete::run(&args, stdout))
            }
        }
    }
}
