//! The Node object and its status.

use super::{Machine, reference, seconds};
use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_api::quantity::Quantity as Amount;
use pintle_client::recorder::EventType;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The version of Kubernetes the node agent is compatible with.
pub const VERSION: &str = "v1.36.0";

/// Which resources are short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

/// The labels every node has.
pub fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let arch = super::info::architecture();
    [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", &config.node_name),
        ("kubernetes.io/os", "linux"),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .into()
}

/// `2097152` as `2Mi`.
fn page_size(bytes: i64) -> String {
    match bytes {
        b if b % (1 << 30) == 0 => format!("{}Gi", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}Mi", b >> 20),
        b => format!("{}Ki", b >> 10),
    }
}

/// What the machine has.
pub fn capacity(m: &Machine, config: &KubeletConfig) -> BTreeMap<String, Quantity> {
    let mut out: BTreeMap<String, Quantity> = [
        ("cpu".to_string(), m.cpus.to_string()),
        ("memory".into(), format!("{}Ki", m.memory / 1024)),
        ("ephemeral-storage".into(), format!("{}Ki", m.disk / 1024)),
        ("pods".into(), config.max_pods.to_string()),
    ]
    .map(|(k, v)| (k, Quantity(v)))
    .into();
    for (size, count) in &m.hugepages {
        let total = if *count == 0 { "0".to_string() } else { page_size(size * count) };
        out.insert(format!("hugepages-{}", page_size(*size)), Quantity(total));
    }
    out
}

/// A threshold of eviction, as an amount of `capacity`.
fn threshold(text: &str, capacity: i64) -> Option<i64> {
    match text.strip_suffix('%') {
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of an amount")]
        Some(percent) => percent.parse::<f64>().ok().map(|p| (capacity as f64 * p / 100.0) as i64),
        None => Amount::parse(text).ok().map(|a| a.value()),
    }
}

/// What is left for pods.
///
/// # Errors
/// When a reservation is not an amount.
pub fn allocatable(
    capacity: &BTreeMap<String, Quantity>,
    config: &KubeletConfig,
) -> Result<BTreeMap<String, Quantity>, String> {
    let mut out = capacity.clone();
    let parse = |text: &str| Amount::parse(text).map_err(|e| format!("{text:?}: {e}"));
    for (name, have) in &mut out {
        let total = parse(&have.0)?;
        let mut reserved = Amount::parse("0").map_err(|e| e.to_string())?;
        for map in [&config.system_reserved, &config.kube_reserved] {
            if let Some(r) = map.get(name) {
                reserved += parse(r)?;
            }
        }
        let signal = match name.as_str() {
            "memory" => "memory.available",
            "ephemeral-storage" => "nodefs.available",
            _ => "",
        };
        if let Some(t) = config.eviction_hard.get(signal).and_then(|t| threshold(t, total.value())) {
            reserved += parse(&t.to_string())?;
        }
        if !reserved.is_zero() {
            let left = total - reserved;
            let left = if left.sign() < 0 { parse("0")? } else { left };
            let text = match name.as_str() {
                "ephemeral-storage" => left.value().to_string(),
                "memory" => format!("{}Ki", left.value() / 1024),
                _ => left.to_string(),
            };
            *have = Quantity(text);
        } else if name == "ephemeral-storage" {
            *have = Quantity(total.value().to_string());
        }
    }
    // Huge pages are memory that nobody else can use.
    Ok(out)
}

/// The object, for registration.
pub fn node(k: &Shared, status: NodeStatus) -> Node {
    let c = &k.config;
    let mut own = labels(c);
    own.extend(c.node_labels.clone());
    Node {
        metadata: ObjectMeta {
            name: Some(c.node_name.clone()),
            labels: Some(own),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_string(), "true".to_string())].into(),
            ),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(c.provider_id.clone()).filter(|p| !p.is_empty()),
            taints: Some(c.register_with_taints.clone()).filter(|t| !t.is_empty()),
            ..Default::default()
        }),
        status: Some(status),
    }
}

/// What the node says it can do, of what others ask for by name; in order.
const DECLARED_FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// The status now; transition times are kept from `old`.
pub async fn current(k: &Shared, port: u16, old: Option<&NodeStatus>) -> NodeStatus {
    let m = k.node.machine();
    let runtime = k.runtime.status().await;
    let mut problems = vec![];
    let mut features = pintle_runtime::Features::default();
    match &runtime {
        Ok(s) => {
            features = s.features;
            for c in s.conditions.iter().filter(|c| !c.status) {
                let what = if c.kind == "NetworkReady" { "container runtime network" } else { "container runtime" };
                problems.push(format!("{what} not ready: {}=false reason:{} message:{}", c.kind, c.reason, c.message));
            }
        }
        Err(e) => problems.push(format!("container runtime is down: {e}")),
    }
    let now = seconds(k.clock.now());
    let p = k.node.pressure();
    let condition = |kind: &str, ok: bool, reason: &str, message: String| {
        let status = if ok { "True" } else { "False" };
        let before = old.and_then(|o| o.conditions.as_ref()?.iter().find(|c| c.type_ == kind && c.status == status));
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(now.clone())),
        }
    };
    let either = |on: bool, a: &str, b: &str| if on { a.to_string() } else { b.to_string() };
    let ready = problems.is_empty();
    let conditions = vec![
        condition(
            "MemoryPressure",
            p.memory,
            &either(p.memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            either(p.memory, "kubelet has insufficient memory available", "kubelet has sufficient memory available"),
        ),
        condition(
            "DiskPressure",
            p.disk,
            &either(p.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            either(p.disk, "kubelet has disk pressure", "kubelet has no disk pressure"),
        ),
        condition(
            "PIDPressure",
            p.pids,
            &either(p.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
            either(p.pids, "kubelet has insufficient PID available", "kubelet has sufficient PID available"),
        ),
        condition(
            "Ready",
            ready,
            &either(ready, "KubeletReady", "KubeletNotReady"),
            if ready { "kubelet is posting ready status".into() } else { list(&problems) },
        ),
    ];
    let mut addresses: Vec<NodeAddress> = k
        .node
        .addresses()
        .iter()
        .map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".into() })
        .collect();
    addresses.push(NodeAddress { address: k.config.node_name.clone(), type_: "Hostname".into() });
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(k.node.allocatable()),
        capacity: Some(k.node.capacity.clone()),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) }),
        images: images(k).await,
        node_info: Some(NodeSystemInfo {
            architecture: m.architecture.into(),
            boot_id: m.boot_id.clone(),
            container_runtime_version: m.runtime.clone(),
            kernel_version: m.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: VERSION.into(),
            machine_id: m.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: m.os_image.clone(),
            swap: Some(NodeSwapStatus { capacity: Some(m.swap).filter(|s| *s > 0) }),
            system_uuid: m.system_uuid.clone(),
        }),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        }]),
        ..Default::default()
    }
}

/// Several problems in one message.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

async fn images(k: &Shared) -> Option<Vec<ContainerImage>> {
    let mut all = k.runtime.list_images().await.unwrap_or_default();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    if let Ok(max) = usize::try_from(k.config.node_status_max_images) {
        all.truncate(max);
    }
    let of = |i: pintle_runtime::Image| ContainerImage {
        // At most five names, digests first.
        names: Some(i.repo_digests.into_iter().chain(i.repo_tags).take(5).collect()),
        size_bytes: i64::try_from(i.size).ok(),
    };
    Some(all.into_iter().map(of).collect())
}

/// Whether the status says Ready.
pub fn is_ready(s: &NodeStatus) -> bool {
    s.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether two statuses differ in more than the time of the report.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |s: &NodeStatus| {
        let mut s = s.clone();
        for c in s.conditions.iter_mut().flatten() {
            c.last_heartbeat_time = None;
        }
        s
    };
    still(a) != still(b)
}

/// The patch that writes this status. Addresses are replaced as a whole: two of one type cannot be merged by type.
/// Resources that are `gone` are no longer allocatable.
pub fn patch(s: &NodeStatus, gone: &[String]) -> Value {
    let mut status = serde_json::to_value(s).unwrap_or_default();
    for name in gone {
        status["allocatable"][name] = Value::Null;
    }
    if let Some(addresses) = status.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.push(json!({"$patch": "replace"}));
    }
    json!({"status": status})
}

/// Tells of conditions that changed.
pub fn tell_conditions(k: &Shared, old: Option<&NodeStatus>, new: &NodeStatus) {
    let name = &k.config.node_name;
    for c in new.conditions.iter().flatten() {
        let before = old.and_then(|o| o.conditions.as_ref()?.iter().find(|x| x.type_ == c.type_));
        if before.is_some_and(|b| b.status == c.status) {
            continue;
        }
        let on = c.status == "True";
        let reason = match (c.type_.as_str(), on) {
            ("MemoryPressure", true) => "NodeHasInsufficientMemory",
            ("MemoryPressure", false) => "NodeHasSufficientMemory",
            ("DiskPressure", true) => "NodeHasDiskPressure",
            ("DiskPressure", false) => "NodeHasNoDiskPressure",
            ("PIDPressure", true) => "NodeHasInsufficientPID",
            ("PIDPressure", false) => "NodeHasSufficientPID",
            ("Ready", true) => "NodeReady",
            _ => "NodeNotReady",
        };
        let message = format!("Node {name} status is now: {reason}");
        k.recorder.event(&reference(name), EventType::Normal, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let m = Machine {
            cpus: 4,
            memory: 8 << 30,
            disk: 100 << 30,
            hugepages: vec![(2 << 20, 0), (1 << 30, 2)],
            ..Default::default()
        };
        let mut config = KubeletConfig::default();
        let get = |map: &BTreeMap<String, Quantity>, k: &str| map[k].0.clone();
        let c = capacity(&m, &config);
        assert_eq!(
            (get(&c, "cpu"), get(&c, "memory"), get(&c, "pods")),
            ("4".into(), "8388608Ki".into(), "110".into())
        );
        assert_eq!((get(&c, "hugepages-2Mi"), get(&c, "hugepages-1Gi")), ("0".into(), "2Gi".into()));
        config.system_reserved = [("cpu".into(), "500m".into()), ("memory".into(), "1Gi".into())].into();
        let a = allocatable(&c, &config).unwrap();
        assert_eq!((get(&a, "cpu"), get(&a, "memory")), ("3500m".into(), "7237632Ki".into()));
        assert_eq!(get(&a, "ephemeral-storage"), (90i64 << 30).to_string());
        config.kube_reserved = [("cpu".into(), "x".into())].into();
        assert!(allocatable(&c, &config).is_err());
    }
}
