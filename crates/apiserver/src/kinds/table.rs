//! Tables: what `kubectl get` shows of each kind.

use jiff::Timestamp;
use pintle_api::time;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

/// A column of a Table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the object's name.
    pub format: &'static str,
    /// 0 always shown, 1 shown with `-o wide`.
    pub priority: i32,
    /// What it means; `@Type.field` stands for the documentation of that field.
    pub description: &'static str,
}

impl Column {
    /// The object's name.
    pub const NAME: Column =
        Column { name: "Name", kind: "string", format: "name", priority: 0, description: "@ObjectMeta.name" };
    /// How long ago the object was created.
    pub const AGE: Column = text("Age", CREATED);
    /// When the object was created.
    pub const CREATED_AT: Column = Column { kind: "date", ..text("Created At", CREATED) };

    /// The same column, shown only with `-o wide`.
    pub const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
}

const CREATED: &str = "@ObjectMeta.creationTimestamp";

/// A column of text.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..text(name, description) }
}

/// A column of booleans.
pub const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..text(name, description) }
}

/// The columns of kinds that have none of their own.
pub const DEFAULT_COLUMNS: &[Column] = &[Column::NAME, Column::CREATED_AT];

/// The row of kinds that have no columns of their own.
pub fn default_row(object: &Cursor<'_>, _now: Timestamp) -> Vec<Value> {
    vec![name(object), object.get("metadata").get("creationTimestamp").str().into()]
}

/// The cell of [`Column::NAME`].
pub fn name(object: &Cursor<'_>) -> Value {
    object.get("metadata").get("name").str().into()
}

/// The cell of [`Column::AGE`].
pub fn age(object: &Cursor<'_>, now: Timestamp) -> Value {
    since(&object.get("metadata").get("creationTimestamp"), now).into()
}

/// How long ago a time was, or `<unknown>`.
pub fn since(at: &Cursor<'_>, now: Timestamp) -> String {
    time::parse(at.str()).map_or_else(|| "<unknown>".to_owned(), |t| time::human_duration(seconds(t, now)))
}

/// How long until a time, or `<unknown>`.
pub fn until(at: &Cursor<'_>, now: Timestamp) -> String {
    time::parse(at.str()).map_or_else(|| "<unknown>".to_owned(), |t| time::human_duration(seconds(now, t)))
}

/// Whole seconds from one time to another, rounded towards zero.
pub fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from((to.as_nanosecond() - from.as_nanosecond()) / 1_000_000_000).unwrap_or(i64::MAX)
}

/// `a=b,c=d`, or `<none>`.
pub fn label_pairs(map: &Cursor<'_>) -> String {
    let pairs: Vec<String> = map.entries().map(|(k, v)| format!("{k}={}", v.str())).collect();
    or_none(pairs.join(","))
}

/// The text, or `<none>` when empty.
pub fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// The text, or `<unset>` when empty.
pub fn or_unset(text: &str) -> String {
    if text.is_empty() { "<unset>".to_owned() } else { text.to_owned() }
}

/// The names and the images of a pod spec's containers, each joined by commas.
pub fn containers(spec: &Cursor<'_>) -> [Value; 2] {
    let join =
        |field| spec.get("containers").items().map(|c| c.get(field).str().to_owned()).collect::<Vec<_>>().join(",");
    [join("name").into(), join("image").into()]
}

/// `ready/total`.
pub fn ratio(part: i64, of: i64) -> Value {
    format!("{part}/{of}").into()
}

/// The first three, and how many more there are.
pub fn first_three(mut list: Vec<String>, empty: &str) -> String {
    let count = list.len();
    list.truncate(3);
    match (count, list.join(",")) {
        (4.., shown) => format!("{shown} + {} more...", count - 3),
        (_, shown) if shown.is_empty() => empty.to_owned(),
        (_, shown) => shown,
    }
}

/// An int-or-string as text.
pub fn int_or_string(value: &Cursor<'_>) -> Option<String> {
    value.opt_str().map(str::to_owned).or_else(|| value.opt_int().map(|i| i.to_string()))
}

/// Whether a condition of this type has the status `True`.
pub fn has_condition(object: &Cursor<'_>, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c.get("status").str() == "True")
}

/// The first condition of this type.
pub fn condition<'a>(object: &Cursor<'a>, kind: &str) -> Option<Cursor<'a>> {
    object.get("status").get("conditions").items().find(|c| c.get("type").str() == kind)
}

/// A `LabelSelector` as text, as upstream's `FormatLabelSelector`: `<none>` when it says nothing or is invalid.
pub fn selector(selector: &Cursor<'_>) -> String {
    or_none(selector.value().map(super::scale::selector_text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let object =
            json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}, "l": {"b": "c", "a": "x"}});
        let root = Cursor::root(&object);
        let now = time::parse("2024-01-01T00:03:02Z").unwrap();
        assert_eq!(default_row(&root, now), [json!("a"), json!("2024-01-01T00:00:00Z")]);
        assert_eq!(age(&root, now), "3m2s");
        assert_eq!(since(&root.get("nothing"), now), "<unknown>");
        assert_eq!(label_pairs(&root.get("l")), "a=x,b=c");
        assert_eq!(label_pairs(&root.get("nothing")), "<none>");
    }
}
