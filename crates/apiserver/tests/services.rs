//! Services get addresses and ports, with real kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cluster, has};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports() {
    if !has("/usr/bin/kubectl") {
        return;
    }
    let c = Cluster::start().await;
    assert_eq!(c.kubectl("get service kubernetes -o jsonpath={.spec.clusterIP}").await, "10.96.0.1");
    // The warning that Endpoints are deprecated follows on the same line.
    let said = c.kubectl("get endpoints kubernetes -o jsonpath={.subsets[0].addresses[0].ip}").await;
    assert!(said.starts_with("192.0.2.1"), "{said}");
    assert!(c.kubectl("get ipaddresses").await.contains("10.96.0.1"));
    let s = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, selector: {a: b}, ports: [{port: 80}]}\n";
    c.kubectl_in("create -f -", Some(s)).await;
    let ip = c.kubectl("get service s -o jsonpath={.spec.clusterIP}").await;
    assert!(ip.starts_with("10."), "{ip}");
    let port: u16 = c.kubectl("get service s -o jsonpath={.spec.ports[0].nodePort}").await.parse().unwrap();
    assert!((30000..=32767).contains(&port));
    assert!(c.kubectl("get ipaddresses").await.contains(&ip));
    let same = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: t}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    );
    let said = c.refused("admin", "create -f -", Some(&same)).await;
    assert!(said.contains("provided IP is already allocated"), "{said}");
    c.kubectl("delete service s").await;
    assert!(!c.kubectl("get ipaddresses").await.contains(&ip));
    c.kubectl_in("create -f -", Some(&same)).await;
    let table = c.kubectl("get services").await;
    assert!(table.contains("CLUSTER-IP") && table.contains("443/TCP"), "{table}");
}
