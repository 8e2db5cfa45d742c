//! `DefaultTolerationSeconds` and `TaintNodesByCondition`.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::Server;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on a node that is not ready or cannot be reached.
const SECONDS: i64 = 300;

/// A pod tolerates for five minutes that its node is not ready or cannot be reached.
pub(super) struct DefaultTolerationSeconds;

fn tolerates(list: &[Value], key: &str) -> bool {
    list.iter().any(|t| {
        let at = |k: &str| t[k].as_str().unwrap_or_default();
        (at("key") == key || at("key").is_empty()) && matches!(at("effect"), "" | "NoExecute")
    })
}

fn tolerate(pod: &mut Value) {
    let place = &mut pod["spec"]["tolerations"];
    if !place.is_array() {
        *place = json!([]);
    }
    let Some(list) = place.as_array_mut() else { return };
    let missing: Vec<&str> = [NOT_READY, UNREACHABLE].into_iter().filter(|k| !tolerates(list, k)).collect();
    for key in missing {
        list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
    }
}

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.is("", "pods") && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, _server: &Server, _a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        tolerate(pod);
        Ok(())
    }
}

/// A new node takes no pods until it says that it is ready.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.is("", "nodes") && a.operation == Operation::Create
    }

    async fn admit(&self, _server: &Server, _a: &Attributes<'_>, node: &mut Value) -> Result<(), Status> {
        let place = &mut node["spec"]["taints"];
        if !place.is_array() {
            *place = json!([]);
        }
        if let Some(list) = place.as_array_mut()
            && !list.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule")
        {
            list.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_is_missing() {
        let mut pod =
            json!({"spec": {"tolerations": [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute"}]}});
        tolerate(&mut pod);
        let keys: Vec<_> = pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
        assert_eq!(keys, [NOT_READY, UNREACHABLE]);
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerate(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
