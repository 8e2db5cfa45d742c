//! JSON merge patch (RFC 7386).

use super::{PatchError, Patched};
use crate::decode::{Mode, decode_json_untyped};
use serde_json::Value;

/// Applies a JSON merge patch.
pub fn merge_patch(doc: &Value, patch: &[u8], mode: Mode) -> Result<Patched, PatchError> {
    let decoded =
        decode_json_untyped(patch, mode).map_err(|e| PatchError::bad_request(format!("error decoding patch: {e}")))?;
    let mut value = doc.clone();
    merge(&mut value, decoded.value);
    Ok(Patched { value, strict: decoded.strict })
}

fn merge(doc: &mut Value, patch: Value) {
    match (doc, patch) {
        (Value::Object(doc), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    doc.remove(&key);
                } else if let Some(current) = doc.get_mut(&key).filter(|c| !c.is_null()) {
                    merge(current, value);
                } else {
                    doc.insert(key, without_nulls(value));
                }
            }
        }
        (doc @ Value::Object(_), patch) => *doc = patch,
        (doc, patch) => *doc = without_nulls(patch),
    }
}

/// A value as it is set where there was none: entries that are null say nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
