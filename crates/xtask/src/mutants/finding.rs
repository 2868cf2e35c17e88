//! What a failing run says about why it failed.

/// The panics of a run, each as the first line of what it says.
pub(super) fn panics(output: &str) -> Vec<String> {
    let mut panics = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.contains("' panicked at ") && !line.contains(") panicked at ") {
            continue;
        }
        let said: Vec<_> = std::iter::from_fn(|| lines.next_if(|line| !is_end(line))).collect();
        let told = said.iter().map(|line| line.trim()).find(|line| !line.is_empty());
        // What a comparison says of itself is nothing without its sides.
        let sides = said
            .iter()
            .map(|line| line.trim())
            .filter(|line| line.starts_with("left:") || line.starts_with("right:"));
        let told = told.map(|told| {
            let bare = told.ends_with("failed") && told.starts_with("assertion `");
            if bare {
                [told].into_iter().chain(sides).collect::<Vec<_>>().join("; ")
            } else {
                told.to_owned()
            }
        });
        panics.extend(told);
    }
    panics
}

fn is_end(line: &str) -> bool {
    line.contains(" panicked at ")
        || line.starts_with("note: ")
        || line.starts_with("---- ")
        || line == "failures:"
}

/// The panic to tell of: the first that names an invariant, or else the first.
pub(super) fn telling(panics: &[String]) -> Option<&str> {
    let named = panics.iter().find(|panic| invariant(panic).is_some());
    named.or(panics.first()).map(String::as_str)
}

/// The id of the first invariant that a text names, as `docs/invariants.md` has it: `R-4`, `INV10`, `RAFT-1`.
pub(super) fn invariant(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.into_iter().find(|word| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        letters.len() < word.len()
            && matches!(letters, "R-" | "INV" | "LOG-" | "RAFT-" | "PART-" | "STANDING-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\n\
        test a ... FAILED\n\nfailures:\n\n---- a stdout ----\n\n\
        thread 'a' (17) panicked at crates/replica/tests/x.rs:9:5:\n\
        assertion `left == right` failed\n  left: 1\n right: 2\n\
        note: run with `RUST_BACKTRACE=1`\n\n---- b stdout ----\n\
        thread 'b' panicked at crates/replica/src/y.rs:1:1:\n\
        assertion `left == right` failed: R-1: leads unelected\n  left: 1\n right: 2\n\n\n\
        failures:\n    a\n    b\n";

    #[test]
    fn panics_are_told_by_their_first_line_or_by_their_sides() {
        let found = panics(OUTPUT);
        let expected = [
            "assertion `left == right` failed; left: 1; right: 2",
            "assertion `left == right` failed: R-1: leads unelected",
        ];
        assert_eq!(found, expected);
        assert_eq!(telling(&found), Some(expected[1]));
        assert_eq!(telling(&found[..1]), Some(expected[0]));
        assert_eq!(telling(&[]), None);
    }

    #[test]
    fn invariants_are_found_by_their_ids() {
        for (text, id) in [
            ("INV11: the high watermark fell", Some("INV11")),
            ("at 3: R-10 is broken", Some("R-10")),
            ("RAFT-2", Some("RAFT-2")),
            ("R- and INV and R-1x and XR-1", None),
        ] {
            assert_eq!(invariant(text), id, "{text}");
        }
    }
}
