//! `cargo xtask codegen`: the wire protocol's message code from its listing, or the listing from an archive.

use std::path::PathBuf;

use clap::Args;
use klamm_codegen::Paths;

use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Options {
    /// First rewrite the listing from the message schemas in this `kafka-clients` archive
    #[arg(long, value_name = "JAR")]
    import: Option<PathBuf>,
}

/// Imports if asked to, then generates.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let paths = Paths::of_workspace(&workspace.root);
    if let Some(archive) = &options.import {
        println!("{} messages imported", klamm_codegen::import(archive, &paths)?);
    }
    println!("{} files generated", klamm_codegen::generate(&paths)?);
    Ok(())
}
