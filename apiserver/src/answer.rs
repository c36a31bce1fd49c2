//! From an object to a response: the object itself, a table, its metadata; JSON, YAML or protobuf.

use axum::{body::Body, response::Response};
use bytes::{BufMut, BytesMut};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::{
    kinds::Kind,
    negotiate::{Form, Media, PROTOBUF, SERVED, View},
    protobuf,
    status::{Result, Status},
    table::{self, Include, MetaVersion},
    window::{Item, Stored},
};

mod messages;

pub(crate) use messages::Messages;

/// Writes objects of one kind in one form.
pub(crate) struct Answer<'a> {
    kind: &'a Arc<Kind>,
    form: Form,
    include: Include,
    now: i64,
}

impl<'a> Answer<'a> {
    /// `include` is what `includeObject` says; `now` is in seconds since 1970.
    pub(crate) fn new(kind: &'a Arc<Kind>, form: Form, include: Option<&str>, now: i64) -> Result<Self> {
        Ok(Self { kind, form, include: Include::parse(include)?, now })
    }

    /// A stored object. In its plain form the stored bytes go out as they are.
    pub(crate) fn stored(&self, stored: &Stored, revision: u64) -> Result<Response> {
        match (self.form.media, self.form.view, &self.kind.conversion) {
            (Media::Json, View::Whole, None) => {
                let mut out = BytesMut::with_capacity(stored.size() + 1);
                stored.write(revision, &mut out);
                out.put_u8(b'\n');
                Ok(json_response(Body::from(out.freeze())))
            }
            (Media::Protobuf, View::Whole, None) => {
                let (api_version, kind) = (self.kind.api_version(), self.kind.kind.as_str());
                let encoder =
                    protobuf::Encoder::of(&api_version, kind).ok_or_else(|| Status::not_acceptable(&SERVED[..2]))?;
                protobuf_response(protobuf::encode((&api_version, kind), encoder, stored.raw(), Some(revision)))
            }
            _ => self.object(&self.served(stored.value_at(revision))),
        }
    }

    fn served(&self, object: Value) -> Value {
        match &self.kind.conversion {
            Some(conversion) => (conversion.serve)(object),
            None => object,
        }
    }

    /// An object of this kind.
    pub(crate) fn object(&self, object: &Value) -> Result<Response> {
        let shown = match self.form.view {
            View::Whole => return write(self.form.media, object),
            View::Table(version) => table::table_of(self.kind, object, self.include, version, true, self.now),
            View::Metadata(version) => table::partial(object, version),
            View::MetadataList(_) => return Err(Status::not_acceptable(SERVED)),
        };
        write(self.form.media, &shown)
    }

    /// A list of objects of this kind.
    pub(crate) fn list(&self, objects: Vec<Value>, metadata: Value) -> Result<Response> {
        let shown = match self.form.view {
            View::Whole => json!({
                "kind": self.kind.list_kind,
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
                "items": objects,
            }),
            View::Table(version) => {
                let row = |o: &Value| table::row(self.kind, o, self.include, version, self.now);
                table::table(self.kind, objects.iter().map(row).collect(), metadata, version, true)
            }
            View::MetadataList(version) => {
                let items = objects.iter().map(|o| table::partial(o, version)).collect();
                table::partial_list(items, metadata, version)
            }
            View::Metadata(_) => return Err(Status::not_acceptable(SERVED)),
        };
        write(self.form.media, &shown)
    }

    /// The list in pieces: what comes before its items, and how each of them is shown.
    pub(crate) fn pieces(&self, metadata: Value) -> Result<Pieces> {
        let (kind, version, columns) = match self.form.view {
            View::Whole => (self.kind.list_kind.clone(), self.kind.api_version(), None),
            View::Table(version) => {
                let columns = format!(r#""columnDefinitions":{},"rows":["#, table::definitions(self.kind));
                ("Table".to_owned(), version.api_version().to_owned(), Some(columns))
            }
            View::MetadataList(version) => {
                ("PartialObjectMetadataList".to_owned(), version.api_version().to_owned(), None)
            }
            View::Metadata(_) => return Err(Status::not_acceptable(SERVED)),
        };
        let items = columns.unwrap_or_else(|| r#""items":["#.to_owned());
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},{items}"#);
        let plain = self.form.view == View::Whole && self.kind.conversion.is_none();
        let shown = Shown { kind: self.kind.clone(), view: self.form.view, include: self.include, now: self.now };
        Ok(Pieces { head, row: (!plain).then_some(shown) })
    }

    /// The list in pieces of protobuf; nothing if that is not how it is to be written.
    pub(crate) fn messages(&self) -> Option<Messages> {
        (self.form.media == Media::Protobuf).then(|| Messages::new(self.kind, self.form)).flatten()
    }

    /// A list of what is watched in this form, without items: what a client needs to make a list of the state that a watch
    /// begins with.
    pub(crate) fn empty_list(&self) -> Result<Vec<u8>> {
        let (metadata, version) = (json!({}), self.kind.api_version());
        let list = match self.form.view {
            View::Metadata(version) => table::partial_list(Vec::new(), metadata, version),
            _ => json!({"kind": self.kind.list_kind, "apiVersion": version, "metadata": metadata, "items": []}),
        };
        let view = match self.form.view {
            View::Metadata(version) => View::MetadataList(version),
            other => other,
        };
        let listing = Answer { form: Form { view, ..self.form }, ..*self };
        match listing.messages() {
            Some(messages) => {
                let head = messages.begin(&list["metadata"], 0).map_err(Status::internal)?;
                Ok([&head, messages.end()].concat())
            }
            None => Ok(list.to_string().into_bytes()),
        }
    }

    /// How each event of a watch is shown; nothing if it is shown as the stored bytes.
    pub(crate) fn row(&self, view: View) -> Option<Row> {
        if view == View::Whole && self.kind.conversion.is_none() {
            return None;
        }
        Some(Row { kind: self.kind.clone(), view, include: self.include, headers: true })
    }
}

/// A list in pieces.
pub(crate) struct Pieces {
    /// What comes before the items, up to the opening bracket.
    pub(crate) head: String,
    /// How an item is shown; nothing if it is shown as the stored bytes.
    pub(crate) row: Option<Shown>,
}

/// How an item of a list is shown, where it is not the stored bytes.
pub(crate) struct Shown {
    kind: Arc<Kind>,
    view: View,
    include: Include,
    now: i64,
}

impl Shown {
    /// Writes what the client sees of an item. Metadata is copied as it is stored.
    pub(crate) fn write(&self, item: &Item, out: &mut BytesMut) {
        let text = |out: &mut BytesMut, value: Value| out.put_slice(value.to_string().as_bytes());
        match (self.view, &self.kind.conversion) {
            (View::MetadataList(version), None) => partial_of(&item.stored, item.revision, version, out),
            (View::Table(version), None) if self.include != Include::Object => {
                out.put_slice(br#"{"cells":"#);
                text(out, table::cells(&self.kind, &item.stored.value_without_managers(), self.now));
                if self.include == Include::Metadata {
                    out.put_slice(br#","object":"#);
                    partial_of(&item.stored, item.revision, version, out);
                }
                out.put_u8(b'}');
            }
            _ => text(out, self.of(item.value())),
        }
    }

    fn of(&self, object: Value) -> Value {
        let object = match &self.kind.conversion {
            Some(conversion) => (conversion.serve)(object),
            None => object,
        };
        match self.view {
            View::Table(version) => table::row(&self.kind, &object, self.include, version, self.now),
            View::Metadata(version) | View::MetadataList(version) => table::partial(&object, version),
            View::Whole => object,
        }
    }
}

/// As [`table::partial`], of a stored object: its metadata is copied as it is stored.
pub(crate) fn partial_of(stored: &Stored, revision: u64, version: MetaVersion, out: &mut BytesMut) {
    out.put_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.put_slice(version.api_version().as_bytes());
    out.put_slice(br#"","metadata":"#);
    stored.write_metadata(revision, out);
    out.put_u8(b'}');
}

/// How each event of a watch is shown, where it is not the stored bytes.
pub(crate) struct Row {
    kind: Arc<Kind>,
    view: View,
    include: Include,
    /// No table was sent yet: only the first one has column definitions.
    headers: bool,
}

impl Row {
    /// In which version the metadata is shown, if that is all and it is shown as it is stored.
    pub(crate) fn copied(&self) -> Option<MetaVersion> {
        match (self.view, &self.kind.conversion) {
            (View::Metadata(version) | View::MetadataList(version), None) => Some(version),
            _ => None,
        }
    }

    /// What the client sees of an object in its stored form.
    pub(crate) fn shown(&mut self, object: Value) -> Value {
        let object = match &self.kind.conversion {
            Some(conversion) => (conversion.serve)(object),
            None => object,
        };
        match self.view {
            View::Table(version) => {
                let headers = std::mem::take(&mut self.headers);
                table::table_of(&self.kind, &object, self.include, version, headers, jiff::Timestamp::now().as_second())
            }
            View::Metadata(version) | View::MetadataList(version) => table::partial(&object, version),
            View::Whole => object,
        }
    }

    /// What the client sees of a bookmark.
    pub(crate) fn bookmark(&mut self, metadata: Value) -> Value {
        match self.view {
            View::Table(version) => {
                let object =
                    json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
                let headers = std::mem::take(&mut self.headers);
                table::table_of(
                    &self.kind,
                    &object,
                    Include::Metadata,
                    version,
                    headers,
                    jiff::Timestamp::now().as_second(),
                )
            }
            View::Metadata(version) | View::MetadataList(version) => partial(metadata, version),
            View::Whole => json!({"metadata": metadata}),
        }
    }
}

fn partial(metadata: Value, version: MetaVersion) -> Value {
    table::partial(&json!({"metadata": metadata}), version)
}

/// Writes any object.
pub(crate) fn write(media: Media, object: &Value) -> Result<Response> {
    if media == Media::Protobuf
        && let Some(encoded) = protobuf::encode_value(object)
    {
        return protobuf_response(encoded);
    }
    let (text, media) = match media {
        Media::Json | Media::Protobuf => (object.to_string(), "application/json"),
        Media::PrettyJson => (serde_json::to_string_pretty(object).map_err(Status::internal)?, "application/json"),
        Media::Yaml => (serde_saphyr::to_string(object).map_err(Status::internal)?, "application/yaml"),
    };
    let mut response = Response::new(Body::from(if text.ends_with('\n') { text } else { text + "\n" }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

/// A response with a body that is JSON already.
pub(crate) fn json_response(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response of protobuf. What was checked when it was written has such a form.
fn protobuf_response(encoded: std::result::Result<Vec<u8>, protobuf::Error>) -> Result<Response> {
    let mut response = Response::new(Body::from(encoded.map_err(Status::internal)?));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    Ok(response)
}

/// The same response with another status code.
pub(crate) fn with_code(mut response: Response, code: StatusCode) -> Response {
    *response.status_mut() = code;
    response
}
