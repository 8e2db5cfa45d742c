//! Reading and changing JSON trees, as the prepare steps do.

use pintle_schema::cursor::Cursor;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// A cursor with nothing under it, to stand for an old object where there is none.
pub fn nothing<'a>() -> Cursor<'a> {
    Cursor::root(&NULL)
}

/// The value at a path of fields, unless absent or null.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The string at a path, or "".
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The integer at a path, or 0.
pub fn int_at(value: &Value, path: &[&str]) -> i64 {
    at(value, path).and_then(Value::as_i64).unwrap_or(0)
}

/// The boolean at a path, or false.
pub fn bool_at(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The items of the list at a path; none when absent.
pub fn items_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The value at a path, whose parents are made when missing. `None` when a parent is something else than an object.
pub fn entry<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let mut here = value;
    for key in path {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        here = here.as_object_mut()?.entry(*key).or_insert(Value::Null);
    }
    Some(here)
}

/// Sets the value at a path; a no-op where a parent is not an object (then validation has complained).
pub fn set(value: &mut Value, path: &[&str], to: impl Into<Value>) {
    if let Some(place) = entry(value, path) {
        *place = to.into();
    }
}

/// Removes the value at a path and returns it.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut here = value;
    for key in parents {
        here = here.get_mut(*key)?;
    }
    here.as_object_mut()?.remove(*last)
}

/// Makes the value at a path what it is in `from`, absent included.
pub fn copy(to: &mut Value, from: &Value, path: &[&str]) {
    match at(from, path) {
        Some(v) if at(to, path) != Some(v) => set(to, path, v.clone()),
        Some(_) => {}
        None => drop(remove(to, path)),
    }
}

/// Upstream's semantic equality: absent, null and an empty list are the same; so are integers however stored.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |v: Option<&Value>| match v {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    match (a, b) {
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.iter().all(|(k, v)| same(Some(v), y.get(k))) && y.iter().all(|(k, v)| x.contains_key(k) || empty(Some(v)))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(Some(v), Some(w)))
        }
        _ if empty(a) => empty(b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes() {
        let mut v = json!({"a": {"b": 1}, "s": "x"});
        set(&mut v, &["a", "c", "d"], 2);
        assert_eq!(v, json!({"a": {"b": 1, "c": {"d": 2}}, "s": "x"}));
        set(&mut v, &["s", "no"], 2);
        assert_eq!(remove(&mut v, &["a", "b"]), Some(json!(1)));
        assert_eq!(remove(&mut v, &["x", "y"]), None);
        copy(&mut v, &json!({"a": {"c": 5}}), &["a", "c"]);
        copy(&mut v, &json!({}), &["s"]);
        assert_eq!(v, json!({"a": {"c": 5}}));
    }

    #[test]
    fn semantic_equality() {
        let check = |a: Value, b: Value, expect: bool| {
            assert_eq!(same(Some(&a), Some(&b)), expect, "{a} {b}");
            assert_eq!(same(Some(&b), Some(&a)), expect, "{b} {a}");
        };
        check(json!({"a": []}), json!({}), true);
        check(json!({"a": null}), json!({}), true);
        check(json!({"a": {}}), json!({}), false);
        check(json!([1]), json!([1, 2]), false);
        check(json!({"a": [{"b": 1}]}), json!({"a": [{"b": 1, "c": null}]}), true);
        check(json!("a"), json!("b"), false);
        assert!(same(None, Some(&json!([]))) && !same(None, Some(&json!(1))));
    }
}
