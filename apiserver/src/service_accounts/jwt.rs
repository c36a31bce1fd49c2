//! Compact JSON Web Signatures, as far as we make and accept them: one algorithm, and keys of our own.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::keys::{self, Ring};

/// ECDSA over P-256 with SHA-256.
pub(super) const ALGORITHM: &str = "ES256";
/// No token of ours comes near this, so nothing longer is looked at.
pub(super) const MOST_BYTES: usize = 32 * 1024;

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    kid: std::borrow::Cow<'a, str>,
    /// What whoever does not understand it must refuse. We understand none.
    #[serde(default, skip_serializing)]
    crit: Option<IgnoredAny>,
}

/// Why a token is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It is no token of ours at all: somebody else may know it.
    #[error("invalid bearer token")]
    Foreign,
    /// It says that it is ours.
    #[error("invalid signature, no keys found")]
    NoKey,
    /// It was made up, or changed.
    #[error("invalid signature")]
    Signature,
}

/// A token of these claims, signed by the newest key.
pub(super) fn sign(keys: &Ring, claims: &impl Serialize) -> Result<String, keys::Error> {
    let header = Header { alg: ALGORITHM.into(), kid: keys.signer().into(), crit: None };
    let part = |bytes: serde_json::Result<Vec<u8>>| URL_SAFE_NO_PAD.encode(bytes.expect("text and numbers make JSON"));
    let mut token = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(claims)));
    let signature = keys.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// The parts of a token that nobody has vouched for yet.
pub(super) struct Unverified<'a> {
    token: &'a str,
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart. Nothing if it is none.
    pub(super) fn read(token: &'a str) -> Option<Self> {
        if token.len() > MOST_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let mut part = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
        let (header, claims, signature) = (part()?, part()?, part()?);
        parts.next().is_none().then_some(Self { token, header, claims, signature })
    }

    /// What it claims, true or not.
    pub(super) fn claims(&self) -> &[u8] {
        &self.claims
    }

    /// The claims, if one of the keys vouches for them.
    pub(super) fn verify(&self, keys: &Ring) -> Result<&[u8], Refusal> {
        let header: Header<'_> = serde_json::from_slice(&self.header).map_err(|_| Refusal::Foreign)?;
        if header.alg != ALGORITHM || header.crit.is_some() {
            return Err(Refusal::Signature);
        }
        let signed = self.token.rsplit_once('.').map_or("", |(signed, _)| signed);
        match keys.verify(&header.kid, signed.as_bytes(), &self.signature) {
            Some(true) => Ok(&self.claims),
            Some(false) => Err(Refusal::Signature),
            None => Err(Refusal::NoKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::keys::{Ages, Keys};
    use super::*;

    fn keys() -> Keys {
        Keys::open(None, Ages { rotation: 0, retired: 0 }, 0).unwrap()
    }

    fn verdict(keys: &Keys, token: &str) -> Result<Vec<u8>, Refusal> {
        Unverified::read(token).ok_or(Refusal::Foreign)?.verify(&keys.now()).map(<[u8]>::to_vec)
    }

    fn with_header(token: &str, header: &serde_json::Value) -> String {
        let (_, rest) = token.split_once('.').unwrap();
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    }

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        let keys = keys();
        let token = sign(&keys.now(), &json!({"sub": "a"})).unwrap();
        assert_eq!(verdict(&keys, &token).unwrap(), br#"{"sub":"a"}"#);
        let kid = keys.now().signer().to_owned();
        let (head, _) = token.rsplit_once('.').unwrap();
        for (forged, refusal) in [
            (format!("{head}.").as_str(), Refusal::Signature),
            (&format!("{head}.AAAA"), Refusal::Signature),
            (&format!("{token}.AAAA"), Refusal::Foreign),
            ("not a token", Refusal::Foreign),
            ("..", Refusal::Foreign),
            (&with_header(&token, &json!({"alg": "none", "kid": kid})), Refusal::Signature),
            (&with_header(&token, &json!({"alg": "HS256", "kid": kid})), Refusal::Signature),
            (&with_header(&token, &json!({"alg": "ES256", "kid": kid, "crit": ["exp"]})), Refusal::Signature),
            (&with_header(&token, &json!({"alg": "ES256", "kid": kid, "x": 1})), Refusal::Signature),
            (&with_header(&token, &json!({"alg": "ES256"})), Refusal::NoKey),
            (&"a".repeat(MOST_BYTES + 1), Refusal::Foreign),
        ] {
            assert_eq!(verdict(&keys, forged), Err(refusal), "{forged}");
        }
        let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{other}.{}", parts[0], parts[2]);
        assert_eq!(verdict(&keys, &forged), Err(Refusal::Signature));
    }
}
