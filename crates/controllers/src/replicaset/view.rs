//! The narrow form of a ReplicaSet or ReplicationController.

use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pintle_api::Object;
use pintle_api::selector::Selector;
use pintle_client::Meta;
use pintle_client::meta::HasMeta;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::support::owned::Selects;

/// An owner of replicas.
#[derive(Debug)]
pub struct Owner {
    pub metadata: Meta,
    pub replicas: usize,
    pub min_ready_seconds: i32,
    pub selector: Selector,
    pub template: Template,
    /// Of either kind: their statuses have the same fields.
    pub status: ReplicaSetStatus,
    /// Only a ReplicaSet's status counts terminating pods.
    pub counts_terminating: bool,
}

/// A pod template whose spec is handed on as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template {
    pub metadata: Meta,
    pub spec: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    kind: &'a str,
    metadata: Meta,
    #[serde(borrow)]
    spec: WireSpec<'a>,
    #[serde(default)]
    status: ReplicaSetStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec<'a> {
    replicas: Option<i32>,
    #[serde(default)]
    min_ready_seconds: i32,
    #[serde(borrow)]
    selector: Option<&'a RawValue>,
    #[serde(default)]
    template: Template,
}

impl HasMeta for Owner {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Selects for Owner {
    fn selector(&self) -> &Selector {
        &self.selector
    }
}

impl Owner {
    pub fn decode(object: &Object) -> serde_json::Result<Self> {
        let wire: Wire = object.view()?;
        let text = wire.spec.selector.map_or("null", RawValue::get);
        // A label selector has these members; a plain map of labels has others. Items of lists carry no kind.
        let plain = wire.kind == "ReplicationController"
            || (wire.kind.is_empty() && !text.contains("\"matchLabels\"") && !text.contains("\"matchExpressions\""));
        let selector = if plain {
            LabelSelector { match_labels: serde_json::from_str(text)?, ..LabelSelector::default() }
        } else {
            serde_json::from_str::<Option<LabelSelector>>(text)?.unwrap_or_default()
        };
        let mut parsed = Selector::from_object(Some(&selector)).map_err(serde_json::Error::custom)?;
        if parsed.is_everything() {
            // An empty selector is invalid; it must never claim every pod of the namespace.
            parsed = Selector::nothing();
        }
        Ok(Self {
            metadata: wire.metadata,
            replicas: usize::try_from(wire.spec.replicas.unwrap_or(1)).unwrap_or(0),
            min_ready_seconds: wire.spec.min_ready_seconds,
            selector: parsed,
            template: wire.spec.template,
            status: wire.status,
            counts_terminating: !plain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds() {
        for (text, matches) in [
            (
                r#"{"kind":"ReplicaSet","metadata":{"name":"a"},"spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"}}}}"#,
                true,
            ),
            (
                r#"{"metadata":{"name":"a"},"spec":{"selector":{"matchExpressions":[{"key":"a","operator":"Exists"}]}}}"#,
                true,
            ),
            (
                r#"{"kind":"ReplicationController","metadata":{"name":"a"},"spec":{"replicas":3,"selector":{"a":"b"}}}"#,
                true,
            ),
            (r#"{"metadata":{"name":"a"},"spec":{"selector":{"a":"b"}}}"#, true),
            (r#"{"kind":"ReplicaSet","metadata":{"name":"a"},"spec":{"selector":{}}}"#, false),
            (r#"{"kind":"ReplicaSet","metadata":{"name":"a"},"spec":{}}"#, false),
        ] {
            let o = Owner::decode(&Object::from_wire(text.into(), &[]).unwrap()).unwrap();
            assert_eq!(o.selector.matches(|k| (k == "a").then_some("b")), matches, "{text}");
        }
    }
}
