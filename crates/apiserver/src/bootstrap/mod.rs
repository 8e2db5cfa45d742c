//! What a server does before it is ready, and what it keeps in order afterwards.

mod follow;
mod kubernetes;
mod namespaces;
mod policy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pintle_api::Status;

use crate::Server;

/// Which steps of the start are done.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    ready: AtomicBool,
    stopping: AtomicBool,
}

impl Hooks {
    /// From now on the server is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// The checks of a health endpoint and how they stand.
    pub(crate) async fn checks(&self, server: &Server, endpoint: &str) -> Vec<(String, Result<(), String>)> {
        let started = |name: &str| {
            let state = if self.ready.load(Ordering::SeqCst) { Ok(()) } else { Err("not finished".to_owned()) };
            (name.to_owned(), state)
        };
        let mut out = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), Ok(()))];
        let store = server.config.store.current_revision().await.map(|_| ()).map_err(|e| e.to_string());
        if endpoint != "livez" || store.is_ok() {
            out.push(("etcd".into(), store.clone()));
        }
        if endpoint == "readyz" {
            out.push(("etcd-readiness".into(), store));
            out.push(started("informer-sync"));
        }
        for name in [
            "poststarthook/start-apiserver-admission-initializer",
            "poststarthook/generic-apiserver-start-informers",
            "poststarthook/start-system-namespaces-controller",
            "poststarthook/start-cluster-authentication-info-controller",
            "poststarthook/start-legacy-token-tracking-controller",
            "poststarthook/start-service-ip-repair-controllers",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/scheduling/bootstrap-system-priority-classes",
            "poststarthook/priority-and-fairness-config-producer",
            "poststarthook/bootstrap-controller",
        ] {
            out.push(started(name));
        }
        if endpoint == "readyz" {
            let stopping = self.stopping.load(Ordering::SeqCst);
            out.push(("shutdown".into(), if stopping { Err("process is shutting down".into()) } else { Ok(()) }));
        }
        out
    }
}

/// Brings the server to readiness.
///
/// # Errors
/// When the store fails.
pub(crate) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    follow::rbac(server).await?;
    namespaces::ensure(server).await?;
    policy::ensure(server).await?;
    crate::registry::services::start(server).await?;
    kubernetes::ensure(server).await?;
    server.hooks.ready.store(true, Ordering::SeqCst);
    Ok(())
}
