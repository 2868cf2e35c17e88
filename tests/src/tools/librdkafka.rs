//! librdkafka's own performance tool, built from the sources that the crate `rdkafka-sys` carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{ToolError, directory, on_path};

/// How long fetching and building may take.
const BUILD_TIME_MAX: Duration = Duration::from_secs(900);
/// Which release; what follows the plus sign is librdkafka's.
const RELEASE: &str = "4.10.0+2.12.1";

/// `rdkafka_performance`, with the codecs that need no library: gzip where zlib is there, snappy and lz4.
///
/// # Errors
/// Without a C++ compiler, `make`, `bash` or cargo; if the sources cannot be fetched or built.
pub fn rdkafka_performance() -> Result<PathBuf, ToolError> {
    let cargo = on_path("cargo")?;
    let make = on_path("make")?;
    super::cxx()?;
    let target = directory().join("librdkafka");
    let what = format!("librdkafka {RELEASE}");
    let installation = Installation { directory: &target, recipe: &what, what: &what };
    installation.ensure(|into| {
        let not_installed = |error: &RunError| installation.not_installed(error);
        let package = into.join("package");
        write_package(&package).map_err(|error| installation.not_installed(&error))?;
        // Links to the sources where they lie would let the build write there.
        let vendored = into.join("vendored");
        let mut fetch = Command::new(cargo);
        fetch.args(["vendor", "--quiet", "--versioned-dirs"]).arg(&vendored).current_dir(&package);
        run(&mut fetch).map_err(|error| not_installed(&error))?;
        let sources = vendored.join(format!("rdkafka-sys-{RELEASE}")).join("librdkafka");
        let mut configure = Command::new("bash");
        configure.args(["./configure", "--disable-ssl", "--disable-gssapi", "--disable-curl"]);
        configure.args(["--disable-zstd", "--disable-lz4-ext"]).current_dir(&sources);
        run(&mut configure).map_err(|error| not_installed(&error))?;
        for (place, goal) in [("src", "librdkafka.a"), ("src-cpp", "librdkafka++.a"), ("examples", TOOL)] {
            let mut build = Command::new(&make);
            run(build.arg("-C").arg(sources.join(place)).arg(goal)).map_err(|error| not_installed(&error))?;
        }
        fs::copy(sources.join("examples").join(TOOL), into.join(TOOL))
            .and_then(|_| fs::remove_dir_all(&vendored))
            .map_err(|error| installation.not_installed(&error))
    })?;
    Ok(target.join(TOOL))
}

const TOOL: &str = "rdkafka_performance";

/// A package that needs the sources, and is a workspace of its own.
fn write_package(package: &Path) -> std::io::Result<()> {
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src").join("lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\nrdkafka-sys = \"={}\"\n[workspace]\n",
        RELEASE.split('+').next().unwrap_or(RELEASE)
    );
    fs::write(package.join("Cargo.toml"), manifest)
}

fn run(command: &mut Command) -> Result<(), RunError> {
    run_to_end(command, BUILD_TIME_MAX).map(|_| ())
}
