//! Starting other programs.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// The variable that builds a mutant; no command but those of `mutants` may inherit it.
pub(crate) const MUTANT: &str = "KLAMM_MUTANT";

/// The cargo that runs this program, in the workspace's root.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root).env_remove(MUTANT);
    command
}

/// Runs `command` with its output going where ours goes; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status().with_context(|| line.clone())?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Runs `command` and gives its standard output; its standard error goes where ours goes.
pub(crate) fn stdout_of(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    ensure!(output.status.success(), "{line}: {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{line}: its output is no UTF-8"))
}

/// How a command ended, and what it printed on both streams.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs `command` for at most `time_max`; a command that takes longer is killed, which is an error.
pub(crate) fn run_within(command: &mut Command, time_max: Duration) -> anyhow::Result<Ended> {
    let line = line(command);
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| line.clone())?;
    // The command holds its own ends of the pipe; without them the reader sees the end when the child ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (done, output) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Nobody listens any more when the time is up.
        drop(done.send(reader.read_to_end(&mut bytes).map(|_| bytes)));
    });
    let Ok(bytes) = output.recv_timeout(time_max) else {
        child.kill()?;
        child.wait()?;
        bail!("{line}: did not end within {} s", time_max.as_secs());
    };
    let output = String::from_utf8_lossy(&bytes?).into_owned();
    Ok(Ended { status: child.wait()?, output })
}

/// Finds an executable on `PATH`.
pub(crate) fn on_path(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(tool)).find(|file| file.is_file())
}

/// The command as one would type it, without its environment.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        let ended =
            run_within(&mut shell("echo out; echo err >&2; exit 7"), Duration::from_secs(60)).unwrap();
        assert_eq!((ended.output.as_str(), ended.status.code()), ("out\nerr\n", Some(7)));
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let error = run_within(&mut shell("exec sleep 600"), Duration::from_millis(50)).err().unwrap();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = stdout_of(&mut shell("exit 3")).unwrap_err();
        assert!(error.to_string().starts_with("sh -c exit 3: "), "{error}");
    }
}
