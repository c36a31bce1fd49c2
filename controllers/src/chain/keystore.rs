//! The key of a Chain: made once for each, and kept in a Secret. What everybody may know of it is in a ConfigMap. Pure, but for
//! the chance that makes the key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use onex_crds::Chain;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::child;

/// The key of the ConfigMap under which it says what the Chain's account is.
pub(super) const KEYSTORE: &str = "keystore.json";
/// The key of the Secret under which the account is.
const ADDRESS: &str = "address";
/// The key of the Secret under which the private key of the account is: Ed25519, as PKCS #8.
const PRIVATE_KEY: &str = "private-key.p8";

/// The bytes of an account's address, as many as everywhere else.
const ADDRESS_BYTES: usize = 20;

/// The name of the Secret and of the ConfigMap of a Chain.
// Deterministic, so that a stale view collides instead of making a second one.
pub(super) fn name(chain: &Chain) -> String {
    format!("{}-keystore", chain.name_any())
}

/// A Secret with a key that nobody has had before; `None` when there is no chance to be had.
pub(super) fn secret(chain: &Chain, chance: &dyn SecureRandom) -> Option<Secret> {
    let private_key = Ed25519KeyPair::generate_pkcs8(chance).ok()?;
    let pair = Ed25519KeyPair::from_pkcs8(private_key.as_ref()).ok()?;
    let data = [
        (ADDRESS.to_owned(), ByteString(address_of(pair.public_key().as_ref()).into_bytes())),
        (PRIVATE_KEY.to_owned(), ByteString(private_key.as_ref().to_vec())),
    ];
    Some(Secret {
        metadata: child(chain, name(chain)),
        data: Some(data.into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

/// The account of a Chain, if its Secret still holds it and its key.
pub(super) fn address(secret: &Secret) -> Option<String> {
    let data = secret.data.as_ref()?;
    data.get(PRIVATE_KEY).filter(|key| !key.0.is_empty())?;
    String::from_utf8(data.get(ADDRESS)?.0.clone()).ok().filter(|address| !address.is_empty())
}

/// What everybody may know: the account, and where its key is.
pub(super) fn public(chain: &Chain, address: &str) -> ConfigMap {
    let content = json!({"address": address, "secretName": name(chain)}).to_string();
    ConfigMap {
        metadata: child(chain, name(chain)),
        data: Some(BTreeMap::from([(KEYSTORE.to_owned(), content)])),
        ..ConfigMap::default()
    }
}

/// The account that belongs to a public key.
fn address_of(public_key: &[u8]) -> String {
    let digest = digest(&SHA256, public_key);
    let account = digest.as_ref()[..ADDRESS_BYTES].iter();
    account.fold("0x".to_owned(), |address, byte| format!("{address}{byte:02x}"))
}
