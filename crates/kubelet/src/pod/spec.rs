//! Reading a Pod: identity, containers of all kinds, and the fields with defaults.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pintle_api::quantity::Quantity as Amount;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Where a pod came from: `file` for static pods; absent for pods of the API.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Marks the API object that stands for a static pod; its value is the static pod's hash.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The static pod's own hash, which serves as its uid.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// When the node first saw the pod.
pub const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// A pod's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl PodRef {
    /// The identity of `pod`.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// `name_namespace(uid)`, the form in which upstream prints pods in messages.
impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// Which list of the pod a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `initContainers`.
    Init,
    /// `containers`.
    Regular,
    /// `ephemeralContainers`.
    Ephemeral,
}

impl Kind {
    /// The name of the list, as Events' field paths say it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Kind::Init => "initContainers",
            Kind::Regular => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The pod's spec; an absent one reads as an empty one.
#[must_use]
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// The init containers.
#[must_use]
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container in the form of the others.
#[must_use]
pub fn as_container(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        lifecycle: e.lifecycle.clone(),
        liveness_probe: None,
        name: e.name.clone(),
        ports: None,
        readiness_probe: None,
        resize_policy: None,
        resources: None,
        restart_policy: None,
        restart_policy_rules: None,
        security_context: e.security_context.clone(),
        startup_probe: None,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_devices: e.volume_devices.clone(),
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
    }
}

/// All containers of the pod with the list they are in: init, regular, ephemeral.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (Kind, Cow<'_, Container>)> {
    let s = spec(pod);
    let init = init_containers(pod).iter().map(|c| (Kind::Init, Cow::Borrowed(c)));
    let regular = s.containers.iter().map(|c| (Kind::Regular, Cow::Borrowed(c)));
    let ephemeral = s.ephemeral_containers.as_deref().unwrap_or_default();
    init.chain(regular).chain(ephemeral.iter().map(|c| (Kind::Ephemeral, Cow::Owned(as_container(c)))))
}

/// The container of this name, wherever it is.
#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, Cow<'a, Container>)> {
    containers(pod).find(|(_, c)| c.name == name)
}

/// The field path of a container in Events: `spec.containers{name}`.
#[must_use]
pub fn field_path(kind: Kind, name: &str) -> String {
    format!("spec.{}{{{name}}}", kind.field())
}

/// Whether this init container is a sidecar (`restartPolicy: Always`).
#[must_use]
pub fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

/// The pod's restart policy.
#[must_use]
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether the pod uses the host's network.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or_default()
}

/// Whether the pod was read from a file of the node.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE_ANNOTATION).is_some_and(|s| s != "api")
}

/// Whether the API object stands for a static pod.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR_ANNOTATION).is_some()
}

/// One annotation.
#[must_use]
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod must not be evicted before others: static, mirror, or of system-critical priority.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || spec(pod).priority.is_some_and(|p| p >= 2_000_000_000)
}

/// The phase the object itself reports.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether the object reports a final phase.
#[must_use]
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A hash of all that makes a container what it is: a running container whose spec has another hash is restarted.
/// As upstream, only name and image count, because no other field may change in place without a restart being asked for
/// by other means.
#[must_use]
pub fn container_hash(c: &Container) -> String {
    let mut h = Sha256::new();
    h.update(c.name.as_bytes());
    h.update([0]);
    h.update(c.image.as_deref().unwrap_or_default().as_bytes());
    h.finalize().iter().take(4).fold(String::new(), |s, b| s + &format!("{b:02x}"))
}

/// The amount of a resource in a map; absent and malformed read as none. (What the API server stores is well-formed.)
#[must_use]
pub fn amount(map: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Amount> {
    map?.get(resource).and_then(|q| Amount::parse(&q.0).ok())
}

/// A container's request for a resource.
#[must_use]
pub fn request(c: &Container, resource: &str) -> Option<Amount> {
    amount(c.resources.as_ref()?.requests.as_ref(), resource)
}

/// A container's limit of a resource.
#[must_use]
pub fn limit(c: &Container, resource: &str) -> Option<Amount> {
    amount(c.resources.as_ref()?.limits.as_ref(), resource)
}

/// A pod's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Requests equal limits for CPU and memory everywhere.
    Guaranteed,
    /// Some requests or limits.
    Burstable,
    /// None.
    BestEffort,
}

impl Qos {
    /// The name in `status.qosClass`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The pod's quality of service: what its status says (it never changes), or else computed.
#[must_use]
pub fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let s = spec(pod);
    let mut any = false;
    let mut guaranteed = true;
    let mut look = |requests: Option<&BTreeMap<String, Quantity>>, limits: Option<&BTreeMap<String, Quantity>>| {
        for r in ["cpu", "memory"] {
            let (request, limit) = (amount(requests, r), amount(limits, r));
            any |= [&request, &limit].iter().any(|a| a.as_ref().is_some_and(|a| !a.is_zero()));
            let equal = match (&request, &limit) {
                (_, None) => false,
                (None, Some(l)) => !l.is_zero(),
                (Some(r), Some(l)) => !l.is_zero() && r == l,
            };
            guaranteed &= equal;
        }
    };
    if let Some(r) = s.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some()) {
        look(r.requests.as_ref(), r.limits.as_ref());
    } else {
        for c in init_containers(pod).iter().chain(&s.containers) {
            let r = c.resources.as_ref();
            look(r.and_then(|r| r.requests.as_ref()), r.and_then(|r| r.limits.as_ref()));
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// What the pod as a whole requests (or, with `limits`, is limited to) of a resource: the larger of its regular
/// containers and sidecars together and of each init container with the sidecars before it, plus overhead. A request or
/// limit of the pod itself takes precedence.
#[must_use]
pub fn pod_total(pod: &Pod, resource: &str, limits: bool) -> Option<Amount> {
    let s = spec(pod);
    let own =
        |c: &Container| if limits { limit(c, resource) } else { request(c, resource).or_else(|| limit(c, resource)) };
    let overhead = amount(s.overhead.as_ref(), resource);
    let pod_level = s.resources.as_ref().and_then(|r| {
        let map = if limits { r.limits.as_ref() } else { r.requests.as_ref().or(r.limits.as_ref()) };
        amount(map, resource)
    });
    let add = |a: Option<Amount>, b: Option<Amount>| match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    let total = pod_level.or_else(|| {
        let mut regular = s.containers.iter().fold(None, |sum, c| add(sum, own(c)));
        let (mut sidecars, mut peak) = (None::<Amount>, None::<Amount>);
        for c in init_containers(pod) {
            let now = if is_sidecar(c) {
                regular = add(regular, own(c));
                sidecars = add(sidecars, own(c));
                sidecars
            } else {
                add(sidecars, own(c))
            };
            peak = [peak, now].into_iter().flatten().max();
        }
        [regular, peak].into_iter().flatten().max()
    });
    // Overhead counts as a limit only where there is a limit.
    if limits && total.is_none() { None } else { add(total, overhead) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn quality_of_service() {
        let check = |resources: &str, want: Qos| {
            let p = pod(&format!("spec: {{containers: [{{name: c, resources: {resources}}}]}}"));
            assert_eq!(qos(&p), want, "{resources}");
        };
        check("{}", Qos::BestEffort);
        check("{requests: {cpu: '0'}}", Qos::BestEffort);
        check("{requests: {cpu: 1}}", Qos::Burstable);
        check("{limits: {cpu: 1, memory: 1Gi}}", Qos::Guaranteed);
        check("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1Gi}}", Qos::Guaranteed);
        check("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}", Qos::Burstable);
        check("{requests: {example.com/gpu: 1}}", Qos::BestEffort);
    }

    #[test]
    fn totals() {
        let p = pod("spec:
               overhead: {cpu: 10m}
               initContainers:
               - {name: side, restartPolicy: Always, resources: {requests: {cpu: 100m}}}
               - {name: big, resources: {requests: {cpu: '1'}}}
               containers:
               - {name: a, resources: {requests: {cpu: 200m}, limits: {memory: 1Gi}}}
               - {name: b, resources: {requests: {cpu: 300m}}}");
        assert_eq!(pod_total(&p, "cpu", false).unwrap().milli_value(), 1110);
        assert_eq!(pod_total(&p, "memory", false).unwrap().value(), 1 << 30);
        assert_eq!(pod_total(&p, "cpu", true), None);
    }
}
