//! Calls of etcd's gRPC services.

use std::str::FromStr;

use futures::Stream;
use http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::EtcdOptions;
use super::proto::{
    CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
    Written,
};
use crate::{Error, Result};

/// A connection to an etcd cluster. Clones share it.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to any of the endpoints; a call goes to one that answers.
    pub(super) fn new(options: &EtcdOptions) -> Result<Self> {
        let mut endpoints = Vec::new();
        for address in &options.endpoints {
            let address = if address.contains("://") { address.clone() } else { format!("http://{address}") };
            let invalid = |what: &dyn std::fmt::Display| Error::Invalid(format!("etcd endpoint {address}: {what}"));
            let mut endpoint = Endpoint::from_str(&address)
                .map_err(|error| invalid(&error))?
                .connect_timeout(options.connect_timeout)
                .http2_keep_alive_interval(options.keep_alive)
                .keep_alive_timeout(options.keep_alive_timeout)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            if address.starts_with("https://") {
                endpoint = endpoint.tls_config(tls(options)).map_err(|error| invalid(&error))?;
            }
            endpoints.push(endpoint);
        }
        let channel = match endpoints.len() {
            0 => return Err(Error::Invalid("no etcd endpoint is given".into())),
            1 => endpoints.remove(0).connect_lazy(),
            _ => Channel::balance_list(endpoints.into_iter()),
        };
        Ok(Self { channel })
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: true };
        self.call::<_, Written>("/etcdserverpb.KV/Compact", request).await.map(drop)
    }

    pub(super) async fn lease_grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        self.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await
    }

    pub(super) async fn lease_time_to_live(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Status> {
        self.call("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveRequest { id }).await
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, Status> {
        self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let mut request = Request::new(requests);
        // A member cut off from the others ends the watch instead of keeping silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let answer = self.grpc().await?.streaming(request, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }
}

fn tls(options: &EtcdOptions) -> ClientTlsConfig {
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &options.ca {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &options.client {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    tls
}

/// Which of etcd's errors have a meaning of their own here.
pub(super) enum Failure {
    Compacted,
    Future,
    Other(Error),
}

pub(super) fn failure(status: &Status) -> Failure {
    let message = status.message();
    Failure::Other(match status.code() {
        Code::OutOfRange if message.contains("compacted") => return Failure::Compacted,
        Code::OutOfRange if message.contains("future revision") => return Failure::Future,
        Code::ResourceExhausted if message.contains("space exceeded") => {
            Error::NoSpace(format!("{message}; compact and defragment etcd, then disarm its alarm, or raise its quota"))
        }
        Code::InvalidArgument | Code::ResourceExhausted => Error::Invalid(message.to_owned()),
        Code::DataLoss => Error::Corrupt(message.to_owned()),
        _ => Error::Unavailable(format!("etcd: {}: {message}", status.code())),
    })
}

/// The meaning of a failure where none is special.
pub(super) fn plain(status: &Status) -> Error {
    match failure(status) {
        Failure::Other(error) => error,
        Failure::Compacted | Failure::Future => Error::Invalid(status.message().to_owned()),
    }
}
