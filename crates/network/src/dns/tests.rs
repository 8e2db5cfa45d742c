use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::podnet::{self, PodNetwork};
use crate::testnet::{self, World};
use crate::views::{self, Endpoint, Service, ServicePort, ServiceType, Slice, SlicePort};

fn config(upstream: Upstream) -> Config {
    Config {
        ns: NetNs::host(),
        domain: "cluster.local".into(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        node_ips: Vec::new(),
        allowed: Vec::new(),
        upstream,
        serial: 7,
    }
}

fn service(name: &str, ips: &[&str]) -> Service {
    Service {
        name: views::Name::new("testns", name),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        headless: ips.is_empty(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
        ..Service::default()
    }
}

fn slice(service: &str, at: usize, endpoints: &[(&str, Option<&str>, bool)], ports: &[(&str, u16)]) -> Slice {
    let endpoint = |(ip, host, ready): &(&str, Option<&str>, bool)| Endpoint {
        addresses: vec![ip.parse().unwrap()],
        node: None,
        hostname: host.map(str::to_owned),
        ready: *ready,
        serving: *ready,
        terminating: false,
        zone_hints: Default::default(),
        node_hints: Default::default(),
    };
    Slice {
        name: views::Name::new("testns", format!("{service}-{at}")),
        service: views::Name::new("testns", service),
        ports: ports
            .iter()
            .map(|(name, port)| SlicePort { name: (*name).into(), protocol: Protocol::Tcp, port: *port })
            .collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        not_proxied: false,
    }
}

fn external(name: &str, target: &str) -> Service {
    Service {
        kind: ServiceType::ExternalName,
        external_name: target.into(),
        ports: Vec::new(),
        headless: false,
        ..service(name, &[])
    }
}

fn fill(zone: &mut Zone) {
    zone.set_namespace("testns", true);
    for one in [
        service("svc1", &["10.0.0.1"]),
        service("svc6", &["1234:abcd::1"]),
        service("dual", &["10.0.0.3", "10::3"]),
        service("hdls1", &[]),
        service("portless", &[]),
        service("empty", &[]),
        external("external", "ext.interwebs.test"),
        external("inside", "svc1.testns.svc.cluster.local"),
        external("loop", "loop.testns.svc.cluster.local"),
    ] {
        zone.set_service(one);
    }
    for one in [
        slice(
            "hdls1",
            4,
            &[
                ("172.0.0.2", None, true),
                ("172.0.0.3", None, true),
                ("172.0.0.4", Some("dup"), true),
                ("172.0.0.5", Some("dup"), true),
                ("172.0.0.9", None, false),
            ],
            &[("http", 80)],
        ),
        slice("hdls1", 6, &[("5678:abcd::1", None, true), ("5678:abcd::2", None, true)], &[("http", 80)]),
        slice("portless", 4, &[("172.0.0.20", None, true)], &[]),
        slice("empty", 4, &[("172.0.0.8", None, false)], &[("http", 80)]),
    ] {
        zone.set_slice(&one.name.clone(), Some(one.into()));
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message
}

async fn ask(at: SocketAddr, message: &Message) -> Message {
    let socket = tokio::net::UdpSocket::bind(SocketAddr::new(
        if at.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() },
        0,
    ))
    .await
    .unwrap();
    socket.send_to(&message.to_vec().unwrap(), at).await.unwrap();
    let mut buf = vec![0; 65_536];
    let len = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buf)).await.unwrap().unwrap();
    let reply = Message::from_vec(&buf[..len]).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

async fn ask_tcp(at: SocketAddr, message: &Message) -> Message {
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let len = stream.read_u16().await.unwrap();
    let mut buf = vec![0; len.into()];
    stream.read_exact(&mut buf).await.unwrap();
    Message::from_vec(&buf).unwrap()
}

/// The records as text without name and class, sorted.
fn texts(records: &[hickory_server::proto::rr::Record]) -> Vec<String> {
    let mut out: Vec<String> =
        records.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    out.sort();
    out
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn the_specification() {
    use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    use ResponseCode::{NXDomain, NoError};
    let dns = Dns::answering(&config(Upstream::Servers(Vec::new())), &[local()]).unwrap();
    fill(&mut dns.zone().write());
    let at = dns.addresses()[0];
    let four = ["A 172.0.0.2", "A 172.0.0.3", "A 172.0.0.4", "A 172.0.0.5"];
    let cases: &[(&str, RecordType, ResponseCode, &[&str])] = &[
        ("svc1.testns.svc.cluster.local", A, NoError, &["A 10.0.0.1"]),
        ("SVC1.TestNS.svc.cluster.LOCAL", A, NoError, &["A 10.0.0.1"]),
        ("svc1.testns.svc.cluster.local", AAAA, NoError, &[]),
        ("svc1.testns.svc.cluster.local", MX, NoError, &[]),
        ("svc1.testns.svc.cluster.local", SOA, NoError, &[]),
        ("svc1.testns.svc.cluster.local", ANY, NoError, &[]),
        ("svc6.testns.svc.cluster.local", AAAA, NoError, &["AAAA 1234:abcd::1"]),
        ("dual.testns.svc.cluster.local", A, NoError, &["A 10.0.0.3"]),
        ("dual.testns.svc.cluster.local", AAAA, NoError, &["AAAA 10::3"]),
        ("dual.testns.svc.cluster.local", SRV, NoError, &["SRV 0 50 80 dual.testns.svc.cluster.local."]),
        ("svc1.testns.svc.cluster.local", SRV, NoError, &["SRV 0 100 80 svc1.testns.svc.cluster.local."]),
        ("_http._tcp.svc1.testns.svc.cluster.local", SRV, NoError, &["SRV 0 100 80 svc1.testns.svc.cluster.local."]),
        ("_http._udp.svc1.testns.svc.cluster.local", SRV, NXDomain, &[]),
        ("_www._tcp.svc1.testns.svc.cluster.local", SRV, NXDomain, &[]),
        ("hdls1.testns.svc.cluster.local", A, NoError, &four),
        ("hdls1.testns.svc.cluster.local", AAAA, NoError, &["AAAA 5678:abcd::1", "AAAA 5678:abcd::2"]),
        ("172-0-0-2.hdls1.testns.svc.cluster.local", A, NoError, &["A 172.0.0.2"]),
        ("172-0-0-9.hdls1.testns.svc.cluster.local", A, NXDomain, &[]),
        ("dup.hdls1.testns.svc.cluster.local", A, NoError, &["A 172.0.0.4", "A 172.0.0.5"]),
        ("5678-abcd--2.hdls1.testns.svc.cluster.local", AAAA, NoError, &["AAAA 5678:abcd::2"]),
        ("bogus.hdls1.testns.svc.cluster.local", A, NXDomain, &[]),
        ("portless.testns.svc.cluster.local", A, NoError, &["A 172.0.0.20"]),
        ("172-0-0-20.portless.testns.svc.cluster.local", A, NoError, &["A 172.0.0.20"]),
        ("portless.testns.svc.cluster.local", SRV, NoError, &[]),
        ("empty.testns.svc.cluster.local", A, NoError, &[]),
        (
            "_http._tcp.hdls1.testns.svc.cluster.local",
            SRV,
            NoError,
            &[
                "SRV 0 16 80 172-0-0-2.hdls1.testns.svc.cluster.local.",
                "SRV 0 16 80 172-0-0-3.hdls1.testns.svc.cluster.local.",
                "SRV 0 16 80 5678-abcd--1.hdls1.testns.svc.cluster.local.",
                "SRV 0 16 80 5678-abcd--2.hdls1.testns.svc.cluster.local.",
                "SRV 0 16 80 dup.hdls1.testns.svc.cluster.local.",
            ],
        ),
        ("external.testns.svc.cluster.local", CNAME, NoError, &["CNAME ext.interwebs.test."]),
        ("external.testns.svc.cluster.local", SRV, NoError, &[]),
        ("x.external.testns.svc.cluster.local", CNAME, NXDomain, &[]),
        ("inside.testns.svc.cluster.local", A, NoError, &["A 10.0.0.1", "CNAME svc1.testns.svc.cluster.local."]),
        ("svc0.testns.svc.cluster.local", A, NXDomain, &[]),
        ("svc1.nons.svc.cluster.local", A, NXDomain, &[]),
        ("testns.svc.cluster.local", A, NoError, &[]),
        ("nons.svc.cluster.local", A, NXDomain, &[]),
        ("svc.cluster.local", NS, NoError, &[]),
        ("pod.cluster.local", A, NoError, &[]),
        ("foo.cluster.local", NS, NXDomain, &[]),
        ("a.b.c.svc1.testns.svc.cluster.local", A, NXDomain, &[]),
        ("10-1-2-3.testns.pod.cluster.local", A, NoError, &["A 10.1.2.3"]),
        ("10-1-2-3.testns.pod.cluster.local", AAAA, NoError, &[]),
        ("fd00--1.testns.pod.cluster.local", AAAA, NoError, &["AAAA fd00::1"]),
        ("10-1-2-3.nons.pod.cluster.local", A, NXDomain, &[]),
        ("web.testns.pod.cluster.local", A, NXDomain, &[]),
        ("dns-version.cluster.local", TXT, NoError, &["TXT 1.1.0"]),
        ("cluster.local", SOA, NoError, &["SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"]),
        ("cluster.local", NS, NoError, &["NS ns.dns.cluster.local."]),
        ("cluster.local", A, NoError, &[]),
        ("ns.dns.cluster.local", A, NoError, &["A 10.96.0.10"]),
        ("1.0.0.10.in-addr.arpa", PTR, NoError, &["PTR svc1.testns.svc.cluster.local."]),
        ("2.0.0.172.in-addr.arpa", PTR, NoError, &["PTR 172-0-0-2.hdls1.testns.svc.cluster.local."]),
        ("4.0.0.172.in-addr.arpa", PTR, NoError, &["PTR dup.hdls1.testns.svc.cluster.local."]),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa",
            PTR,
            NoError,
            &["PTR 5678-abcd--1.hdls1.testns.svc.cluster.local."],
        ),
        ("1.0.0.10.in-addr.arpa", A, NoError, &[]),
    ];
    for (name, kind, code, want) in cases {
        let reply = ask(at, &query(name, *kind)).await;
        assert_eq!(reply.metadata.response_code, *code, "{name} {kind}");
        assert_eq!(texts(&reply.answers), *want, "{name} {kind}");
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available, "{name}");
        assert!(reply.answers.iter().all(|r| r.ttl == if *kind == TXT { 28_800 } else { 5 }), "{name} {kind}");
        // What is not there comes with the start of authority.
        let authorities = texts(&reply.authorities);
        if want.is_empty() {
            assert_eq!(
                authorities,
                ["SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"],
                "{name} {kind}"
            );
        } else {
            assert_eq!(authorities, [""; 0], "{name} {kind}");
        }
    }
    let reply = ask(at, &query("dual.testns.svc.cluster.local", SRV)).await;
    assert_eq!(texts(&reply.additionals), ["A 10.0.0.3", "AAAA 10::3"]);
    let reply = ask(at, &query("loop.testns.svc.cluster.local", A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // The name comes back as it was asked.
    let reply = ask(at, &query("SVC1.TestNS.svc.cluster.LOCAL", A)).await;
    assert_eq!(reply.answers[0].name.to_string(), "SVC1.TestNS.svc.cluster.LOCAL.");
}

#[tokio::test]
async fn changes_are_seen() {
    let dns = Dns::answering(&config(Upstream::Servers(Vec::new())), &[local()]).unwrap();
    let at = dns.addresses()[0];
    let code = async |name: &str, kind| ask(at, &query(name, kind)).await.metadata.response_code;
    assert_eq!(code("svc1.testns.svc.cluster.local", RecordType::A).await, ResponseCode::NXDomain);
    fill(&mut dns.zone().write());
    assert_eq!(code("svc1.testns.svc.cluster.local", RecordType::A).await, ResponseCode::NoError);
    dns.zone().write().set_service(service("svc1", &["10.0.0.77"]));
    let reply = ask(at, &query("77.0.0.10.in-addr.arpa", RecordType::PTR)).await;
    assert_eq!(texts(&reply.answers), ["PTR svc1.testns.svc.cluster.local."]);
    // The old address is nobody's, so that others are asked, of whom there are none.
    assert_eq!(code("1.0.0.10.in-addr.arpa", RecordType::PTR).await, ResponseCode::ServFail);
    dns.zone().write().remove_slice(&views::Name::new("testns", "hdls1-4"));
    let reply = ask(at, &query("hdls1.testns.svc.cluster.local", RecordType::A)).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(code("2.0.0.172.in-addr.arpa", RecordType::PTR).await, ResponseCode::ServFail);
    dns.zone().write().remove_service(&views::Name::new("testns", "svc1"));
    assert_eq!(code("svc1.testns.svc.cluster.local", RecordType::A).await, ResponseCode::NXDomain);
    dns.zone().write().set_namespace("testns", false);
    assert_eq!(code("svc6.testns.svc.cluster.local", RecordType::AAAA).await, ResponseCode::NXDomain);
    dns.stop().await;
}

#[tokio::test]
async fn large_answers_are_cut_for_udp_only() {
    let dns = Dns::answering(&config(Upstream::Servers(Vec::new())), &[local()]).unwrap();
    let endpoints: Vec<String> = (0..150).map(|n| format!("10.7.0.{n}")).collect();
    let endpoints: Vec<_> = endpoints.iter().map(|ip| (ip.as_str(), None, true)).collect();
    {
        let mut zone = dns.zone().write();
        zone.set_namespace("testns", true);
        zone.set_service(service("many", &[]));
        let many = slice("many", 4, &endpoints, &[("http", 80)]);
        zone.set_slice(&many.name.clone(), Some(many.into()));
    }
    let at = dns.addresses()[0];
    let mut asked = query("many.testns.svc.cluster.local", RecordType::A);
    let reply = ask(at, &asked).await;
    assert!(reply.metadata.truncation && reply.answers.len() < 40, "{}", reply.answers.len());
    assert!(reply.edns.is_none());
    let whole = ask_tcp(at, &asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 150);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    asked.edns = Some(edns.clone());
    let reply = ask(at, &asked).await;
    assert!(
        !reply.metadata.truncation && reply.edns.is_some(),
        "{:?} {} {:?}",
        reply.metadata,
        reply.answers.len(),
        reply.edns
    );
    assert_eq!(reply.answers.len(), 150);
    edns.set_version(1);
    asked.edns = Some(edns);
    assert_eq!(ask(at, &asked).await.edns.unwrap().rcode_high(), 1);
    // What is no question is told so.
    let mut update = query("a.cluster.local", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(ask(at, &update).await.metadata.response_code, ResponseCode::NotImp);
    let mut chaos = Message::query();
    let mut asked = Query::query(Name::from_ascii("version.bind.").unwrap(), RecordType::TXT);
    asked.set_query_class(DNSClass::CH);
    chaos.add_query(asked);
    assert_eq!(ask(at, &chaos).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_kept() {
    // Upstream is another server of ours with another domain.
    let outer = Config { domain: "interwebs.test".into(), ..config(Upstream::Servers(Vec::new())) };
    let outer = Dns::answering(&outer, &[local()]).unwrap();
    {
        let mut zone = outer.zone().write();
        zone.set_namespace("ns", true);
        zone.set_service(Service { name: views::Name::new("ns", "web"), ..service("", &["9.9.9.9"]) });
    }
    let inner = Dns::answering(&config(Upstream::Servers(vec![outer.addresses()[0]])), &[local()]).unwrap();
    {
        let mut zone = inner.zone().write();
        zone.set_namespace("testns", true);
        zone.set_service(external("away", "web.ns.svc.interwebs.test"));
    }
    let at = inner.addresses()[0];
    let reply = ask(at, &query("web.ns.svc.interwebs.test", RecordType::A)).await;
    assert_eq!(texts(&reply.answers), ["A 9.9.9.9"]);
    assert!(!reply.metadata.authoritative);
    let reply = ask(at, &query("away.testns.svc.cluster.local", RecordType::A)).await;
    assert_eq!(texts(&reply.answers), ["A 9.9.9.9", "CNAME web.ns.svc.interwebs.test."]);
    let reply = ask(at, &query("none.ns.svc.interwebs.test", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.authorities.len(), 1);
    let reply = ask(at, &query("web.ns.svc.interwebs.test", RecordType::AAAA)).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    // Kept for a while; and the cluster's own names never go upstream.
    outer.stop().await;
    let reply = ask(at, &query("web.ns.svc.interwebs.test", RecordType::A)).await;
    assert_eq!(texts(&reply.answers), ["A 9.9.9.9"]);
    let reply = ask(at, &query("web.ns.svc.interwebs.test.testns.svc.cluster.local", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn upstream_servers_come_from_the_file_and_are_never_ourselves() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "search x\nnameserver 10.96.0.10\n").unwrap();
    let dns = Dns::answering(&config(Upstream::ResolvConf(file.path().to_owned())), &[local()]).unwrap();
    let reply = ask(dns.addresses()[0], &query("example.test", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_ask_the_node_at_the_cluster_address() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let net = PodNetwork::start(podnet::Config {
        ns: world.node.clone(),
        state_dir: dir.path().to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        mtu: None,
        mode: podnet::Mode::Routes,
    })
    .await
    .unwrap();
    let pod = NetNs::new().unwrap();
    net.attach("pod", &testnet::path(&pod), &[]).await.unwrap();
    let config = Config {
        ns: world.node.clone(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd96::a".parse().unwrap()],
        node_ips: vec![testnet::NODE4.parse().unwrap()],
        allowed: vec!["10.244.0.0/16".parse().unwrap()],
        ..config(Upstream::Servers(Vec::new()))
    };
    let dns = Dns::start(&config).await.unwrap();
    fill(&mut dns.zone().write());
    let asked = query("svc1.testns.svc.cluster.local", RecordType::A);
    let ask_from = |ns: &NetNs, at: &str| {
        let socket = testnet::udp_socket(ns, at);
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(&asked.to_vec().unwrap()).unwrap();
        let mut buf = [0; 1024];
        let len = socket.recv(&mut buf).unwrap();
        Message::from_vec(&buf[..len]).unwrap()
    };
    let addresses = |reply: &Message| reply.answers.iter().map(|r| r.data.clone()).collect::<Vec<RData>>();
    let want = [RData::A("10.0.0.1".parse::<Ipv4Addr>().unwrap().into())];
    assert_eq!(addresses(&ask_from(&pod, "10.96.0.10:53")), want);
    assert_eq!(addresses(&ask_from(&world.node, "10.96.0.10:53")), want);
    assert_eq!(addresses(&ask_from(&world.node, "[fd96::a]:53")), want);
    // On the node's own address only the cluster may ask.
    assert_eq!(addresses(&ask_from(&pod, "192.168.7.2:10053")), want);
    assert_eq!(ask_from(&world.outside, "192.168.7.2:10053").metadata.response_code, ResponseCode::Refused);
    // No connection is tracked for it.
    let flows = testnet::run(&world.node, "conntrack -L 2>/dev/null");
    assert!(!flows.contains("10.96.0.10"), "{flows}");
    dns.stop().await;
    cleanup(&world.node).await.unwrap();
    cleanup(&world.node).await.unwrap();
    assert!(!testnet::rules(&world.node).contains("pintle-dns"));
    assert!(!testnet::run(&world.node, "ip route show table local; ip -6 route show table local").contains("96"));
}
