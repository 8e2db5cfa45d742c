use serde_json::{Value, json};

use super::*;
use crate::podnet::{self, Mode, PodNetwork};
use crate::testnet::{Echo, Outcome, World as Ground, path, rules, tcp, tcp_silent, udp};
use crate::views::Name;

/// Pods a (app=a), b (app=b) in namespace x, and c (app=a) in namespace y (team=y), all on this node, answering on 80
/// ("http") and 81.
struct Place {
    ground: Ground,
    _net: PodNetwork,
    _dir: tempfile::TempDir,
    pods: Vec<(NetNs, Pod)>,
    _servers: Vec<Echo>,
    guard: Guard,
    namespaces: BTreeMap<&'static str, Namespace>,
}

impl Place {
    async fn new() -> Self {
        let ground = Ground::new();
        let dir = tempfile::tempdir().unwrap();
        let net = PodNetwork::start(podnet::Config {
            ns: ground.node.clone(),
            state_dir: dir.path().to_owned(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd44:1::/64".parse().unwrap()],
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd44::/16".parse().unwrap()],
            mtu: None,
            mode: Mode::Routes,
        })
        .await
        .unwrap();
        let (mut pods, mut servers) = (Vec::new(), Vec::new());
        for (name, app, namespace) in [("a", "a", "x"), ("b", "b", "x"), ("c", "a", "y")] {
            let ns = NetNs::new().unwrap();
            let ips = net.attach(name, &path(&ns), &[]).await.unwrap().ips;
            for ip in &ips {
                for port in [80, 81] {
                    servers.push(Echo::start(&ns, &std::net::SocketAddr::new(*ip, port).to_string(), name));
                }
            }
            let json = json!({
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
                "spec": {"nodeName": "here", "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
                "status": {"podIP": ips[0], "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
            });
            pods.push((ns, Pod::decode(json.to_string().as_bytes()).unwrap()));
        }
        let guard = Guard::new(&ground.node, Vec::new()).unwrap();
        let labels = |team: &str| Namespace { labels: BTreeMap::from([("team".to_owned(), team.to_owned())]) };
        let namespaces = BTreeMap::from([("x", labels("x")), ("y", labels("y"))]);
        Self { ground, _net: net, _dir: dir, pods, _servers: servers, guard, namespaces }
    }

    fn apply(&mut self, specs: &[Value]) {
        let policies: Vec<Policy> = specs
            .iter()
            .enumerate()
            .map(|(at, spec)| {
                let object = json!({"metadata": {"name": format!("p{at}"), "namespace": "x"}, "spec": spec});
                Policy::decode(object.to_string().as_bytes()).unwrap()
            })
            .collect();
        let world = World {
            node: "here",
            policies: policies.iter().collect(),
            pods: self.pods.iter().map(|(_, pod)| pod).collect(),
            namespaces: self.namespaces.iter().map(|(name, namespace)| (*name, namespace)).collect(),
        };
        self.guard.sync(&world).unwrap();
    }

    /// Checks who reaches `a`: b, c and the outside (o) at 80 and 81, as text: "b80 b81 c80" and so on.
    fn check(&self, name: &str, want: &str) {
        let callers = [("b", &self.pods[1].0), ("c", &self.pods[2].0), ("o", &self.ground.outside)];
        let ip = self.pods[0].1.ips[0];
        std::thread::scope(|scope| {
            for (caller, from) in callers {
                for port in [80, 81] {
                    scope.spawn(move || {
                        let to = format!("{ip}:{port}");
                        if want.contains(&format!("{caller}{port}")) {
                            assert_eq!(tcp(from, &to).name(), "a", "{name}: {caller}{port}");
                        } else {
                            assert_eq!(tcp_silent(from, &to), Outcome::Silence, "{name}: {caller}{port}");
                        }
                    });
                }
            }
        });
    }
}

fn ingress(rules: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress"], "ingress": rules})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_come_in() {
    let mut place = Place::new().await;
    crate::testnet::run(&place.ground.outside, &format!("ip route add 10.244.0.0/16 via {}", crate::testnet::NODE4));
    let all = "b80 b81 c80 c81 o80 o81";
    let cases: &[(&str, Vec<Value>, &str)] = &[
        ("no policy", vec![], all),
        ("none may", vec![ingress(json!([]))], ""),
        ("all may", vec![ingress(json!([{}]))], all),
        ("own namespace's pods", vec![ingress(json!([{"from": [{"podSelector": {}}]}]))], "b80 b81"),
        (
            "pods of no such label",
            vec![ingress(json!([{"from": [{"podSelector": {"matchLabels": {"app": "z"}}}]}]))],
            "",
        ),
        (
            "a namespace",
            vec![ingress(json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]))],
            "c80 c81",
        ),
        (
            "pods of a namespace",
            vec![ingress(json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}]}]))],
            "b80 b81",
        ),
        ("a port", vec![ingress(json!([{"ports": [{"port": 81}]}]))], "b81 c81 o81"),
        ("a port by name", vec![ingress(json!([{"ports": [{"port": "http", "protocol": "TCP"}]}]))], "b80 c80 o80"),
        (
            "ports",
            vec![ingress(json!([{"ports": [{"port": 70, "endPort": 80}, {"port": 75, "endPort": 79}]}]))],
            "b80 c80 o80",
        ),
        ("another protocol", vec![ingress(json!([{"ports": [{"port": 80, "protocol": "UDP"}]}]))], ""),
        (
            "a block",
            vec![ingress(json!([{"from": [{"ipBlock": {"cidr": "192.168.7.0/24"}}], "ports": [{"port": 80}]}]))],
            "o80",
        ),
        (
            "a block but for some",
            vec![ingress(json!([{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}]}]))],
            "o80 o81",
        ),
        (
            "policies add up",
            vec![
                ingress(json!([{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}])),
                ingress(
                    json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}], "ports": [{"port": 81}]}]),
                ),
            ],
            "b80 c81",
        ),
        ("about other pods", vec![json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": []})], all),
        ("types by default", vec![json!({"podSelector": {}})], ""),
        ("egress only", vec![json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"]})], all),
    ];
    for (name, specs, want) in cases {
        place.apply(specs);
        place.check(name, want);
    }
    // The node always reaches its pods, and a pod itself; both families are guarded.
    place.apply(&[ingress(json!([]))]);
    let [a4, a6] = place.pods[0].1.ips[..] else { panic!() };
    assert_eq!(tcp(&place.ground.node, &format!("{a4}:80")).name(), "a");
    assert_eq!(tcp_silent(&place.pods[1].0, &format!("[{a6}]:80")), Outcome::Silence);
    // Without policies nothing is left but the frame.
    place.apply(&[]);
    assert_eq!(tcp(&place.pods[1].0, &format!("[{a6}]:80")).name(), "a");
    let text = rules(&place.ground.node);
    assert!(!text.contains("chain in-") && !text.contains("set pods-") && !text.contains("set ports-"), "{text}");
    // Rules somebody removed come back with the next change.
    crate::testnet::run(&place.ground.node, "nft delete table ip pintle-policy");
    place.apply(&[ingress(json!([]))]);
    place.check("rules are back", "");
    cleanup(&place.ground.node).unwrap();
    cleanup(&place.ground.node).unwrap();
    place.check("rules are gone", all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_go_out_and_who_changes() {
    let mut place = Place::new().await;
    let egress = |rules: Value| json!({"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Egress"], "egress": rules});
    let _out = Echo::start(&place.ground.outside, "192.168.7.1:90", "out");
    let b = place.pods[1].0.clone();
    let [a, c] = [0, 2].map(|at: usize| format!("{}:80", place.pods[at].1.ips[0]));
    let reach = |to: &str| matches!(tcp(&b, to), Outcome::Answer(..));
    let silent = |to: &str| tcp_silent(&b, to) == Outcome::Silence;
    place.apply(&[egress(json!([]))]);
    assert!(silent(&a) && silent(&c) && silent("192.168.7.1:90"));
    // Answers to calls that were let in go out; so does what is for the node itself.
    assert_eq!(tcp(&place.pods[0].0, &format!("{}:80", place.pods[1].1.ips[0])).name(), "b");
    let _node = Echo::start(&place.ground.node, "192.168.7.2:91", "node");
    assert_eq!(tcp(&b, "192.168.7.2:91").name(), "node");
    place.apply(&[egress(
        json!([{"to": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": "http"}]}]),
    )]);
    assert!(reach(&a) && silent(&c) && silent("192.168.7.1:90"));
    assert!(silent(&format!("{}:81", place.pods[0].1.ips[0])));
    place.apply(&[egress(json!([{"to": [{"ipBlock": {"cidr": "192.168.7.0/24"}}]}]))]);
    assert!(silent(&a) && reach("192.168.7.1:90"));
    assert!(matches!(udp(&b, "192.168.7.1:90"), Outcome::Answer(..)));

    // Pods and namespaces that change are let in and out as they go.
    let from_y = ingress(
        json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "z"}}, "podSelector": {"matchLabels": {"app": "new"}}}]}]),
    );
    place.apply(std::slice::from_ref(&from_y));
    let from_c = |place: &Place| matches!(tcp(&place.pods[2].0, &a), Outcome::Answer(..));
    let not_from_c = |place: &Place| tcp_silent(&place.pods[2].0, &a) == Outcome::Silence;
    assert!(not_from_c(&place));
    place.pods[2].1.labels.insert("app".into(), "new".into());
    place.apply(std::slice::from_ref(&from_y));
    assert!(not_from_c(&place));
    place.namespaces.get_mut("y").unwrap().labels.insert("team".into(), "z".into());
    place.apply(std::slice::from_ref(&from_y));
    assert!(from_c(&place));
    place.pods[2].1.labels.clear();
    place.apply(std::slice::from_ref(&from_y));
    assert!(not_from_c(&place));
}

#[test]
fn objects() {
    let pod = |spec: Value, status: Value| {
        Pod::decode(
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": status}).to_string().as_bytes(),
        )
        .unwrap()
    };
    let up = json!({"podIP": "10.0.0.1"});
    assert_eq!(pod(json!({}), up.clone()).ips.len(), 1);
    assert_eq!(pod(json!({"hostNetwork": true}), up).ips.len(), 0);
    assert_eq!(pod(json!({}), json!({"podIP": "10.0.0.1", "phase": "Succeeded"})).ips.len(), 0);
    let ports = json!({"containers": [{"ports": [{"containerPort": 1}, {"name": "u", "containerPort": 2, "protocol": "UDP"}]}],
        "initContainers": [{"ports": [{"name": "i", "containerPort": 3}]}, {"restartPolicy": "Always", "ports": [{"name": "s", "containerPort": 4}]}]});
    assert_eq!(pod(ports, json!({})).ports, [("s".to_owned(), Protocol::Tcp, 4), ("u".to_owned(), Protocol::Udp, 2)]);
    for bad in [
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "x"}}]}]}),
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": 70000}]}]}),
        json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "ICMP"}]}]}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
    ] {
        let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": bad});
        assert!(Policy::decode(object.to_string().as_bytes()).is_err(), "{object}");
    }
    assert_eq!(Name::new("n", "p").to_string(), "n/p");
}
