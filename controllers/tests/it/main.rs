//! The controllers against the real apiserver, in memory, with a kubelet that only pretends to run Pods.
#![allow(clippy::unwrap_used)]

mod chain;
mod flaky;
mod garbage;
mod leader;
mod miner;
mod minerset;
mod namespace;
mod provider;
mod samples;
mod stopping;
mod world;
