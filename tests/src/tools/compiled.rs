//! Small programs of the tests' own, compiled against a foreign client library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{Jars, ToolError, directory, go, on_path};

/// How long a program may take to be fetched and built.
const BUILD_TIME_MAX: Duration = Duration::from_secs(900);

/// A Java program of one source file, compiled against a directory of jars.
#[derive(Clone, Debug)]
pub struct JavaProgram {
    jars: Jars,
    classes: PathBuf,
    main_class: String,
}

impl JavaProgram {
    /// Compiles `source` into `target/tools/java/CLASS`, where CLASS is the file's name; does so anew when its text changes.
    ///
    /// # Errors
    /// Without Java's compiler; if the source cannot be read or compiled.
    pub fn compile(jars: Jars, source: &Path) -> Result<Self, ToolError> {
        let main_class = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let classes = directory().join("java").join(&main_class);
        let what = format!("the Java program {main_class}");
        let recipe = recipe(&what, &[source])?;
        let installation = Installation { directory: &classes, recipe: &recipe, what: &what };
        installation.ensure(|into| {
            let mut command = Command::new(on_path("javac")?);
            command.args(["-nowarn", "-cp", &jars.class_path(), "-d"]).arg(into).arg(source);
            run(&mut command).map_err(|error| installation.not_installed(&error))
        })?;
        Ok(Self { jars, classes, main_class })
    }

    /// A command that runs it; add its arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        // Short runs are not worth the better of the two compilers.
        let options = ["-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
        let class_path = format!("{}:{}", self.classes.display(), self.jars.class_path());
        let mut command = Command::new(self.jars.java());
        command.args(options).arg("-cp").arg(class_path).arg(&self.main_class);
        command
    }
}

/// A Go program, built with the modules that its `go.sum` pins.
#[derive(Clone, Debug)]
pub struct GoProgram {
    binary: PathBuf,
}

impl GoProgram {
    /// Builds the module in `source` (`go.mod`, `go.sum`, `main.go`) into `target/tools/go/NAME`, with caches that are removed then.
    ///
    /// # Errors
    /// Without Go 1.26; if a file cannot be read, a module fetched, or the program built.
    pub fn build(name: &str, source: &Path) -> Result<Self, ToolError> {
        let go = go(1, 26)?;
        let target = directory().join("go").join(name);
        let what = format!("the Go program {name}");
        let files = ["go.mod", "go.sum", "main.go"].map(|file| source.join(file));
        let recipe = recipe(&what, &files.each_ref().map(PathBuf::as_path))?;
        let installation = Installation { directory: &target, recipe: &recipe, what: &what };
        installation.ensure(|into| {
            let mut command = Command::new(go);
            // Unoptimised: what the client does is little work beside the compiler's.
            command.args(["build", "-mod=readonly", "-modcacherw", "-trimpath", "-gcflags=all=-N -l", "-o"]);
            command.arg(into.join("program"));
            command.arg(".").current_dir(source).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
            command.env("GOMODCACHE", into.join("modules")).env("GOCACHE", into.join("cache"));
            run(&mut command).map_err(|error| installation.not_installed(&error))?;
            // Hundreds of megabytes, of use to a next build only, which would begin with an empty directory.
            for cache in ["modules", "cache"] {
                let removed = fs::remove_dir_all(into.join(cache));
                removed.map_err(|error| installation.not_installed(&error))?;
            }
            Ok(())
        })?;
        Ok(Self { binary: target.join("program") })
    }

    /// A command that runs it; add its arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.binary)
    }
}

fn run(command: &mut Command) -> Result<(), RunError> {
    run_to_end(command, BUILD_TIME_MAX).map(|_| ())
}

/// The texts of all files.
pub(super) fn recipe(what: &str, files: &[&Path]) -> Result<String, ToolError> {
    let texts = files.iter().map(|file| {
        fs::read_to_string(file).map_err(|error| ToolError::NotInstalled {
            what: what.to_owned(),
            reason: format!("{}: {error}", file.display()),
        })
    });
    texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.join("\n"))
}
