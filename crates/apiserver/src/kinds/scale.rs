//! The `scale` sub-resource: `autoscaling/v1` `Scale` as a view of a workload.

use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Map, Value, json};

use super::{meta, value};

/// Where a kind keeps what `Scale` shows.
pub struct Mapping {
    /// The wanted number of replicas.
    pub spec_replicas: &'static [&'static str],
    /// The number there are.
    pub status_replicas: &'static [&'static str],
    /// The pods' selector: a `LabelSelector`, or a plain map of labels.
    pub selector: &'static [&'static str],
}

/// The mapping of the built-in workloads.
pub static WORKLOAD: Mapping = Mapping {
    spec_replicas: &["spec", "replicas"],
    status_replicas: &["status", "replicas"],
    selector: &["spec", "selector"],
};

impl Mapping {
    /// The `Scale` of an object.
    pub fn to_scale(&self, object: &Value) -> Value {
        let mut metadata = Map::new();
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(v) = value::at(object, &["metadata", key]) {
                metadata.insert(key.to_owned(), v.clone());
            }
        }
        let mut spec = Map::new();
        let wanted = value::int_at(object, self.spec_replicas);
        if wanted != 0 {
            spec.insert("replicas".into(), wanted.into());
        }
        let mut status = Map::new();
        status.insert("replicas".into(), value::int_at(object, self.status_replicas).into());
        let selector = value::at(object, self.selector).map(selector_text).unwrap_or_default();
        if !selector.is_empty() {
            status.insert("selector".into(), selector.into());
        }
        json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        })
    }

    /// Writes a `Scale`'s wanted number, and the version it was read at, into the object.
    pub fn apply(&self, object: &mut Value, scale: &Value) {
        value::set(object, self.spec_replicas, value::int_at(scale, &["spec", "replicas"]));
        value::copy(object, scale, &["metadata", "resourceVersion"]);
    }

    /// Writes the wanted number.
    pub fn set_replicas(&self, object: &mut Value, replicas: i64) {
        value::set(object, self.spec_replicas, replicas);
    }

    /// Checks a `Scale`.
    pub fn validate(&self, scale: &Cursor<'_>, errors: &mut Errors) {
        meta::validate(scale, true, super::names::subdomain, errors);
        let replicas = scale.get("spec").get("replicas");
        if replicas.int() < 0 {
            errors.invalid_value(&replicas, replicas.int(), meta::NOT_NEGATIVE);
        }
    }
}

/// A selector as text: `a=b,c in (d,e),!f`, keys sorted.
pub fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    let structured =
        selector.get("matchLabels").is_some_and(Value::is_object) || selector.get("matchExpressions").is_some();
    let labels = if structured { selector.get("matchLabels") } else { Some(selector) };
    for (k, v) in labels.and_then(Value::as_object).into_iter().flatten() {
        terms.push((k.clone(), format!("{k}={}", v.as_str().unwrap_or(""))));
    }
    if structured {
        for term in value::items_at(selector, &["matchExpressions"]) {
            let key = value::str_at(term, &["key"]);
            let mut values: Vec<&str> = value::items_at(term, &["values"]).iter().filter_map(Value::as_str).collect();
            values.sort_unstable();
            let values = values.join(",");
            let text = match value::str_at(term, &["operator"]) {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.to_owned(),
            };
            terms.push((key.to_owned(), text));
        }
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views() {
        let deployment = json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "z"}, "matchExpressions":
                [{"key": "a", "operator": "In", "values": ["2", "1"]}, {"key": "b", "operator": "DoesNotExist"}]}},
            "status": {"replicas": 2},
        });
        let scale = WORKLOAD.to_scale(&deployment);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a in (1,2),app=z,!b"}));
        assert_eq!(scale["metadata"].as_object().unwrap().len(), 4);
        let mut back = deployment.clone();
        WORKLOAD.apply(&mut back, &json!({"metadata": {"resourceVersion": "6"}, "spec": {}}));
        assert_eq!((&back["spec"]["replicas"], &back["metadata"]["resourceVersion"]), (&json!(0), &json!("6")));
        assert_eq!(selector_text(&json!({"b": "2", "a": "1"})), "a=1,b=2");
    }

    #[test]
    fn rejects() {
        let scale = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"replicas": -1}});
        let mut errors = Errors::new();
        WORKLOAD.validate(&Cursor::root(&scale), &mut errors);
        assert_eq!(errors.to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    }
}
