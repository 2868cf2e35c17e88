//! The chores of this workspace, as `cargo xtask VERB`.
//!
//! **For:** the one test command (`ci`), the rules that no compiler checks (`tidy`), the proof that the tests see
//! known bugs (`mutants`), the comparison with Kafka (`bench`), the test of what is shipped (`deploy-test`), and the verbs
//! that change sources (`fix`, `codegen`).
//!
//! **Not for:** anything a user runs. It sees no crate of the product, only the generator of one.
//!
//! **Called by:** developers and `.ci/run`. **Calls:** cargo, git, and what cargo built.

mod bench;
mod ci;
mod codegen;
mod command;
mod deploy_test;
mod fix;
mod mutants;
mod test_programs;
mod tidy;
mod verdict;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the Klamm workspace", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures Klamm beside Apache Kafka: `cargo xtask bench -- --help`, `cargo xtask bench -- list`
    Bench(bench::Options),
    /// Runs every check, in order, and stops at the first that fails; changes no source
    Ci(ci::Options),
    /// Applies what clippy can repair by itself, then formats
    Fix,
    /// Has the image of `deploy/` built and its compose file brought up, and kills the containers that lead
    DeployTest(deploy_test::Options),
    /// Writes the wire protocol's message code anew from its listing
    Codegen(codegen::Options),
    /// Checks layers, purity, sizes, names, texts and manifests
    Tidy(tidy::Options),
    /// Builds known bugs back in, one at a time, and demands that the tests fail
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match verb {
        Verb::Bench(options) => bench::run(&workspace, &options),
        Verb::Ci(options) => ci::run(&workspace, &options),
        Verb::DeployTest(options) => deploy_test::run(&workspace, &options),
        Verb::Codegen(options) => codegen::run(&workspace, &options),
        Verb::Fix => fix::run(&workspace),
        Verb::Tidy(options) => tidy::run(&workspace, &options),
        Verb::Mutants(options) => mutants::run(&workspace, &options),
    }
}
