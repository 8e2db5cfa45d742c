//! `pods/eviction`: deletes a pod unless its disruption budget forbids.

use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_api::selector::Selector;
use pintle_api::service::Body;
use serde_json::Value;

use super::{create_options, posted, success};
use crate::Server;
use crate::admission::Operation;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::{Res, meta};

/// Evictions granted but not seen by the controller; more are refused.
const MAX_DISRUPTED: usize = 2000;
const ATTEMPTS: usize = 20;

fn budget_error(retry: i32, text: String) -> Status {
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry).cause(
        "DisruptionBudget",
        text,
        "",
    )
}

fn processed(name: &str) -> Status {
    budget_error(10, format!("The disruption budget {name} is still being processed by the server."))
}

fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions")
        .and_then(Value::as_array)
        .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Counts one disruption off a budget.
fn decrement(budget: &mut Value, pod: &str, now: &str) -> Result<(), Status> {
    let name = meta::name(budget).to_owned();
    let int = |v: &Value, path: &str| v.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    if int(budget, "/status/observedGeneration") < meta::int(budget, "generation").unwrap_or(0) {
        return Err(processed(&name));
    }
    let allowed = int(budget, "/status/disruptionsAllowed");
    let forbidden = |why: &str| Status::forbidden("policy", "poddisruptionbudget", &name, why);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|m| m.len() > MAX_DISRUPTED) {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        let (want, have) = (int(budget, "/status/desiredHealthy"), int(budget, "/status/currentHealthy"));
        return Err(budget_error(
            0,
            format!("The disruption budget {name} needs {want} healthy pods and has {have} currently"),
        ));
    }
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][pod] = now.into();
    if allowed == 1
        && let Some(list) = budget.pointer_mut("/status/conditions").and_then(Value::as_array_mut)
        && let Some(c) = list.iter_mut().find(|c| c["type"] == "DisruptionAllowed")
    {
        if c["status"] != "False" {
            c["lastTransitionTime"] = now.into();
        }
        c["status"] = "False".into();
        c["reason"] = "InsufficientPods".into();
        c["message"] = "".into();
    }
    Ok(())
}

impl Server {
    /// Evicts a pod.
    ///
    /// # Errors
    /// 429 when its budget forbids, 500 when it has more than one.
    pub(crate) async fn evict(
        self: &Arc<Self>,
        ctx: &Ctx,
        pods: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let eviction = posted(ctx, body, "policy/v1", "Eviction", options.validation).await?;
        let name = ctx.info.name.as_str();
        if meta::name(&eviction) != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let asked = eviction.get("deleteOptions").filter(|o| !o.is_null());
        let mut delete = DeleteOptions::parse(&ctx.query, Some(asked.unwrap_or(&Value::Null)))?;
        delete.dry_run |= options.dry_run;
        let dry = WriteOptions { dry_run: delete.dry_run, ..WriteOptions::default() };
        let w = Write { ctx, res: pods, namespace: &ctx.info.namespace, subresource: "eviction", options: &dry };
        self.admission.validate(self, &w.attributes(Operation::Create, name, None), &eviction).await?;
        let w = Write { subresource: "", ..w };
        let objects = pods.objects()?;
        let mut pod: Option<(Arc<Object>, Value)> = None;
        for _ in 0..ATTEMPTS {
            let object = objects.get(w.namespace, name).await?.ok_or_else(|| pods.not_found(name))?;
            let view: Value = object.view().map_err(Status::internal)?;
            // A pod that does not run disrupts nothing when it goes.
            let terminal = matches!(phase(&view), "Succeeded" | "Failed") || object.is_deleting();
            if !terminal && phase(&view) != "Pending" {
                pod = Some((object, view));
                break;
            }
            let mut each = delete.clone();
            if !terminal && each.resource_version.is_none() {
                each.resource_version = Some(object.resource_version().to_string());
            }
            match self.delete(&w, name, &each).await {
                Ok(_) => return success(ctx, 201),
                Err(e) if e.is("Conflict") && delete.resource_version.is_none() => {}
                Err(e) => return Err(e),
            }
        }
        let Some((object, view)) = pod else { return Err(Status::modified("", "pods", name)) };
        let Some(budget) = self.budget(&object).await? else {
            self.delete(&w, name, &delete).await?;
            return success(ctx, 201);
        };
        let mut guarded = delete.clone();
        let b: Value = budget.view().map_err(Status::internal)?;
        let int = |path: &str| b.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let (have, want) = (int("/status/currentHealthy"), int("/status/desiredHealthy"));
        let always = b.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str) == Some("AlwaysAllow");
        if !is_ready(&view) && (always || (have >= want && want > 0)) {
            // It does not count as healthy; but it must not become so meanwhile.
            if guarded.resource_version.is_none() {
                guarded.resource_version = Some(object.resource_version().to_string());
            }
        } else {
            let now = pintle_api::time::format(self.clock.now());
            let budgets = self.registry.must("policy", "v1", "poddisruptionbudgets")?;
            let ns = budget.namespace().to_owned();
            self.modify(budgets, &ns, budget.name(), delete.dry_run, &mut |b| decrement(b, name, &now)).await?;
        }
        match self.delete(&w, name, &guarded).await {
            Ok(_) => success(ctx, 201),
            Err(e) if e.is("Conflict") && delete.resource_version.is_none() && guarded.resource_version.is_some() => {
                Err(processed(budget.name()))
            }
            Err(e) => Err(e),
        }
    }

    /// The budget of a pod.
    async fn budget(&self, pod: &Object) -> Result<Option<Arc<Object>>, Status> {
        let Some(res) = self.registry.get("policy", "v1", "poddisruptionbudgets") else { return Ok(None) };
        let mut found: Vec<Arc<Object>> = Vec::new();
        for budget in res.objects()?.fresh().await?.iter(pod.namespace()) {
            let selector = budget
                .at(&["spec", "selector"])
                .and_then(|s| serde_json::from_slice(s).ok())
                .and_then(|s| Selector::from_object(Some(&s)).ok());
            if selector.is_some_and(|s| !s.is_everything() && s.matches_object(pod)) {
                found.push(Arc::clone(budget));
            }
        }
        if found.len() > 1 {
            return Err(Status::failure(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        Ok(found.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets() {
        let budget = |allowed: i64| {
            json!({"metadata": {"name": "b", "generation": 1},
                "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}})
        };
        let mut b = budget(1);
        decrement(&mut b, "p", "now").unwrap();
        assert_eq!(b["status"]["disruptionsAllowed"], 0);
        assert_eq!(b["status"]["disruptedPods"]["p"], "now");
        let e = decrement(&mut b, "q", "now").unwrap_err();
        assert_eq!(e.code, 429);
        assert_eq!(
            e.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        let mut old = budget(1);
        old["metadata"]["generation"] = 2.into();
        assert_eq!(decrement(&mut old, "q", "now").unwrap_err().code, 429);
        assert_eq!(decrement(&mut budget(-1), "q", "now").unwrap_err().code, 403);
    }
}
