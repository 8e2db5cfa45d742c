//! The health checks of load balancer Services with a local traffic policy: each on a port of the node, telling the load
//! balancer whether this node has endpoints.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::netns::NetNs;
use crate::views::Name;

struct Check {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All health checks of a node.
#[derive(Default)]
pub struct HealthChecks {
    checks: HashMap<Name, Check>,
}

impl std::fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|(name, check)| (name, check.port))).finish()
    }
}

impl HealthChecks {
    /// Opens, moves or updates the check of a Service; closes it when `wanted` is absent.
    ///
    /// # Errors
    /// When the port cannot be opened; the next call tries again.
    pub fn set(&mut self, ns: &NetNs, name: &Name, wanted: Option<(u16, usize)>) -> io::Result<()> {
        let Some((port, count)) = wanted else {
            self.checks.remove(name);
            return Ok(());
        };
        if let Some(check) = self.checks.get(name).filter(|check| check.port == port) {
            check.endpoints.store(count, Ordering::Relaxed);
            return Ok(());
        }
        self.checks.remove(name);
        let listener = listen(ns, port)?;
        let endpoints = Arc::new(AtomicUsize::new(count));
        let task = tokio::spawn(serve(TcpListener::from_std(listener)?, name.clone(), endpoints.clone()));
        self.checks.insert(name.clone(), Check { port, endpoints, task });
        Ok(())
    }
}

/// On every address of the node, of both families where there are two.
fn listen(ns: &NetNs, port: u16) -> io::Result<std::net::TcpListener> {
    let listener = ns.run(|| {
        std::net::TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
            .or_else(|_| std::net::TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)))
    })??;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, name: Name, endpoints: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; others will be closed.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (name, endpoints) = (name.clone(), endpoints.clone());
        tokio::spawn(async move {
            let answer = service_fn(|_| {
                let response = respond(&name, endpoints.load(Ordering::Relaxed));
                async move { Ok::<_, Infallible>(response) }
            });
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            if let Err(err) = served {
                tracing::debug!(%err, "a health check caller left");
            }
        });
    }
}

fn respond(name: &Name, count: usize) -> Response<Full<Bytes>> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}",
        quote(&name.namespace),
        quote(&name.name)
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = if count > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert("Content-Type", http::HeaderValue::from_static("application/json"));
    headers.insert("X-Content-Type-Options", http::HeaderValue::from_static("nosniff"));
    headers.insert("X-Load-Balancing-Endpoint-Weight", http::HeaderValue::from(count));
    response
}
