//! Tokens that live in a Secret: of the type `kubernetes.io/service-account-token`, good until the Secret goes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// The label that makes a token invalid although its Secret is there.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Whether it is this token that the Secret holds.
pub(super) fn holds(secret: &Value, token: &str) -> bool {
    let kept = secret["data"]["token"].as_str().and_then(|kept| STANDARD.decode(kept).ok());
    kept.is_some_and(|kept| kept == token.as_bytes())
}
