//! The built-in sample: a static HTTP server, and a client for it, so that a demonstration needs no network and no
//! image from elsewhere. Both run inside containers whose image holds nothing but this binary.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What `pintle sample` can do.
#[derive(Subcommand)]
pub enum Sample {
    /// Serve one page that names the pod, and /healthz, until told to stop.
    Serve {
        /// Address and port to listen on.
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
    },
    /// Fetch a URL and print what it answered; exit status 1 when it is no success.
    Get {
        /// An `http://` URL.
        url: String,
        /// Give up a try after so many seconds.
        #[arg(long, default_value_t = 10)]
        timeout: u64,
        /// Try again, as long as nothing answers, for so many seconds.
        #[arg(long, default_value_t = 0)]
        retry: u64,
    },
}

/// Runs it.
pub async fn run(what: Sample) -> anyhow::Result<()> {
    match what {
        Sample::Serve { listen } => serve(listen).await,
        Sample::Get { url, timeout, retry } => {
            print!("{}", get_until(&url, Duration::from_secs(timeout), Duration::from_secs(retry)).await?);
            Ok(())
        }
    }
}

/// The page: which pod answered, on which node, as the downward API tells.
fn page() -> String {
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".into());
    format!("Hello from Pintle! This is pod {} on node {}.\n", env("HOSTNAME"), env("NODE_NAME"))
}

async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let page = Arc::new(Bytes::from(page()));
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("serving on {listen}");
    loop {
        let (stream, peer) = tokio::select! {
            conn = listener.accept() => conn?,
            _ = stop.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let page = page.clone();
        tokio::spawn(async move {
            let service = service_fn(move |req| {
                let answer = answer(&req, &page);
                println!("{} {} {} {}", peer.ip(), req.method(), req.uri().path(), answer.status().as_u16());
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that goes away in the middle is its own affair.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer<B>(req: &Request<B>, page: &Bytes) -> Response<Full<Bytes>> {
    let (status, body) = match (req.method(), req.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, page.clone()),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, Bytes::from_static(b"ok")),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, Bytes::from_static(b"no such page\n")),
        _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"only GET and HEAD\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// How long to leave a server that does not answer alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Fetches a page; tries again until `retry` has passed. What answers may be a moment behind what is announced.
///
/// # Errors
/// That of the last try.
pub async fn get_until(url: &str, timeout: Duration, retry: Duration) -> anyhow::Result<String> {
    let start = tokio::time::Instant::now();
    loop {
        match get(url, timeout).await {
            Err(_) if start.elapsed() < retry => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

/// Fetches a page.
///
/// # Errors
/// When nothing answers in time, or not with success.
pub async fn get(url: &str, timeout: Duration) -> anyhow::Result<String> {
    let uri: hyper::Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
    let fetch = async {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.get(uri).await.with_context(|| format!("{url} does not answer"))?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(|| format!("{url} broke off"))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if !status.is_success() {
            bail!("{url} answered {status}: {}", text.trim_end());
        }
        Ok(text)
    };
    tokio::time::timeout(timeout, fetch).await.with_context(|| format!("{url} did not answer within {timeout:?}"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |method: &str, path: &str, want: u16| {
            let req = Request::builder().method(method).uri(path).body(()).unwrap();
            assert_eq!(answer(&req, &Bytes::from_static(b"x")).status().as_u16(), want, "{method} {path}");
        };
        check("GET", "/", 200);
        check("GET", "/healthz", 200);
        check("GET", "/other", 404);
        check("POST", "/", 405);
    }

    #[tokio::test]
    async fn gets_what_it_serves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let server = tokio::spawn(serve(addr));
        let url = format!("http://{addr}/");
        // The listener may not be there yet: try until it is, within the test's own patience.
        let text = loop {
            if let Ok(text) = get(&url, Duration::from_secs(5)).await {
                break text;
            }
            tokio::task::yield_now().await;
        };
        assert!(text.starts_with("Hello from Pintle!"));
        assert!(get(&format!("http://{addr}/none"), Duration::from_secs(5)).await.is_err());
        server.abort();
    }
}
