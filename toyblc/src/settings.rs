//! The flags of `onex toyblc`, and what they mean to a node.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use sha2::{Digest, Sha256};

use crate::block::{DEFAULT_ADDRESS, MAX_ADDRESS_BYTES};
use crate::interval;
use crate::peers::PeerAddress;
use crate::rules::MAX_INTERVAL_SECONDS;
use crate::store;

/// The accounts that OneX's scripts use when no others are named.
const DEFAULT_ACCOUNTS: &str = "toyblc:onex(#)666,onex:onex(#)666";

/// The flags of `onex toyblc`, named as OneX names them. `--data-dir` and the limits are ours.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Mine blocks, beside passing on those of others
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub miner: bool,

    /// The least time between two blocks that this miner leaves, as Go writes durations; whole seconds, at least one
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = interval::parse)]
    pub min_mine_interval: Duration,

    /// How hard mining is for this miner: it tries 4096 / N hashes a second (0 counts as 1)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub mining_difficulty: u32,

    /// The wallet that mined blocks belong to
    #[arg(long, value_name = "WALLET", default_value = DEFAULT_ADDRESS)]
    pub address: String,

    /// Where other nodes connect (WebSocket, open to whoever reaches it)
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:6001")]
    pub p2p_addr: String,

    /// Nodes to stay connected to
    #[arg(long, value_name = "WS-URL,...", value_delimiter = ',', default_value = "ws://localhost:6001")]
    pub peers: Vec<String>,

    /// Who may use the HTTP API below /v1
    #[arg(long, value_name = "USER:PASSWORD,...", value_delimiter = ',', default_value = DEFAULT_ACCOUNTS, env = "ONEX_TOYBLC_ACCOUNTS", hide_env_values = true)]
    pub accounts: Vec<Account>,

    /// Where the HTTP API is served
    #[arg(long = "http.addr", value_name = "IP:PORT", default_value = "0.0.0.0:38443")]
    pub http_addr: String,

    /// Where the chain is kept; without it the chain ends with the process
    #[arg(long, value_name = "DIR", default_value = "", env = "ONEX_TOYBLC_DATA_DIR")]
    pub data_dir: String,

    /// Which blockchain this is; nodes of another are not spoken to, and each has its own place in the data directory
    #[arg(long, value_name = "TEXT", default_value = "", env = "ONEX_CHAIN_ID")]
    pub chain_id: String,

    /// How many nodes may be connected to us
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_inbound_peers: usize,

    /// To how many nodes we connect; those of --peers always, others as we hear of them
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub max_outbound_peers: usize,

    /// What is logged: error, warn, info, debug or trace, or a filter such as onex_toyblc=debug
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", env = "ONEX_TOYBLC_LOG_LEVEL")]
    pub log_level: String,

    /// What was given that means something to OneX's node and nothing to this one.
    #[command(flatten)]
    pub ignored: Ignored,
}

/// Flags of OneX's own node that are accepted and ignored, so that its scripts and manifests start this one too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored(Vec<&'static str>);

impl Ignored {
    const TEXTS: [&str; 7] =
        ["http.network", "http.timeout", "tls.ca-cert", "tls.cert", "tls.key", "log.format", "log.output-paths"];
    const SWITCHES: [&str; 5] =
        ["tls.use-tls", "tls.insecure-skip-verify", "log.disable-caller", "log.disable-stacktrace", "log.enable-color"];

    /// Says once which flags have no effect, if any were given.
    pub(crate) fn warn(&self) {
        if !self.0.is_empty() {
            let flags = self.0.join(", ");
            tracing::warn!(flags, "these flags have no effect here; HTTP is always plain, and the log goes to stderr");
        }
    }
}

impl clap::Args for Ignored {
    fn augment_args(command: clap::Command) -> clap::Command {
        let flag = |name| Arg::new(name).long(name).hide(true).action(ArgAction::Append);
        let switch = |name| flag(name).num_args(0..=1).require_equals(true).default_missing_value("true");
        command.args(Self::TEXTS.map(flag)).args(Self::SWITCHES.map(switch))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &&str| matches.contains_id(name);
        Ok(Self(Self::TEXTS.into_iter().chain(Self::SWITCHES).filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A user of the HTTP API. Never prints its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, never empty and without a colon.
    pub user: String,
    /// The password.
    pub password: String,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Self { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err("an account is USER:PASSWORD, and the user is not empty".to_owned()),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a node runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether it mines, and how.
    pub miner: Option<Miner>,
    /// The wallet of blocks it mines on request, and of those it mines by itself.
    pub address: String,
    /// The interval, in seconds, that it writes into its blocks.
    pub interval_seconds: u64,
    /// Where peers connect.
    pub p2p_addr: SocketAddr,
    /// Whom it stays connected to.
    pub peers: Vec<PeerAddress>,
    /// Who may use the HTTP API.
    pub accounts: Vec<Account>,
    /// Where the HTTP API is.
    pub http_addr: SocketAddr,
    /// Where chains are kept.
    pub data_dir: Option<PathBuf>,
    /// Which chain this is. Empty: whichever.
    pub chain_id: String,
    /// The most connections from others.
    pub max_inbound_peers: usize,
    /// To how many it connects.
    pub max_outbound_peers: usize,
}

impl Settings {
    /// Where the chain is kept: one that has an id, in a directory of its own, so that a node that moves to another chain
    /// starts with that, and finds the first again when it comes back.
    pub(crate) fn chain_dir(&self) -> Option<PathBuf> {
        let directory = self.data_dir.as_ref()?;
        Some(match self.chain_id.as_str() {
            "" => directory.clone(),
            id => directory.join(CHAINS).join(file_name(id)),
        })
    }

    /// Where other chains are kept that this node does not use.
    pub(crate) fn other_chain_dirs(&self) -> Vec<PathBuf> {
        let Some(directory) = &self.data_dir else { return Vec::new() };
        let named = std::fs::read_dir(directory.join(CHAINS)).into_iter().flatten().flatten().map(|entry| entry.path());
        let all = named.chain([directory.clone()]).filter(|place| place.join(store::FILE).exists());
        all.filter(|place| Some(place) != self.chain_dir().as_ref()).collect()
    }
}

/// A name for the directory of the chain `id`: the id itself if that can be a file's name on any disk, else its hash.
fn file_name(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if id.len() <= 128 && !id.starts_with('.') && id.bytes().all(plain) {
        return id.to_owned();
    }
    format!("sha256-{}", hex::encode(Sha256::digest(id)))
}

/// How a node mines by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miner {
    /// How many hashes it tries in a second of searching, at most.
    pub hashes_per_second: u64,
}

/// Where in the data directory the chains are that have ids.
const CHAINS: &str = "chains";

/// The longest id of a chain; every name and uid of Kubernetes fits.
const MAX_CHAIN_ID_BYTES: usize = 256;

/// What a miner of difficulty 1 tries in a second: about a thousandth of what a core can, so that many miners share one.
const HASHES_PER_SECOND: u64 = 4096;

/// A flag has a value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: {problem}")]
pub struct Unusable {
    flag: &'static str,
    problem: String,
}

impl TryFrom<Arguments> for Settings {
    type Error = Unusable;

    fn try_from(arguments: Arguments) -> Result<Self, Unusable> {
        let unusable = |flag, problem: String| Unusable { flag, problem };
        if arguments.address.is_empty() || arguments.address.len() > MAX_ADDRESS_BYTES {
            return Err(unusable("address", format!("a wallet has 1 to {MAX_ADDRESS_BYTES} bytes")));
        }
        if arguments.accounts.is_empty() {
            return Err(unusable("accounts", "at least one account is needed".to_owned()));
        }
        if arguments.chain_id.len() > MAX_CHAIN_ID_BYTES {
            return Err(unusable("chain-id", format!("it has at most {MAX_CHAIN_ID_BYTES} bytes")));
        }
        let named = arguments.peers.iter().map(|peer| peer.trim()).filter(|peer| !peer.is_empty());
        let peers = named.map(str::parse).collect::<Result<_, _>>();
        let hashes_per_second = (HASHES_PER_SECOND / u64::from(arguments.mining_difficulty.max(1))).max(1);
        Ok(Self {
            miner: arguments.miner.then_some(Miner { hashes_per_second }),
            address: arguments.address,
            interval_seconds: whole_seconds(arguments.min_mine_interval),
            p2p_addr: listening(&arguments.p2p_addr).map_err(|problem| unusable("p2p-addr", problem))?,
            peers: peers.map_err(|problem: crate::peers::NotAnAddress| unusable("peers", problem.to_string()))?,
            accounts: arguments.accounts,
            http_addr: listening(&arguments.http_addr).map_err(|problem| unusable("http.addr", problem))?,
            data_dir: Some(arguments.data_dir).filter(|directory| !directory.is_empty()).map(PathBuf::from),
            chain_id: arguments.chain_id,
            max_inbound_peers: arguments.max_inbound_peers,
            max_outbound_peers: arguments.max_outbound_peers,
        })
    }
}

/// Whole seconds, rounded up, as a block can name them.
fn whole_seconds(interval: Duration) -> u64 {
    (interval.as_secs() + u64::from(interval.subsec_nanos() > 0)).clamp(1, MAX_INTERVAL_SECONDS)
}

/// An address to listen on; `:6001`, as Go allows, is every address of the machine.
fn listening(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let mut found = full.to_socket_addrs().map_err(|error| format!("{text:?} is not IP:PORT: {error}"))?;
    found.next().ok_or_else(|| format!("{text:?} has no address"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn settings(flags: &[&str]) -> Result<Settings, String> {
        let command = Command::try_parse_from(["toyblc"].iter().chain(flags)).map_err(|error| error.to_string())?;
        Settings::try_from(command.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn the_arguments_of_a_miner_pod_are_understood() {
        let settings = settings(&[
            "--p2p-addr=127.9.0.1:6001",
            "--peers=ws://127.9.0.2:6001",
            "--http.addr=127.9.0.1:38080",
            "--miner",
            "--address=user-admin",
            "--min-mine-interval=12h0m0s",
            "--mining-difficulty=5",
        ])
        .unwrap();
        assert_eq!(settings.interval_seconds, 43_200);
        assert_eq!(settings.miner, Some(Miner { hashes_per_second: 819 }));
        assert_eq!(settings.p2p_addr.to_string(), "127.9.0.1:6001");
        assert_eq!(settings.peers[0].to_string(), "ws://127.9.0.2:6001");
        assert_eq!(settings.data_dir, None);
        assert_eq!(settings.chain_id, "");
    }

    #[test]
    fn flags_have_the_defaults_of_onex() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.miner, None);
        assert_eq!(settings.interval_seconds, 7200);
        assert_eq!(settings.address, DEFAULT_ADDRESS);
        assert_eq!(settings.peers[0].to_string(), "ws://localhost:6001");
        let users: Vec<_> = settings.accounts.iter().map(|account| account.user.as_str()).collect();
        assert_eq!(users, ["toyblc", "onex"]);
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for flags in [
            ["--accounts=:pass"],
            ["--peers=http://a:1"],
            ["--p2p-addr=nowhere"],
            ["--mining-difficulty=-1"],
            ["--address="],
            [&format!("--chain-id={}", "x".repeat(MAX_CHAIN_ID_BYTES + 1))],
        ] {
            assert!(settings(&flags).is_err(), "{flags:?}");
        }
        assert_eq!(settings(&["--miner=false"]).unwrap().miner, None);
        assert!(settings(&["--peers="]).unwrap().peers.is_empty());
        assert_eq!(settings(&["--peers=ws://a:1,ws://b:2", "--peers=ws://c:3"]).unwrap().peers.len(), 3);
    }

    #[test]
    fn flags_that_only_onex_knows_are_accepted_and_named() {
        let ignored = |flags: &[&str]| {
            let command = Command::try_parse_from(["toyblc"].iter().chain(flags)).unwrap();
            command.arguments.ignored.0
        };
        assert_eq!(ignored(&["--miner", "--http.addr=127.0.0.1:1"]), [""; 0]);
        let given = [
            "--tls.use-tls=false",
            "--tls.insecure-skip-verify",
            "--tls.cert=/cert",
            "--http.timeout",
            "30s",
            "--http.network=tcp",
            "--log.output-paths=stdout",
            "--log.output-paths=/log",
            "--log.enable-color",
            "--miner",
        ];
        let named = [
            "http.network",
            "http.timeout",
            "tls.cert",
            "log.output-paths",
            "tls.use-tls",
            "tls.insecure-skip-verify",
            "log.enable-color",
        ];
        assert_eq!(ignored(&given), named);
        assert!(settings(&given).unwrap().miner.is_some());
        for name in Ignored::TEXTS.into_iter().chain(Ignored::SWITCHES) {
            assert_eq!(ignored(&[&format!("--{name}=x")]), [name]);
        }
    }

    #[test]
    fn every_chain_has_a_directory_of_its_own() {
        let place = |id: &str| {
            let settings = settings(&["--data-dir=/data", &format!("--chain-id={id}")]).unwrap();
            settings.chain_dir().unwrap().display().to_string()
        };
        assert_eq!(place(""), "/data");
        assert_eq!(place("genesis"), "/data/chains/genesis");
        assert_eq!(place("8c1f0a3e-kube.system"), "/data/chains/8c1f0a3e-kube.system");
        let odd = ["..", ".", "a/b", "A", "a b", "\u{e4}", &"x".repeat(200)].map(place);
        assert!(odd.iter().all(|place| place.starts_with("/data/chains/sha256-") && place.len() < 100), "{odd:?}");
        assert_eq!(odd.iter().collect::<std::collections::HashSet<_>>().len(), odd.len());
    }

    #[test]
    fn a_password_is_never_printed() {
        let printed = format!("{:?}", settings(&["--accounts=me:secret"]).unwrap());
        assert!(printed.contains("me") && !printed.contains("secret"));
    }
}
