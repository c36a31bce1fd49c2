//! One suite for every log, and what only the log on disk must hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod file;
