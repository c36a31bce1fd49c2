//! The keys that sign tokens: the newest signs, all of them verify.
//!
//! ECDSA over P-256, from the library that TLS brings already. A key is a file named after the second in which it was made.
//! When a newer one takes over, only its public half stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use onex_daemon::files::{self, Readers};
use parking_lot::RwLock;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What comes before the point of a P-256 key in its DER form.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a 4, and two coordinates.
const POINT_BYTES: usize = 65;
/// Private keys that sign, or will no longer.
const PRIVATE: &str = "key";
/// Public keys of those that signed before.
const PUBLIC: &str = "pub";

/// Why keys could not be had.
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
    /// A file holds something else than a key.
    #[error("{path} does not hold a P-256 key as PEM; restore it, or remove it to refuse the tokens that it signed")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The system gave no random numbers.
    #[error("could not make a key")]
    Random,
}

/// How long keys are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// A key this old, in seconds, makes place for a new one. 0: never.
    pub(super) rotation: i64,
    /// What verifies no longer, in seconds after it signed last. 0: everything verifies.
    pub(super) retired: i64,
}

/// All keys, which change rarely.
pub(super) struct Keys {
    directory: Option<PathBuf>,
    ages: Ages,
    ring: RwLock<Arc<Ring>>,
}

/// The keys at one time.
pub(super) struct Ring {
    signer: Signer,
    /// The newest first; the first is the signer's.
    public: Vec<Public>,
}

struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

#[derive(Clone)]
struct Public {
    id: String,
    point: [u8; POINT_BYTES],
    /// When it was made, in seconds since 1970.
    made: i64,
}

impl Keys {
    /// The keys kept in `directory`; the first is made when there is none. Without a directory they are forgotten at the end.
    pub(super) fn open(directory: Option<PathBuf>, ages: Ages, now: i64) -> Result<Self, Error> {
        let ring = RwLock::new(Arc::new(Ring::open(directory.as_deref(), ages, now)?));
        Ok(Self { directory, ages, ring })
    }

    /// The keys as they are now.
    pub(super) fn now(&self) -> Arc<Ring> {
        self.ring.read().clone()
    }

    /// Makes a new key if the newest is too old, and forgets those that are no longer of use. Whether anything changed.
    pub(super) fn rotate(&self, now: i64) -> Result<bool, Error> {
        let ring = self.now();
        if !self.ages.is_over(&ring.public, now) {
            return Ok(false);
        }
        let fresh = match &self.directory {
            Some(_) => Ring::open(self.directory.as_deref(), self.ages, now)?,
            None => Ring::signing_newly(ring.public.clone(), self.ages, None, now)?,
        };
        *self.ring.write() = Arc::new(fresh);
        Ok(true)
    }
}

impl Ages {
    fn is_over(self, public: &[Public], now: i64) -> bool {
        self.wants_new(public, now) || self.kept(public, now) < public.len()
    }

    fn wants_new(self, public: &[Public], now: i64) -> bool {
        public.first().is_none_or(|newest| self.rotation > 0 && now - newest.made >= self.rotation)
    }

    /// How many of the keys, the newest first, still verify.
    fn kept(self, public: &[Public], now: i64) -> usize {
        if self.retired == 0 {
            return public.len();
        }
        // A key signed until its successor was made.
        let successors = public.iter().map(|key| key.made);
        1 + successors.take(public.len().saturating_sub(1)).take_while(|made| now - made < self.retired).count()
    }
}

impl Ring {
    fn open(directory: Option<&Path>, ages: Ages, now: i64) -> Result<Self, Error> {
        let Some(directory) = directory else { return Self::signing_newly(Vec::new(), ages, None, now) };
        files::private_directory(directory).map_err(|source| refused(directory, source))?;
        let mut found = read_all(directory)?;
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.made));
        let public: Vec<Public> = found.iter().map(|(key, _)| key.clone()).collect();
        let newest = found.into_iter().next().and_then(|(_, pair)| pair);
        match newest {
            Some(pair) if !ages.wants_new(&public, now) => Self::tidied(pair, public, ages, Some(directory), now),
            _ => Self::signing_newly(public, ages, Some(directory), now),
        }
    }

    fn signing_newly(mut public: Vec<Public>, ages: Ages, directory: Option<&Path>, now: i64) -> Result<Self, Error> {
        // Two keys of one second would share a file.
        let made = public.first().map_or(now, |newest| now.max(newest.made + 1));
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let document = document.map_err(|_| Error::Random)?;
        let pair = pair(document.as_ref()).ok_or(Error::Random)?;
        if let Some(directory) = directory {
            let path = directory.join(format!("{made}.{PRIVATE}"));
            let text = pem("PRIVATE KEY", document.as_ref());
            files::replace(&path, text.as_bytes(), Readers::Owner).map_err(|source| refused(&path, source))?;
        }
        public.insert(0, Public::of(&pair, made).ok_or(Error::Random)?);
        Self::tidied(pair, public, ages, directory, now)
    }

    /// Leaves of older keys only the public halves, and of those that are too old nothing.
    fn tidied(
        pair: EcdsaKeyPair,
        mut public: Vec<Public>,
        ages: Ages,
        directory: Option<&Path>,
        now: i64,
    ) -> Result<Self, Error> {
        let forgotten = public.split_off(ages.kept(&public, now));
        if let Some(directory) = directory {
            for key in public.iter().skip(1) {
                key.keep_public_half(directory)?;
            }
            for key in &forgotten {
                remove(&key.path(directory, PRIVATE))?;
                remove(&key.path(directory, PUBLIC))?;
            }
        }
        Ok(Self { signer: Signer { pair, random: SystemRandom::new() }, public })
    }

    /// The name of the key that signs.
    pub(super) fn signer(&self) -> &str {
        &self.public[0].id
    }

    /// Signs with the newest key.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.signer.pair.sign(&self.signer.random, message).map_err(|_| Error::Random)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Whether the key named `id` signed this. An answer of `None` means that there is no such key.
    pub(super) fn verify(&self, id: &str, message: &[u8], signature: &[u8]) -> Option<bool> {
        let key = self.public.iter().find(|key| key.id == id)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
        Some(key.verify(message, signature).is_ok())
    }

    /// The public keys as a JSON Web Key Set.
    pub(super) fn set(&self) -> Value {
        let key = |key: &Public| {
            let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&key.point[from..from + 32]);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": super::jwt::ALGORITHM,
                "x": coordinate(1), "y": coordinate(33),
            })
        };
        json!({"keys": self.public.iter().map(key).collect::<Vec<_>>()})
    }
}

impl Public {
    fn of(pair: &EcdsaKeyPair, made: i64) -> Option<Self> {
        Self::at(pair.public_key().as_ref(), made)
    }

    fn at(point: &[u8], made: i64) -> Option<Self> {
        let point: [u8; POINT_BYTES] = point.try_into().ok()?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(spki(&point)));
        (point[0] == 4).then_some(Self { id, point, made })
    }

    fn path(&self, directory: &Path, extension: &str) -> PathBuf {
        directory.join(format!("{}.{extension}", self.made))
    }

    /// Nobody can sign with a key that is there no longer.
    fn keep_public_half(&self, directory: &Path) -> Result<(), Error> {
        let path = self.path(directory, PUBLIC);
        if !path.exists() {
            let text = pem("PUBLIC KEY", &spki(&self.point));
            files::replace(&path, text.as_bytes(), Readers::Everybody).map_err(|source| refused(&path, source))?;
        }
        remove(&self.path(directory, PRIVATE))
    }
}

/// Every key in the directory, with its private half where there is one. What is named otherwise is somebody else's.
fn read_all(directory: &Path) -> Result<Vec<(Public, Option<EcdsaKeyPair>)>, Error> {
    let mut keys: Vec<(Public, Option<EcdsaKeyPair>)> = Vec::new();
    for entry in fs::read_dir(directory).map_err(|source| refused(directory, source))? {
        let path = entry.map_err(|source| refused(directory, source))?.path();
        let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or_default().to_owned();
        let Ok(made) = part(path.file_stem()).parse::<i64>() else { continue };
        let read = || fs::read(&path).map_err(|source| refused(&path, source));
        let key = match part(path.extension()).as_str() {
            PRIVATE => private_of(&read()?).and_then(|pair| Some((Public::of(&pair, made)?, Some(pair)))),
            PUBLIC => public_of(&read()?, made).map(|public| (public, None)),
            _ => continue,
        };
        let (public, pair) = key.ok_or_else(|| Error::Damaged { path: path.clone() })?;
        match keys.iter_mut().find(|(other, _)| other.id == public.id) {
            // Both halves are there for a moment while a newer key takes over.
            Some((_, known)) => *known = known.take().or(pair),
            None => keys.push((public, pair)),
        }
    }
    Ok(keys)
}

fn private_of(file: &[u8]) -> Option<EcdsaKeyPair> {
    let document = PrivatePkcs8KeyDer::from_pem_slice(file).ok()?;
    pair(document.secret_pkcs8_der())
}

fn public_of(file: &[u8], made: i64) -> Option<Public> {
    let document = SubjectPublicKeyInfoDer::from_pem_slice(file).ok()?;
    Public::at(document.as_ref().strip_prefix(&SPKI_HEAD)?, made)
}

fn pair(document: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new()).ok()
}

fn spki(point: &[u8; POINT_BYTES]) -> Vec<u8> {
    [&SPKI_HEAD[..], point].concat()
}

fn pem(what: &str, document: &[u8]) -> String {
    let body = STANDARD.encode(document);
    let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(path, error)),
        _ => Ok(()),
    }
}

fn refused(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: i64 = 24 * 60 * 60;
    const START: i64 = 1_700_000_000;

    fn open(directory: &Path, ages: Ages, now: i64) -> Keys {
        Keys::open(Some(directory.to_owned()), ages, now).unwrap()
    }

    fn files(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_key_is_made_once_is_for_its_owner_only_and_signs_after_a_restart_too() {
        let directory = tempfile::tempdir().unwrap();
        let never = Ages { rotation: 0, retired: 0 };
        let first = open(directory.path(), never, START).now();
        let signature = first.sign(b"message").unwrap();
        let again = open(directory.path(), never, START + 5000 * DAY).now();
        assert_eq!(again.signer(), first.signer());
        assert_eq!(again.verify(first.signer(), b"message", &signature), Some(true));
        assert_eq!(again.verify(first.signer(), b"massage", &signature), Some(false));
        assert_eq!(again.verify("other", b"message", &signature), None);
        let path = directory.path().join(format!("{START}.key"));
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_new_key_takes_over_and_of_the_old_one_only_the_public_half_stays() {
        let directory = tempfile::tempdir().unwrap();
        let ages = Ages { rotation: 30 * DAY, retired: 100 * DAY };
        let keys = open(directory.path(), ages, START);
        let old = keys.now();
        let signature = old.sign(b"message").unwrap();
        assert!(!keys.rotate(START + 30 * DAY - 1).unwrap());
        assert!(keys.rotate(START + 30 * DAY).unwrap());
        let new = keys.now();
        assert_ne!(new.signer(), old.signer());
        assert_eq!(new.verify(old.signer(), b"message", &signature), Some(true));
        let second = START + 30 * DAY;
        assert_eq!(files(directory.path()), [format!("{START}.pub"), format!("{second}.key")]);
        let restarted = open(directory.path(), ages, second + 1).now();
        assert_eq!(restarted.verify(old.signer(), b"message", &signature), Some(true));
        assert_eq!(restarted.signer(), new.signer());
        let late = open(directory.path(), ages, second + 100 * DAY).now();
        assert_eq!(late.verify(old.signer(), b"message", &signature), None, "it is forgotten");
        assert!(late.verify(new.signer(), b"message", &signature).is_some(), "and its successor is not");
        assert!(!files(directory.path()).contains(&format!("{START}.pub")));
    }

    #[test]
    fn keys_that_are_kept_nowhere_are_rotated_too() {
        let keys = Keys::open(None, Ages { rotation: DAY, retired: 0 }, START).unwrap();
        let old = keys.now();
        assert!(keys.rotate(START + DAY).unwrap());
        assert_eq!(keys.now().set()["keys"].as_array().unwrap().len(), 2);
        assert_eq!(keys.now().set()["keys"][1]["kid"], old.signer());
    }

    #[test]
    fn a_damaged_key_is_not_replaced_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("7.key"), "not a key").unwrap();
        let ages = Ages { rotation: 0, retired: 0 };
        let error = Keys::open(Some(directory.path().to_owned()), ages, START).err().unwrap();
        assert!(error.to_string().contains("7.key"), "{error}");
    }
}
