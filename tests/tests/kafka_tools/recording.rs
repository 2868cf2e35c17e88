//! What the tools printed, step by step, as a file.

use std::fmt;

/// The recording's file name.
pub(crate) const NAME: &str = "kafka-4.3.1.txt";

const TEXT: &str = include_str!("kafka-4.3.1.txt");
const HEAD: &str = "== ";

/// The lines that each step came to, in the order of the steps.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Recording(Vec<(String, Vec<String>)>);

impl Recording {
    pub(crate) fn read() -> Self {
        let mut recording = Self::default();
        for line in TEXT.lines() {
            match (line.strip_prefix(HEAD), recording.0.last_mut()) {
                (Some(name), _) => recording.add(name, Vec::new()),
                (None, Some((_, lines))) => lines.push(line.to_owned()),
                (None, None) => panic!("{NAME} does not begin with a step"),
            }
        }
        recording
    }

    pub(crate) fn add(&mut self, name: &str, lines: Vec<String>) {
        self.0.push((name.to_owned(), lines));
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// What a step came to; nothing for a step that was not recorded.
    pub(crate) fn printed(&self, name: &str) -> &[String] {
        self.0.iter().find(|(step, _)| step == name).map_or(&[], |(_, lines)| lines)
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in &self.0 {
            writeln!(f, "{HEAD}{name}")?;
            for line in lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}
