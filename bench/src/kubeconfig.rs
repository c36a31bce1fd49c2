//! Where the server is and who we are, from a kubeconfig with embedded certificates.

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

/// A server, and the certificates to talk to it.
pub(crate) struct Cluster {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Reads the first cluster and the first user.
pub(crate) fn read(path: &Path) -> Result<Cluster> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: Value = serde_saphyr::from_str(&text).context("the kubeconfig is not YAML")?;
    let cluster = &config["clusters"][0]["cluster"];
    let user = &config["users"][0]["user"];
    let url = crate::text(cluster, &["server"]).strip_prefix("https://").context("the server is not https")?;
    let (host, port) = url.trim_end_matches('/').split_once(':').unwrap_or((url, "443"));
    Ok(Cluster {
        host: host.to_owned(),
        port: port.parse().context("the port of the server")?,
        authority: CertificateDer::from_pem_slice(&embedded(cluster, "certificate-authority-data")?)?,
        certificate: CertificateDer::from_pem_slice(&embedded(user, "client-certificate-data")?)?,
        key: PrivateKeyDer::from_pem_slice(&embedded(user, "client-key-data")?)?,
    })
}

fn embedded(part: &Value, name: &str) -> Result<Vec<u8>> {
    STANDARD.decode(crate::text(part, &[name])).with_context(|| format!("{name} is not base64"))
}
