//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! Each rule is a pure function from texts to [`Finding`]s, in a file of its own. This module gathers the texts
//! (all files that git tracks), runs the rules and prints what they found, one line each.

mod layers;
mod manifests;
mod mutant_ids;
mod names;
mod purity;
mod ratchet;
mod sizes;
mod source;
mod text;
mod top_level;
mod tracked;

use std::fmt;
use std::fs;

use anyhow::{Context, bail};
use clap::Args;

use self::ratchet::Ratchet;
use self::source::Sources;
use crate::workspace::Workspace;

/// The exceptions from the size limits, relative to the root.
const RATCHET: &str = "crates/xtask/ratchet.txt";

/// The command line of `tidy`.
#[derive(Args)]
pub(crate) struct Options {
    /// Lowers or removes exceptions in the ratchet file that are no longer needed; never raises one
    #[arg(long)]
    update: bool,
}

/// A breach of a rule: where, what, and how to mend it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Finding {
    path: String,
    /// From 1; 0 if the whole file is meant.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// The verb: updates the ratchet if asked to, then checks.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    if options.update {
        update_ratchet(workspace)?;
    }
    check(workspace)
}

/// Checks every rule. Prints each finding; an error if there is any.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let files = tracked::files(&workspace.root)?;
    let (sources, mut findings) = Sources::parse(&files);
    findings.extend(layers::check(workspace));
    findings.extend(purity::check(workspace, &sources));
    findings.extend(sizes::check(&sources, &Ratchet::parse(RATCHET, &read_ratchet(workspace)?)));
    findings.extend(names::check(&files, &sources));
    findings.extend(text::check(&files));
    findings.extend(top_level::check(&files));
    findings.extend(manifests::check(workspace, &files));
    findings.extend(mutant_ids::check(&files));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to mend", files.len());
        return Ok(());
    }
    bail!("{} to mend", findings.len())
}

fn update_ratchet(workspace: &Workspace) -> anyhow::Result<()> {
    let files = tracked::files(&workspace.root)?;
    let (sources, unreadable) = Sources::parse(&files);
    if let Some(finding) = unreadable.first() {
        bail!("{finding}");
    }
    let old = Ratchet::parse(RATCHET, &read_ratchet(workspace)?);
    let new = old.lowered_to(&sizes::excesses(&sources));
    let path = workspace.root.join(RATCHET);
    fs::write(&path, new.to_text()).with_context(|| path.display().to_string())
}

fn read_ratchet(workspace: &Workspace) -> anyhow::Result<String> {
    let path = workspace.root.join(RATCHET);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
fn file(path: &str, text: &str) -> tracked::TrackedFile {
    tracked::TrackedFile { path: path.to_owned(), text: Some(text.to_owned()) }
}
