//! Node packages, fetched by npm from a lock file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::compiled::recipe;
use super::installation::Installation;
use super::process::run_to_end;
use super::{ToolError, directory, node, on_path};

/// How long the packages may take to arrive.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// Node, with exactly the packages of a lock file.
#[derive(Clone, Debug)]
pub struct NodePackages {
    node: PathBuf,
    modules: PathBuf,
}

impl NodePackages {
    /// The packages of `package.json` and `package-lock.json` in `source`, in `target/tools/node/NAME`. Their install
    /// scripts are not run.
    ///
    /// # Errors
    /// Without Node 18 or npm; if the files cannot be read or the packages fetched.
    pub fn of_lock(name: &str, source: &Path) -> Result<Self, ToolError> {
        let node = node(18)?;
        let target = directory().join("node").join(name);
        let what = format!("the Node packages {name}");
        let names = ["package.json", "package-lock.json"];
        let files = names.map(|file| source.join(file));
        let recipe = recipe(&what, &files.each_ref().map(PathBuf::as_path))?;
        let installation = Installation { directory: &target, recipe: &recipe, what: &what };
        installation.ensure(|into| {
            for (name, file) in names.iter().zip(&files) {
                fs::copy(file, into.join(name)).map_err(|error| installation.not_installed(&error))?;
            }
            let mut command = Command::new(on_path("npm")?);
            command
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache"])
                .arg(into.join("cache"));
            let installed = run_to_end(command.current_dir(into), INSTALL_TIME_MAX);
            installed.map(|_| ()).map_err(|error| installation.not_installed(&error))
        })?;
        Ok(Self { node, modules: target.join("node_modules") })
    }

    /// A command that runs Node with these packages; add the script and its arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.node);
        command.env("NODE_PATH", &self.modules).env_remove("NODE_OPTIONS");
        command
    }
}
