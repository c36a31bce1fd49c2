//! Kubernetes' protobuf form of objects: read here, so that clients that speak nothing else can write.
//!
//! A body is an envelope that says which kind it holds, and the kind's message. Which message has which fields is data,
//! `wire/messages.txt`, read once at first need. The rest of the server knows only the JSON that comes out.

mod decode;
mod openapi_v2;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::{Decoded, decode};
pub use openapi_v2::encode_openapi_v2;
