//! Tokens: compact JSON Web Signatures with a shared key, as the usercenter and its clients make them.
//!
//! Three algorithms, all of one family, and no other: a token names one, and whoever verifies says which it takes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// No token of ours comes near this, so nothing longer is looked at.
pub const MOST_BYTES: usize = 8192;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Hs256, Self::Hs384, Self::Hs512];

    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    fn key(self, key: &[u8]) -> hmac::Key {
        let digest = match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(digest, key)
    }
}

/// What a token claims. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    #[serde(default)]
    pub iss: String,
    /// Whom it is about.
    #[serde(default)]
    pub sub: String,
    /// When it was made.
    #[serde(default)]
    pub iat: i64,
    /// It is not good before.
    #[serde(default)]
    pub nbf: i64,
    /// It is not good from then on. Who verifies may insist on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// For whom it is; for everybody, if that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// The session that it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sid: String,
    /// Its own name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
}

/// For whom a token is: one, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// Whether `name` is among them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no token, or was not signed with this key, or by an algorithm that is not taken.
    Invalid,
    /// It is not good any more, or not yet.
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
    /// What whoever does not understand it must refuse. We understand none.
    #[serde(default, skip_serializing)]
    crit: Option<IgnoredAny>,
}

/// A token with these claims. `kid` names the key, if others than the signer have to find it.
#[must_use]
pub fn sign(key: &[u8], algorithm: Algorithm, kid: Option<&str>, claims: &Claims) -> String {
    let header =
        Header { alg: algorithm.name().into(), typ: "JWT".into(), kid: kid.unwrap_or_default().into(), crit: None };
    let part = |bytes: serde_json::Result<Vec<u8>>| URL_SAFE_NO_PAD.encode(bytes.expect("text and numbers make JSON"));
    let mut token = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(claims)));
    let signature = hmac::sign(&algorithm.key(key), token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// A token that nobody has vouched for yet.
pub struct Unverified<'a> {
    signed: &'a str,
    header: Header,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart. Nothing if it is none.
    #[must_use]
    pub fn read(token: &'a str) -> Option<Self> {
        if token.len() > MOST_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let header: Header = serde_json::from_slice(&part(header)?).ok()?;
        Some(Self { signed, header, claims: part(claims)?, signature: part(signature)? })
    }

    /// The name of the key that it says it was signed with; empty if it says none.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// The claims, if they were signed with `key` by one of `algorithms`. Whether they are good now, and for whom, is another
    /// question: see [`Claims::hold_at`].
    ///
    /// # Errors
    /// When they were not.
    pub fn verify(&self, key: &[u8], algorithms: &[Algorithm]) -> Result<Claims, Refusal> {
        let algorithm = Algorithm::of_name(&self.header.alg).filter(|named| algorithms.contains(named));
        let algorithm = algorithm.filter(|_| self.header.crit.is_none()).ok_or(Refusal::Invalid)?;
        hmac::verify(&algorithm.key(key), self.signed.as_bytes(), &self.signature).map_err(|_| Refusal::Invalid)?;
        serde_json::from_slice(&self.claims).map_err(|_| Refusal::Invalid)
    }
}

impl Claims {
    /// Whether it is good at `now`, by clocks that may differ by `leeway` seconds. A token without an end never is.
    ///
    /// # Errors
    /// When it is not.
    pub fn hold_at(&self, now: i64, leeway: i64) -> Result<(), Refusal> {
        let end = self.exp.ok_or(Refusal::Invalid)?;
        let begun = self.nbf.max(self.iat) <= now.saturating_add(leeway);
        if begun && now < end { Ok(()) } else { Err(Refusal::Expired) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Claims {
        Claims { iss: "i".into(), sub: "s".into(), iat: 10, nbf: 10, exp: Some(20), ..Claims::default() }
    }

    fn verdict(token: &str, key: &[u8], algorithms: &[Algorithm]) -> Result<Claims, Refusal> {
        Unverified::read(token).ok_or(Refusal::Invalid)?.verify(key, algorithms)
    }

    #[test]
    fn a_token_of_the_specification_is_read_as_it_says() {
        // RFC 7515, A.1; its claims are read as far as we know them.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let claims = verdict(token, &key, &[Algorithm::Hs256]).unwrap();
        assert_eq!((claims.iss.as_str(), claims.exp), ("joe", Some(1_300_819_380)));
    }

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        for &algorithm in Algorithm::ALL {
            let token = sign(b"key", algorithm, Some("k"), &claims());
            assert_eq!(Unverified::read(&token).unwrap().kid(), "k");
            assert_eq!(verdict(&token, b"key", &[algorithm]), Ok(claims()));
            assert_eq!(verdict(&token, b"another", &[algorithm]), Err(Refusal::Invalid));
            let others: Vec<_> = Algorithm::ALL.iter().copied().filter(|other| *other != algorithm).collect();
            assert_eq!(verdict(&token, b"key", &others), Err(Refusal::Invalid), "the verifier says which it takes");
        }
        let token = sign(b"key", Algorithm::Hs512, None, &claims());
        let parts: Vec<&str> = token.split('.').collect();
        let header =
            |json: serde_json::Value| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(json.to_string()), parts[1], parts[2]);
        for forged in [
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(r#"{"sub":"other","exp":20}"#), parts[2]),
            format!("{token}.AAAA"),
            header(json!({"alg": "none"})),
            header(json!({"alg": "HS256"})),
            header(json!({"alg": "RS256"})),
            header(json!({"alg": "HS512", "crit": ["exp"]})),
            String::new(),
            "..".into(),
            "a.b.c".into(),
            "a".repeat(MOST_BYTES + 1),
        ] {
            assert_eq!(verdict(&forged, b"key", Algorithm::ALL), Err(Refusal::Invalid), "{forged}");
        }
    }

    #[test]
    fn a_token_is_good_from_its_beginning_to_its_end_and_never_without_an_end() {
        assert_eq!(claims().hold_at(10, 0), Ok(()));
        assert_eq!(claims().hold_at(9, 0), Err(Refusal::Expired));
        assert_eq!(claims().hold_at(9, 1), Ok(()));
        assert_eq!(
            claims().hold_at(20, 60),
            Err(Refusal::Expired),
            "the leeway is for clocks behind, not for old tokens"
        );
        assert_eq!(Claims { exp: None, ..claims() }.hold_at(10, 0), Err(Refusal::Invalid));
    }
}
