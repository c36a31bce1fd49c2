//! The usercenter as its clients see it, and its policies beside Casbin's.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod casbin;
mod defects;
mod grpc;
#[path = "../../../db/tests/it/mariadb.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod mariadb;
mod policies;
mod secrets;
mod sessions;
mod shared;
mod strangers;
mod users;
mod validation;
mod world;
