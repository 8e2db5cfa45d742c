//! `Priority`: a pod's priority is that of its class.

use std::sync::Arc;

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::object::Object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::registry::meta;

const GROUP: &str = "scheduling.k8s.io";

pub(super) struct Priority;

/// The classes that say they are the default one.
async fn defaults(server: &Server) -> Result<Vec<Arc<Object>>, Status> {
    let res = server.registry.must(GROUP, "v1", "priorityclasses")?;
    let is_default = |class: &&Arc<Object>| class.at(&["globalDefault"]) == Some(b"true");
    Ok(res.objects()?.fresh().await?.iter("").filter(is_default).cloned().collect())
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        match a.operation {
            Operation::Create | Operation::Update => a.is("", "pods") || a.is(GROUP, "priorityclasses"),
            _ => false,
        }
    }

    async fn admit(&self, server: &Server, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        if let Some(old) = a.old {
            // Neither changes; a client that does not know them leaves them out.
            for key in ["priority", "preemptionPolicy"] {
                if pod["spec"].get(key).is_none_or(Value::is_null)
                    && let Some(v) = old["spec"].get(key)
                {
                    pod["spec"][key] = v.clone();
                }
            }
            return Ok(());
        }
        let name = pod.pointer("/spec/priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut value = 0;
        let mut policy = None;
        if name.is_empty() {
            // The default class with the lowest value, as upstream breaks ties.
            let mut best: Option<Value> = None;
            for class in defaults(server).await? {
                let class: Value = class.view().map_err(Status::internal)?;
                if best.as_ref().is_none_or(|b| class["value"].as_i64() < b["value"].as_i64()) {
                    best = Some(class);
                }
            }
            if let Some(class) = best {
                pod["spec"]["priorityClassName"] = meta::name(&class).into();
                value = class["value"].as_i64().unwrap_or(0);
                policy = class.get("preemptionPolicy").cloned();
            }
        } else {
            let res = server.registry.must(GROUP, "v1", "priorityclasses")?;
            let Some(class) = res.objects()?.get("", &name).await? else {
                return Err(a.forbidden(&format!("no PriorityClass with name {name} was found")));
            };
            let class: Value = class.view().map_err(Status::internal)?;
            value = class["value"].as_i64().unwrap_or(0);
            policy = class.get("preemptionPolicy").cloned();
        }
        if let Some(given) = pod.pointer("/spec/priority").and_then(Value::as_i64)
            && given != value
        {
            return Err(a.forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        pod["spec"]["priority"] = value.into();
        let policy = policy.filter(|p| !p.is_null()).unwrap_or_else(|| "PreemptLowerPriority".into());
        if let Some(given) = pod.pointer("/spec/preemptionPolicy").filter(|p| !p.is_null())
            && *given != policy
        {
            return Err(a.forbidden(&format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                given.as_str().unwrap_or_default(),
                policy.as_str().unwrap_or_default()
            )));
        }
        pod["spec"]["preemptionPolicy"] = policy;
        Ok(())
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if !a.is(GROUP, "priorityclasses") || object.get("globalDefault").and_then(Value::as_bool) != Some(true) {
            return Ok(());
        }
        match defaults(server).await?.iter().find(|class| class.name() != meta::name(object)) {
            Some(class) => {
                Err(a.forbidden(&format!("PriorityClass {} is already marked as globalDefault", class.name())))
            }
            None => Ok(()),
        }
    }
}
