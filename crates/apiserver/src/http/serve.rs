//! Serving over TLS: HTTP/1.1 and HTTP/2 on one port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pintle_api::service::{Body, BoxError};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::authn::{Peer, x509};
use crate::config::Pem;
use crate::{ApiServer, Server, SetupError};

/// How long a client may take over its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections may take to end after the server stopped.
const DRAIN: Duration = Duration::from_secs(60);

/// HTTP/2 flow control as upstream's: a body of usual size is sent without waiting for leave. The windows are fixed,
/// for what finds the best ones by itself sends pings with every request.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

fn tls(server: &Server) -> Result<TlsAcceptor, SetupError> {
    let config = &server.config;
    let missing = |what: &str| SetupError(format!("no {what} is configured"));
    let cert = config.tls_cert.as_ref().ok_or_else(|| missing("serving certificate"))?.read().map_err(SetupError)?;
    let key = config.tls_key.as_ref().ok_or_else(|| missing("serving key"))?.read().map_err(SetupError)?;
    let chain: Vec<CertificateDer<'static>> = x509::certificates(&cert).map_err(SetupError)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| SetupError(format!("serving key: {e}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bundles: Vec<Vec<u8>> = [&config.client_ca, &config.request_header_ca]
        .into_iter()
        .flatten()
        .map(Pem::read)
        .collect::<Result<_, _>>()
        .map_err(SetupError)?;
    let hints: Vec<&[u8]> = bundles.iter().map(Vec::as_slice).collect();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| SetupError(e.to_string()))?;
    let mut tls = if hints.is_empty() {
        builder.with_no_client_auth().with_single_cert(chain, key)
    } else {
        builder
            .with_client_cert_verifier(Arc::new(x509::AnyCertificate::new(provider, &hints)))
            .with_single_cert(chain, key)
    }
    .map_err(|e| SetupError(format!("serving certificate: {e}")))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

impl ApiServer {
    /// Serves on this socket until [`ApiServer::shutdown`] is called and the last request is done.
    ///
    /// # Errors
    /// When certificates are missing or do not parse.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), SetupError> {
        let acceptor = tls(&self.inner)?;
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                a = listener.accept() => a,
                () = self.inner.stopping.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, acceptor) = (Arc::clone(&self.inner), acceptor.clone());
                    connections.spawn(async move {
                        if let Err(e) = connection(server, acceptor, stream).await {
                            tracing::debug!("connection ended: {e}");
                        }
                    });
                }
                Err(e) => {
                    // Out of file descriptors, or the peer has gone: the next one may do.
                    tracing::warn!("accepting a connection failed: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        connections.close();
        // What is not over by then is cut.
        let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
        Ok(())
    }
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|a| a.ip());
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake"))??;
    let certificates =
        stream.get_ref().1.peer_certificates().map(|c| c.iter().map(|c| c.clone().into_owned()).collect());
    let peer = Peer::new(certificates.unwrap_or_default(), address);
    let stopping = server.stopping.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, peer) = (Arc::clone(&server), peer.clone());
        async move {
            let mut request = request.map(|b| -> Body { b.map_err(|e| -> BoxError { Box::new(e) }).boxed_unsync() });
            request.extensions_mut().insert(peer);
            Ok::<_, std::convert::Infallible>(server.handle(request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(true);
    builder.http2().max_concurrent_streams(1000).initial_stream_window_size(STREAM_WINDOW);
    builder.http2().initial_connection_window_size(CONNECTION_WINDOW);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        r = connection.as_mut() => return r,
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
