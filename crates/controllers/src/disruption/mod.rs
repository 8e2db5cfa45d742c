//! Disruption: how many pods of a PodDisruptionBudget may be evicted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pintle_api::selector::Selector;
use pintle_client::clock::{since, time};
use pintle_client::meta::key;
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Cache, Informer, Key};

use crate::context::{Context, Outcome, listen};
use crate::support::int_or_string::scaled;
use crate::support::pods::{self, Pod};
use crate::support::status;

const WORKERS: usize = 2;
/// How long a pod whose eviction was granted counts as going, should its deletion not show.
const GRANTED: Duration = Duration::from_secs(120);

struct Controller {
    cx: Context,
    budgets: Informer,
    pods: Cache<Pod>,
    /// What has a size that a budget may be a share of.
    sized: [Informer; 4],
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("disruption");
    let of = &cx.informers;
    let me = Arc::new(Controller {
        budgets: of.of::<PodDisruptionBudget>(),
        pods: pods::view(of),
        sized: [of.of::<Deployment>(), of.of::<ReplicaSet>(), of.of::<StatefulSet>(), of.of::<ReplicationController>()],
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.budgets.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    let selectors = me.budgets.view_with(|o| Ok(selector(&o.view()?)));
    listen(&me.pods, &me, move |_, change| {
        if change.before().zip(change.now()).is_some_and(|(a, b)| is_same(a, b)) {
            return;
        }
        let states = [change.before(), change.now()];
        let matches = |s: &Selector| states.iter().flatten().any(|p| s.matches_labels(&p.metadata.labels));
        for (k, selector) in selectors.namespace_entries(&change.last().metadata.namespace) {
            if selector.as_ref().as_ref().is_some_and(matches) {
                q.add(k);
            }
        }
    });
    for informer in &me.sized {
        let (q, budgets) = (queue.clone(), me.budgets.clone());
        informer.on_change(move |change| {
            let size =
                |o: Option<&Arc<pintle_api::Object>>| o.and_then(|o| o.at(&["spec", "replicas"]).map(<[u8]>::to_vec));
            if size(change.before()) != size(change.now()) {
                budgets.namespace_entries(change.last().namespace()).into_iter().for_each(|(k, _)| q.add(k));
            }
        });
    }
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_object(budget.spec.as_ref()?.selector.as_ref()).ok()
}

/// Whether a pod counts as before, for whatever budget.
fn is_same(a: &Pod, b: &Pod) -> bool {
    let counts = |p: &Pod| (p.is_ready(), p.is_terminal(), p.is_deleting());
    counts(a) == counts(b)
        && a.metadata.labels == b.metadata.labels
        && a.metadata.owner_references == b.metadata.owner_references
        && a.metadata.uid == b.metadata.uid
}

/// Pods expected and pods that must stay healthy.
fn need(spec: &PodDisruptionBudgetSpec, pods: usize, expected: Result<i32, String>) -> Result<(i32, i32), String> {
    let pods = i32::try_from(pods).unwrap_or(i32::MAX);
    if let Some(max) = &spec.max_unavailable {
        let expected = expected?;
        return Ok((expected, (expected - scaled(max, expected, true)).max(0)));
    }
    match &spec.min_available {
        Some(IntOrString::Int(n)) => Ok((pods, *n)),
        Some(min) => {
            let expected = expected?;
            Ok((expected, scaled(min, expected, true)))
        }
        None => Ok((pods, 0)),
    }
}

/// The status of a budget.
fn decide(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    need: Result<(i32, i32), String>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let mut again = None;
    let mut going: BTreeMap<String, Time> = BTreeMap::new();
    for (name, at) in old.disrupted_pods.iter().flatten() {
        let Some(pod) = pods.iter().find(|p| p.metadata.name == *name && !p.is_deleting()) else { continue };
        let passed = since(at.0, now);
        if passed < GRANTED {
            going.insert(pod.metadata.name.clone(), at.clone());
            let left = GRANTED - passed;
            again = Some(again.map_or(left, |a: Duration| a.min(left)));
        }
    }
    let healthy =
        pods.iter().filter(|p| !p.is_deleting() && p.is_ready() && !going.contains_key(&p.metadata.name)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let (expected, desired, failure) = match need {
        Ok((e, d)) => (e, d, None),
        Err(m) => (old.expected_pods.unwrap_or(0), old.desired_healthy.unwrap_or(0), Some(m)),
    };
    let allowed = if failure.is_some() || expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (value, reason, message) = match (&failure, allowed > 0) {
        (Some(m), _) => ("False", "SyncFailed", m.as_str()),
        (None, true) => ("True", "SufficientPods", ""),
        (None, false) => ("False", "InsufficientPods", ""),
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let kept = conditions
        .iter()
        .find(|c| c.type_ == "DisruptionAllowed" && c.status == value)
        .map(|c| c.last_transition_time.clone());
    let new = Condition {
        type_: "DisruptionAllowed".into(),
        status: value.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: kept.unwrap_or_else(|| time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(c) => *c = new,
        None => conditions.push(new),
    }
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!going.is_empty()).then_some(going),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions),
    };
    (status, again)
}

impl Controller {
    /// The size of everything that controls these pods.
    fn expected(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let m = &pod.metadata;
            // A pod of nobody counts for nothing here: the caller says so.
            let Some(mut owner) = m.controller().cloned() else { continue };
            let mut found = None;
            // A ReplicaSet's size is its Deployment's.
            for _ in 0..2 {
                let informer = self.sized.iter().find(|i| i.resource().kind == owner.kind);
                let object =
                    informer.and_then(|i| i.get(&key(&m.namespace, &owner.name))).filter(|o| o.uid() == owner.uid);
                let Some(object) = object else { break };
                let size = object
                    .at(&["spec", "replicas"])
                    .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
                    .unwrap_or(1);
                found = Some((object.uid().to_owned(), size));
                let above: Option<pintle_client::meta::MetaOnly> = decode(&object).ok();
                match above.and_then(|a| a.metadata.controller().cloned()) {
                    Some(o) if o.kind == "Deployment" => owner = o,
                    _ => break,
                }
            }
            let Some((uid, size)) = found else {
                return Err(format!("{} {} does not implement the scale subresource", owner.kind, owner.name));
            };
            sizes.insert(uid, size);
        }
        Ok(sizes.into_values().fold(0, i32::saturating_add))
    }

    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.budgets.get(k) else { return Ok(None) };
        let budget: PodDisruptionBudget = decode(&object)?;
        let (Some(spec), Some(selector)) = (&budget.spec, selector(&budget)) else { return Ok(None) };
        let mut pods = self.pods.select(object.namespace(), |p| selector.matches_labels(&p.metadata.labels));
        if pods.is_empty() {
            self.cx.recorder.normal(&reference_of(&budget), "NoPods", "No matching pods found");
        }
        pods.retain(|p| !p.is_terminal());
        let counted = !matches!((&spec.max_unavailable, &spec.min_available), (None, None | Some(IntOrString::Int(_))));
        if counted && pods.iter().any(|p| p.metadata.controller().is_none()) {
            let selector = serde_json::to_string(&spec.selector).unwrap_or_default();
            self.cx.recorder.warning(
                &reference_of(&budget),
                "UnmanagedPods",
                format!("Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."),
            );
        }
        let need = need(spec, pods.len(), self.expected(&pods));
        if let Err(message) = &need {
            self.cx.recorder.warning(
                &reference_of(&budget),
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {message}"),
            );
        }
        let (new, again) = decide(&budget, &pods, need, self.cx.clock.now());
        if budget.status.as_ref() != Some(&new) {
            status::put(&self.cx.client, resource_of::<PodDisruptionBudget>(), &object, &new).await?;
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods(n: usize, ready: usize) -> Vec<Arc<Pod>> {
        let of = |i: usize| json!({"metadata": {"name": format!("p{i}")}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if i < ready { "True" } else { "False" }}]}});
        (0..n).map(|i| Arc::new(serde_json::from_value(of(i)).unwrap())).collect()
    }

    #[test]
    fn budgets() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        for (spec, n, ready, expected, want) in [
            (json!({"minAvailable": 2}), 3, 3, Ok(5), (3, 2, 1)),
            (json!({"minAvailable": "50%"}), 3, 3, Ok(5), (5, 3, 0)),
            (json!({"maxUnavailable": 1}), 5, 5, Ok(5), (5, 4, 1)),
            (json!({"maxUnavailable": "30%"}), 5, 4, Ok(5), (5, 3, 1)),
            (json!({"maxUnavailable": 1}), 5, 5, Err("no".to_owned()), (0, 0, 0)),
            (json!({"minAvailable": 0}), 0, 0, Ok(0), (0, 0, 0)),
        ] {
            let b: PodDisruptionBudget =
                serde_json::from_value(json!({"metadata": {"generation": 1}, "spec": spec})).unwrap();
            let (s, _) = decide(&b, &pods(n, ready), need(b.spec.as_ref().unwrap(), n, expected), now);
            assert_eq!(
                (s.expected_pods.unwrap(), s.desired_healthy.unwrap(), s.disruptions_allowed.unwrap()),
                want,
                "{spec}"
            );
        }
        // A pod whose eviction was granted counts as gone until it shows, or for two minutes.
        let mut b: PodDisruptionBudget = serde_json::from_value(json!({"spec": {"minAvailable": 1}, "status": {"disruptedPods": {"p0": "2024-01-01T00:00:30Z", "gone": "2024-01-01T00:00:30Z"}}})).unwrap();
        let (s, again) = decide(&b, &pods(2, 2), Ok((2, 1)), now);
        assert_eq!((s.disruptions_allowed, again), (Some(0), Some(Duration::from_secs(90))));
        assert_eq!(s.disrupted_pods.as_ref().unwrap().len(), 1);
        b.status = Some(s);
        let (s, _) = decide(&b, &pods(2, 2), Ok((2, 1)), now + jiff::SignedDuration::from_secs(90));
        assert_eq!((s.disruptions_allowed, s.disrupted_pods), (Some(1), None));
    }
}
