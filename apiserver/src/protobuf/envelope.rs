//! What stands around messages: an envelope around an object, a list around its items, a frame around an event.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde_json::Value;

use super::{
    decode::PREFIX,
    encode::{Encoder, Error},
};

/// What follows the object in an envelope: it is not encoded once more, and of no other media type.
const END: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// Writes an object in its envelope, as it stands alone.
pub(crate) fn encode(
    (api_version, kind): (&str, &str),
    encoder: Encoder,
    json: &[u8],
    revision: Option<u64>,
) -> Result<Vec<u8>, Error> {
    enveloped((api_version, kind), json.len(), |out| encoder.write(json, revision, out))
}

/// Writes any object that says what it is; nothing if its kind has no protobuf form.
pub(crate) fn encode_value(object: &Value) -> Option<Result<Vec<u8>, Error>> {
    let said = |name: &str| object[name].as_str().unwrap_or_default();
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    if let Some(encoder) = Encoder::of(api_version, kind) {
        return Some(encode((api_version, kind), encoder, object.to_string().as_bytes(), None));
    }
    let list = List::of(api_version, kind.strip_suffix("List")?)?;
    let items = object["items"].as_array()?;
    let whole = |out: &mut Vec<u8>| {
        let metadata = open(list.metadata, out);
        Encoder::list_metadata().write(object["metadata"].to_string().as_bytes(), None, out)?;
        close(metadata, out);
        for item in items {
            let begin = open(list.items, out);
            list.item.write(item.to_string().as_bytes(), None, out)?;
            close(begin, out);
        }
        Ok(())
    };
    Some(enveloped((api_version, kind), 0, whole))
}

fn enveloped(
    (api_version, kind): (&str, &str),
    about: usize,
    object: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(about + 64);
    begin(api_version, kind, &mut out);
    let raw = open(2, &mut out);
    object(&mut out)?;
    close(raw, &mut out);
    out.extend_from_slice(END);
    Ok(out)
}

/// The beginning of an envelope: what is inside is of this kind.
fn begin(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX);
    let type_meta = open(1, out);
    text(1, api_version, out);
    text(2, kind, out);
    close(type_meta, out);
}

/// A list of objects of one kind. Its length stands before it, so it must be known when the list begins.
#[derive(Clone, Debug)]
pub(crate) struct List {
    api_version: String,
    kind: String,
    /// Writes one of its items.
    pub(crate) item: Encoder,
    metadata: u32,
    items: u32,
}

impl List {
    /// What comes after the items.
    pub(crate) const END: &[u8] = END;

    /// A list of objects of this kind; nothing if that has no protobuf form here.
    pub(crate) fn of(api_version: &str, item: &str) -> Option<Self> {
        // The one list that is numbered otherwise.
        let (metadata, items) = if api_version == "meta.k8s.io/v1beta1" { (2, 1) } else { (1, 2) };
        let (kind, encoder) = (format!("{item}List"), Encoder::of(api_version, item)?);
        Some(Self { api_version: api_version.to_owned(), kind, item: encoder, metadata, items })
    }

    /// How much longer the list becomes by an item of so many bytes.
    pub(crate) fn grows_by(&self, item: usize) -> usize {
        1 + encoded_len_varint(item as u64) + item
    }

    /// What comes before the items, which make the list longer by `items`.
    pub(crate) fn begin(&self, metadata: &Value, items: usize) -> Result<Vec<u8>, Error> {
        let mut list_metadata = Vec::new();
        Encoder::list_metadata().write(metadata.to_string().as_bytes(), None, &mut list_metadata)?;
        let mut out = Vec::new();
        begin(&self.api_version, &self.kind, &mut out);
        announce(2, self.grows_by(list_metadata.len()) + items, &mut out);
        text(self.metadata, list_metadata, &mut out);
        Ok(out)
    }

    /// What comes before an item of so many bytes.
    pub(crate) fn item(&self, length: usize, out: &mut Vec<u8>) {
        announce(self.items, length, out);
    }
}

/// One event of a watch, about an object in its envelope.
pub(crate) fn frame(change: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(&[0; 4]);
    text(1, change, &mut out);
    announce(2, 1 + encoded_len_varint(object.len() as u64) + object.len(), &mut out);
    text(1, object, &mut out);
    let length = u32::try_from(out.len() - 4).expect("no object is as large as this");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// What comes before a message that is `length` bytes long, as the field `number`.
pub(super) fn announce(number: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Begins a message whose length is not known yet.
#[must_use = "it must be closed"]
pub(super) fn open(number: u32, out: &mut Vec<u8>) -> usize {
    encode_key(number, WireType::LengthDelimited, out);
    out.push(0);
    out.len()
}

/// Ends the message that begins at `begin`. Most are so short that their length fits into the byte that was kept for it.
pub(super) fn close(begin: usize, out: &mut Vec<u8>) {
    let length = out.len() - begin;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[begin - 1] = short;
        return;
    }
    let more = encoded_len_varint(length as u64) - 1;
    out.resize(out.len() + more, 0);
    out.copy_within(begin..begin + length, begin + more);
    encode_varint(length as u64, &mut &mut out[begin - 1..begin + more]);
}

/// Writes a field of bytes.
pub(super) fn text(number: u32, text: impl AsRef<[u8]>, out: &mut Vec<u8>) {
    let bytes = text.as_ref();
    announce(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}
