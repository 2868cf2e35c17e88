//! A directory that is filled once, whoever comes first, and found ready by everybody else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::ToolError;

/// Written last into a finished installation; holds the recipe that it was made by.
const MARKER: &str = ".installed";

/// Installations that failed in this process: a machine without a registry waits for it once, not per test.
static FAILED: Mutex<BTreeMap<PathBuf, ToolError>> = Mutex::new(BTreeMap::new());

/// One installation: where it goes, and what exactly goes there.
pub(super) struct Installation<'a> {
    /// Its own directory; a file of the same name with `.lock` appended guards it.
    pub(super) directory: &'a Path,
    /// Everything that decides the content. A directory made by another recipe is made anew.
    pub(super) recipe: &'a str,
    /// How an error names it.
    pub(super) what: &'a str,
}

impl Installation<'_> {
    /// Makes sure that the directory holds what the recipe says, calling `fill` on an empty directory if not.
    ///
    /// Waits while another process or thread is at it. What an interrupted or failed `fill` left behind is
    /// removed before the next one.
    pub(super) fn ensure(&self, fill: impl FnOnce(&Path) -> Result<(), ToolError>) -> Result<(), ToolError> {
        let lock = self.lock_file().map_err(|error| self.not_installed(&error))?;
        // Released when the file is closed, also if this process is killed. Excludes threads as well.
        lock.lock().map_err(|error| self.not_installed(&error))?;
        let earlier = FAILED.lock().unwrap_or_else(PoisonError::into_inner).get(self.directory).cloned();
        if let Some(error) = earlier {
            return Err(error);
        }
        let outcome = if self.is_ready() { Ok(()) } else { self.make(fill) };
        if let Err(error) = &outcome {
            let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
            failed.insert(self.directory.to_owned(), error.clone());
        }
        outcome
    }

    fn make(&self, fill: impl FnOnce(&Path) -> Result<(), ToolError>) -> Result<(), ToolError> {
        self.empty_directory().map_err(|error| self.not_installed(&error))?;
        fill(self.directory)?;
        fs::write(self.directory.join(MARKER), self.recipe).map_err(|error| self.not_installed(&error))
    }

    fn is_ready(&self) -> bool {
        fs::read_to_string(self.directory.join(MARKER)).is_ok_and(|recipe| recipe == self.recipe)
    }

    fn lock_file(&self) -> io::Result<File> {
        if let Some(parent) = self.directory.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut path = self.directory.as_os_str().to_owned();
        path.push(".lock");
        File::create(path)
    }

    fn empty_directory(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(self.directory),
        }
    }

    /// The error of an installation that failed for `reason`.
    pub(super) fn not_installed(&self, reason: &dyn std::error::Error) -> ToolError {
        ToolError::NotInstalled { what: self.what.to_owned(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn installation<'a>(directory: &'a Path, recipe: &'a str) -> Installation<'a> {
        Installation { directory, recipe, what: "a thing" }
    }

    #[test]
    fn many_threads_fill_once() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("thing");
        let fills = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fill = |into: &Path| {
                        fills.fetch_add(1, Ordering::Relaxed);
                        fs::write(into.join("content"), "x").unwrap();
                        Ok(())
                    };
                    installation(&directory, "v1").ensure(fill).unwrap();
                    assert!(directory.join("content").is_file());
                });
            }
        });
        assert_eq!(fills.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn another_recipe_starts_from_an_empty_directory() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("thing");
        installation(&directory, "v1").ensure(|into| put(into, "old")).unwrap();
        installation(&directory, "v2").ensure(|into| put(into, "new")).unwrap();
        assert!(!directory.join("old").exists());
        assert!(directory.join("new").exists());
    }

    #[test]
    fn half_an_installation_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("thing");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("half"), "x").unwrap();
        installation(&directory, "v1").ensure(|into| put(into, "whole")).unwrap();
        assert!(!directory.join("half").exists());
    }

    #[test]
    fn a_failure_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("thing");
        let thing = installation(&directory, "v1");
        let refused = thing.ensure(|_| Err(thing.not_installed(&io::Error::other("no registry"))));
        assert_eq!(refused.unwrap_err().to_string(), "a thing (installing it failed: no registry)");
        let again = thing.ensure(|_| panic!("a failed installation is not tried again by the same process"));
        again.unwrap_err();
    }

    fn put(into: &Path, name: &str) -> Result<(), ToolError> {
        fs::write(into.join(name), "x").unwrap();
        Ok(())
    }
}
