//! The files that the rules look at: those that git tracks, or, outside a git checkout (an unpacked archive),
//! those that it would track.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

/// A file of the repository.
pub(super) struct TrackedFile {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    /// Its text; nothing if it is binary.
    pub(super) text: Option<String>,
}

/// Directories that are never tracked, by name.
const IGNORED_DIRECTORIES: [&str; 3] = [".git", "target", "__pycache__"];

/// Reads all tracked files, sorted by path. A file that is tracked but gone from the work tree is left out.
pub(super) fn files(root: &Path) -> anyhow::Result<Vec<TrackedFile>> {
    let mut paths = match git_paths(root) {
        Some(paths) => paths,
        None => walked_paths(root).with_context(|| root.display().to_string())?,
    };
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        match fs::read(root.join(&path)) {
            Ok(bytes) => files.push(TrackedFile { text: text_of(bytes), path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(path),
        }
    }
    Ok(files)
}

/// What git tracks; nothing without git, or where git refuses to answer.
fn git_paths(root: &Path) -> Option<Vec<String>> {
    let mut command = Command::new("git");
    // A container often runs as another user than the one who checked out; we run this checkout's code anyway.
    command
        .current_dir(root)
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Some(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn walked_paths(root: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            match entry.file_type()? {
                kind if !kind.is_dir() => paths.push(path),
                _ if IGNORED_DIRECTORIES.contains(&name.as_str()) => {}
                _ => pending.push(path),
            }
        }
    }
    Ok(paths)
}

/// A file with a zero byte, or one that is not UTF-8, is binary.
fn text_of(bytes: Vec<u8>) -> Option<String> {
    if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_tree_is_walked() {
        let root = tempfile::tempdir().unwrap();
        for file in ["Cargo.toml", "crates/log/src/lib.rs", "target/debug/x", "crates/log/target/y"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text\n").unwrap();
        }
        let mut paths = walked_paths(root.path()).unwrap();
        paths.sort();
        assert_eq!(paths, ["Cargo.toml", "crates/log/src/lib.rs"]);
    }

    #[test]
    fn binary_files_have_no_text() {
        assert_eq!(text_of(b"a\0b".to_vec()), None);
        assert_eq!(text_of(vec![0xff, 0xfe]), None);
        assert_eq!(text_of(b"ab\n".to_vec()), Some("ab\n".to_owned()));
    }
}
