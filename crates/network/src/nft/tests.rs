use std::process::Command;
use std::time::Duration;

use super::*;
use crate::nl::Writer;

const T: Table = Table { family: Family::Ip, name: "test" };
const IP: Field = Field::Daddr(Family::Ip);
const SERVICE: [Kind; 3] = [Kind::IpAddr, Kind::InetProto, Kind::InetService];
const FIELDS: [Field; 3] = [IP, Field::L4Proto, Field::Dport];

fn list(ns: &NetNs) -> String {
    let out = ns.run(|| Command::new("nft").args(["list", "ruleset"]).output().unwrap()).unwrap();
    assert!(out.status.success(), "nft list failed: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn key(ip: &str, proto: u8, port: u16) -> Key {
    Key::new().ip(ip.parse().unwrap()).proto(proto).port(port)
}

fn dest(ip: &str, port: u16) -> Key {
    Key::new().ip(ip.parse().unwrap()).port(port)
}

#[test]
fn expressions_are_written_as_the_kernel_reads_them() {
    fn check(expr: &Expr, want: &[u8]) {
        let mut w = Writer::new();
        expr.write(&mut w);
        assert_eq!(w.bytes(), want, "{expr:?}");
    }
    check(
        &Expr::Payload { base: 1, offset: 16, len: 4, dreg: 0 },
        &[
            52, 0, 1, 128, 12, 0, 1, 0, b'p', b'a', b'y', b'l', b'o', b'a', b'd', 0, 36, 0, 2, 128, 8, 0, 1, 0, 0, 0,
            0, 8, 8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 3, 0, 0, 0, 0, 16, 8, 0, 4, 0, 0, 0, 0, 4,
        ],
    );
    check(
        &Expr::Verdict(Verdict::goto("x")),
        &[
            56, 0, 1, 128, 14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0, 36, 0, 2, 128,
            8, 0, 1, 0, 0, 0, 0, 0, 24, 0, 2, 128, 20, 0, 2, 128, 8, 0, 1, 0, 255, 255, 255, 252, 6, 0, 2, 0, b'x', 0,
            0, 0,
        ],
    );
}

/// A batch with one of everything.
fn everything() -> Batch {
    let mut b = Batch::new();
    b.fresh_table(T, "a test");
    b.add_set(T, &Set::vmap("services", &SERVICE[..]));
    b.add_set(T, &Set::vmap("pick", &[Kind::Integer][..]));
    b.add_set(T, &Set::map("eps", &SERVICE[..], &[Kind::IpAddr, Kind::InetService][..]));
    b.add_set(
        T,
        &Set::map(
            "aff",
            &[Kind::IpAddr, Kind::IpAddr, Kind::InetProto, Kind::InetService][..],
            &[Kind::IpAddr, Kind::InetService][..],
        )
        .filled_by_rules(Duration::from_secs(10800), 65535),
    );
    b.add_set(T, &Set::plain("blocks", &[Kind::IpAddr][..]).with_intervals());
    b.add_set(T, &Set::plain("ports", &[Kind::IpAddr, Kind::InetProto, Kind::InetService][..]).with_intervals());
    for name in ["lb", "sel"] {
        b.add_chain(T, &Chain { name, hook: None });
    }
    let lb = Rule::new().with(Expr::Numgen { modulus: 3, dreg: 0 }).with(Expr::Lookup {
        set: "pick".into(),
        sreg: 0,
        dreg: None,
        verdict: true,
        invert: false,
    });
    b.add_rule(T, "lb", &lb);
    let eps = Expr::Lookup { set: "eps".into(), sreg: 0, dreg: Some(8), verdict: false, invert: false };
    let affinity = Rule::new()
        .load(&[
            Field::OriginalSaddr(Family::Ip),
            Field::OriginalDaddr(Family::Ip),
            Field::L4Proto,
            Field::OriginalDport,
            IP,
            Field::Dport,
        ])
        .with(Expr::Dynset {
            set: "aff".into(),
            op: DynsetOp::Update,
            key: 0,
            data: Some(4),
            timeout: Some(Duration::from_secs(60)),
        });
    b.add_rule(T, "sel", &affinity);
    let dnat = Rule::new().load(&FIELDS).with(eps).with(Expr::Nat {
        kind: NatKind::Destination,
        family: Family::Ip,
        addr: 8,
        port: Some(9),
    });
    b.add_rule(T, "sel", &dnat);
    let pre = Chain { name: "pre", hook: Some(Hook::new("nat", Hook::PREROUTING, -100)) };
    b.chain(
        T,
        &pre,
        &[
            Rule::new().vmap(&FIELDS, "services"),
            Rule::new()
                .fib_local(false)
                .not_in_loopback(Family::Ip)
                .in_set(&[Field::Saddr(Family::Ip)], "blocks", false)
                .verdict(Verdict::jump("lb")),
        ],
    );
    let post = Chain { name: "post", hook: Some(Hook::new("nat", Hook::POSTROUTING, 100)) };
    b.chain(
        T,
        &post,
        &[
            Rule::new().mark_has(0x4000, false).verdict(Verdict::Return),
            Rule::new().mark_set(0x4000, false),
            Rule::new().with(Expr::Masquerade { fully_random: true }).comment("to the world"),
        ],
    );
    let input = Chain { name: "in", hook: Some(Hook { drop: true, ..Hook::new("filter", Hook::INPUT, 0) }) };
    b.chain(
        T,
        &input,
        &[
            Rule::new().ct(CtKey::State, 8).with(Expr::Counter).with(Expr::Reject(Reject::PortUnreachable, Family::Ip)),
            Rule::new().eq(Field::L4Proto, Key::new().proto(6)).with(Expr::Reject(Reject::TcpReset, Family::Ip)),
            Rule::new().in_set(&FIELDS, "ports", true).verdict(Verdict::Drop),
            Rule::new().eq(Field::IifName, Key::new().ifname("lo")).verdict(Verdict::Accept),
        ],
    );
    let raw = Chain { name: "raw", hook: Some(Hook::new("filter", Hook::OUTPUT, -300)) };
    b.chain(T, &raw, &[Rule::new().with(Expr::Notrack)]);
    let redirect = Rule::new()
        .eq(Field::L4Proto, Key::new().proto(17))
        .with(Expr::Immediate { dreg: 0, data: Key::new().port(53) })
        .with(Expr::Redirect { port: 0 });
    b.chain(T, &Chain { name: "out", hook: Some(Hook::new("nat", Hook::OUTPUT, -100)) }, &[redirect]);
    b.add_elements(
        T,
        "services",
        &[Element::verdict(key("10.0.0.1", 6, 80), Verdict::goto("lb")).commented("default/web:http")],
    );
    b.add_elements(T, "pick", &[Element::verdict(Key::new().number(2), Verdict::goto("sel"))]);
    b.add_elements(T, "eps", &[Element::value(key("10.0.0.1", 6, 80), dest("10.1.0.5", 8080))]);
    b.add_elements(
        T,
        "blocks",
        &[Element::block("192.168.0.0/16".parse().unwrap()), Element::block("255.0.0.0/8".parse().unwrap())],
    );
    b.add_elements(T, "ports", &[Element::ranges(key("10.0.0.0", 6, 80), key("10.0.0.255", 6, 90))]);
    b
}

#[test]
fn the_kernel_takes_it_and_nft_prints_it() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    nft.apply(everything()).unwrap();
    let text = list(&ns);
    for want in [
        "table ip test",
        "comment \"a test\"",
        "type ipv4_addr . inet_proto . inet_service : verdict",
        "10.0.0.1 . tcp . 80 comment \"default/web:http\" : goto lb",
        "elements = { 2 : goto sel }",
        "10.0.0.1 . tcp . 80 : 10.1.0.5 . 8080",
        "numgen random mod 3 vmap @pick",
        "dnat ip to ip daddr . meta l4proto . th dport map @eps",
        "update @aff { ct original ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst timeout 1m : ip daddr . th dport }",
        "ip daddr . meta l4proto . th dport vmap @services",
        "fib daddr type local ip daddr != 127.0.0.0/8 ip saddr != @blocks jump lb",
        "192.168.0.0/16",
        "10.0.0.0/24 . tcp . 80-90",
        "meta mark & 0x00004000 == 0x00000000 return",
        "masquerade fully-random comment \"to the world\"",
        "ct state new counter packets 0 bytes 0 reject",
        "reject with tcp reset",
        "ip daddr . meta l4proto . th dport @ports drop",
        "iifname \"lo\" accept",
        "notrack",
        "redirect to :53",
        "type filter hook input priority filter; policy drop;",
        "type nat hook postrouting priority srcnat; policy accept;",
    ] {
        assert!(text.contains(want), "{want}\nis not in\n{text}");
    }
    let json = ns.run(|| Command::new("nft").args(["-j", "list", "ruleset"]).output().unwrap()).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["nftables"].as_array().unwrap().len() > 20);
}

#[test]
fn contents_are_read_back() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    assert_eq!(nft.contents(T).unwrap(), Contents::default());
    assert!(!nft.has_table(T).unwrap());
    let before = nft.generation().unwrap();
    nft.apply(everything()).unwrap();
    assert!(nft.has_table(T).unwrap());
    assert_ne!(nft.generation().unwrap(), before);
    let mut contents = nft.contents(T).unwrap();
    contents.sets.sort();
    contents.base_chains.sort();
    assert_eq!(contents.base_chains, ["in", "out", "post", "pre", "raw"]);
    assert_eq!(contents.chains, ["lb", "sel"]);
    assert_eq!(contents.sets, ["aff", "blocks", "eps", "pick", "ports", "services"]);
    let want = ReadElement {
        key: Key::from_bytes(&[10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]),
        value: Some(Key::from_bytes(&[10, 1, 0, 5, 31, 144, 0, 0])),
    };
    assert_eq!(nft.elements(T, "eps").unwrap(), [want]);
    assert!(nft.elements(T, "none").is_err());
}

#[test]
fn a_refused_batch_changes_nothing_and_says_why() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    let mut b = Batch::new();
    b.add_table(T, "");
    b.add_chain(T, &Chain { name: "a", hook: None });
    b.add_rule(T, "a", &Rule::new().verdict(Verdict::jump("nowhere")));
    let err = nft.apply(b).unwrap_err();
    assert!(err.is_not_found(), "{err}");
    assert!(err.to_string().contains("adding a rule to chain \"a\" (table Ip test): "), "{err}");
    assert!(!nft.has_table(T).unwrap());

    let mut b = Batch::new();
    b.delete_table(T);
    assert!(nft.apply(b).unwrap_err().is_not_found());

    let generation = nft.generation().unwrap();
    let mut b = Batch::new();
    b.only_at(generation);
    b.add_table(T, "");
    nft.apply(b).unwrap();
    let mut b = Batch::new();
    b.only_at(generation);
    b.delete_table(T);
    assert!(matches!(nft.apply(b), Err(Error::Outdated)));
}

#[test]
fn elements_are_replaced_and_deleted_in_one_batch() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    nft.apply(everything()).unwrap();
    let mut b = Batch::new();
    let old = Element::value(key("10.0.0.1", 6, 80), dest("10.1.0.5", 8080));
    b.delete_elements(T, "eps", [&old]);
    b.add_elements(T, "eps", [&Element::value(key("10.0.0.1", 6, 80), dest("10.1.0.6", 8080))]);
    // A chain may go in the batch that removes the last reference to it.
    b.delete_elements(T, "pick", [&Element::key(Key::new().number(2))]);
    b.flush_chain(T, "sel");
    b.delete_chain(T, "sel");
    b.flush_set(T, "blocks");
    nft.apply(b).unwrap();
    let text = list(&ns);
    assert!(text.contains("10.1.0.6 . 8080") && !text.contains("10.1.0.5") && !text.contains("192.168"), "{text}");
    assert!(!text.contains("chain sel"), "{text}");
}

#[test]
fn many_elements_are_split_over_messages() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    let elements: Vec<Element> = (0..20_000u32)
        .map(|n| Element::value(key(&format!("10.{}.{}.1", n >> 8, n & 255), 6, 80), dest("10.1.0.5", 8080)))
        .collect();
    let mut b = everything();
    b.flush_set(T, "eps");
    b.add_elements(T, "eps", &elements);
    nft.apply(b).unwrap();
    assert_eq!(nft.elements(T, "eps").unwrap().len(), 20_000);
    let mut b = Batch::new();
    b.delete_elements(T, "eps", &elements[..19_999]);
    nft.apply(b).unwrap();
    assert_eq!(nft.elements(T, "eps").unwrap().len(), 1);
    // Thousands of refusals do not drown the answer.
    let mut b = Batch::new();
    for element in &elements {
        b.delete_elements(T, "eps", [element]);
    }
    assert!(nft.apply(b).unwrap_err().is_not_found());
}

#[test]
fn ipv6_tables() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    let t = Table { family: Family::Ip6, name: "six" };
    let mut b = Batch::new();
    b.add_table(t, "");
    b.add_set(
        t,
        &Set::map(
            "eps",
            &[Kind::Ip6Addr, Kind::InetProto, Kind::InetService][..],
            &[Kind::Ip6Addr, Kind::InetService][..],
        ),
    );
    b.add_set(t, &Set::plain("blocks", &[Kind::Ip6Addr][..]).with_intervals());
    b.add_elements(t, "blocks", &[Element::block("fd00::/48".parse().unwrap())]);
    b.add_elements(t, "eps", &[Element::value(key("fd00::1", 17, 53), dest("fd00::2", 53))]);
    let pre = Chain { name: "pre", hook: Some(Hook::new("nat", Hook::PREROUTING, -100)) };
    let dnat = Rule::new()
        .not_in_loopback(Family::Ip6)
        .load(&[Field::Daddr(Family::Ip6), Field::L4Proto, Field::Dport])
        .with(Expr::Lookup { set: "eps".into(), sreg: 0, dreg: Some(8), verdict: false, invert: false })
        .with(Expr::Nat { kind: NatKind::Destination, family: Family::Ip6, addr: 8, port: Some(12) });
    b.chain(t, &pre, &[dnat]);
    let forward = Chain { name: "fwd", hook: Some(Hook::new("filter", Hook::FORWARD, 0)) };
    b.chain(t, &forward, &[Rule::new().with(Expr::Reject(Reject::PortUnreachable, Family::Ip6))]);
    nft.apply(b).unwrap();
    let text = list(&ns);
    for want in [
        "fd00::1 . udp . 53 : fd00::2 . 53",
        "fd00::/48",
        "ip6 daddr != ::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @eps",
        "reject",
    ] {
        assert!(text.contains(want), "{want}\nis not in\n{text}");
    }
}

#[test]
fn removed_tables_are_noticed() {
    let ns = NetNs::new().unwrap();
    let mut nft = Nft::open(&ns).unwrap();
    let tables = [T, Table { name: "other", ..T }];
    let mut sentinel = Sentinel::new(&ns, tables).unwrap();
    assert!(sentinel.disturbed().unwrap());
    let add = |nft: &mut Nft, table| {
        let mut b = Batch::new();
        b.add_table(table, "");
        nft.apply(b).unwrap();
    };
    add(&mut nft, tables[0]);
    add(&mut nft, tables[1]);
    assert!(!sentinel.disturbed().unwrap());
    add(&mut nft, Table { name: "foreign", ..T });
    assert!(!sentinel.disturbed().unwrap());
    ns.run(|| Command::new("nft").args(["flush", "ruleset"]).status().unwrap()).unwrap();
    assert!(sentinel.disturbed().unwrap());
    assert!(sentinel.disturbed().unwrap());
}
