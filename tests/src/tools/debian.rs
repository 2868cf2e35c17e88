//! Programs that come as Debian packages, unpacked without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{ToolError, directory, on_path};

/// How long the packages, or the lists that say where they are, may take to arrive.
const FETCH_TIME_MAX: Duration = Duration::from_secs(300);

/// kcat's package and those that it needs beyond what every Debian has, by their names in Debian 12.
const KCAT_PACKAGES: [&str; 9] = [
    "kcat",
    "librdkafka1",
    "libyajl2",
    "liblz4-1",
    "libzstd1",
    "libsasl2-2",
    "libsasl2-modules-db",
    "libssl3",
    "zlib1g",
];

/// Finds kcat: the machine's own, or Debian's package below `target/tools/debian/kcat`. Neither needs the rights of root;
/// the package's version is the one that the machine's Debian holds.
///
/// # Errors
/// [`ToolError::NotOnPath`] without `kcat` on a machine that has no `apt-get`; [`ToolError::NotInstalled`] if the packages
/// cannot be fetched or the program does not run.
pub fn kcat() -> Result<PathBuf, ToolError> {
    on_path("kcat").or_else(|missing| {
        if on_path("apt-get").is_err() || on_path("dpkg").is_err() {
            return Err(missing);
        }
        unpacked(&directory().join("debian").join("kcat"), "kcat", &KCAT_PACKAGES)
    })
}

/// Fills `directory` with a file tree of `packages` and a script that runs `program` from there.
fn unpacked(directory: &Path, program: &str, packages: &[&str]) -> Result<PathBuf, ToolError> {
    let what = format!("the Debian package {program}");
    let recipe = packages.join("\n");
    let installation = Installation { directory, recipe: &recipe, what: &what };
    let script = directory.join("run");
    installation.ensure(|into| {
        fetch(into, packages).map_err(|error| installation.not_installed(&error))?;
        let tree = into.join("tree");
        for file in packages_in(into).map_err(|error| installation.not_installed(&error))? {
            let unpacked = run(Command::new("dpkg").arg("-x").arg(&file).arg(&tree));
            unpacked.map_err(|error| installation.not_installed(&error))?;
        }
        write_script(&script, &tree, program).map_err(|error| installation.not_installed(&error))?;
        // A library that is missing shows here, and not in the middle of a test.
        run(Command::new(&script).arg("-V")).map_err(|error| installation.not_installed(&error))
    })?;
    Ok(script)
}

/// Downloads the packages into `into`: by the machine's lists of packages, or by fresh ones that are kept beside them.
fn fetch(into: &Path, packages: &[&str]) -> Result<(), RunError> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--option", "APT::Sandbox::User="]).current_dir(into);
        command
    };
    if run(apt().arg("download").args(packages)).is_ok() {
        return Ok(());
    }
    let private = |command: &mut Command| {
        for (setting, place) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
            command.arg("--option").arg(format!("{setting}={}", into.join(place).display()));
        }
    };
    for place in ["lists/partial", "cache/archives/partial"] {
        // Where this fails, so does the next step, with a better reason.
        let _ = fs::create_dir_all(into.join(place));
    }
    let mut update = apt();
    private(&mut update);
    run(update.arg("update"))?;
    let mut download = apt();
    private(&mut download);
    run(download.arg("download").args(packages))
}

fn packages_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries: Result<Vec<_>, _> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    entries.map(|entries| entries.into_iter().filter(is_package).collect())
}

/// The libraries of the tree are for the program alone, not for whoever starts it.
fn write_script(script: &Path, tree: &Path, program: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut libraries = Vec::new();
    for lib in ["usr/lib", "lib"] {
        for entry in fs::read_dir(tree.join(lib)).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                libraries.push(path.display().to_string());
            }
        }
    }
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.join(":"),
        tree.join("usr/bin").join(program).display()
    );
    fs::write(script, text)?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))
}

fn run(command: &mut Command) -> Result<(), RunError> {
    run_to_end(command, FETCH_TIME_MAX).map(|_| ())
}
