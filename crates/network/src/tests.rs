//! The parts together: objects of an API in, calls and questions of pods answered.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pintle_api::service::UserInfo;
use pintle_client::api::resources::{self, Resource};
use pintle_client::testing::FakeApi;
use pintle_client::{Client, Informers, WriteParams};
use serde_json::{Value, json};

use crate::dns::{self, Upstream};
use crate::netns::NetNs;
use crate::podnet::{self, PodNetwork};
use crate::testnet::{self, Echo, NODE4, Outcome, World, path, tcp};
use crate::{cleanup_all, hindrances, policy, preflight, proxy};

fn resource(api: &str, kind: &str) -> &'static Resource {
    resources::by_kind(api, kind).unwrap()
}

async fn create(client: &Client, object: Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = resource(&text(&object["apiVersion"]), &text(&object["kind"]));
    let namespace = text(&object["metadata"]["namespace"]);
    client.create(resource, &namespace, object.to_string().into(), &WriteParams::default()).await.unwrap();
}

fn slice(name: &str, pods: &[IpAddr]) -> Value {
    let endpoints: Vec<Value> =
        pods.iter().map(|ip| json!({"addresses": [ip.to_string()], "nodeName": "here"})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Asks again until the answer is as wanted: objects take a moment to become rules.
async fn until<T: PartialEq + std::fmt::Debug>(want: T, mut ask: impl FnMut() -> T) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let got = ask();
        if got == want {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{got:?} is not {want:?}");
        tokio::task::yield_now().await;
    }
}

fn lookup(from: &NetNs, name: &str) -> Vec<String> {
    use hickory_server::proto::op::{Message, Query};
    use hickory_server::proto::rr::{Name, RecordType};
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = testnet::udp_socket(from, "10.96.0.10:53");
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send(&message.to_vec().unwrap()).unwrap();
    let mut buf = [0; 1024];
    let len = socket.recv(&mut buf).unwrap();
    Message::from_vec(&buf[..len]).unwrap().answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_become_a_working_network_and_vanish_without_a_trace() {
    let world = World::new();
    let before =
        testnet::rules(&world.node) + &testnet::run(&world.node, "ip -o link; ip route; ip route show table local");
    let client = Client::in_process(FakeApi::new().service(), UserInfo::default());
    create(&client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}, "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE4}]},
    });
    create(&client, node).await;
    let far = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "far"}, "spec": {"podCIDR": "10.244.2.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": testnet::OUTSIDE4}]},
    });
    create(&client, far).await;

    let dir = tempfile::tempdir().unwrap();
    let cluster: Vec<crate::addr::Net> = vec!["10.244.0.0/16".parse().unwrap()];
    let net = PodNetwork::start(podnet::Config {
        ns: world.node.clone(),
        state_dir: dir.path().to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        cluster_cidrs: cluster.clone(),
        mtu: None,
        mode: podnet::Mode::Vxlan,
    })
    .await
    .unwrap();
    let net = Arc::new(net);
    let informers = Informers::new(client.clone());
    let dns_config = dns::Config {
        ns: world.node.clone(),
        domain: "cluster.local".into(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        node_ips: vec![NODE4.parse().unwrap()],
        allowed: cluster.clone(),
        upstream: Upstream::Servers(Vec::new()),
        serial: 1,
    };
    let served = dns::run(&informers, &dns_config, "here").await.unwrap();
    let proxy_config = proxy::Config {
        ns: world.node.clone(),
        node: "here".into(),
        cluster_cidrs: cluster,
        served_here: dns_config.cluster_ips.iter().copied().collect(),
        ..proxy::Config::default()
    };
    let proxying = tokio::spawn({
        let informers = informers.clone();
        async move { proxy::run(&informers, proxy_config).await }
    });
    let following = tokio::spawn({
        let (net, informers) = (net.clone(), informers.clone());
        async move { net.follow_nodes(&informers, "here").await }
    });

    let guarding = tokio::spawn({
        let (informers, ns, dns) = (informers.clone(), world.node.clone(), dns_config.cluster_ips.clone());
        async move { policy::run(&informers, &ns, "here", dns).await }
    });

    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let at_a = net.attach("a", &path(&a), &[]).await.unwrap().ips;
    let at_b = net.attach("b", &path(&b), &[]).await.unwrap().ips;
    let _a = Echo::start(&a, &format!("{}:80", at_a[0]), "a");
    let web = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.50"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]},
    });
    create(&client, web).await;
    create(&client, slice("web", &at_a)).await;
    until(vec!["10.96.0.50".to_owned()], || lookup(&b, "web.shop.svc.cluster.local.")).await;
    until(Outcome::Answer("a".into(), at_b[0]), || tcp(&b, "10.96.0.50:80")).await;
    until(true, || matches!(tcp(&world.outside, "192.168.7.2:30080"), Outcome::Answer(name, _) if name == "a")).await;
    // Users find the DNS Service and its endpoints.
    let slices = Informers::get(&informers, resource("discovery.k8s.io/v1", "EndpointSlice"));
    until(true, || slices.get("kube-system/kube-dns-here-ipv4").is_some()).await;
    let found = client.get(resource("v1", "Service"), "kube-system", "kube-dns").await.unwrap();
    assert!(String::from_utf8_lossy(found.bytes()).contains("10.96.0.10"));
    // The other node's pods are behind a tunnel.
    until(true, || testnet::run(&world.node, "ip route").contains("10.244.2.0/24 via 10.244.2.1 dev pintle-vxlan"))
        .await;

    // A policy closes the pod, and its end opens it again.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"nodeName": "here"}, "status": {"podIP": at_a[0].to_string()},
    });
    create(&client, pod).await;
    let deny = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}},
    });
    create(&client, deny).await;
    until(Outcome::Silence, || testnet::tcp_silent(&b, "10.96.0.50:80")).await;
    client
        .delete(resource("networking.k8s.io/v1", "NetworkPolicy"), "shop", "deny", &Default::default())
        .await
        .unwrap();
    until(Outcome::Answer("a".into(), at_b[0]), || tcp(&b, "10.96.0.50:80")).await;

    client.delete(resource("v1", "Service"), "shop", "web", &Default::default()).await.unwrap();
    until(Outcome::Refused, || tcp(&world.outside, "192.168.7.2:30080")).await;
    until(Vec::<String>::new(), || lookup(&b, "web.shop.svc.cluster.local.")).await;

    proxying.abort();
    following.abort();
    guarding.abort();
    let _ = (proxying.await, following.await, guarding.await);
    drop((served, net, informers));
    assert_eq!(cleanup_all(&world.node, dir.path()).await, [""; 0]);
    assert_eq!(cleanup_all(&world.node, Path::new("/nonexistent")).await, [""; 0]);
    let after =
        testnet::rules(&world.node) + &testnet::run(&world.node, "ip -o link; ip route; ip route show table local");
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_kernel_has_what_is_needed() {
    assert_eq!(preflight().await, [""; 0]);
}

#[test]
fn firewalls_in_the_way_are_named() {
    let ns = NetNs::new().unwrap();
    assert_eq!(hindrances(&ns).unwrap(), [""; 0]);
    testnet::run(
        &ns,
        "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    let found = hindrances(&ns).unwrap();
    assert!(
        found.len() == 1 && found[0].starts_with("chain FORWARD of table filter drops forwarded packets"),
        "{found:?}"
    );
}
