//! The format of `.properties` files, as Java reads it.

/// One property and the line that it starts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    /// The name, unescaped.
    pub name: String,
    /// The value, unescaped; may be empty.
    pub value: String,
    /// The line, from 1.
    pub line: usize,
}

/// A text that is not in the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PropertiesError {
    /// `\u` without four hexadecimal digits, or digits that are no character.
    #[error("line {line}: \\u must be followed by four hexadecimal digits that name a character")]
    BadEscape {
        /// The line, from 1.
        line: usize,
    },
    /// A line with a value and no name.
    #[error("line {line}: there is no name before the value")]
    NoName {
        /// The line, from 1.
        line: usize,
    },
}

impl PropertiesError {
    /// Never: the file must change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Reads all properties, in the order of the text; a name may come twice, and the last one holds.
///
/// Lines that start with `#` or `!` are comments, a backslash at the end of a line continues it, `=`, `:` or blanks
/// end the name.
///
/// # Errors
/// The first line that is not in the format.
pub fn read_properties(text: &str) -> Result<Vec<Property>, PropertiesError> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_start()));
    while let Some((line, start)) = lines.next() {
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next);
        }
        properties.push(read_line(&logical, line)?);
    }
    Ok(properties)
}

fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn read_line(text: &str, line: usize) -> Result<Property, PropertiesError> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\u{c}');
    let mut escaped = false;
    let end = text.find(|c: char| {
        let ends = !escaped && (is_blank(c) || matches!(c, '=' | ':'));
        escaped = c == '\\' && !escaped;
        ends
    });
    let (name, rest) = text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, ""));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    if name.is_empty() {
        return Err(PropertiesError::NoName { line });
    }
    Ok(Property { name: unescape(name, line)?, value: unescape(value, line)?, line })
}

fn unescape(text: &str, line: usize) -> Result<String, PropertiesError> {
    let mut unescaped = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            unescaped.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => unescaped.push('\t'),
            Some('n') => unescaped.push('\n'),
            Some('r') => unescaped.push('\r'),
            Some('f') => unescaped.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let is_hex = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                let character = code.and_then(char::from_u32);
                unescaped.push(character.ok_or(PropertiesError::BadEscape { line })?);
            }
            Some(other) => unescaped.push(other),
            None => {}
        }
    }
    Ok(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, usize)> {
        let properties = read_properties(text).unwrap();
        properties.into_iter().map(|p| (p.name, p.value, p.line)).collect()
    }

    fn one(name: &str, value: &str, line: usize) -> (String, String, usize) {
        (name.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn names_end_at_the_first_separator() {
        assert_eq!(read("a=b"), [one("a", "b", 1)]);
        assert_eq!(read("a = b=c"), [one("a", "b=c", 1)]);
        assert_eq!(read("a: b"), [one("a", "b", 1)]);
        assert_eq!(read("a b c"), [one("a", "b c", 1)]);
        assert_eq!(read("a"), [one("a", "", 1)]);
        assert_eq!(read("a\\=b=c"), [one("a=b", "c", 1)]);
        assert_eq!(read("  a=b  "), [one("a", "b  ", 1)]);
    }

    #[test]
    fn comments_and_continuations() {
        let text = "# one\n! two\n\nlisteners=A://:1,\\\n    B://:2\r\nlast=1\\\\\nnext=2\nend=x\\";
        let expected = [
            one("listeners", "A://:1,B://:2", 4),
            one("last", "1\\", 6),
            one("next", "2", 7),
            one("end", "x", 8),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn escapes_are_undone_or_refused() {
        assert_eq!(read("a=\\u0041\\t\\n\\q"), [one("a", "A\t\nq", 1)]);
        for bad in ["a=\\u12", "a=\\uzzzz", "x=1\na=\\ud800", "a=\\u+041"] {
            assert!(matches!(read_properties(bad), Err(PropertiesError::BadEscape { .. })), "{bad}");
        }
        assert_eq!(read_properties("b=1\n=a"), Err(PropertiesError::NoName { line: 2 }));
    }
}
