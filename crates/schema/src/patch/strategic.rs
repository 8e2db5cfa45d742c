//! Strategic merge patch: lists are merged by the keys and strategies of the table, and directives in the patch say
//! what merging alone cannot.

use super::{PatchError, Patched};
use crate::decode::{Mode, decode_json_untyped};
use crate::table::{Base, Form, Type};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a type of the table.
pub fn strategic_merge_patch(doc: &Value, patch: &[u8], ty: &'static Type, mode: Mode) -> Result<Patched, PatchError> {
    let decoded = decode_json_untyped(patch, mode).map_err(|e| PatchError::bad_request(e.to_string()))?;
    let (Value::Object(doc), Value::Object(patch)) = (doc.clone(), decoded.value) else {
        return Err(PatchError::bad_request("invalid JSON document"));
    };
    let value = merge_map(doc, patch, Schema::Struct(ty))?;
    Ok(Patched { value: Value::Object(value), strict: decoded.strict })
}

/// What is known of the place being merged.
#[derive(Clone, Copy)]
enum Schema {
    Struct(&'static Type),
    /// Anything else, by Go's word for its kind.
    Other(&'static str),
}

struct Meta {
    schema: Schema,
    merge: bool,
    key: Option<&'static str>,
}

impl Schema {
    fn field(self, name: &str) -> Result<Meta, PatchError> {
        let ty = match self {
            Schema::Struct(ty) => ty,
            Schema::Other(kind) => {
                let message = format!("merging an object in json but data type is not struct, instead is: {kind}");
                return Err(PatchError::new(500, message));
            }
        };
        let field = ty.field(name).ok_or_else(|| {
            let message = format!("unable to find api field in struct {} for the json field {name:?}", ty.name);
            PatchError::new(500, message)
        })?;
        let schema = match (field.form, field.base) {
            (Form::Map, _) => Schema::Other("map"),
            (_, Base::Struct(id)) => Schema::Struct(id.get()),
            (_, Base::Str) => Schema::Other("string"),
            (_, base) if base.is_go_struct() => Schema::Other("struct"),
            _ => Schema::Other("slice"),
        };
        Ok(Meta { schema, merge: field.merge, key: field.merge_key })
    }
}

fn error(message: impl Into<String>) -> PatchError {
    PatchError::new(500, message)
}

fn bad_set_order() -> PatchError {
    PatchError::bad_request("invalid patch format of setElementOrder list")
}

fn bad_retain_keys() -> PatchError {
    PatchError::bad_request("invalid patch format of retainKeys")
}

fn no_merge_key(item: &Object, key: &str) -> PatchError {
    error(format!("map: {} does not contain declared merge key: {key}", go_text(&Value::Object(item.clone()))))
}

fn bad_type(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    error(format!("expected a {expected}, but received a {actual}"))
}

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

fn merge_map(mut original: Object, mut patch: Object, schema: Schema) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => {
                let text = go_text(directive);
                Err(error(format!("unknown patch type: {text} in map: {}", go_text(&Value::Object(patch)))))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM_LIST) {
            Some(rest) => match rest.strip_prefix('/') {
                Some(name) => (name.to_owned(), true),
                None => return Err(PatchError::bad_request("invalid patch format of primitive list")),
            },
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(current) = original.get_mut(&key) else {
            if !deletes {
                set(&mut original, key, value);
            }
            continue;
        };
        match (current.take(), value) {
            (Value::Object(current), Value::Object(value)) => {
                let meta = schema.field(&key)?;
                let merged = merge_map(current, value, meta.schema)?;
                original.insert(key, Value::Object(merged));
            }
            (Value::Array(current), Value::Array(value)) => {
                let meta = schema.field(&key)?;
                let merged = if meta.merge || deletes { merge_list(current, value, &meta, deletes)? } else { value };
                original.insert(key, Value::Array(merged));
            }
            (current, _) if deletes => {
                original.insert(key, current);
            }
            (_, value) => set(&mut original, key, value),
        }
    }
    Ok(original)
}

/// Takes the patch's value as it is, but for nulls and what only directs.
fn set(original: &mut Object, key: String, mut value: Value) {
    discard_nulls(&mut value);
    match without_directives(value) {
        Some(value) => {
            original.insert(key, value);
        }
        None => {
            original.remove(&key);
        }
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keep) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keep) = keep else { return Err(bad_retain_keys()) };
    let keep: HashSet<&str> = keep.iter().filter_map(Value::as_str).collect();
    let directs = |k: &str| k.starts_with(DELETE_FROM_LIST) || k.starts_with(SET_ORDER);
    if patch.iter().any(|(k, v)| !v.is_null() && !directs(k) && !keep.contains(k.as_str())) {
        return Err(bad_retain_keys());
    }
    original.retain(|k, _| keep.contains(k.as_str()));
    Ok(())
}

/// Merges each list for which the patch gives an order, and puts it in that order.
fn set_orders(original: &mut Object, patch: &mut Object, schema: Schema) -> Result<(), PatchError> {
    let keys: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for key in keys {
        let order = match patch.remove(&key) {
            Some(Value::Array(order)) => order,
            Some(other) => return Err(bad_type("[]interface {}", &other)),
            None => continue,
        };
        let Some((SET_ORDER, name)) = key.split_once('/') else { return Err(bad_set_order()) };
        let list = |of: &Object| match of.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(bad_type("[]interface {}", other)),
        };
        let (current, change) = (list(original)?, list(patch)?);
        let meta = schema.field(name)?;
        check_order(change.as_deref().unwrap_or_default(), &order, meta.key)?;
        let merged = match (&current, &change) {
            (None, None) => continue,
            (Some(current), None) => current.clone(),
            (None, Some(change)) => change.iter().cloned().filter_map(without_directives).collect(),
            (Some(current), Some(change)) if meta.merge => merge_list(current.clone(), change.clone(), &meta, false)?,
            (Some(_), Some(change)) => change.clone(),
        };
        let maps = element_kind([current.as_deref(), change.as_deref()].into_iter().flatten())?;
        let merged = in_order(merged, &order, current.as_deref().unwrap_or_default(), meta.key, maps)?;
        original.insert(name.to_owned(), Value::Array(merged));
        patch.remove(name);
    }
    Ok(())
}

/// The items of the patch must come in the order given, and all be named by it.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in change {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        let identity = identity(item, key)?;
        let mut found = false;
        for candidate in rest.by_ref() {
            if self::identity(candidate, key)? == identity {
                found = true;
                break;
            }
        }
        if !found {
            let (change, order) = (go_text(&Value::from(change.to_vec())), go_text(&Value::from(order.to_vec())));
            return Err(error(format!(
                "The order in patch list:\n{change}\n doesn't match {SET_ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

/// What an item is known by: its merge key's value, or for scalars itself. As text, so that it can be looked up.
fn identity(item: &Value, key: Option<&str>) -> Result<String, PatchError> {
    match (key, item) {
        (None, item) => Ok(item.to_string()),
        (Some(key), Value::Object(map)) => map.get(key).map(Value::to_string).ok_or_else(|| no_merge_key(map, key)),
        (Some(_), other) => Err(bad_type("map[string]interface {}", other)),
    }
}

/// Whether all items of the lists are maps; they must be of one type, and not lists.
fn element_kind<'a>(lists: impl Iterator<Item = &'a [Value]>) -> Result<bool, PatchError> {
    let lists: Vec<&[Value]> = lists.collect();
    let mut kind = None;
    for item in lists.iter().copied().flatten() {
        if item.is_array() {
            return Err(PatchError::unprocessable("lists of lists are not supported"));
        }
        let of_item = match item {
            Value::Number(n) => 10 + u8::from(n.is_f64()),
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::String(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
        };
        if *kind.get_or_insert(of_item) != of_item {
            let all: Vec<_> = lists.iter().map(|l| go_text(&Value::from(l.to_vec()))).collect();
            return Err(error(format!("list element types are not identical: [{}]", all.join(" "))));
        }
    }
    kind.map(|k| k == 4).ok_or_else(|| error("no elements in any of the given slices"))
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, meta: &Meta, deletes: bool) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = element_kind([original.as_slice(), patch.as_slice()].into_iter())?;
    if !maps {
        if deletes {
            let gone: HashSet<String> = patch.iter().map(Value::to_string).collect();
            return Ok(original.into_iter().filter(|v| !gone.contains(&v.to_string())).collect());
        }
        let mut seen = HashSet::new();
        let all = original.iter().chain(&patch).filter(|v| seen.insert(v.to_string())).cloned().collect();
        return in_order(all, &patch, &original, meta.key, false);
    }
    let Some(key) = meta.key else {
        let kind = match meta.schema {
            Schema::Struct(_) => "struct",
            Schema::Other(kind) => kind,
        };
        return Err(error(format!("cannot merge lists without merge key for {kind}")));
    };
    let (original, patch) = special_items(original, patch, key)?;
    let merged = merge_items(original.clone(), &patch, key, meta.schema)?;
    in_order(merged, &patch, &original, Some(key), true)
}

/// Carries out the items that direct, and takes them out of the patch.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = vec![];
    let mut gone = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else { continue };
        match map.get(DIRECTIVE).map(|d| (d, d.as_str())) {
            None => rest.push(item),
            Some((_, Some("delete"))) => {
                gone.insert(map.get(key).ok_or_else(|| no_merge_key(map, key))?.to_string());
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => return Err(error("merging lists cannot yet be specified in the patch")),
            Some((d, _)) => {
                return Err(error(format!("unknown patch type: {} in map: {}", go_text(d), go_text(&item))));
            }
        }
    }
    if replace {
        return Ok((rest, vec![]));
    }
    original.retain(|item| item.get(key).is_none_or(|v| !gone.contains(&v.to_string())));
    Ok((original, rest))
}

fn merge_items(mut original: Vec<Value>, patch: &[Value], key: &str, schema: Schema) -> Result<Vec<Value>, PatchError> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (i, item) in original.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(value.to_string()).or_insert(i);
        }
    }
    for item in patch {
        let Value::Object(change) = item else { continue };
        let identity = change.get(key).ok_or_else(|| no_merge_key(change, key))?.to_string();
        match places.get(&identity) {
            Some(&at) => {
                if let Value::Object(current) = original[at].take() {
                    original[at] = Value::Object(merge_map(current, change.clone(), schema)?);
                }
            }
            None => {
                places.insert(identity, original.len());
                original.push(item.clone());
            }
        }
    }
    Ok(original)
}

/// Puts the items that the patch names in the patch's order, and the others among them as they were in the original.
fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    original: &[Value],
    key: Option<&str>,
    maps: bool,
) -> Result<Vec<Value>, PatchError> {
    let key = if maps { key } else { None };
    let places = |list: &[Value]| -> Result<HashMap<String, usize>, PatchError> {
        let mut places = HashMap::new();
        for (i, item) in list.iter().enumerate() {
            places.entry(identity(item, key)?).or_insert(i);
        }
        Ok(places)
    };
    let (order, before) = (places(order)?, places(original)?);
    let (mut named, mut others) = (vec![], vec![]);
    for item in merged {
        let identity = identity(&item, key)?;
        match order.get(&identity) {
            Some(&at) => named.push((at, before.get(&identity).copied(), item)),
            None => others.push((before.get(&identity).copied(), item)),
        }
    }
    named.sort_by_key(|n| n.0);
    others.sort_by_key(|o| o.0.unwrap_or(usize::MAX));
    let mut all = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(all),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((Some(other), _)), Some((_, Some(named), _))) => other < named,
            _ => false,
        };
        if other_first {
            all.extend(others.next().map(|o| o.1));
        } else {
            all.extend(named.next().map(|n| n.2));
        }
    }
}
