//! `cargo xtask deploy-test`: runs the test that has the image of `deploy/` built and its compose file brought up.

use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::command::{self, cargo, on_path};
use crate::workspace::Workspace;

/// The command line of `deploy-test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Compile inside the image, as a user does, and not beside it: ten minutes more
    #[arg(long)]
    compile: bool,
}

/// What the test runs, and the Debian packages that have it.
const NEEDED: [(&str, &str); 4] = [
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("debootstrap", "debootstrap"),
];

const COMPILED_INSIDE: &str = "containers_of_the_image_as_users_build_it_keep_what_they_acknowledged";
const COMPILED_HERE: &str = "containers_with_the_program_of_this_build_keep_what_they_acknowledged";

/// The verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let packages = missing(|tool| on_path(tool).is_some() || Path::new("/usr/sbin").join(tool).is_file());
    if !packages.is_empty() {
        println!("this machine lacks {}", packages.join(", "));
        command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        let mut install = Command::new("apt-get");
        install.args(["install", "--quiet", "--yes", "--no-install-recommends"]).args(packages);
        command::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    let test = if options.compile { COMPILED_INSIDE } else { COMPILED_HERE };
    let mut cargo = cargo(&workspace.root);
    cargo.args(["test", "--locked", "--profile", "ci", "-p", "klamm-tests", "--test", "chaos", "--"]);
    cargo.args(["--ignored", "--nocapture", "--exact", &format!("containers::{test}")]);
    // Whoever asks for this test wants no skip.
    command::run(cargo.env("KLAMM_NO_SKIPS", "1"))
}

/// The packages of those programs that are not there.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        NEEDED.iter().filter(|(tool, _)| !is_there(tool)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

#[test]
fn a_package_is_named_once_and_only_if_something_of_it_is_missing() {
    assert_eq!(missing(|_| true), [""; 0]);
    assert_eq!(missing(|tool| tool == "debootstrap"), ["docker.io", "docker-compose"]);
    assert_eq!(missing(|tool| tool != "debootstrap"), ["debootstrap"]);
}

#[test]
fn the_tests_are_there() {
    let tests = include_str!("../../../tests/chaos/containers.rs");
    for test in [COMPILED_INSIDE, COMPILED_HERE] {
        assert!(tests.contains(&format!("async fn {test}()")), "{test}");
    }
}
