//! What `fieldRef` and `resourceFieldRef` read.

use crate::pod::spec;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pintle_api::quantity::Quantity as Amount;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The node's and the pod's addresses at the start of a container.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The node's, the primary first.
    pub host: Vec<String>,
    /// The pod's, the primary first.
    pub pod: Vec<String>,
}

/// `key="value"` lines, sorted, as downward API files have them.
fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (i, (k, v)) in map.into_iter().flatten().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{}{k}={}", if i > 0 { "\n" } else { "" }, quote(v));
    }
    out
}

/// Quotes as Go's `strconv.Quote`.
fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_control() && u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value at a field path of a pod.
///
/// # Errors
/// When there is no such path, in upstream's words.
pub fn pod_field(pod: &Pod, path: &str, at: &Addresses) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let from = match map {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(from.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let s = spec::spec(pod);
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => map_lines(meta.labels.as_ref()),
        "metadata.annotations" => map_lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(&s.node_name),
        "spec.serviceAccountName" => text(&s.service_account_name),
        "spec.restartPolicy" => text(&s.restart_policy),
        "status.hostIP" => at.host.first().cloned().unwrap_or_default(),
        "status.hostIPs" => at.host.join(","),
        "status.podIP" => at.pod.first().cloned().unwrap_or_default(),
        "status.podIPs" => at.pod.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn divide_up(value: i64, by: i64) -> String {
    if by <= 0 {
        return value.to_string();
    }
    let whole = value / by;
    (if value % by > 0 { whole + 1 } else { whole }).to_string()
}

/// The value of a container's resource. A limit that is not set reads as what the node has.
///
/// # Errors
/// When there is no such resource or container, in upstream's words.
pub fn resource_field(
    pod: &Pod,
    own: &Container,
    field: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, String> {
    let named = field.container_name.as_deref().filter(|n| !n.is_empty());
    let found;
    let c = match named {
        None => own,
        Some(name) => {
            found = spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?.1;
            &*found
        }
    };
    let unsupported = || format!("unsupported container resource : {}", field.resource);
    let (which, resource) = field.resource.split_once('.').ok_or_else(unsupported)?;
    if !(matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-")) {
        return Err(unsupported());
    }
    let value = match which {
        "limits" => {
            spec::limit(c, resource).filter(|l| !l.is_zero()).or_else(|| spec::amount(Some(allocatable), resource))
        }
        "requests" => spec::request(c, resource),
        _ => return Err(unsupported()),
    };
    let divisor = field.divisor.as_ref().and_then(|d| Amount::parse(&d.0).ok()).filter(|d| !d.is_zero());
    let value = value.as_ref();
    Ok(if resource == "cpu" {
        divide_up(value.map_or(0, Amount::milli_value), divisor.as_ref().map_or(1000, Amount::milli_value))
    } else {
        divide_up(value.map_or(0, Amount::value), divisor.as_ref().map_or(1, Amount::value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn fields() {
        let p = pod(
            "{metadata: {labels: {b: 'x\"y', a: '1'}, annotations: {k/l: v}}, spec: {nodeName: n, serviceAccountName: sa, containers: []}}",
        );
        let at = Addresses { host: vec!["1.1.1.1".into()], pod: vec!["2.2.2.2".into(), "::2".into()] };
        for (path, want) in [
            ("metadata.name", "p"),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\""),
            ("metadata.labels['a']", "1"),
            ("metadata.annotations['k/l']", "v"),
            ("metadata.annotations['none']", ""),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "2.2.2.2"),
            ("status.podIPs", "2.2.2.2,::2"),
            ("status.hostIP", "1.1.1.1"),
        ] {
            assert_eq!(pod_field(&p, path, &at).as_deref(), Ok(want), "{path}");
        }
        assert_eq!(pod_field(&p, "spec.x", &at), Err("unsupported fieldPath: spec.x".into()));
    }

    #[test]
    fn resources() {
        let p = pod(
            "spec: {containers: [{name: a, resources: {limits: {cpu: 1500m}, requests: {memory: 100Mi}}}, {name: b}]}",
        );
        let node = [("cpu", "4"), ("memory", "8Gi")].map(|(k, v)| (k.to_string(), Quantity(v.into()))).into();
        let check = |field: &str, want: Result<&str, &str>| {
            let f: ResourceFieldSelector = serde_saphyr::from_str(field).unwrap();
            let own = &spec::spec(&p).containers[0];
            assert_eq!(resource_field(&p, own, &f, &node).as_deref().map_err(String::as_str), want, "{field}");
        };
        check("{resource: limits.cpu}", Ok("2"));
        check("{resource: limits.cpu, divisor: 1m}", Ok("1500"));
        check("{resource: requests.cpu}", Ok("0"));
        check("{resource: requests.memory, divisor: 1Mi}", Ok("100"));
        check("{resource: limits.memory}", Ok("8589934592"));
        check("{resource: limits.cpu, containerName: b}", Ok("4"));
        check("{resource: limits.cpu, containerName: z}", Err("container z not found"));
        check("{resource: limits.gpu}", Err("unsupported container resource : limits.gpu"));
    }
}
