//! Rule: the top level of the repository is a closed list.

use std::collections::BTreeSet;

use super::Finding;
use super::tracked::TrackedFile;

/// What may lie at the top.
const ALLOWED: [&str; 17] = [
    ".cargo",
    ".ci",
    ".gitattributes",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "proto",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
];

/// What may come later.
const OPTIONAL: [&str; 2] = [".gitattributes", ".gitignore"];

/// Checks that the top level holds what it must, and nothing else.
pub(super) fn check(files: &[TrackedFile]) -> Vec<Finding> {
    let found: BTreeSet<_> =
        files.iter().map(|file| file.path.split('/').next().unwrap_or_default()).collect();
    let strange = found.iter().filter(|name| !ALLOWED.contains(name));
    let mut findings: Vec<_> = strange
        .map(|name| Finding::new(name, 0, "does not belong at the top: find it a directory"))
        .collect();
    let missing = ALLOWED.iter().filter(|name| !found.contains(*name) && !OPTIONAL.contains(name));
    findings.extend(missing.map(|name| Finding::new(name, 0, "is missing at the top: add it")));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn tree(extra: &[&str]) -> Vec<TrackedFile> {
        ALLOWED.iter().chain(extra).map(|name| file(name, "\n")).collect()
    }

    #[test]
    fn the_closed_list_passes() {
        assert_eq!(check(&tree(&["crates/log/Cargo.toml"])), []);
    }

    #[test]
    fn a_stranger_is_found() {
        let found = check(&tree(&["Makefile", "scripts/run.sh"]));
        let paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["Makefile", "scripts"]);
    }

    #[test]
    fn a_missing_piece_is_found() {
        let mut files = tree(&[]);
        files.retain(|file| file.path != "LICENSE" && file.path != ".gitattributes");
        let found = check(&files);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "LICENSE: is missing at the top: add it");
    }
}
