//! Where a storage is, as a URL says it.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::Error;

/// Where a storage is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// `memory:`
    Memory,
    /// `file:///directory`
    File(PathBuf),
    /// `etcd://host:port,host:port`: the members of one cluster. Without a port, 2379.
    Etcd(Vec<String>),
}

const ETCD_PORT: &str = "2379";

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Location { location: text.to_owned(), why };
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("file", _)) => {
                let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                path.map(Self::File)
                    .ok_or_else(|| refuse("it names no directory of this machine; use file:///directory"))
            }
            Some(("etcd", rest)) => {
                let members = rest.strip_prefix("//").unwrap_or_default().trim_end_matches('/');
                let members: Option<Vec<String>> = members.split(',').map(member).collect();
                members.map(Self::Etcd).ok_or_else(|| refuse("it names no hosts; use etcd://host:port,host:port"))
            }
            _ => Err(refuse("use memory:, file:///directory or etcd://host:port,host:port")),
        }
    }
}

/// A host with its port.
fn member(text: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{text}")).ok()?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    // Nothing but a host: a password here would be shown wherever the location is.
    let host = url.host_str().filter(|_| is_bare && url.password().is_none() && !text.ends_with('/'))?;
    let port = url.port().map_or(ETCD_PORT.to_owned(), |port| port.to_string());
    // The library leaves out the port that HTTP has anyway.
    let port = if url.port().is_none() && text.ends_with(":80") { "80".to_owned() } else { port };
    Some(format!("{host}:{port}"))
}

impl TryFrom<String> for Location {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(directory) => match Url::from_directory_path(directory) {
                Ok(url) => url.fmt(f),
                Err(()) => write!(f, "file:{}", directory.display()),
            },
            Self::Etcd(members) => write!(f, "etcd://{}", members.join(",")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_written_as_a_url() {
        for (text, written) in [
            ("memory:", "memory:"),
            ("file:///a/b", "file:///a/b/"),
            ("file:///a%20b/", "file:///a%20b/"),
            ("etcd://a", "etcd://a:2379"),
            ("etcd://127.0.0.1:80,[::1]:2380,c/", "etcd://127.0.0.1:80,[::1]:2380,c:2379"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), written);
            assert_eq!(written.parse::<Location>().unwrap(), location);
        }
        assert_eq!("file:///a%20b".parse::<Location>().unwrap(), Location::File("/a b".into()));
        for text in [
            "",
            "memory",
            "memory:x",
            "ftp://x",
            "file://host/directory",
            "etcd:",
            "etcd://",
            "etcd://a,,b",
            "etcd://u:p@a",
            "etcd://a/b",
        ] {
            let refused = text.parse::<Location>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{text:?} is no place for a storage: ")), "{refused}");
        }
    }
}
