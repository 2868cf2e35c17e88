//! A Python environment with pinned packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{ToolError, directory, python3};

/// How long the packages may take to arrive.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// A Python interpreter that sees exactly the packages it was made with.
#[derive(Clone, Debug)]
pub struct PythonEnvironment {
    directory: PathBuf,
    /// The interpreter of the virtual environment, or the machine's own with `packages` on its path.
    interpreter: PathBuf,
    packages: Option<PathBuf>,
}

impl PythonEnvironment {
    /// The environment `name` (a directory of `target/tools/python`) with `packages`, each pinned as
    /// `NAME==VERSION`; installs it if this machine has not got it yet.
    ///
    /// One name goes with one list of packages: tests that want different lists take different names.
    ///
    /// # Errors
    /// Without Python 3.9 or later; if neither `venv` nor `pip` is there; if the packages cannot be fetched.
    ///
    /// # Panics
    /// If a package is not pinned.
    pub fn with(name: &str, packages: &[&str]) -> Result<Self, ToolError> {
        for package in packages {
            assert!(package.contains("=="), "{package} is not pinned: say NAME==VERSION");
        }
        let python = python3()?;
        let directory = directory().join("python").join(name);
        let what = format!("the Python packages {}", packages.join(" "));
        let recipe = format!("{}\n{}\n", python.display(), packages.join("\n"));
        let installation = Installation { directory: &directory, recipe: &recipe, what: &what };
        installation.ensure(|into| {
            install(&python, into, packages).map_err(|error| installation.not_installed(&error))
        })?;
        Ok(Self::in_directory(directory, python))
    }

    fn in_directory(directory: PathBuf, python: PathBuf) -> Self {
        let interpreter = venv_interpreter(&directory);
        if interpreter.is_file() {
            return Self { directory, interpreter, packages: None };
        }
        let packages = Some(directory.join("packages"));
        Self { directory, interpreter: python, packages }
    }

    /// A command that runs the interpreter with these packages; add the script and its arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        // The user's own packages would make the outcome depend on the machine; byte code would litter the tree.
        command.env("PYTHONNOUSERSITE", "1").env("PYTHONDONTWRITEBYTECODE", "1").env_remove("PYTHONHOME");
        match &self.packages {
            Some(packages) => command.env("PYTHONPATH", packages),
            None => command.env_remove("PYTHONPATH"),
        };
        command
    }

    /// Where the environment lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn venv_interpreter(directory: &Path) -> PathBuf {
    directory.join("venv").join("bin").join("python")
}

/// Fills the empty directory `into`: a virtual environment where the machine can make one, otherwise a plain
/// directory of packages (Debian splits `venv` from Python; `pip` may be there without it).
fn install(python: &Path, into: &Path, packages: &[&str]) -> Result<(), RunError> {
    let venv = into.join("venv");
    let made = run_to_end(Command::new(python).args(["-m", "venv"]).arg(&venv), INSTALL_TIME_MAX);
    if made.is_ok() {
        return pip(&venv_interpreter(into), &[], packages);
    }
    // What a refused `venv` leaves behind has an interpreter, but no pip.
    drop(std::fs::remove_dir_all(&venv));
    let target = into.join("packages").to_string_lossy().into_owned();
    pip(python, &["--target", &target], packages)
}

fn pip(python: &Path, options: &[&str], packages: &[&str]) -> Result<(), RunError> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    command.args(["--retries", "2", "--only-binary", ":all:"]).args(options).args(packages);
    run_to_end(&mut command, INSTALL_TIME_MAX).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "kafka-python is not pinned")]
    fn an_unpinned_package_is_refused() {
        drop(PythonEnvironment::with("unpinned", &["kafka-python"]));
    }

    #[test]
    fn without_venv_the_packages_come_by_path() {
        let root = tempfile::tempdir().unwrap();
        let environment = PythonEnvironment::in_directory(root.path().to_owned(), PathBuf::from("python3"));
        let command = environment.command();
        let path = command.get_envs().find(|(name, _)| *name == "PYTHONPATH").and_then(|(_, value)| value);
        assert_eq!(path, Some(root.path().join("packages").as_os_str()));
    }
}
