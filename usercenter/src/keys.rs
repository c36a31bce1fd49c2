//! The usercenter's own keys: one kept in a file, the others made from it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use onex_daemon::files::{self, Readers};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// How long the key in the file is.
const BYTES: usize = 32;

/// What signs refresh tokens and access tokens, and hides the keys of key pairs.
pub struct Keys {
    made_from: Prk,
    hiding: LessSafeKey,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("could not use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{0} does not hold a key of the usercenter; restore it: secrets in the database cannot be read without it")]
    Damaged(PathBuf),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Randomness,
    /// What was hidden was changed, or hidden with another key.
    #[error("a secret in the database was hidden with another key than that in the usercenter's key file")]
    Foreign,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Keys {
    /// The keys made from the one in `path`, which is made when it is missing.
    ///
    /// # Errors
    /// When the file is damaged, or the file system refuses.
    pub fn open_or_create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(text) => {
                let key = BASE64.decode(text.trim_ascii()).ok().filter(|key| key.len() == BYTES);
                Ok(Self::of(&key.ok_or_else(|| Error::Damaged(path.to_owned()))?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = random::<BYTES>()?;
                if let Some(directory) = path.parent() {
                    files::private_directory(directory).map_err(failed)?;
                }
                files::replace(path, format!("{}\n", BASE64.encode(key)).as_bytes(), Readers::Owner).map_err(failed)?;
                Ok(Self::of(&key))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Keys that nobody keeps.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn fleeting() -> Result<Self, Error> {
        Ok(Self::of(&random::<BYTES>()?))
    }

    fn of(key: &[u8]) -> Self {
        let made_from = Salt::new(HKDF_SHA256, b"onex-usercenter").extract(key);
        let hiding = expand::<32>(&made_from, &["hide secrets"]);
        let hiding = UnboundKey::new(&AES_256_GCM, &hiding).expect("it is as long as such keys are");
        Self { made_from, hiding: LessSafeKey::new(hiding) }
    }

    /// What signs refresh tokens.
    #[must_use]
    pub fn refresh(&self) -> [u8; 64] {
        expand(&self.made_from, &["sign refresh tokens"])
    }

    /// What signs the access tokens of one session: the temporary secret that ends with it.
    #[must_use]
    pub fn session(&self, session: &str) -> [u8; 64] {
        expand(&self.made_from, &["sign access tokens", session])
    }

    /// `secret`, as nobody can read it who has the database only. `whose` has to be said again to read it.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn hide(&self, secret: &str, whose: &str) -> Result<String, Error> {
        let nonce = random::<NONCE_LEN>()?;
        let mut bytes = secret.as_bytes().to_vec();
        let sealed = self.hiding.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(whose.as_bytes()),
            &mut bytes,
        );
        sealed.map_err(|_| Error::Randomness)?;
        Ok(format!("v1.{}.{}", BASE64.encode(nonce), BASE64.encode(bytes)))
    }

    /// What was hidden.
    ///
    /// # Errors
    /// When it was changed, or is not `whose` or ours.
    pub fn show(&self, hidden: &str, whose: &str) -> Result<String, Error> {
        let parts = hidden.strip_prefix("v1.").and_then(|rest| rest.split_once('.')).ok_or(Error::Foreign)?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| Error::Foreign);
        let nonce: [u8; NONCE_LEN] = decode(parts.0)?.try_into().map_err(|_| Error::Foreign)?;
        let mut bytes = decode(parts.1)?;
        let opened = self
            .hiding
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(whose.as_bytes()), &mut bytes)
            .map_err(|_| Error::Foreign)?;
        String::from_utf8(opened.to_vec()).map_err(|_| Error::Foreign)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn expand<const LENGTH: usize>(from: &Prk, purpose: &[&str]) -> [u8; LENGTH] {
    let purpose: Vec<&[u8]> = purpose.iter().map(|part| part.as_bytes()).collect();
    let mut key = [0; LENGTH];
    let made = from.expand(&purpose, Length(LENGTH)).and_then(|made| made.fill(&mut key));
    made.expect("so short a key can be made");
    key
}

/// Random bytes.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Error> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Randomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_a_restart_and_a_damaged_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki/usercenter.key");
        let hidden = Keys::open_or_create(&path).unwrap().hide("the key", "a").unwrap();
        let again = Keys::open_or_create(&path).unwrap();
        assert_eq!(again.show(&hidden, "a").unwrap(), "the key");
        fs::write(&path, "gone").unwrap();
        assert!(matches!(Keys::open_or_create(&path), Err(Error::Damaged(_))));
        assert_eq!(fs::read(&path).unwrap(), b"gone");
    }

    #[test]
    fn what_is_hidden_is_shown_only_whole_and_as_whose_it_is() {
        let keys = Keys::fleeting().unwrap();
        let hidden = keys.hide("the key", "a").unwrap();
        assert!(!hidden.contains("the key"));
        assert_ne!(hidden, keys.hide("the key", "a").unwrap());
        assert!(keys.show(&hidden, "b").is_err());
        assert!(Keys::fleeting().unwrap().show(&hidden, "a").is_err());
        let changed = hidden.replace(&hidden[20..21], if &hidden[20..21] == "A" { "B" } else { "A" });
        assert!(keys.show(&changed, "a").is_err());
        for text in ["", "v1.", "v1.a.b", "v2.AAAA.AAAA", "the key"] {
            assert!(keys.show(text, "a").is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_purposes_share_a_key() {
        let keys = Keys::fleeting().unwrap();
        assert_ne!(keys.refresh(), keys.session("a"));
        assert_ne!(keys.session("a"), keys.session("b"));
    }
}
