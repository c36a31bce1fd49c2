//! Where the server is and who we are, from a kubeconfig with embedded certificates.

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

/// A server, and what to show it.
pub(crate) struct Cluster {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    pub(crate) token: Option<String>,
}

/// Reads the first cluster and the first user: one with a certificate, or one with a token.
pub(crate) fn read(path: &Path) -> Result<Cluster> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: Value = serde_saphyr::from_str(&text).context("the kubeconfig is not YAML")?;
    let cluster = &config["clusters"][0]["cluster"];
    let user = &config["users"][0]["user"];
    let url = crate::text(cluster, &["server"]).strip_prefix("https://").context("the server is not https")?;
    let (host, port) = url.trim_end_matches('/').split_once(':').unwrap_or((url, "443"));
    let pem = |part, name| content(part, name, path);
    let authority = pem(cluster, "certificate-authority")?.context("the kubeconfig names no authority")?;
    let authorities = CertificateDer::pem_slice_iter(&authority).collect::<Result<Vec<_>, _>>()?;
    let identity = match (pem(user, "client-certificate")?, pem(user, "client-key")?) {
        (Some(certificate), Some(key)) => {
            Some((CertificateDer::from_pem_slice(&certificate)?, PrivateKeyDer::from_pem_slice(&key)?))
        }
        _ => None,
    };
    let token = user["token"].as_str().map(str::to_owned);
    Ok(Cluster {
        host: host.to_owned(),
        port: port.parse().context("the port of the server")?,
        authorities,
        identity,
        token,
    })
}

/// What is embedded as `name-data`, or in the file `name`, which is meant from where the kubeconfig is.
fn content(part: &Value, name: &str, kubeconfig: &Path) -> Result<Option<Vec<u8>>> {
    let embedded = format!("{name}-data");
    if let Some(data) = part[&embedded].as_str() {
        return STANDARD.decode(data).map(Some).with_context(|| format!("{embedded} is not base64"));
    }
    let Some(file) = part[name].as_str() else { return Ok(None) };
    let file = kubeconfig.parent().unwrap_or(Path::new(".")).join(file);
    std::fs::read(&file).map(Some).with_context(|| format!("reading {}", file.display()))
}
