//! From JSON to protobuf: the bytes of an object become those of its message in one pass, without a tree in between.

use std::fmt;

use base64::Engine as _;
use jiff::Timestamp;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    envelope::{announce, close, open, text},
    table::{Field, Kind, Many, Place, Table, table},
};
use crate::{kinds, schema};

/// The object is not what its kind says. Objects that were checked when they were written are.
#[derive(Debug, thiserror::Error)]
#[error("the object has no protobuf form: {0}")]
pub struct Error(#[from] serde_json::Error);

/// Objects of this kind can be written, as themselves and not as something else that the table happens to know.
pub(crate) fn speaks(kind: &kinds::Kind) -> bool {
    kind.strategic && Encoder::of(&kind.api_version(), &kind.kind).is_some()
}

/// Writes objects of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoder {
    message: usize,
}

impl Encoder {
    /// Writes objects of this kind; nothing if it has no protobuf form here.
    pub(crate) fn of(api_version: &str, kind: &str) -> Option<Self> {
        table().index(api_version, kind).map(|message| Self { message })
    }

    /// Writes what is in the `metadata` of objects.
    fn metadata() -> Self {
        Self { message: table().object_meta }
    }

    /// Writes what is in the `metadata` of lists.
    pub(super) fn list_metadata() -> Self {
        Self { message: table().list_meta }
    }

    /// Writes the message of an object, with the `resourceVersion` of its metadata set to `revision` if that is given.
    pub(crate) fn write(self, json: &[u8], revision: Option<u64>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let fields = Fields { message: self.message, revision, out };
        Ok(fields.deserialize(&mut reader)?)
    }

    /// The same of an object that is nothing but its metadata, whose JSON this is.
    pub(crate) fn write_partial(self, metadata: &[u8], revision: Option<u64>, out: &mut Vec<u8>) -> Result<(), Error> {
        let begin = open(1, out);
        Self::metadata().write(metadata, revision, out)?;
        close(begin, out);
        Ok(())
    }
}

fn varint(number: u32, value: i64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value.cast_unsigned(), out);
}

/// The fields of an object, as those of a message. What the message does not know is left out.
struct Fields<'o> {
    message: usize,
    /// The revision, if this is an object that is told of one, or its metadata.
    revision: Option<u64>,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self { message, revision, out } = self;
        let table = table();
        while let Some(place) = fields.next_key_seed(Named { table, message })? {
            let Some(place) = place else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let inside = |kind| matches!(kind, Kind::Message(index) if index == table.object_meta);
            let revision = revision.filter(|_| inside(place.field.kind));
            let before = out.len();
            let mut around = [0; 2]; // no message stands deeper within its parent
            for (begin, number) in around.iter_mut().zip(&place.within) {
                *begin = open(*number, out);
            }
            if !fields.next_value_seed(Written { field: place.field, number: place.number, revision, out })? {
                out.truncate(before);
                continue;
            }
            around[..place.within.len()].iter().rev().for_each(|begin| close(*begin, out));
        }
        if let Some(revision) = revision
            && message == table.object_meta
        {
            text(6, revision.to_string(), out);
        }
        Ok(())
    }
}

/// Which field a name means.
struct Named {
    table: &'static Table,
    message: usize,
}

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Option<&'static Place>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Named {
    type Value = Option<&'static Place>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.table.message(self.message).place(name))
    }
}

/// A field with all its values. Answers whether there are any.
struct Written<'o> {
    field: Field,
    number: u32,
    revision: Option<u64>,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        let Self { field, number, revision, out } = self;
        match field.many {
            Many::One => {
                One { kind: field.kind, keeps_zero: field.keeps_zero, number, revision, out }.deserialize(reader)
            }
            Many::List => reader.deserialize_any(List { kind: field.kind, number, out }),
            Many::Map => reader.deserialize_any(Entries { kind: field.kind, number, out }),
        }
    }
}

struct List<'o> {
    kind: Kind,
    number: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let Self { kind, number, out } = self;
        let mut any = false;
        while let Some(written) =
            items.next_element_seed(One { kind, keeps_zero: true, number, revision: None, out })?
        {
            any = true;
            if !written {
                nothing(kind, number, out);
            }
        }
        Ok(any)
    }
}

struct Entries<'o> {
    kind: Kind,
    number: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<bool, A::Error> {
        let Self { kind, number, out } = self;
        let mut any = false;
        loop {
            let before = out.len();
            let entry = open(number, out);
            if entries.next_key_seed(Key { out: &mut *out })?.is_none() {
                out.truncate(before);
                return Ok(any);
            }
            if !entries.next_value_seed(One { kind, keeps_zero: true, number: 2, revision: None, out: &mut *out })? {
                nothing(kind, 2, out);
            }
            close(entry, out);
            any = true;
        }
    }
}

/// The key of an entry, which is its first field.
struct Key<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        text(1, key, self.out);
        Ok(())
    }
}

/// Writes the zero of a kind: among several values each counts, also one that says nothing.
fn nothing(kind: Kind, number: u32, out: &mut Vec<u8>) {
    match kind {
        Kind::Int | Kind::Bool => varint(number, 0, out),
        Kind::Double => double(number, 0.0, out),
        _ => announce(number, 0, out),
    }
}

fn double(number: u32, value: f64, out: &mut Vec<u8>) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// One value. Answers whether it was written: neither null is, nor the zero of a field where that means nothing.
struct One<'o> {
    kind: Kind,
    keeps_zero: bool,
    number: u32,
    revision: Option<u64>,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        if !matches!(self.kind, Kind::Raw) {
            return reader.deserialize_any(self);
        }
        let json = <&RawValue>::deserialize(reader)?.get();
        if json == "null" {
            return Ok(false);
        }
        let message = open(self.number, self.out);
        text(1, json, self.out);
        close(message, self.out);
        Ok(true)
    }
}

impl One<'_> {
    fn number(self, value: i64) -> bool {
        let written = value != 0 || self.keeps_zero;
        match self.kind {
            Kind::Int if written => varint(self.number, value, self.out),
            Kind::Int => return false,
            // Go keeps a number where text could be, and writes quantities as text.
            Kind::IntOrString => {
                let message = open(self.number, self.out);
                varint(1, 0, self.out);
                varint(2, value, self.out);
                text(3, "", self.out);
                close(message, self.out);
            }
            #[expect(clippy::cast_precision_loss, reason = "a double is what the field holds")]
            _ => return self.double(value as f64, || value.to_string()),
        }
        true
    }

    fn double(self, value: f64, shown: impl Fn() -> String) -> bool {
        match self.kind {
            Kind::Double if value != 0.0 || self.keeps_zero => double(self.number, value, self.out),
            Kind::Quantity => {
                let message = open(self.number, self.out);
                text(1, shown(), self.out);
                close(message, self.out);
            }
            _ => return false,
        }
        true
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::String | Kind::Bytes => "text",
            Kind::Int | Kind::Double => "a number",
            Kind::Bool => "true or false",
            Kind::Time | Kind::MicroTime => "a time",
            Kind::Duration => "a duration",
            Kind::Quantity => "a quantity",
            Kind::IntOrString => "a number or text",
            Kind::Strings => "a list of texts",
            Kind::Message(_) => "an object",
            Kind::Raw | Kind::OrArray | Kind::OrBool | Kind::OrStrings => "anything else",
        })
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        match self.kind {
            Kind::Bool if value || self.keeps_zero => varint(self.number, value.into(), self.out),
            Kind::Bool => return Ok(false),
            Kind::OrBool => {
                let message = open(self.number, self.out);
                varint(1, value.into(), self.out);
                close(message, self.out);
            }
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(true)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        match self.kind {
            Kind::Int | Kind::Double | Kind::IntOrString | Kind::Quantity => Ok(self.number(value)),
            _ => Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        match self.kind {
            Kind::Double | Kind::Quantity => Ok(self.double(value, || value.to_string())),
            _ => Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<bool, E> {
        let Self { number, .. } = self;
        match self.kind {
            Kind::String | Kind::Bytes if value.is_empty() && !self.keeps_zero => return Ok(false),
            Kind::String => text(number, value, self.out),
            Kind::Bytes => {
                let bytes = schema::BASE64.decode(value).map_err(E::custom)?;
                text(number, bytes, self.out);
            }
            Kind::Time | Kind::MicroTime => {
                let time: Timestamp = value.parse().map_err(E::custom)?;
                // Counted from the second before, also before 1970.
                let (second, nanosecond) = match time.subsec_nanosecond() {
                    before @ ..0 => (time.as_second() - 1, before + 1_000_000_000),
                    after => (time.as_second(), after),
                };
                let message = open(number, self.out);
                varint(1, second, self.out);
                if matches!(self.kind, Kind::MicroTime) {
                    varint(2, nanosecond.into(), self.out);
                }
                close(message, self.out);
            }
            Kind::Duration => {
                let duration = onex_crds::duration::parse(value).map_err(E::custom)?;
                let message = open(number, self.out);
                varint(1, duration.as_nanos().try_into().map_err(E::custom)?, self.out);
                close(message, self.out);
            }
            Kind::Quantity => {
                let message = open(number, self.out);
                text(1, value, self.out);
                close(message, self.out);
            }
            Kind::IntOrString => {
                let message = open(number, self.out);
                varint(1, 1, self.out);
                varint(2, 0, self.out);
                text(3, value, self.out);
                close(message, self.out);
            }
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(value), &self)),
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<bool, A::Error> {
        let (inner, schema) = match self.kind {
            Kind::Message(index) => (None, index),
            Kind::OrArray | Kind::OrStrings => (Some(1), table().schema),
            Kind::OrBool => (Some(2), table().schema),
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        };
        let Self { number, revision, out, .. } = self;
        let message = open(number, out);
        if matches!(inner, Some(2)) {
            varint(1, 1, out); // a schema also allows
        }
        let inside = inner.map(|number| open(number, out));
        Fields { message: schema, revision, out: &mut *out }.visit_map(fields)?;
        inside.into_iter().for_each(|inside| close(inside, out));
        close(message, out);
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<bool, A::Error> {
        let (number, kind) = match self.kind {
            Kind::Strings => (1, Kind::String),
            Kind::OrStrings => (2, Kind::String),
            Kind::OrArray => (2, Kind::Message(table().schema)),
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
        };
        let message = open(self.number, self.out);
        List { kind, number, out: &mut *self.out }.visit_seq(items)?;
        close(message, self.out);
        Ok(true)
    }
}
