//! Columns of text, as wide as they must be.

use std::io::{self, Write};

/// A table; the last column is not padded.
#[derive(Debug)]
pub(crate) struct Columns<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    pub(crate) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Ids separated by commas; a hyphen for none.
pub(crate) fn ids<T: ToString>(ids: &[T]) -> String {
    if ids.is_empty() {
        return "-".to_owned();
    }
    ids.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// The value's text; a hyphen for none.
pub(crate) fn or_hyphen<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut columns = Columns::new(["NAME", "N", "LAST"]);
        columns.row(["a".to_owned(), "100".to_owned(), String::new()]);
        columns.row(["abcdef".to_owned(), ids(&[1, 2]), or_hyphen(None::<i32>)]);
        let mut out = Vec::new();
        columns.print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    N    LAST\na       100\nabcdef  1,2  -\n");
    }
}
