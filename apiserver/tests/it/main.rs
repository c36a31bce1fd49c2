//! The apiserver over a store in memory, asked as clients ask it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
#[allow(dead_code, reason = "tests of the storage use all of it")]
#[path = "../../../storage/tests/it/cluster.rs"]
mod cluster;
mod compatibility;
mod custom;
mod delete;
mod errors;
mod furnish;
mod fuzz;
mod golden;
mod kinds;
mod limits;
mod list;
mod metrics;
mod odd;
mod patch;
mod paths;
mod protobuf;
mod quota;
mod rbac;
mod readers;
mod resume;
mod shared;
mod simulation;
mod sockets;
mod strangers;
mod tokens;
mod watch;
mod webhook_server;
mod webhooks;
mod world;
mod write;
