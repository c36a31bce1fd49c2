//! What lets other programs check our tokens: `/.well-known/openid-configuration` and `/openid/v1/jwks`.

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{ServiceAccounts, jwt};

/// Where the public keys are.
const KEYS: &str = "/openid/v1/jwks";
/// Where the document is that says so.
const CONFIGURATION: &str = "/.well-known/openid-configuration";

/// The paths of both.
pub(crate) const PATHS: [&str; 2] = [CONFIGURATION, KEYS];

impl ServiceAccounts {
    /// The document at `path`, if it is one of these two. `host` is where the client found us.
    pub(crate) fn document(&self, path: &str, host: &str) -> Option<Response> {
        match path {
            CONFIGURATION => Some(answer("application/json", &self.configuration(host))),
            KEYS => Some(answer("application/jwk-set+json", &self.keys.now().set())),
            _ => None,
        }
    }

    fn configuration(&self, host: &str) -> Value {
        let keys = match self.settings.jwks_uri.as_str() {
            "" => format!("https://{host}{KEYS}"),
            uri => uri.to_owned(),
        };
        json!({
            "issuer": self.settings.issuers.first(),
            "jwks_uri": keys,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [jwt::ALGORITHM],
        })
    }
}

fn answer(media: &'static str, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
