//! What a server does before it is ready, and what it keeps in order afterwards.

mod apiservices;
mod follow;
mod kubernetes;
mod namespaces;
mod policy;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use pintle_api::Status;

use crate::Server;

/// One health check and how it stands.
pub(crate) struct Check {
    pub(crate) name: String,
    /// The name under which it is excluded with others.
    pub(crate) group: Option<&'static str>,
    pub(crate) state: Result<(), String>,
}

/// The steps of the start, by upstream's names of the hooks that do them there, in upstream's order.
const STEPS: &[&str] = &[
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "kube-apiserver-autoregistration",
];

/// Which steps of the start are done.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    done: Mutex<BTreeSet<&'static str>>,
    stopping: AtomicBool,
}

impl Hooks {
    /// From now on the server is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    fn done(&self, steps: &[&'static str]) {
        debug_assert!(steps.iter().all(|s| STEPS.contains(s)));
        self.done.lock().extend(steps);
    }

    /// The checks that a health endpoint has.
    pub(crate) fn names(endpoint: &str) -> impl Iterator<Item = String> + use<> {
        let ready = endpoint == "readyz";
        let first = ["ping", "log", "etcd", "etcd-readiness", "informer-sync"];
        let first = first.into_iter().filter(move |n| ready || !matches!(*n, "etcd-readiness" | "informer-sync"));
        let steps = STEPS.iter().map(|s| format!("poststarthook/{s}"));
        first.map(str::to_owned).chain(steps).chain(ready.then(|| "shutdown".to_owned()))
    }

    /// The checks of a health endpoint and how they stand.
    pub(crate) async fn checks(&self, server: &Server, endpoint: &str) -> Vec<Check> {
        let store = server.config.store.current_revision().await.map(|_| ()).map_err(|e| e.to_string());
        let done = self.done.lock().clone();
        let informed = server
            .registry
            .all()
            .iter()
            .filter_map(|r| r.objects.as_ref()?.loaded())
            .all(crate::cache::Cache::is_ready);
        let state = |name: &str| match name {
            "ping" | "log" => Ok(()),
            "etcd" | "etcd-readiness" => store.clone(),
            "informer-sync" if informed => Ok(()),
            "informer-sync" => Err("some caches are not filled".to_owned()),
            "shutdown" if self.stopping.load(Ordering::SeqCst) => Err("process is shutting down".to_owned()),
            "shutdown" => Ok(()),
            step if done.contains(step.trim_start_matches("poststarthook/")) => Ok(()),
            _ => Err("not finished".to_owned()),
        };
        Self::names(endpoint).map(|name| Check { state: state(&name), name, group: None }).collect()
    }
}

/// Brings the server to readiness.
///
/// # Errors
/// When the store fails.
pub(crate) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    let hooks = &server.hooks;
    hooks.done(&["start-apiserver-admission-initializer"]);
    follow::rbac(server).await?;
    hooks.done(&["generic-apiserver-start-informers"]);
    namespaces::ensure(server).await?;
    hooks.done(&["start-system-namespaces-controller"]);
    policy::ensure(server).await?;
    hooks.done(&[
        "rbac/bootstrap-roles",
        "scheduling/bootstrap-system-priority-classes",
        "priority-and-fairness-config-producer",
    ]);
    crate::fairness::start(server).await?;
    hooks.done(&["priority-and-fairness-config-consumer", "priority-and-fairness-filter"]);
    crate::registry::services::start(server).await?;
    hooks.done(&["start-service-ip-repair-controllers"]);
    apiservices::start(server).await?;
    hooks.done(&[
        "apiservice-status-local-available-controller",
        "apiservice-status-remote-available-controller",
        "apiservice-registration-controller",
        "kube-apiserver-autoregistration",
    ]);
    kubernetes::ensure(server).await?;
    hooks.done(&[
        "start-kubernetes-service-cidr-controller",
        "bootstrap-controller",
        "start-cluster-authentication-info-controller",
        "start-kube-apiserver-identity-lease-controller",
        "start-legacy-token-tracking-controller",
    ]);
    Ok(())
}
