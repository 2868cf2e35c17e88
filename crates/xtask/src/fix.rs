//! `cargo xtask fix`: the one verb that writes sources.

use crate::command::{self, cargo};
use crate::workspace::Workspace;

/// Lets clippy repair what it can, then formats (a repair may leave a line unformatted).
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    command::run(cargo(&workspace.root).args([
        "clippy",
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
        "--allow-staged",
    ]))?;
    command::run(cargo(&workspace.root).args(["fmt", "--all"]))
}
