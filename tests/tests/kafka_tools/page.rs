//! The part of `docs/compatibility.md` that tells the differences.

use std::fmt::Write as _;

use crate::differences::DIFFERENCES;

/// The part's heading, and what follows it.
const HEADING: &str = "## What the tools print otherwise\n";
const NEXT_HEADING: &str = "\n## ";

/// The page with that part as the table of differences makes it.
pub(crate) fn with_differences(page: &str) -> String {
    let (before, after) = page.split_once(HEADING).expect("the page has a part for the tools");
    let after = after.find(NEXT_HEADING).map_or("", |at| after.get(at..).unwrap_or_default());
    let mut part = String::new();
    for difference in DIFFERENCES {
        // Writing to a string does not fail.
        let _ = writeln!(
            part,
            "| {} | {} | {} | {} |",
            cell(&difference.steps.split(' ').collect::<Vec<_>>()),
            cell(difference.kafka),
            cell(difference.klamm),
            difference.why
        );
    }
    format!("{before}{HEADING}{INTRODUCTION}{part}{after}")
}

const INTRODUCTION: &str = "
Made from `tests/tests/kafka_tools/differences.rs` by a test that has Kafka's tools (4.3.1) do the steps of `steps.txt`
beside it, and fails if what they print or the code that they end with differs from the recording of the same steps
against Apache Kafka 4.3.1 (`kafka-4.3.1.txt`) in anything else than the following, or no longer differs in that. Ports, ids,
times, sizes and speeds are not compared. `*` stands for anything; `! ` begins what goes to the error output.

| step | only against Kafka | only here | why |
|---|---|---|---|
";

/// Lines as code, one below the other.
fn cell(lines: &[&str]) -> String {
    let shown = lines.iter().map(|line| {
        let line = line.trim().replace('\t', " ").replace('|', "\\|");
        format!("`{line}`")
    });
    shown.collect::<Vec<_>>().join("<br>")
}
