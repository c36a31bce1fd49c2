//! From the bytes of a request to an object: media type, limits, duplicates.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::{
    Inner,
    router::Next,
    status::{Result, Status},
};

/// No body may be longer than this.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// Reads the whole body, up to [`LIMIT`].
pub async fn read(body: Body) -> Result<Bytes> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Status::too_large(LIMIT)),
        Err(error) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// So much of a body that nobody read is read after the answer is known.
const LEFT_OVER: usize = 256 * 1024;
/// And it may take so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads what is left of a body that was refused early, such as that of a POST to nowhere. HTTP/1.1 would have to close
/// the connection otherwise, and a client that keeps it alive would lose its next request.
pub(crate) async fn finish(_server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    if request.body().is_end_stream() {
        return next(request).await;
    }
    let (give_back, mut left) = oneshot::channel();
    let request = request.map(|body| Body::new(Lent { body: Some(body), give_back: Some(give_back) }));
    let response = next(request).await;
    if let Ok(body) = left.try_recv()
        && !body.is_end_stream()
    {
        let rest = Limited::new(body, LEFT_OVER).collect();
        // What is too long, or too slow, does close the connection.
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }
    response
}

/// A body that goes back when it is dropped.
struct Lent {
    body: Option<Body>,
    give_back: Option<oneshot::Sender<Body>>,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let body = self.body.as_mut().expect("it only goes back when this is dropped");
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(give_back)) = (self.body.take(), self.give_back.take()) {
            let _ = give_back.send(body); // nobody waits for it any more when the request was given up
        }
    }
}

/// The media type of a request body, without parameters; JSON if the client does not say.
pub fn media_type(headers: &HeaderMap) -> &str {
    let named = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match named.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        named => named,
    }
}

/// What a body holds.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// Fields that were written more than once, in the words of the strict decoder.
    pub duplicates: Vec<String>,
    /// The body was protobuf, which cannot have unknown or duplicate fields.
    pub protobuf: bool,
}

/// Reads a body of POST, PUT or DELETE.
pub fn decode(media: &str, bytes: &[u8]) -> Result<Decoded> {
    match media {
        "application/json" => json(bytes),
        "application/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => {
            let decoded = crate::protobuf::decode(bytes)?;
            Ok(Decoded { object: decoded.object, duplicates: Vec::new(), protobuf: true })
        }
        _ => Err(Status::unsupported_media_type(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ])),
    }
}

/// Reads JSON; duplicate fields are noticed, and the last one counts.
pub fn json(bytes: &[u8]) -> Result<Decoded> {
    let mut duplicates = Vec::new();
    let mut path = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Noticing { path: &mut path, duplicates: &mut duplicates };
    let object = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let object = object.map_err(|error| {
        Status::bad_request(format!("couldn't get version/kind; json parse error: {}", go_error(bytes, &error)))
    })?;
    Ok(Decoded { object, duplicates, protobuf: false })
}

/// What Go calls a JSON value.
pub fn go_name(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Object(_) => "object",
        Value::Null => "null",
    }
}

/// What Go says of text that is no JSON: people look for its words, and programs for the last of them.
pub fn go_error(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let said = error.to_string();
    let place = match said.split(" at line ").next().unwrap_or_default() {
        "expected value" | "trailing comma" => "looking for beginning of value",
        "key must be a string" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "trailing characters" => "after top-level value",
        _ => return said,
    };
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = String::from_utf8_lossy(&line[error.column().saturating_sub(1).min(line.len())..]).into_owned();
    match rest.chars().next() {
        Some(character) => format!("invalid character {character:?} {place}"),
        None => said,
    }
}

/// Reads YAML, or JSON, which is YAML.
pub fn yaml(bytes: &[u8]) -> Result<Decoded> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = json(bytes)
    {
        return Ok(decoded);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("the body is not valid UTF-8"))?;
    // `y`, `on` and `no` are text, as they are to Kubernetes.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let error = match serde_saphyr::from_str_with_options(text, options) {
        Ok(object) => return Ok(Decoded { object, duplicates: Vec::new(), protobuf: false }),
        Err(error) => error,
    };
    let wrong = |error: &serde_saphyr::Error| Status::bad_request(format!("yaml parse error: {error}"));
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = &error else { return Err(wrong(&error)) };
    // The first field that comes twice is told of. Whether that is an error is for the client to say.
    let twice = format!(
        "yaml: unmarshal errors:\n  line {}: key {:?} already set in map",
        location.line(),
        key.as_deref().unwrap_or_default()
    );
    let options = serde_saphyr::options! {
        strict_booleans: true, with_snippet: false, duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let object = serde_saphyr::from_str_with_options(text, options).map_err(|error| wrong(&error))?;
    Ok(Decoded { object, duplicates: vec![twice], protobuf: false })
}

/// Builds a `Value` as serde_json does, and notices fields that come twice.
struct Noticing<'a> {
    path: &'a mut Vec<String>,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Noticing<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noticing<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.path.push(format!("[{}]", list.len()));
            let item = items.next_element_seed(Noticing { path: self.path, duplicates: self.duplicates })?;
            self.path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> std::result::Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.path.push(name);
            let value = fields.next_value_seed(Noticing { path: self.path, duplicates: self.duplicates })?;
            let name = self.path.pop().expect("pushed above");
            if object.insert(name.clone(), value).is_some() {
                self.path.push(name);
                crate::schema::complain(self.duplicates, || {
                    format!("duplicate field {:?}", crate::schema::joined(self.path))
                });
                self.path.pop();
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_fields_are_named_by_their_path() {
        let decoded = json(br#"{"spec":{"a":1,"a":2,"list":[{"x":1,"x":1}]}}"#).unwrap();
        assert_eq!(decoded.duplicates, [r#"duplicate field "spec.a""#, r#"duplicate field "spec.list[0].x""#]);
        assert_eq!(decoded.object["spec"]["a"], 2);
    }

    #[test]
    fn a_body_that_is_a_thousand_levels_deep_is_refused_without_harm() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
        assert_eq!(json(deep.as_bytes()).unwrap_err().code, 400);
        assert_eq!(yaml(deep.as_bytes()).unwrap_err().code, 400);
    }

    #[test]
    fn a_hexadecimal_account_that_no_integer_can_hold_stays_text() {
        let decoded = yaml(b"spec:\n  bootstrapAccount: 0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e\n").unwrap();
        assert_eq!(decoded.object["spec"]["bootstrapAccount"], "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e");
    }
}
