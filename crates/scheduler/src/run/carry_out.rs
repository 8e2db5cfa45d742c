//! What the engine decided is written: bindings, what must precede them, conditions, nominations and removals.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use pintle_api::resources::by_resource;
use pintle_client::recorder::reference;
use pintle_client::{Error, Meta, Patch, WriteParams, client::encode};
use serde_json::{Value, json};
use tokio::time::Duration;

use super::{News, POD_GROUPS, Shared};
use crate::engine::{Failure, GroupNews, Outcome};
use crate::framework::Action;
use crate::metrics;
use crate::model::Pod;

/// Carries out what came of a try that began at a moment.
pub(super) async fn carry_out(shared: Arc<Shared>, outcome: Outcome, began: Instant) {
    match outcome {
        Outcome::Bind(pod, node, actions) => {
            let profile = pod.scheduler_name.clone();
            let bound = bind(&shared, pod, &node, actions).await;
            let result = if bound { metrics::Result::Scheduled } else { metrics::Result::Error };
            metrics::attempt(result, &profile, began.elapsed().as_secs_f64());
        }
        Outcome::Unschedulable(failure) => {
            let profile = &failure.pod.scheduler_name;
            let result = if failure.error { metrics::Result::Error } else { metrics::Result::Unschedulable };
            metrics::attempt(result, profile, began.elapsed().as_secs_f64());
            if failure.preempted {
                metrics::preemption(failure.victims.len());
            }
            report(&shared, failure).await;
        }
        Outcome::Group(news) => group_condition(&shared, &news).await,
    }
}

/// Writes what became of a pod group.
async fn group_condition(shared: &Shared, news: &GroupNews) {
    let Some(kind) = by_resource(POD_GROUPS.0, POD_GROUPS.1, POD_GROUPS.2) else { return };
    let mut condition = json!({
        "type": "PodGroupScheduled",
        "status": if news.scheduled { "True" } else { "False" },
        "observedGeneration": news.generation,
        "reason": news.reason,
        "message": news.message,
    });
    if news.changed {
        condition["lastTransitionTime"] = pintle_api::time::format(shared.clock.now()).into();
    }
    let written = async {
        let patch = Patch::strategic(&json!({"status": {"conditions": [condition]}}))?;
        shared.client.patch(kind, &news.namespace, &news.name, "status", patch, &WriteParams::default()).await
    };
    if let Err(error) = written.await
        && !error.is_not_found()
    {
        tracing::warn!(namespace = news.namespace, name = news.name, %error, "the pod group's status was not written");
    }
}

fn meta(pod: &Pod) -> Meta {
    Meta { name: pod.name.clone(), namespace: pod.namespace.clone(), uid: pod.uid.clone(), ..Meta::default() }
}

/// Binds; whether it was accepted.
async fn bind(shared: &Shared, pod: Arc<Pod>, node: &str, actions: Vec<Action>) -> bool {
    if !actions.is_empty() && pod.nominated_node != node {
        // What precedes binding may take long; whoever looks is told where the pod will be.
        patch_status(shared, &pod, &json!({"nominatedNodeName": node})).await;
    }
    for action in actions {
        if let Err(why) = act(shared, &action).await {
            let plugin =
                if matches!(action, Action::GiveDevices { .. }) { "DynamicResources" } else { "VolumeBinding" };
            let why = format!("running PreBind plugin {plugin:?}: {why}");
            tracing::warn!(pod = pod.key, node, why, "what precedes binding failed");
            condition(shared, &pod, "SchedulerError", &why, None).await;
            shared.tell(News::Unbound(pod, false));
            return false;
        }
    }
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"kind": "Node", "name": node},
    });
    let answer = async {
        // The call waits for another process, so it must not hold up a thread of the runtime.
        let (extenders, about, to) = (shared.extenders.clone(), pod.clone(), node.to_owned());
        if !extenders.is_empty() {
            let asked = tokio::task::spawn_blocking(move || extenders.iter().find_map(|e| e.bind(&about, &to)));
            match asked.await {
                Ok(Some(answer)) => return answer.map_err(|why| (why, false)),
                Ok(None) => {}
                Err(error) => return Err((error.to_string(), false)),
            }
        }
        let refused = |e: Error| (e.to_string(), e.is_not_found());
        let body = encode(&binding).map_err(refused)?;
        let bound = shared.client.create_subresource(shared.pods, &pod.namespace, &pod.name, "binding", body).await;
        bound.map(drop).map_err(refused)
    };
    match answer.await {
        Ok(()) => {
            let text = format!("Successfully assigned {} to {node}", pod.key);
            shared.recorder.normal(&reference(shared.pods, &meta(&pod)), "Scheduled", text);
            shared.tell(News::Bound(pod));
            true
        }
        Err((error, gone)) => {
            if !gone {
                tracing::warn!(pod = pod.key, node, error, "binding failed");
                let text = format!("binding rejected: {error}");
                shared.recorder.warning(&reference(shared.pods, &meta(&pod)), "FailedScheduling", text);
            }
            shared.tell(News::Unbound(pod, gone));
            false
        }
    }
}

/// Changes an object, or a part of it of its own; answers its resourceVersion after that.
async fn write(
    shared: &Shared,
    (group, resource): (&str, &str),
    (namespace, name, part): (&str, &str, &str),
    change: &Value,
) -> Result<String, String> {
    let kind = by_resource(group, "v1", resource).ok_or_else(|| format!("no resource {resource}"))?;
    let written = async {
        let patch = Patch::merge(change)?;
        shared.client.patch(kind, namespace, name, part, patch, &WriteParams::default()).await
    };
    written.await.map(|o| o.resource_version().to_string()).map_err(|e: Error| e.to_string())
}

const VOLUMES: (&str, &str) = ("", "persistentvolumes");
const VOLUME_CLAIMS: (&str, &str) = ("", "persistentvolumeclaims");
const DEVICE_CLAIMS: (&str, &str) = ("resource.k8s.io", "resourceclaims");

/// Does what must be done before a pod is bound.
async fn act(shared: &Shared, action: &Action) -> Result<(), String> {
    match action {
        Action::BindVolume { volume, namespace, claim, uid, resource_version } => {
            let change = json!({
                "metadata": {
                    "resourceVersion": resource_version,
                    "annotations": {crate::model::objects::BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim, "uid": uid,
                }},
            });
            write(shared, VOLUMES, ("", volume, ""), &change).await.map(drop)
        }
        Action::SelectNode { namespace, claim, resource_version, node } => {
            let change = json!({"metadata": {
                "resourceVersion": resource_version,
                "annotations": {crate::model::objects::SELECTED_NODE: node},
            }});
            write(shared, VOLUME_CLAIMS, (namespace, claim, ""), &change).await.map(drop)
        }
        Action::GiveDevices { namespace, claim, resource_version, finalizers, allocation, reserved_for } => {
            let mut version = resource_version.clone();
            if let Some(finalizers) = finalizers {
                let change = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
                version = write(shared, DEVICE_CLAIMS, (namespace, claim, ""), &change).await?;
            }
            let mut status = json!({"reservedFor": reserved_for});
            if let Some(allocation) = allocation {
                status["allocation"] = allocation.clone();
            }
            let change = json!({"metadata": {"resourceVersion": version}, "status": status});
            write(shared, DEVICE_CLAIMS, (namespace, claim, "status"), &change).await.map(drop)
        }
        Action::TakeDevices { namespace, claim, resource_version } => {
            let change = json!({"metadata": {"resourceVersion": resource_version},
                "status": {"allocation": null, "reservedFor": null}});
            write(shared, DEVICE_CLAIMS, (namespace, claim, "status"), &change).await.map(drop)
        }
        Action::AwaitClaims { namespace, claims, seconds } => {
            let waiting = async {
                for claim in claims {
                    await_claim(shared, &format!("{namespace}/{claim}")).await?;
                }
                Ok(())
            };
            match tokio::time::timeout(Duration::from_secs(*seconds), waiting).await {
                Ok(answer) => answer,
                Err(_) => Err("binding volumes: timed out waiting for the condition".into()),
            }
        }
    }
}

/// Waits until a claim is bound. A provisioner that gives the node back wants another one.
async fn await_claim(shared: &Shared, key: &str) -> Result<(), String> {
    let mut changes = shared.claims.subscribe();
    let mut selected = false;
    loop {
        match shared.claims.get(key) {
            None => return Err(format!("binding volumes: persistentvolumeclaim {key:?} not found")),
            Some(claim) if claim.is_bound() => return Ok(()),
            Some(claim) => {
                let has = claim.metadata.annotations.contains_key(crate::model::objects::SELECTED_NODE);
                if selected && !has {
                    return Err("binding volumes: provisioning failed for PVC".to_owned()
                        + &format!(" {:?}", claim.metadata.name));
                }
                selected = has;
            }
        }
        if changes.next().await.is_none() {
            return Err("binding volumes: the scheduler ends".into());
        }
    }
}

/// Says in an Event and in the `PodScheduled` condition why a pod is placed nowhere, and makes room for it where room
/// can be made.
async fn report(shared: &Arc<Shared>, failure: Failure) {
    let Failure { pod, message, nominate, victims, demoted, error, gives, .. } = failure;
    if let Some(action) = gives
        && let Err(why) = act(shared, &action).await
    {
        // The pod is tried again when its claim changes, and gives it back then.
        tracing::warn!(pod = pod.key, why, "a resource claim was not given back");
    }
    shared.recorder.warning(&reference(shared.pods, &meta(&pod)), "FailedScheduling", message.as_str());
    for p in demoted {
        patch_status(shared, &p, &json!({"nominatedNodeName": ""})).await;
    }
    let node = nominate.clone().unwrap_or_default();
    for victim in victims {
        let (shared, preemptor, node) = (shared.clone(), pod.clone(), node.clone());
        tokio::spawn(async move {
            let removed = preempt(&shared, &preemptor, &victim, &node).await;
            shared.tell(News::VictimRemoved(preemptor.uid.clone(), removed));
        });
    }
    let reason = if error { "SchedulerError" } else { "Unschedulable" };
    condition(shared, &pod, reason, &message, nominate.as_deref()).await;
}

/// Writes the `PodScheduled` condition and, when it changes, the nomination.
async fn condition(shared: &Shared, pod: &Pod, reason: &str, message: &str, nominate: Option<&str>) {
    let same = pod.unschedulable.as_ref().is_some_and(|(r, m)| r == reason && m == message);
    let nominate = nominate.filter(|n| *n != pod.nominated_node);
    if same && nominate.is_none() {
        return;
    }
    let mut status = json!({});
    if !same {
        let mut condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": pod.generation,
        });
        if pod.unschedulable.is_none() {
            condition["lastTransitionTime"] = pintle_api::time::format(shared.clock.now()).into();
        }
        status["conditions"] = json!([condition]);
    }
    if let Some(node) = nominate {
        status["nominatedNodeName"] = node.into();
    }
    patch_status(shared, pod, &status).await;
}

/// Changes a pod's status; says whether the pod was there and took it.
async fn patch_status(shared: &Shared, pod: &Pod, status: &Value) -> bool {
    let answer = match Patch::strategic(&json!({"metadata": {"uid": pod.uid}, "status": status})) {
        Ok(patch) => {
            shared.client.patch(shared.pods, &pod.namespace, &pod.name, "status", patch, &WriteParams::default()).await
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(_) => true,
        Err(error) => {
            if !error.is_not_found() {
                tracing::warn!(pod = pod.key, %error, "the pod's status was not written");
            }
            error.is_not_found()
        }
    }
}

/// Removes a victim, having said why; it ends as gracefully as it asks for.
async fn preempt(shared: &Shared, preemptor: &Pod, victim: &Pod, node: &str) -> bool {
    let condition = json!({"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler_name),
        "observedGeneration": victim.generation,
        "lastTransitionTime": pintle_api::time::format(shared.clock.now()),
    }]});
    if !patch_status(shared, victim, &condition).await {
        return false;
    }
    let preconditions = Some(Preconditions { uid: Some(victim.uid.clone()), ..Preconditions::default() });
    let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
    match shared.client.delete(shared.pods, &victim.namespace, &victim.name, &options).await {
        Ok(_) => {}
        // Somebody else was quicker.
        Err(error) if error.is_not_found() || error.is_conflict() => return true,
        Err(error) => {
            tracing::warn!(pod = victim.key, %error, "a victim of preemption was not removed");
            return false;
        }
    }
    let text = format!("Preempted by pod {} on node {node}", preemptor.uid);
    shared.recorder.normal(&reference(shared.pods, &meta(victim)), "Preempted", text);
    true
}
