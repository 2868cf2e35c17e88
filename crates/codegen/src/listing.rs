//! The compact schema listing: one message per block, one field per line, nesting by two spaces.
//!
//! ```text
//! request 3 MetadataRequest 0-13 flexible=9+ listeners=broker
//!   Topics []MetadataRequestTopic 0+ null=1+
//!     TopicId uuid 10+ ignorable
//!     Name string 0+ null=10+ entity=topicName
//!   AllowAutoTopicCreation bool 4+ default=true
//! ```
//!
//! The first word of a block is `request`, `response` (both followed by the API key), `header` or `data`; then
//! the name and the served versions. `unstable` marks a newest version that is not shown by default.
//! A field line is name, type, versions, then attributes: `null=V` (may be null in V), `tag=N@V` (tagged with
//! number N in V), `default=X` (text in quotes), `ignorable`, `key`, `shared` (bytes stay in the frame),
//! `flexible=V`, `entity=E`. `struct NAME V` opens a structure that several fields use. `#` starts a comment line.

use std::fmt::Write as _;

use crate::error::SchemaError;
use crate::schema::{Field, FieldType, Message, MessageKind, Struct, Tag, Versions};

/// Writes messages as a listing.
pub fn print(messages: &[&Message]) -> String {
    let mut out = String::new();
    for message in messages {
        if !out.is_empty() {
            out.push('\n');
        }
        print_head(message, &mut out);
        print_fields(&message.fields, 1, &mut out);
        for shared in &message.structs {
            let _ = writeln!(out, "  struct {} {}", shared.name, shared.versions);
            print_fields(&shared.fields, 2, &mut out);
        }
    }
    out
}

fn print_head(message: &Message, out: &mut String) {
    let word = match &message.kind {
        MessageKind::Request { key, .. } => format!("request {key}"),
        MessageKind::Response { key } => format!("response {key}"),
        MessageKind::Header => "header".to_owned(),
        MessageKind::Data => "data".to_owned(),
    };
    let _ = write!(out, "{word} {} {} flexible={}", message.name, message.versions, message.flexible);
    if let MessageKind::Request { listeners, latest_unstable, .. } = &message.kind {
        let _ = write!(out, " listeners={}", listeners.join(","));
        if *latest_unstable {
            out.push_str(" unstable");
        }
    }
    out.push('\n');
}

fn print_fields(fields: &[Field], depth: usize, out: &mut String) {
    for field in fields {
        let _ = write!(out, "{:1$}", "", depth * 2);
        let _ = write!(out, "{} {} {}", field.name, field.kind, field.versions);
        if !field.nullable.is_empty() {
            let _ = write!(out, " null={}", field.nullable);
        }
        if let Some(tag) = field.tag {
            let _ = write!(out, " tag={}@{}", tag.number, tag.versions);
        }
        if let Some(default) = &field.default {
            let _ = write!(out, " default={default}");
        }
        for (set, word) in [(field.ignorable, "ignorable"), (field.key, "key"), (field.shared, "shared")] {
            if set {
                let _ = write!(out, " {word}");
            }
        }
        if let Some(flexible) = field.flexible {
            let _ = write!(out, " flexible={flexible}");
        }
        if let Some(entity) = &field.entity {
            let _ = write!(out, " entity={entity}");
        }
        out.push('\n');
        print_fields(&field.fields, depth + 1, out);
    }
}

/// One line of a listing with its place, for errors.
#[derive(Clone, Copy)]
struct Line<'a> {
    file: &'a str,
    number: usize,
    depth: usize,
    text: &'a str,
}

impl Line<'_> {
    fn error(&self, problem: &'static str) -> SchemaError {
        SchemaError::BadLine {
            file: self.file.to_owned(),
            line: self.number,
            problem,
            text: self.text.to_owned(),
        }
    }

    fn versions(&self, text: &str) -> Result<Versions, SchemaError> {
        text.parse().map_err(|_| self.error("bad version range"))
    }
}

/// Reads a listing; `file` names it in errors.
///
/// # Errors
/// [`SchemaError::BadLine`] with the place of the first line that is not understood.
pub fn parse(file: &str, text: &str) -> Result<Vec<Message>, SchemaError> {
    let mut lines = Vec::new();
    for (i, raw) in text.lines().enumerate() {
        let trimmed = raw.trim_start_matches(' ');
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let indent = raw.len() - trimmed.len();
        let line = Line { file, number: i + 1, depth: indent / 2, text: trimmed };
        if indent % 2 != 0 {
            return Err(line.error("odd indentation"));
        }
        lines.push(line);
    }
    let mut rest = lines.as_slice();
    let mut messages = Vec::new();
    while let Some((head, after)) = rest.split_first() {
        let mut message = parse_head(*head)?;
        rest = after;
        message.fields = parse_fields(&mut rest, 1)?;
        while let Some((line, after)) = rest.split_first().filter(|(line, _)| line.depth == 1) {
            rest = after;
            message.structs.push(parse_struct(*line, &mut rest)?);
        }
        messages.push(message);
    }
    Ok(messages)
}

fn parse_head(line: Line<'_>) -> Result<Message, SchemaError> {
    let mut words = line.text.split(' ');
    let mut word = || words.next().ok_or_else(|| line.error("a word is missing"));
    let key = |word: &str| word.parse::<i16>().map_err(|_| line.error("bad API key"));
    let mut kind = match word()? {
        "request" => {
            MessageKind::Request { key: key(word()?)?, listeners: Vec::new(), latest_unstable: false }
        }
        "response" => MessageKind::Response { key: key(word()?)? },
        "header" => MessageKind::Header,
        "data" => MessageKind::Data,
        _ => return Err(line.error("not the head of a message")),
    };
    let name = word()?.to_owned();
    let versions = line.versions(word()?)?;
    let mut flexible = Versions::NONE;
    for attribute in words {
        match (attribute.split_once('='), &mut kind) {
            (Some(("flexible", value)), _) => flexible = line.versions(value)?,
            (Some(("listeners", value)), MessageKind::Request { listeners, .. }) => {
                *listeners = value.split(',').map(str::to_owned).collect();
            }
            (None, MessageKind::Request { latest_unstable, .. }) if attribute == "unstable" => {
                *latest_unstable = true;
            }
            _ => return Err(line.error("unknown attribute")),
        }
    }
    Ok(Message { kind, name, versions, flexible, fields: Vec::new(), structs: Vec::new() })
}

fn parse_struct(line: Line<'_>, rest: &mut &[Line<'_>]) -> Result<Struct, SchemaError> {
    let words: Vec<&str> = line.text.split(' ').collect();
    let ["struct", name, versions] = words.as_slice() else {
        return Err(line.error("not a structure"));
    };
    Ok(Struct {
        name: (*name).to_owned(),
        versions: line.versions(versions)?,
        fields: parse_fields(rest, 2)?,
    })
}

fn parse_fields(rest: &mut &[Line<'_>], depth: usize) -> Result<Vec<Field>, SchemaError> {
    let mut fields = Vec::new();
    while let Some((line, after)) = rest.split_first() {
        if line.depth > depth {
            return Err(line.error("nested too deep"));
        }
        if line.depth < depth || line.text.starts_with("struct ") {
            break;
        }
        *rest = after;
        let mut field = parse_field(*line)?;
        field.fields = parse_fields(rest, depth + 1)?;
        fields.push(field);
    }
    Ok(fields)
}

fn parse_field(line: Line<'_>) -> Result<Field, SchemaError> {
    let mut words = line.text.split(' ');
    let mut word = || words.next().ok_or_else(|| line.error("a word is missing"));
    let name = word()?.to_owned();
    let kind: FieldType = word()?.parse().map_err(|_| line.error("unknown type"))?;
    let versions = line.versions(word()?)?;
    let mut field = Field {
        name,
        kind,
        versions,
        nullable: Versions::NONE,
        tag: None,
        default: None,
        ignorable: false,
        key: false,
        shared: false,
        flexible: None,
        entity: None,
        fields: Vec::new(),
    };
    for attribute in words {
        match attribute.split_once('=').unwrap_or((attribute, "")) {
            ("null", value) => field.nullable = line.versions(value)?,
            ("tag", value) => field.tag = Some(parse_tag(line, value)?),
            ("default", value) => field.default = Some(value.to_owned()),
            ("ignorable", "") => field.ignorable = true,
            ("key", "") => field.key = true,
            ("shared", "") => field.shared = true,
            ("flexible", value) => field.flexible = Some(line.versions(value)?),
            ("entity", value) => field.entity = Some(value.to_owned()),
            _ => return Err(line.error("unknown attribute")),
        }
    }
    Ok(field)
}

fn parse_tag(line: Line<'_>, value: &str) -> Result<Tag, SchemaError> {
    let (number, versions) = value.split_once('@').ok_or_else(|| line.error("bad tag"))?;
    let number = number.parse().map_err(|_| line.error("bad tag"))?;
    Ok(Tag { number, versions: line.versions(versions)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
request 3 MetadataRequest 0-13 flexible=9+ listeners=broker,controller unstable
  Topics []MetadataRequestTopic 0+ null=1+
    TopicId uuid 10+ ignorable
    Name string 0+ null=10+ default=\"\" entity=topicName
  Extra bytes 4+ tag=2@9+ default=null shared flexible=none
  struct Shared 2-4
    Index int32 0+ key

header ResponseHeader 0-1 flexible=1+
  CorrelationId int32 0+
";

    #[test]
    fn a_listing_prints_as_it_was_read() {
        let messages = parse("a", TEXT).unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].fields[0].fields.len(), 2);
        assert_eq!(messages[0].structs[0].fields.len(), 1);
        assert_eq!(print(&messages.iter().collect::<Vec<_>>()), TEXT);
    }

    #[test]
    fn a_bad_line_is_named() {
        let cases = [
            ("request x A 0 flexible=none", 1, "bad API key"),
            ("data A 0 flexible=none\n  B int32", 2, "a word is missing"),
            ("data A 0 flexible=none\n  B int33 0+", 2, "unknown type"),
            ("data A 0 flexible=none\n   B int32 0+", 2, "odd indentation"),
            ("data A 0 flexible=none\n  B int32 0+\n      C int32 0+", 3, "nested too deep"),
            ("data A 0 flexible=none\n  B int32 0+ color=red", 2, "unknown attribute"),
            ("data A 0 flexible=none\n  B int32 zero", 2, "bad version range"),
            ("data A 0 flexible=none\n  B int32 0+ tag=1", 2, "bad tag"),
        ];
        for (text, expected_line, expected) in cases {
            match parse("a", text) {
                Err(SchemaError::BadLine { line, problem, .. }) => {
                    assert_eq!((line, problem), (expected_line, expected), "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
