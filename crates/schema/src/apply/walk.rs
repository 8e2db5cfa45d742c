//! Walks over values by their schema: validation, the set of fields of a value, merging, comparing, removing.

use super::path::Element;
use super::schema::{Atom, List, Relation, Scalar, Schema};
use super::set::Set;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What an item of a list is known by.
pub(super) fn item_element(list: &List<'_>, item: &Value) -> Result<Element, String> {
    match list.kind {
        Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Relation::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            value => Ok(Element::Value(std::sync::Arc::new(value.clone()))),
        },
        Relation::Keys(keys) => {
            let map = match item {
                Value::Object(map) => map,
                Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
                _ => return Err("associative list with keys may not have non-map elements".to_owned()),
            };
            let names = keys.names();
            let mut fields: Vec<(String, Value)> = vec![];
            for name in &names {
                if let Some(value) = map.get(*name).cloned().or_else(|| list.element.key_default(name)) {
                    fields.push(((*name).to_owned(), value));
                }
            }
            if fields.is_empty() {
                let names: Vec<_> = names.iter().map(|n| crate::quote::quoted(n)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                     default values for any key fields)",
                    names.join(" ")
                ));
            }
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Element::Key(fields.into()))
        }
    }
}

/// Go's `%v` of a value behind a pointer.
fn shown(value: &Value) -> String {
    fn text(value: &Value) -> String {
        match value {
            Value::Null => "<nil>".to_owned(),
            Value::String(s) => s.clone(),
            Value::Array(a) => format!("[{}]", a.iter().map(text).collect::<Vec<_>>().join(" ")),
            Value::Object(o) => {
                format!("map[{}]", o.iter().map(|(k, v)| format!("{k}:{}", text(v))).collect::<Vec<_>>().join(" "))
            }
            other => other.to_string(),
        }
    }
    format!("&{{{}}}", text(value))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The way to a value, made into text only for an error.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Root,
    Field(&'a Way<'a>, &'a str),
    Item(&'a Way<'a>, &'a Element),
}

impl std::fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Root => Ok(()),
            Way::Field(before, name) => write!(f, "{before}.{name}"),
            Way::Item(before, element) => write!(f, "{before}{element}"),
        }
    }
}

impl Way<'_> {
    fn error(&self, message: &str) -> String {
        match self {
            Way::Root => message.to_owned(),
            way => format!("{way}: {message}"),
        }
    }
}

/// Checks a value against its schema; each error with its path.
pub(super) fn validate(schema: Schema<'_>, value: &Value, way: &Way<'_>, errors: &mut Vec<String>) {
    match (schema.atom().settled(Some(value)), value) {
        (_, Value::Null) | (Atom::Deduced, _) => {}
        (Atom::Scalar(kind), value) => {
            let message = match (kind, value) {
                (Scalar::String, Value::String(_))
                | (Scalar::Number, Value::Number(_))
                | (Scalar::Bool, Value::Bool(_))
                | (Scalar::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
                (Scalar::String, v) => format!("expected string, got &value.valueUnstructured{{Value:{v}}}"),
                (Scalar::Number, v) => format!("expected numeric (int or float), got {}", go_type(v)),
                (Scalar::Bool, v) => format!("expected boolean, got {}", shown(v)),
                (Scalar::Any, v) => format!("expected any scalar, got {}", shown(v)),
            };
            errors.push(way.error(&message));
        }
        (Atom::Map { schema, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let here = Way::Field(way, key);
                match schema.declared(key).or_else(|| schema.elements()) {
                    Some(schema) => validate(schema, value, &here, errors),
                    None => errors.push(here.error("field not declared in schema")),
                }
            }
        }
        (Atom::Map { .. }, value) => errors.push(way.error(&format!("expected map, got {}", shown(value)))),
        (Atom::List(list), Value::Array(items)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                if matches!(list.kind, Relation::Atomic) {
                    validate(list.element, item, &Way::Item(way, &Element::Index(i as i64)), errors);
                    continue;
                }
                let element = match item_element(&list, item) {
                    Ok(element) => element,
                    Err(e) => {
                        errors.push(way.error(&format!("element {i}: {e}")));
                        return;
                    }
                };
                if seen.contains(&element) {
                    errors.push(way.error(&format!("duplicate entries for key {element}")));
                }
                validate(list.element, item, &Way::Item(way, &element), errors);
                seen.insert(element);
            }
        }
        (Atom::List(_), value) => errors.push(way.error(&format!("expected list, got {}", shown(value)))),
    }
}

/// Every field that a value states.
pub(super) fn field_set(schema: Schema<'_>, value: &Value) -> Set {
    fields_of(schema, value).1
}

/// Whether the value is a field itself, and the fields below it.
fn fields_of(schema: Schema<'_>, value: &Value) -> (bool, Set) {
    let mut set = Set::new();
    match (schema.atom().settled(Some(value)), value) {
        (Atom::Map { atomic: true, .. } | Atom::List(List { kind: Relation::Atomic, .. }) | Atom::Scalar(_), _) => {
            return (true, set);
        }
        (Atom::Map { schema, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let declared = schema.declared(key);
                let Some(below) = declared.or_else(|| schema.elements()) else { continue };
                let (member, children) = fields_of(below, value);
                let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.put(Element::field(key), member || bare || declared.is_none(), children);
            }
        }
        (Atom::List(list), Value::Array(items)) => {
            let elements: Vec<_> = items.iter().map(|i| item_element(&list, i).ok()).collect();
            let mut counts = BTreeMap::new();
            for element in elements.iter().flatten() {
                *counts.entry(element).or_insert(0) += 1;
            }
            for (item, element) in items.iter().zip(&elements) {
                let Some(element) = element else { continue };
                // Of duplicates only the items themselves are noted.
                let children =
                    if counts.get(element) == Some(&1) { fields_of(list.element, item).1 } else { Set::new() };
                set.put(element.clone(), true, children);
            }
        }
        _ => {}
    }
    (false, set)
}

fn as_map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn as_list(value: Option<&Value>) -> Option<&Vec<Value>> {
    value.and_then(Value::as_array)
}

/// The keys of two maps, each once.
fn keys<'v>(a: Option<&'v Map<String, Value>>, b: Option<&'v Map<String, Value>>) -> Vec<&'v String> {
    let mut keys: Vec<&String> = a.into_iter().flat_map(|m| m.keys()).collect();
    keys.extend(b.into_iter().flat_map(|m| m.keys()).filter(|k| a.is_none_or(|a| !a.contains_key(*k))));
    keys
}

/// The value that has all that either states; where both state a leaf, the right one's.
pub(super) fn merge(schema: Schema<'_>, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    let leaf = || right.or(left).cloned();
    match schema.atom().settled(right.or(left)) {
        Atom::Scalar(_) | Atom::Deduced => leaf(),
        Atom::Map { schema, atomic } => {
            let (l, r) = (as_map(left), as_map(right));
            if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                return leaf();
            }
            let mut out = Map::new();
            for key in keys(l, r) {
                let (lv, rv) = (l.and_then(|m| m.get(key)), r.and_then(|m| m.get(key)));
                let merged = match schema.declared(key).or_else(|| schema.elements()) {
                    Some(below) => merge(below, lv, rv),
                    // What the schema does not know has been refused on the right; on the left it stays.
                    None => rv.or(lv).cloned(),
                };
                if let Some(value) = merged {
                    out.insert(key.clone(), value);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Atom::List(list) => {
            let (l, r) = (as_list(left), as_list(right));
            if matches!(list.kind, Relation::Atomic) || (l.is_none_or(Vec::is_empty) && r.is_none_or(Vec::is_empty)) {
                return leaf();
            }
            let none = vec![];
            let out = merge_items(&list, l.unwrap_or(&none), r.unwrap_or(&none));
            (!out.is_empty()).then_some(Value::Array(out))
        }
    }
}

/// Items in the order of the right list, with those only on the left kept where they stand among shared ones.
fn merge_items(list: &List<'_>, left: &[Value], right: &[Value]) -> Vec<Value> {
    let index = |items: &[Value]| -> Vec<Element> { items.iter().filter_map(|i| item_element(list, i).ok()).collect() };
    let (lefts, rights) = (index(left), index(right));
    // A live list may hold duplicates; they are not merged with.
    let null = Value::Null;
    let mut on_left: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in lefts.iter().zip(left) {
        on_left.entry(element).and_modify(|v| *v = &null).or_insert(item);
    }
    let on_right: BTreeMap<&Element, &Value> = rights.iter().zip(right).collect();
    let mut shared = rights.iter().filter(|e| on_left.contains_key(e));
    let mut next_shared = shared.next();
    let mut merged = std::collections::BTreeSet::new();
    let mut out = vec![];
    let (mut li, mut ri) = (0, 0);
    let take = |out: &mut Vec<Value>, l: Option<&Value>, r: Option<&Value>| out.extend(merge(list.element, l, r));
    while li < lefts.len() || ri < rights.len() {
        if li < lefts.len() && ri < rights.len() {
            let element = &lefts[li];
            if *element == rights[ri] {
                merged.insert(element);
                take(&mut out, on_left.get(element).copied(), on_right.get(element).copied());
                li += 1;
                ri += 1;
                next_shared = shared.next();
                continue;
            }
            if on_right.contains_key(element) && next_shared.is_some_and(|n| n != element) {
                li += 1;
                continue;
            }
        }
        if li < lefts.len() {
            let element = &lefts[li];
            if !on_right.contains_key(element) {
                take(&mut out, Some(&left[li]), None);
                li += 1;
                continue;
            }
            if merged.contains(element) {
                li += 1;
            }
        }
        if ri < rights.len() {
            let element = &rights[ri];
            merged.insert(element);
            take(&mut out, on_left.get(element).copied(), on_right.get(element).copied());
            ri += 1;
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
    }
    out
}

/// What changed between two values.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

/// A comparison of one place: of the place itself, and of what is below.
#[derive(Default)]
struct Change {
    removed: bool,
    modified: bool,
    added: bool,
    below: Comparison,
}

impl Change {
    fn leaf(left: Option<&Value>, right: Option<&Value>) -> Self {
        let (removed, added) = (right.is_none(), left.is_none());
        let modified = matches!((left, right), (Some(l), Some(r)) if !equal(l, r));
        Change { removed: removed && !added, modified, added, below: Comparison::default() }
    }
}

impl Comparison {
    pub fn of(schema: Schema<'_>, left: &Value, right: &Value) -> Self {
        changes(schema, Some(left), Some(right)).below
    }

    pub fn without(self, reset: &Set) -> Self {
        if reset.is_empty() {
            return self;
        }
        Comparison {
            removed: self.removed.without(reset),
            modified: self.modified.without(reset),
            added: self.added.without(reset),
        }
    }

    fn put(&mut self, element: &Element, change: Change) {
        self.removed.put_new(element, change.removed, change.below.removed);
        self.modified.put_new(element, change.modified, change.below.modified);
        self.added.put_new(element, change.added, change.below.added);
    }
}

fn changes(schema: Schema<'_>, left: Option<&Value>, right: Option<&Value>) -> Change {
    let atom = schema.atom();
    let kinds = (atom.settled(left), atom.settled(right));
    let (mut change, is_leaf) = changes_of(if right.is_some() { kinds.1 } else { kinds.0 }, left, right);
    // A deduced place may hold different kinds on both sides; both are walked then.
    if let (Atom::Deduced, Some(l), Some(r)) = (atom, left, right)
        && std::mem::discriminant(&kinds.0) != std::mem::discriminant(&kinds.1)
        && !l.is_null()
        && !r.is_null()
    {
        let (other, _) = changes_of(kinds.0, left, right);
        change.modified |= other.modified;
        change.below.removed = change.below.removed.union(&other.below.removed);
        change.below.modified = change.below.modified.union(&other.below.modified);
        change.below.added = change.below.added.union(&other.below.added);
    }
    if !is_leaf {
        change.added |= left.is_none();
        change.removed |= left.is_some() && right.is_none();
    }
    change
}

/// The changes of one kind of value, and whether it is a leaf.
fn changes_of(atom: Atom<'_>, left: Option<&Value>, right: Option<&Value>) -> (Change, bool) {
    let mut change = Change::default();
    match atom {
        Atom::Scalar(_) | Atom::Deduced => return (Change::leaf(left, right), true),
        Atom::Map { schema, atomic } => {
            let (l, r) = (as_map(left), as_map(right));
            if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                return (Change::leaf(left, right), true);
            }
            for key in keys(l, r) {
                let (lv, rv) = (l.and_then(|m| m.get(key)), r.and_then(|m| m.get(key)));
                let Some(below) = schema.declared(key).or_else(|| schema.elements()) else { continue };
                // Most fields are as they were, and cost no more than the look.
                if lv == rv {
                    continue;
                }
                change.below.put(&Element::field(key), changes(below, lv, rv));
            }
        }
        Atom::List(list) => {
            let (l, r) = (as_list(left), as_list(right));
            let empty = l.is_none_or(Vec::is_empty) && r.is_none_or(Vec::is_empty);
            if matches!(list.kind, Relation::Atomic) || empty {
                return (Change::leaf(left, right), true);
            }
            item_changes(&mut change.below, &list, l.map_or(&[], Vec::as_slice), r.map_or(&[], Vec::as_slice));
        }
    }
    (change, false)
}

fn item_changes(out: &mut Comparison, list: &List<'_>, left: &[Value], right: &[Value]) {
    let mut all: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in left {
        if let Ok(element) = item_element(list, item) {
            all.entry(element).or_default().0.push(item);
        }
    }
    for item in right {
        if let Ok(element) = item_element(list, item) {
            all.entry(element).or_default().1.push(item);
        }
    }
    for (element, (l, r)) in all {
        let change = match (l.as_slice(), r.as_slice()) {
            ([] | [_], [] | [_]) => changes(list.element, l.first().copied(), r.first().copied()),
            ([_, _, ..], [_, _, ..]) => Change { modified: l != r, ..Change::default() },
            ([_, _, ..], _) => {
                let mut change = r.first().map(|only| changes(list.element, None, Some(only))).unwrap_or_default();
                change.removed = true;
                change
            }
            _ => {
                let mut change = l.first().map(|only| changes(list.element, Some(only), None)).unwrap_or_default();
                change.added = true;
                change
            }
        };
        out.put(&element, change);
    }
}

/// Equality, with numbers by size.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The value without the fields in the set; nothing where nothing is left, or where it is atomic and a part is to go.
pub(super) fn remove(schema: Schema<'_>, value: &Value, gone: &Set) -> Value {
    match (schema.atom().settled(Some(value)), value) {
        (Atom::Scalar(_) | Atom::Deduced, value) => value.clone(),
        (Atom::Map { atomic: false, schema }, Value::Object(map)) => {
            let mut out = Map::new();
            for (key, value) in map {
                let element = Element::field(key);
                if gone.has_member(&element) {
                    continue;
                }
                let below = schema.declared(key).or_else(|| schema.elements());
                let kept = match (gone.below(&element), below) {
                    (Some(gone), Some(schema)) => remove(schema, value, gone),
                    _ => value.clone(),
                };
                out.insert(key.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Atom::List(list), Value::Array(items)) if !matches!(list.kind, Relation::Atomic) => {
            let mut out = vec![];
            for item in items {
                let Ok(element) = item_element(&list, item) else {
                    out.push(item.clone());
                    continue;
                };
                if gone.has_member(&element) {
                    continue;
                }
                out.push(match gone.below(&element) {
                    Some(gone) => remove(list.element, item, gone),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => Value::Null,
    }
}
