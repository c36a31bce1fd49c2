//! The addresses this process listens on.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;

use crate::arguments::Ports;

/// Listens for `part` on `address`, or on a free port of the same host. `setting` is where the address comes from.
pub async fn bind(
    part: &str,
    setting: &str,
    address: SocketAddr,
    ports: Ports,
) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let wanted = match ports {
        Ports::Default => address,
        Ports::Auto => SocketAddr::new(address.ip(), 0),
    };
    let listener = match TcpListener::bind(wanted).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "another program already listens on {wanted}, where the {part} should; stop it, \
             or choose another place with --set {setting}=…, or free ports with --ports auto"
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("could not listen on {wanted} for the {part}"));
        }
    };
    let address = listener.local_addr().context("could not learn the port")?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_named_with_a_way_out_and_auto_goes_around_it() {
        let (_held, busy) =
            bind("apiserver", "apiserver.listen", "127.0.0.1:0".parse().unwrap(), Ports::Default).await.unwrap();
        let refused = bind("apiserver", "apiserver.listen", busy, Ports::Default).await.unwrap_err().to_string();
        assert!(refused.contains(&busy.to_string()) && refused.contains("apiserver.listen"), "{refused}");
        let (_free, free) = bind("apiserver", "apiserver.listen", busy, Ports::Auto).await.unwrap();
        assert_ne!(busy, free);
    }
}
