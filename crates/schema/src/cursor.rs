//! A read view over a JSON value that knows its path, for validators, and the list of field errors they fill.
//!
//! ```
//! use pintle_schema::cursor::{Cursor, Errors};
//! let pod = serde_json::json!({"spec": {"containers": [{"name": ""}]}});
//! let root = Cursor::root(&pod);
//! let mut errors = Errors::new();
//! for container in root.get("spec").get("containers").items() {
//!     let name = container.get("name");
//!     if name.str().is_empty() {
//!         errors.required(&name, "");
//!     }
//! }
//! assert_eq!(errors.to_string(), "spec.containers[0].name: Required value");
//! ```
//!
//! A cursor costs nothing to make: a path node is made only for values that are descended into, and the path becomes
//! text only when an error names it.

use serde_json::{Map, Value};
use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

pub use crate::errors::{BadValue, ErrorKind, Errors, FieldError};

/// A step of a path, and the steps before it.
#[derive(Clone, Debug)]
enum Step<'a> {
    Name(&'a str),
    Key(&'a str),
    Index(usize),
}

#[derive(Debug)]
struct Node<'a> {
    parent: Option<Rc<Node<'a>>>,
    step: Step<'a>,
}

/// A value (or the place where one could be) and its path. A missing value and `null` are alike, as in Go.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    value: Option<&'a Value>,
    parent: Option<Rc<Node<'a>>>,
    step: Option<Step<'a>>,
    node: OnceCell<Rc<Node<'a>>>,
}

impl<'a> Cursor<'a> {
    /// The whole object, with an empty path.
    pub fn root(value: &'a Value) -> Self {
        Cursor { value: present(Some(value)), parent: None, step: None, node: OnceCell::new() }
    }

    /// A value whose path starts with the name `name` (upstream's `field.NewPath(name)`).
    pub fn named(value: Option<&'a Value>, name: &'a str) -> Self {
        Cursor { value: present(value), parent: None, step: Some(Step::Name(name)), node: OnceCell::new() }
    }

    fn child(&self, value: Option<&'a Value>, step: Step<'a>) -> Self {
        let parent = self.step.as_ref().map(|own| {
            self.node.get_or_init(|| Rc::new(Node { parent: self.parent.clone(), step: own.clone() })).clone()
        });
        Cursor { value: present(value), parent, step: Some(step), node: OnceCell::new() }
    }

    /// The field `name` of a struct: `path.name`.
    pub fn get(&self, name: &'a str) -> Self {
        self.child(self.value.and_then(|v| v.get(name)), Step::Name(name))
    }

    /// The entry `key` of a map: `path[key]`.
    pub fn key(&self, key: &'a str) -> Self {
        self.child(self.value.and_then(|v| v.get(key)), Step::Key(key))
    }

    /// The item `index` of a list: `path[index]`.
    pub fn index(&self, index: usize) -> Self {
        self.child(self.value.and_then(|v| v.get(index)), Step::Index(index))
    }

    /// The same value under a further name, for messages about a part that is not a field of the JSON.
    pub fn at(&self, name: &'a str) -> Self {
        self.child(self.value, Step::Name(name))
    }

    /// The items of a list, each with its index; none when absent or not a list.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Cursor<'a>> + '_ {
        let list = self.value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(i, v)| self.child(Some(v), Step::Index(i)))
    }

    /// The entries of a map in key order, each cursor with its key as the last step.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Cursor<'a>)> + '_ {
        let map = self.value.and_then(Value::as_object);
        map.into_iter().flatten().map(|(k, v)| (k.as_str(), self.child(Some(v), Step::Key(k))))
    }

    /// The value, unless absent or null.
    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// True when there is no value here, or null.
    pub fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// True when there is a value here.
    pub fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// True when absent, or an empty string, list or map: Go's zero value of such a field.
    pub fn is_empty(&self) -> bool {
        match self.value {
            None => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(Value::Array(a)) => a.is_empty(),
            Some(Value::Object(o)) => o.is_empty(),
            Some(_) => false,
        }
    }

    /// The number of items or entries; 0 when absent.
    pub fn len(&self) -> usize {
        match self.value {
            Some(Value::Array(a)) => a.len(),
            Some(Value::Object(o)) => o.len(),
            _ => 0,
        }
    }

    /// The string here, or "" (Go's zero value).
    pub fn str(&self) -> &'a str {
        self.opt_str().unwrap_or("")
    }

    /// The string here, if any (a pointer field).
    pub fn opt_str(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    /// The integer here, or 0.
    pub fn int(&self) -> i64 {
        self.opt_int().unwrap_or(0)
    }

    /// The integer here, if any.
    pub fn opt_int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    /// The boolean here, or false.
    pub fn bool(&self) -> bool {
        self.opt_bool().unwrap_or(false)
    }

    /// The boolean here, if any.
    pub fn opt_bool(&self) -> Option<bool> {
        self.value.and_then(Value::as_bool)
    }

    /// The object here, if it is one.
    pub fn object(&self) -> Option<&'a Map<String, Value>> {
        self.value.and_then(Value::as_object)
    }

    /// The list here; empty when absent.
    pub fn list(&self) -> &'a [Value] {
        self.value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The path as text.
    pub fn path(&self) -> String {
        self.to_string()
    }
}

fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

impl fmt::Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write_node(f, parent)?;
        }
        match &self.step {
            Some(step) => write_step(f, step, self.parent.is_none()),
            // Upstream's `(*field.Path)(nil).String()`.
            None => f.write_str("<nil>"),
        }
    }
}

fn write_node(f: &mut fmt::Formatter<'_>, node: &Node<'_>) -> fmt::Result {
    if let Some(parent) = &node.parent {
        write_node(f, parent)?;
    }
    write_step(f, &node.step, node.parent.is_none())
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &Step<'_>, first: bool) -> fmt::Result {
    match step {
        Step::Name(name) if first => f.write_str(name),
        Step::Name(name) => write!(f, ".{name}"),
        Step::Key(key) => write!(f, "[{key}]"),
        Step::Index(index) => write!(f, "[{index}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let v = json!({"metadata": {"labels": {"foo": "x"}}, "spec": {"containers": [{}, {"ports": [{"name": "a"}]}]}});
        let root = Cursor::root(&v);
        assert_eq!(root.path(), "<nil>");
        assert_eq!(root.get("spec").path(), "spec");
        let port = root.get("spec").get("containers").index(1).get("ports").index(0).get("name");
        assert_eq!((port.path().as_str(), port.str()), ("spec.containers[1].ports[0].name", "a"));
        let labels = root.get("metadata").get("labels");
        assert_eq!(labels.key("foo").path(), "metadata.labels[foo]");
        assert_eq!(
            labels.entries().map(|(k, c)| format!("{k}={} {c}", c.str())).collect::<Vec<_>>(),
            ["foo=x metadata.labels[foo]"]
        );
        assert_eq!(Cursor::named(Some(&v), "template").get("spec").path(), "template.spec");
        let missing = root.get("nothing").get("at").index(3).get("all");
        assert!(missing.is_absent() && missing.is_empty() && missing.items().len() == 0);
        assert_eq!(missing.path(), "nothing.at[3].all");
    }

    #[test]
    fn values() {
        let v = json!({"s": "x", "i": 7, "b": true, "n": null, "l": [1, 2], "e": []});
        let c = Cursor::root(&v);
        assert_eq!((c.get("s").str(), c.get("i").int(), c.get("b").bool()), ("x", 7, true));
        assert!(c.get("n").is_absent() && c.get("e").is_present() && c.get("e").is_empty());
        assert_eq!(c.get("l").items().map(|i| i.int()).sum::<i64>(), 3);
        assert_eq!(c.get("s").opt_int(), None);
    }
}
