//! File trees of Debian 12, as archives that become base images of containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{ToolError, administration, directory};

/// How long the packages may take to arrive and to be configured.
const MAKE_TIME_MAX: Duration = Duration::from_secs(900);
const SUITE: &str = "bookworm";

/// An archive of the least Debian 12 with these packages, made by `debootstrap` below `target/tools/debian/tree-NAME`. It
/// needs root.
///
/// # Errors
/// [`ToolError::NotOnPath`] without `debootstrap`; [`ToolError::NotInstalled`] if the packages cannot be fetched or put in
/// place.
pub fn debian_tree(name: &str, packages: &[&str]) -> Result<PathBuf, ToolError> {
    let debootstrap = administration("debootstrap")?;
    let target = directory().join("debian").join(format!("tree-{name}"));
    let what = format!("a file tree of Debian {SUITE}");
    let recipe = format!("{SUITE}\n{}", packages.join("\n"));
    let installation = Installation { directory: &target, recipe: &recipe, what: &what };
    installation.ensure(|into| {
        let tree = into.join("tree");
        let mut make = Command::new(debootstrap);
        make.arg("--variant=minbase");
        if !packages.is_empty() {
            make.arg(format!("--include={}", packages.join(",")));
        }
        make.arg(SUITE).arg(&tree).args(mirror());
        let made = run(&mut make).and_then(|()| {
            let lists = ["var/cache/apt/archives", "var/lib/apt/lists"].map(|place| tree.join(place));
            lists.iter().for_each(|place| drop(fs::remove_dir_all(place)));
            run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(archive(into)).arg("."))
        });
        made.map_err(|error| installation.not_installed(&error))?;
        fs::remove_dir_all(&tree).map_err(|error| installation.not_installed(&error))
    })?;
    Ok(archive(&target))
}

fn archive(directory: &Path) -> PathBuf {
    directory.join("tree.tar")
}

/// Where this machine gets the suite from; nothing leaves it to debootstrap.
fn mirror() -> Option<String> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI)", &format!("Codename: {SUITE}")]);
    list.args(["Created-By: Packages", "Component: main"]);
    let listed = run_to_end(&mut list, Duration::from_secs(60)).ok()?;
    listed.lines().next().map(str::to_owned)
}

fn run(command: &mut Command) -> Result<(), RunError> {
    run_to_end(command, MAKE_TIME_MAX).map(|_| ())
}
