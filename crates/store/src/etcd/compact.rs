//! Compaction of etcd, which keeps all history until told otherwise.
//!
//! Every API server of a cluster runs this, upstream's too: they agree, by the version of one key, that one of them
//! compacts in each interval, up to the revision that was the present one an interval before.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::client::{Client, plain};
use super::proto::{
    Compare, CompareResult, PutRequest, RangeRequest, Request, RequestOp, Response, TARGET_VERSION, TxnRequest,
};
use super::revision;
use crate::{Result, Revision};

/// The key they agree by; upstream's.
pub(super) const KEY: &str = "compact_rev_key";

/// Compacts until `closed`.
pub(super) async fn run(client: Client, interval: Duration, closed: CancellationToken) {
    let mut turn = 0;
    let mut known = 0;
    loop {
        tokio::select! { () = tokio::time::sleep(interval) => {}, () = closed.cancelled() => return }
        match take_turn(&client, turn, known).await {
            Ok((next, now)) => (turn, known) = (next, now),
            Err(error) => tracing::warn!(%error, "compacting etcd failed"),
        }
    }
}

/// Compacts up to `known` if this is the first to take this turn; returns the next turn and the present revision.
async fn take_turn(client: &Client, turn: i64, known: Revision) -> Result<(i64, Revision)> {
    let key = Bytes::from_static(KEY.as_bytes());
    let range = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let request = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: TARGET_VERSION,
            key: key.clone(),
            version: Some(turn),
            mod_revision: None,
        }],
        success: vec![RequestOp {
            request: Some(Request::Put(PutRequest { key, value: known.to_string().into(), lease: 0 })),
        }],
        failure: vec![RequestOp { request: Some(Request::Range(range)) }],
    };
    let response = client.txn(request).await.map_err(|status| plain(&status))?;
    let now = revision(response.header.as_ref());
    if !response.succeeded {
        // Another was first. The version of the key says which turn is next.
        let held = response.responses.into_iter().find_map(|response| match response.response {
            Some(Response::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        return Ok((held.map_or(0, |kv| kv.version), now));
    }
    if known > 0 {
        // Somebody may have compacted further by hand, which is just as well.
        if let Err(status) = client.compact(super::signed(known)).await {
            tracing::info!(known, error = status.message(), "etcd was not compacted");
        } else {
            tracing::debug!(known, "compacted etcd");
        }
    }
    Ok((turn + 1, now))
}
