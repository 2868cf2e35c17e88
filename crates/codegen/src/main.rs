//! `klamm-codegen [--import JAR | --check]`, run in the workspace's root; `cargo xtask codegen` calls the same
//! functions.

use std::path::Path;
use std::process::ExitCode;

use klamm_codegen::{Paths, SchemaError, check, generate, import};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let paths = Paths::of_workspace(Path::new("."));
    match run(&arguments, &paths) {
        Ok(Some(message)) => {
            eprintln!("{message}");
            ExitCode::SUCCESS
        }
        Ok(None) => {
            eprintln!("usage: klamm-codegen [--import JAR | --check]");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("klamm-codegen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was done, or `None` if the arguments are not understood.
fn run(arguments: &[&str], paths: &Paths) -> Result<Option<String>, SchemaError> {
    match arguments {
        [] => Ok(Some(format!("{} files generated", generate(paths)?))),
        ["--import", jar] => Ok(Some(format!("{} messages imported", import(Path::new(jar), paths)?))),
        ["--check"] => {
            let stale = check(paths)?;
            if stale.is_empty() {
                return Ok(Some("generated code is fresh".to_owned()));
            }
            Err(SchemaError::Stale { files: stale })
        }
        _ => Ok(None),
    }
}
