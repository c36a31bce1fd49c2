//! ServiceAccounts: their tokens, made and believed.
//!
//! A token is a signed statement ([`jwt`]) of whose it is and what it is bound to ([`claims`]). A signature is looked at once
//! and then remembered; whether the account, and what the token is bound to, are still there is looked up each time. So a
//! token ends at the moment in which any of these goes.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

mod claims;
mod jwt;
mod keys;
mod openid;
pub(crate) mod secrets;

pub use keys::Error;

pub(crate) use claims::Reference;
pub(crate) use openid::PATHS;

use crate::{authn::User, kinds::Kinds, window::Windows};
use claims::{Bound, Claims, LEGACY_ISSUER, Present};
use keys::{Ages, Keys};

const DAY: i64 = 24 * 60 * 60;

/// What can be set of tokens of ServiceAccounts.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who tokens say made them. The first is written into new ones; all are believed.
    pub issuers: Vec<String>,
    /// For whom a token must be good to be let in here. Empty: the issuers.
    pub audiences: Vec<String>,
    /// The directory of the keys that sign. Empty: "pki/service-accounts" in the data directory of "onex", and none elsewhere.
    pub keys: String,
    /// A key this old, in days, is replaced by a new one; what it signed stays good. 0: never.
    pub key_rotation_days: u32,
    /// What a replaced key signed is good for so many days more, also tokens in Secrets. 0: for ever.
    pub retired_key_days: u32,
    /// Tokens are good for so many seconds at most, whatever is asked for. 0: no such limit.
    pub max_token_seconds: u64,
    /// Where other programs find the public keys. Empty: "/openid/v1/jwks" at the address by which this apiserver is known.
    pub jwks_uri: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuers: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
            audiences: Vec::new(),
            keys: String::new(),
            key_rotation_days: 90,
            retired_key_days: 0,
            max_token_seconds: 0,
            jwks_uri: String::new(),
        }
    }
}

/// Makes tokens, and knows them again.
pub(crate) struct ServiceAccounts {
    settings: Settings,
    audiences: Vec<String>,
    keys: Keys,
    known: Mutex<Known>,
}

/// Whose token it is, and for which audiences it is good.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    /// Who it is.
    pub(crate) user: User,
    /// Those asked about for whom the token is good.
    #[allow(dead_code, reason = "for reviews of tokens, which tell it")]
    pub(crate) audiences: Vec<String>,
}

/// What a new token is about.
pub(crate) struct Wish<'a> {
    /// The account's namespace.
    pub(crate) namespace: &'a str,
    /// The account.
    pub(crate) account: Reference,
    /// For whom.
    pub(crate) audiences: &'a [String],
    /// For how many seconds.
    pub(crate) seconds: i64,
    /// After how many seconds its use is frowned upon.
    pub(crate) warn_after: Option<i64>,
    /// With what it ends.
    pub(crate) pod: Option<Reference>,
    /// With what it ends.
    pub(crate) secret: Option<Reference>,
    /// With what it ends, or where its Pod is.
    pub(crate) node: Option<Reference>,
}

impl ServiceAccounts {
    /// Opens the keys.
    pub(crate) fn open(settings: &Settings, now: i64) -> Result<Self, Error> {
        let ages = Ages {
            rotation: i64::from(settings.key_rotation_days) * DAY,
            retired: i64::from(settings.retired_key_days) * DAY,
        };
        let directory = Some(PathBuf::from(&settings.keys)).filter(|_| !settings.keys.is_empty());
        let audiences = if settings.audiences.is_empty() { &settings.issuers } else { &settings.audiences };
        Ok(Self {
            audiences: audiences.clone(),
            settings: settings.clone(),
            keys: Keys::open(directory, ages, now)?,
            known: Mutex::default(),
        })
    }

    /// For whom a token must be good to be let in here.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The most seconds that a token is good for. 0: as many as are asked for.
    pub(crate) fn most_seconds(&self) -> i64 {
        i64::try_from(self.settings.max_token_seconds).unwrap_or(i64::MAX)
    }

    /// Makes a new key if it is time. A key that cannot be made now is made later.
    pub(crate) fn rotate(&self, now: i64) {
        match self.keys.rotate(now) {
            Ok(false) => {}
            Ok(true) => {
                self.known.lock().clear(); // some of them may be signed by a key that is forgotten
                tracing::info!("tokens of service accounts are signed with a new key");
            }
            Err(error) => tracing::warn!(%error, "the key that signs tokens could not be replaced"),
        }
    }

    /// A token as wished, good from `now` on.
    pub(crate) fn issue(&self, wish: Wish<'_>, now: i64) -> Result<String, Error> {
        let Wish { namespace, account, audiences, seconds, warn_after, pod, secret, node } = wish;
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: Some(now.saturating_add(seconds)),
            iat: Some(now),
            iss: self.settings.issuers.first().cloned().unwrap_or_default(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: Some(now),
            sub: user_name(namespace, &account.name),
            kubernetes: Some(Bound {
                namespace: namespace.to_owned(),
                node,
                pod,
                secret,
                serviceaccount: account,
                warnafter: warn_after.map(|after| now.saturating_add(after)),
            }),
            legacy: None,
        };
        jwt::sign(&self.keys.now(), &claims)
    }

    /// Whose token this is, if it is one of ours that is good for one of `audiences`. `None`: it is not for us to say.
    ///
    /// The windows must show what anybody was told of.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        windows: &Windows,
        kinds: &Kinds,
        now: i64,
    ) -> Option<Result<Bearer, String>> {
        let known = match self.known(token) {
            Ok(known) => known,
            Err(jwt::Refusal::Foreign) => return None,
            Err(refusal) => return Some(Err(refusal.to_string())),
        };
        let good = || {
            let good = self.meant_for(&known.claims, audiences)?;
            known.claims.hold_time(now)?;
            Present { windows, kinds, now }.hold(&known.claims, token)?;
            Ok(Bearer { user: known.user.clone(), audiences: good })
        };
        Some(good())
    }

    /// Those of `asked` for whom the token is good. Tokens in Secrets name nobody: they are good for this apiserver.
    fn meant_for(&self, claims: &Claims, asked: &[String]) -> Result<Vec<String>, String> {
        let named = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        let good: Vec<String> = named.iter().filter(|one| asked.contains(one)).cloned().collect();
        if good.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(named),
                quoted(asked)
            ));
        }
        Ok(good)
    }

    /// What a token says, if we signed it.
    fn known(&self, token: &str) -> Result<Arc<Vouched>, jwt::Refusal> {
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.known.lock().get(&hash) {
            return Ok(known);
        }
        let unverified = jwt::Unverified::read(token).ok_or(jwt::Refusal::Foreign)?;
        let issuer: Issuer = serde_json::from_slice(unverified.claims()).map_err(|_| jwt::Refusal::Foreign)?;
        let ours = issuer.iss == LEGACY_ISSUER || self.settings.issuers.contains(&issuer.iss);
        if !ours {
            return Err(jwt::Refusal::Foreign);
        }
        let keys = self.keys.now();
        let claims: Claims = serde_json::from_slice(unverified.verify(&keys)?).map_err(|_| jwt::Refusal::Foreign)?;
        let vouched = Arc::new(Vouched { user: user(&claims), claims });
        let mut known = self.known.lock();
        // A key may have been forgotten meanwhile, and what it signed with it.
        if Arc::ptr_eq(&keys, &self.keys.now()) {
            known.insert(hash, vouched.clone());
        }
        Ok(vouched)
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

type Hash = [u8; 32];

/// What a token says, signed by us.
struct Vouched {
    claims: Claims,
    user: User,
}

/// So many tokens are remembered, and about as many that were used before them.
const REMEMBERED: usize = 4096;

/// Tokens whose signature is known to be good. Those that nobody uses are forgotten.
#[derive(Default)]
struct Known {
    newer: HashMap<Hash, Arc<Vouched>>,
    older: HashMap<Hash, Arc<Vouched>>,
}

impl Known {
    fn get(&mut self, hash: &Hash) -> Option<Arc<Vouched>> {
        if let Some(known) = self.newer.get(hash) {
            return Some(known.clone());
        }
        let known = self.older.remove(hash)?;
        self.insert(*hash, known.clone());
        Some(known)
    }

    fn insert(&mut self, hash: Hash, vouched: Arc<Vouched>) {
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash, vouched);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The name under which an account is known to authorization.
pub(crate) fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The groups of every account of a namespace.
pub(crate) fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

fn user(claims: &Claims) -> User {
    let (namespace, name, uid) = claims.account().unwrap_or_default();
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(bound) = &claims.kubernetes {
        for (key, what) in [("pod", &bound.pod), ("node", &bound.node)] {
            let Some(what) = what else { continue };
            add(&format!("{key}-name"), &what.name);
            add(&format!("{key}-uid"), &what.uid);
        }
    }
    User { uid: uid.to_owned(), extra: Arc::new(extra), ..User::new(&user_name(namespace, name), groups(namespace)) }
}

/// A list as Go prints one of quoted texts.
fn quoted(list: &[String]) -> String {
    let texts: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}
