//! Kubernetes' protobuf form of objects, for clients that speak nothing else, or prefer it.
//!
//! A body is an envelope that says which kind it holds, and the kind's message. Which message has which fields is data,
//! `wire/messages.txt`, read once at first need. The rest of the server knows only JSON: what comes is decoded to it, and
//! what goes is made of its bytes.

mod decode;
mod encode;
mod envelope;
#[cfg(test)]
mod identity;
mod openapi_v2;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::{Decoded, decode};
pub use encode::Error;
pub(crate) use encode::{Encoder, speaks};
pub(crate) use envelope::{List, encode, encode_value, frame};
pub use openapi_v2::encode_openapi_v2;
