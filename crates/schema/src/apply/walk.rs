//! Walks over values by their schema: validation, the set of fields of a value, merging, comparing, removing.

use super::path::{Element, path_text};
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
            value => Ok(Element::Value(value.clone())),
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
            Ok(Element::Key(fields))
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

/// Checks a value against its schema; each error with its path.
pub(super) fn validate(schema: Schema<'_>, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<String>) {
    let mut fail = |path: &[Element], message: String| {
        let path = path_text(path);
        errors.push(if path.is_empty() { message } else { format!("{path}: {message}") });
    };
    match (schema.atom().settled(Some(value)), value) {
        (_, Value::Null) => {}
        (Atom::Scalar(kind), value) => {
            let message = match (kind, value) {
                (Scalar::String, Value::String(_))
                | (Scalar::Number, Value::Number(_))
                | (Scalar::Bool, Value::Bool(_))
                | (Scalar::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
                (Scalar::String, v) => {
                    let inside = if let Value::String(s) = v { crate::quote::quoted(s) } else { v.to_string() };
                    format!("expected string, got &value.valueUnstructured{{Value:{inside}}}")
                }
                (Scalar::Number, v) => format!("expected numeric (int or float), got {}", go_type(v)),
                (Scalar::Bool, v) => format!("expected boolean, got {}", shown(v)),
                (Scalar::Any, v) => format!("expected any scalar, got {}", shown(v)),
            };
            fail(path, message);
        }
        (Atom::Map { schema, .. }, Value::Object(map)) => {
            for (key, value) in map {
                path.push(Element::field(key));
                match schema.declared(key).or_else(|| schema.elements()) {
                    Some(schema) => validate(schema, value, path, errors),
                    None => errors.push(format!("{}: field not declared in schema", path_text(path))),
                }
                path.pop();
            }
        }
        (Atom::Map { .. }, value) => fail(path, format!("expected map, got {}", shown(value))),
        (Atom::List(list), Value::Array(items)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let element = match list.kind {
                    Relation::Atomic => Element::Index(i as i64),
                    _ => match item_element(&list, item) {
                        Ok(element) => element,
                        Err(e) => {
                            let path = path_text(path);
                            errors.push(if path.is_empty() {
                                format!("element {i}: {e}")
                            } else {
                                format!("{path}: element {i}: {e}")
                            });
                            return;
                        }
                    },
                };
                if !matches!(list.kind, Relation::Atomic) && !seen.insert(element.clone()) {
                    let path = path_text(path);
                    errors.push(format!("{path}: duplicate entries for key {element}"));
                }
                path.push(element);
                validate(list.element, item, path, errors);
                path.pop();
            }
        }
        (Atom::List(_), value) => fail(path, format!("expected list, got {}", shown(value))),
        (Atom::Deduced, _) => {}
    }
}

/// Every field that a value states.
pub(super) fn field_set(schema: Schema<'_>, value: &Value) -> Set {
    let mut set = Set::new();
    collect(schema, value, &mut vec![], &mut set);
    set
}

fn collect(schema: Schema<'_>, value: &Value, path: &mut Vec<Element>, set: &mut Set) {
    match (schema.atom().settled(Some(value)), value) {
        (Atom::Map { atomic: true, .. } | Atom::List(List { kind: Relation::Atomic, .. }) | Atom::Scalar(_), _) => {
            set.insert(path);
        }
        (Atom::Map { schema, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let declared = schema.declared(key);
                let Some(below) = declared.or_else(|| schema.elements()) else { continue };
                path.push(Element::field(key));
                collect(below, value, path, set);
                let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if bare || declared.is_none() {
                    set.insert(path);
                }
                path.pop();
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
                path.push(element.clone());
                if counts.get(element) == Some(&1) {
                    collect(list.element, item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => {}
    }
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

impl Comparison {
    pub fn of(schema: Schema<'_>, left: &Value, right: &Value) -> Self {
        let mut out = Comparison::default();
        out.walk(schema, Some(left), Some(right), &mut vec![]);
        out
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

    fn leaf(&mut self, left: Option<&Value>, right: Option<&Value>, path: &[Element]) {
        match (left, right) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            (Some(l), Some(r)) if !equal(l, r) => self.modified.insert(path),
            _ => {}
        }
    }

    fn walk(&mut self, schema: Schema<'_>, left: Option<&Value>, right: Option<&Value>, path: &mut Vec<Element>) {
        let atom = schema.atom();
        let kinds = (atom.settled(left), atom.settled(right));
        // A deduced place may hold different kinds on both sides; both are walked then.
        let differ = matches!(atom, Atom::Deduced)
            && matches!((left, right), (Some(l), Some(r)) if std::mem::discriminant(&kinds.0) != std::mem::discriminant(&kinds.1) && !l.is_null() && !r.is_null());
        if differ {
            self.walk_atom(kinds.0, left, right, path);
        }
        let in_leaf = self.walk_atom(if right.is_some() { kinds.1 } else { kinds.0 }, left, right, path);
        if !in_leaf {
            if left.is_none() {
                self.added.insert(path);
            } else if right.is_none() {
                self.removed.insert(path);
            }
        }
    }

    /// Walks one kind of value; true when it was a leaf.
    fn walk_atom(
        &mut self,
        atom: Atom<'_>,
        left: Option<&Value>,
        right: Option<&Value>,
        path: &mut Vec<Element>,
    ) -> bool {
        match atom {
            Atom::Scalar(_) | Atom::Deduced => {
                self.leaf(left, right, path);
                true
            }
            Atom::Map { schema, atomic } => {
                let (l, r) = (as_map(left), as_map(right));
                if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                    self.leaf(left, right, path);
                    return true;
                }
                for key in keys(l, r) {
                    let Some(below) = schema.declared(key).or_else(|| schema.elements()) else { continue };
                    path.push(Element::field(key));
                    self.walk(below, l.and_then(|m| m.get(key)), r.and_then(|m| m.get(key)), path);
                    path.pop();
                }
                false
            }
            Atom::List(list) => {
                let (l, r) = (as_list(left), as_list(right));
                let empty = l.is_none_or(Vec::is_empty) && r.is_none_or(Vec::is_empty);
                if matches!(list.kind, Relation::Atomic) || empty {
                    self.leaf(left, right, path);
                    return true;
                }
                self.walk_items(&list, l.map_or(&[], Vec::as_slice), r.map_or(&[], Vec::as_slice), path);
                false
            }
        }
    }

    fn walk_items(&mut self, list: &List<'_>, left: &[Value], right: &[Value], path: &mut Vec<Element>) {
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
            path.push(element);
            match (l.as_slice(), r.as_slice()) {
                ([] | [_], [] | [_]) => self.walk(list.element, l.first().copied(), r.first().copied(), path),
                ([_, _, ..], [_, _, ..]) => {
                    if l != r {
                        self.modified.insert(path);
                    }
                }
                ([_, _, ..], _) => {
                    if let Some(only) = r.first() {
                        self.walk(list.element, None, Some(only), path);
                    }
                    self.removed.insert(path);
                }
                _ => {
                    if let Some(only) = l.first() {
                        self.walk(list.element, Some(only), None, path);
                    }
                    self.added.insert(path);
                }
            }
            path.pop();
        }
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
