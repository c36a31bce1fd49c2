//! What every long-running part shares: settings, telemetry, listeners with self-managed TLS, files that appear whole.
//!
//! This crate knows how a process runs, and nothing of what it serves: no kinds, no routes, no stores. Start at
//! [`listener::serve`], which puts an [`axum::Router`] behind a socket; [`pki::Authority`] makes the certificates it
//! needs, and [`settings::Layers`] reads `onex.toml` and what overrides it.

pub mod files;
mod lingering;
pub mod listener;
mod paced;
pub mod pki;
pub mod settings;
pub mod telemetry;
