//! Names that are not the cluster's: asked of the node's own name servers, and kept for a short while.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::RwLock;

/// How long an answer is kept at most, and for how long the file with the servers is trusted not to have changed.
const KEEP: Duration = Duration::from_secs(30);
const TRUST: Duration = Duration::from_secs(5);

/// Where the servers are found.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// Those of a `resolv.conf`, read again when it changes.
    ResolvConf(PathBuf),
    /// These.
    Servers(Vec<SocketAddr>),
}

/// What an upstream server answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarded {
    /// How it went.
    pub code: ResponseCode,
    /// What was found.
    pub answers: Vec<Record>,
    /// The start of authority that goes with nothing found.
    pub soa: Option<Record>,
}

impl Forwarded {
    fn failed(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), soa: None }
    }
}

struct Current {
    resolver: Option<Arc<TokioResolver>>,
    servers: Arc<[IpAddr]>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

/// The forwarder.
pub struct Forwarder {
    upstream: Upstream,
    /// Addresses this server answers on: asking them would be asking ourselves.
    own: Vec<IpAddr>,
    current: RwLock<Current>,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("upstream", &self.upstream).field("own", &self.own).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// A forwarder that never asks `own` addresses.
    #[must_use]
    pub fn new(upstream: Upstream, own: Vec<IpAddr>) -> Self {
        let unread = Current { resolver: None, servers: Arc::new([]), modified: None, checked: None };
        Self { upstream, own, current: RwLock::new(unread) }
    }

    /// Asks upstream for a client. A question from one of the upstream servers would go round in circles: refused.
    pub async fn lookup(&self, client: IpAddr, name: &Name, kind: RecordType) -> Forwarded {
        let (resolver, servers) = self.resolver();
        if servers.contains(&client) && !client.is_loopback() && !self.own.contains(&client) {
            return Forwarded::failed(ResponseCode::Refused);
        }
        let Some(resolver) = resolver else { return Forwarded::failed(ResponseCode::ServFail) };
        let mut name = name.clone();
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(found) => Forwarded { code: ResponseCode::NoError, answers: found.answers().to_vec(), soa: None },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Forwarded {
                code: none.response_code,
                answers: Vec::new(),
                soa: none.soa.map(|soa| {
                    let ttl = none.negative_ttl.unwrap_or(soa.ttl);
                    Record::from_rdata(soa.name.clone(), ttl, RData::SOA(soa.data))
                }),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Forwarded::failed(code),
            Err(err) => {
                tracing::debug!(%err, "asking upstream");
                Forwarded::failed(ResponseCode::ServFail)
            }
        }
    }

    /// The resolver as of now, and whom it asks.
    fn resolver(&self) -> (Option<Arc<TokioResolver>>, Arc<[IpAddr]>) {
        {
            let current = self.current.read();
            if current.checked.is_some_and(|checked| checked.elapsed() < TRUST) {
                return (current.resolver.clone(), current.servers.clone());
            }
        }
        let modified = match &self.upstream {
            Upstream::ResolvConf(path) => std::fs::metadata(path).and_then(|meta| meta.modified()).ok(),
            Upstream::Servers(_) => None,
        };
        let mut current = self.current.write();
        if current.modified != modified || current.resolver.is_none() {
            let servers = self.servers();
            current.servers = servers.iter().map(|server| server.ip).collect();
            current.resolver = build(servers).map(Arc::new);
            current.modified = modified;
        }
        current.checked = Some(Instant::now());
        (current.resolver.clone(), current.servers.clone())
    }

    fn servers(&self) -> Vec<NameServerConfig> {
        let all = match &self.upstream {
            Upstream::ResolvConf(path) => {
                let read = std::fs::read(path).map_err(|err| err.to_string());
                match read.and_then(|text| parse_resolv_conf(text).map_err(|err| err.to_string())) {
                    Ok((config, _)) => config.name_servers,
                    Err(err) => {
                        tracing::warn!(path = %path.display(), err, "no upstream name servers");
                        Vec::new()
                    }
                }
            }
            Upstream::Servers(list) => list
                .iter()
                .map(|server| {
                    let mut config = NameServerConfig::udp_and_tcp(server.ip());
                    for connection in &mut config.connections {
                        connection.port = server.port();
                    }
                    config
                })
                .collect(),
        };
        all.into_iter().filter(|server| !self.own.contains(&server.ip)).collect()
    }
}

fn build(servers: Vec<NameServerConfig>) -> Option<TokioResolver> {
    if servers.is_empty() {
        return None;
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ndots = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.positive_max_ttl = Some(KEEP);
    options.negative_max_ttl = Some(KEEP);
    options.timeout = Duration::from_secs(2);
    options.cache_size = 10_000;
    builder.build().map_err(|err| tracing::warn!(%err, "setting up the upstream name servers")).ok()
}
