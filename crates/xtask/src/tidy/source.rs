//! Rust sources, parsed once for all rules, and which of their lines are test code.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, Meta};

use super::Finding;
use super::tracked::TrackedFile;

/// All hand-written Rust files.
pub(super) struct Sources<'a> {
    pub(super) files: Vec<Source<'a>>,
}

/// A Rust file.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    pub(super) syntax: syn::File,
    /// Whether all of it is test code: an integration test, a bench, or a module declared under `#[cfg(test)]`.
    pub(super) is_test: bool,
    /// Lines of items under `#[cfg(test)]`, attributes included.
    test_lines: Vec<RangeInclusive<usize>>,
}

impl<'a> Sources<'a> {
    /// Parses every `.rs` file that does not say `// @generated` in its first line; a finding for each that
    /// does not parse.
    pub(super) fn parse(files: &'a [TrackedFile]) -> (Self, Vec<Finding>) {
        let mut sources = Vec::new();
        let mut findings = Vec::new();
        for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
            let Some(text) = file.text.as_deref() else {
                findings.push(Finding::new(&file.path, 0, "is not UTF-8: write it as text"));
                continue;
            };
            if is_generated(text) {
                continue;
            }
            match syn::parse_file(text) {
                Ok(syntax) => sources.push(Source::new(&file.path, text, syntax)),
                Err(error) => {
                    let line = error.span().start().line;
                    findings.push(Finding::new(&file.path, line, format!("does not parse: {error}")));
                }
            }
        }
        mark_test_modules(&mut sources);
        (Self { files: sources }, findings)
    }
}

impl<'a> Source<'a> {
    fn new(path: &'a str, text: &'a str, syntax: syn::File) -> Self {
        let mut visitor = TestItems::default();
        visitor.visit_file(&syntax);
        let is_test = is_test_path(path) || syntax.attrs.iter().any(requires_test);
        Self { path, text, syntax, is_test, test_lines: visitor.lines }
    }

    /// Whether `line` (from 1) is test code.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// How many lines are not test code.
    pub(super) fn product_lines(&self) -> usize {
        (1..=self.text.lines().count()).filter(|line| !self.is_test_line(*line)).count()
    }
}

fn is_generated(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.starts_with("// @generated"))
}

/// Integration tests and benches, by where cargo looks for them, and test modules by their file names.
fn is_test_path(path: &str) -> bool {
    let mut parts: Vec<_> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    // The first `tests` of `tests/src` is a package, not a directory of tests.
    let is_tests_package = parts.first() == Some(&"tests");
    let inner = parts.get(usize::from(is_tests_package)..).unwrap_or_default();
    name.ends_with("_test.rs") || name == "tests.rs" || inner.contains(&"tests") || inner.contains(&"benches")
}

/// Marks files, and all files of their sub-directories, that another file declares under `#[cfg(test)]`.
fn mark_test_modules(sources: &mut [Source<'_>]) {
    let mut test_files = BTreeSet::new();
    let mut test_directories = Vec::new();
    for source in sources.iter() {
        for stem in test_module_stems(source) {
            test_files.insert(format!("{stem}.rs"));
            test_directories.push(format!("{stem}/"));
        }
    }
    for source in sources {
        let below = test_directories.iter().any(|directory| source.path.starts_with(directory));
        source.is_test |= below || test_files.contains(source.path);
    }
}

/// The paths, without `.rs`, of the modules that `source` declares under `#[cfg(test)]` in other files.
fn test_module_stems(source: &Source<'_>) -> Vec<String> {
    let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", source.path));
    let stem = name.trim_end_matches(".rs");
    let inner = match stem {
        "lib" | "main" | "mod" => directory.to_owned(),
        stem => format!("{directory}/{stem}"),
    };
    let declared = source.syntax.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && module.attrs.iter().any(requires_test) => {
            Some(module)
        }
        _ => None,
    });
    let stems = declared.map(|module| match path_attribute(module) {
        Some(path) => format!("{directory}/{}", path.trim_end_matches(".rs")),
        None => format!("{inner}/{}", module.ident),
    });
    stems.collect()
}

fn path_attribute(module: &ItemMod) -> Option<String> {
    module.attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Whether an attribute is a `cfg` that holds in test builds only (or `#[test]` itself).
fn requires_test(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => all_require_test(&list.tokens, false),
        _ => false,
    }
}

/// Whether a list of `cfg` predicates requires `test`: one of them if it is an `all` (or stands alone), each of
/// them if it is an `any`.
fn all_require_test(tokens: &TokenStream, is_any: bool) -> bool {
    let mut predicates: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for token in tokens.clone() {
        match (&token, predicates.last_mut()) {
            (TokenTree::Punct(comma), _) if comma.as_char() == ',' => predicates.push(Vec::new()),
            (_, Some(predicate)) => predicate.push(token),
            (_, None) => {}
        }
    }
    let mut predicates = predicates.iter().filter(|predicate| !predicate.is_empty());
    if is_any {
        predicates.all(|p| requires_test_alone(p))
    } else {
        predicates.any(|p| requires_test_alone(p))
    }
}

fn requires_test_alone(predicate: &[TokenTree]) -> bool {
    match predicate {
        [TokenTree::Ident(name)] => name == "test",
        [TokenTree::Ident(name), TokenTree::Group(group)] => match name.to_string().as_str() {
            "all" => all_require_test(&group.stream(), false),
            "any" => all_require_test(&group.stream(), true),
            _ => false,
        },
        _ => false,
    }
}

/// Collects the lines of items under `#[cfg(test)]`.
#[derive(Default)]
struct TestItems {
    lines: Vec<RangeInclusive<usize>>,
}

impl TestItems {
    /// Notes the node if it is test code, and tells whether it is.
    fn note(&mut self, attributes: &[Attribute], node: &impl Spanned) -> bool {
        let is_test = attributes.iter().any(requires_test);
        if is_test {
            let node = node.span();
            let starts = attributes.iter().map(|attribute| attribute.span().start().line);
            let start = starts.chain([node.start().line]).min().unwrap_or_default();
            self.lines.push(start..=node.end().line);
        }
        is_test
    }
}

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item(&mut self, item: &'ast Item) {
        if !self.note(item_attributes(item), item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !self.note(&function.attrs, function) {
            visit::visit_impl_item_fn(self, function);
        }
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn test_code_is_told_from_product_code() {
        let text = "//! Doc.\n\nfn product() {}\n\n/// Doc.\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        let files = [file("crates/log/src/log.rs", text)];
        let (sources, findings) = Sources::parse(&files);
        assert_eq!(findings, []);
        let source = &sources.files[0];
        assert_eq!(source.product_lines(), 4);
        assert!(!source.is_test_line(3));
        assert!(source.is_test_line(5));
        assert!(source.is_test_line(8));
    }

    #[test]
    fn cfg_predicates_are_evaluated() {
        for (cfg, expected) in [
            ("#[cfg(test)]", true),
            ("#[cfg(all(test, unix))]", true),
            ("#[cfg(any(test, fuzzing))]", false),
            ("#[cfg(any(test, all(test, unix)))]", true),
            ("#[cfg(not(test))]", false),
            ("#[cfg(feature = \"test\")]", false),
            ("#[test]", true),
        ] {
            let item: syn::ItemFn = syn::parse_str(&format!("{cfg} fn f() {{}}")).unwrap();
            assert_eq!(item.attrs.iter().any(requires_test), expected, "{cfg}");
        }
    }

    #[test]
    fn modules_declared_for_tests_are_tests() {
        let files = [
            file("crates/log/src/lib.rs", "#[cfg(test)]\nmod faulty;\nmod log;\n"),
            file("crates/log/src/faulty.rs", "mod deeper;\n"),
            file("crates/log/src/faulty/deeper.rs", "\n"),
            file(
                "crates/log/src/log.rs",
                "#[cfg(test)]\n#[path = \"log_cases.rs\"]\nmod tests;\nmod part;\n",
            ),
            file("crates/log/src/log/part.rs", "\n"),
            file("crates/log/src/log_cases.rs", "\n"),
        ];
        let (sources, _) = Sources::parse(&files);
        let tests: Vec<_> = sources.files.iter().filter(|s| s.is_test).map(|s| s.path).collect();
        let expected =
            ["crates/log/src/faulty.rs", "crates/log/src/faulty/deeper.rs", "crates/log/src/log_cases.rs"];
        assert_eq!(tests, expected);
    }

    #[test]
    fn the_tests_package_has_product_code() {
        assert!(!is_test_path("tests/src/skip.rs"));
        assert!(is_test_path("tests/tests/tools.rs"));
        assert!(is_test_path("crates/log/tests/crash.rs"));
        assert!(is_test_path("crates/log/benches/append.rs"));
        assert!(is_test_path("crates/log/src/log_test.rs"));
        assert!(!is_test_path("crates/log/src/log.rs"));
    }

    #[test]
    fn generated_files_are_left_out_and_broken_ones_reported() {
        let files = [file("a.rs", "// @generated by x\nfn (\n"), file("b.rs", "fn ok() {}\nfn (\n")];
        let (sources, findings) = Sources::parse(&files);
        assert!(sources.files.is_empty());
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().starts_with("b.rs:2: does not parse"), "{}", findings[0]);
    }
}
