//! The known name that a misspelt one was meant to be.

/// No setting has a longer name; the time is that of a product of lengths.
const NAME_LEN_MAX: usize = 96;

/// The name with the least edits to `name`, if they are at most a third of its length, and how many they are.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<(usize, &'a str)> {
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let (edits, nearest) = known.map(|known| (edits(name.as_bytes(), known.as_bytes()), known)).min()?;
    (3 * edits <= name.len()).then_some((edits, nearest))
}

/// Insertions, deletions and replacements that turn one text into the other.
fn edits(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (deleted, a) in one.iter().enumerate() {
        let mut diagonal = deleted;
        let mut left = deleted + 1;
        for (cell, b) in row.iter_mut().zip(std::iter::once(None).chain(other.iter().map(Some))) {
            let Some(b) = b else {
                *cell = left;
                continue;
            };
            let best = (diagonal + usize::from(a != b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (one, other, count) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edits(one.as_bytes(), other.as_bytes()), count, "{one} {other}");
            assert_eq!(edits(other.as_bytes(), one.as_bytes()), count, "{other} {one}");
        }
    }

    #[test]
    fn only_what_looks_alike_is_offered() {
        let known = ["num.partitions", "node.id"];
        assert_eq!(nearest("num.partition", known.into_iter()), Some((1, "num.partitions")));
        assert_eq!(nearest("something.else", known.into_iter()), None);
        assert_eq!(nearest(&"n".repeat(1000), known.into_iter()), None);
    }
}
