//! What a process says about itself: log lines on standard error.

use std::io::IsTerminal as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which lines are kept: a level, or levels by module, such as "info,onex_apiserver=debug". RUST_LOG overrides it.
    pub filter: String,
    /// "text" for people, "json" for programs.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Text }
    }
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("{0:?} does not say which log lines to keep")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("telemetry was already started in this process")]
    Started,
}

/// Sends the process's log lines to standard error. Called once, by the binary.
///
/// # Errors
/// When the filter cannot be read, and when it is called twice.
pub fn init(settings: &Settings) -> Result<(), Error> {
    let text = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| settings.filter.clone());
    let filter = EnvFilter::try_new(&text).map_err(|error| Error::Filter(text, error))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match settings.format {
        Format::Text => subscriber.try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| Error::Started)
}
