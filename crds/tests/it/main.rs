//! What holds of every kind: defaults settle, the YAML is fresh, the schema says what the apiserver relies on.
#![allow(clippy::unwrap_used)]

mod fill;
mod yaml;
