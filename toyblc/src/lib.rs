//! A real, small blockchain node: proof of work, fork choice, peers over WebSocket, a persisted chain.
//!
//! It is a library and the command `onex toyblc`: [`Arguments`] are its flags and [`run`] runs it. Inside,
//! [`block`], [`rules`] and [`chain`] are pure: what a block is, when it may follow another, which branch is the chain.
//! [`store`] keeps the chain on disk and [`ledger`] joins the two. [`peers`] gossips, `mine` searches, `http` answers, and
//! [`Node`] runs them all.
//!
//! It is not a currency: no transactions, balances, rewards or signatures. It does not know of Kubernetes.

pub mod block;
pub mod chain;
mod http;
pub mod interval;
pub mod ledger;
mod metrics;
pub mod mine;
mod node;
pub mod peers;
pub mod rules;
mod settings;
pub mod store;

use tokio_util::sync::CancellationToken;

pub use node::Node;
pub use settings::{Account, Arguments, Ignored, Miner, Settings, Unusable};

/// Runs a node until `shutdown`. Works on a current-thread runtime, and is meant to: a node needs little.
///
/// `arguments.log_level` is for the caller, who owns the process's log.
pub async fn run(arguments: Arguments, shutdown: CancellationToken) -> anyhow::Result<()> {
    arguments.ignored.warn();
    Node::new(Settings::try_from(arguments)?)?.run(shutdown).await
}
