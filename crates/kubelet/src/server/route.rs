//! Which path is what, who may ask for it, and who answers.

use super::auth::{Guard, User};
use super::http::{Query, Reply};
use super::tls::Peer;
use super::{logs, metrics, stats, streaming};
use crate::kubelet::Shared;
use crate::pod::spec;
use hyper::body::Incoming;
use hyper::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;

/// Answers requests.
pub struct Server {
    pub(super) k: Arc<Shared>,
    guard: Guard,
}

/// The sub-resources of the node that allow a path, the finer ones first.
fn subresources(path: &str) -> &'static [&'static str] {
    let under = |p: &str| path == p || path.strip_prefix(p).is_some_and(|rest| rest.starts_with('/'));
    match () {
        () if under("/stats") => &["stats"],
        () if under("/metrics") => &["metrics"],
        () if under("/logs") => &["log"],
        () if under("/checkpoint") => &["checkpoint"],
        () if under("/pods") || under("/runningpods") => &["pods", "proxy"],
        () if under("/healthz") => &["healthz", "proxy"],
        () if under("/configz") => &["configz", "proxy"],
        () => &["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// A pod and one of its containers, as a path names them: `<namespace>/<pod>[/<uid>][/<container>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    pub container: String,
}

impl Named {
    /// Reads a path below its handler's; `container` says whether one is named at the end.
    pub(super) fn parse(rest: &str, container: bool) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty()).collect();
        let own = |s: &&str| (*s).to_string();
        let (namespace, pod, uid, name) = match (parts.as_slice(), container) {
            ([ns, pod, c], true) => (ns, pod, None, own(c)),
            ([ns, pod, uid, c], true) => (ns, pod, Some(own(uid)), own(c)),
            ([ns, pod], false) => (ns, pod, None, String::new()),
            ([ns, pod, uid], false) => (ns, pod, Some(own(uid)), String::new()),
            _ => return None,
        };
        Some(Self { namespace: own(namespace), pod: own(pod), uid, container: name })
    }
}

impl Server {
    /// For this node.
    pub fn new(k: Arc<Shared>) -> Self {
        Self { k, guard: Guard::new() }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Reply {
        let path = request.uri().path().to_string();
        let Some(user) = self.guard.user(&self.k, request.headers(), peer).await else {
            return Reply::text(401, "Unauthorized");
        };
        let (verb, subs) = (verb(request.method()), subresources(&path));
        if !self.guard.may(&self.k, &user, verb, subs).await {
            return Reply::text(403, forbidden(&user, verb, subs));
        }
        self.route(request, &path).await
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Reply {
        let query = Query::parse(request.uri().query());
        let k = &self.k;
        let below = |prefix: &str| path.strip_prefix(prefix).map(str::to_string);
        match path {
            "/healthz" | "/healthz/ping" | "/healthz/log" | "/healthz/syncloop" => return Reply::text(200, "ok"),
            "/metrics" => return metrics::own(k),
            "/metrics/resource" => return metrics::resource(k).await,
            "/metrics/probes" => return metrics::probes(k),
            "/metrics/cadvisor" => return metrics::cadvisor(k).await,
            "/metrics/slis" => return metrics::slis(),
            "/stats/summary" => return stats::summary(k).await,
            "/pods" | "/pods/" => return pods(k),
            "/runningpods" | "/runningpods/" => return running_pods(k).await,
            "/configz" => return configz(k),
            _ => {}
        }
        if !k.config.enable_debugging_handlers {
            return Reply::text(405, "Debug endpoints are disabled.");
        }
        if let Some(rest) = below("/containerLogs/") {
            return match Named::parse(&rest, true) {
                Some(named) => logs::serve(k, &named, &query).await,
                None => not_found(),
            };
        }
        for (prefix, exec) in [("/exec/", true), ("/attach/", false)] {
            if let Some(rest) = below(prefix) {
                return match Named::parse(&rest, true) {
                    Some(named) => streaming::exec_or_attach(k, &named, &query, request, exec),
                    None => not_found(),
                };
            }
        }
        if let Some(rest) = below("/portForward/") {
            return match Named::parse(&rest, false) {
                Some(named) => streaming::port_forward(k, &named, &query, request),
                None => not_found(),
            };
        }
        if let Some(rest) = below("/run/") {
            return match Named::parse(&rest, true) {
                Some(named) => streaming::run_command(k, &named, &query).await,
                None => not_found(),
            };
        }
        if let Some(rest) = below("/logs") {
            return logs::system(&rest).await;
        }
        not_found()
    }
}

fn not_found() -> Reply {
    Reply::text(404, "404 page not found\n")
}

fn forbidden(user: &User, verb: &str, subs: &[&str]) -> String {
    format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n", user.name, subs.join(" "))
}

/// The pods the node was given, with the statuses it computed.
fn pods(k: &Shared) -> Reply {
    let mut items: Vec<Pod> = k
        .all_workers()
        .into_iter()
        .map(|h| {
            let seen = h.seen.lock();
            let mut pod = (*seen.pod).clone();
            pod.status = Some(seen.status.clone());
            pod
        })
        .collect();
    items.sort_by(|a, b| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)));
    Reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// What runs, from the runtime's point of view.
async fn running_pods(k: &Shared) -> Reply {
    let filter =
        pintle_runtime::ContainerFilter { state: Some(pintle_runtime::ContainerState::Running), ..Default::default() };
    let running = match k.runtime.list_containers(&filter).await {
        Ok(r) => r,
        Err(e) => return Reply::text(500, format!("{e}\n")),
    };
    let mut items: std::collections::BTreeMap<String, serde_json::Value> = std::collections::BTreeMap::new();
    for c in running {
        let label = |key: &str| c.labels.get(key).cloned().unwrap_or_default();
        use crate::pod::state::labels;
        let uid = label(labels::POD_UID);
        let item = items.entry(uid.clone()).or_insert_with(|| {
            json!({"metadata": {"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid},
                   "spec": {"containers": []}, "status": {}})
        });
        if let Some(list) = item["spec"]["containers"].as_array_mut() {
            list.push(json!({"name": c.metadata.name, "image": c.image, "resources": {}}));
        }
    }
    Reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {},
                        "items": items.into_values().collect::<Vec<_>>()}))
}

fn configz(k: &Shared) -> Reply {
    let c = &k.config;
    Reply::json(&json!({"kubeletconfig": {
        "address": c.address, "port": c.port, "healthzPort": c.healthz_port,
        "healthzBindAddress": c.healthz_bind_address, "staticPodPath": c.static_pod_path,
        "podLogsDir": c.pod_logs_dir, "clusterDomain": c.cluster_domain, "clusterDNS": c.cluster_dns,
        "resolvConf": c.resolv_conf, "maxPods": c.max_pods, "podPidsLimit": c.pod_pids_limit,
        "cpuCFSQuota": c.cpu_cfs_quota, "nodeLeaseDurationSeconds": c.node_lease_duration_seconds,
        "nodeStatusUpdateFrequency": pintle_api::duration::format(c.node_status_update_frequency),
        "nodeStatusReportFrequency": pintle_api::duration::format(c.node_status_report_frequency),
        "imageGCHighThresholdPercent": c.image_gc_high_threshold_percent,
        "imageGCLowThresholdPercent": c.image_gc_low_threshold_percent,
        "evictionHard": c.eviction_hard, "evictionSoft": c.eviction_soft,
        "systemReserved": c.system_reserved, "kubeReserved": c.kube_reserved,
        "containerLogMaxSize": c.container_log_max_size, "containerLogMaxFiles": c.container_log_max_files,
        "serializeImagePulls": c.serialize_image_pulls, "seccompDefault": c.seccomp_default,
        "cgroupRoot": c.cgroup_root, "providerID": c.provider_id, "registerNode": c.register_node,
        "registerWithTaints": c.register_with_taints, "enableDebuggingHandlers": c.enable_debugging_handlers,
    }}))
}

/// The running container that a path names.
///
/// # Errors
/// The answer when there is none.
pub(super) fn running_container(k: &Shared, named: &Named) -> Result<pintle_runtime::ContainerStatus, Reply> {
    let found = k.worker_named(&named.namespace, &named.pod).and_then(|h| {
        let seen = h.seen.lock();
        let same = named.uid.as_ref().is_none_or(|u| seen.pod.metadata.uid.as_ref() == Some(u));
        same.then(|| (seen.pod.clone(), seen.runtime.clone()))
    });
    let Some((pod, state)) = found else { return Err(Reply::text(404, "pod does not exist\n")) };
    let missing = || Reply::text(404, format!("container not found ({:?})\n", named.container));
    spec::container(&pod, &named.container).ok_or_else(missing)?;
    state.latest(&named.container).cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let named = |s: &str, c| Named::parse(s, c).map(|n| (n.namespace, n.pod, n.uid, n.container));
        let text = |s: &str| s.to_string();
        assert_eq!(named("ns/p/c", true), Some((text("ns"), text("p"), None, text("c"))));
        assert_eq!(named("ns/p/u/c", true), Some((text("ns"), text("p"), Some(text("u")), text("c"))));
        assert_eq!(named("ns/p", false), Some((text("ns"), text("p"), None, text(""))));
        assert_eq!(named("ns", true), None);
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/statsx"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
    }
}
