//! What a token says, and whether it is still true.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{kinds::Kinds, table, window::Windows};

/// Tokens in Secrets say that they come from here, whatever the issuer is called.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Clocks may differ, and what is marked for deletion may still be at work, by this many seconds.
const LEEWAY: i64 = 60;

/// What a token says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub(super) aud: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<i64>,
    pub(super) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub(super) kubernetes: Option<Bound>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) legacy: Option<Legacy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<i64>,
    #[serde(default)]
    pub(super) sub: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Bound {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    #[serde(default)]
    pub(super) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// One object at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Its name.
    #[serde(default)]
    pub(crate) name: String,
    /// Its uid, which a later object of that name does not have.
    #[serde(default)]
    pub(crate) uid: String,
}

/// What a token in a Secret says: it is good for as long as the Secret holds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Legacy {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub(super) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub(super) secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub(super) name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub(super) uid: String,
}

impl Claims {
    /// Whose the token is: namespace, name and uid of the ServiceAccount.
    pub(super) fn account(&self) -> Option<(&str, &str, &str)> {
        match (&self.kubernetes, &self.legacy) {
            (Some(bound), _) => Some((&bound.namespace, &bound.serviceaccount.name, &bound.serviceaccount.uid)),
            (None, Some(legacy)) => Some((&legacy.namespace, &legacy.name, &legacy.uid)),
            (None, None) => None,
        }
    }

    /// Refuses a token whose time has not come, or is over.
    pub(super) fn hold_time(&self, now: i64) -> Result<(), String> {
        if self.nbf.is_some_and(|begin| now + LEEWAY < begin) {
            return Err("service account token is not valid yet".to_owned());
        }
        if self.exp.is_some_and(|end| now - LEEWAY > end) {
            return Err("service account token has expired".to_owned());
        }
        if self.iat.is_some_and(|begin| now + LEEWAY < begin) {
            return Err("service account token is issued in the future".to_owned());
        }
        Ok(())
    }
}

/// The part of an object that says which one it is.
#[derive(Deserialize)]
struct Head {
    metadata: Identity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<Value>,
}

/// Looks whether the objects of a token are still those that it names.
pub(super) struct Present<'a> {
    pub(super) windows: &'a Windows,
    pub(super) kinds: &'a Kinds,
    pub(super) now: i64,
}

impl Present<'_> {
    /// Refuses a token of an account that is gone, or that is bound to what is gone.
    pub(super) fn hold(&self, claims: &Claims, token: &str) -> Result<(), String> {
        let Some((namespace, name, uid)) = claims.account() else {
            return Err("kubernetes.io claim is missing".to_owned());
        };
        match self.find("serviceaccounts", namespace, name) {
            None => return Err(format!("serviceaccounts {name:?} not found")),
            Some(account) if account.uid != uid => {
                return Err(format!("service account UID ({}) does not match claim ({uid})", account.uid));
            }
            Some(account) if self.is_over(&account, LEEWAY) => {
                return Err(format!("service account {namespace}/{name} has been deleted"));
            }
            Some(_) => {}
        }
        if let Some(legacy) = &claims.legacy {
            return self.hold_secret(legacy, token);
        }
        let Some(bound) = &claims.kubernetes else { return Ok(()) };
        // A Pod's token also says on which node the Pod is, and does not depend on it.
        let (resource, place, what) = match (&bound.pod, &bound.secret, &bound.node) {
            (Some(pod), ..) => ("pods", namespace, pod),
            (None, Some(secret), _) => ("secrets", namespace, secret),
            (None, None, Some(node)) => ("nodes", "", node),
            (None, None, None) => return Ok(()),
        };
        let there = self.find(resource, place, &what.name);
        let there = there.filter(|there| !self.is_over(there, LEEWAY));
        let Some(there) = there else { return Err("service account token has been invalidated".to_owned()) };
        if there.uid == what.uid {
            return Ok(());
        }
        let kind = resource.trim_end_matches('s');
        Err(format!("{kind} UID ({}) does not match service account {kind} ref claim ({})", there.uid, what.uid))
    }

    /// The Secret is there, and it is this very token that it holds.
    fn hold_secret(&self, legacy: &Legacy, token: &str) -> Result<(), String> {
        let secrets = self.kinds.core("secrets");
        let secret =
            self.windows.of(&secrets.prefix).and_then(|w| w.get(&secrets.key(&legacy.namespace, &legacy.secret)));
        let Some(secret) = secret.filter(|secret| !secret.is_terminating()) else {
            return Err("Token has been invalidated".to_owned());
        };
        if secret.label(super::secrets::INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(format!(
                "the token in secret {}/{} for service account {}/{} has been marked invalid. Use tokens from the \
                 TokenRequest API or manually created secret-based tokens, or remove the '{}' label from the secret to \
                 temporarily allow use of this token",
                legacy.namespace,
                legacy.secret,
                legacy.namespace,
                legacy.name,
                super::secrets::INVALID_SINCE
            ));
        }
        match super::secrets::holds(&secret.value(), token) {
            true => Ok(()),
            false => Err("Token does not match server's copy".to_owned()),
        }
    }

    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Identity> {
        let kind = self.kinds.core(resource);
        let item = self.windows.of(&kind.prefix)?.get(&kind.key(namespace, name))?;
        serde_json::from_slice::<Head>(item.stored.raw()).ok().map(|head| head.metadata)
    }

    /// It is marked for deletion, and should have been gone for so many seconds.
    fn is_over(&self, object: &Identity, leeway: i64) -> bool {
        let until = object.deletion_timestamp.as_ref().and_then(table::seconds);
        until.is_some_and(|until| until < self.now - leeway)
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(from)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_good_from_its_first_second_to_its_last_give_or_take_a_minute() {
        let claims = Claims { nbf: Some(1000), iat: Some(1000), exp: Some(4600), ..Claims::default() };
        let says = |now| claims.hold_time(now).err().unwrap_or_default();
        assert_eq!(says(939), "service account token is not valid yet");
        assert_eq!((says(940), says(4660)), (String::new(), String::new()));
        assert_eq!(says(4661), "service account token has expired");
        let early = Claims { iat: Some(1000), ..Claims::default() };
        assert_eq!(early.hold_time(900).unwrap_err(), "service account token is issued in the future");
    }

    #[test]
    fn claims_look_as_other_programs_expect_them() {
        let reference = |name: &str| Reference { name: name.into(), uid: format!("{name}-uid") };
        let bound = Bound {
            namespace: "n".into(),
            pod: Some(reference("p")),
            serviceaccount: reference("a"),
            warnafter: Some(9),
            ..Bound::default()
        };
        let claims = Claims {
            aud: vec!["x".into()],
            exp: Some(3),
            iss: "i".into(),
            jti: "j".into(),
            kubernetes: Some(bound),
            sub: "system:serviceaccount:n:a".into(),
            ..Claims::default()
        };
        let written = serde_json::to_value(&claims).unwrap();
        assert_eq!(
            written,
            json!({
                "aud": ["x"], "exp": 3, "iss": "i", "jti": "j", "sub": "system:serviceaccount:n:a",
                "kubernetes.io": {
                    "namespace": "n", "pod": {"name": "p", "uid": "p-uid"},
                    "serviceaccount": {"name": "a", "uid": "a-uid"}, "warnafter": 9,
                },
            })
        );
        let read: Claims = serde_json::from_value(written).unwrap();
        assert_eq!(read.account(), Some(("n", "a", "a-uid")));
        assert!(read.legacy.is_none());
        let one: Claims = serde_json::from_value(json!({"iss": "i", "aud": "x"})).unwrap();
        assert_eq!(one.aud, ["x"]);
    }
}
