//! `onex up` as people meet it: the program, kubectl, and the miners' own doors.
//!
//! Every test talks to a `World`: a real `onex up` with a data directory of its own. Tests that need only a namespace
//! share one; a test that kills, stops or fills a platform starts its own. Nothing here links to a crate of ours.
//!
//! Settings, all by environment: `ONEX_BINARY` (the program; else the newest of `{debug,release}/onex` where cargo builds), `KUBECTL` (else
//! the one in `PATH`), `ONEX_CRASH_ROUNDS` (how often the crash test kills the platform; 10).

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod acceptance;
mod bad_input;
#[allow(dead_code, reason = "tests of the storage use all of it")]
#[path = "../../../storage/tests/it/cluster.rs"]
mod cluster;
mod crash;
mod definitions;
mod deletion;
mod door;
mod edits;
mod jobs;
mod keeping;
mod kinds;
mod miners;
mod reading;
mod running;
mod samples;
mod several;
mod suites;
mod versions;
mod world;
