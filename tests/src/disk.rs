//! Disks from which the power can be cut: file systems in files, mounted below the directory of a test.
//!
//! [`cut`] makes file systems forget, at one instant, whatever was written and not flushed, as a machine's memory does
//! when the power fails. It needs root, ext4 and loop devices.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::HarnessError;
use crate::tools::{self, ToolError, python3, run_to_end};

/// How large a disk is, in bytes. Its file takes only as much as was written.
const SIZE: u64 = 1 << 30;
/// How long a step may take that makes, mounts or unmounts a file system.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);
/// Nothing is flushed by chance: neither for a rename without a flush before it, nor, within ten minutes, for its age.
const OPTIONS: &str = "loop,noauto_da_alloc,commit=600";
/// Kills processes, and shuts file systems down without flushing their journals (`EXT4_IOC_SHUTDOWN`). Its arguments are the
/// directories, `--`, and the process ids.
///
/// The processes go first: a file system takes some milliseconds to shut down, and meanwhile may tell whoever still waits
/// for a flush that it is done though it is not (6 of 300 times, Linux 6.18).
const CUT: &str = "
import array, fcntl, os, signal, sys
end = sys.argv.index('--')
disks = [os.open(path, os.O_RDONLY) for path in sys.argv[1:end]]
without_journal = array.array('I', [2])
for process in sys.argv[end + 1:]:
    os.kill(int(process), signal.SIGKILL)
for disk in disks:
    fcntl.ioctl(disk, 0x8004587D, without_journal)
";
/// Unmounts its first argument when its standard input ends: when the owner of the disk wants it, or is gone.
const KEEP: &str = "trap '' INT TERM HUP; read -r _; umount --lazy -- \"$1\"";

/// A file system of its own, mounted as long as this lives.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
    /// Unmounts when its standard input ends.
    keeper: Child,
}

impl Disk {
    /// Makes a file system in the file `image`, and mounts it on the directory `at`, which is made for it.
    ///
    /// # Errors
    /// [`HarnessError::Io`] without the rights of root, and if ext4 or loop devices are not to be had.
    pub fn make(image: PathBuf, at: PathBuf) -> Result<Self, HarnessError> {
        let file = File::create(&image).and_then(|file| file.set_len(SIZE));
        file.map_err(HarnessError::io(format!("make {}", image.display())))?;
        run(administration("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        fs::create_dir_all(&at).map_err(HarnessError::io("make a directory to mount on"))?;
        let mut keep = Command::new("sh");
        keep.args(["-c", KEEP, "sh"]).arg(&at).stdin(Stdio::piped());
        keep.stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = keep.spawn().map_err(HarnessError::io("start a disk's keeper"))?;
        let disk = Self { image, at, keeper };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), HarnessError> {
        run(administration("mount").args(["-t", "ext4", "-o", OPTIONS]).arg(&self.image).arg(&self.at))
    }

    /// Takes the disk away and brings it back, after its power was cut and whoever used it is gone.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if a file is still open there, or if nothing can be mounted.
    pub fn mount_again(&self) -> Result<(), HarnessError> {
        run(administration("umount").arg(&self.at))?;
        self.mount()
    }

    /// Where it is mounted.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends by itself; where it does not unmount, the directory stays and shows it.
        let _ = self.keeper.wait();
    }
}

/// Cuts the power of processes, whose ids these are, and disks: the processes are killed, and what was written to the disks
/// and not flushed is lost. The disks take nothing more until they are mounted again.
///
/// # Errors
/// [`HarnessError::Io`] if the file systems cannot be shut down, or a process is not there.
pub fn cut<'a>(
    disks: impl IntoIterator<Item = &'a Disk>,
    processes: impl IntoIterator<Item = u32>,
) -> Result<(), HarnessError> {
    let python = python3().map_err(|missing| HarnessError::io("cut the power")(io::Error::other(missing)))?;
    let mut command = Command::new(python);
    command.args(["-c", CUT]).args(disks.into_iter().map(Disk::at)).arg("--");
    run(command.args(processes.into_iter().map(|process| process.to_string())))
}

/// Tries whether this machine has disks from which the power can be cut.
///
/// # Errors
/// [`ToolError`] with what is missing, or what the system said.
pub fn available() -> Result<(), ToolError> {
    python3()?;
    let refused = |reason: String| ToolError::Refused {
        what: "root, ext4 and loop devices, for disks from which the power can be cut".to_owned(),
        reason,
    };
    let dir = tempfile::tempdir().map_err(|error| refused(error.to_string()))?;
    let tried = Disk::make(dir.path().join("image"), dir.path().join("disk"))
        .and_then(|disk| cut([&disk], []).and_then(|()| disk.mount_again()));
    tried.map_err(|error| refused(error.to_string()))
}

/// A program for administrators; one that is absent fails when it is run.
fn administration(name: &str) -> Command {
    Command::new(tools::administration(name).unwrap_or_else(|_| name.into()))
}

fn run(command: &mut Command) -> Result<(), HarnessError> {
    let outcome = run_to_end(command, STEP_TIME_MAX).map_err(io::Error::other);
    outcome.map(|_| ()).map_err(HarnessError::io("set up a disk"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::skip;

    /// All that the tests of power cuts say stands on this.
    #[test]
    fn a_cut_takes_what_was_not_flushed_and_nothing_else() {
        let test = "a_cut_takes_what_was_not_flushed_and_nothing_else";
        let Some(()) = skip::unless(test, available()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::make(dir.path().join("image"), dir.path().join("disk")).unwrap();
        let file = |name: &str| disk.at().join(name);
        let mut grown = File::create(file("grown")).unwrap();
        grown.write_all(b"flushed").unwrap();
        grown.sync_all().unwrap();
        File::open(disk.at()).unwrap().sync_all().unwrap();
        grown.write_all(b", not flushed").unwrap();
        fs::write(file("new"), "not flushed").unwrap();
        fs::write(file("renamed"), "not flushed").unwrap();
        fs::rename(file("renamed"), file("in place")).unwrap();
        assert_eq!(fs::read_to_string(file("grown")).unwrap(), "flushed, not flushed");

        cut([&disk], []).unwrap();
        grown.write_all(b"after the cut").unwrap_err();
        grown.sync_all().unwrap_err();
        drop(grown);
        disk.mount_again().unwrap();
        assert_eq!(fs::read_to_string(file("grown")).unwrap(), "flushed");
        for lost in ["new", "renamed", "in place"] {
            assert!(!file(lost).exists(), "{lost}");
        }
    }

    #[test]
    fn a_disk_is_unmounted_when_it_is_dropped() {
        let test = "a_disk_is_unmounted_when_it_is_dropped";
        let Some(()) = skip::unless(test, available()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::make(dir.path().join("image"), dir.path().join("disk")).unwrap();
        let at = disk.at().to_owned();
        // Somebody may be there still.
        let open = File::create(at.join("file")).unwrap();
        drop(disk);
        assert_eq!(fs::read_dir(at).unwrap().count(), 0);
        drop(open);
    }

    #[test]
    fn a_machine_without_them_says_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Disk::make(dir.path().join("no directory").join("image"), dir.path().join("disk"));
        assert!(missing.unwrap_err().to_string().contains("no directory"));
    }
}
