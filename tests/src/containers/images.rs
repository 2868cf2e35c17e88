//! The images that ours is built from, made under the names that the Dockerfile has for them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Engine, failed, run};
use crate::cluster::HarnessError;
use crate::tools::{debian_tree, workspace};

/// An image with Python, for clients in containers.
pub const WORKBENCH: &str = "klamm-tests-workbench";
const WORKBENCH_PACKAGES: [&str; 3] = ["gcc", "libc6-dev", "python3"];

/// What builds the program inside the image.
#[derive(Clone, Debug)]
pub enum Builder {
    /// The toolchain of this machine, with the crates that it has fetched: some minutes, on a machine that does nothing else.
    Toolchain,
    /// A stand-in, whose `cargo` hands this program over: whatever else is in the Dockerfile is tested as it is.
    Program(PathBuf),
}

impl Engine {
    /// Makes the images that `dockerfile` begins with, and [`WORKBENCH`].
    ///
    /// # Errors
    /// [`HarnessError`] if Debian's packages cannot be had, or an image cannot be made.
    pub fn make_bases(&self, dockerfile: &Path, builder: &Builder) -> Result<(), HarnessError> {
        let text = fs::read_to_string(dockerfile).map_err(HarnessError::io("read the Dockerfile"))?;
        let name = |argument| default_of(&text, argument);
        let tree = |name, packages: &[&str]| {
            debian_tree(name, packages).map_err(|error| failed("make a base image", error))
        };
        self.import(&tree("slim", &[])?, &name("RUN_IMAGE")?)?;
        self.import(&tree("workbench", &WORKBENCH_PACKAGES)?, WORKBENCH)?;
        match builder {
            Builder::Toolchain => self.make_toolchain(&name("BUILD_IMAGE")?),
            Builder::Program(program) => self.make_stand_in(program, &name("BUILD_IMAGE")?),
        }
    }

    fn import(&self, archive: &Path, name: &str) -> Result<(), HarnessError> {
        self.docker(["import".as_ref(), archive.as_os_str(), name.as_ref()]).map(|_| ())
    }

    fn make_toolchain(&self, name: &str) -> Result<(), HarnessError> {
        let mut fetch = Command::new("cargo");
        run(fetch.args(["fetch", "--locked", "--quiet"]).current_dir(workspace()))?;
        let mut ask = Command::new("rustc");
        let toolchain = PathBuf::from(run(ask.args(["--print", "sysroot"]).current_dir(workspace()))?);
        let crates = cargo_home()?.join("registry");
        let container = self.docker(["create", WORKBENCH, "true"])?;
        let copies = [
            (toolchain.join("bin"), "/usr/local/rust/bin"),
            (toolchain.join("lib"), "/usr/local/rust/lib"),
            (crates, "/usr/local/cargo/registry"),
        ];
        let made = self.image_dirs(&container, &["/usr/local/rust", "/usr/local/cargo"]);
        made?;
        for (from, to) in copies {
            let to = format!("{container}:{to}");
            self.docker(["cp".as_ref(), from.as_os_str(), to.as_ref()])?;
        }
        let path =
            "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut commit = vec!["commit"];
        for change in [path, "ENV CARGO_HOME=/usr/local/cargo", "ENV CARGO_NET_OFFLINE=true"] {
            commit.extend(["--change", change]);
        }
        commit.extend([container.as_str(), name]);
        self.docker(commit)?;
        self.docker(["rm", container.as_str()]).map(|_| ())
    }

    /// Makes directories in a container that does not run.
    fn image_dirs(&self, container: &str, places: &[&str]) -> Result<(), HarnessError> {
        let empty = self.path().join("empty");
        fs::create_dir_all(&empty).map_err(HarnessError::io("make a directory"))?;
        for place in places {
            let to = format!("{container}:{place}");
            self.docker(["cp".as_ref(), empty.as_os_str(), to.as_ref()])?;
        }
        Ok(())
    }

    fn make_stand_in(&self, program: &Path, name: &str) -> Result<(), HarnessError> {
        let context = self.path().join("stand-in");
        let write = || -> io::Result<()> {
            fs::create_dir_all(&context)?;
            fs::copy(program, context.join("klamm"))?;
            let cargo = context.join("cargo");
            fs::write(&cargo, "#!/bin/sh\nmkdir -p target/release && cp /opt/klamm target/release/\n")?;
            fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
            let steps = format!("FROM {WORKBENCH}\nCOPY klamm /opt/\nCOPY cargo /usr/local/bin/\n");
            fs::write(context.join("Dockerfile"), steps)
        };
        write().map_err(HarnessError::io("write what the builder is made of"))?;
        self.docker(["build".as_ref(), "--tag".as_ref(), name.as_ref(), context.as_os_str()]).map(|_| ())
    }
}

/// What an argument of a Dockerfile is if nobody says otherwise.
fn default_of(dockerfile: &str, argument: &str) -> Result<String, HarnessError> {
    let value =
        |line: &str| line.strip_prefix("ARG ")?.strip_prefix(argument)?.strip_prefix('=').map(str::to_owned);
    let missing = || io::Error::other(format!("it has no argument {argument}"));
    dockerfile.lines().find_map(value).ok_or_else(missing).map_err(HarnessError::io("read the Dockerfile"))
}

fn cargo_home() -> Result<PathBuf, HarnessError> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let missing = || io::Error::other("neither CARGO_HOME nor HOME is set");
    named.or_else(usual).ok_or_else(missing).map_err(HarnessError::io("find cargo's directory"))
}

#[test]
fn a_default_is_read_from_a_dockerfile() {
    let text = "ARG RUN_IMAGE_2=no\nARG RUN_IMAGE=debian:bookworm-slim\nFROM x\n";
    assert_eq!(default_of(text, "RUN_IMAGE").unwrap(), "debian:bookworm-slim");
    assert!(default_of(text, "BUILD_IMAGE").unwrap_err().to_string().contains("BUILD_IMAGE"));
}
