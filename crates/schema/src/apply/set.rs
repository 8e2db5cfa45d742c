//! Sets of fields.

use super::path::Element;
use super::schema::Schema;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    children: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

/// A set of fields: a tree of path elements, of which each may itself be a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Element, Node>);

impl Set {
    /// No field.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fields by name: `Set::of(&[&["status"], &["metadata", "labels"]])`.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Set::new();
        for path in paths {
            set.insert(&path.iter().map(|p| Element::field(p)).collect::<Vec<_>>());
        }
        set
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field; the fields above it are not added. The whole object is no field.
    pub fn insert(&mut self, path: &[Element]) {
        if let Some((first, rest)) = path.split_first() {
            let node = self.0.entry(first.clone()).or_default();
            if rest.is_empty() {
                node.member = true;
            } else {
                node.children.insert(rest);
            }
        }
    }

    /// Sets what is known of one element: whether it is a member, and what is below it.
    pub(super) fn put(&mut self, element: Element, member: bool, children: Set) {
        let node = Node { member, children };
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    /// As `put`, copying the element only where there is something to note.
    pub(super) fn put_new(&mut self, element: &Element, member: bool, children: Set) {
        if member || !children.is_empty() {
            self.put(element.clone(), member, children);
        }
    }

    /// Whether all of the set is in the other.
    pub(super) fn is_within(&self, other: &Set) -> bool {
        self.0.iter().all(|(element, node)| {
            other.0.get(element).is_some_and(|o| (o.member || !node.member) && node.children.is_within(&o.children))
        })
    }

    /// Whether the field itself is in the set.
    pub fn has(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, rest)) => {
                self.0.get(first).is_some_and(|n| if rest.is_empty() { n.member } else { n.children.has(rest) })
            }
        }
    }

    /// Whether this element itself is a member.
    pub(super) fn has_member(&self, element: &Element) -> bool {
        self.0.get(element).is_some_and(|n| n.member)
    }

    /// What is in the set below an element, if anything.
    pub(super) fn below(&self, element: &Element) -> Option<&Set> {
        self.0.get(element).map(|n| &n.children).filter(|c| !c.is_empty())
    }

    fn combine(&self, other: &Set, keep: &impl Fn(bool, bool) -> bool) -> Set {
        let none = Node::default();
        let mut out = BTreeMap::new();
        let mut add = |element: &Element, a: &Node, b: &Node| {
            let node = Node { member: keep(a.member, b.member), children: a.children.combine(&b.children, keep) };
            if !node.is_empty() {
                out.insert(element.clone(), node);
            }
        };
        for (element, node) in &self.0 {
            add(element, node, other.0.get(element).unwrap_or(&none));
        }
        if keep(false, true) {
            for (element, node) in other.0.iter().filter(|(e, _)| !self.0.contains_key(e)) {
                add(element, &none, node);
            }
        }
        Set(out)
    }

    /// What is in either.
    pub fn union(&self, other: &Set) -> Set {
        self.combine(other, &|a, b| a || b)
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.combine(other, &|a, b| a && b)
    }

    /// What is in this one only.
    pub fn difference(&self, other: &Set) -> Set {
        self.combine(other, &|a, b| a && !b)
    }

    /// What is in this one, and neither it nor anything above it is in the other.
    pub fn without(mut self, other: &Set) -> Set {
        self.cut(other);
        self
    }

    fn cut(&mut self, other: &Set) {
        for (element, gone) in &other.0 {
            let Some(node) = self.0.get_mut(element) else { continue };
            node.children.cut(&gone.children);
            if gone.member || node.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// Takes the members of the other set out, not what is below them.
    pub(super) fn subtract(&mut self, other: &Set) {
        for (element, gone) in &other.0 {
            let Some(node) = self.0.get_mut(element) else { continue };
            node.member &= !gone.member;
            node.children.subtract(&gone.children);
            if node.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// Puts all of the other set in.
    pub(super) fn absorb(&mut self, other: Set) {
        for (element, more) in other.0 {
            let node = self.0.entry(element).or_default();
            node.member |= more.member;
            node.children.absorb(more.children);
        }
    }

    /// The set with every struct field above a member made a member as well.
    pub(super) fn with_named_fields(&self, schema: Option<Schema<'_>>) -> Set {
        let mut out = BTreeMap::new();
        for (element, node) in &self.0 {
            let mut node = node.clone();
            let below = schema.and_then(|s| s.below(element));
            if let (false, Element::Field(name), Some(schema)) = (node.children.is_empty(), element, schema)
                && schema.declares(name)
            {
                node.member = true;
            }
            node.children = node.children.with_named_fields(below);
            out.insert(element.clone(), node);
        }
        Set(out)
    }

    /// Whether any member is a member of a set that is still written as `fieldsV1`.
    pub(super) fn touches_fields(&self, fields: &Value) -> bool {
        let Value::Object(map) = fields else { return false };
        !map.is_empty()
            && self.0.iter().any(|(element, node)| {
                map.get(&element.encode()).is_some_and(|inner| {
                    let member = inner.as_object().is_none_or(|m| m.is_empty() || m.contains_key("."));
                    node.member && member || node.children.touches_fields(inner)
                })
            })
    }

    /// Takes every member out of a set that is still written as `fieldsV1`.
    pub(super) fn remove_from_fields(&self, fields: &mut Value) {
        let Value::Object(map) = fields else { return };
        for (element, node) in &self.0 {
            let key = element.encode();
            let Some(Value::Object(inner)) = map.get_mut(&key) else { continue };
            let member = (inner.is_empty() || inner.remove(".").is_some()) && !node.member;
            let mut below = Value::Object(std::mem::take(inner));
            node.children.remove_from_fields(&mut below);
            let Value::Object(mut below) = below else { continue };
            match (member, below.is_empty()) {
                (false, true) => {
                    map.remove(&key);
                    continue;
                }
                (true, false) => {
                    below.insert(".".to_owned(), Value::Object(Map::new()));
                }
                _ => {}
            }
            *inner = below;
        }
    }

    /// Puts every member into a set that is still written as `fieldsV1`.
    pub(super) fn add_to_fields(&self, fields: &mut Value) {
        let Value::Object(map) = fields else { return };
        for (element, node) in &self.0 {
            let key = element.encode();
            let Some(Value::Object(mut inner)) = map.remove(&key) else {
                let mut new = node.children.to_fields();
                if let (true, false, Value::Object(new)) = (node.member, node.children.is_empty(), &mut new) {
                    new.insert(".".to_owned(), Value::Object(Map::new()));
                }
                map.insert(key, new);
                continue;
            };
            let member = inner.is_empty() || inner.remove(".").is_some() || node.member;
            let mut below = Value::Object(inner);
            node.children.add_to_fields(&mut below);
            if let (true, Value::Object(below)) = (member, &mut below)
                && !below.is_empty()
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(key, below);
        }
    }

    /// Whether nothing is owned inside what the schema takes as a whole.
    pub(super) fn fits(&self, schema: Schema<'_>) -> bool {
        self.0.iter().all(|(element, node)| {
            let Some(below) = schema.below(element).filter(|_| !node.children.is_empty()) else { return true };
            !below.is_atomic() && node.children.fits(below)
        })
    }

    /// The set with owners of parts of what the schema takes as a whole made owners of the whole: the schema may have
    /// changed since the set was written.
    pub(super) fn fitted(&self, schema: Schema<'_>) -> Set {
        let mut out = Set::new();
        for (element, node) in &self.0 {
            match schema.below(element).filter(|_| !node.children.is_empty()) {
                Some(below) if below.is_atomic() => out.put(element.clone(), true, Set::new()),
                Some(below) => out.put(element.clone(), node.member, node.children.fitted(below)),
                None => out.put(element.clone(), node.member, node.children.clone()),
            }
        }
        out
    }

    /// Every member with its path, in order.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = vec![];
        self.collect(&mut vec![], &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for (element, node) in &self.0 {
            prefix.push(element.clone());
            if node.member {
                out.push(prefix.clone());
            }
            node.children.collect(prefix, out);
            prefix.pop();
        }
    }

    /// The set as `fieldsV1`.
    pub fn to_fields(&self) -> Value {
        let entry = |(element, node): (&Element, &Node)| {
            let mut inner = node.children.to_fields();
            if let (true, false, Value::Object(map)) = (node.member, node.children.is_empty(), &mut inner) {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.encode(), inner)
        };
        Value::Object(self.0.iter().map(entry).collect())
    }

    /// A set from `fieldsV1`.
    pub fn from_fields(fields: &Value) -> Result<Set, String> {
        let Value::Object(map) = fields else { return Ok(Set::new()) };
        let mut out = BTreeMap::new();
        for (key, inner) in map {
            if key == "." {
                continue;
            }
            let element = match Element::decode(key) {
                Ok(element) => element,
                // What a later version may add is passed over.
                Err(e) if e == "unknown path element type" => continue,
                Err(e) => return Err(e),
            };
            let children = Set::from_fields(inner)?;
            let member = children.is_empty() || inner.get(".").is_some();
            out.insert(element, Node { member, children });
        }
        Ok(Set(out))
    }
}
