//! What the API server and others ask of the node: logs, exec, port forwarding, statistics, health.

mod auth;
mod http;
mod logs;
mod metrics;
mod route;
mod spdy;
mod stats;
mod streaming;
mod streams;
mod tls;
mod websocket;

use crate::kubelet::Shared;
use http::Reply;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// The port.
    pub port: u16,
}

async fn bind(at: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(at).await.map_err(|e| format!("cannot listen on {at}: {e} (another port: {flag})"))
}

/// Starts the server and the local health endpoint.
///
/// # Errors
/// When a port is taken or the certificate is unusable.
pub async fn start(k: Arc<Shared>, shutdown: CancellationToken) -> Result<Listening, String> {
    let c = k.config.clone();
    if c.healthz_port != 0 {
        let health = bind((c.healthz_bind_address, c.healthz_port).into(), "--healthz-port").await?;
        let stop = shutdown.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(serve_health(health)).await;
        });
    }
    let listener = bind((c.address, c.port).into(), "--port").await?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let tls = tls::Acceptor::new(&c)?;
    if let Some(bound) = &c.bound {
        bound.send_replace(port);
    }
    let server = Arc::new(route::Server::new(k));
    tokio::spawn(async move {
        shutdown.run_until_cancelled(serve(listener, tls, server)).await;
    });
    Ok(Listening { port })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small frames both ways: nobody gains from waiting.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(e) => {
                // Too many open files, most likely: it passes.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_health(listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(async move {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let reply = match request.uri().path() {
                    "/healthz" | "/healthz/ping" | "/healthz/log" | "/healthz/syncloop" | "/livez" | "/readyz" => {
                        Reply::text(200, "ok")
                    }
                    _ => Reply::text(404, "404 page not found\n"),
                };
                Ok::<_, std::convert::Infallible>(reply.into_response())
            });
            // A client that goes away early is no concern of ours.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn serve(listener: TcpListener, tls: tls::Acceptor, server: Arc<route::Server>) {
    loop {
        let stream = accept(&listener).await;
        let (tls, server) = (tls.clone(), server.clone());
        tokio::spawn(async move {
            let (stream, peer) = match tls.accept(stream).await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::debug!(error = %e, "TLS handshake failed");
                    return;
                }
            };
            let peer = Arc::new(peer);
            let service = service_fn(move |request| {
                let (server, peer) = (server.clone(), peer.clone());
                async move { Ok::<_, std::convert::Infallible>(server.handle(request, &peer).await.into_response()) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            if let Err(e) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
                tracing::debug!(error = %e, "connection ended");
            }
        });
    }
}
