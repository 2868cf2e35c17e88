//! Encoding functions.

use super::types::is_default;
use super::{
    Condition, condition, flexible_binding, flexible_expression, is_fixed, method, parameter, snake_case,
};
use crate::layout::{FieldLayout, Layout, StructLayout};
use crate::schema::Item;

pub(super) fn emit(layout: &Layout, structure: &StructLayout, root: bool, out: &mut String) {
    let mut body = String::new();
    for field in structure.fields.iter().filter(|field| field.tag.is_none()) {
        let write = write(layout, structure, field);
        body.push_str(&match condition(field.versions, structure.versions) {
            Condition::Always => write,
            Condition::If(condition, _) if field.ignorable => format!("if {condition} {{\n{write}}}\n"),
            Condition::If(condition, _) => {
                format!(
                    "if {condition} {{\n{write}}} else {{\n{}}}\n",
                    check_absent(layout, structure, field)
                )
            }
        });
    }
    body.push_str(&tagged(layout, structure));
    body.push_str("Ok(())\n");
    let body = flexible_binding(layout, structure.versions, &body) + &body;
    let check = if root {
        out.push_str(
            "/// Writes the message.\n///\n/// # Errors\n\
             /// A version that is not served, a value too long for its length field, and a value that `version` cannot\n\
             /// carry and must not drop.\n",
        );
        format!("EncodeError::check_version({:?}, version, Self::VERSIONS)?;\n", structure.name)
    } else {
        String::new()
    };
    let body = check + &body;
    out.push_str(&format!(
        "{}fn encode(&self, {}: i16, {}: &mut Writer) -> Result<(), EncodeError> {{\n{body}}}\n",
        if root { "pub " } else { "" },
        parameter("version", &body),
        parameter("writer", &body),
    ));
}

/// The full name of a field in errors.
fn path(layout: &Layout, structure: &StructLayout, field: &FieldLayout) -> String {
    if structure.name == layout.name() {
        format!("\"{}.{}\"", structure.name, field.name)
    } else {
        format!("\"{}.{}.{}\"", layout.name(), structure.name, field.name)
    }
}

fn check_absent(layout: &Layout, structure: &StructLayout, field: &FieldLayout) -> String {
    let (is_default, _) = is_default(field);
    format!("EncodeError::check_absent({is_default}, {}, version)?;\n", path(layout, structure, field))
}

/// The statement that writes one field in line.
fn write(layout: &Layout, structure: &StructLayout, field: &FieldLayout) -> String {
    let place = format!("self.{}", snake_case(&field.name));
    let by_reference =
        if is_fixed(&field.item) && !field.array { place.clone() } else { format!("&{place}") };
    let plain = |value: &str| write_as(field, value, false);
    if field.nullable.is_empty() {
        let value = match (&field.item, field.array) {
            (Item::Struct(_), false) => place,
            _ => by_reference,
        };
        return plain(&value);
    }
    let borrowed = match &field.item {
        _ if field.array => format!("{place}.as_deref()"),
        Item::Scalar(crate::schema::Scalar::String) => format!("{place}.as_deref()"),
        _ => format!("{place}.as_ref()"),
    };
    let optional = write_as(field, &borrowed, true);
    match condition(field.nullable, field.versions) {
        Condition::Always => optional,
        Condition::If(condition, _) => {
            let value = format!(
                "EncodeError::check_present({borrowed}, {}, version)?",
                path(layout, structure, field)
            );
            format!("if {condition} {{\n{optional}}} else {{\n{}}}\n", plain(&value))
        }
    }
}

fn write_as(field: &FieldLayout, value: &str, optional: bool) -> String {
    let prefix = if optional { "optional_" } else { "" };
    let flexible = flexible_expression(field);
    if field.array {
        return match &field.item {
            Item::Struct(_) => format!(
                "writer.{prefix}array({flexible}, {value}, |writer, item| item.encode(version, writer))?;\n"
            ),
            item @ Item::Scalar(scalar) if is_fixed(item) => {
                format!("writer.{prefix}scalars({flexible}, {value}, Writer::{})?;\n", scalar.name())
            }
            Item::Scalar(scalar) => format!(
                "writer.{prefix}array({flexible}, {value}, |writer, item| writer.{}({flexible}, item))?;\n",
                scalar.name()
            ),
        };
    }
    match &field.item {
        Item::Struct(_) if optional => {
            format!("writer.optional_struct({value}, |writer, item| item.encode(version, writer))?;\n")
        }
        Item::Struct(_) => format!("{value}.encode(version, writer)?;\n"),
        item @ Item::Scalar(scalar) if is_fixed(item) => format!("writer.{}({value});\n", scalar.name()),
        Item::Scalar(scalar) => {
            format!("writer.{prefix}{}({flexible}, {value})?;\n", method(*scalar, field.shared))
        }
    }
}

/// The statements for the tagged section.
fn tagged(layout: &Layout, structure: &StructLayout) -> String {
    let flexible = layout.flexible.intersect(structure.versions);
    if flexible.is_empty() {
        return String::new();
    }
    let mut checks = String::new();
    let mut tags = String::new();
    let mut fields: Vec<_> = structure.fields.iter().filter_map(|field| Some((field.tag?, field))).collect();
    fields.sort_by_key(|(tag, _)| *tag);
    for (tag, field) in &fields {
        let (_, differs) = is_default(field);
        let present = match condition(field.versions, structure.versions) {
            Condition::Always => differs,
            Condition::If(condition, negation) => {
                if !field.ignorable {
                    let check = check_absent(layout, structure, field);
                    checks.push_str(&format!("if {negation} {{\n{check}}}\n"));
                }
                // Tagged fields need a flexible version, so the outer condition may already say this.
                if field.versions.covers(flexible) { differs } else { format!("{condition} && {differs}") }
            }
        };
        let write = write(layout, structure, field);
        tags.push_str(&format!(
            "if {present} {{\nwriter.tag(tags, {tag}, |writer| {{\n{write}Ok(())\n}})?;\n}}\n"
        ));
    }
    let section = if tags.is_empty() {
        "writer.no_tags();\n".to_owned()
    } else {
        format!("let tags = writer.begin_tags();\n{tags}")
    };
    match condition(flexible, structure.versions) {
        Condition::Always => checks + &section,
        Condition::If(..) => format!("{checks}if flexible {{\n{section}}}\n"),
    }
}
