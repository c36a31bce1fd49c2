//! How the events of a watch are written: as lines of JSON, or as frames of protobuf.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    kinds::Kind,
    negotiate::{Media, PROTOBUF},
    protobuf::{self, Encoder},
    status::{Result, Status},
    window::{Event, Item, frame},
};

/// How the events of one watch are written.
pub(super) enum Frames {
    /// One object a line.
    Json,
    /// Each with its length before it.
    Protobuf(Spoken),
}

/// Which kind it is that is watched.
pub(super) struct Spoken {
    api_version: String,
    kind: String,
    encoder: Encoder,
}

impl Frames {
    /// The frames of this media type, of objects of this kind.
    pub(super) fn of(media: Media, kind: &Kind) -> Result<Self> {
        const SERVED: &[&str] = &["application/json", PROTOBUF];
        let api_version = kind.api_version();
        match (media, Encoder::of(&api_version, &kind.kind)) {
            (Media::Json | Media::PrettyJson, _) => Ok(Self::Json),
            (Media::Protobuf, Some(encoder)) => {
                Ok(Self::Protobuf(Spoken { api_version, kind: kind.kind.clone(), encoder }))
            }
            _ => Err(Status::not_acceptable(if protobuf::speaks(kind) { SERVED } else { &SERVED[..1] })),
        }
    }

    /// The media type of the stream.
    pub(super) fn media(&self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf(_) => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// What all watchers of this media type share.
    pub(super) fn shared(&self, event: &Event) -> Bytes {
        match self {
            Self::Json => event.frame(),
            Self::Protobuf(_) => event.protobuf_frame(|| self.stored(event.change(), &event.item, event.revision)),
        }
    }

    /// What happened to a stored object.
    pub(super) fn stored(&self, change: &str, item: &Item, revision: u64) -> Bytes {
        match self {
            Self::Json => frame(change, item, revision),
            Self::Protobuf(Spoken { api_version, kind, encoder }) => {
                let json = item.stored.raw();
                framed(change, protobuf::encode((api_version, kind), *encoder, json, Some(revision)))
            }
        }
    }

    /// What happened to an object as it is shown.
    pub(super) fn shown(&self, change: &str, object: &Value) -> Bytes {
        match self {
            Self::Json => Bytes::from(format!("{}\n", json!({"type": change, "object": object}))),
            Self::Protobuf(_) => match protobuf::encode_value(object) {
                Some(encoded) => framed(change, encoded),
                None => broken(&Status::internal("what is watched has no protobuf form")),
            },
        }
    }
}

fn framed(change: &str, encoded: Result<Vec<u8>, protobuf::Error>) -> Bytes {
    encoded.map_or_else(|error| broken(&Status::internal(error)), |object| protobuf::frame(change, &object).into())
}

/// The client has to begin anew: it cannot be told of this change.
fn broken(status: &Status) -> Bytes {
    tracing::error!(message = %status.message, "an event could not be written for a watcher");
    let object = protobuf::encode_value(&status.object()).and_then(Result::ok).unwrap_or_default();
    protobuf::frame("ERROR", &object).into()
}
