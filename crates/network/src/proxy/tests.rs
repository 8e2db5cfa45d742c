use std::collections::HashMap;

use super::*;
use crate::podnet::{self, PodNetwork};
use crate::testnet::{
    Echo, NODE4, NODE6, OUTSIDE4, Outcome, World, path, rules, run, tcp, tcp_silent, udp, udp_ask, udp_socket,
};
use crate::views::{Endpoint, ServicePort, ServiceType, SlicePort};

/// A node with pods, each answering on ports 80 (v4 and v6) with its name.
struct Cluster {
    world: World,
    net: PodNetwork,
    pods: Vec<(NetNs, Vec<IpAddr>)>,
    servers: Vec<Echo>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn new(pods: usize) -> Self {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let net = PodNetwork::start(podnet::Config {
            ns: world.node.clone(),
            state_dir: dir.path().to_owned(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd44:1::/64".parse().unwrap()],
            cluster_cidrs: blocks(),
            mtu: None,
            mode: podnet::Mode::Routes,
        })
        .await
        .unwrap();
        let mut cluster = Self { world, net, pods: Vec::new(), servers: Vec::new(), _dir: dir };
        for at in 0..pods {
            let ns = NetNs::new().unwrap();
            let ips = cluster.net.attach(&at.to_string(), &path(&ns), &[]).await.unwrap().ips;
            for ip in &ips {
                cluster.servers.push(Echo::start(
                    &ns,
                    &std::net::SocketAddr::new(*ip, 80).to_string(),
                    &format!("pod{at}"),
                ));
            }
            cluster.pods.push((ns, ips));
        }
        cluster
    }

    fn proxy(&self) -> Proxy {
        let config = Config {
            ns: self.world.node.clone(),
            node: "here".into(),
            cluster_cidrs: blocks(),
            served_here: BTreeSet::from(["10.96.0.10".parse().unwrap()]),
            ..Config::default()
        };
        let mut proxy = Proxy::new(config).unwrap();
        let ips = vec![NODE4.parse().unwrap(), NODE6.parse().unwrap()];
        proxy.set_node(&Node { name: "here".into(), zone: Some("a".into()), ips, pod_cidrs: Vec::new() });
        proxy
    }

    fn endpoint(&self, pod: usize, v6: bool) -> Endpoint {
        endpoint(self.pods[pod].1[usize::from(v6)], Some("here"))
    }

    fn slice(&self, service: &str, pods: &[usize]) -> Slice {
        slice(service, pods.iter().map(|pod| self.endpoint(*pod, false)).collect())
    }

    /// Who answers when a caller asks many times, and how often.
    fn survey(&self, from: &NetNs, to: &str) -> HashMap<String, u32> {
        let mut out = HashMap::new();
        for _ in 0..30 {
            *out.entry(tcp(from, to).name().to_owned()).or_default() += 1;
        }
        out
    }
}

fn blocks() -> Vec<Net> {
    vec!["10.244.0.0/16".parse().unwrap(), "fd44::/16".parse().unwrap()]
}

fn endpoint(ip: IpAddr, node: Option<&str>) -> Endpoint {
    Endpoint {
        addresses: vec![ip],
        node: node.map(str::to_owned),
        hostname: None,
        ready: true,
        serving: true,
        terminating: false,
        zone_hints: BTreeSet::new(),
        node_hints: BTreeSet::new(),
    }
}

fn slice(service: &str, endpoints: Vec<Endpoint>) -> Slice {
    let port = |protocol| SlicePort { name: "p".into(), protocol, port: 80 };
    Slice {
        name: Name::new("ns", format!("{service}-1")),
        service: Name::new("ns", service),
        ports: vec![port(Protocol::Tcp), SlicePort { name: "u".into(), ..port(Protocol::Udp) }],
        endpoints,
        not_proxied: false,
    }
}

fn service(name: &str, ip: &str) -> Service {
    let port = |name: &str, protocol, node_port| ServicePort { name: name.into(), protocol, port: 8000, node_port };
    Service {
        name: Name::new("ns", name),
        cluster_ips: vec![ip.parse().unwrap()],
        ports: vec![port("p", Protocol::Tcp, 0), port("u", Protocol::Udp, 0)],
        ..Service::default()
    }
}

fn node_port(name: &str, ip: &str, number: u16) -> Service {
    let mut out = Service { kind: ServiceType::NodePort, ..service(name, ip) };
    for port in &mut out.ports {
        port.node_port = number;
    }
    out
}

fn set(proxy: &mut Proxy, slice: Slice) {
    proxy.set_slice(&slice.name.clone(), Some(slice.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_ips_lead_to_endpoints_from_everywhere() {
    let c = Cluster::new(3).await;
    let mut proxy = c.proxy();
    proxy.set_service(service("web", "10.96.0.20"));
    proxy.set_service(Service {
        name: Name::new("ns", "six"),
        cluster_ips: vec!["fd96::20".parse().unwrap()],
        ..service("six", "10.96.0.21")
    });
    set(&mut proxy, c.slice("web", &[0, 1]));
    set(&mut proxy, slice("six", vec![c.endpoint(2, true)]));
    proxy.sync().unwrap();
    let (pod, node, outside) = (&c.pods[2].0, &c.world.node, &c.world.outside);
    for from in [pod, node, outside] {
        let found = c.survey(from, "10.96.0.20:8000");
        assert_eq!(found.len(), 2, "{found:?}");
    }
    assert!(matches!(udp(pod, "10.96.0.20:8000"), Outcome::Answer(..)));
    assert_eq!(tcp(&c.pods[0].0, "[fd96::20]:8000").name(), "pod2");
    assert_eq!(tcp(node, "[fd96::20]:8000").name(), "pod2");
    // Pods keep their address; the outside is masqueraded.
    let Outcome::Answer(_, seen) = tcp(pod, "10.96.0.20:8000") else { panic!() };
    assert_eq!(seen, c.pods[2].1[0]);
    // A pod reaches itself through its Service.
    let hairpin = c.survey(&c.pods[0].0, "10.96.0.20:8000");
    assert_eq!(hairpin.len(), 2, "{hairpin:?}");
    assert_eq!(tcp(&c.pods[2].0, "[fd96::20]:8000").name(), "pod2");
    // A port the Service does not have is refused.
    assert_eq!(tcp(pod, "10.96.0.20:9999"), Outcome::Refused);
    assert_eq!(tcp(node, "10.96.0.20:9999"), Outcome::Refused);

    // One endpoint more, then less.
    set(&mut proxy, c.slice("web", &[0, 1, 2]));
    proxy.sync().unwrap();
    assert_eq!(c.survey(node, "10.96.0.20:8000").len(), 3);
    set(&mut proxy, c.slice("web", &[1]));
    proxy.sync().unwrap();
    assert_eq!(c.survey(node, "10.96.0.20:8000").into_keys().collect::<Vec<_>>(), ["pod1"]);
    let text = rules(&c.world.node);
    assert!(!text.contains("chain lb-3") && !text.contains("chain lb-2"), "{text}");
    // None: refused at once.
    proxy.remove_slice(&Name::new("ns", "web-1"));
    proxy.sync().unwrap();
    assert_eq!(tcp(pod, "10.96.0.20:8000"), Outcome::Refused);
    assert_eq!(tcp(node, "10.96.0.20:8000"), Outcome::Refused);
    assert_eq!(udp(pod, "10.96.0.20:8000"), Outcome::Refused);
    assert_eq!(tcp(outside, "10.96.0.20:8000"), Outcome::Refused);

    proxy.remove_service(&Name::new("ns", "web"));
    proxy.remove_service(&Name::new("ns", "six"));
    proxy.sync().unwrap();
    let text = rules(&c.world.node);
    assert!(!text.contains("10.96.0.") && !text.contains("ns/web"), "{text}");
    cleanup(&c.world.node).unwrap();
    cleanup(&c.world.node).unwrap();
    assert!(!rules(&c.world.node).contains("pintle-proxy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_ports_and_external_addresses() {
    let c = Cluster::new(3).await;
    let mut proxy = c.proxy();
    let web = Service {
        external_ips: vec!["192.168.7.50".parse().unwrap()],
        ingress_ips: vec!["192.168.7.60".parse().unwrap()],
        source_ranges: vec!["10.244.0.0/16".parse().unwrap()],
        ..node_port("web", "10.96.0.20", 30080)
    };
    proxy.set_service(web.clone());
    set(&mut proxy, c.slice("web", &[0, 1]));
    proxy.sync().unwrap();
    run(
        &c.world.outside,
        &format!("ip route add 192.168.7.50/32 via {NODE4}; ip route add 192.168.7.60/32 via {NODE4}"),
    );
    let (pod, node, outside) = (&c.pods[2].0, &c.world.node, &c.world.outside);
    for from in [pod, node, outside] {
        assert_eq!(c.survey(from, "192.168.7.2:30080").len(), 2);
    }
    assert!(matches!(udp(outside, "192.168.7.2:30080"), Outcome::Answer(..)));
    // The caller from outside is masqueraded, so that the answer takes the same way.
    let Outcome::Answer(_, seen) = tcp(outside, "192.168.7.2:30080") else { panic!() };
    assert_ne!(seen.to_string(), OUTSIDE4);
    assert!(matches!(tcp(outside, "192.168.7.50:8000"), Outcome::Answer(..)));
    // Only pods may call the load balancer's address.
    assert_eq!(tcp_silent(outside, "192.168.7.60:8000"), Outcome::Silence);
    assert!(matches!(tcp(pod, "192.168.7.60:8000"), Outcome::Answer(..)));
    // A pod reaches itself by the node's port.
    assert_eq!(c.survey(&c.pods[0].0, "192.168.7.2:30080").len(), 2);
    // Loopback has no node ports.
    assert_eq!(tcp(node, "127.0.0.1:30080"), Outcome::Refused);

    // Traffic from outside stays on the node and keeps its source; without a local endpoint it is dropped.
    proxy.set_service(Service { external_local: true, source_ranges: Vec::new(), ..web.clone() });
    let far = endpoint(c.pods[1].1[0], Some("elsewhere"));
    set(&mut proxy, slice("web", vec![c.endpoint(0, false), far.clone()]));
    proxy.sync().unwrap();
    assert_eq!(tcp(outside, "192.168.7.2:30080"), Outcome::Answer("pod0".into(), OUTSIDE4.parse().unwrap()));
    assert_eq!(tcp(outside, "192.168.7.60:8000"), Outcome::Answer("pod0".into(), OUTSIDE4.parse().unwrap()));
    assert_eq!(c.survey(pod, "192.168.7.2:30080").len(), 2);
    assert_eq!(c.survey(node, "192.168.7.2:30080").len(), 2);
    set(&mut proxy, slice("web", vec![far]));
    proxy.sync().unwrap();
    assert_eq!(tcp_silent(outside, "192.168.7.2:30080"), Outcome::Silence);
    assert_eq!(tcp(pod, "192.168.7.2:30080").name(), "pod1");
    proxy.remove_slice(&Name::new("ns", "web-1"));
    proxy.sync().unwrap();
    assert_eq!(tcp(outside, "192.168.7.2:30080"), Outcome::Refused);
    assert_eq!(tcp(outside, "192.168.7.50:8000"), Outcome::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_keep_their_endpoint() {
    let c = Cluster::new(4).await;
    let mut proxy = c.proxy();
    proxy.set_service(Service { affinity: Some(100), ..node_port("web", "10.96.0.20", 30080) });
    set(&mut proxy, c.slice("web", &[0, 1, 2]));
    proxy.sync().unwrap();
    let caller = &c.pods[3].0;
    let first = tcp(caller, "10.96.0.20:8000").name().to_owned();
    assert_eq!(c.survey(caller, "10.96.0.20:8000").len(), 1);
    assert_eq!(c.survey(&c.world.outside, "192.168.7.2:30080").len(), 1);
    assert_eq!(c.survey(&c.world.node, "10.96.0.20:8000").len(), 1);

    // A restart of the proxy keeps it.
    drop(proxy);
    let mut proxy = c.proxy();
    proxy.set_service(Service { affinity: Some(100), ..node_port("web", "10.96.0.20", 30080) });
    set(&mut proxy, c.slice("web", &[0, 1, 2]));
    proxy.sync().unwrap();
    assert_eq!(c.survey(caller, "10.96.0.20:8000").into_keys().collect::<Vec<_>>(), std::slice::from_ref(&first));

    // The endpoint goes: another takes its place, and keeps it.
    let gone: usize = first.trim_start_matches("pod").parse().unwrap();
    let rest: Vec<usize> = (0..3).filter(|at| *at != gone).collect();
    set(&mut proxy, c.slice("web", &rest));
    proxy.sync().unwrap();
    let next = c.survey(caller, "10.96.0.20:8000");
    assert!(next.len() == 1 && !next.contains_key(&first), "{first}: {next:?}");

    // Affinity ends with the Service's wish for it.
    proxy.set_service(service("web", "10.96.0.20"));
    proxy.sync().unwrap();
    assert_eq!(c.survey(caller, "10.96.0.20:8000").len(), 2);
    assert_eq!(proxy.nft.elements(layout::TABLES[0], layout::AFFINITY).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flows_follow_their_service() {
    let c = Cluster::new(3).await;
    let mut proxy = c.proxy();
    proxy.set_service(service("web", "10.96.0.20"));
    set(&mut proxy, c.slice("web", &[0]));
    proxy.sync().unwrap();
    let socket = udp_socket(&c.pods[2].0, "10.96.0.20:8000");
    assert_eq!(udp_ask(&socket).name(), "pod0");
    set(&mut proxy, c.slice("web", &[1]));
    proxy.sync().unwrap();
    assert_eq!(udp_ask(&socket).name(), "pod1");
    // A flow that began before the Service had endpoints is led to the first.
    proxy.remove_slice(&Name::new("ns", "web-1"));
    proxy.sync().unwrap();
    assert_eq!(udp_ask(&socket), Outcome::Refused);
    set(&mut proxy, c.slice("web", &[0]));
    proxy.sync().unwrap();
    assert_eq!(udp_ask(&socket).name(), "pod0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_left_is_removed_and_two_claims_are_settled() {
    let c = Cluster::new(2).await;
    let mut proxy = c.proxy();
    proxy.set_service(node_port("a", "10.96.0.20", 30080));
    proxy.set_service(service("gone", "10.96.0.30"));
    set(&mut proxy, c.slice("a", &[0]));
    set(&mut proxy, c.slice("gone", &[0, 1]));
    proxy.sync().unwrap();
    drop(proxy);
    // After a restart only what is wanted now is there.
    let mut proxy = c.proxy();
    proxy.set_service(node_port("a", "10.96.0.20", 30080));
    set(&mut proxy, c.slice("a", &[0]));
    proxy.sync().unwrap();
    assert!(!rules(&c.world.node).contains("10.96.0.30"));
    assert_eq!(tcp(&c.world.outside, "192.168.7.2:30080").name(), "pod0");
    // A second Service wants the same node port; it gets it when the first lets go.
    proxy.set_service(node_port("b", "10.96.0.21", 30080));
    set(&mut proxy, c.slice("b", &[1]));
    proxy.sync().unwrap();
    assert_eq!(tcp(&c.world.outside, "192.168.7.2:30080").name(), "pod0");
    assert_eq!(tcp(&c.world.node, "10.96.0.21:8000").name(), "pod1");
    proxy.remove_service(&Name::new("ns", "a"));
    proxy.sync().unwrap();
    assert_eq!(tcp(&c.world.outside, "192.168.7.2:30080").name(), "pod1");
    // Somebody removes our rules: the next change brings all of them back.
    run(&c.world.node, "nft delete table ip pintle-proxy");
    set(&mut proxy, c.slice("b", &[0, 1]));
    proxy.sync().unwrap();
    assert_eq!(c.survey(&c.world.node, "10.96.0.21:8000").len(), 2);
    run(&c.world.node, "nft flush ruleset");
    proxy.write_anew();
    assert!(proxy.is_dirty());
    proxy.sync().unwrap();
    assert_eq!(c.survey(&c.world.node, "10.96.0.21:8000").len(), 2);
    // What this node answers itself is left alone.
    proxy.set_service(service("dns", "10.96.0.10"));
    proxy.sync().unwrap();
    assert!(!rules(&c.world.node).contains("10.96.0.10"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_balancers_are_told_of_local_endpoints() {
    use std::io::{Read, Write};
    let c = Cluster::new(1).await;
    let mut proxy = c.proxy();
    let checked = Service {
        kind: ServiceType::LoadBalancer,
        external_local: true,
        health_check_node_port: 31000,
        ..node_port("web", "10.96.0.20", 30080)
    };
    proxy.set_service(checked.clone());
    set(&mut proxy, c.slice("web", &[0]));
    proxy.sync().unwrap();
    let ask = || {
        c.world.outside.run(|| -> io::Result<String> {
            let mut stream = std::net::TcpStream::connect("192.168.7.2:31000")?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut out = String::new();
            stream.read_to_string(&mut out)?;
            Ok(out)
        })
    };
    let answer = ask().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"localEndpoints\": 1,"), "{answer}");
    set(&mut proxy, slice("web", vec![endpoint("10.244.9.9".parse().unwrap(), Some("elsewhere"))]));
    proxy.sync().unwrap();
    let answer = ask().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"localEndpoints\": 0,"), "{answer}");
    proxy.set_service(Service { health_check_node_port: 0, ..checked });
    proxy.sync().unwrap();
    assert!(ask().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_families_have_everything() {
    let c = Cluster::new(3).await;
    let mut proxy = c.proxy();
    run(&c.world.outside, &format!("ip -6 route add fd96::/64 via {NODE6}; ip -6 route add fd97::/64 via {NODE6}"));
    let parse = |ips: [&str; 2]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let full = Service {
        kind: ServiceType::LoadBalancer,
        cluster_ips: parse(["10.96.0.20", "fd96::20"]),
        external_ips: parse(["192.168.7.50", "fd97::50"]),
        ingress_ips: parse(["192.168.7.60", "fd97::60"]),
        source_ranges: vec!["fd44::/16".parse().unwrap(), "fd44:1::/64".parse().unwrap()],
        affinity: Some(60),
        external_local: true,
        ..node_port("web", "10.96.0.20", 30080)
    };
    proxy.set_service(full.clone());
    set(&mut proxy, c.slice("web", &[0, 1]));
    let six = slice("web", vec![c.endpoint(0, true), c.endpoint(1, true)]);
    proxy.set_slice(&Name::new("ns", "web-6"), Some(Slice { name: Name::new("ns", "web-6"), ..six }.into()));
    proxy.sync().unwrap();
    let (pod, outside) = (&c.pods[2].0, &c.world.outside);
    for to in ["[fd96::20]:8000", "[fd97::50]:8000", "[fd97::60]:8000"] {
        assert_eq!(c.survey(pod, to).len(), 1, "{to}: a pod keeps its endpoint");
    }
    assert_eq!(c.survey(pod, &format!("[{NODE6}]:30080")).len(), 1);
    let Outcome::Answer(_, seen) = tcp(outside, &format!("[{NODE6}]:30080")) else { panic!() };
    assert_eq!(seen.to_string(), crate::testnet::OUTSIDE6);
    assert!(matches!(tcp(outside, "[fd97::50]:8000"), Outcome::Answer(..)));
    assert_eq!(tcp_silent(outside, "[fd97::60]:8000"), Outcome::Silence);
    assert!(matches!(udp(pod, "[fd96::20]:8000"), Outcome::Answer(..)));
    assert_eq!(tcp(&c.world.node, "[::1]:30080"), Outcome::Refused);
    // The rules can be listed, whatever is in them.
    let text = rules(&c.world.node);
    assert!(text.contains("table ip6 pintle-proxy") && text.contains("split-port-2-2-sticky"), "{text}");
    proxy.remove_slice(&Name::new("ns", "web-6"));
    proxy.sync().unwrap();
    assert_eq!(tcp(pod, "[fd96::20]:8000"), Outcome::Refused);
    assert_eq!(tcp(outside, &format!("[{NODE6}]:30080")), Outcome::Refused);
    // A Service that turns to another kind leaves nothing of the old behind.
    proxy.set_service(service("web", "10.96.0.20"));
    proxy.sync().unwrap();
    let text = rules(&c.world.node);
    for gone in ["30080", "192.168.7.50", "fd97::", "chain split", "chain firewall", "chain affinity-60"] {
        assert!(!text.contains(gone), "{gone} is in {text}");
    }
}
