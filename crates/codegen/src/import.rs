//! From the message schemas in the published `kafka-clients` archive to the listing: names, types, versions
//! and defaults are taken over, descriptions are left behind.

use serde_json::Value;

use crate::archive;
use crate::error::SchemaError;
use crate::schema::{Field, FieldType, Message, MessageKind, Struct, Tag, Versions};

/// Where the archive keeps its schemas.
const FOLDER: &str = "common/message/";

/// The messages of an archive, given as bytes, ordered by name. Messages that no version serves any more are
/// left out.
///
/// # Errors
/// When the archive cannot be read, or a schema has a property that this importer does not know: an unknown
/// property may change the encoding, so it must not be skipped.
pub(crate) fn import(jar: &[u8]) -> Result<Vec<Message>, SchemaError> {
    let files = archive::read_entries(jar, |name| name.starts_with(FOLDER) && name.ends_with(".json"))?;
    let mut messages = Vec::new();
    for (file, contents) in files {
        let text = without_comments(&String::from_utf8_lossy(&contents));
        let value = serde_json::from_str::<Value>(&text)
            .map_err(|source| SchemaError::BadJson { file: file.clone(), source })?;
        let message = message(&Object { of: &file, value: &value })?;
        if !message.versions.is_empty() {
            messages.push(message);
        }
    }
    messages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(messages)
}

/// The schema files carry whole-line `//` comments, which JSON does not allow.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |mut all, line| {
        all.push_str(line);
        all.push('\n');
        all
    })
}

/// A JSON object and the name it has in errors.
struct Object<'a> {
    of: &'a str,
    value: &'a Value,
}

impl<'a> Object<'a> {
    fn bad(&self, property: &'static str) -> SchemaError {
        SchemaError::BadProperty { message: self.of.to_owned(), property }
    }

    fn only(&self, known: &[&str]) -> Result<(), SchemaError> {
        let object = self.value.as_object().ok_or_else(|| self.bad("(object)"))?;
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => Err(SchemaError::Unsupported {
                message: self.of.to_owned(),
                field: unknown.clone(),
                problem: "unknown schema property",
            }),
            None => Ok(()),
        }
    }

    fn text(&self, property: &'static str) -> Result<&'a str, SchemaError> {
        self.value.get(property).and_then(Value::as_str).ok_or_else(|| self.bad(property))
    }

    fn optional_text(&self, property: &'static str) -> Option<&'a str> {
        self.value.get(property).and_then(Value::as_str)
    }

    fn versions(&self, property: &'static str) -> Result<Versions, SchemaError> {
        self.text(property)?.parse()
    }

    fn optional_versions(&self, property: &'static str) -> Result<Option<Versions>, SchemaError> {
        self.optional_text(property).map(str::parse).transpose()
    }

    fn flag(&self, property: &'static str) -> Result<bool, SchemaError> {
        match self.value.get(property) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(property)),
        }
    }

    fn objects(&self, property: &'static str) -> Vec<Object<'a>> {
        let list = self.value.get(property).and_then(Value::as_array);
        list.into_iter().flatten().map(|value| Object { of: self.of, value }).collect()
    }
}

fn message(json: &Object<'_>) -> Result<Message, SchemaError> {
    json.only(&[
        "apiKey",
        "type",
        "listeners",
        "name",
        "validVersions",
        "flexibleVersions",
        "latestVersionUnstable",
        "fields",
        "commonStructs",
    ])?;
    let key = || {
        let key = json.value.get("apiKey").and_then(Value::as_i64);
        key.and_then(|key| i16::try_from(key).ok()).ok_or_else(|| json.bad("apiKey"))
    };
    let kind = match json.text("type")? {
        "request" => MessageKind::Request {
            key: key()?,
            listeners: listeners(json),
            latest_unstable: json.flag("latestVersionUnstable")?,
        },
        "response" => MessageKind::Response { key: key()? },
        "header" => MessageKind::Header,
        "data" => MessageKind::Data,
        _ => return Err(json.bad("type")),
    };
    let structs = json.objects("commonStructs").iter().map(shared_struct).collect::<Result<_, _>>()?;
    Ok(Message {
        kind,
        name: json.text("name")?.to_owned(),
        versions: json.versions("validVersions")?,
        flexible: json.optional_versions("flexibleVersions")?.unwrap_or(Versions::NONE),
        fields: json.objects("fields").iter().map(field).collect::<Result<_, _>>()?,
        structs,
    })
}

fn listeners(json: &Object<'_>) -> Vec<String> {
    let list = json.value.get("listeners").and_then(Value::as_array);
    let mut names: Vec<String> =
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

fn shared_struct(json: &Object<'_>) -> Result<Struct, SchemaError> {
    json.only(&["name", "versions", "fields"])?;
    Ok(Struct {
        name: json.text("name")?.to_owned(),
        versions: json.versions("versions")?,
        fields: json.objects("fields").iter().map(field).collect::<Result<_, _>>()?,
    })
}

fn field(json: &Object<'_>) -> Result<Field, SchemaError> {
    json.only(&[
        "name",
        "type",
        "versions",
        "about",
        "fields",
        "default",
        "entityType",
        "nullableVersions",
        "ignorable",
        "mapKey",
        "tag",
        "taggedVersions",
        "zeroCopy",
        "flexibleVersions",
    ])?;
    let kind: FieldType = json.text("type")?.parse()?;
    let tag = match (json.value.get("tag").and_then(Value::as_u64), json.optional_versions("taggedVersions")?)
    {
        (None, None) => None,
        (Some(number), Some(versions)) => {
            let number = u32::try_from(number).map_err(|_| json.bad("tag"))?;
            Some(Tag { number, versions })
        }
        _ => return Err(json.bad("tag")),
    };
    Ok(Field {
        name: json.text("name")?.to_owned(),
        versions: json.versions("versions")?,
        nullable: json.optional_versions("nullableVersions")?.unwrap_or(Versions::NONE),
        tag,
        default: default(json, &kind)?,
        ignorable: json.flag("ignorable")?,
        key: json.flag("mapKey")?,
        shared: json.flag("zeroCopy")?,
        flexible: json.optional_versions("flexibleVersions")?,
        entity: json.optional_text("entityType").map(str::to_owned),
        fields: json.objects("fields").iter().map(field).collect::<Result<_, _>>()?,
        kind,
    })
}

/// The default in the listing's notation: `null`, `true`, a decimal number, or text in quotes. A default
/// that equals the zero value of its type is left out.
fn default(json: &Object<'_>, kind: &FieldType) -> Result<Option<String>, SchemaError> {
    let text = match json.value.get("default") {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        Some(_) => return Err(json.bad("default")),
    };
    if text == "null" {
        return Ok(Some(text));
    }
    let text = match kind.to_string().as_str() {
        "string" => return Ok((!text.is_empty()).then(|| format!("\"{text}\""))),
        "bool" => text,
        _ => {
            let number = match text.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16),
                None => text.parse::<i64>(),
            };
            number.map_err(|_| json.bad("default"))?.to_string()
        }
    };
    Ok((text != "0" && text != "false").then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Message, SchemaError> {
        let value = serde_json::from_str(&without_comments(json)).unwrap();
        message(&Object { of: "test", value: &value })
    }

    #[test]
    fn facts_are_taken_over_and_prose_is_not() {
        let message = parse(
            r#"
            // a comment
            { "apiKey": 7, "type": "request", "listeners": ["controller", "broker"], "name": "ARequest",
              "validVersions": "1-3", "flexibleVersions": "2+", "latestVersionUnstable": true,
              "fields": [
                { "name": "MaxBytes", "type": "int32", "versions": "0+", "default": "0x7fffffff", "about": "x" },
                { "name": "Flag", "type": "bool", "versions": "0+", "default": false },
                { "name": "Dirs", "type": "[]uuid", "versions": "2+", "taggedVersions": "2+", "tag": 1,
                  "nullableVersions": "2+", "default": "null", "ignorable": true } ] }"#,
        )
        .unwrap();
        let listing = crate::listing::print(&[&message]);
        assert_eq!(
            listing,
            "request 7 ARequest 1-3 flexible=2+ listeners=broker,controller unstable\n  \
             MaxBytes int32 0+ default=2147483647\n  Flag bool 0+\n  \
             Dirs []uuid 2+ null=2+ tag=1@2+ default=null ignorable\n"
        );
    }

    #[test]
    fn an_unknown_property_is_refused() {
        let error = parse(
            r#"{ "type": "data", "name": "A", "validVersions": "0", "flexibleVersions": "none",
                 "fields": [{ "name": "B", "type": "int8", "versions": "0+", "packed": true }] }"#,
        )
        .unwrap_err();
        assert!(matches!(error, SchemaError::Unsupported { field, .. } if field == "packed"));
    }
}
