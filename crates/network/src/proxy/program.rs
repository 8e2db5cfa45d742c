//! Brings the rules of one family from what is installed to what was decided, in one batch the size of the change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::decide::{Decision, Front, Refuse, Target};
use super::layout::{self, NodePortAddresses, Pool, SetId, Shared};
use crate::addr::Net;
use crate::nft::{self, Batch, Element, Family, Key, Nft, Table, Verdict};
use crate::views::Name;

/// Sets whose entries are shared by Services, and stay while any needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    ClusterIp(IpAddr),
    Hairpin(IpAddr),
}

impl Counted {
    fn element(self) -> (&'static str, Element) {
        match self {
            Self::ClusterIp(ip) => (layout::CLUSTER_IPS, Element::key(Key::new().ip(ip))),
            Self::Hairpin(ip) => (layout::HAIRPIN, Element::key(Key::new().ip(ip).ip(ip))),
        }
    }
}

/// What a Service has installed.
#[derive(Debug, Default)]
struct Installed {
    fronts: Vec<Front>,
    counted: Vec<Counted>,
}

/// A frontend: who has it, and who would like to.
#[derive(Debug)]
struct Held {
    owner: Name,
    target: Target,
    text: Arc<str>,
    /// Other Services that claim the same address and port, in order of their claims.
    waiting: Vec<(Name, Target, Arc<str>)>,
}

/// The rules of one family.
#[derive(Debug)]
pub struct Program {
    table: Table,
    addresses: NodePortAddresses,
    pods: Vec<Net>,
    node_ips: Vec<IpAddr>,
    services: HashMap<Name, Installed>,
    fronts: HashMap<Front, Held>,
    counted: HashMap<Counted, u32>,
    chains: HashMap<Shared, u32>,
    /// How many places each pool has.
    slots: HashMap<Pool, u32>,
}

/// A change under construction: elements by set, in the order they are sent.
#[derive(Default)]
struct Change {
    delete: BTreeMap<SetId, HashMap<Key, Element>>,
    add: BTreeMap<SetId, HashMap<Key, Element>>,
    /// Chains whose count changed, with what it was before.
    chains: HashMap<Shared, u32>,
    /// Pools that grew, with the places they had before.
    slots_before: HashMap<Pool, u32>,
    aftermath: Aftermath,
    /// Whether the change is not for the kernel, so that its elements need not be told.
    only_noted: bool,
}

impl Change {
    fn add(&mut self, set: SetId, element: Element) {
        self.add.entry(set).or_default().insert(element.key.clone(), element);
    }

    fn delete(&mut self, set: SetId, element: Element) {
        // What was only added in this change is not in the kernel yet.
        if self.add.get_mut(&set).and_then(|list| list.remove(&element.key)).is_none() {
            self.delete.entry(set).or_default().insert(element.key.clone(), element);
        }
    }
}

/// What is left to do after a change was applied.
#[derive(Debug, Default, Clone)]
pub struct Aftermath {
    /// Frontends that are new, gone or lead elsewhere now.
    pub moved: HashSet<Front>,
    /// Whether clients may be remembered for an endpoint they must not use any more.
    pub stale_clients: bool,
}

impl Program {
    /// Nothing installed yet; `resync` must come first.
    pub fn new(family: Family, addresses: NodePortAddresses) -> Self {
        let table = if family == Family::Ip6 { layout::TABLES[1] } else { layout::TABLES[0] };
        Self {
            table,
            addresses,
            pods: Vec::new(),
            node_ips: Vec::new(),
            services: HashMap::new(),
            fronts: HashMap::new(),
            counted: HashMap::new(),
            chains: HashMap::new(),
            slots: HashMap::new(),
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.table.family
    }

    /// Where calls of a frontend go.
    pub fn target(&self, front: &Front) -> Option<&Target> {
        self.fronts.get(front).map(|held| &held.target)
    }

    /// Applies what was decided for some Services.
    ///
    /// # Errors
    /// When the kernel refuses; `resync` then brings the rules to what is wanted.
    pub fn apply(
        &mut self,
        nft: &mut Nft,
        decisions: impl IntoIterator<Item = (Name, Decision)>,
    ) -> Result<Aftermath, nft::Error> {
        let mut change = Change::default();
        for (name, decision) in decisions {
            self.decide(&mut change, name, decision);
        }
        let aftermath = std::mem::take(&mut change.aftermath);
        nft.apply(self.batch(change))?;
        Ok(aftermath)
    }

    /// Takes note of what was decided without telling the kernel; `resync` does.
    pub fn load(&mut self, decisions: impl IntoIterator<Item = (Name, Decision)>) -> Aftermath {
        let mut change = Change { only_noted: true, ..Change::default() };
        for (name, decision) in decisions {
            self.decide(&mut change, name, decision);
        }
        self.chains.retain(|_, count| *count > 0);
        change.aftermath
    }

    fn decide(&mut self, change: &mut Change, name: Name, decision: Decision) {
        let before = self.services.remove(&name).unwrap_or_default();
        let wanted: HashSet<Front> = decision.fronts.iter().map(|(front, ..)| *front).collect();
        for front in before.fronts.iter().filter(|front| !wanted.contains(front)) {
            self.release(change, *front, &name);
        }
        let after = Installed {
            fronts: wanted.into_iter().collect(),
            counted: decision
                .cluster_ips
                .iter()
                .map(|ip| Counted::ClusterIp(*ip))
                .chain(decision.near.iter().map(|ip| Counted::Hairpin(*ip)))
                .collect(),
        };
        for (front, target, text) in decision.fronts {
            self.claim(change, front, &name, target, text);
        }
        for counted in &after.counted {
            let count = self.counted.entry(*counted).or_default();
            *count += 1;
            if *count == 1 {
                let (set, element) = counted.element();
                change.add(SetId::Fixed(set), element);
            }
        }
        for counted in &before.counted {
            if let Some(count) = self.counted.get_mut(counted) {
                *count -= 1;
                if *count == 0 {
                    self.counted.remove(counted);
                    let (set, element) = counted.element();
                    change.delete(SetId::Fixed(set), element);
                }
            }
        }
        if !after.fronts.is_empty() || !after.counted.is_empty() {
            self.services.insert(name, after);
        }
    }

    fn claim(&mut self, change: &mut Change, front: Front, name: &Name, target: Target, text: Arc<str>) {
        if let Some(held) = self.fronts.get_mut(&front) {
            if held.owner != *name {
                held.waiting.retain(|(other, ..)| other != name);
                tracing::warn!(?front, owner = %held.owner, claimant = %name, "two Services claim one address and port; the first keeps it");
                held.waiting.push((name.clone(), target, text));
                return;
            }
            if held.target == target && held.text == text {
                return;
            }
            let old = std::mem::replace(&mut held.target, target.clone());
            let old_text = std::mem::replace(&mut held.text, text.clone());
            self.replace(change, front, Some((&old, &old_text)), Some((&target, &text)));
            return;
        }
        self.replace(change, front, None, Some((&target, &text)));
        self.fronts.insert(front, Held { owner: name.clone(), target, text, waiting: Vec::new() });
    }

    fn release(&mut self, change: &mut Change, front: Front, name: &Name) {
        let Some(mut held) = self.fronts.remove(&front) else { return };
        if held.owner != *name {
            held.waiting.retain(|(other, ..)| other != name);
            self.fronts.insert(front, held);
            return;
        }
        if held.waiting.is_empty() {
            self.replace(change, front, Some((&held.target, &held.text)), None);
            return;
        }
        let (owner, target, text) = held.waiting.remove(0);
        self.replace(change, front, Some((&held.target, &held.text)), Some((&target, &text)));
        self.fronts.insert(front, Held { owner, target, text, waiting: held.waiting });
    }

    /// Replaces the elements of a frontend, leaving those that stay the same.
    fn replace(
        &mut self,
        change: &mut Change,
        front: Front,
        old: Option<(&Target, &Arc<str>)>,
        new: Option<(&Target, &Arc<str>)>,
    ) {
        change.aftermath.moved.insert(front);
        change.aftermath.stale_clients |= old.is_some_and(|(target, _)| target.affinity.is_some());
        if let Some((target, _)) = new {
            for chain in chains(front, target) {
                self.count_chain(change, chain, true);
            }
            for (pool, list) in pools(front, target) {
                let have = self.slots.entry(pool).or_default();
                if count(list) > *have {
                    change.slots_before.entry(pool).or_insert(*have);
                    *have = count(list);
                }
            }
        }
        for chain in old.iter().flat_map(|(target, _)| chains(front, target)) {
            self.count_chain(change, chain, false);
        }
        if change.only_noted {
            return;
        }
        let gather = |side: Option<(&Target, &Arc<str>)>| {
            let mut found = Elements::new();
            if let Some((target, text)) = side {
                elements(front, target, text, |set, element| {
                    found.insert((set, element.key.clone()), element);
                });
            }
            found
        };
        let (before, after) = (gather(old), gather(new));
        for (at, element) in &before {
            if after.get(at) != Some(element) {
                change.delete(at.0, element.clone());
            }
        }
        for (at, element) in after {
            if before.get(&at) != Some(&element) {
                change.add(at.0, element);
            }
        }
    }

    fn count_chain(&mut self, change: &mut Change, chain: Shared, up: bool) {
        for needed in chain.needs() {
            self.count_chain(change, needed, up);
        }
        let count = self.chains.entry(chain.clone()).or_default();
        change.chains.entry(chain).or_insert(*count);
        if up {
            *count += 1;
        } else {
            *count = count.saturating_sub(1);
        }
    }

    fn batch(&mut self, change: Change) -> Batch {
        let mut batch = Batch::new();
        let table = self.table;
        for (pool, have) in change.slots_before {
            layout::add_slots(&mut batch, table, pool, have, self.slots[&pool]);
        }
        let now = |chain: &Shared| self.chains.get(chain).copied().unwrap_or(0);
        let mut changed: Vec<(&Shared, u32)> = change.chains.iter().map(|(chain, before)| (chain, *before)).collect();
        // Chains that go to others come after them; they are named after them too.
        changed.sort_by_key(|(chain, _)| (*chain).clone());
        for (chain, before) in &changed {
            if *before == 0 && now(chain) > 0 {
                chain.add(&mut batch, table);
            }
        }
        for (set, elements) in &change.delete {
            batch.delete_elements(table, &set.name(), elements.values());
        }
        for (set, elements) in &change.add {
            batch.add_elements(table, &set.name(), elements.values());
        }
        for (chain, before) in changed.iter().rev() {
            if *before > 0 && now(chain) == 0 {
                chain.delete(&mut batch, table);
            }
        }
        self.chains.retain(|_, count| *count > 0);
        batch
    }

    /// Tells which addresses are pods' and which are the node's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_places(&mut self, nft: &mut Nft, pods: &[Net], node_ips: &[IpAddr]) -> Result<(), nft::Error> {
        let family = self.table.family;
        let pods: Vec<Net> = pods.iter().copied().filter(|net| Family::of(net.first()) == family).collect();
        let node_ips: Vec<IpAddr> = node_ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        if self.pods == pods && self.node_ips == node_ips {
            return Ok(());
        }
        (self.pods, self.node_ips) = (pods, node_ips);
        let mut batch = Batch::new();
        batch.flush_set(self.table, layout::PODS);
        batch.flush_set(self.table, layout::NODE_IPS);
        self.add_places(&mut batch);
        nft.apply(batch)
    }

    fn add_places(&self, batch: &mut Batch) {
        let mut kept: Vec<Net> = Vec::new();
        let mut pods = self.pods.clone();
        pods.sort();
        for net in pods {
            if !kept.iter().any(|outer| outer.contains(net.first()) && outer.contains(net.last())) {
                kept.push(net);
            }
        }
        batch.add_elements(self.table, layout::PODS, &kept.into_iter().map(Element::block).collect::<Vec<_>>());
        let ips: Vec<Element> = self.node_ips.iter().map(|ip| Element::key(Key::new().ip(*ip))).collect();
        batch.add_elements(self.table, layout::NODE_IPS, &ips);
    }

    /// Writes all rules anew, whatever is there: in one step, so that no call sees half of them, and keeping which client
    /// has which endpoint.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resync(&mut self, nft: &mut Nft) -> Result<(), nft::Error> {
        let table = self.table;
        let contents = nft.contents(table)?;
        let mut batch = Batch::new();
        if !contents.base_chains.is_empty() || !contents.chains.is_empty() || !contents.sets.is_empty() {
            batch.flush_rules(table);
            for set in contents.sets.iter().filter(|set| *set != layout::AFFINITY) {
                // A map's entries hold on to the chains they lead to.
                batch.delete_set(table, set);
            }
            for chain in contents.chains.iter().chain(&contents.base_chains) {
                batch.delete_chain(table, chain);
            }
        }
        self.write_all(&mut batch);
        match nft.apply(batch) {
            Err(nft::Error::Refused(why)) => {
                // What is there is of another version or broken.
                tracing::warn!(?why, "replacing the proxy's rules altogether");
                let mut batch = Batch::new();
                batch.fresh_table(table, "");
                self.write_all(&mut batch);
                nft.apply(batch)
            }
            other => other,
        }
    }

    fn write_all(&self, batch: &mut Batch) {
        let table = self.table;
        layout::skeleton(batch, table, &self.addresses);
        self.add_places(batch);
        for (pool, count) in &self.slots {
            layout::add_slots(batch, table, *pool, 0, *count);
        }
        let chains: BTreeSet<&Shared> = self.chains.keys().collect();
        for chain in chains {
            chain.add(batch, table);
        }
        let mut all: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        for (front, held) in &self.fronts {
            elements(*front, &held.target, &held.text, |set, element| all.entry(set).or_default().push(element));
        }
        for counted in self.counted.keys() {
            let (set, element) = counted.element();
            all.entry(SetId::Fixed(set)).or_default().push(element);
        }
        for (set, elements) in &all {
            batch.add_elements(table, &set.name(), elements);
        }
    }

    /// Forgets clients whose endpoint is no longer one of their Service.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn forget_stale_clients(&self, nft: &mut Nft) -> Result<(), nft::Error> {
        let width = if self.table.family == Family::Ip6 { 16 } else { 4 };
        for found in nft.elements(self.table, layout::AFFINITY)? {
            if self.client_is_current(found.key.bytes(), found.value.as_ref().map(Key::bytes), width) {
                continue;
            }
            let mut batch = Batch::new();
            batch.delete_elements(self.table, layout::AFFINITY, [&Element::key(found.key)]);
            match nft.apply(batch) {
                // Its time was over meanwhile.
                Err(err) if err.is_not_found() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether a remembered endpoint may still be used: the key is source, destination, protocol, port.
    fn client_is_current(&self, key: &[u8], value: Option<&[u8]>, width: usize) -> bool {
        let parse = || -> Option<bool> {
            let daddr = address(key.get(width..2 * width)?)?;
            let protocol = [crate::addr::Protocol::Tcp, crate::addr::Protocol::Udp, crate::addr::Protocol::Sctp]
                .into_iter()
                .find(|p| Some(&p.number()) == key.get(2 * width))?;
            let port = u16::from_be_bytes(key.get(2 * width + 4..2 * width + 6)?.try_into().ok()?);
            let value = value?;
            let endpoint = SocketAddr::new(
                address(value.get(..width)?)?,
                u16::from_be_bytes(value.get(width..width + 2)?.try_into().ok()?),
            );
            let has = |front| {
                self.target(&front).is_some_and(|target| {
                    let outside = target.outside.iter().flat_map(|list| list.iter());
                    target.affinity.is_some() && target.endpoints.iter().chain(outside).any(|at| *at == endpoint)
                })
            };
            Some(has(Front::Ip(daddr, protocol, port)) || has(Front::Port(protocol, port)))
        };
        parse().unwrap_or(false)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The elements of a frontend, in order.
type Elements = BTreeMap<(SetId, Key), Element>;

/// The chain that spreads the calls of a frontend; none when there is nobody to call.
fn spreader(front: Front, target: &Target) -> Option<Shared> {
    let by_port = matches!(front, Front::Port(..));
    let inside = count(&target.endpoints);
    let affinity = target.affinity.is_some();
    match &target.outside {
        None if inside == 0 => None,
        None => {
            let pool = Pool::new(by_port, false);
            Some(Shared::Lb { pool, count: inside, masquerade: target.masquerade, affinity })
        }
        Some(outside) if inside == 0 && outside.is_empty() => None,
        Some(outside) => Some(Shared::Split { by_port, inside, outside: count(outside), affinity }),
    }
}

fn firewall(front: Front, target: &Target) -> Option<Shared> {
    let ranges = target.allowed.as_ref().filter(|_| matches!(front, Front::Ip(..)));
    ranges.map(|ranges| Shared::Firewall(ranges.clone()))
}

/// The chains a frontend leads to.
fn chains(front: Front, target: &Target) -> impl Iterator<Item = Shared> {
    let spreader = spreader(front, target);
    let affinity = target.affinity.filter(|_| spreader.is_some()).map(Shared::Affinity);
    spreader.into_iter().chain(affinity).chain(firewall(front, target))
}

/// The lists of endpoints of a frontend, with the pools they are in.
fn pools(front: Front, target: &Target) -> impl Iterator<Item = (Pool, &[SocketAddr])> {
    let by_port = matches!(front, Front::Port(..));
    let inside = std::iter::once((Pool::new(by_port, false), &*target.endpoints));
    inside.chain(target.outside.iter().map(move |list| (Pool::new(by_port, true), &**list)))
}

fn count(list: &[SocketAddr]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// Tells every element of a frontend to `out`.
fn elements(front: Front, target: &Target, text: &str, mut out: impl FnMut(SetId, Element)) {
    let by_port = matches!(front, Front::Port(..));
    let pick = |ip, port| SetId::Fixed(if by_port { port } else { ip });
    let key = front.key();
    if let Some(chain) = spreader(front, target) {
        let verdict = Verdict::goto(chain.name());
        out(pick(layout::SERVICE_IPS, layout::SERVICE_PORTS), Element::verdict(key.clone(), verdict).commented(text));
        for (pool, list) in pools(front, target) {
            for (slot, at) in (0u32..).zip(list) {
                let to = Key::new().ip(at.ip()).port(at.port());
                out(SetId::Eps(pool, slot), Element::value(key.clone(), to));
            }
        }
        if let Some(seconds) = target.affinity {
            let verdict = Verdict::goto(Shared::Affinity(seconds).name());
            out(pick(layout::AFFINITY_IPS, layout::AFFINITY_PORTS), Element::verdict(key.clone(), verdict));
        }
    }
    if let Some(refuse) = target.refuse {
        let verdict = match refuse {
            Refuse::Reject => Verdict::goto(layout::REJECT),
            Refuse::Drop => Verdict::Drop,
        };
        let set = pick(layout::NO_ENDPOINT_IPS, layout::NO_ENDPOINT_PORTS);
        out(set, Element::verdict(key.clone(), verdict).commented(text));
    }
    if let Some(chain) = firewall(front, target) {
        let verdict = Verdict::goto(chain.name());
        out(SetId::Fixed(layout::FIREWALL_IPS), Element::verdict(key, verdict).commented(text));
    }
}
