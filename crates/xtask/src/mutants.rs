//! `cargo xtask mutants`: the proof that the tests see what they are for.
//!
//! Each mutant is a bug that a real system had, kept in the sources behind `--cfg mutant="ID"` (a build script
//! sets it from `KLAMM_MUTANT`). For each, the crate is built with the bug, in a target directory of its own, and
//! the tests named in the table must fail; built without any, the same tests must pass. A mutant that does not
//! compile, that hangs the tests, or that kills the test process is an error, because it proves nothing.

mod finding;
mod page;
mod simulated;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

use self::page::Finding;
pub(crate) use self::table::MUTANTS;
use self::table::Mutant;
use crate::test_programs::TestBuild;
use crate::verdict::{Verdict, judge};
use crate::workspace::Workspace;

/// The command line of `mutants`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these mutants
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Prints the table and runs nothing
    #[arg(long)]
    list: bool,
    /// Simulates clusters with each mutant, too, and writes docs/mutants.md
    #[arg(long, conflicts_with = "list")]
    table: bool,
}

/// The verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    for id in &options.only {
        ensure!(
            MUTANTS.iter().any(|mutant| mutant.id == id),
            "no mutant {id}; see `cargo xtask mutants --list`"
        );
    }
    let is_chosen =
        |mutant: &&Mutant| options.only.is_empty() || options.only.iter().any(|id| id == mutant.id);
    let chosen: Vec<_> = MUTANTS.iter().filter(is_chosen).collect();
    if options.list {
        for mutant in chosen {
            println!(
                "{:<5} {:<12} {}\n{:18} tests: {}",
                mutant.id, mutant.package, mutant.bug, "", mutant.tests
            );
        }
        return Ok(());
    }
    run_chosen(workspace, &chosen, options.table)
}

/// All mutants, as a step of `ci`.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    run_chosen(workspace, &MUTANTS.iter().collect::<Vec<_>>(), false)
}

fn run_chosen(workspace: &Workspace, mutants: &[&Mutant], writes_table: bool) -> anyhow::Result<()> {
    for mutant in mutants {
        ensure_in_sources(workspace, mutant)?;
    }
    check_without_mutant(workspace, mutants)?;
    let mut rows = Vec::new();
    let mut missed = 0;
    for mutant in mutants {
        let (verdict, time) = try_mutant(workspace, mutant);
        if let Verdict::Caught { by, output } = &verdict
            && writes_table
        {
            let (test, panics) = (by.clone(), finding::panics(output));
            let simulated = simulated::simulate(workspace, mutant)?;
            println!("{} {simulated:?}", mutant.id);
            page::write(workspace, &Finding { mutant, test, panics, simulated })?;
        }
        missed += usize::from(!verdict.is_caught());
        let caught = if verdict.is_caught() { "caught" } else { "MISSED" };
        let row = format!("{:<5} {caught} {:>6.1} s  {verdict}", mutant.id, time.as_secs_f64());
        println!("{row}");
        rows.push(row);
    }
    println!("\nmutant, seconds, first test that fails\n{}", rows.join("\n"));
    ensure!(missed == 0, "{missed} of {} mutants not caught", mutants.len());
    Ok(())
}

/// The tests of the chosen mutants must pass on the code as it is, or their failing would mean nothing.
fn check_without_mutant(workspace: &Workspace, mutants: &[&Mutant]) -> anyhow::Result<()> {
    let runs: BTreeSet<_> = mutants.iter().map(|mutant| (mutant.package, mutant.tests)).collect();
    for (package, tests) in runs {
        let build = TestBuild::new(workspace, package, &tests, None)?;
        match judge(&build.run(&tests)?) {
            Verdict::Survived { tests: count } => {
                println!("without a mutant: {package}: {count} tests pass ({tests})");
            }
            verdict => bail!("without a mutant, {package} ({tests}): {verdict}"),
        }
    }
    Ok(())
}

fn try_mutant(workspace: &Workspace, mutant: &Mutant) -> (Verdict, Duration) {
    #[expect(clippy::disallowed_methods, reason = "the table tells how long a mutant took")]
    let start = Instant::now();
    let build =
        TestBuild::new(workspace, mutant.package, &mutant.tests, Some(mutant.id)).context("does not build");
    let runs = build.and_then(|build| build.run(&mutant.tests));
    let verdict = match runs {
        Ok(runs) => judge(&runs),
        Err(error) => Verdict::Broken { reason: error.to_string() },
    };
    (verdict, start.elapsed())
}

/// A mutant that no source mentions would be built as no mutant at all.
fn ensure_in_sources(workspace: &Workspace, mutant: &Mutant) -> anyhow::Result<()> {
    let package =
        workspace.package(mutant.package).with_context(|| format!("no package {}", mutant.package))?;
    let sources = package.directory().join("src");
    let found = mentions(&sources, mutant.id).with_context(|| sources.display().to_string())?;
    ensure!(
        found,
        "mutant {} of {} has no `cfg(mutant = \"{0}\")` in its sources",
        mutant.id,
        mutant.package
    );
    Ok(())
}

fn mentions(directory: &Path, id: &str) -> anyhow::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            mentions(&path, id)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && ids_in(&fs::read_to_string(&path)?).iter().any(|(found, _)| *found == id)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The ids in `mutant = "ID"` of a source text, each with its line (from 1). Comments do not count.
pub(crate) fn ids_in(text: &str) -> Vec<(&str, usize)> {
    let mut ids = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let tails = code.split("mutant = \"").skip(1);
        ids.extend(tails.filter_map(|tail| Some((tail.split_once('"')?.0, index + 1))));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_code_only() {
        let text = "// cfg(mutant = \"B1\")\n#[cfg(not(mutant = \"B2\"))]\nif cfg!(mutant = \"B3\") {}\n";
        assert_eq!(ids_in(text), [("B2", 2), ("B3", 3)]);
    }

    #[test]
    fn a_package_has_each_mutant_once() {
        let ids: BTreeSet<_> = MUTANTS.iter().map(|mutant| (mutant.id, mutant.package)).collect();
        assert_eq!(ids.len(), MUTANTS.len());
    }

    #[test]
    fn a_mention_is_found_in_a_sub_directory() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("inner")).unwrap();
        fs::write(root.path().join("inner/a.rs"), "#[cfg(mutant = \"B7\")]\n").unwrap();
        assert!(mentions(root.path(), "B7").unwrap());
        assert!(!mentions(root.path(), "B8").unwrap());
    }
}
