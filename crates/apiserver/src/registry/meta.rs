//! Reading and changing `metadata` of an object held as a tree.

use serde_json::{Map, Value};

/// The string at `metadata.KEY`, or "".
pub(crate) fn get<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    get(object, "name")
}

/// `metadata.namespace`.
pub(crate) fn namespace(object: &Value) -> &str {
    get(object, "namespace")
}

/// The metadata map, made when missing. `None` when the object is no map or its metadata something else.
pub(crate) fn map(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let m = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if m.is_null() {
        *m = Value::Object(Map::new());
    }
    m.as_object_mut()
}

/// Sets `metadata.KEY`.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(m) = map(object) {
        m.insert(key.to_owned(), value.into());
    }
}

/// Removes `metadata.KEY`.
pub(crate) fn remove(object: &mut Value, key: &str) -> Option<Value> {
    map(object)?.remove(key)
}

/// Whether `metadata.KEY` is there and not null.
pub(crate) fn has(object: &Value, key: &str) -> bool {
    object.get("metadata").and_then(|m| m.get(key)).is_some_and(|v| !v.is_null())
}

/// `metadata.KEY` as an integer.
pub(crate) fn int(object: &Value, key: &str) -> Option<i64> {
    object.get("metadata").and_then(|m| m.get(key)).and_then(Value::as_i64)
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    strings(object.get("metadata").and_then(|m| m.get("finalizers")))
}

/// Sets the finalizers; none removes the field.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        remove(object, "finalizers");
    } else {
        set(object, "finalizers", finalizers);
    }
}

/// The strings of a list.
pub(crate) fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// The value of a label.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// Sets an annotation.
pub(crate) fn set_annotation(object: &mut Value, key: &str, value: &str) {
    if let Some(m) = map(object) {
        let a = m.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if !a.is_object() {
            *a = Value::Object(Map::new());
        }
        a[key] = value.into();
    }
}

/// The resourceVersion as a number: `Ok(None)` when absent or empty.
///
/// # Errors
/// The text that is no number.
pub(crate) fn version(object: &Value) -> Result<Option<u64>, String> {
    match get(object, "resourceVersion") {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| text.to_owned()),
    }
}

/// Erases what only the system may set, before a create.
pub(crate) fn wipe_system_fields(object: &mut Value) {
    if let Some(m) = map(object) {
        for key in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            m.remove(key);
        }
    }
}

/// Drops owner references that occur twice; answers the uids of those dropped.
pub(crate) fn dedup_owner_references(object: &mut Value) -> Vec<String> {
    let Some(refs) =
        object.get_mut("metadata").and_then(|m| m.get_mut("ownerReferences")).and_then(Value::as_array_mut)
    else {
        return Vec::new();
    };
    let mut dropped = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(refs.len());
    for r in refs.drain(..) {
        if kept.contains(&r) {
            dropped.push(r.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        } else {
            kept.push(r);
        }
    }
    *refs = kept;
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut o = json!({"metadata": {"name": "a", "resourceVersion": "5", "uid": "u", "finalizers": ["x"]}});
        assert_eq!((name(&o), version(&o)), ("a", Ok(Some(5))));
        assert_eq!(finalizers(&o), ["x"]);
        wipe_system_fields(&mut o);
        assert!(!has(&o, "uid"));
        set_finalizers(&mut o, vec![]);
        set_annotation(&mut o, "k", "v");
        assert_eq!(o, json!({"metadata": {"name": "a", "resourceVersion": "5", "annotations": {"k": "v"}}}));
        set(&mut o, "resourceVersion", "x");
        assert_eq!(version(&o), Err("x".into()));
        let mut none = json!({});
        set(&mut none, "name", "n");
        assert_eq!(none, json!({"metadata": {"name": "n"}}));
    }

    #[test]
    fn owners_once() {
        let r = json!({"uid": "1", "name": "a"});
        let mut o = json!({"metadata": {"ownerReferences": [r, {"uid": "1", "name": "b"}, r]}});
        assert_eq!(dedup_owner_references(&mut o), ["1"]);
        assert_eq!(o["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    }
}
