//! The row of a service.

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use crate::kinds::table::{self, Column, text};

pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    text("Type", "@ServiceSpec.type"),
    text("Cluster-IP", "@ServiceSpec.clusterIP"),
    text("External-IP", "@ServiceSpec.externalIPs"),
    text("Port(s)", "@ServiceSpec.ports"),
    Column::AGE,
    text("Selector", "@ServiceSpec.selector").wide(),
];

pub(super) fn row(service: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let spec = service.get("spec");
    let ports: Vec<String> = spec.get("ports").items().map(|p| port(&p)).collect();
    vec![
        table::name(service),
        spec.get("type").str().into(),
        spec.get("clusterIPs").index(0).opt_str().unwrap_or("<none>").into(),
        external(service).into(),
        table::or_none(ports.join(",")).into(),
        table::age(service, now),
        table::label_pairs(&spec.get("selector")).into(),
    ]
}

fn port(port: &Cursor<'_>) -> String {
    let (number, protocol) = (port.get("port").int(), port.get("protocol").str());
    match port.get("nodePort").int() {
        1.. => format!("{number}:{}/{protocol}", port.get("nodePort").int()),
        _ => format!("{number}/{protocol}"),
    }
}

fn external(service: &Cursor<'_>) -> String {
    let spec = service.get("spec");
    let mut addresses: Vec<String> = spec.get("externalIPs").items().map(|ip| ip.str().to_owned()).collect();
    match spec.get("type").str() {
        "ClusterIP" | "NodePort" => table::or_none(addresses.join(",")),
        "LoadBalancer" => {
            addresses.splice(0..0, load_balancer(service));
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => spec.get("externalName").str().to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses a load balancer answers on, sorted, each once.
pub fn load_balancer(object: &Cursor<'_>) -> Vec<String> {
    let ingress = object.get("status").get("loadBalancer").get("ingress");
    let mut list: Vec<String> = ingress
        .items()
        .map(|i| if i.get("ip").is_empty() { i.get("hostname").str() } else { i.get("ip").str() }.to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{self, changed};
    use serde_json::json;

    #[test]
    fn rows() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "selector": {"a": "b"},
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]},
        });
        assert_eq!(
            testing::row(&service, 5),
            ["s", "LoadBalancer", "10.96.0.9", "<pending>", "80:30080/TCP,53/UDP", "5s", "a=b"]
        );
        let external = |path: &str, to| testing::row(&changed(&service, path, to), 5)[3].clone();
        assert_eq!(external("status/loadBalancer/ingress", json!([{"hostname": "x"}, {"ip": "1.2.3.4"}])), "1.2.3.4,x");
        assert_eq!(external("spec/externalIPs", json!(["9.9.9.9"])), "9.9.9.9");
        assert_eq!(external("spec/type", json!("ClusterIP")), "<none>");
    }
}
