//! Which Kubernetes this is like.

use serde_json::{Value, json};

/// The Kubernetes release whose API is served. Clients choose what they send by it.
pub const KUBERNETES: &str = "v1.33.2";

/// `/version`. The git version carries OneX's own as build metadata, which no version constraint looks at.
pub fn document() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": format!("{KUBERNETES}+onex-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none (Rust)",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
    })
}
