//! What the policies mean on this node: a pure function from the objects to sets, chains and the pods they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pintle_api::selector::Selector;
use sha2::{Digest, Sha256};

use super::objects::{Allow, Namespace, Peer, Pod, Policy, Port};
use crate::addr::{Net, Protocol};
use crate::nft::{Family, Key};

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Addresses.
    Ips,
    /// Ranges of addresses.
    Blocks,
    /// A protocol and a range of ports.
    Ports,
    /// An address, protocol and port: what a port's name stands for, pod by pod.
    Named,
}

/// A set: its first and, for ranges, last keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetModel {
    /// What it holds.
    pub kind: SetKind,
    /// Its elements.
    pub elements: BTreeSet<(Key, Option<Key>)>,
}

/// One thing that is allowed: the other end is in a set, if one is given, and so is the port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pass {
    /// The set of the other end.
    pub peer: Option<String>,
    /// The set of ports.
    pub ports: Option<String>,
    /// The set of what port names stand for.
    pub named: Option<String>,
}

/// Which way traffic goes, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// To the pod.
    In,
    /// From the pod.
    Out,
}

/// The rules of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    /// Sets by name. A set's name tells what it is for; its elements may change.
    pub sets: BTreeMap<String, SetModel>,
    /// Chains by name. A chain's name tells what is in it; it never changes.
    pub chains: BTreeMap<String, (Way, Vec<Pass>)>,
    /// The chain of each isolated address of this node.
    pub isolated: BTreeMap<(Way, IpAddr), String>,
}

/// Everything the decision depends on.
#[derive(Debug, Default)]
pub struct World<'w> {
    /// The name of this node.
    pub node: &'w str,
    /// All policies.
    pub policies: Vec<&'w Policy>,
    /// All pods.
    pub pods: Vec<&'w Pod>,
    /// All namespaces.
    pub namespaces: BTreeMap<&'w str, &'w Namespace>,
}

fn named(prefix: &str, text: &str) -> String {
    format!("{prefix}-{}", hex::encode(&Sha256::digest(text)[..8]))
}

/// Decides for one family.
#[must_use]
pub fn decide(world: &World<'_>, family: Family) -> Model {
    let mut model = Model::default();
    if world.policies.is_empty() {
        return model;
    }
    for pod in world.pods.iter().filter(|pod| pod.node == world.node) {
        let ips: Vec<IpAddr> = pod.ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        if ips.is_empty() {
            continue;
        }
        let about: Vec<&&Policy> = world
            .policies
            .iter()
            .filter(|policy| policy.name.namespace == pod.name.namespace && policy.pods.matches_map(Some(&pod.labels)))
            .collect();
        for way in [Way::In, Way::Out] {
            let allows: Vec<(&str, &Vec<Allow>)> = about
                .iter()
                .filter_map(|policy| {
                    let allows = if way == Way::In { &policy.ingress } else { &policy.egress };
                    Some((policy.name.namespace.as_str(), allows.as_ref()?))
                })
                .collect();
            if allows.is_empty() {
                continue;
            }
            let mut passes: Vec<Pass> = Vec::new();
            for (namespace, allow) in allows.iter().flat_map(|(ns, list)| list.iter().map(move |allow| (*ns, allow))) {
                for pass in passes_of(&mut model, world, namespace, allow, family) {
                    if !passes.contains(&pass) {
                        passes.push(pass);
                    }
                }
            }
            let prefix = if way == Way::In { "in" } else { "out" };
            let name = named(prefix, &format!("{passes:?}"));
            model.chains.entry(name.clone()).or_insert((way, passes));
            for ip in &ips {
                model.isolated.insert((way, *ip), name.clone());
            }
        }
    }
    model
}

fn passes_of(model: &mut Model, world: &World<'_>, namespace: &str, allow: &Allow, family: Family) -> Vec<Pass> {
    let peers: Vec<Option<String>> = if allow.peers.is_empty() {
        vec![None]
    } else {
        allow.peers.iter().filter_map(|peer| peer_set(model, world, namespace, peer, family)).map(Some).collect()
    };
    let mut out = Vec::new();
    let ranges: Vec<(Protocol, u16, u16)> = allow
        .ports
        .iter()
        .filter_map(|p| if let Port::Range(proto, a, b) = p { Some((*proto, *a, *b)) } else { None })
        .collect();
    let names: Vec<(Protocol, &str)> = allow
        .ports
        .iter()
        .filter_map(|p| if let Port::Named(proto, name) = p { Some((*proto, name.as_str())) } else { None })
        .collect();
    for peer in peers {
        if allow.ports.is_empty() {
            out.push(Pass { peer: peer.clone(), ports: None, named: None });
        }
        if !ranges.is_empty() {
            out.push(Pass { peer: peer.clone(), ports: Some(port_set(model, &ranges)), named: None });
        }
        for (protocol, name) in &names {
            let set = named_set(model, world, *protocol, name, family);
            out.push(Pass { peer: peer.clone(), ports: None, named: Some(set) });
        }
    }
    out
}

/// The set of a peer; `None` when it can match nothing of this family.
fn peer_set(model: &mut Model, world: &World<'_>, namespace: &str, peer: &Peer, family: Family) -> Option<String> {
    match peer {
        Peer::Block(net, except) => {
            if Family::of(net.first()) != family {
                return None;
            }
            let ranges = without(*net, except);
            let name = named("block", &format!("{ranges:?}"));
            let elements = ranges.into_iter().map(|(a, b)| (Key::new().ip(a), Some(Key::new().ip(b)))).collect();
            model.sets.entry(name.clone()).or_insert(SetModel { kind: SetKind::Blocks, elements });
            Some(name)
        }
        Peer::Pods(namespaces, pods) => {
            let place = match namespaces {
                Some(selector) => format!("namespaces {selector}"),
                None => format!("namespace {namespace}"),
            };
            let name = named("pods", &format!("{place} pods {pods}"));
            if !model.sets.contains_key(&name) {
                let inside = |pod: &Pod| match namespaces {
                    None => pod.name.namespace == namespace,
                    Some(selector) => selects_namespace(selector, world, &pod.name.namespace),
                };
                let matching = world.pods.iter().filter(|pod| inside(pod) && pods.matches_map(Some(&pod.labels)));
                let ips = matching.flat_map(|pod| &pod.ips).filter(|ip| Family::of(**ip) == family);
                let elements = ips.map(|ip| (Key::new().ip(*ip), None)).collect();
                model.sets.insert(name.clone(), SetModel { kind: SetKind::Ips, elements });
            }
            Some(name)
        }
    }
}

fn selects_namespace(selector: &Selector, world: &World<'_>, namespace: &str) -> bool {
    world.namespaces.get(namespace).is_some_and(|found| selector.matches_map(Some(&found.labels)))
}

/// Ports as disjoint ranges: the kernel refuses overlapping ones.
fn port_set(model: &mut Model, ranges: &[(Protocol, u16, u16)]) -> String {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut merged: Vec<(Protocol, u16, u16)> = Vec::new();
    for (protocol, first, last) in sorted {
        match merged.last_mut() {
            Some((p, _, end)) if *p == protocol && u32::from(first) <= u32::from(*end) + 1 => *end = (*end).max(last),
            _ => merged.push((protocol, first, last)),
        }
    }
    let name = named("ports", &format!("{merged:?}"));
    let key = |protocol: Protocol, port| Key::new().proto(protocol.number()).port(port);
    let elements = merged.into_iter().map(|(p, a, b)| (key(p, a), Some(key(p, b)))).collect();
    model.sets.entry(name.clone()).or_insert(SetModel { kind: SetKind::Ports, elements });
    name
}

/// What a port name stands for on every pod. The pod at the receiving end decides, whoever it is.
fn named_set(model: &mut Model, world: &World<'_>, protocol: Protocol, port: &str, family: Family) -> String {
    let name = named("named", &format!("{protocol} {port}"));
    if !model.sets.contains_key(&name) {
        let mut elements = BTreeSet::new();
        for pod in &world.pods {
            for (_, _, number) in pod.ports.iter().filter(|(n, p, _)| n == port && *p == protocol) {
                for ip in pod.ips.iter().filter(|ip| Family::of(**ip) == family) {
                    elements.insert((Key::new().ip(*ip).proto(protocol.number()).port(*number), None));
                }
            }
        }
        model.sets.insert(name.clone(), SetModel { kind: SetKind::Named, elements });
    }
    name
}

/// A block without others, as ranges.
fn without(net: Net, except: &[Net]) -> Vec<(IpAddr, IpAddr)> {
    let mut holes: Vec<(u128, u128)> =
        except.iter().filter_map(|hole| Some((net.index_of(hole.first())?, net.index_of(hole.last())?))).collect();
    holes.sort_unstable();
    let mut out = Vec::new();
    let mut from = Some(0);
    let end = net.index_of(net.last()).unwrap_or(0);
    for (first, last) in holes {
        let Some(at) = from else { break };
        if first > at {
            out.extend(net.nth(at).zip(net.nth(first - 1)));
        }
        from = (last < end).then(|| (last + 1).max(at));
    }
    if let Some(at) = from {
        out.extend(net.nth(at).zip(net.nth(end)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_with_holes() {
        for (net, except, want) in [
            ("10.0.0.0/24", &[][..], &["10.0.0.0-10.0.0.255"][..]),
            ("10.0.0.0/24", &["10.0.0.0/25"], &["10.0.0.128-10.0.0.255"]),
            ("10.0.0.0/24", &["10.0.0.128/25"], &["10.0.0.0-10.0.0.127"]),
            (
                "10.0.0.0/24",
                &["10.0.0.16/28", "10.0.0.64/26", "10.0.0.16/30"],
                &["10.0.0.0-10.0.0.15", "10.0.0.32-10.0.0.63", "10.0.0.128-10.0.0.255"],
            ),
            ("10.0.0.0/24", &["10.0.0.0/24"], &[]),
            ("10.0.0.0/24", &["10.1.0.0/24"], &["10.0.0.0-10.0.0.255"]),
            ("fd00::/64", &["fd00::1/128"], &["fd00::-fd00::", "fd00::2-fd00::ffff:ffff:ffff:ffff"]),
        ] {
            let except: Vec<Net> = except.iter().map(|text| text.parse().unwrap()).collect();
            let got: Vec<String> =
                without(net.parse().unwrap(), &except).iter().map(|(a, b)| format!("{a}-{b}")).collect();
            assert_eq!(got, want, "{net} {except:?}");
        }
    }

    #[test]
    fn ports_are_merged() {
        let mut model = Model::default();
        let (t, u) = (Protocol::Tcp, Protocol::Udp);
        let a = port_set(&mut model, &[(t, 80, 80), (t, 70, 90), (t, 91, 91), (u, 80, 80), (t, 0, 10)]);
        let b = port_set(&mut model, &[(u, 80, 80), (t, 0, 10), (t, 70, 91)]);
        assert_eq!(a, b);
        assert_eq!(model.sets[&a].elements.len(), 3);
    }
}
