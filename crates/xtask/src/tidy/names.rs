//! Rule: no file, directory or module has a name that says nothing.

use syn::ItemMod;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::Sources;
use super::tracked::TrackedFile;

/// Names under which anything could be put, and so everything would be.
const BANNED: [&str; 9] =
    ["base", "common", "core", "helper", "helpers", "misc", "util", "utilities", "utils"];

const REMEDY: &str = "says nothing: name it after what it is about";

/// Checks the paths of all files of our own code, and the modules that are written inline.
pub(super) fn check(files: &[TrackedFile], sources: &Sources<'_>) -> Vec<Finding> {
    let own = files.iter().filter(|file| file.path.starts_with("crates/") || file.path.starts_with("tests/"));
    let mut findings: Vec<_> = own.filter_map(|file| check_path(&file.path)).collect();
    for source in &sources.files {
        let mut modules = InlineModules { path: source.path, findings: &mut findings };
        modules.visit_file(&source.syntax);
    }
    findings
}

fn check_path(path: &str) -> Option<Finding> {
    // What other programs wrote keeps the names that they gave.
    if path.contains("/golden/") {
        return None;
    }
    let stems = path.split('/').map(|part| part.split('.').next().unwrap_or_default());
    let banned = stems.into_iter().find(|stem| BANNED.contains(stem))?;
    Some(Finding::new(path, 0, format!("the name `{banned}` {REMEDY}")))
}

struct InlineModules<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl<'ast> Visit<'ast> for InlineModules<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        if module.content.is_some() && BANNED.contains(&name.as_str()) {
            let line = module.ident.span().start().line;
            self.findings.push(Finding::new(self.path, line, format!("the module name `{name}` {REMEDY}")));
        }
        visit::visit_item_mod(self, module);
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let files = [file(path, text)];
        let (sources, _) = Sources::parse(&files);
        check(&files, &sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn telling_names_pass() {
        assert!(findings("crates/log/src/segment.rs", "mod recovery {}\n").is_empty());
        assert!(findings("crates/log/src/base_offset.rs", "\n").is_empty());
        assert!(findings("tests/interop/golden/core/x.log", "\n").is_empty());
    }

    #[test]
    fn empty_names_are_found_in_files_directories_and_modules() {
        for path in ["crates/log/src/utils.rs", "crates/log/src/common/x.rs", "tests/interop/helpers.py"] {
            assert_eq!(findings(path, "\n").len(), 1, "{path}");
        }
        let found = findings("crates/log/src/log.rs", "\nmod misc {}\n");
        assert_eq!(
            found,
            ["crates/log/src/log.rs:2: the module name `misc` says nothing: name it after what it is about"]
        );
    }
}
