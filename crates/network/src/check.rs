//! What the network needs of the kernel, and how to leave no trace.

use std::path::Path;

use crate::links::Links;
use crate::netns::NetNs;
use crate::nft::{Batch, Chain, Expr, Family, Field, Hook, Kind, NatKind, Nft, Rule, Set, Table};
use crate::{dns, podnet, policy, proxy};

/// The tables tried, in a namespace made for it.
const TRIAL: [Table; 2] =
    [Table { family: Family::Ip, name: "pintle-trial" }, Table { family: Family::Ip6, name: "pintle-trial" }];

/// Tries, in a namespace of its own, everything the network needs. Each entry names one thing that is missing and what to
/// do about it; none means all is there.
pub async fn preflight() -> Vec<String> {
    let ns = match NetNs::new() {
        Ok(ns) => ns,
        Err(err) => {
            return vec![format!(
                "network namespaces cannot be made ({err}): run as root, with CONFIG_NET_NS in the kernel"
            )];
        }
    };
    let mut missing = Vec::new();
    for table in TRIAL {
        let tried = Nft::open(&ns).map_err(crate::nft::Error::from).and_then(|mut nft| nft.apply(trial(table)));
        if let Err(err) = tried {
            missing.push(format!(
                "nftables for {:?} does not work ({err}): load nf_tables, nft_nat, nft_masq, nft_numgen, nft_ct, nft_fib, nft_reject",
                table.family
            ));
        }
    }
    let forward = ns.run(|| {
        ["ipv4/ip_forward", "ipv4/conf/all/rp_filter"].into_iter().find_map(|path| {
            let value = crate::sysctl::get(path);
            value.and_then(|value| std::fs::write(format!("/proc/sys/net/{path}"), value)).err().map(|err| (path, err))
        })
    });
    match forward {
        Ok(None) => {}
        Ok(Some((path, err))) => {
            missing.push(format!("/proc/sys/net/{path} cannot be written ({err}): mount /proc writable"))
        }
        Err(err) => missing.push(format!("a new network namespace cannot be entered: {err}")),
    }
    if let Err(err) = try_veth(&ns).await {
        missing.push(format!("virtual Ethernet pairs cannot be made ({err}): load veth (CONFIG_VETH)"));
    }
    missing
}

/// What on the node is in the way of pods though nothing is missing: firewalls that drop what they do not know.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn hindrances(ns: &NetNs) -> std::io::Result<Vec<String>> {
    let chains = Nft::open(ns)?.dropping_chains()?;
    let text = |(hook, table, chain): (u32, String, String)| match hook {
        Hook::FORWARD => Some(format!(
            "chain {chain} of table {table} drops forwarded packets that no rule of it accepts: pods may reach nothing \
             beyond their node until it accepts them"
        )),
        Hook::INPUT => Some(format!(
            "chain {chain} of table {table} drops packets to this node that no rule of it accepts: pods may not reach \
             cluster DNS and the API until it accepts them"
        )),
        _ => None,
    };
    Ok(chains.into_iter().filter_map(text).collect())
}

/// One rule of every kind in use.
fn trial(table: Table) -> Batch {
    let family = table.family;
    let mut batch = Batch::new();
    batch.add_table(table, "");
    batch.add_set(
        table,
        &Set::map(
            "eps",
            vec![family.addr(), Kind::InetProto, Kind::InetService],
            vec![family.addr(), Kind::InetService],
        ),
    );
    let found = Expr::Lookup { set: "eps".into(), sreg: 0, dreg: Some(8), verdict: false, invert: false };
    let port = if family == Family::Ip6 { 12 } else { 9 };
    let nat = |point, rules: &[Rule], batch: &mut Batch| {
        batch.chain(
            table,
            &Chain {
                name: if point == Hook::PREROUTING { "pre" } else { "post" },
                hook: Some(Hook::new("nat", point, 0)),
            },
            rules,
        );
    };
    let dnat = Rule::new()
        .fib_local(false)
        .with(Expr::Numgen { modulus: 2, dreg: 0 })
        .load(&[Field::Daddr(family), Field::L4Proto, Field::Dport])
        .with(found)
        .with(Expr::Nat { kind: NatKind::Destination, family, addr: 8, port: Some(port) });
    nat(Hook::PREROUTING, &[dnat], &mut batch);
    nat(Hook::POSTROUTING, &[Rule::new().with(Expr::Masquerade { fully_random: true })], &mut batch);
    let reject =
        Rule::new().ct(crate::nft::CtKey::State, 8).with(Expr::Reject(crate::nft::Reject::PortUnreachable, family));
    batch.chain(table, &Chain { name: "in", hook: Some(Hook::new("filter", Hook::INPUT, 0)) }, &[reject]);
    batch
}

async fn try_veth(ns: &NetNs) -> Result<(), String> {
    let peer = NetNs::new().map_err(|err| err.to_string())?;
    let Some(peer_ns) = peer.fd() else { return Ok(()) };
    let links = Links::open(ns).map_err(|err| err.to_string())?;
    let pair = crate::links::VethPair {
        name: "trial",
        mac: [0x0a, 0x58, 0, 0, 0, 1],
        peer: "eth0",
        peer_mac: [0x0a, 0x58, 0, 0, 0, 2],
        peer_index: 2,
        peer_ns,
        mtu: 1400,
        alias: "",
    };
    links.add_veth(&pair).await.map_err(|err| err.to_string())
}

/// Removes every rule, link, route and record the network made on a node. Whatever can be removed is; what cannot is told.
pub async fn cleanup_all(ns: &NetNs, state_dir: &Path) -> Vec<String> {
    let mut failed = Vec::new();
    if let Err(err) = proxy::cleanup(ns) {
        failed.push(format!("removing the proxy's rules: {err}"));
    }
    if let Err(err) = policy::cleanup(ns) {
        failed.push(format!("removing the rules of policies: {err}"));
    }
    if let Err(err) = dns::cleanup(ns).await {
        failed.push(format!("removing the DNS addresses: {err}"));
    }
    if let Err(err) = podnet::cleanup(ns, state_dir).await {
        failed.push(format!("removing the pod network: {err}"));
    }
    failed
}
