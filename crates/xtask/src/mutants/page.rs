//! `docs/mutants.md`: by what each mutant is caught, and how soon.

use std::fs;

use anyhow::Context;

use super::finding::{invariant, telling};
use super::simulated::{SEEDS_MAX, Simulated};
use super::table::{MUTANTS, Mutant};
use crate::workspace::Workspace;

const PATH: &str = "docs/mutants.md";

const HEAD: &str = "\
# Mutants, and by what they are caught

Each is a bug that a real system had, built back in ([development](development.md#mutants)). `cargo xtask ci` builds each of them
and demands that the tests fail. This page is written by

```sh
cargo xtask mutants --table
```

which besides runs the [simulation](simulation.md) with each mutant of what it simulates, from seed 0 on, until a promise
is broken. `--only ID,ID` writes the rows of these alone.

- *caught by*: the first test that fails, of those that have to see it.
- *seeds*: how many simulated clusters it took; the budget is SEEDS, as many as `cargo xtask ci` runs without a mutant. `-`: none of them saw
  it. Empty: the simulation has no such part.
- *invariant*: the first that the failing tests or the simulation name, by its id in [invariants](invariants.md).
- *what is seen*: what the failing test says, and the simulation after it.

| mutant | package | bug | caught by | seeds | invariant | what is seen |
|---|---|---|---|---|---|---|
";

/// How long a text in a cell may be, in characters.
const CELL_MAX: usize = 160;

/// What became of one mutant.
pub(super) struct Finding<'a> {
    pub(super) mutant: &'a Mutant,
    /// The first test that failed.
    pub(super) test: String,
    /// What the failing tests said.
    pub(super) panics: Vec<String>,
    pub(super) simulated: Simulated,
}

impl Finding<'_> {
    fn row(&self) -> String {
        let Mutant { id, package, bug, .. } = self.mutant;
        let told = telling(&self.panics).unwrap_or_default();
        let (seeds, broken) = match &self.simulated {
            Simulated::NotPart => (String::new(), ""),
            Simulated::Held => ("-".to_owned(), ""),
            Simulated::Endless => ("no end".to_owned(), ""),
            Simulated::Broken { seeds, what } => (seeds.to_string(), what.as_str()),
        };
        let named = invariant(told).or_else(|| invariant(broken)).unwrap_or_default();
        let seen = [told, broken].map(cell);
        let seen = seen.iter().filter(|seen| !seen.is_empty()).cloned().collect::<Vec<_>>().join("<br>");
        format!("| {id} | {package} | {} | `{}` | {seeds} | {named} | {seen} |\n", cell(bug), self.test)
    }
}

/// One line of a table's cell, as code.
fn cell(text: &str) -> String {
    let short: String = text.chars().take(CELL_MAX).collect();
    let dots = if short.len() < text.len() { " ..." } else { "" };
    short.replace('|', "\\|").replace('<', "&lt;") + dots
}

/// The beginning of a mutant's row.
fn key(mutant: &Mutant) -> String {
    format!("| {} | {} | ", mutant.id, mutant.package)
}

/// Writes the row of this finding anew, and leaves those of other mutants as they are.
pub(super) fn write(workspace: &Workspace, finding: &Finding<'_>) -> anyhow::Result<()> {
    let path = workspace.root.join(PATH);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, page(&before, finding)).with_context(|| PATH.to_owned())
}

fn page(before: &str, finding: &Finding<'_>) -> String {
    let mut page = HEAD.replace("SEEDS", &SEEDS_MAX.to_string());
    for mutant in &MUTANTS {
        let row_key = key(mutant);
        let new = (key(finding.mutant) == row_key).then(|| finding.row());
        let old = || before.lines().find(|line| line.starts_with(&row_key)).map(|line| format!("{line}\n"));
        let row = new.or_else(old);
        page += &row.unwrap_or_else(|| format!("{row_key}{} | not run | | | |\n", cell(mutant.bug)));
    }
    page
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    /// Fails unless the page has a row for each mutant, with what the table says of it, and no other.
    fn check(text: &str) -> anyhow::Result<()> {
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| B")).collect();
        for mutant in &MUTANTS {
            let key = key(mutant);
            let row = rows.iter().find(|row| row.starts_with(&key));
            let row = row.with_context(|| format!("{PATH} lacks {} of {}", mutant.id, mutant.package))?;
            ensure!(row.contains(&cell(mutant.bug)), "{PATH} tells something else of {}", mutant.id);
        }
        ensure!(rows.len() == MUTANTS.len(), "{PATH} has {} rows, not {}", rows.len(), MUTANTS.len());
        Ok(())
    }

    fn finding(mutant: &Mutant) -> Finding<'_> {
        let what = "R-4: lost".to_owned();
        Finding {
            mutant,
            test: "sees_it".to_owned(),
            panics: vec!["assertion failed: a | b".to_owned()],
            simulated: Simulated::Broken { seeds: 17, what },
        }
    }

    #[test]
    fn a_row_is_written_anew_and_the_others_stay_as_they_are() {
        let first = page("", &finding(&MUTANTS[0]));
        check(&first).unwrap();
        assert_eq!(first.matches("| not run |").count(), MUTANTS.len() - 1);
        let row = "`sees_it` | 17 | R-4 | assertion failed: a \\| b<br>R-4: lost |\n";
        assert!(first.contains(row), "{first}");
        let held = Finding { simulated: Simulated::Held, ..finding(&MUTANTS[1]) };
        let second = page(&first, &held);
        check(&second).unwrap();
        assert!(second.contains(row) && second.contains("`sees_it` | - |  | assertion"), "{second}");
        assert_eq!(second.matches("| not run |").count(), MUTANTS.len() - 2);
        assert_eq!(page(&second, &held), second);
    }

    #[test]
    fn a_page_that_tells_of_other_mutants_is_found_out() {
        let complete = page("", &finding(&MUTANTS[0]));
        let key = key(&MUTANTS[3]);
        let lines = complete.lines().filter(|line| !line.starts_with(&key));
        let lacking: String = lines.map(|line| format!("{line}\n")).collect();
        assert!(check(&lacking).is_err());
        assert!(check(&complete.replace(MUTANTS[3].bug, "another")).is_err());
        assert!(check(&format!("{complete}| B99 | klamm-log | another | | | | |\n")).is_err());
    }

    #[test]
    fn the_page_tells_of_all_mutants() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mutants.md");
        check(&fs::read_to_string(page).unwrap()).unwrap();
    }
}
