//! Rule: the pure crates have no runtime, files, sockets, threads, clocks, environment or chance, so that they
//! can be simulated and replayed.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::Finding;
use super::layers::PURE;
use super::source::{Source, Sources};
use crate::workspace::{Package, Workspace};

/// Third-party crates that are impure by trade; a name that ends in `*` stands for all that begin so.
const BANNED_DEPENDENCIES: [&str; 13] = [
    "async-std",
    "fastrand",
    "futures*",
    "getrandom",
    "libc",
    "mio",
    "nix",
    "rand*",
    "rustix",
    "smol",
    "tempfile",
    "tokio*",
    "tonic*",
];

/// Paths that pure code does not name, as segments, and what they would bring in. They match anywhere in a path,
/// so that `time::Instant::now()` is found as well.
const BANNED_PATHS: [(&[&str], &str); 16] = [
    (&["std", "fs"], "files"),
    (&["std", "net"], "sockets"),
    (&["std", "os"], "the operating system"),
    (&["std", "process"], "processes"),
    (&["std", "thread"], "threads"),
    (&["std", "env"], "the environment"),
    (&["std", "io", "stdin"], "the console"),
    (&["std", "io", "stdout"], "the console"),
    (&["std", "io", "stderr"], "the console"),
    (&["std", "time", "Instant"], "a clock"),
    (&["Instant", "now"], "a clock"),
    (&["SystemTime"], "a clock"),
    (&["rand", ""], "chance"),
    (&["tokio", ""], "a runtime"),
    (&["tonic", ""], "the network"),
    (&["rustix", ""], "the operating system"),
];

/// Checks the dependencies and the sources of the pure crates that exist.
pub(super) fn check(workspace: &Workspace, sources: &Sources<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in workspace.packages.iter().filter(|package| PURE.contains(&package.name.as_str())) {
        findings.extend(check_dependencies(package));
        let directory = package.directory().strip_prefix(&workspace.root).unwrap_or(package.directory());
        let prefix = format!("{}/src/", directory.display());
        let own = sources.files.iter().filter(|source| source.path.starts_with(&prefix) && !source.is_test);
        findings.extend(own.flat_map(check_source));
    }
    findings
}

fn check_dependencies(package: &Package) -> Vec<Finding> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
    let banned =
        normal.filter(|dependency| BANNED_DEPENDENCIES.iter().any(|ban| matches(ban, &dependency.name)));
    let path = format!("{} (manifest)", package.name);
    let what = |name: &str| format!("is pure and may not use {name}: leave that to a crate above it");
    banned.map(|dependency| Finding::new(&path, 0, what(&dependency.name))).collect()
}

fn matches(ban: &str, name: &str) -> bool {
    ban.strip_suffix('*').map_or(ban == name, |start| name.starts_with(start))
}

fn check_source(source: &Source<'_>) -> Vec<Finding> {
    // The file has parsed as Rust, so it is a token stream.
    let Ok(tokens) = source.text.parse::<TokenStream>() else { return Vec::new() };
    let mut paths = Vec::new();
    collect_paths(tokens, &[], &mut paths);
    let product = paths.iter().filter(|path| !source.is_test_line(path.line));
    let findings = product.filter_map(|path| {
        let (_, brings) = BANNED_PATHS.iter().find(|(banned, _)| path.contains(banned))?;
        let what = format!(
            "`{}` brings {brings} into a pure crate: take it as a parameter",
            path.segments.join("::")
        );
        Some(Finding::new(source.path, path.line, what))
    });
    findings.collect()
}

/// A path of identifiers, with `use a::{b, c}` taken apart.
struct NamedPath {
    segments: Vec<String>,
    line: usize,
}

impl NamedPath {
    /// Whether the segments occur in a row; a last empty one stands for any segment.
    fn contains(&self, banned: &[&str]) -> bool {
        let equal = |window: &[String]| {
            window.iter().zip(banned).all(|(segment, banned)| banned.is_empty() || segment == banned)
        };
        self.segments.windows(banned.len()).any(equal)
    }
}

/// Finds every path in `tokens`, those in macro calls included; each begins with `prefix`.
fn collect_paths(tokens: TokenStream, prefix: &[String], paths: &mut Vec<NamedPath>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let first = match token {
            TokenTree::Ident(name) => name,
            TokenTree::Group(group) => {
                // Only the braces of a `use` tree, met below, continue a path.
                collect_paths(group.stream(), prefix, paths);
                continue;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => continue,
        };
        let line = first.span().start().line;
        let mut segments = prefix.to_vec();
        segments.push(first.to_string());
        let mut is_tree = false;
        while skip_path_separator(&mut tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(name)) => segments.push(name.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    collect_paths(group.stream(), &segments, paths);
                    is_tree = true;
                }
                _ => break,
            }
            tokens.next();
        }
        if !is_tree {
            paths.push(NamedPath { segments, line });
        }
    }
}

/// Passes over `::` and tells whether it was there.
fn skip_path_separator(tokens: &mut std::iter::Peekable<impl Iterator<Item = TokenTree>>) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    let is_joint = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':' && mark.spacing() == proc_macro2::Spacing::Joint);
    tokens.next_if(is_joint).is_some() && tokens.next_if(is_colon).is_some()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::file;
    use super::*;
    use crate::workspace::Dependency;

    fn findings(text: &str) -> Vec<String> {
        let files = [file("crates/replica/src/replica.rs", text)];
        let (sources, unreadable) = Sources::parse(&files);
        assert_eq!(unreadable, []);
        sources.files.iter().flat_map(check_source).map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn pure_code_passes() {
        let text = "use std::{fmt, time::Duration};\nuse std::io::{self, Read};\n\
            struct SystemTimeless;\nfn rand(n: u64) -> u64 { n }\nfn f(now: u64) -> u64 { rand(now) }\n";
        assert_eq!(findings(text), Vec::<String>::new());
    }

    #[test]
    fn every_way_of_naming_files_is_found() {
        for text in [
            "use std::fs;\n",
            "use std::{fmt, fs::File};\n",
            "use std::{fmt, fs};\n",
            "fn f() { ::std::fs::read(\"x\").ok(); }\n",
            "fn f() { assert!(std::fs::exists(\"x\").is_ok()); }\n",
        ] {
            let found = findings(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("crates/replica/src/replica.rs:1: `std::fs"), "{}", found[0]);
        }
    }

    #[test]
    fn clocks_chance_threads_and_environment_are_found() {
        for text in [
            "fn f() { std::thread::yield_now(); }",
            "fn f() { std::env::var(\"X\").ok(); }",
            "use std::time::SystemTime;",
            "use std::time;\nfn f() { time::Instant::now(); }",
            "use std::time::{Duration, Instant};",
            "fn f() -> u64 { rand::random() }",
            "use std::net::TcpStream;",
        ] {
            assert_eq!(findings(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn test_code_may_do_anything() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(findings(text), Vec::<String>::new());
    }

    #[test]
    fn words_in_comments_and_strings_do_not_count() {
        let text = "//! Not std::fs.\n/// Nor std::thread.\nfn f() -> &'static str { \"std::env\" }\n";
        assert_eq!(findings(text), Vec::<String>::new());
    }

    #[test]
    fn impure_dependencies_are_found_unless_for_tests() {
        let dependency = |name: &str, kind: Option<&str>| Dependency {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            path: None,
        };
        let dependencies = vec![
            dependency("bytes", None),
            dependency("tokio-stream", None),
            dependency("rand_core", None),
            dependency("tempfile", Some("dev")),
        ];
        let name = "klamm-replica".to_owned();
        let package = Package { name, manifest_path: PathBuf::new(), dependencies, targets: Vec::new() };
        let found: Vec<_> = check_dependencies(&package).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("tokio-stream") && found[1].contains("rand_core"), "{found:?}");
    }
}
