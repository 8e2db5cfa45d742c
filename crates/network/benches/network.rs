//! What the network costs: `cargo bench -p pintle-network`. Everything runs in network namespaces made for it.
//!
//! Figures to beat, on a 2-core machine: kube-proxy's own layout takes 64 s for 10,000 Services of 3 endpoints; the design's
//! prototype took 75 ms, and under 1 ms for one more; a pod is connected within 6 ms; dnsmasq answers 53,000 questions/s.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints its measurements, or fails")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pintle_network::addr::Protocol;
use pintle_network::dns::{self, Dns, Upstream};
use pintle_network::netns::NetNs;
use pintle_network::podnet::{self, PodNetwork};
use pintle_network::proxy::{self, Proxy};
use pintle_network::views::{Endpoint, Name, Service, ServicePort, Slice, SlicePort};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 3;

fn service(at: u32) -> Service {
    let port = ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 };
    Service {
        name: Name::new("default", format!("service-{at}")),
        cluster_ips: vec![Ipv4Addr::from_bits(0x0a60_0000 + at + 20).into()],
        ports: vec![port],
        ..Service::default()
    }
}

fn slice(at: u32, endpoints: u32) -> Slice {
    let endpoint = |n| Endpoint {
        addresses: vec![Ipv4Addr::from_bits(0x0af4_0000 + at * ENDPOINTS + n).into()],
        node: Some("elsewhere".into()),
        hostname: None,
        ready: true,
        serving: true,
        terminating: false,
        zone_hints: BTreeSet::new(),
        node_hints: BTreeSet::new(),
    };
    Slice {
        name: Name::new("default", format!("service-{at}-1")),
        service: Name::new("default", format!("service-{at}")),
        ports: vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        not_proxied: false,
    }
}

fn p50(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn bench_proxy() {
    let ns = NetNs::new().unwrap();
    let config = proxy::Config {
        ns,
        node: "here".into(),
        cluster_cidrs: vec!["10.244.0.0/14".parse().unwrap()],
        ..Default::default()
    };
    let mut proxy = Proxy::new(config).unwrap();
    let set = |proxy: &mut Proxy, at, endpoints| {
        proxy.set_service(service(at));
        let slice = slice(at, endpoints);
        proxy.set_slice(&slice.name.clone(), Some(slice.into()));
    };
    for at in 0..SERVICES {
        set(&mut proxy, at, ENDPOINTS);
    }
    let began = Instant::now();
    proxy.sync().unwrap();
    println!("proxy: {SERVICES} Services of {ENDPOINTS} endpoints, first sync: {:?}", began.elapsed());
    let mut time = |what: &str, change: &mut dyn FnMut(&mut Proxy, u32)| {
        let times = (0..100)
            .map(|n| {
                change(&mut proxy, n);
                let began = Instant::now();
                proxy.sync().unwrap();
                began.elapsed()
            })
            .collect();
        println!("proxy: {what}: {:?}", p50(times));
    };
    time("one more Service", &mut |proxy, n| set(proxy, SERVICES + n, ENDPOINTS));
    time("one endpoint less", &mut |proxy, n| set(proxy, n, ENDPOINTS - 1));
    time("one Service less", &mut |proxy, n| proxy.remove_service(&service(SERVICES + n).name));
}

async fn bench_pods() {
    let (node, dir) = (NetNs::new().unwrap(), tempfile::tempdir().unwrap());
    let config = podnet::Config {
        ns: node,
        state_dir: dir.path().to_owned(),
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap(), "fd44::/64".parse().unwrap()],
        cluster_cidrs: Vec::new(),
        mtu: Some(1450),
        mode: podnet::Mode::Vxlan,
    };
    let net = PodNetwork::start(config).await.unwrap();
    let (mut made, mut gone) = (Vec::new(), Vec::new());
    let pods: Vec<NetNs> = (0..100).map(|_| NetNs::new().unwrap()).collect();
    for (at, pod) in pods.iter().enumerate() {
        let path = format!("/proc/self/fd/{}", pod.fd().unwrap().as_raw_fd());
        let began = Instant::now();
        net.attach(&at.to_string(), path.as_ref(), &[]).await.unwrap();
        made.push(began.elapsed());
    }
    for at in 0..pods.len() {
        let began = Instant::now();
        net.detach(&at.to_string()).await.unwrap();
        gone.push(began.elapsed());
    }
    println!("pods: attach (IPv4 and IPv6) p50 {:?}, detach p50 {:?}", p50(made), p50(gone));
}

async fn bench_dns() {
    const ASKERS: u32 = 8;
    const TIME: Duration = Duration::from_secs(3);
    let config = dns::Config {
        ns: NetNs::host(),
        domain: "cluster.local".into(),
        cluster_ips: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
        node_ips: Vec::new(),
        allowed: Vec::new(),
        upstream: Upstream::Servers(Vec::new()),
        serial: 1,
    };
    let dns = Dns::answering(&config, &[SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)]).unwrap();
    {
        let mut zone = dns.zone().write();
        zone.set_namespace("default", true);
        for at in 0..2 * SERVICES {
            zone.set_service(service(at));
        }
    }
    let at = dns.addresses()[0];
    let answered = std::sync::Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for asker in 0..ASKERS {
        let answered = answered.clone();
        threads.push(std::thread::spawn(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(at).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let began = Instant::now();
            let mut n = asker;
            let mut buf = [0u8; 512];
            while began.elapsed() < TIME {
                // A few questions on their way at a time, as from many pods.
                for _ in 0..16 {
                    n = (n + 7919) % (2 * SERVICES);
                    socket.send(&question(n)).unwrap();
                }
                for _ in 0..16 {
                    if socket.recv(&mut buf).is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }));
    }
    let wait = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()));
    wait.await.unwrap();
    let rate = answered.load(Ordering::Relaxed) as f64 / TIME.as_secs_f64();
    println!("dns: {rate:.0} answers/s for {} names, with {ASKERS} askers on the same cores", 2 * SERVICES);
}

/// A question for the address of a Service, as bytes.
fn question(at: u32) -> Vec<u8> {
    let mut out = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [&format!("service-{at}"), "default", "svc", "cluster", "local"] {
        out.push(label.len().try_into().unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
    out
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    bench_proxy();
    runtime.block_on(bench_pods());
    runtime.block_on(bench_dns());
}
