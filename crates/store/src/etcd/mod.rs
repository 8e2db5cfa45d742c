//! A store in an etcd cluster, by its v3 API. It may be shared with other API servers, ours or upstream's.
//!
//! Restoring a snapshot here gives every key a new revision, etcd's own: clients must list again.

mod client;
mod compact;
mod proto;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::client::{Client, Failure, failure, plain};
use self::proto::{CompareResult, RangeRequest, RangeResponse, Request, RequestOp, Response, TARGET_MOD, TxnRequest};
use self::watch::Feed;
use crate::store::{Store, Watch, WatchHandle, WatchSink};
use crate::{
    Error, Expect, Got, Key, KeyValue, ListRequest, Listed, Op, Outcome, Result, Revision, Size, SnapshotInfo, Txn,
    WatchRequest, snapshot,
};

/// How to reach an etcd cluster.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `https://host:port` of its members.
    pub endpoints: Vec<String>,
    /// Certificates, in PEM, that the members' certificates must come from.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Put before every key, so that several clusters can use one etcd.
    pub prefix: String,
    /// How long history is kept; `None` leaves compaction to others.
    pub compaction_interval: Option<Duration>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How often an idle connection is tried,
    pub keep_alive: Duration,
    /// and how long it has to answer.
    pub keep_alive_timeout: Duration,
}

impl EtcdOptions {
    /// Without TLS or with it but no certificates, depending on the endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ca: None,
            client: None,
            prefix: String::new(),
            compaction_interval: Some(Duration::from_secs(300)),
            connect_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
        }
    }
}

/// A [`Store`] in an etcd cluster. Clones share a connection.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    prefix: String,
    closed: CancellationToken,
    /// What feeds the watches, once there is one.
    feed: tokio::sync::Mutex<Option<Feed>>,
    /// The last lease, for keys that end their life at about the same time.
    lease: tokio::sync::Mutex<Option<Lease>>,
}

#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    ttl: Duration,
    granted: Instant,
}

/// Keys read at once when reading everything.
const PAGE: usize = 1000;
/// A lease is used again for keys written within this part of its life, at most a minute.
const LEASE_SHARE: u32 = 20;

/// The first key after all that start with a prefix; `\0` (no end) if there is none.
fn range_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    Bytes::from_static(b"\0")
}

/// etcd's revisions are signed and fit.
fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn unsigned(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}

fn revision(header: Option<&proto::ResponseHeader>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision))
}

impl EtcdStore {
    /// Connects, which fails if no member answers.
    pub async fn connect(options: &EtcdOptions) -> Result<Self> {
        let client = Client::new(options)?;
        let status = client.status().await.map_err(|status| plain(&status))?;
        tracing::info!(version = status.version, "connected to etcd");
        let shared = Shared {
            client,
            prefix: options.prefix.clone(),
            closed: CancellationToken::new(),
            feed: tokio::sync::Mutex::default(),
            lease: tokio::sync::Mutex::default(),
        };
        if let Some(interval) = options.compaction_interval {
            tokio::spawn(compact::run(shared.client.clone(), interval, shared.closed.clone()));
        }
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// A key without the prefix; `None` for what is not ours.
fn own(prefix: &str, key: &[u8]) -> Option<Key> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix).map(Into::into)
}

/// etcd's revision.
async fn current(client: &Client) -> Result<Revision> {
    let nothing = RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() };
    let response = client.range(nothing).await.map_err(|status| plain(&status))?;
    Ok(revision(response.header.as_ref()))
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Shared {
    fn key(&self, key: &str) -> Bytes {
        Bytes::from(format!("{}{key}", self.prefix))
    }

    fn kv(&self, kv: proto::KeyValue) -> Result<KeyValue> {
        let strange = || Error::Corrupt(format!("etcd has a strange key: {}", kv.key.escape_ascii()));
        let key = own(&self.prefix, &kv.key).ok_or_else(strange)?;
        Ok(KeyValue { key, value: kv.value, mod_revision: unsigned(kv.mod_revision) })
    }

    /// A range of all keys with a prefix.
    fn all(&self, prefix: &str) -> RangeRequest {
        let prefix = format!("{}{prefix}", self.prefix);
        let range_end = range_end(&prefix);
        let key = if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix.into() };
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.check_open()?;
        let requested = unsigned(request.revision);
        match self.client.range(request).await {
            Ok(response) => Ok(response),
            Err(status) => Err(self.explain(&status, requested).await),
        }
    }

    /// The error for a request that named a revision.
    async fn explain(&self, status: &tonic::Status, requested: Revision) -> Error {
        match failure(status) {
            Failure::Compacted => match self.compacted().await {
                Ok(compacted) => Error::Compacted { requested, compacted },
                Err(error) => error,
            },
            Failure::Future => match current(&self.client).await {
                Ok(current) => Error::FutureRevision { requested, current },
                Err(error) => error,
            },
            Failure::Other(error) => error,
        }
    }

    async fn compacted(&self) -> Result<Revision> {
        let first =
            RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, revision: 1, ..RangeRequest::default() };
        match self.client.range(first).await {
            Ok(_) => Ok(0),
            Err(status) if matches!(failure(&status), Failure::Compacted) => watch::compacted(&self.client).await,
            Err(status) => Err(plain(&status)),
        }
    }

    /// A lease that lives at least this long.
    async fn lease(&self, ttl: Duration) -> Result<i64> {
        let share = (ttl / LEASE_SHARE).min(Duration::from_secs(60));
        let mut last = self.lease.lock().await;
        if let Some(lease) = last.filter(|lease| lease.ttl == ttl && lease.granted.elapsed() < share) {
            return Ok(lease.id);
        }
        let granted = Instant::now();
        let seconds = (ttl + share).as_secs_f64().ceil().max(1.0);
        let response = self.client.lease_grant(seconds as i64).await.map_err(|status| plain(&status))?;
        if !response.error.is_empty() {
            return Err(Error::Unavailable(format!("etcd grants no lease: {}", response.error)));
        }
        *last = Some(Lease { id: response.id, ttl, granted });
        Ok(response.id)
    }

    async fn request(&self, op: Op) -> Result<RequestOp> {
        let request = match op {
            Op::Put { key, value, ttl } => {
                let lease = match ttl {
                    Some(ttl) => self.lease(ttl).await?,
                    None => 0,
                };
                Request::Put(proto::PutRequest { key: self.key(&key), value, lease })
            }
            Op::Delete { key } => Request::DeleteRange(proto::DeleteRangeRequest { key: self.key(&key) }),
        };
        Ok(RequestOp { request: Some(request) })
    }

    fn compare(&self, compare: &crate::Compare) -> proto::Compare {
        let (result, mod_revision) = match compare.expect {
            Expect::Absent => (CompareResult::Equal, 0),
            Expect::Exists => (CompareResult::Greater, 0),
            Expect::ModRevision(revision) => (CompareResult::Equal, signed(revision)),
        };
        proto::Compare {
            result: result as i32,
            target: TARGET_MOD,
            key: self.key(&compare.key),
            version: None,
            mod_revision: Some(mod_revision),
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Got> {
        let shared = &self.shared;
        let response = shared.range(RangeRequest { key: shared.key(key), ..RangeRequest::default() }).await?;
        let revision = revision(response.header.as_ref());
        let kv = response.kvs.into_iter().next().map(|kv| shared.kv(kv)).transpose()?;
        Ok(Got { kv, revision })
    }

    async fn list(&self, request: ListRequest) -> Result<Listed> {
        let shared = &self.shared;
        let mut range = shared.all(&request.prefix);
        range.revision = request.revision.map_or(0, signed);
        let from = request.from_key.as_deref().filter(|from| *from > request.prefix.as_str());
        let beyond = from.is_some_and(|from| !from.starts_with(&request.prefix));
        if let Some(from) = from.filter(|_| !beyond) {
            range.key = shared.key(from);
        }
        match request.limit {
            Some(0) => range.count_only = true,
            _ if beyond => range.count_only = true,
            limit => range.limit = limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        }
        let response = shared.range(range).await?;
        let revision = request.revision.unwrap_or_else(|| revision(response.header.as_ref()));
        if beyond {
            // The start lies after everything with the prefix; only the revision was of interest.
            return Ok(Listed { kvs: Vec::new(), revision, remaining: 0 });
        }
        let remaining = unsigned(response.count).saturating_sub(response.kvs.len() as u64);
        let kvs = response.kvs.into_iter().map(|kv| shared.kv(kv)).collect::<Result<_>>()?;
        Ok(Listed { kvs, revision, remaining })
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome> {
        let shared = &self.shared;
        txn.check()?;
        shared.check_open()?;
        let mut success = Vec::with_capacity(txn.ops.len());
        for op in txn.ops {
            success.push(shared.request(op).await?);
        }
        let get = |key: &Key| RequestOp {
            request: Some(Request::Range(RangeRequest { key: shared.key(key), ..RangeRequest::default() })),
        };
        let request = TxnRequest {
            compare: txn.compares.iter().map(|compare| shared.compare(compare)).collect(),
            success,
            failure: txn.on_failure.iter().map(get).collect(),
        };
        let response = shared.client.txn(request).await.map_err(|status| plain(&status))?;
        let revision = revision(response.header.as_ref());
        if response.succeeded {
            return Ok(Outcome::Succeeded { revision });
        }
        let mut current = Vec::with_capacity(response.responses.len());
        for response in response.responses {
            let Some(Response::Range(range)) = response.response else { continue };
            current.push(range.kvs.into_iter().next().map(|kv| shared.kv(kv)).transpose()?);
        }
        Ok(Outcome::Failed { revision, current })
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch> {
        self.shared.watch(request).await
    }

    async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle> {
        self.shared.watch_with(request, sink).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.shared.check_open()?;
        current(&self.shared.client).await
    }

    fn local_revision(&self) -> Option<Revision> {
        None
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        self.shared.check_open()?;
        self.shared.compacted().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.shared.check_open()?;
        match self.shared.client.compact(signed(revision)).await {
            Ok(()) => Ok(()),
            Err(status) => Err(self.shared.explain(&status, revision).await),
        }
    }

    async fn snapshot(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<SnapshotInfo> {
        let shared = &self.shared;
        let revision = self.current_revision().await?;
        let mut writer = snapshot::Writer::new(writer, revision).await?;
        let mut lives: HashMap<i64, Duration> = HashMap::new();
        let mut range = shared.all("");
        (range.revision, range.limit) = (signed(revision), signed(PAGE as u64));
        loop {
            let response = shared.range(range.clone()).await?;
            let more = response.count > response.kvs.len() as i64;
            let last = response.kvs.last().map(|kv| kv.key.clone());
            for kv in response.kvs.into_iter().filter(|kv| kv.key != compact::KEY) {
                let mut ttl = None;
                if kv.lease != 0 {
                    ttl = lives.get(&kv.lease).copied();
                    if ttl.is_none() {
                        let left = shared.client.lease_time_to_live(kv.lease).await.map_err(|status| plain(&status))?;
                        let left = Duration::from_secs(unsigned(left.ttl).max(1));
                        ttl = Some(*lives.entry(kv.lease).or_insert(left));
                    }
                }
                writer.write(&snapshot::Record { kv: shared.kv(kv)?, ttl }).await?;
            }
            match last.filter(|_| more) {
                Some(last) => range.key = [&last[..], b"\0"].concat().into(),
                None => return writer.finish().await,
            }
        }
    }

    async fn restore(&self, reader: &mut (dyn AsyncRead + Send + Unpin), _: Revision) -> Result<SnapshotInfo> {
        const KEYS: usize = 100;
        const BYTES: usize = 1 << 20;
        let mut reader = snapshot::Reader::new(reader).await?;
        // Keys are paths; what else there is serves the API servers' own purposes.
        let present = self.list(ListRequest::prefix("/").limit(0)).await?;
        if present.remaining > 0 {
            return Err(Error::Invalid("a snapshot can only be restored into an empty store".into()));
        }
        // All of it is read, and found good, before anything is written: etcd cannot take it back.
        let mut records = Vec::new();
        while let Some(record) = reader.next().await? {
            records.push(record);
        }
        let mut txn = Txn::default();
        let mut bytes = 0;
        for snapshot::Record { kv, ttl } in records {
            if txn.ops.len() >= KEYS || (bytes > 0 && bytes + kv.value.len() > BYTES) {
                bytes = 0;
                self.txn(std::mem::take(&mut txn)).await?;
            }
            bytes += kv.value.len();
            txn.ops.push(Op::Put { key: kv.key, value: kv.value, ttl });
        }
        self.txn(txn).await?;
        Ok(reader.info())
    }

    async fn size(&self) -> Result<Size> {
        self.shared.check_open()?;
        let status = self.shared.client.status().await.map_err(|status| plain(&status))?;
        Ok(Size { total: unsigned(status.db_size), used: unsigned(status.db_size_in_use) })
    }

    async fn close(&self) -> Result<()> {
        self.shared.closed.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_ranges() {
        let check = |prefix: &str, end: &[u8]| assert_eq!(&range_end(prefix)[..], end, "{prefix}");
        check("/a/", b"/a0");
        check("a", b"b");
        check("", b"\0");
        check("a\u{7f}", b"a\x80");
    }
}
