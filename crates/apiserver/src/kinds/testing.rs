//! What the tests of kinds share.

use jiff::Timestamp;
use pintle_api::features::FeatureGates;
use pintle_api::resources;
use pintle_api::service::UserInfo;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::{Ctx, strategy, value};

/// Runs `f` with the context of a write of this kind by `alice` at a fixed time.
pub fn with_ctx<T>(api_version: &str, kind: &str, f: impl FnOnce(&Ctx<'_>) -> T) -> T {
    with_features(FeatureGates::default(), api_version, kind, f)
}

/// The same with these features.
pub fn with_features<T>(features: FeatureGates, api_version: &str, kind: &str, f: impl FnOnce(&Ctx<'_>) -> T) -> T {
    let user = UserInfo::authenticated("alice", &["devs"]);
    let resource = resources::by_kind(api_version, kind).expect("a built-in kind");
    let namespace = if resource.namespaced { "ns" } else { "" };
    let now = Timestamp::from_second(1_700_000_000).expect("in range");
    f(&Ctx {
        resource,
        requested: resource,
        namespace,
        user: &user,
        now,
        features,
        notes: parking_lot::Mutex::default(),
    })
}

fn kind(object: &Value) -> (&str, &str) {
    (value::str_at(object, &["apiVersion"]), value::str_at(object, &["kind"]))
}

fn lines(errors: &Errors) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What creating the object is refused for, one error a line.
pub fn create_errors(object: &Value) -> String {
    let (api_version, kind) = kind(object);
    with_ctx(api_version, kind, |ctx| {
        let mut errors = Errors::new();
        strategy(ctx.resource).validate_create(ctx, &Cursor::root(object), &mut errors);
        lines(&errors)
    })
}

/// What updating the object is refused for, one error a line.
pub fn update_errors(new: &Value, old: &Value) -> String {
    let (api_version, kind) = kind(old);
    with_ctx(api_version, kind, |ctx| {
        let mut errors = Errors::new();
        strategy(ctx.resource).validate_update(ctx, &Cursor::root(new), &Cursor::root(old), &mut errors);
        lines(&errors)
    })
}

/// What updating the object's status is refused for, one error a line.
pub fn status_errors(new: &Value, old: &Value) -> String {
    let (api_version, kind) = kind(old);
    with_ctx(api_version, kind, |ctx| {
        let mut errors = Errors::new();
        let sub = strategy(ctx.resource).subresource("status").expect("a status");
        sub.validate_update(ctx, &Cursor::root(new), &Cursor::root(old), &mut errors);
        lines(&errors)
    })
}

/// The object with the value at a path changed, or removed when `to` is null. A number in the path is a list index.
pub fn changed(object: &Value, path: &str, to: Value) -> Value {
    let mut out = object.clone();
    let mut here = &mut out;
    let mut steps = path.split('/').peekable();
    while let Some(step) = steps.next() {
        let last = steps.peek().is_none();
        if let Ok(index) = step.parse::<usize>() {
            let list = here.as_array_mut().expect("a list");
            if index == list.len() {
                list.push(Value::Null);
            }
            here = &mut list[index];
        } else if last && to.is_null() {
            here.as_object_mut().expect("an object").remove(step);
            return out;
        } else {
            if here.is_null() {
                *here = Value::Object(serde_json::Map::new());
            }
            here = here.as_object_mut().expect("an object").entry(step).or_insert(Value::Null);
        }
    }
    *here = to;
    out
}

/// The row of an object `age` seconds after the time `2024-01-01T00:00:00Z`.
pub fn row(object: &Value, age: i64) -> Vec<Value> {
    let (api_version, kind) = kind(object);
    let resource = resources::by_kind(api_version, kind).expect("a built-in kind");
    let strategy = strategy(resource);
    let created: Timestamp = "2024-01-01T00:00:00Z".parse().expect("a time");
    let now = Timestamp::from_second(created.as_second() + age).expect("in range");
    let row = (strategy.row)(&Cursor::root(object), now);
    assert_eq!(row.len(), strategy.columns.len(), "a cell for each column");
    row
}
