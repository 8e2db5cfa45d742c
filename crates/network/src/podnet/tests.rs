use super::*;
use crate::testnet::{self, Echo, NODE4, NODE6, OUTSIDE4, Outcome, World, path, rules, run, tcp, tcp_silent, udp};

fn config(world: &World, dir: &Path) -> Config {
    Config {
        ns: world.node.clone(),
        state_dir: dir.to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd44:1::/64".parse().unwrap()],
        cluster_cidrs: vec![
            "10.244.0.0/16".parse().unwrap(),
            "10.244.1.0/24".parse().unwrap(),
            "fd44::/16".parse().unwrap(),
        ],
        mtu: None,
        mode: Mode::Vxlan,
    }
}

fn host_port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> HostPort {
    HostPort { host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port: 80, protocol }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_each_other_the_node_and_the_world() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let net = PodNetwork::start(config(&world, dir.path())).await.unwrap();
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let at_a = net.attach("a", &path(&a), &[]).await.unwrap();
    let at_b = net.attach("b", &path(&b), &[]).await.unwrap();
    assert_eq!(net.attach("a", &path(&a), &[]).await.unwrap(), at_a);
    let [a4, a6] = [at_a.ips[0], at_a.ips[1]];
    assert_eq!(at_b.ips[0].to_string(), "10.244.1.3");

    let _b4 = Echo::start(&b, "10.244.1.3:80", "b");
    let _b6 = Echo::start(&b, "[fd44:1::3]:80", "b");
    assert_eq!(tcp(&a, "10.244.1.3:80"), Outcome::Answer("b".into(), a4));
    assert_eq!(tcp(&a, "[fd44:1::3]:80"), Outcome::Answer("b".into(), a6));
    assert_eq!(udp(&a, "10.244.1.3:80"), Outcome::Answer("b".into(), a4));
    assert_eq!(tcp(&world.node, "10.244.1.3:80").name(), "b");
    assert_eq!(tcp(&world.node, "[fd44:1::3]:80").name(), "b");

    // A pod seen from outside has its node's address; the node itself sees the pod.
    let _out = Echo::start(&world.outside, "192.168.7.1:90", "out");
    let _out6 = Echo::start(&world.outside, "[fd07::1]:90", "out");
    let _node = Echo::start(&world.node, "192.168.7.2:90", "node");
    assert_eq!(tcp(&a, "192.168.7.1:90"), Outcome::Answer("out".into(), NODE4.parse().unwrap()));
    assert_eq!(tcp(&a, "[fd07::1]:90"), Outcome::Answer("out".into(), NODE6.parse().unwrap()));
    assert_eq!(tcp(&a, "192.168.7.2:90"), Outcome::Answer("node".into(), a4));
    assert!(run(&a, "ip -4 addr show eth0").contains("mtu 1430"));
    assert!(run(&a, "ip addr show lo").contains("127.0.0.1"));

    // Rules somebody removed are written anew with the next pod, or when that is noticed.
    run(&world.node, "nft flush ruleset");
    let d = NetNs::new().unwrap();
    net.attach("d", &path(&d), &[]).await.unwrap();
    assert_eq!(tcp(&d, "192.168.7.1:90"), Outcome::Answer("out".into(), NODE4.parse().unwrap()));
    run(&world.node, "nft flush ruleset");
    net.rewrite_rules().unwrap();
    assert_eq!(tcp(&d, "192.168.7.1:90"), Outcome::Answer("out".into(), NODE4.parse().unwrap()));

    net.detach("b").await.unwrap();
    net.detach("b").await.unwrap();
    assert!(!run(&world.node, "ip route").contains("10.244.1.3"));
    assert_eq!(net.get("b"), None);
    drop(net);
    cleanup(&world.node, dir.path()).await.unwrap();
    cleanup(&world.node, dir.path()).await.unwrap();
    assert_eq!(rules(&world.node), "");
    assert!(!run(&world.node, "ip link").contains(LINK_PREFIX));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_lead_to_their_pod() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let net = PodNetwork::start(config(&world, dir.path())).await.unwrap();
    let pods: Vec<NetNs> = (0..4).map(|_| NetNs::new().unwrap()).collect();
    let ports = [
        host_port(Some("127.0.0.1"), 8080, Protocol::Tcp),
        host_port(Some(NODE4), 8080, Protocol::Tcp),
        host_port(None, 8080, Protocol::Udp),
        host_port(None, 8081, Protocol::Tcp),
    ];
    let mut servers = Vec::new();
    for (at, (pod, port)) in pods.iter().zip(&ports).enumerate() {
        let ips = net.attach(&at.to_string(), &path(pod), std::slice::from_ref(port)).await.unwrap().ips;
        servers.push(Echo::start(pod, &format!("{}:80", ips[0]), &at.to_string()));
    }
    assert!(matches!(net.attach("x", &path(&pods[0]), &ports[..1]).await, Err(Error::Address(_))));

    assert_eq!(tcp(&world.node, "127.0.0.1:8080").name(), "0");
    assert_eq!(tcp(&world.node, "192.168.7.2:8080").name(), "1");
    assert_eq!(tcp(&world.outside, "192.168.7.2:8080"), Outcome::Answer("1".into(), OUTSIDE4.parse().unwrap()));
    assert_eq!(udp(&world.outside, "192.168.7.2:8080").name(), "2");
    assert_eq!(tcp(&world.outside, "192.168.7.2:8081").name(), "3");
    assert_eq!(tcp(&pods[0], "192.168.7.2:8081").name(), "3");
    // A pod reaches itself by its own port on the node.
    assert_eq!(tcp(&pods[3], "192.168.7.2:8081").name(), "3");
    // The node's loopback stays closed to pods though the link of this one carries it.
    let _private = Echo::start(&world.node, "127.0.0.1:99", "private");
    run(
        &pods[0],
        "ip route add 127.0.0.1/32 dev eth0 table 9; ip rule add pref 0 iif lo to 127.0.0.1 table 9; ip rule del pref 0 table local; ip rule add pref 9 table local; sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
    );
    run(&pods[0], "ip neigh replace 127.0.0.1 lladdr ee:ee:ee:ee:ee:ee dev eth0; ip addr del 127.0.0.1/8 dev lo");
    assert_eq!(tcp_silent(&pods[0], "127.0.0.1:99"), Outcome::Silence);
    net.detach("3").await.unwrap();
    assert_eq!(tcp(&world.outside, "192.168.7.2:8081"), Outcome::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_living_and_frees_the_rest() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let net = PodNetwork::start(config(&world, dir.path())).await.unwrap();
    let first = net.attach("a", &path(&a), &[host_port(None, 8080, Protocol::Tcp)]).await.unwrap();
    let first_ips = first.ips.clone();
    net.attach("b", &path(&b), &[]).await.unwrap();
    let _a = Echo::start(&a, "10.244.1.2:80", "a");
    drop(net);

    let net = PodNetwork::start(config(&world, dir.path())).await.unwrap();
    assert_eq!(tcp(&world.outside, "192.168.7.2:8080").name(), "a");
    net.retain(&HashSet::from(["a".to_owned()])).await.unwrap();
    assert_eq!(net.get("a"), Some(first));
    assert_eq!(net.get("b"), None);
    assert_eq!(tcp(&world.node, "10.244.1.2:80").name(), "a");
    let links = run(&world.node, "ip -o link");
    assert_eq!(links.matches(&format!(" {LINK_PREFIX}")).count(), 1, "{links}");
    // A sandbox made anew under its old identifier is connected again, at its old address.
    let anew = NetNs::new().unwrap();
    assert_eq!(net.attach("a", &path(&anew), &[]).await.unwrap().ips[0].to_string(), "10.244.1.2");
    let _anew = Echo::start(&anew, "10.244.1.2:80", "anew");
    assert_eq!(tcp(&world.node, "10.244.1.2:80").name(), "anew");
    // So is one whose record was lost.
    drop(net);
    std::fs::remove_dir_all(dir.path().join("ipam")).unwrap();
    let net = PodNetwork::start(config(&world, dir.path())).await.unwrap();
    let ips = first_ips.clone();
    assert_eq!(net.restore("a", &path(&anew), &ips, &[]).await.unwrap().ips, ips);
    assert_eq!(tcp(&world.node, "10.244.1.2:80").name(), "anew");
    assert!(net.attach("c", Path::new("/proc/self/ns/none"), &[]).await.is_err());
    assert_eq!(net.get("c"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_joined() {
    for mode in [Mode::Vxlan, Mode::Routes] {
        let world = World::new();
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let one = PodNetwork::start(Config { mode, ..config(&world, dirs[0].path()) }).await.unwrap();
        let blocks: Vec<Net> = vec!["10.244.2.0/24".parse().unwrap(), "fd44:2::/64".parse().unwrap()];
        let two = Config { ns: world.outside.clone(), pod_cidrs: blocks, mode, ..config(&world, dirs[1].path()) };
        let two = PodNetwork::start(two).await.unwrap();
        let peer = |name: &str, ips: [&str; 2], n: u8| Peer {
            name: name.into(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: vec![format!("10.244.{n}.0/24").parse().unwrap(), format!("fd44:{n}::/64").parse().unwrap()],
        };
        let peers = [peer("one", [NODE4, NODE6], 1), peer("two", [OUTSIDE4, testnet::OUTSIDE6], 2)];
        one.set_peers(&peers[0].ips, &peers[1..]).await.unwrap();
        two.set_peers(&peers[1].ips, &peers[..1]).await.unwrap();
        let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let at_a = one.attach("a", &path(&a), &[]).await.unwrap();
        two.attach("b", &path(&b), &[]).await.unwrap();
        let _b = Echo::start(&b, "10.244.2.2:80", "b");
        let _b6 = Echo::start(&b, "[fd44:2::2]:80", "b");
        assert_eq!(tcp(&a, "10.244.2.2:80"), Outcome::Answer("b".into(), at_a.ips[0]), "{mode:?}");
        assert_eq!(tcp(&a, "[fd44:2::2]:80"), Outcome::Answer("b".into(), at_a.ips[1]), "{mode:?}");
        assert_eq!(tcp(&world.node, "10.244.2.2:80").name(), "b", "{mode:?}");
        // The node goes, and with it the way to its pods.
        one.set_peers(&peers[0].ips, &[]).await.unwrap();
        assert!(!run(&world.node, "ip route").contains("10.244.2."), "{mode:?}");
    }
}
