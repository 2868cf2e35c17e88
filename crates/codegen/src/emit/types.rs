//! Structures, their documentation and their defaults.

use super::snake_case;
use crate::layout::{DefaultValue, FieldLayout, Layout, StructLayout};
use crate::schema::{Item, MessageKind, Scalar, Versions};

/// One line about the module of a message.
pub(super) fn module_doc(layout: &Layout) -> String {
    let name = layout.name();
    match &layout.kind {
        MessageKind::Request { key, .. } => format!("`{name}`, the request of API {key}."),
        MessageKind::Response { key } => format!("`{name}`, the response of API {key}."),
        MessageKind::Header => format!("`{name}`, which stands before every message body."),
        MessageKind::Data => format!("`{name}`, a structure embedded in byte fields or record values."),
    }
}

pub(super) fn emit(layout: &Layout, structure: &StructLayout, root: bool, out: &mut String) {
    if root {
        let flexible = match layout.flexible {
            none if none.is_empty() => "never flexible".to_owned(),
            Versions { min, .. } => format!("flexible since version {min}"),
        };
        let doc = module_doc(layout);
        out.push_str(&format!("/// {doc}\n///\n/// {}; {flexible}.\n", capital(&span(layout.versions))));
    } else {
        out.push_str(&format!("/// {}\n", usage_doc(layout, structure)));
    }
    let derive = structure.fields.iter().all(is_rust_default);
    let default = if derive { ", Default" } else { "" };
    out.push_str(&format!("#[derive(Clone, Debug, PartialEq{default})]\npub struct {} {{\n", structure.name));
    for field in &structure.fields {
        let doc = field_doc(field, structure.versions);
        out.push_str(&format!("/// {doc}\npub {}: {},\n", snake_case(&field.name), rust_type(field)));
    }
    out.push_str("}\n\n");
    if !derive {
        out.push_str(&format!("impl Default for {} {{\nfn default() -> Self {{\nSelf {{\n", structure.name));
        for field in &structure.fields {
            out.push_str(&format!("{}: {},\n", snake_case(&field.name), default_value(field)));
        }
        out.push_str("}\n}\n}\n\n");
    }
}

/// "The elements of `topics` in [`FetchRequest`], versions 4 to 18."
fn usage_doc(layout: &Layout, structure: &StructLayout) -> String {
    let mut places = Vec::new();
    for user in &layout.structs {
        for field in &user.fields {
            if field.item == Item::Struct(structure.name.clone()) {
                let what = if field.array { "An element of" } else { "The value of" };
                places.push(format!("{what} [`{0}::{1}`]", user.name, snake_case(&field.name)));
            }
        }
    }
    format!("{}; {}.", places.join(", "), span(structure.versions))
}

fn span(versions: Versions) -> String {
    match versions {
        Versions { min, max } if min == max => format!("version {min} only"),
        Versions { min, max } => format!("versions {min} to {max}"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// What the schema tells about a field, in one line.
fn field_doc(field: &FieldLayout, domain: Versions) -> String {
    let mut parts = vec![meaning(field)];
    if !field.versions.covers(domain) {
        let elsewhere = if field.ignorable { "dropped in others" } else { "refused in others" };
        parts.push(format!("{} ({elsewhere})", span(field.versions)));
    }
    if field.nullable.covers(field.versions) {
        parts.push("may be null".to_owned());
    } else if !field.nullable.is_empty() {
        parts.push(format!("may be null in {}", span(field.nullable)));
    }
    if let Some(tag) = field.tag {
        parts.push(format!("tag {tag}"));
    }
    if field.key {
        parts.push("part of the key".to_owned());
    }
    match &field.default {
        DefaultValue::Zero => {}
        DefaultValue::Null => parts.push("null by default".to_owned()),
        DefaultValue::True => parts.push("true by default".to_owned()),
        DefaultValue::Number(number) => parts.push(format!("{number} by default")),
        DefaultValue::Text(text) => parts.push(format!("`{text}` by default")),
    }
    capital(&parts.join("; ")) + "."
}

/// The unit or the kind of thing, as far as the schema's names tell it.
fn meaning(field: &FieldLayout) -> String {
    let one = match (field.entity.as_deref(), &field.item) {
        (Some("topicName"), _) => "topic name",
        (Some("brokerId"), _) => "broker id",
        (Some("groupId"), _) => "group id",
        (Some("producerId"), _) => "producer id",
        (Some("transactionalId"), _) => "transactional id",
        (_, Item::Struct(name)) => {
            return if field.array { format!("`{name}` list") } else { format!("`{name}`") };
        }
        (_, Item::Scalar(Scalar::Int16)) if field.name.ends_with("ErrorCode") => {
            "number of an [`ErrorCode`](crate::ErrorCode)"
        }
        (_, Item::Scalar(_)) if field.name.ends_with("Ms") => "milliseconds",
        (_, Item::Scalar(_)) if field.name.ends_with("Bytes") => "number of bytes",
        (_, Item::Scalar(scalar)) => match scalar {
            Scalar::Bool => "flag",
            Scalar::Int8 => "signed byte",
            Scalar::Int16 => "signed 16-bit number",
            Scalar::Uint16 => "unsigned 16-bit number",
            Scalar::Int32 => "signed 32-bit number",
            Scalar::Int64 => "signed 64-bit number",
            Scalar::Float64 => "64-bit floating point number",
            Scalar::Uuid => "UUID",
            Scalar::String => "text of at most 32,767 bytes",
            Scalar::Bytes if field.shared => "bytes that stay in the frame",
            Scalar::Bytes => "bytes",
            Scalar::Records => "record batches",
        },
    };
    if field.array { format!("list: {one}") } else { one.to_owned() }
}

/// The Rust type of a field.
pub(super) fn rust_type(field: &FieldLayout) -> String {
    let item = match &field.item {
        Item::Struct(name) => name.as_str(),
        Item::Scalar(scalar) => match scalar {
            Scalar::Bool => "bool",
            Scalar::Int8 => "i8",
            Scalar::Int16 => "i16",
            Scalar::Uint16 => "u16",
            Scalar::Int32 => "i32",
            Scalar::Int64 => "i64",
            Scalar::Float64 => "f64",
            Scalar::Uuid => "Uuid",
            Scalar::String => "String",
            Scalar::Bytes => "Bytes",
            Scalar::Records => "Records",
        },
    };
    let one = if field.array { format!("Vec<{item}>") } else { item.to_owned() };
    if field.nullable.is_empty() { one } else { format!("Option<{one}>") }
}

/// Whether the default of the Rust type is the default of the field.
fn is_rust_default(field: &FieldLayout) -> bool {
    match field.default {
        DefaultValue::Zero => field.nullable.is_empty(),
        DefaultValue::Null => true,
        DefaultValue::True | DefaultValue::Number(_) | DefaultValue::Text(_) => false,
    }
}

/// The expression of a field's default value.
pub(super) fn default_value(field: &FieldLayout) -> String {
    let inner = match (&field.default, &field.item) {
        (DefaultValue::Null, _) => return "None".to_owned(),
        (DefaultValue::True, _) => "true".to_owned(),
        (DefaultValue::Number(number), Item::Scalar(Scalar::Float64)) => format!("{number}.0"),
        (DefaultValue::Number(i64::MAX), _) => "i64::MAX".to_owned(),
        (DefaultValue::Number(number), _) if *number == i64::from(i32::MAX) => "i32::MAX".to_owned(),
        (DefaultValue::Number(number), _) if *number == i64::from(i32::MIN) => "i32::MIN".to_owned(),
        (DefaultValue::Number(number), _) => number.to_string(),
        (DefaultValue::Text(text), _) => format!("{text:?}.to_owned()"),
        (DefaultValue::Zero, _) if field.array => "Vec::new()".to_owned(),
        (DefaultValue::Zero, Item::Struct(name)) => format!("{name}::default()"),
        (DefaultValue::Zero, Item::Scalar(scalar)) => match scalar {
            Scalar::Bool => "false".to_owned(),
            Scalar::Float64 => "0.0".to_owned(),
            Scalar::Uuid => "Uuid::ZERO".to_owned(),
            Scalar::String => "String::new()".to_owned(),
            Scalar::Bytes => "Bytes::new()".to_owned(),
            Scalar::Records => "Records::default()".to_owned(),
            _ => "0".to_owned(),
        },
    };
    if field.nullable.is_empty() { inner } else { format!("Some({inner})") }
}

/// The expression that tells whether a field has its default value, and its negation.
pub(super) fn is_default(field: &FieldLayout) -> (String, String) {
    let place = format!("self.{}", snake_case(&field.name));
    let both = |yes: &str, no: &str| (format!("{place}{yes}"), format!("{place}{no}"));
    let not = |yes: &str| (format!("{place}{yes}"), format!("!{place}{yes}"));
    let empty =
        field.array || matches!(field.item, Item::Scalar(Scalar::String | Scalar::Bytes | Scalar::Records));
    match (&field.default, field.nullable.is_empty()) {
        (DefaultValue::Null, _) => both(".is_none()", ".is_some()"),
        (DefaultValue::True, true) => (place.clone(), format!("!{place}")),
        (DefaultValue::Zero, true) if field.item == Item::Scalar(Scalar::Bool) && !field.array => {
            (format!("!{place}"), place)
        }
        (DefaultValue::Zero, true) if empty => not(".is_empty()"),
        (DefaultValue::Zero, false) if empty => not(".as_ref().is_some_and(|value| value.is_empty())"),
        _ => {
            let default = default_value(field);
            (format!("{place} == {default}"), format!("{place} != {default}"))
        }
    }
}
