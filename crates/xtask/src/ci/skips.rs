//! The skips of one run. Tests append to a file that the environment names; see `klamm_tests::skip`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{self, Command};

use anyhow::Context;

use crate::workspace::Workspace;

/// Collects what was skipped.
pub(crate) struct Skips {
    file: PathBuf,
    /// Whether a skip is a failure.
    pub(crate) forbidden: bool,
}

impl Skips {
    /// Starts with none.
    pub(crate) fn new(workspace: &Workspace, forbidden: bool) -> anyhow::Result<Self> {
        let directory = workspace.target.join("xtask");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Self::in_file(directory.join(format!("skips-{}", process::id())), forbidden)
    }

    fn in_file(file: PathBuf, forbidden: bool) -> anyhow::Result<Self> {
        fs::write(&file, "").with_context(|| file.display().to_string())?;
        Ok(Self { file, forbidden })
    }

    /// Tells the tests that `command` runs where to leave their skips, and whether they may.
    pub(crate) fn pass_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let no_skips = if self.forbidden { "1" } else { "0" };
        command.env("KLAMM_SKIP_FILE", &self.file).env("KLAMM_NO_SKIPS", no_skips)
    }

    /// Adds a skip of a step itself.
    pub(crate) fn add(&self, name: &str, needs: &str) -> anyhow::Result<()> {
        println!("skipped: {name} needs {needs}");
        let mut file = OpenOptions::new().append(true).open(&self.file)?;
        Ok(file.write_all(format!("{name}\t{needs}\n").as_bytes())?)
    }

    /// All skips so far, sorted, each as `NAME needs X`, each once.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(&self.file).with_context(|| self.file.display().to_string())?;
        let mut lines: Vec<_> = text.lines().map(|line| line.replacen('\t', " needs ", 1)).collect();
        lines.sort();
        lines.dedup();
        Ok(lines)
    }
}

impl Drop for Skips {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("warning: {}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_sorted_and_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let skips = Skips::in_file(directory.path().join("skips"), false).unwrap();
        skips.add("b", "java 17").unwrap();
        skips.add("a", "g++").unwrap();
        skips.add("b", "java 17").unwrap();
        assert_eq!(skips.read().unwrap(), ["a needs g++", "b needs java 17"]);
    }

    #[test]
    fn children_learn_where_to_leave_skips() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("skips");
        let skips = Skips::in_file(file.clone(), true).unwrap();
        let mut command = Command::new("true");
        let passed: Vec<_> = skips.pass_to(&mut command).get_envs().collect();
        assert!(passed.contains(&("KLAMM_SKIP_FILE".as_ref(), Some(file.as_os_str()))));
        assert!(passed.contains(&("KLAMM_NO_SKIPS".as_ref(), Some("1".as_ref()))));
    }
}
