//! The one file a Kubernetes client needs.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onex_daemon::pki::{Authority, Identity};

/// A kubeconfig that trusts `authority` and speaks to the apiserver at `address` as `identity`.
///
/// Everything is embedded, so the file may be copied to where it is needed. It holds a private key: keep it private.
pub fn write(address: SocketAddr, authority: &Authority, identity: &Identity) -> String {
    let authority = STANDARD.encode(authority.certificate_pem());
    let certificate = STANDARD.encode(identity.certificate_pem());
    let key = STANDARD.encode(identity.key_pem());
    // Written by hand, because nothing in it can need quoting: base64, an address, and words of our own.
    format!(
        "apiVersion: v1
kind: Config
current-context: onex
clusters:
- name: onex
  cluster:
    server: https://{address}
    certificate-authority-data: {authority}
users:
- name: admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: onex
  context:
    cluster: onex
    user: admin
    namespace: default
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_client_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(directory.path()).unwrap();
        let admin = authority.issue_client("admin", "system:masters").unwrap();
        let text = write("127.0.0.1:52443".parse().unwrap(), &authority, &admin);
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("onex"));
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:52443"));
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        let embedded = STANDARD.decode(user.client_certificate_data.as_ref().unwrap()).unwrap();
        assert_eq!(embedded, admin.certificate_pem().as_bytes());
    }
}
