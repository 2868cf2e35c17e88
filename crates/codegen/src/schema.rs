//! The model of a wire message: what both the listing and the published JSON say about it.

use std::fmt;
use std::str::FromStr;

use crate::error::SchemaError;

/// A closed range of message versions; `min > max` is the empty range, written `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first version of the range.
    pub min: i16,
    /// The last version of the range, `i16::MAX` for "and all later ones".
    pub max: i16,
}

impl Versions {
    /// The range that holds no version.
    pub const NONE: Self = Self { min: 0, max: -1 };

    /// Whether no version is in the range.
    pub fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// Whether `version` is in the range.
    pub fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether every version of `other` is in this range.
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.min <= other.min && other.max <= self.max)
    }

    /// The versions in both ranges.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        if both.is_empty() { Self::NONE } else { both }
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => Self { min: self.min.min(other.min), max: self.max.max(other.max) },
        }
    }

    /// Every version of the range, in order. Call it on a bounded range only.
    pub fn iter(self) -> impl Iterator<Item = i16> {
        self.min..=self.max
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("none")
        } else if self.max == i16::MAX {
            write!(f, "{}+", self.min)
        } else if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

impl FromStr for Versions {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let number = |part: &str| {
            part.parse::<i16>()
                .ok()
                .filter(|version| *version >= 0)
                .ok_or_else(|| SchemaError::BadVersions { text: text.to_owned() })
        };
        if text == "none" {
            Ok(Self::NONE)
        } else if let Some(min) = text.strip_suffix('+') {
            Ok(Self { min: number(min)?, max: i16::MAX })
        } else if let Some((min, max)) = text.split_once('-') {
            Ok(Self { min: number(min)?, max: number(max)? })
        } else {
            let only = number(text)?;
            Ok(Self { min: only, max: only })
        }
    }
}

/// A type without fields of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// One byte, zero or not.
    Bool,
    /// A signed byte.
    Int8,
    /// Two bytes, signed.
    Int16,
    /// Two bytes, unsigned (ports).
    Uint16,
    /// Four bytes, signed.
    Int32,
    /// Eight bytes, signed.
    Int64,
    /// Eight bytes, IEEE 754.
    Float64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8 text of at most 32,767 bytes.
    String,
    /// Opaque bytes.
    Bytes,
    /// Record batches.
    Records,
}

impl Scalar {
    const NAMES: [(Self, &'static str); 11] = [
        (Self::Bool, "bool"),
        (Self::Int8, "int8"),
        (Self::Int16, "int16"),
        (Self::Uint16, "uint16"),
        (Self::Int32, "int32"),
        (Self::Int64, "int64"),
        (Self::Float64, "float64"),
        (Self::Uuid, "uuid"),
        (Self::String, "string"),
        (Self::Bytes, "bytes"),
        (Self::Records, "records"),
    ];

    /// The name that the schema uses, which is also the name of the reader's and writer's method.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(scalar, _)| *scalar == self).map_or("", |(_, name)| name)
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(scalar, _)| *scalar)
    }

    /// The bytes of every value of this type, `None` when they vary.
    pub fn fixed_len(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Int8 => Some(1),
            Self::Int16 | Self::Uint16 => Some(2),
            Self::Int32 => Some(4),
            Self::Int64 | Self::Float64 => Some(8),
            Self::Uuid => Some(16),
            Self::String | Self::Bytes | Self::Records => None,
        }
    }
}

/// What a field, or an element of an array, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A value without fields.
    Scalar(Scalar),
    /// The structure of this name.
    Struct(String),
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// One value.
    One(Item),
    /// An array. The wire knows no arrays of arrays.
    Array(Item),
}

impl FieldType {
    /// The value itself, or the element of the array.
    pub fn item(&self) -> &Item {
        match self {
            Self::One(item) | Self::Array(item) => item,
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self, Self::Array(_)) {
            f.write_str("[]")?;
        }
        match self.item() {
            Item::Scalar(scalar) => f.write_str(scalar.name()),
            Item::Struct(name) => f.write_str(name),
        }
    }
}

impl FromStr for FieldType {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let (array, name) = text.strip_prefix("[]").map_or((false, text), |element| (true, element));
        let item = match Scalar::by_name(name) {
            Some(scalar) => Item::Scalar(scalar),
            None if name.starts_with(|c: char| c.is_ascii_uppercase()) => Item::Struct(name.to_owned()),
            None => return Err(SchemaError::UnknownType { text: text.to_owned() }),
        };
        Ok(if array { Self::Array(item) } else { Self::One(item) })
    }
}

/// The place of a field in the tagged section of its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The number that stands before the field.
    pub number: u32,
    /// The versions in which the field is tagged instead of standing in line.
    pub versions: Versions,
}

/// One field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in the schema's upper camel case.
    pub name: String,
    /// The type.
    pub kind: FieldType,
    /// The versions that carry the field.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// Its tag, if it is tagged in some version.
    pub tag: Option<Tag>,
    /// The default as the schema writes it; `None` is the zero value of the type.
    pub default: Option<String>,
    /// Whether a value other than the default may be dropped silently in a version without the field.
    pub ignorable: bool,
    /// Whether the field belongs to the key by which its array is looked up.
    pub key: bool,
    /// Whether the bytes are kept as a part of the frame instead of being copied.
    pub shared: bool,
    /// The versions of compact encoding, if they differ from the message's.
    pub flexible: Option<Versions>,
    /// What kind of thing the value names (`topicName`, `brokerId`, ...).
    pub entity: Option<String>,
    /// The fields of the structure that is defined here, empty if it is defined elsewhere.
    pub fields: Vec<Field>,
}

/// A structure that several fields of a message share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// Its name.
    pub name: String,
    /// The versions of the message in which it may occur.
    pub versions: Versions,
    /// Its fields in wire order.
    pub fields: Vec<Field>,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request, the number of its API, and the listeners (`broker`, `controller`) that serve it.
    Request {
        /// The number of the API.
        key: i16,
        /// The listeners that serve it.
        listeners: Vec<String>,
        /// Whether the newest version is hidden unless it is asked for.
        latest_unstable: bool,
    },
    /// An answer and the number of its API.
    Response {
        /// The number of the API.
        key: i16,
    },
    /// What stands before a request or a response.
    Header,
    /// A structure embedded in byte fields or records.
    Data,
}

/// One message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: MessageKind,
    /// Its name, for example `FetchRequest`.
    pub name: String,
    /// The versions that Kafka serves.
    pub versions: Versions,
    /// The versions with compact lengths and tagged sections.
    pub flexible: Versions,
    /// Its fields in wire order.
    pub fields: Vec<Field>,
    /// The structures that several of its fields share.
    pub structs: Vec<Struct>,
}

impl Message {
    /// Every structure of the message with its fields: the shared ones and those defined where they are used.
    pub fn all_structs(&self) -> Vec<(&str, &[Field])> {
        fn collect<'a>(fields: &'a [Field], into: &mut Vec<(&'a str, &'a [Field])>) {
            for field in fields {
                if let Item::Struct(name) = field.kind.item()
                    && !field.fields.is_empty()
                {
                    into.push((name, &field.fields));
                }
                collect(&field.fields, into);
            }
        }
        let mut all = Vec::new();
        collect(&self.fields, &mut all);
        for shared in &self.structs {
            all.push((&shared.name, &shared.fields));
            collect(&shared.fields, &mut all);
        }
        all
    }

    /// The fields of the structure called `name`.
    pub fn struct_fields(&self, name: &str) -> Result<&[Field], SchemaError> {
        self.all_structs()
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, fields)| fields)
            .ok_or_else(|| SchemaError::UnknownStruct { message: self.name.clone(), name: name.to_owned() })
    }
}
