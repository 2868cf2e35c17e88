//! The one program of Klamm.
//!
//! It only joins what its libraries offer: a node ([`klamm_node`]), a cluster of nodes on one machine, and the
//! administration of [`klamm_cli`].

mod args;
mod dev;
mod probe;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;
use klamm_node::{ServerOptions, Sources};

use crate::args::{Args, Command, HealthArgs, ServerArgs};

/// Batches and network buffers are large and short-lived, and are freed on other threads than they were made on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a node that failed although its settings are right.
const EXIT_FAILED: u8 = 1;
/// The exit code of a node whose settings, directories or addresses must change.
const EXIT_CONFIGURATION: u8 = 2;
/// The exit code where no node answers.
const EXIT_UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    // A wrong command line ends here, with exit code 2.
    match Args::parse().command {
        Command::Server(args) => server(args),
        Command::Dev(args) => match dev::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error.to_string());
                ExitCode::from(EXIT_FAILED)
            }
        },
        Command::Health(args) => health(&args),
        Command::Admin(command) => klamm_cli::run(command).into(),
    }
}

fn server(args: ServerArgs) -> ExitCode {
    let variables = if args.ignore_environment { Ok(Vec::new()) } else { variables() };
    let variables = match variables {
        Ok(variables) => variables,
        Err(name) => {
            complain(&format!("variable {name}: its value is not UTF-8 text; set it anew"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let is_said = variables.iter().any(|(name, _)| klamm_node::property_of_variable(name).is_some());
    let file = args.config.or(args.fallback_config.filter(|_| !is_said));
    let sources = Sources { file, variables, overrides: args.overrides };
    match klamm_node::run(&sources, ServerOptions { follow_stdin: args.stop_with_stdin }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.to_string().lines().for_each(complain);
            ExitCode::from(if error.is_configuration() { EXIT_CONFIGURATION } else { EXIT_FAILED })
        }
    }
}

fn health(args: &HealthArgs) -> ExitCode {
    match probe::readiness(&args.admin) {
        Ok(readiness) => {
            // If nobody reads it, the exit code still tells.
            let _ = writeln!(io::stdout().lock(), "{}", readiness.text);
            ExitCode::from(if readiness.is_ready { 0 } else { EXIT_FAILED })
        }
        Err(error) => {
            complain(&format!("{} does not answer: {error}; is the node running?", args.admin));
            ExitCode::from(EXIT_UNREACHABLE)
        }
    }
}

/// The variables with a name that is text, as that of every setting is; or the name of one that is meant for this
/// program and has a value that is no text.
fn variables() -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name == "CLUSTER_ID" || klamm_node::property_of_variable(&name).is_some() => {
                return Err(name);
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// One line on standard error. If nobody reads it, nothing can be done.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "klamm: {line}");
}
