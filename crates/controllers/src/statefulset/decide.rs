//! One step of a StatefulSet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod as TypedPod;

use super::Labels;
use super::pod::{self, INDEX_LABEL, NAME_LABEL};
use crate::support::history::{self, HASH_LABEL};
use crate::support::int_or_string::scaled;
use crate::support::pods::Pod;

/// What is decided on.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub set: &'a StatefulSet,
    /// The revision that is being left.
    pub current: &'a ControllerRevision,
    /// The revision of the template now.
    pub update: &'a ControllerRevision,
    pub pods: Vec<Arc<Pod>>,
}

/// One action, in order.
#[derive(Debug)]
pub enum Action {
    Create(Box<TypedPod>),
    /// With the phase of a pod that ended and is made anew.
    Delete(Arc<Pod>, Option<String>),
    Label(Arc<Pod>, Labels),
    /// The claims of an ordinal whose pod waits, perhaps for one of them.
    Claims(i32),
}

/// What to do, and the status of what there is.
#[derive(Debug)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: StatefulSetStatus,
    pub again: Option<Duration>,
}

fn name_of(r: &ControllerRevision) -> &str {
    r.metadata.name.as_deref().unwrap_or_default()
}

fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.get(HASH_LABEL).unwrap_or_default()
}

/// Most pods that a rolling update makes unavailable.
pub fn max_unavailable(set: &StatefulSet, replicas: i32) -> i32 {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let max = strategy.and_then(|u| u.rolling_update.as_ref()?.max_unavailable.as_ref());
    max.map_or(1, |v| scaled(v, replicas, true).max(1))
}

struct Step<'a> {
    s: &'a Snapshot<'a>,
    now: Timestamp,
    min_ready: i32,
    /// Whether pods come and go one at a time, each waiting for those before it.
    ordered: bool,
}

impl Step<'_> {
    fn is_ready(&self, p: &Pod) -> bool {
        p.status.phase == "Running" && p.is_ready()
    }

    fn is_available(&self, p: &Pod) -> bool {
        self.is_ready(p) && p.is_available(self.min_ready, self.now)
    }

    fn is_unavailable(&self, p: &Pod) -> bool {
        p.is_deleting() || !self.is_available(p)
    }

    /// A pod for an ordinal, of the revision that it should have now.
    fn new_pod(&self, ordinal: i32) -> TypedPod {
        let set = self.s.set;
        let start = pod::range(set).start;
        let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let rolling = strategy.is_none_or(|u| u.type_.as_deref().is_none_or(|t| t == "RollingUpdate"));
        let keep = match strategy.and_then(|u| u.rolling_update.as_ref()) {
            _ if !rolling => 0,
            Some(r) => r.partition.unwrap_or(0),
            // As many as there are now: the status may still count the one that this pod comes after.
            None => self.count_of(self.s.current),
        };
        let r = if ordinal < start.saturating_add(keep) { self.s.current } else { self.s.update };
        let template =
            history::template(r).or_else(|| set.spec.as_ref().map(|s| s.template.clone())).unwrap_or_default();
        pod::new(set, &template, name_of(r), ordinal)
    }

    fn by_ordinal(&self) -> BTreeMap<i32, Arc<Pod>> {
        self.s.pods.iter().filter_map(|p| Some((pod::split_name(&p.metadata.name)?.1, p.clone()))).collect()
    }

    /// Pods in range, from the first on. `false`: nothing else may happen before these are well.
    fn fill(&self, pods: &BTreeMap<i32, Arc<Pod>>, actions: &mut Vec<Action>) -> bool {
        for ordinal in pod::range(self.s.set) {
            let Some(p) = pods.get(&ordinal) else {
                actions.push(Action::Create(Box::new(self.new_pod(ordinal))));
                if self.ordered {
                    return false;
                }
                continue;
            };
            if p.is_terminal() {
                if !p.is_deleting() {
                    actions.push(Action::Delete(p.clone(), Some(p.status.phase.clone())));
                }
                // Its successor comes once it is gone.
                if self.ordered {
                    return false;
                }
                continue;
            }
            let mut labels = Labels::new();
            for (k, v) in [(NAME_LABEL, p.metadata.name.clone()), (INDEX_LABEL, ordinal.to_string())] {
                if p.metadata.labels.get(k) != Some(&v) {
                    labels.insert(k.into(), v);
                }
            }
            if !labels.is_empty() && !p.is_deleting() {
                actions.push(Action::Label(p.clone(), labels));
            }
            if p.status.phase == "Pending" && !p.is_deleting() {
                actions.push(Action::Claims(ordinal));
            }
            if self.ordered && self.is_unavailable(p) {
                return false;
            }
        }
        true
    }

    /// Pods out of range, from the last on.
    fn shrink(&self, pods: &BTreeMap<i32, Arc<Pod>>, actions: &mut Vec<Action>) -> bool {
        let range = pod::range(self.s.set);
        let condemned: Vec<_> = pods.iter().rev().filter(|(o, _)| !range.contains(o)).map(|(_, p)| p).collect();
        // Those that stay come before those that go; of these the one with the lowest ordinal is the first.
        let first_unavailable = pods
            .iter()
            .filter(|(o, _)| range.contains(o))
            .chain(pods.iter().filter(|(o, _)| !range.contains(o)))
            .map(|(_, p)| p)
            .find(|p| self.is_unavailable(p));
        for p in condemned {
            if p.is_deleting() {
                if self.ordered {
                    return false;
                }
                continue;
            }
            let first = first_unavailable.is_some_and(|f| Arc::ptr_eq(f, p));
            if self.ordered && !self.is_available(p) && !first {
                return false;
            }
            actions.push(Action::Delete(p.clone(), None));
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Replaces pods of other revisions, from the last on, no more at a time than may be unavailable.
    fn roll(&self, pods: &BTreeMap<i32, Arc<Pod>>, actions: &mut Vec<Action>) {
        let range = pod::range(self.s.set);
        let rolling =
            self.s.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|u| u.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
        let replicas = range.end - range.start;
        let mut budget = max_unavailable(self.s.set, replicas);
        for ordinal in (range.start.saturating_add(partition)..range.end).rev() {
            if budget <= 0 {
                return;
            }
            let Some(p) = pods.get(&ordinal) else {
                budget -= 1;
                continue;
            };
            if revision(p) != name_of(self.s.update) && !p.is_deleting() {
                actions.push(Action::Delete(p.clone(), None));
                budget -= 1;
            } else if self.is_unavailable(p) {
                budget -= 1;
            }
        }
    }

    fn count(&self, f: &dyn Fn(&Pod) -> bool) -> i32 {
        i32::try_from(self.s.pods.iter().filter(|p| f(p)).count()).unwrap_or(i32::MAX)
    }

    /// Pods of a revision that are not going.
    fn count_of(&self, r: &ControllerRevision) -> i32 {
        self.count(&|p| !p.is_deleting() && revision(p) == name_of(r))
    }

    fn status(&self) -> StatefulSetStatus {
        let old = self.s.set.status.clone().unwrap_or_default();
        let count = |f: &dyn Fn(&Pod) -> bool| self.count(f);
        let nonzero = |n: i32| (n > 0).then_some(n);
        let (replicas, ready) = (count(&|_| true), count(&|p| self.is_ready(p)));
        let updated = self.count_of(self.s.update);
        let (mut current, mut revision) = (self.count_of(self.s.current), name_of(self.s.current).to_owned());
        // Once all pods are of the new revision it becomes the current one.
        let rolling = self
            .s
            .set
            .spec
            .as_ref()
            .and_then(|s| s.update_strategy.as_ref())
            .is_none_or(|u| u.type_.as_deref().is_none_or(|t| t == "RollingUpdate"));
        if rolling && updated == replicas && ready == replicas {
            current = updated;
            name_of(self.s.update).clone_into(&mut revision);
        }
        StatefulSetStatus {
            observed_generation: self.s.set.metadata.generation,
            replicas,
            ready_replicas: nonzero(ready),
            available_replicas: nonzero(count(&|p| self.is_available(p))),
            current_replicas: nonzero(current),
            updated_replicas: nonzero(updated),
            current_revision: Some(revision),
            update_revision: Some(name_of(self.s.update).to_owned()),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
        }
    }
}

pub fn decide(s: &Snapshot<'_>, now: Timestamp) -> Plan {
    let spec = s.set.spec.clone().unwrap_or_default();
    let step = Step {
        s,
        now,
        min_ready: spec.min_ready_seconds.unwrap_or(0),
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
    };
    let mut actions = Vec::new();
    if s.set.metadata.deletion_timestamp.is_none() {
        let pods = step.by_ordinal();
        let on_delete = spec.update_strategy.as_ref().is_some_and(|u| u.type_.as_deref() == Some("OnDelete"));
        if step.fill(&pods, &mut actions) && step.shrink(&pods, &mut actions) && !on_delete {
            // What this step already deletes is on its way; it must not be counted twice.
            let busy = actions.iter().any(|a| matches!(a, Action::Delete(..) | Action::Create(_)));
            if !busy || !step.ordered {
                let mut rolled = Vec::new();
                step.roll(&pods, &mut rolled);
                let doomed: Vec<String> = actions
                    .iter()
                    .filter_map(|a| if let Action::Delete(p, _) = a { Some(p.metadata.name.clone()) } else { None })
                    .collect();
                actions.extend(
                    rolled
                        .into_iter()
                        .filter(|a| !matches!(a, Action::Delete(p, _) if doomed.contains(&p.metadata.name))),
                );
            }
        }
    }
    let waits = s.pods.iter().filter_map(|p| p.available_in(step.min_ready, now)).filter(|d| !d.is_zero());
    Plan { actions, status: step.status(), again: waits.min().map(|d| d + Duration::from_millis(10)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::{Value, json};

    fn set(replicas: i32, policy: &str, strategy: Value) -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "s", "generation": 1}, "spec": {
            "replicas": replicas, "serviceName": "svc", "podManagementPolicy": policy, "updateStrategy": strategy,
            "selector": {"matchLabels": {"a": "b"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "x", "emptyDir": {}}]}}}}))
        .unwrap()
    }

    /// `ordinal revision state`, state one of r(eady), u(nready), f(ailed), d(eleting).
    fn pod_of(line: &str) -> Arc<Pod> {
        let f: Vec<&str> = line.split(' ').collect();
        let phase = if f[2] == "f" { "Failed" } else { "Running" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("web-{}", f[0]), "uid": f[0], "deletionTimestamp": (f[2] == "d").then_some("2024-01-01T00:00:00Z"),
                    "labels": {"controller-revision-hash": f[1], NAME_LABEL: format!("web-{}", f[0]), INDEX_LABEL: f[0]}},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if f[2] == "r" || f[2] == "d" { "True" } else { "False" }, "lastTransitionTime": "2024-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    fn run(set: &StatefulSet, pods: &[&str]) -> (Vec<String>, StatefulSetStatus) {
        let owner = history::Owner { reference: OwnerReference::default(), namespace: "n", collisions: None };
        let make = |name: &str| {
            let mut r = history::new_revision(&owner, &set.spec.as_ref().unwrap().template, 1);
            r.metadata.name = Some(name.into());
            r
        };
        let (current, update) = (make("v1"), make("v2"));
        let s = Snapshot { set, current: &current, update: &update, pods: pods.iter().map(|p| pod_of(p)).collect() };
        let plan = decide(&s, "2024-01-01T00:10:00Z".parse().unwrap());
        let text = |a: &Action| match a {
            Action::Create(p) => {
                format!("+{}@{}", p.metadata.name.as_ref().unwrap(), p.metadata.labels.as_ref().unwrap()[HASH_LABEL])
            }
            Action::Delete(p, _) => format!("-{}", p.metadata.name),
            Action::Label(p, _) => format!("~{}", p.metadata.name),
            Action::Claims(o) => format!("claims of {o}"),
        };
        (plan.actions.iter().map(text).collect(), plan.status)
    }

    #[test]
    fn steps() {
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
        let part = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
        let bare = json!({"type": "RollingUpdate"});
        let two = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}});
        for (n, policy, strategy, pods, want) in [
            (3, "OrderedReady", &rolling, &[][..], &["+web-0@v2"][..]),
            (3, "OrderedReady", &rolling, &["0 v2 u"], &[]),
            (3, "OrderedReady", &rolling, &["0 v2 r"], &["+web-1@v2"]),
            (3, "Parallel", &rolling, &[], &["+web-0@v2", "+web-1@v2", "+web-2@v2"]),
            (3, "OrderedReady", &rolling, &["0 v2 d", "1 v2 r"], &[]),
            (3, "OrderedReady", &rolling, &["0 v2 f", "1 v2 r"], &["-web-0"]),
            // Down from the last, and only when all are well.
            (1, "OrderedReady", &rolling, &["0 v2 r", "1 v2 r", "2 v2 r"], &["-web-2"]),
            (1, "OrderedReady", &rolling, &["0 v2 r", "1 v2 r", "2 v2 d"], &[]),
            (1, "OrderedReady", &rolling, &["0 v2 u", "1 v2 r"], &[]),
            (1, "OrderedReady", &rolling, &["0 v2 r", "1 v2 u", "2 v2 r"], &["-web-2"]),
            // The first that is not well may go while it is the last; one behind it waits for it.
            (0, "OrderedReady", &rolling, &["0 v2 r", "1 v2 r", "2 v2 u"], &["-web-2"]),
            (0, "OrderedReady", &rolling, &["0 v2 u", "1 v2 u", "2 v2 u"], &[]),
            (0, "OrderedReady", &rolling, &["0 v2 u", "1 v2 u"], &[]),
            (0, "OrderedReady", &rolling, &["0 v2 u"], &["-web-0"]),
            (0, "Parallel", &rolling, &["0 v2 r", "1 v2 u"], &["-web-1", "-web-0"]),
            // New revision: from the last, one at a time.
            (3, "OrderedReady", &rolling, &["0 v1 r", "1 v1 r", "2 v1 r"], &["-web-2"]),
            (3, "OrderedReady", &rolling, &["0 v1 r", "1 v1 r", "2 v2 u"], &[]),
            (3, "OrderedReady", &rolling, &["0 v1 r", "1 v1 r", "2 v2 r"], &["-web-1"]),
            (3, "OrderedReady", &two, &["0 v1 r", "1 v1 r", "2 v1 r"], &["-web-2", "-web-1"]),
            (3, "OrderedReady", &part, &["0 v1 r", "1 v1 r", "2 v2 r"], &[]),
            (3, "OrderedReady", &part, &["0 v1 r", "2 v2 r"], &["+web-1@v1"]),
            // What was deleted for its revision is not made anew in it, whatever the status says by then.
            (3, "OrderedReady", &bare, &["0 v1 r", "1 v1 r"], &["+web-2@v2"]),
            (3, "OrderedReady", &bare, &["0 v1 r"], &["+web-1@v2"]),
            (3, "OrderedReady", &json!({"type": "OnDelete"}), &["0 v1 r", "1 v1 r", "2 v1 r"], &[]),
        ] {
            let mut set = set(n, policy, strategy.clone());
            set.status = Some(StatefulSetStatus { current_replicas: Some(n), ..StatefulSetStatus::default() });
            assert_eq!(run(&set, pods).0, want, "{n} {policy} {strategy} {pods:?}");
        }
    }

    #[test]
    fn counts_and_hands_over() {
        let s = set(2, "OrderedReady", json!({"type": "RollingUpdate"}));
        let (_, st) = run(&s, &["0 v1 r", "1 v2 r"]);
        assert_eq!(
            (st.replicas, st.ready_replicas, st.current_replicas, st.updated_replicas),
            (2, Some(2), Some(1), Some(1))
        );
        assert_eq!((st.current_revision.as_deref(), st.update_revision.as_deref()), (Some("v1"), Some("v2")));
        let (_, st) = run(&s, &["0 v2 r", "1 v2 r"]);
        assert_eq!((st.current_revision.as_deref(), st.current_replicas), (Some("v2"), Some(2)));
    }

    #[test]
    fn pods_have_names_and_storage() {
        let s = set(2, "OrderedReady", json!({}));
        let p = pod::new(&s, &s.spec.as_ref().unwrap().template, "v1", 1);
        let spec = p.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-1"), Some("svc")));
        let volumes: Vec<_> = spec
            .volumes
            .unwrap()
            .into_iter()
            .map(|v| (v.name, v.persistent_volume_claim.map(|c| c.claim_name)))
            .collect();
        assert_eq!(volumes, [("data".into(), Some("data-web-1".to_owned())), ("x".into(), None)]);
        assert_eq!(pod::claims(&s, 1)[0].metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(pod::split_name("a-b-12"), Some(("a-b", 12)));
        assert_eq!((pod::split_name("a-b"), pod::split_name("a-"), pod::split_name("a-+1")), (None, None, None));
    }
}
