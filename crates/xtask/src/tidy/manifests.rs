//! Rule: every crate obeys the workspace's lints, and its root says what the crate is for.

use std::path::Path;

use super::Finding;
use super::tracked::TrackedFile;
use crate::workspace::Workspace;

/// Checks the members whose manifest git tracks.
pub(super) fn check(workspace: &Workspace, files: &[TrackedFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let directory = package.directory().strip_prefix(&workspace.root).unwrap_or(package.directory());
        findings.extend(check_crate(directory, files));
    }
    findings
}

fn check_crate(directory: &Path, files: &[TrackedFile]) -> Vec<Finding> {
    let text_of = |name: &str| {
        let path = format!("{}/{name}", directory.display());
        let file = files.iter().find(|file| file.path == path)?;
        Some((path, file.text.as_deref().unwrap_or_default()))
    };
    // A crate that is not tracked yet is its author's own business.
    let Some((manifest, text)) = text_of("Cargo.toml") else { return Vec::new() };
    let mut findings = Vec::new();
    if !takes_workspace_lints(text) {
        let what = "does not take the workspace's lints: add `[lints]` with `workspace = true`";
        findings.push(Finding::new(&manifest, 0, what));
    }
    let roots: Vec<_> = ["src/lib.rs", "src/main.rs"].iter().filter_map(|root| text_of(root)).collect();
    if roots.is_empty() {
        findings.push(Finding::new(&manifest, 0, "has neither src/lib.rs nor src/main.rs: add one"));
    }
    for (root, text) in roots {
        if !begins_with_module_doc(text) {
            let what = "does not begin with a module doc: say what the crate is for, and what not (`//!`)";
            findings.push(Finding::new(&root, 1, what));
        }
    }
    findings
}

/// Whether a manifest has the table `[lints]` with `workspace = true`, in either spelling.
fn takes_workspace_lints(manifest: &str) -> bool {
    let mut table = "";
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if line.starts_with('[') {
            table = line;
        }
        let entry: String = line.split_whitespace().collect();
        let found = match table {
            "[lints]" => entry == "workspace=true",
            "" => entry == "lints.workspace=true" || entry == "lints={workspace=true}",
            _ => false,
        };
        if found {
            return true;
        }
    }
    false
}

fn begins_with_module_doc(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|doc| !doc.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n";

    fn findings(manifest: &str, root: &str) -> Vec<String> {
        let files = [file("crates/log/Cargo.toml", manifest), file("crates/log/src/lib.rs", root)];
        check_crate(Path::new("crates/log"), &files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_crate_passes() {
        assert!(findings(MANIFEST, "//! What it is for.\n").is_empty());
    }

    #[test]
    fn missing_lints_are_found() {
        let elsewhere = "[package]\nname = \"x\"\n[dependencies.y]\nworkspace = true\n";
        let off = "[package]\nname = \"x\"\n[lints]\nworkspace = false # true\n";
        for manifest in [elsewhere, off] {
            let found = findings(manifest, "//! What it is for.\n");
            assert_eq!(found.len(), 1, "{manifest}");
            assert!(found[0].starts_with("crates/log/Cargo.toml: does not take"), "{}", found[0]);
        }
    }

    #[test]
    fn a_missing_module_doc_is_found() {
        for root in ["", "//!\n", "use std::fmt;\n", "/// Not of the module.\nfn f() {}\n"] {
            assert_eq!(findings(MANIFEST, root).len(), 1, "{root}");
        }
    }

    #[test]
    fn a_crate_without_a_root_is_found() {
        let files = [file("crates/log/Cargo.toml", MANIFEST)];
        assert_eq!(check_crate(Path::new("crates/log"), &files).len(), 1);
    }
}
