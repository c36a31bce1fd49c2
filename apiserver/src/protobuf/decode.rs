//! From protobuf to JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{
    table::{Field, Kind, Many, Message, Table, table},
    wire::{Malformed, Written, fields},
};
use crate::{
    patch::{MOST_LEVELS, nests_within},
    status::{self, Status},
};

/// What every body begins with.
pub(super) const PREFIX: &[u8] = b"k8s\0";
/// Messages within messages.
const MOST_DEPTH: usize = 100;

/// A body, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The version that the envelope names: `apps/v1`.
    pub api_version: String,
    /// The kind that the envelope names.
    pub kind: String,
    /// The object as JSON, with `apiVersion` and `kind`.
    pub object: Value,
}

/// Reads a body of `application/vnd.kubernetes.protobuf`.
///
/// 400 if it makes no sense; 415 if its kind belongs to a group whose objects have no protobuf form here.
pub fn decode(body: &[u8]) -> status::Result<Decoded> {
    let Some(envelope) = body.strip_prefix(PREFIX) else {
        return Err(Status::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    };
    let refused = |error: Malformed| Status::bad_request(format!("the body is not valid protobuf: {}", error.0));
    let envelope = Envelope::read(envelope).map_err(refused)?;
    let Some(message) = table().kind(&envelope.api_version, &envelope.kind) else {
        return Err(envelope.unknown());
    };
    let object = envelope.object(message, MOST_DEPTH).map_err(|error| {
        let Envelope { api_version, kind, .. } = &envelope;
        let version = api_version.rsplit('/').next().unwrap_or_default();
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {}", error.0))
    })?;
    if !nests_within(&object, MOST_LEVELS) {
        return Err(refused(Malformed::new("the object is nested too deeply")));
    }
    Ok(Decoded { api_version: envelope.api_version, kind: envelope.kind, object })
}

/// `runtime.Unknown`: what is inside, and of which kind it is.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        for field in fields(message) {
            match field? {
                (1, type_meta) => {
                    for field in fields(type_meta.bytes()?) {
                        match field? {
                            (1, text) => text.text()?.clone_into(&mut envelope.api_version),
                            (2, text) => text.text()?.clone_into(&mut envelope.kind),
                            _ => {}
                        }
                    }
                }
                (2, raw) => envelope.raw = raw.bytes()?,
                (3, encoding) if !encoding.bytes()?.is_empty() => {
                    return Err(Malformed::new("encoded contents are not supported"));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn object(&self, message: &Message, depth: usize) -> Result<Value, Malformed> {
        let mut object = Map::new();
        Reader { table: table() }.message(self.raw, message, &mut object, depth)?;
        object.insert("apiVersion".to_owned(), self.api_version.as_str().into());
        object.insert("kind".to_owned(), self.kind.as_str().into());
        Ok(Value::Object(object))
    }

    fn unknown(&self) -> Status {
        if self.kind.is_empty() || self.api_version.is_empty() {
            return Status::bad_request("Object 'Kind' and 'apiVersion' must be set in the protobuf envelope");
        }
        if table().has_version(&self.api_version) {
            let Self { kind, api_version, .. } = self;
            return Status::bad_request(format!("no kind {kind:?} is registered for version {api_version:?}"));
        }
        Status::unsupported_media_type(&["application/json", "application/yaml"])
    }
}

struct Reader {
    table: &'static Table,
}

impl Reader {
    fn message(
        &self,
        bytes: &[u8],
        message: &Message,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or_else(|| Malformed::new("messages are nested too deeply"))?;
        for field in fields(bytes) {
            let (number, written) = field?;
            let Some(field) = message.field(number) else { continue };
            self.field(field, written, object, depth)
                .map_err(|error| Malformed(format!("{}: {}", field.name.unwrap_or("inline"), error.0)))?;
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        written: Written<'_>,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let Some(name) = field.name else {
            return match field.kind {
                Kind::Message(index) => self.message(written.bytes()?, self.table.message(index), object, depth),
                _ => Err(Malformed::new("not a message")),
            };
        };
        match (field.many, field.kind) {
            (Many::One, Kind::Message(index)) => {
                // A message that is written twice is merged, as protobuf has it.
                let before = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(before) = before else { return Err(Malformed::new("two fields of one name")) };
                self.message(written.bytes()?, self.table.message(index), before, depth)?;
            }
            (Many::One, kind) => {
                let value = self.value(kind, written, depth)?;
                if value.is_null() || (!field.keeps_zero && is_zero(kind, &value)) {
                    object.remove(name);
                } else {
                    object.insert(name.to_owned(), value);
                }
            }
            (Many::List, kind) => {
                let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Err(Malformed::new("two fields of one name")) };
                match (kind, written) {
                    (Kind::Int, Written::Bytes(packed)) => list.extend(packed_numbers(packed)?),
                    _ => list.push(self.value(kind, written, depth)?),
                }
            }
            (Many::Map, kind) => {
                let (key, value) = self.entry(kind, written.bytes()?, depth)?;
                let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(map) = map else { return Err(Malformed::new("two fields of one name")) };
                map.insert(key, value);
            }
        }
        Ok(())
    }

    /// An entry of a map: a message with the key and the value, either of which is left out if it is empty.
    fn entry(&self, kind: Kind, bytes: &[u8], depth: usize) -> Result<(String, Value), Malformed> {
        let mut key = String::new();
        let mut value = None;
        for field in fields(bytes) {
            match field? {
                (1, text) => text.text()?.clone_into(&mut key),
                (2, written) => value = Some(self.value(kind, written, depth)?),
                _ => {}
            }
        }
        let empty = match kind {
            Kind::Int | Kind::Bool => Written::Varint(0),
            Kind::Double => Written::Fixed64(0),
            _ => Written::Bytes(&[]),
        };
        Ok((key, value.map_or_else(|| self.value(kind, empty, depth), Ok)?))
    }

    fn value(&self, kind: Kind, written: Written<'_>, depth: usize) -> Result<Value, Malformed> {
        Ok(match kind {
            Kind::String => written.text()?.into(),
            Kind::Int => signed(written.number()?).into(),
            Kind::Bool => (written.number()? != 0).into(),
            Kind::Double => double(written)?,
            Kind::Bytes => BASE64.encode(written.bytes()?).into(),
            Kind::Time => time(written.bytes()?, false)?,
            Kind::MicroTime => time(written.bytes()?, true)?,
            Kind::Duration => duration(written.bytes()?)?,
            Kind::Quantity => match first_text(written.bytes()?)? {
                "" => "0".into(),
                text => text.into(),
            },
            Kind::IntOrString => int_or_string(written.bytes()?)?,
            Kind::Raw => raw(written.bytes()?, depth)?,
            Kind::Strings => strings(written.bytes()?)?,
            Kind::OrArray | Kind::OrBool | Kind::OrStrings => self.union(kind, written.bytes()?, depth)?,
            Kind::Message(index) => {
                let mut object = Map::new();
                self.message(written.bytes()?, self.table.message(index), &mut object, depth)?;
                Value::Object(object)
            }
        })
    }

    /// The unions of JSONSchemaProps: a schema, or else a boolean, several schemas, or names of properties.
    fn union(&self, kind: Kind, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let props = self.table.message(self.table.schema);
        let mut schema = None;
        let mut others = Vec::new();
        let mut allowed = false;
        for field in fields(bytes) {
            match (kind, field?) {
                (Kind::OrBool, (1, written)) => allowed = written.number()? != 0,
                (Kind::OrStrings, (2, written)) => others.push(written.text()?.into()),
                (Kind::OrArray, (2, written)) => others.push(self.object(props, written.bytes()?, depth)?),
                (_, (1 | 2, written)) => schema = Some(self.object(props, written.bytes()?, depth)?),
                _ => {}
            }
        }
        Ok(match (kind, schema) {
            (Kind::OrBool, None) => allowed.into(),
            (_, None) => others.into(),
            (Kind::OrBool, Some(schema)) => schema,
            (_, Some(_)) if !others.is_empty() => others.into(),
            (_, Some(schema)) => schema,
        })
    }

    fn object(&self, message: &Message, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut object = Map::new();
        self.message(bytes, message, &mut object, depth)?;
        Ok(Value::Object(object))
    }
}

/// Go writes negative numbers in two's complement.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn packed_numbers(mut packed: &[u8]) -> Result<Vec<Value>, Malformed> {
    let mut numbers = Vec::new();
    while !packed.is_empty() {
        let number = prost::encoding::decode_varint(&mut packed).map_err(|error| Malformed(error.to_string()))?;
        numbers.push(signed(number).into());
    }
    Ok(numbers)
}

fn is_zero(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::String | Kind::Bytes => value == "",
        Kind::Int | Kind::Double | Kind::IntOrString => value == 0,
        Kind::Bool => value == false,
        _ => false,
    }
}

/// Whole numbers are written without a fraction, as Go does.
fn double(written: Written<'_>) -> Result<Value, Malformed> {
    let number = match written {
        Written::Fixed64(bits) => f64::from_bits(bits),
        Written::Fixed32(bits) => f64::from(f32::from_bits(bits)),
        other => return Err(Malformed::new(format!("expected a number, got {other:?}"))),
    };
    const EXACT: f64 = 9_007_199_254_740_992.0; // up to here every whole number is a double of its own
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        return Ok((number as i64).into());
    }
    Number::from_f64(number).map(Value::Number).ok_or_else(|| Malformed::new("not a finite number"))
}

/// Seconds and nanoseconds since 1970; nothing written is no time.
fn time(bytes: &[u8], micro: bool) -> Result<Value, Malformed> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    const YEAR_ONE: i64 = -62_135_596_800;
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, written) => seconds = signed(written.number()?),
            (2, written) => nanos = signed(written.number()?),
            _ => {}
        }
    }
    let out_of_range = || Malformed::new(format!("a time of {seconds} seconds is out of range"));
    if seconds < YEAR_ONE || !(0..1_000_000_000).contains(&nanos) {
        return Err(out_of_range());
    }
    let nanos = if micro { i32::try_from(nanos).map_err(|_| out_of_range())? } else { 0 };
    let time = Timestamp::new(seconds, nanos).map_err(|_| out_of_range())?;
    Ok(if micro { time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string() } else { time.to_string() }.into())
}

/// Nanoseconds, as a duration of Go. One that is negative is for the checks to refuse.
fn duration(bytes: &[u8]) -> Result<Value, Malformed> {
    const SECOND: i64 = 1_000_000_000;
    let mut nanos = 0;
    for field in fields(bytes) {
        if let (1, written) = field? {
            nanos = signed(written.number()?);
        }
    }
    Ok(match u64::try_from(nanos / SECOND) {
        Ok(seconds) if nanos % SECOND == 0 => onex_crds::duration::of_seconds(seconds),
        _ => format!("{nanos}ns"),
    }
    .into())
}

fn first_text(bytes: &[u8]) -> Result<&str, Malformed> {
    let mut found = "";
    for field in fields(bytes) {
        if let (1, written) = field? {
            found = written.text()?;
        }
    }
    Ok(found)
}

fn strings(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut list = Vec::new();
    for field in fields(bytes) {
        if let (1, written) = field? {
            list.push(written.text()?.into());
        }
    }
    Ok(Value::Array(list))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in fields(bytes) {
        match field? {
            (1, written) => is_text = written.number()? == 1,
            (2, written) => number = signed(written.number()?),
            (3, written) => text = written.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// JSON as it is, or an object in an envelope of its own.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let mut raw: &[u8] = &[];
    for field in fields(bytes) {
        if let (1, written) = field? {
            raw = written.bytes()?;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if let Some(envelope) = raw.strip_prefix(PREFIX) {
        let depth = depth.checked_sub(1).ok_or_else(|| Malformed::new("messages are nested too deeply"))?;
        let envelope = Envelope::read(envelope)?;
        let message = table().kind(&envelope.api_version, &envelope.kind);
        return envelope.object(message.ok_or_else(|| Malformed(envelope.unknown().message))?, depth);
    }
    serde_json::from_slice(raw).map_err(|error| Malformed(format!("not valid JSON: {error}")))
}
