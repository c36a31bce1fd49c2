//! The runner and the shim with real processes of this machine.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod cluster;
mod running;
mod shim;
mod world;
