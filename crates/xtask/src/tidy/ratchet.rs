//! The exceptions from the size limits: a file of lines `KIND SUBJECT NUMBER` that may only shrink.

use std::collections::BTreeMap;

use super::Finding;
use super::sizes::{Excess, Kind, Subject};

/// What the file explains about itself.
const HEADER: &str = "\
# What was above a limit of `cargo xtask tidy` when the limit came, or needs to be: KIND PATH[#FUNCTION] NUMBER.
# A number may only fall; `cargo xtask tidy --update` lowers and removes, and never adds.
";

/// The exceptions.
pub(super) struct Ratchet {
    path: &'static str,
    /// Each with the line it stands in.
    allowed: BTreeMap<Subject, (usize, usize)>,
    /// Lines that are no exceptions.
    bad_lines: Vec<usize>,
}

impl Ratchet {
    /// Reads the text of the file at `path`. Empty lines and those that begin with `#` say nothing.
    pub(super) fn parse(path: &'static str, text: &str) -> Self {
        let mut ratchet = Self { path, allowed: BTreeMap::new(), bad_lines: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line) {
                Some((subject, number)) if !ratchet.allowed.contains_key(&subject) => {
                    ratchet.allowed.insert(subject, (number, index + 1));
                }
                _ => ratchet.bad_lines.push(index + 1),
            }
        }
        ratchet
    }

    /// The number that `subject` may have, if it has an exception.
    pub(super) fn allowed(&self, subject: &Subject) -> Option<usize> {
        self.allowed.get(subject).map(|(number, _)| *number)
    }

    /// A finding for each exception that nothing needs.
    pub(super) fn unused(&self, excesses: &BTreeMap<Subject, Excess>) -> Vec<Finding> {
        let unused = self.allowed.iter().filter(|(subject, _)| !excesses.contains_key(subject));
        let what = |subject: &Subject| {
            format!("{} is within the limit: remove the line (tidy --update)", subject.name)
        };
        unused.map(|(subject, (_, line))| Finding::new(self.path, *line, what(subject))).collect()
    }

    /// A finding for each line that is no exception, or the second for its subject.
    pub(super) fn unreadable(&self) -> Vec<Finding> {
        let what = "is not a new `KIND PATH[#FUNCTION] NUMBER`: mend or remove the line";
        self.bad_lines.iter().map(|line| Finding::new(self.path, *line, what)).collect()
    }

    /// The same exceptions, each no higher than needed; those that nothing needs are gone.
    pub(super) fn lowered_to(&self, excesses: &BTreeMap<Subject, Excess>) -> Self {
        let kept = self.allowed.iter().filter_map(|(subject, (number, line))| {
            let needed = excesses.get(subject)?.number;
            Some((subject.clone(), (needed.min(*number), *line)))
        });
        Self { path: self.path, allowed: kept.collect(), bad_lines: Vec::new() }
    }

    /// The text of the file.
    pub(super) fn to_text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (subject, (number, _)) in &self.allowed {
            text += &format!("{} {} {number}\n", subject.kind.name(), subject.name);
        }
        text
    }
}

fn parse_line(line: &str) -> Option<(Subject, usize)> {
    let mut words = line.split_whitespace();
    let (kind, name, number) = (words.next()?, words.next()?, words.next()?);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    let number = number.parse().ok().filter(|number| *number > kind.limit())?;
    words.next().is_none().then(|| (Subject { kind, name: name.to_owned() }, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excesses(found: &[(&str, usize)]) -> BTreeMap<Subject, Excess> {
        let excess = |(name, number): &(&str, usize)| {
            let subject = Subject { kind: Kind::FileLines, name: (*name).to_owned() };
            (subject, Excess { number: *number, line: 0 })
        };
        found.iter().map(excess).collect()
    }

    #[test]
    fn an_update_lowers_and_removes_but_never_raises_or_adds() {
        let text = "file-lines a.rs 700\nfile-lines b.rs 700\nfile-lines c.rs 700\n";
        let ratchet = Ratchet::parse("ratchet.txt", text);
        let updated = ratchet.lowered_to(&excesses(&[("a.rs", 650), ("b.rs", 800), ("d.rs", 900)]));
        assert_eq!(updated.to_text(), format!("{HEADER}file-lines a.rs 650\nfile-lines b.rs 700\n"));
        assert!(Ratchet::parse("ratchet.txt", &updated.to_text()).unreadable().is_empty());
    }

    #[test]
    fn bad_lines_are_found() {
        for bad in ["file-lines a.rs", "lines a.rs 700", "file-lines a.rs many", "file-lines a.rs 700 x"] {
            let ratchet = Ratchet::parse("ratchet.txt", &format!("# comment\n\n{bad}\n"));
            assert_eq!(ratchet.unreadable().len(), 1, "{bad}");
            assert!(ratchet.unreadable()[0].to_string().starts_with("ratchet.txt:3: "));
        }
        let below_the_limit = Ratchet::parse("ratchet.txt", "file-lines a.rs 600\n");
        assert_eq!(below_the_limit.unreadable().len(), 1);
        let twice = Ratchet::parse("ratchet.txt", "file-lines a.rs 700\nfile-lines a.rs 800\n");
        assert_eq!(twice.unreadable().len(), 1);
    }
}
