//! The controllers against the real apiserver, in memory, with a kubelet that only pretends to run Pods.
#![allow(clippy::unwrap_used)]

mod chain;
mod cronjob;
mod flaky;
mod garbage;
mod job;
mod leader;
#[allow(dead_code, reason = "tests of the crate db use all of it")]
#[path = "../../../db/tests/it/mariadb.rs"]
mod mariadb;
mod miner;
mod minerset;
mod mirror;
mod namespace;
mod provider;
mod samples;
mod scale;
mod stopping;
mod world;
