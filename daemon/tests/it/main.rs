//! The listener and its certificates, asked over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, and that is all it can do")]

mod listener;
mod pki;
