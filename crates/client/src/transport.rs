//! Where requests go: the API server of this process, or one behind HTTPS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use kube::Config;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;
use pintle_api::service::{ApiService, Body, BoxError};
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};

use crate::error::Error;

/// Takes a request to an API server. A failure means it was not reached; an error it answers is an answer.
pub type Transport = tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

/// The API server of this process.
pub fn in_process(service: ApiService) -> Transport {
    Transport::new(service.map_err(|never| match never {}))
}

/// An API server behind HTTPS, by a configuration made elsewhere.
pub fn over_https(config: Config) -> Result<Transport, Error> {
    Ok(of_kube(connect(config)?))
}

/// An API server behind HTTPS, as a kubeconfig file says. The file and those it names are looked at again when they
/// change, so rotated certificates and tokens are taken up without a restart.
pub async fn over_kubeconfig(path: PathBuf, context: Option<String>) -> Result<(Transport, Arc<str>), Error> {
    let source = Source { path, context };
    let (config, files) = source.load().await?;
    let host = host(&config);
    let state = Arc::new(Reloading {
        source,
        current: Mutex::new(Current { client: connect(config)?, stamps: stamps(&files), looked: Instant::now() }),
    });
    let transport = service_fn(move |request: http::Request<Body>| {
        let state = state.clone();
        async move { send(&state.client().await, request).await }
    });
    Ok((Transport::new(transport), host))
}

/// Host and port that a configuration leads to.
pub fn host(config: &Config) -> Arc<str> {
    config.cluster_url.authority().map_or("", |a| a.as_str()).into()
}

fn connect(mut config: Config) -> Result<kube::Client, Error> {
    // Retries and deadlines are the callers' business; watches last.
    config.default_retry = false;
    config.read_timeout = None;
    let builder =
        ClientBuilder::try_from(config).map_err(|e| Error::Config(format!("cannot set up the client: {e}")))?;
    Ok(builder.build())
}

async fn send(client: &kube::Client, request: http::Request<Body>) -> Result<http::Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    // Requests are whole in memory already; kube's body type only takes those from outside its crate.
    let bytes = body.collect().await?.to_bytes();
    let response = client.send(http::Request::from_parts(parts, kube::client::Body::from(bytes))).await?;
    Ok(response.map(|b| b.map_err(BoxError::from).boxed_unsync()))
}

fn of_kube(client: kube::Client) -> Transport {
    Transport::new(service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move { send(&client, request).await }
    }))
}

/// How long a look at the files' times is good for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

struct Source {
    path: PathBuf,
    context: Option<String>,
}

struct Current {
    client: kube::Client,
    stamps: Vec<(PathBuf, Option<SystemTime>)>,
    looked: Instant,
}

struct Reloading {
    source: Source,
    current: Mutex<Current>,
}

fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>)> {
    files.iter().map(|f| (f.clone(), std::fs::metadata(f).and_then(|m| m.modified()).ok())).collect()
}

impl Source {
    /// The configuration, and every file it came from.
    async fn load(&self) -> Result<(Config, Vec<PathBuf>), Error> {
        let fail = |e: &dyn std::fmt::Display| Error::Config(format!("kubeconfig {}: {e}", self.path.display()));
        let kubeconfig = Kubeconfig::read_from(&self.path).map_err(|e| fail(&e))?;
        let mut files = vec![self.path.clone()];
        for info in kubeconfig.auth_infos.iter().filter_map(|a| a.auth_info.as_ref()) {
            // Tokens in files are read again by the client itself.
            files.extend([&info.client_certificate, &info.client_key].into_iter().flatten().map(PathBuf::from));
        }
        for cluster in kubeconfig.clusters.iter().filter_map(|c| c.cluster.as_ref()) {
            files.extend(cluster.certificate_authority.as_ref().map(PathBuf::from));
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| fail(&e))?;
        Ok((config, files))
    }
}

impl Reloading {
    /// The client for the newest files. A file that changed but cannot be used (half written, say) leaves the old
    /// client in place and is tried again.
    async fn client(&self) -> kube::Client {
        let (old, seen) = {
            let mut current = self.current.lock();
            if current.looked.elapsed() < LOOK_AGAIN {
                return current.client.clone();
            }
            current.looked = Instant::now();
            (current.client.clone(), current.stamps.clone())
        };
        let files: Vec<PathBuf> = seen.iter().map(|(f, _)| f.clone()).collect();
        if stamps(&files) == seen {
            return old;
        }
        match self.source.load().await.and_then(|(config, files)| Ok((connect(config)?, files))) {
            Ok((client, files)) => {
                let mut current = self.current.lock();
                current.client = client.clone();
                current.stamps = stamps(&files);
                client
            }
            Err(error) => {
                tracing::warn!(%error, "changed credentials cannot be used yet");
                old
            }
        }
    }
}
