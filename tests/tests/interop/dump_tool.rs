//! `DumpLogSegments` of Apache Kafka: what it prints, taken apart.

use std::collections::BTreeMap;

/// What the tool said of several files.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    /// By the path given to the tool; a file without entries has no lines.
    pub(crate) files: BTreeMap<String, Vec<Line>>,
    /// Files whose index passed the tool's sanity check.
    pub(crate) sane: Vec<String>,
    /// Offset indexes without an entry; the tool checks no more of those.
    pub(crate) empty: Vec<String>,
    /// Offsets missing between the batches of a log: its path, the last offset before the gap, the first after.
    pub(crate) gaps: Vec<(String, i64, i64)>,
    /// Everything else that it printed: mismatches, timestamps out of order, stack traces.
    pub(crate) complaints: Vec<String>,
}

/// One line of `name: value` pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether it is about a record of the batch above it.
    pub(crate) is_record: bool,
    fields: BTreeMap<String, String>,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let (is_record, text) = match text.strip_prefix("| ") {
            Some(record) => (true, record),
            None => (false, text),
        };
        let mut fields = BTreeMap::new();
        let mut name = None;
        for word in text.split_whitespace() {
            match (word.strip_suffix(':'), &name) {
                (Some(next), _) => {
                    name = Some(next.to_owned());
                    fields.insert(next.to_owned(), String::new());
                }
                (None, Some(name)) => {
                    let value: &mut String = fields.get_mut(name)?;
                    if !value.is_empty() {
                        value.push(' ');
                    }
                    value.push_str(word);
                }
                (None, None) => return None,
            }
        }
        (!fields.is_empty()).then_some(Self { is_record, fields })
    }

    /// A field's text, if the line has it.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A field that is a number.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let text = self.text(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        text.parse().unwrap_or_else(|_| panic!("{name} is no number in {self:?}"))
    }

    /// A field that is true or false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let text = self.text(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        text.parse().unwrap_or_else(|_| panic!("{name} is no truth value in {self:?}"))
    }

    /// A field that Java prints as an optional number.
    pub(crate) fn optional(&self, name: &str) -> Option<i64> {
        let text = self.text(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        let number = text.strip_prefix("OptionalLong[")?.strip_suffix(']')?;
        Some(number.parse().unwrap_or_else(|_| panic!("{name} is no number in {self:?}")))
    }
}

impl Dump {
    /// Takes the tool's output apart. Nothing is dropped: what is not understood is a complaint.
    pub(crate) fn parse(text: &str) -> Self {
        let mut dump = Self::default();
        let (mut file, mut with_gaps) = (None, None);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if let Some(path) = line.strip_prefix("Dumping ") {
                dump.files.entry(path.to_owned()).or_default();
                file = Some(path.to_owned());
            } else if let Some(path) = line.strip_prefix("Non-consecutive offsets in ") {
                with_gaps = Some(path.to_owned());
            } else if let Some(((from, to), path)) = parse_gap(line).zip(with_gaps.clone()) {
                // The tool starts to count at -1 in every segment, wherever that starts.
                if from >= 0 {
                    dump.gaps.push((path, from, to));
                }
            } else if let Some(path) = line.strip_suffix(" passed sanity check.") {
                dump.sane.push(path.to_owned());
            } else if let Some(path) = line.strip_suffix(" is empty.") {
                dump.empty.push(path.to_owned());
            } else if !line.starts_with("Log starting offset: ") {
                let entry = file.as_ref().and_then(|file| dump.files.get_mut(file)).zip(Line::parse(line));
                match entry {
                    Some((lines, line)) if is_entry(&line) => lines.push(line),
                    _ => dump.complaints.push(line.to_owned()),
                }
            }
        }
        dump
    }

    /// The lines of the one file whose path ends with `name`.
    pub(crate) fn file(&self, name: &str) -> &[Line] {
        let mut found = self.files.iter().filter(|(path, _)| path.ends_with(name));
        match (found.next(), found.next()) {
            (Some((_, lines)), None) => lines,
            _ => panic!("not exactly one file of the dump ends with {name}"),
        }
    }
}

/// The two offsets of a line like `  61 is followed by 63`.
fn parse_gap(line: &str) -> Option<(i64, i64)> {
    let (from, to) = line.trim_start().split_once(" is followed by ")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Whether a line is an entry of one of the five kinds of file, and not a finding about it.
fn is_entry(line: &Line) -> bool {
    let has = |name| line.text(name).is_some();
    let batch = has("baseOffset") && line.text("isvalid") == Some("true");
    let record = line.is_record && has("offset");
    let offset_index = has("offset") && has("position") && line.fields.len() == 2;
    let time_index = has("timestamp") && has("offset") && line.fields.len() == 2;
    let transaction = has("producerId") && has("lastStableOffset");
    let producer = has("producerId") && has("coordinatorEpoch");
    batch || record || offset_index || time_index || transaction || producer
}

#[test]
fn entries_and_complaints_are_told_apart() {
    let dump = Dump::parse(
        "Dumping a/00.index\noffset: 5 position: 80\n\
         Dumping a/00.log\nLog starting offset: 0\nbaseOffset: 0 count: 1 isvalid: true\n| offset: 0 endTxnMarker: COMMIT coordinatorEpoch: 3\n\
         baseOffset: 1 count: 1 isvalid: false\nFound timestamp mismatch in :a/00.timeindex\n  Index timestamp: 5, log timestamp: 6\n\
         Non-consecutive offsets in a/52.log\n  -1 is followed by 52\n  52 is followed by 56\n",
    );
    assert_eq!(dump.file("00.index").len(), 1);
    assert_eq!(dump.file("00.index")[0].number("position"), 80);
    assert_eq!(dump.file("00.log")[1].text("endTxnMarker"), Some("COMMIT"));
    assert_eq!(dump.gaps, [("a/52.log".to_owned(), 52, 56)]);
    assert_eq!(dump.complaints.len(), 3, "{:?}", dump.complaints);
}
