//! The certificates OneX makes for itself: one authority on disk, and identities it issues at every start.
//!
//! Only the authority is kept. Everything it signs is made anew when a part starts, so nothing but the authority can run
//! out, and that is renewed with the same key: whoever trusted it goes on doing so.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::VerifierBuilderError;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::files::{self, Readers};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority's certificate is good for. It is renewed when a third of this is left.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long an issued certificate is good for.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How far another machine's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Why certificates could not be made or used.
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
    /// A file holds something else than the key or certificate it should.
    #[error("{path} does not hold what it should: {reason}; restore it, or remove it and its sibling to start over")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is missing, so making a new pair would silently replace the certificate.
    #[error("{0} is missing while its sibling is there; restore it, or remove both to start over")]
    Halved(PathBuf),
    /// A certificate could not be made, for example because a name in it is not one.
    #[error("could not make a certificate")]
    Issue(#[from] rcgen::Error),
    /// A key or certificate is not one that TLS accepts.
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    /// The client authority is not one that TLS accepts.
    #[error("could not set up the verification of clients: {0}")]
    Clients(String),
}

/// What went well or wrong with certificates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A certificate authority of our own. Its key never leaves this type and its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

/// A certificate and its private key, issued by an [`Authority`].
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

/// Who a certificate says its owner is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The common name: Kubernetes' user name.
    pub common_name: String,
    /// The organizations: Kubernetes' groups.
    pub organizations: Vec<String>,
    /// From when until when the certificate is good, in seconds since 1970.
    pub validity: RangeInclusive<i64>,
}

impl Authority {
    /// The authority kept in `dir` as `ca.crt` and `ca.key`; made there when both are missing.
    ///
    /// A certificate that is missing is made again from its key, as a first start that was killed leaves it to be done.
    /// The certificate is good for ten years and renewed, with the same key, when less than a third of that is left.
    ///
    /// # Errors
    /// When the key is missing or one of the two files is damaged, and when the file system refuses. A damaged authority is never
    /// replaced by itself: everything issued by it would stop being trusted.
    pub fn open_or_create(dir: &Path) -> Result<Self> {
        Self::open_or_create_at(dir, SystemTime::now())
    }

    fn open_or_create_at(dir: &Path, now: SystemTime) -> Result<Self> {
        let (key_path, certificate_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        match (read(&key_path)?, read(&certificate_path)?) {
            (None, None) => Self::create(dir, KeyPair::generate()?, now),
            (Some(key), certificate) => {
                let key = KeyPair::from_pem(&key).map_err(|error| damaged(&key_path, error))?;
                match certificate {
                    Some(certificate) => Self::open(dir, key, &certificate, now),
                    None => Self::create(dir, key, now),
                }
            }
            (None, Some(_)) => Err(Error::Halved(key_path)),
        }
    }

    fn open(dir: &Path, key: KeyPair, certificate_pem: &str, now: SystemTime) -> Result<Self> {
        let path = dir.join("ca.crt");
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| damaged(&path, error))?;
        let (expires, public_key) = expiry_and_key(&certificate).map_err(|error| damaged(&path, error))?;
        if public_key != key.public_key_raw() {
            return Err(damaged(&path, "it belongs to another key than the one beside it"));
        }
        if expires < now + AUTHORITY_LIFETIME / 3 {
            return Self::create(dir, key, now);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| damaged(&path, error))?;
        Ok(Self { issuer, certificate, certificate_pem: certificate_pem.to_owned() })
    }

    fn create(dir: &Path, key: KeyPair, now: SystemTime) -> Result<Self> {
        let mut parameters = valid_for(AUTHORITY_LIFETIME, now);
        parameters.distinguished_name = name("onex-authority", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.self_signed(&key)?;
        files::private_directory(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
        keep(&dir.join("ca.key"), &key.serialize_pem(), Readers::Owner)?;
        keep(&dir.join("ca.crt"), &certificate.pem(), Readers::Everybody)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// The authority's certificate, for those who shall trust it.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// An identity for a server that is reached by `names`: DNS names or IP addresses, the first of them its common name.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn issue_server<S: AsRef<str>>(&self, names: &[S]) -> Result<Identity> {
        let mut parameters = valid_for(LEAF_LIFETIME, SystemTime::now());
        parameters.distinguished_name = name(names.first().map_or("onex", S::as_ref), None);
        parameters.subject_alt_names = names.iter().map(|name| alternative(name.as_ref())).collect::<Result<_>>()?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(parameters)
    }

    /// An identity for a client: Kubernetes reads the common name as the user and the organization as its group.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_client(&self, common_name: &str, organization: &str) -> Result<Identity> {
        let mut parameters = valid_for(LEAF_LIFETIME, SystemTime::now());
        parameters.distinguished_name = name(common_name, Some(organization));
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(parameters)
    }

    fn issue(&self, mut parameters: CertificateParams) -> Result<Identity> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate, key })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Identity {
    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The private key as PEM. A secret: it belongs in a file with [`Readers::Owner`] and in no log.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Which clients a TLS server talks to.
#[derive(Debug, Clone, Copy)]
pub enum Clients<'a> {
    /// Everybody; no certificate is asked for.
    Anybody,
    /// Everybody, but a certificate that is shown must be of this authority, or the handshake ends.
    ///
    /// For a server that also takes tokens.
    MayShow(&'a CertificateDer<'static>),
    /// Only those who show a certificate of this authority.
    MustShow(&'a CertificateDer<'static>),
}

/// TLS for a server that shows `identity`, talks to `clients`, and offers HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When a certificate is not one that TLS accepts.
pub fn server_config(identity: &Identity, clients: Clients<'_>) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Clients::Anybody => builder.with_no_client_auth(),
        Clients::MayShow(authority) => builder
            .with_client_cert_verifier(verifier(authority)?.allow_unauthenticated().build().map_err(unverifiable)?),
        Clients::MustShow(authority) => {
            builder.with_client_cert_verifier(verifier(authority)?.build().map_err(unverifiable)?)
        }
    };
    let mut config = builder.with_single_cert(vec![identity.certificate().clone()], identity.key_der())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for a client that trusts servers of `authority` and shows `identity` when it has one.
///
/// It offers no application protocol; set `alpn_protocols` on a clone for HTTP/2.
///
/// # Errors
/// When a certificate is not one that TLS accepts.
pub fn client_config(authority: &CertificateDer<'static>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusting(authority)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(vec![identity.certificate().clone()], identity.key_der())?,
    };
    Ok(Arc::new(config))
}

/// Who `certificate` says its owner is; `None` when it cannot be read or names nobody.
///
/// Says nothing about whether it is true: verify the certificate first, as [`crate::listener::Peer`] has. And nothing about
/// whether it still is: a connection can outlive its certificate.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().ok().map(str::to_owned);
    let common_name = parsed.subject().iter_common_name().next().and_then(text)?;
    let organizations = parsed.subject().iter_organization().filter_map(text).collect();
    let validity = parsed.validity().not_before.timestamp()..=parsed.validity().not_after.timestamp();
    Some(Subject { common_name, organizations, validity })
}

/// Whether two certificates, as PEM, speak for the same key: one of them may be the other, renewed. `false` if either cannot be read.
#[must_use]
pub fn have_same_key(one: &str, other: &str) -> bool {
    let key = |pem: &str| {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Some(parsed.public_key().raw.to_vec())
    };
    key(one).is_some_and(|one| key(other) == Some(one))
}

/// The one crypto provider, named each time: a process default could be set by anybody.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn verifier(authority: &CertificateDer<'static>) -> Result<ClientCertVerifierBuilder> {
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(trusting(authority)?), provider()))
}

fn unverifiable(error: VerifierBuilderError) -> Error {
    Error::Clients(error.to_string())
}

fn trusting(authority: &CertificateDer<'static>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

fn valid_for(lifetime: Duration, now: SystemTime) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = (now - CLOCK_SKEW).into();
    parameters.not_after = (now + lifetime).into();
    parameters
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative(name: &str) -> Result<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

fn expiry_and_key(certificate: &CertificateDer<'_>) -> std::result::Result<(SystemTime, Vec<u8>), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let public_key = parsed.public_key().subject_public_key.data.to_vec();
    Ok((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), public_key))
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn keep(path: &Path, content: &str, readers: Readers) -> Result<()> {
    files::replace(path, content.as_bytes(), readers).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_authority_is_renewed_with_the_same_key_so_that_its_certificates_stay_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let start = SystemTime::now() - 7 * 365 * DAY;
        let old = Authority::open_or_create_at(directory.path(), start).unwrap();
        let young = Authority::open_or_create_at(directory.path(), start + 6 * 365 * DAY).unwrap();
        assert_eq!(old.certificate, young.certificate, "with more than a third left it is kept");
        let renewed = Authority::open_or_create_at(directory.path(), start + 7 * 365 * DAY).unwrap();
        assert_ne!(old.certificate, renewed.certificate);
        let key = |authority: &Authority| expiry_and_key(&authority.certificate).unwrap().1;
        assert_eq!(key(&old), key(&renewed));
    }
}
