//! Decoding functions.

use super::types::default_value;
use super::{
    Condition, condition, flexible_binding, flexible_expression, is_fixed, method, parameter, snake_case,
};
use crate::layout::{FieldLayout, Layout, StructLayout};
use crate::schema::{Item, Scalar, Versions};

pub(super) fn emit(layout: &Layout, structure: &StructLayout, root: bool, out: &mut String) {
    let body = body(layout, structure);
    let body = flexible_binding(layout, structure.versions, &body) + &body;
    let check = if root {
        out.push_str(
            "/// Reads the message; the caller checks that nothing is left behind it.\n\
             ///\n/// # Errors\n/// A version that is not served, and every malformed field.\n",
        );
        format!("DecodeError::check_version({:?}, version, Self::VERSIONS)?;\n", structure.name)
    } else {
        String::new()
    };
    let body = check + &body;
    out.push_str(&format!(
        "{}fn decode({}: i16, {}: &mut Reader<'_>) -> Result<Self, DecodeError> {{\n{body}}}\n\n",
        if root { "pub " } else { "" },
        parameter("version", &body),
        parameter("reader", &body),
    ));
    emit_len_min(layout, structure, out);
}

fn body(layout: &Layout, structure: &StructLayout) -> String {
    let mut fields = String::new();
    let mut arms = String::new();
    for field in &structure.fields {
        let name = snake_case(&field.name);
        let default = default_value(field);
        let Some(tag) = field.tag else {
            let read = read(layout, field);
            let value = match condition(field.versions, structure.versions) {
                Condition::Always => read,
                Condition::If(condition, _) => format!("if {condition} {{ {read} }} else {{ {default} }}"),
            };
            fields.push_str(&format!("{name}: {value},\n"));
            continue;
        };
        fields.push_str(&format!("{name}: {default},\n"));
        let guard = match condition(field.versions, layout.flexible.intersect(structure.versions)) {
            Condition::Always => String::new(),
            Condition::If(condition, _) => format!(" if {condition}"),
        };
        arms.push_str(&format!("{tag}{guard} => {{\nvalue.{name} = {};\n}}\n", read(layout, field)));
    }
    let tagged = if arms.is_empty() {
        "reader.skip_tagged_fields()?;\n".to_owned()
    } else {
        format!(
            "reader.tagged_fields(|tag, reader| {{\nmatch tag {{\n{arms}_ => return Ok(false),\n}}\nOk(true)\n}})?;\n"
        )
    };
    let flexible = layout.flexible.intersect(structure.versions);
    let tagged = match condition(flexible, structure.versions) {
        _ if flexible.is_empty() => return format!("Ok(Self {{\n{fields}}})\n"),
        Condition::Always => tagged,
        Condition::If(..) => format!("if flexible {{\n{tagged}}}\n"),
    };
    let binding = if arms.is_empty() { "let value" } else { "let mut value" };
    format!("{binding} = Self {{\n{fields}}};\n{tagged}Ok(value)\n")
}

/// The expression that reads one field.
fn read(layout: &Layout, field: &FieldLayout) -> String {
    let plain = read_as(layout, field, false);
    match condition(field.nullable, field.versions) {
        _ if field.nullable.is_empty() => plain,
        Condition::Always => read_as(layout, field, true),
        Condition::If(condition, _) => {
            format!("if {condition} {{ {} }} else {{ Some({plain}) }}", read_as(layout, field, true))
        }
    }
}

fn read_as(layout: &Layout, field: &FieldLayout, optional: bool) -> String {
    let prefix = if optional { "optional_" } else { "" };
    let flexible = flexible_expression(field);
    if field.array {
        let element = match &field.item {
            Item::Struct(name) => format!("|reader| {name}::decode(version, reader)"),
            item @ Item::Scalar(scalar) if is_fixed(item) => format!("Reader::{}", scalar.name()),
            Item::Scalar(scalar) => format!("|reader| reader.{}({flexible})", scalar.name()),
        };
        return format!(
            "reader.{prefix}array({flexible}, {}, {element})?",
            len_min_expression(layout, field)
        );
    }
    match &field.item {
        Item::Struct(name) if optional => {
            format!("reader.optional_struct(|reader| {name}::decode(version, reader))?")
        }
        Item::Struct(name) => format!("{name}::decode(version, reader)?"),
        item @ Item::Scalar(scalar) if is_fixed(item) => format!("reader.{}()?", scalar.name()),
        Item::Scalar(scalar) => format!("reader.{prefix}{}({flexible})?", method(*scalar, field.shared)),
    }
}

/// The least length of an element of an array field: a number if all versions agree.
fn len_min_expression(layout: &Layout, field: &FieldLayout) -> String {
    let lengths = runs(field.versions, |version| layout.item_len_min(field, version));
    match (lengths.as_slice(), &field.item) {
        ([(_, only)], _) => only.to_string(),
        (_, Item::Struct(name)) => format!("{name}::len_min(version)"),
        (_, Item::Scalar(Scalar::String)) => "if flexible { 1 } else { 2 }".to_owned(),
        (_, Item::Scalar(_)) => "if flexible { 1 } else { 4 }".to_owned(),
    }
}

/// Emits `len_min` for a structure whose least length differs between versions, if an array asks for it.
fn emit_len_min(layout: &Layout, structure: &StructLayout, out: &mut String) {
    let call = format!("{}::len_min(version)", structure.name);
    let mut users = layout.structs.iter().flat_map(|user| &user.fields);
    if !users.any(|field| field.array && len_min_expression(layout, field) == call) {
        return;
    }
    let lengths = runs(structure.versions, |version| layout.struct_len_min(structure, version));
    let mut arms = String::new();
    for (i, (versions, length)) in lengths.iter().enumerate() {
        let pattern = match versions {
            _ if i + 1 == lengths.len() => "_".to_owned(),
            Versions { min, max } if min == max => min.to_string(),
            Versions { min, max } => format!("{min}..={max}"),
        };
        arms.push_str(&format!("{pattern} => {length},\n"));
    }
    out.push_str(&format!("fn len_min(version: i16) -> usize {{\nmatch version {{\n{arms}}}\n}}\n\n"));
}

/// Splits `versions` into runs of equal values.
fn runs(versions: Versions, value: impl Fn(i16) -> usize) -> Vec<(Versions, usize)> {
    let mut runs: Vec<(Versions, usize)> = Vec::new();
    for version in versions.iter() {
        let value = value(version);
        match runs.last_mut() {
            Some((run, last)) if *last == value => run.max = version,
            _ => runs.push((Versions { min: version, max: version }, value)),
        }
    }
    runs
}
