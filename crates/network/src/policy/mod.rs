//! NetworkPolicy: which traffic of this node's pods passes.
//!
//! Only pods are guarded: traffic between a node and its own pods always passes, as Kubernetes wants it.

mod decide;
mod objects;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

pub use decide::{Model, World};
use decide::{Pass, SetKind, SetModel, Way, decide};
pub use objects::{Allow, Namespace, Peer, Pod, Policy, PolicyError, Port};
pub use run::run;

use crate::addr::Protocol;
use crate::netns::NetNs;
use crate::nft::{self, Batch, Chain, CtKey, Element, Family, Field, Hook, Key, Kind, Nft, Rule, Set, Table, Verdict};

const TABLES: [Table; 2] =
    [Table { family: Family::Ip, name: "pintle-policy" }, Table { family: Family::Ip6, name: "pintle-policy" }];
const INGRESS: &str = "ingress-isolated";
const EGRESS: &str = "egress-isolated";
const ITSELF: &str = "itself";
const DNS: &str = "cluster-dns";
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// What went wrong with policies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] nft::Error),
    /// The kernel could not be asked.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The rules of policies on one node.
#[derive(Debug)]
pub struct Guard {
    nft: Nft,
    dns: Vec<IpAddr>,
    /// What is installed, by family; absent when nothing is known about it.
    installed: [Option<Model>; 2],
}

impl Guard {
    /// A guard that has done nothing yet. `dns` are cluster addresses this node answers itself: the only traffic to the
    /// node that egress rules are about.
    ///
    /// # Errors
    /// When the kernel offers no nftables.
    pub fn new(ns: &NetNs, dns: Vec<IpAddr>) -> io::Result<Self> {
        Ok(Self { nft: Nft::open(ns)?, dns, installed: [None, None] })
    }

    /// The rules are not what they were: the next `sync` writes all of them.
    pub fn write_anew(&mut self) {
        self.installed = [None, None];
    }

    /// Brings the rules to what the objects say.
    ///
    /// # Errors
    /// When the kernel refuses; the next call writes everything anew.
    pub fn sync(&mut self, world: &World<'_>) -> Result<(), Error> {
        for (at, table) in TABLES.into_iter().enumerate() {
            let wanted = decide(world, table.family);
            let change = match &self.installed[at] {
                Some(before) => difference(table, before, &wanted),
                None => {
                    let mut batch = Batch::new();
                    skeleton(&mut batch, table, &self.dns);
                    add(&mut batch, table, &Model::default(), &wanted);
                    batch
                }
            };
            match self.nft.apply(change) {
                Ok(()) => {}
                Err(err) if self.installed[at].is_some() => {
                    tracing::warn!(%err, "the rules of policies are not as they were left; writing all of them anew");
                    self.installed[at] = None;
                    let mut batch = Batch::new();
                    skeleton(&mut batch, table, &self.dns);
                    add(&mut batch, table, &Model::default(), &wanted);
                    self.nft.apply(batch)?;
                }
                Err(err) => return Err(err.into()),
            }
            self.installed[at] = Some(wanted);
        }
        Ok(())
    }
}

fn difference(table: Table, before: &Model, wanted: &Model) -> Batch {
    let mut batch = Batch::new();
    add(&mut batch, table, before, wanted);
    remove(&mut batch, table, before, wanted);
    batch
}

fn elements<'s>(set: &'s SetModel, but: Option<&'s SetModel>) -> Vec<Element> {
    let element = |(key, end): &(Key, Option<Key>)| match (end, set.kind) {
        (None, _) => Element::key(key.clone()),
        (Some(end), SetKind::Ports) => Element::ranges(key.clone(), end.clone()),
        (Some(end), _) => Element::range(key.clone(), end.clone()),
    };
    set.elements.iter().filter(|e| but.is_none_or(|but| !but.elements.contains(*e))).map(element).collect()
}

/// What is new, in an order in which everything is there before it is used.
fn add(batch: &mut Batch, table: Table, before: &Model, wanted: &Model) {
    for (name, set) in &wanted.sets {
        let old = before.sets.get(name);
        if old.is_none() {
            batch.add_set(table, &definition(table, name, set.kind));
        }
        batch.add_elements(table, name, &elements(set, old));
    }
    for (name, (way, passes)) in &wanted.chains {
        if !before.chains.contains_key(name) {
            let mut rules: Vec<Rule> = passes.iter().map(|pass| rule(table.family, *way, pass)).collect();
            rules.push(Rule::new().verdict(Verdict::Drop));
            batch.chain(table, &Chain { name, hook: None }, &rules);
        }
    }
    for ((way, ip), chain) in &wanted.isolated {
        let old = before.isolated.get(&(*way, *ip));
        if old == Some(chain) {
            continue;
        }
        let map = if *way == Way::In { INGRESS } else { EGRESS };
        if old.is_some() {
            batch.delete_elements(table, map, [&Element::key(Key::new().ip(*ip))]);
        }
        batch.add_elements(table, map, [&Element::verdict(Key::new().ip(*ip), Verdict::jump(chain.clone()))]);
    }
    let (old, new) = (own_addresses(before), own_addresses(wanted));
    let own = |ip: &IpAddr| Element::key(Key::new().ip(*ip).ip(*ip));
    batch.add_elements(table, ITSELF, &new.keys().filter(|ip| !old.contains_key(*ip)).map(own).collect::<Vec<_>>());
    batch.delete_elements(table, ITSELF, &old.keys().filter(|ip| !new.contains_key(*ip)).map(own).collect::<Vec<_>>());
}

/// What is no longer wanted, after nothing uses it any more.
fn remove(batch: &mut Batch, table: Table, before: &Model, wanted: &Model) {
    for (way, ip) in before.isolated.keys().filter(|at| !wanted.isolated.contains_key(at)) {
        let map = if *way == Way::In { INGRESS } else { EGRESS };
        batch.delete_elements(table, map, [&Element::key(Key::new().ip(*ip))]);
    }
    for name in before.chains.keys().filter(|name| !wanted.chains.contains_key(*name)) {
        batch.delete_chain(table, name);
    }
    for (name, set) in &before.sets {
        match wanted.sets.get(name) {
            None => batch.delete_set(table, name),
            Some(now) => batch.delete_elements(table, name, &elements(set, Some(now))),
        }
    }
}

fn own_addresses(model: &Model) -> BTreeMap<IpAddr, ()> {
    model.isolated.keys().map(|(_, ip)| (*ip, ())).collect()
}

fn definition<'n>(table: Table, name: &'n str, kind: SetKind) -> Set<'n> {
    let addr = table.family.addr();
    match kind {
        SetKind::Ips => Set::plain(name, vec![addr]),
        SetKind::Blocks => Set::plain(name, vec![addr]).with_intervals(),
        SetKind::Ports => Set::plain(name, vec![Kind::InetProto, Kind::InetService]).with_intervals(),
        SetKind::Named => Set::plain(name, vec![addr, Kind::InetProto, Kind::InetService]),
    }
}

/// A rule that lets one thing pass: back to the chain that asked.
fn rule(family: Family, way: Way, pass: &Pass) -> Rule {
    let other_end = if way == Way::In { Field::Saddr(family) } else { Field::Daddr(family) };
    let mut rule = Rule::new();
    if let Some(set) = &pass.peer {
        rule = rule.in_set(&[other_end], set.clone(), true);
    }
    if let Some(set) = &pass.ports {
        rule = rule.in_set(&[Field::L4Proto, Field::Dport], set.clone(), true);
    }
    if let Some(set) = &pass.named {
        rule = rule.in_set(&[Field::Daddr(family), Field::L4Proto, Field::Dport], set.clone(), true);
    }
    rule.verdict(Verdict::Return)
}

/// What is there without any policy.
fn skeleton(batch: &mut Batch, table: Table, dns: &[IpAddr]) {
    let family = table.family;
    let addr = family.addr();
    let (saddr, daddr) = (Field::Saddr(family), Field::Daddr(family));
    batch.fresh_table(table, "Pintle: NetworkPolicy");
    batch.add_set(table, &Set::vmap(INGRESS, vec![addr]));
    batch.add_set(table, &Set::vmap(EGRESS, vec![addr]));
    batch.add_set(table, &Set::plain(ITSELF, vec![addr, addr]));
    batch.add_set(table, &Set::plain(DNS, vec![addr, Kind::InetProto, Kind::InetService]));
    let mut served = Vec::new();
    for ip in dns.iter().filter(|ip| Family::of(**ip) == family) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            served.push(Element::key(Key::new().ip(*ip).proto(protocol.number()).port(53)));
        }
    }
    batch.add_elements(table, DNS, &served);
    let forward = [
        Rule::new().ct(CtKey::State, ESTABLISHED_OR_RELATED).verdict(Verdict::Accept),
        Rule::new().in_set(&[saddr, daddr], ITSELF, true).verdict(Verdict::Accept),
        Rule::new().vmap(&[saddr], EGRESS),
        Rule::new().vmap(&[daddr], INGRESS),
    ];
    batch.chain(table, &Chain { name: "filter-forward", hook: Some(Hook::new("filter", Hook::FORWARD, 0)) }, &forward);
    let input = [Rule::new().in_set(&[daddr, Field::L4Proto, Field::Dport], DNS, true).vmap(&[saddr], EGRESS)];
    batch.chain(table, &Chain { name: "filter-input", hook: Some(Hook::new("filter", Hook::INPUT, 0)) }, &input);
}

/// Removes every rule of policies.
///
/// # Errors
/// When the kernel refuses.
pub fn cleanup(ns: &NetNs) -> Result<(), Error> {
    let mut nft = Nft::open(ns)?;
    for table in TABLES {
        crate::delete_table(&mut nft, table)?;
    }
    Ok(())
}
