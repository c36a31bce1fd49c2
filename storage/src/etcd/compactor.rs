//! Forgets history in time, as kube-apiserver does, and together with all who use the same cluster: whoever changes the key
//! of Kubernetes' compactors first is the one who compacts this time.

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::{Link, connection::header, signed};
use crate::{Result, Revision};

pub(super) const KEY: &str = "compact_rev_key";

/// Compacts to where the cluster was a period ago, every period.
pub(super) async fn compact_now_and_then(link: Arc<Link>, period: Duration) {
    let (mut turn, mut before) = (0, None);
    loop {
        tokio::time::sleep(period).await;
        match compact(&link, turn, before).await {
            Ok((next, now)) => (turn, before) = (next, Some(now)),
            Err(error) => tracing::warn!(%error, "etcd could not be compacted; it is tried again later"),
        }
    }
}

/// Compacts to `before` if it is our turn. Answers the next turn, and where the cluster is now.
async fn compact(link: &Link, turn: i64, before: Option<Revision>) -> Result<(i64, Revision)> {
    let value = before.unwrap_or_default().to_string();
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, turn)])
        .and_then([TxnOp::put(KEY, value, None)])
        .or_else([TxnOp::get(KEY, None)]);
    let answer = link.connections.write(|mut kv| async move { kv.txn(txn).await }).await?;
    let now = header(answer.header());
    if !answer.succeeded() {
        let version = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok((version.unwrap_or_default(), now));
    }
    if let Some(before) = before {
        match link.connections.compact(signed(before)).await {
            Ok(()) | Err(crate::Error::Compacted { .. }) => tracing::debug!(revision = before.0, "compacted"),
            Err(error) => return Err(error),
        }
    }
    Ok((turn + 1, now))
}
