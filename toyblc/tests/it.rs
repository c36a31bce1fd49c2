//! Real nodes on loopback, in one process, asked from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "it/world.rs"]
mod world;

#[path = "it/agreement.rs"]
mod agreement;
#[path = "it/http.rs"]
mod http;
#[path = "it/manners.rs"]
mod manners;
#[path = "it/restart.rs"]
mod restart;
