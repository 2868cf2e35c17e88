//! `cargo xtask bench`: builds the program and the bench that compares it with Kafka, and runs the bench.

use clap::Args;

use crate::command::{self, cargo};
use crate::workspace::Workspace;

/// The command line of `bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// What the bench is told
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// The verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let mut build = cargo(&workspace.root);
    command::run(build.args(["build", "--release", "--locked", "-p", "klamm", "-p", "klamm-bench"]))?;
    let release = workspace.target.join("release");
    let mut bench = std::process::Command::new(release.join("klamm-bench"));
    bench.current_dir(&workspace.root).env("KLAMM_BIN", release.join("klamm"));
    command::run(bench.args(&options.arguments))
}
