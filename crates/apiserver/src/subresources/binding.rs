//! `pods/binding`: puts a pod on a node.

use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use pintle_schema::errors::Errors;
use serde_json::{Value, json};

use super::{create_options, posted, success};
use crate::Server;
use crate::admission::Operation;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::options::causes;
use crate::registry::{Res, meta};

impl Server {
    /// Binds a pod. `name` is that of the path; without it the binding's own counts.
    ///
    /// # Errors
    /// 409 when the pod is bound or being deleted, 422 for a binding that names no node.
    pub(crate) async fn bind(
        self: &Arc<Self>,
        ctx: &Ctx,
        pods: &Arc<Res>,
        body: &mut Body,
        name: Option<&str>,
    ) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut binding = posted(ctx, body, "v1", "Binding", options.validation).await?;
        let pod = match name {
            Some(name) if !meta::name(&binding).is_empty() && meta::name(&binding) != name => {
                return Err(Status::bad_request("name in URL does not match name in Binding object"));
            }
            Some(name) => name.to_owned(),
            None => meta::name(&binding).to_owned(),
        };
        meta::set(&mut binding, "name", pod.as_str());
        crate::registry::create::ensure_namespace(&mut binding, pods, &ctx.info.namespace)?;
        let w = Write { ctx, res: pods, namespace: &ctx.info.namespace, subresource: "binding", options: &options };
        {
            let a = w.attributes(Operation::Create, &pod, None);
            self.admission.admit(self, &a, &mut binding).await?;
            self.admission.validate(self, &a, &binding).await?;
        }
        let text = |path: &str| binding.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let mut errors = Errors::new();
        if !matches!(text("/target/kind"), "" | "Node") {
            errors.not_supported("target.kind", text("/target/kind"), &["Node", "<empty>"]);
        }
        if text("/target/name").is_empty() {
            errors.required("target.name", "");
        }
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", &pod, causes(&errors)));
        }
        let node = text("/target/name").to_owned();
        let now = pintle_api::time::format(self.clock.now());
        let (uid, version) = (text("/metadata/uid"), text("/metadata/resourceVersion"));
        let conflict = |why: &str| Status::conflict("", "pods/binding", &pod, why);
        let refused = |what: &str, wanted: &str, have: &str| {
            conflict(&format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}"))
        };
        self.modify(pods, &ctx.info.namespace, &pod, options.dry_run, &mut |object| {
            if !uid.is_empty() && uid != meta::get(object, "uid") {
                return Err(refused("UID", uid, meta::get(object, "uid")));
            }
            if !version.is_empty() && version != meta::get(object, "resourceVersion") {
                return Err(refused("ResourceVersion", version, meta::get(object, "resourceVersion")));
            }
            if meta::has(object, "deletionTimestamp") {
                return Err(conflict(&format!("pod {pod} is being deleted, cannot be assigned to a host")));
            }
            let bound = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            if !bound.is_empty() {
                return Err(conflict(&format!("pod {pod} is already assigned to node \"{bound}\"")));
            }
            if object.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
                return Err(conflict(&format!("pod {pod} has non-empty .spec.schedulingGates")));
            }
            object["spec"]["nodeName"] = node.as_str().into();
            for (place, into) in [("/metadata/annotations", "annotations"), ("/metadata/labels", "labels")] {
                for (k, v) in binding.pointer(place).and_then(Value::as_object).into_iter().flatten() {
                    object["metadata"][into][k] = v.clone();
                }
            }
            scheduled(object, &now);
            Ok(())
        })
        .await?;
        success(ctx, 201)
    }
}

/// Sets the condition `PodScheduled`; a nomination is over once the pod has its node.
fn scheduled(pod: &mut Value, now: &str) {
    let generation = pod.pointer("/metadata/generation").cloned();
    let status = &mut pod["status"];
    if !status.is_object() {
        *status = json!({});
    }
    if let Some(status) = status.as_object_mut() {
        status.remove("nominatedNodeName");
    }
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let mut wanted =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(g) = generation.filter(|g| !g.is_null()) {
        wanted["observedGeneration"] = g;
    }
    match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(have) => {
            if have["status"] == "True" {
                wanted["lastTransitionTime"] = have["lastTransitionTime"].clone();
            }
            *have = wanted;
        }
        None => list.push(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_pod_is_scheduled_and_no_longer_nominated() {
        let check = |mut pod: Value, expect: Value| {
            scheduled(&mut pod, "2026-01-02T03:04:05Z");
            assert_eq!(pod["status"], expect);
        };
        let mut wanted = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T03:04:05Z",
        });
        check(json!({}), json!({"conditions": [wanted]}));
        let refused = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        check(json!({"status": {"nominatedNodeName": "n", "conditions": [refused]}}), json!({"conditions": [wanted]}));
        wanted["observedGeneration"] = 2.into();
        check(json!({"metadata": {"generation": 2}}), json!({"conditions": [wanted]}));
    }
}
