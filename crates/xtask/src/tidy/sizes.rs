//! Rule: files, functions and parameter lists stay small. Test code does not count towards a file; a function is
//! a function, in tests too. Generated files are exempt.

use std::collections::BTreeMap;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, FnArg, Signature};

use super::Finding;
use super::ratchet::Ratchet;
use super::source::{Source, Sources};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// Lines of a file that are not test code.
    FileLines,
    /// Lines of a function, from its signature to its closing brace.
    FunctionLines,
    /// Parameters of a function, the receiver not counted.
    Parameters,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::FileLines, Self::FunctionLines, Self::Parameters];

    /// Its word in the ratchet file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::FileLines => "file-lines",
            Self::FunctionLines => "function-lines",
            Self::Parameters => "parameters",
        }
    }

    pub(super) const fn limit(self) -> usize {
        match self {
            Self::FileLines => 600,
            Self::FunctionLines => 70,
            Self::Parameters => 5,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::FileLines => "split the module",
            Self::FunctionLines => "split the function",
            Self::Parameters => "make it a struct",
        }
    }
}

/// What exceeds a limit: a file (`path`) or a function (`path#Type::name`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Subject {
    /// The file it lies in.
    pub(super) fn path(&self) -> &str {
        self.name.split('#').next().unwrap_or_default()
    }
}

/// A number above its limit, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Excess {
    pub(super) number: usize,
    pub(super) line: usize,
}

/// Everything above a limit. Of functions of one name in one file the largest counts.
pub(super) fn excesses(sources: &Sources<'_>) -> BTreeMap<Subject, Excess> {
    let mut found = BTreeMap::new();
    for source in &sources.files {
        let mut visitor = Functions { source, scope: Vec::new(), found: &mut found };
        if !source.is_test {
            visitor.note(Kind::FileLines, None, source.product_lines(), 0);
        }
        visitor.visit_file(&source.syntax);
    }
    found
}

/// Compares what exceeds a limit with the exceptions.
pub(super) fn check(sources: &Sources<'_>, ratchet: &Ratchet) -> Vec<Finding> {
    let excesses = excesses(sources);
    let mut findings: Vec<_> =
        excesses.iter().filter_map(|(subject, excess)| judge(subject, *excess, ratchet)).collect();
    findings.extend(ratchet.unused(&excesses));
    findings.extend(ratchet.unreadable());
    findings
}

fn judge(subject: &Subject, excess: Excess, ratchet: &Ratchet) -> Option<Finding> {
    let Excess { number, line } = excess;
    let kind = subject.kind;
    let name = subject.name.split_once('#').map_or("the file", |(_, function)| function);
    let what = match ratchet.allowed(subject) {
        None => {
            let limit = kind.limit();
            format!("{name}: {number} {}, the limit is {limit}: {}", kind.name(), kind.remedy())
        }
        Some(allowed) if number > allowed => {
            format!("{name}: {number} {}, its exception allows {allowed}: {}", kind.name(), kind.remedy())
        }
        Some(allowed) if number < allowed => {
            format!("{name}: {number} {} now: lower its exception of {allowed} (tidy --update)", kind.name())
        }
        Some(_) => return None,
    };
    Some(Finding::new(subject.path(), line, what))
}

/// Walks all functions of a file, keeping the name of the type or module that holds them.
struct Functions<'a> {
    source: &'a Source<'a>,
    scope: Vec<String>,
    found: &'a mut BTreeMap<Subject, Excess>,
}

impl Functions<'_> {
    fn note(&mut self, kind: Kind, function: Option<&str>, number: usize, line: usize) {
        if number <= kind.limit() {
            return;
        }
        let name = function
            .map_or_else(|| self.source.path.to_owned(), |name| format!("{}#{name}", self.source.path));
        let excess = Excess { number, line };
        let entry = self.found.entry(Subject { kind, name }).or_insert(excess);
        if number > entry.number {
            *entry = excess;
        }
    }

    fn note_function(&mut self, signature: &Signature, body: &Block) {
        let name =
            self.scope.iter().cloned().chain([signature.ident.to_string()]).collect::<Vec<_>>().join("::");
        let start = signature.span().start().line;
        let end = body.span().end().line;
        self.note(Kind::FunctionLines, Some(&name), end.saturating_sub(start) + 1, start);
        self.note_parameters(&name, signature);
    }

    fn note_parameters(&mut self, name: &str, signature: &Signature) {
        let parameters = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).count();
        self.note(Kind::Parameters, Some(name), parameters, signature.span().start().line);
    }

    fn within(&mut self, scope: String, walk: impl FnOnce(&mut Self)) {
        self.scope.push(scope);
        walk(self);
        self.scope.pop();
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note_function(&function.sig, &function.block);
        self.within(function.sig.ident.to_string(), |this| visit::visit_item_fn(this, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note_function(&function.sig, &function.block);
        self.within(function.sig.ident.to_string(), |this| visit::visit_impl_item_fn(this, function));
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        match &function.default {
            Some(body) => self.note_function(&function.sig, body),
            None => {
                let name = self.scope.iter().cloned().chain([function.sig.ident.to_string()]);
                self.note_parameters(&name.collect::<Vec<_>>().join("::"), &function.sig);
            }
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.within(type_name(&item.self_ty), |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.within(item.ident.to_string(), |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(item.ident.to_string(), |this| visit::visit_item_mod(this, item));
    }
}

/// The last name of a type's path; `_` for a type without one.
fn type_name(of: &syn::Type) -> String {
    match of {
        syn::Type::Path(path) => {
            path.path.segments.last().map_or_else(|| "_".to_owned(), |s| s.ident.to_string())
        }
        syn::Type::Reference(reference) => type_name(&reference.elem),
        _ => "_".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::tracked::TrackedFile;
    use super::*;

    const NO_EXCEPTIONS: &str = "";

    fn findings(files: &[TrackedFile], ratchet: &str) -> Vec<String> {
        let (sources, unreadable) = Sources::parse(files);
        assert_eq!(unreadable, []);
        check(&sources, &Ratchet::parse("ratchet.txt", ratchet)).iter().map(ToString::to_string).collect()
    }

    /// A method of `lines` lines, in an `impl` that starts in line 1.
    fn method(lines: usize) -> TrackedFile {
        let body = "        let _ = 1;\n".repeat(lines - 2);
        file("crates/log/src/a.rs", &format!("impl Log {{\n    fn read(&self) {{\n{body}    }}\n}}\n"))
    }

    #[test]
    fn a_file_at_the_limit_passes_and_one_above_fails() {
        let good = file("crates/log/src/a.rs", &"//! x\n".repeat(600));
        assert!(findings(&[good], NO_EXCEPTIONS).is_empty());
        let bad = file("crates/log/src/a.rs", &"//! x\n".repeat(601));
        let expected = ["crates/log/src/a.rs: the file: 601 file-lines, the limit is 600: split the module"];
        assert_eq!(findings(&[bad], NO_EXCEPTIONS), expected);
    }

    #[test]
    fn tests_do_not_count_towards_a_file() {
        let text = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(700));
        assert!(findings(&[file("crates/log/src/a.rs", &text)], NO_EXCEPTIONS).is_empty());
        assert!(findings(&[file("crates/log/tests/a.rs", &"// x\n".repeat(700))], NO_EXCEPTIONS).is_empty());
    }

    #[test]
    fn a_function_above_the_limit_is_named_with_its_type() {
        assert!(findings(&[method(70)], NO_EXCEPTIONS).is_empty());
        let expected =
            ["crates/log/src/a.rs:2: Log::read: 71 function-lines, the limit is 70: split the function"];
        assert_eq!(findings(&[method(71)], NO_EXCEPTIONS), expected);
    }

    #[test]
    fn parameters_are_counted_without_the_receiver() {
        let good = "impl A { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {} }\n";
        assert!(findings(&[file("a.rs", good)], NO_EXCEPTIONS).is_empty());
        let bad = "trait A { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8); }\n";
        let expected = ["a.rs:1: A::f: 6 parameters, the limit is 5: make it a struct"];
        assert_eq!(findings(&[file("a.rs", bad)], NO_EXCEPTIONS), expected);
    }

    #[test]
    fn an_exception_holds_for_its_number_only() {
        let exception = "function-lines crates/log/src/a.rs#Log::read 80\n";
        assert!(findings(&[method(80)], exception).is_empty());
        let above = findings(&[method(81)], exception);
        assert!(
            above[0].ends_with("81 function-lines, its exception allows 80: split the function"),
            "{above:?}"
        );
        let below = findings(&[method(79)], exception);
        assert!(
            below[0].ends_with("79 function-lines now: lower its exception of 80 (tidy --update)"),
            "{below:?}"
        );
        let gone = findings(&[method(70)], exception);
        assert_eq!(gone.len(), 1);
        assert!(gone[0].starts_with("ratchet.txt:1: "), "{gone:?}");
    }
}
