//! JSON patch (RFC 6902), in the dialect of the library that kube-apiserver uses: negative indices count from the end,
//! and `replace` sets a key that is not there.

use super::{PatchError, Patched};
use crate::decode::{Mode, json_patch_operations};
use serde_json::Value;

/// The most operations a patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// The most that `copy` operations may add together, in values. Upstream limits the bytes of the request and of the
/// stored object only, which does not stop a patch that doubles its document at every step.
const MAX_COPIED: usize = 1_000_000;

/// One operation of a patch.
#[derive(Debug, Default)]
pub struct Operation {
    /// `add`, `remove`, `replace`, `move`, `copy` or `test`.
    pub op: Option<String>,
    /// Where.
    pub path: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// What.
    pub value: Option<Value>,
}

/// Applies a JSON patch.
pub fn json_patch(doc: &Value, patch: &[u8], mode: Mode) -> Result<Patched, PatchError> {
    let (operations, strict) = json_patch_operations(patch, mode)
        .map_err(|e| PatchError::bad_request(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        let n = operations.len();
        let message = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {n}");
        return Err(PatchError::new(413, message));
    }
    let mut value = doc.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut value, &operation, &mut copied).map_err(PatchError::unprocessable)?;
    }
    Ok(Patched { value, strict })
}

const MISSING: &str = "missing value";
const INVALID_INDEX: &str = "invalid index referenced";

fn apply(doc: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), String> {
    let kind = operation.op.as_deref().unwrap_or("unknown");
    let path = |verb: &str| {
        operation
            .path
            .as_deref()
            .ok_or_else(|| format!("{verb} operation failed to decode path: operation missing path field: {MISSING}"))
    };
    let from = |verb: &str| {
        operation
            .from
            .as_deref()
            .ok_or_else(|| format!("{verb} operation failed to decode from: operation, missing from field: {MISSING}"))
    };
    match kind {
        "add" => {
            let path = operation.path.as_deref().ok_or(format!("add operation failed to decode path: {MISSING}"))?;
            let (parent, key) = find(doc, path)
                .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
            let value = operation.value.clone().unwrap_or(Value::Null);
            add(parent, &key, value).map_err(|e| format!("error in add for path: '{path}': {e}"))
        }
        "remove" => {
            let path = operation.path.as_deref().ok_or(format!("remove operation failed to decode path: {MISSING}"))?;
            let (parent, key) = find(doc, path).ok_or_else(|| {
                format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}")
            })?;
            remove(parent, &key).map(|_| ()).map_err(|e| format!("error in remove for path: '{path}': {e}"))
        }
        "replace" => {
            let path = path("replace")?;
            let value = operation.value.clone().unwrap_or(Value::Null);
            if path.is_empty() {
                if !value.is_object() && !value.is_array() {
                    return Err("replace operation value must be object or array: %!w(<nil>)".to_owned());
                }
                *doc = value;
                return Ok(());
            }
            let (parent, key) = find(doc, path)
                .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: {MISSING}"))?;
            match parent {
                Value::Object(map) => {
                    map.insert(key, value);
                }
                Value::Array(items) => {
                    let at = index(&key, items.len(), items.len()).map_err(|_| {
                        format!("replace operation does not apply: doc is missing key: {path}: {MISSING}")
                    })?;
                    items[at] = value;
                }
                _ => {}
            }
            Ok(())
        }
        "move" => {
            let from = from("move")?;
            let (parent, key) = find(doc, from)
                .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
            let value = remove(parent, &key).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
            let path = path("move")?;
            let (parent, key) = find(doc, path).ok_or_else(|| {
                format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}")
            })?;
            add(parent, &key, value).map_err(|e| format!("error in move for path: '{path}': {e}"))
        }
        "copy" => {
            let from = from("copy")?;
            let (parent, key) = find(doc, from)
                .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
            let value = get(parent, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?;
            let value = value.cloned().unwrap_or(Value::Null);
            *copied += count(&value);
            if *copied > MAX_COPIED {
                return Err(
                    "Unable to complete the copy, the accumulated size increase of copy is too large".to_owned()
                );
            }
            let path = operation.path.as_deref().ok_or(format!("copy operation failed to decode path: {MISSING}"))?;
            let (parent, key) = find(doc, path).ok_or_else(|| {
                format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}")
            })?;
            add(parent, &key, value).map_err(|e| format!("error while adding value during copy: {e}"))
        }
        "test" => {
            let path = path("test")?;
            let expect = operation.value.as_ref().unwrap_or(&Value::Null);
            let found = if path.is_empty() {
                &*doc
            } else {
                let (parent, key) = find(doc, path)
                    .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
                let found = get(parent, &key).map_err(|e| format!("error in test for path: '{path}': {e}"))?;
                found.unwrap_or(&Value::Null)
            };
            if found == expect { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(a) => a.iter().map(count).sum(),
        Value::Object(o) => o.values().map(count).sum(),
        _ => 0,
    }
}

fn decode_key(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The container that a path's last part belongs to, and that part.
fn find<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut parts = path.split('/');
    parts.next();
    let mut parts: Vec<String> = parts.map(decode_key).collect();
    let last = parts.pop()?;
    let mut at = doc;
    for part in parts {
        at = match at {
            Value::Object(map) => map.get_mut(&part)?,
            Value::Array(items) => {
                let i = index(&part, items.len(), items.len()).ok()?;
                items.get_mut(i)?
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then_some((at, last))
}

/// An index below `limit`; a negative one counts back from `len`.
fn index(key: &str, len: usize, limit: usize) -> Result<usize, String> {
    let i: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing \"{key}\": invalid syntax"))?;
    let at = if i < 0 { i + len as i64 } else { i };
    match usize::try_from(at) {
        Ok(at) if at < limit => Ok(at),
        _ => Err(format!("Unable to access invalid index: {i}: {INVALID_INDEX}")),
    }
}

fn get<'a>(parent: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match parent {
        Value::Array(items) => Ok(items.get(index(key, items.len(), items.len())?)),
        other => Ok(other.get(key)),
    }
}

fn add(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            if key.parse::<i64>().is_err() {
                return Err(format!(
                    "value was not a proper array index: '{key}': strconv.Atoi: parsing \"{key}\": invalid syntax"
                ));
            }
            let at = index(key, items.len() + 1, items.len() + 1)?;
            items.insert(at, value);
        }
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        _ => {}
    }
    Ok(())
}

fn remove(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Array(items) => {
            let at = index(key, items.len(), items.len())?;
            Ok(items.remove(at))
        }
        other => other
            .as_object_mut()
            .and_then(|map| map.remove(key))
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
    }
}
