//! A message as its encoding sees it: fields clipped to the versions that are really served, structures listed
//! once, defaults as values.

use std::collections::BTreeMap;

use crate::error::SchemaError;
use crate::schema::{Field, FieldType, Item, Message, MessageKind, Scalar, Versions};

/// The value of a field that is absent.
#[derive(Clone, Debug, PartialEq)]
pub enum DefaultValue {
    /// Zero, false, empty, or a structure of defaults.
    Zero,
    /// Null.
    Null,
    /// `true`.
    True,
    /// A number.
    Number(i64),
    /// A text that is not empty.
    Text(String),
}

/// A field with its versions clipped to those of its structure.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldLayout {
    /// The schema's name, upper camel case.
    pub name: String,
    /// The type of the value or of the elements.
    pub item: Item,
    /// Whether the field is an array.
    pub array: bool,
    /// The versions of its structure that carry the field; never empty.
    pub versions: Versions,
    /// Those of them in which it may be null.
    pub nullable: Versions,
    /// Its tag; a tagged field is tagged in all its versions.
    pub tag: Option<u32>,
    /// The value when absent.
    pub default: DefaultValue,
    /// Whether another value may be dropped in a version without the field.
    pub ignorable: bool,
    /// Whether the field is part of its array's key.
    pub key: bool,
    /// Whether the bytes stay in the frame.
    pub shared: bool,
    /// The versions in which its length is compact.
    pub flexible: Versions,
    /// What the value names.
    pub entity: Option<String>,
}

/// A structure; the first one of a message is the message itself.
#[derive(Clone, Debug, PartialEq)]
pub struct StructLayout {
    /// Its name.
    pub name: String,
    /// The versions of the message in which it occurs.
    pub versions: Versions,
    /// Its fields in wire order, those in line first as the schema has them.
    pub fields: Vec<FieldLayout>,
}

/// A message ready to be generated or sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// What it is for.
    pub kind: MessageKind,
    /// The served versions.
    pub versions: Versions,
    /// Those with compact lengths and tagged sections.
    pub flexible: Versions,
    /// The message itself, then its structures in the order of their first use.
    pub structs: Vec<StructLayout>,
}

impl Layout {
    /// Resolves a message.
    ///
    /// # Errors
    /// A structure without a definition, or a shape that the generator does not know.
    pub fn of(message: &Message) -> Result<Self, SchemaError> {
        let mut order = Vec::new();
        let mut domains = BTreeMap::new();
        visit(message, &message.fields, message.versions, &mut order, &mut domains)?;
        let mut structs = vec![layout(message, &message.name, &message.fields, message.versions)?];
        for name in order {
            let domain = domains.get(&name).copied().unwrap_or(Versions::NONE);
            structs.push(layout(message, &name, message.struct_fields(&name)?, domain)?);
        }
        Ok(Self {
            kind: message.kind.clone(),
            versions: message.versions,
            flexible: message.flexible.intersect(message.versions),
            structs,
        })
    }

    /// The message's own name.
    pub fn name(&self) -> &str {
        self.structs.first().map_or("", |root| &root.name)
    }

    /// The structure called `name`.
    pub fn find(&self, name: &str) -> Option<&StructLayout> {
        self.structs.iter().find(|known| known.name == name)
    }

    /// The least number of bytes that an element of the field takes in `version`.
    pub fn item_len_min(&self, field: &FieldLayout, version: i16) -> usize {
        match &field.item {
            Item::Scalar(scalar) => scalar_len_min(*scalar, field.flexible.contains(version)),
            Item::Struct(name) => self.find(name).map_or(0, |layout| self.struct_len_min(layout, version)),
        }
    }

    /// The least number of bytes that a structure takes in `version`.
    pub fn struct_len_min(&self, layout: &StructLayout, version: i16) -> usize {
        let fields =
            layout.fields.iter().filter(|field| field.tag.is_none() && field.versions.contains(version));
        let fields: usize = fields
            .map(|field| match &field.item {
                _ if field.array => scalar_len_min(Scalar::Bytes, field.flexible.contains(version)),
                Item::Struct(_) if field.nullable.contains(version) => 1,
                _ => self.item_len_min(field, version),
            })
            .sum();
        fields + usize::from(self.flexible.contains(version))
    }
}

/// The least length of a value; an empty or null one takes only its length prefix.
fn scalar_len_min(scalar: Scalar, flexible: bool) -> usize {
    scalar.fixed_len().unwrap_or(match (flexible, scalar) {
        (true, _) => 1,
        (false, Scalar::String) => 2,
        (false, _) => 4,
    })
}

/// Notes every structure that `fields` use, with the versions in which it occurs.
fn visit(
    message: &Message,
    fields: &[Field],
    domain: Versions,
    order: &mut Vec<String>,
    domains: &mut BTreeMap<String, Versions>,
) -> Result<(), SchemaError> {
    for field in fields {
        let versions = field.versions.intersect(domain);
        if let (Item::Struct(name), false) = (field.kind.item(), versions.is_empty()) {
            if !order.contains(name) {
                order.push(name.clone());
            }
            let known = domains.entry(name.clone()).or_insert(Versions::NONE);
            *known = known.hull(versions);
            visit(message, message.struct_fields(name)?, versions, order, domains)?;
        }
    }
    Ok(())
}

fn layout(
    message: &Message,
    name: &str,
    fields: &[Field],
    domain: Versions,
) -> Result<StructLayout, SchemaError> {
    let mut layouts = Vec::new();
    for field in fields {
        let versions = field.versions.intersect(domain);
        if !versions.is_empty() {
            layouts.push(field_layout(message, field, versions)?);
        }
    }
    Ok(StructLayout { name: name.to_owned(), versions: domain, fields: layouts })
}

fn field_layout(message: &Message, field: &Field, versions: Versions) -> Result<FieldLayout, SchemaError> {
    let refuse = |problem| SchemaError::Unsupported {
        message: message.name.clone(),
        field: field.name.clone(),
        problem,
    };
    let nullable = field.nullable.intersect(versions);
    let default = match field.default.as_deref() {
        None => DefaultValue::Zero,
        Some("null") if nullable.is_empty() => {
            return Err(refuse("a null default where null is not allowed"));
        }
        Some("null") => DefaultValue::Null,
        Some("true") => DefaultValue::True,
        Some(text) => match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => DefaultValue::Text(text.to_owned()),
            None => DefaultValue::Number(text.parse().map_err(|_| refuse("a default that is no value"))?),
        },
    };
    if let Some(tag) = field.tag {
        if tag.versions.intersect(versions) != versions {
            return Err(refuse("tagged in some of its versions only"));
        }
        if !message.flexible.covers(versions) {
            return Err(refuse("tagged in a version without tagged sections"));
        }
        if *field.kind.item() == Item::Scalar(Scalar::Records) {
            return Err(refuse("records in a tagged section"));
        }
        if matches!(field.kind, FieldType::One(Item::Struct(_))) && !nullable.is_empty() {
            return Err(refuse("a nullable structure in a tagged section"));
        }
    }
    Ok(FieldLayout {
        name: field.name.clone(),
        item: field.kind.item().clone(),
        array: matches!(field.kind, FieldType::Array(_)),
        versions,
        nullable,
        tag: field.tag.map(|tag| tag.number),
        default,
        ignorable: field.ignorable,
        key: field.key,
        shared: field.shared,
        flexible: field.flexible.unwrap_or(message.flexible).intersect(versions),
        entity: field.entity.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
request 0 ARequest 3-9 flexible=6+ listeners=broker
  Old string 0-2
  Items []Entry 4+
    Id int32 0+
    Name string 5+ null=7+
    Extra Inner 6+ tag=0@6+
      Flag bool 0+
";

    fn read(text: &str) -> Result<Layout, SchemaError> {
        Layout::of(&crate::listing::parse("a", text)?[0])
    }

    #[test]
    fn versions_are_clipped_and_dead_fields_dropped() {
        let layout = read(TEXT).unwrap();
        let names: Vec<&str> = layout.structs.iter().map(|layout| layout.name.as_str()).collect();
        assert_eq!(names, ["ARequest", "Entry", "Inner"]);
        assert_eq!(layout.structs[0].fields.len(), 1);
        assert_eq!(layout.structs[1].versions, Versions { min: 4, max: 9 });
        assert_eq!(layout.structs[1].fields[1].nullable, Versions { min: 7, max: 9 });
    }

    #[test]
    fn the_least_length_follows_the_version() {
        let layout = read(TEXT).unwrap();
        let entry = layout.find("Entry").unwrap();
        let lengths: Vec<usize> = (4..=7).map(|version| layout.struct_len_min(entry, version)).collect();
        assert_eq!(lengths, [4, 6, 6, 6], "4; 4+2; 4+1+tags; the same");
    }

    #[test]
    fn shapes_without_an_encoding_are_refused() {
        for (line, expected) in [
            ("A string 0+ default=null", "a null default where null is not allowed"),
            ("A string 6+ tag=0@7+", "tagged in some of its versions only"),
            ("A string 3+ tag=0@3+", "tagged in a version without tagged sections"),
            ("A records 6+ tag=0@6+", "records in a tagged section"),
            ("A int32 3+ default=x", "a default that is no value"),
        ] {
            let text = format!("request 0 ARequest 3-9 flexible=6+ listeners=broker\n  {line}\n");
            match read(&text) {
                Err(SchemaError::Unsupported { problem, .. }) => assert_eq!(problem, expected, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
