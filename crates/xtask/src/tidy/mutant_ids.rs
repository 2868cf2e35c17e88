//! Rule: every bug that can be built back in is in the table of `cargo xtask mutants`, so that none goes untested.

use super::Finding;
use super::tracked::TrackedFile;
use crate::mutants::{MUTANTS, ids_in};

/// Checks the sources of all crates but this one, which only talks of mutants.
pub(super) fn check(files: &[TrackedFile]) -> Vec<Finding> {
    let is_source = |path: &str| path.ends_with(".rs") && !path.starts_with("crates/xtask/");
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_source(&file.path)) {
        for (id, line) in ids_in(file.text.as_deref().unwrap_or_default()) {
            if !MUTANTS.iter().any(|mutant| mutant.id == id) {
                let what = format!("mutant {id} has no row in crates/xtask/src/mutants/table.rs: add one");
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn only_unregistered_mutants_are_found() {
        let text = "#[cfg(mutant = \"B24\")]\nfn f() {}\n#[cfg(not(mutant = \"B99\"))]\nfn f() {}\n";
        let found = check(&[file("crates/log/src/log.rs", text)]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].to_string().starts_with("crates/log/src/log.rs:3: mutant B99 has no row"),
            "{}",
            found[0]
        );
    }
}
