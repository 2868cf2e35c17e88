//! Valid message bodies drawn at random from the layouts: an encoder of its own, which shares no code with the
//! generated one and therefore can stand against it in tests.
//!
//! A sample is canonical: tagged fields appear only with a value other than their default, lengths are as short
//! as they can be. Decoding a sample and encoding the result must give the same bytes.

use crate::layout::{DefaultValue, FieldLayout, Layout, StructLayout};
use crate::schema::{Item, Scalar};

/// How large a sample may grow.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The longest array.
    pub elements_max: usize,
    /// The longest text or byte field.
    pub bytes_max: usize,
}

/// Draws samples from a seed; the same seed gives the same samples.
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
    bounds: Bounds,
}

/// Where in a message the sampler is.
#[derive(Clone, Copy)]
struct Place<'a> {
    layout: &'a Layout,
    version: i16,
}

impl Sampler {
    /// A sampler for this seed.
    pub fn new(seed: u64, bounds: Bounds) -> Self {
        Self { state: seed, bounds }
    }

    /// The next 64 random bits (SplitMix64).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.bits() % bound).unwrap_or(0)
    }

    /// The body of a message in `version`.
    pub fn message(&mut self, layout: &Layout, version: i16) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(root) = layout.structs.first() {
            self.structure(Place { layout, version }, root, &mut out);
        }
        out
    }

    fn structure(&mut self, place: Place<'_>, structure: &StructLayout, out: &mut Vec<u8>) {
        let here = |field: &&FieldLayout| field.versions.contains(place.version);
        for field in structure.fields.iter().filter(here).filter(|field| field.tag.is_none()) {
            self.field(place, field, out);
        }
        if !place.layout.flexible.contains(place.version) {
            return;
        }
        let mut tagged: Vec<_> =
            structure.fields.iter().filter(here).filter_map(|field| Some((field.tag?, field))).collect();
        tagged.sort_by_key(|(tag, _)| *tag);
        let mut section = Vec::new();
        let mut count = 0;
        for (tag, field) in tagged {
            let mut value = Vec::new();
            self.field(place, field, &mut value);
            if self.below(4) != 0 && value != default_bytes(place, field) {
                count += 1;
                varint(tag, &mut section);
                varint(u32::try_from(value.len()).unwrap_or(u32::MAX), &mut section);
                section.extend_from_slice(&value);
            }
        }
        varint(count, out);
        out.extend_from_slice(&section);
    }

    fn field(&mut self, place: Place<'_>, field: &FieldLayout, out: &mut Vec<u8>) {
        let nullable = field.nullable.contains(place.version);
        let null = nullable && self.below(4) == 0;
        let compact = field.flexible.contains(place.version);
        match &field.item {
            _ if field.array => {
                let count = self.below(self.bounds.elements_max + 1);
                if null {
                    return length(None, Scalar::Bytes, compact, out);
                }
                length(Some(count), Scalar::Bytes, compact, out);
                for _ in 0..count {
                    self.item(place, &field.item, compact, out);
                }
            }
            Item::Struct(_) if nullable => {
                out.push(if null { 0xff } else { 1 });
                if !null {
                    self.item(place, &field.item, compact, out);
                }
            }
            Item::Scalar(scalar) if null => length(None, *scalar, compact, out),
            item => self.item(place, item, compact, out),
        }
    }

    fn item(&mut self, place: Place<'_>, item: &Item, compact: bool, out: &mut Vec<u8>) {
        match item {
            Item::Struct(name) => {
                if let Some(structure) = place.layout.find(name) {
                    self.structure(place, structure, out);
                }
            }
            Item::Scalar(Scalar::Bool) => out.push(u8::from(self.below(2) == 1)),
            Item::Scalar(Scalar::Float64) => {
                // A finite number, so that equality of decoded values means something.
                let number = f64::from(u32::try_from(self.below(1 << 30)).unwrap_or(0)) / 8.0;
                out.extend_from_slice(&number.to_be_bytes());
            }
            Item::Scalar(scalar) => match scalar.fixed_len() {
                Some(len) => {
                    let small = self.below(3) == 0;
                    for i in 0..len {
                        let byte = self.bits().to_be_bytes()[0];
                        out.push(if small && i + 1 < len { 0 } else { byte });
                    }
                }
                None => self.variable(*scalar, compact, out),
            },
        }
    }

    fn variable(&mut self, scalar: Scalar, compact: bool, out: &mut Vec<u8>) {
        let wanted = self.below(self.bounds.bytes_max + 1);
        if scalar == Scalar::String {
            let letters = ['a', 'Z', '0', '-', '.', '_', 'ß', '河', '🦀'];
            let mut text = String::new();
            while text.len() < wanted {
                text.push(letters[self.below(letters.len())]);
            }
            length(Some(text.len()), scalar, compact, out);
            out.extend_from_slice(text.as_bytes());
        } else {
            length(Some(wanted), scalar, compact, out);
            for _ in 0..wanted {
                let byte = self.bits().to_be_bytes()[0];
                out.push(byte);
            }
        }
    }
}

/// A length prefix: compact ones carry the length plus one as a varint, null being zero.
fn length(len: Option<usize>, scalar: Scalar, compact: bool, out: &mut Vec<u8>) {
    let signed = len.map_or(-1, |len| i32::try_from(len).unwrap_or(i32::MAX));
    if compact {
        varint(u32::try_from(signed + 1).unwrap_or(0), out);
    } else if scalar == Scalar::String {
        out.extend_from_slice(&i16::try_from(signed).unwrap_or(i16::MAX).to_be_bytes());
    } else {
        out.extend_from_slice(&signed.to_be_bytes());
    }
}

fn varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The encoding of a tagged field's default value, which a canonical message does not contain.
fn default_bytes(place: Place<'_>, field: &FieldLayout) -> Vec<u8> {
    let mut out = Vec::new();
    let compact = field.flexible.contains(place.version);
    match (&field.default, &field.item) {
        (DefaultValue::Null, _) => length(None, Scalar::Bytes, compact, &mut out),
        (_, _) if field.array => length(Some(0), Scalar::Bytes, compact, &mut out),
        (_, Item::Struct(name)) => {
            if let Some(structure) = place.layout.find(name) {
                default_structure(place, structure, &mut out);
            }
        }
        (default, Item::Scalar(scalar)) => default_scalar(default, *scalar, compact, &mut out),
    }
    out
}

fn default_structure(place: Place<'_>, structure: &StructLayout, out: &mut Vec<u8>) {
    for field in &structure.fields {
        if field.tag.is_none() && field.versions.contains(place.version) {
            out.extend_from_slice(&default_bytes(place, field));
        }
    }
    if place.layout.flexible.contains(place.version) {
        varint(0, out);
    }
}

fn default_scalar(default: &DefaultValue, scalar: Scalar, compact: bool, out: &mut Vec<u8>) {
    let number = match default {
        DefaultValue::Number(number) => *number,
        DefaultValue::True => 1,
        DefaultValue::Text(text) => {
            length(Some(text.len()), scalar, compact, out);
            return out.extend_from_slice(text.as_bytes());
        }
        DefaultValue::Zero | DefaultValue::Null => 0,
    };
    match scalar.fixed_len() {
        None => length(Some(0), scalar, compact, out),
        Some(16) => out.extend_from_slice(&[0; 16]),
        Some(len) => out.extend_from_slice(&number.to_be_bytes()[8 - len..]),
    }
}
