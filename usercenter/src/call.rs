//! What is known of whoever calls, on either wire.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap, header};
use onex_daemon::listener::Peer;
use onex_daemon::pki::Subject;
use onex_proto::Language;

/// The groups whose certificates speak for the platform itself.
const SERVICES: [&str; 2] = ["system:masters", "onex:services"];

/// A call, without what it asks for.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// In which language its errors are told.
    pub language: Language,
    /// The token that was shown.
    pub token: Option<String>,
    /// Where it comes from.
    pub address: String,
    /// What the client calls itself.
    pub agent: String,
    /// The name under which it is found in logs.
    pub trace: String,
    /// Whom the client's certificate names, verified.
    subject: Option<Arc<Subject>>,
}

/// The name under which a request is found in logs: a request carries one in its extensions.
#[derive(Debug, Clone)]
pub struct Trace(pub String);

impl Call {
    /// The call that came with these.
    #[must_use]
    pub fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let peer = extensions.get::<Peer>();
        Self {
            language: language(headers),
            token: text(header::AUTHORIZATION).and_then(bearer),
            address: peer.map(|peer| peer.address.ip().to_string()).unwrap_or_default(),
            agent: text(header::USER_AGENT).unwrap_or_default().chars().take(256).collect(),
            trace: extensions.get::<Trace>().map(|trace| trace.0.clone()).unwrap_or_default(),
            subject: peer.and_then(|peer| peer.subject.clone()),
        }
    }

    /// Whether the platform itself calls, by its certificate.
    #[must_use]
    pub fn is_of_the_platform(&self) -> bool {
        let groups = self.subject.iter().flat_map(|subject| &subject.organizations);
        groups.into_iter().any(|group| SERVICES.contains(&group.as_str()))
    }
}

/// The language that a request asks for.
#[must_use]
pub fn language(headers: &HeaderMap) -> Language {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    accepted.map_or(Language::default(), Language::preferred)
}

fn bearer(text: &str) -> Option<String> {
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearers_token_is_one() {
        for (text, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            assert_eq!(bearer(text).as_deref(), expected, "{text:?}");
        }
    }
}
