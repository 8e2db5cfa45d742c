//! What a ReplicaSet does about its pods.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use pintle_api::resources::Resource;
use pintle_client::clock::{since, time};
use serde_json::{Map, Value, json};

use super::SKEW;
use super::view::Owner;
use crate::support::ownership::controller_ref;
use crate::support::pods::Pod;

/// Pods to make or to delete.
#[derive(Debug, PartialEq, Eq)]
pub enum Scale {
    None,
    Up(usize),
    Down(usize),
}

pub fn scale(have: usize, want: usize, burst: usize) -> Scale {
    match have.cmp(&want) {
        Ordering::Equal => Scale::None,
        Ordering::Less => Scale::Up((want - have).min(burst)),
        Ordering::Greater => Scale::Down((have - want).min(burst)),
    }
}

/// JSON text of a pod of the template.
pub fn pod(resource: &Resource, owner: &Owner) -> String {
    let t = &owner.template;
    let mut meta = Map::new();
    meta.insert("generateName".into(), format!("{}-", owner.metadata.name).into());
    meta.insert("namespace".into(), owner.metadata.namespace.as_str().into());
    for (name, map) in [("labels", &t.metadata.labels), ("annotations", &t.metadata.annotations)] {
        if !map.is_empty() {
            meta.insert(name.into(), json!(map));
        }
    }
    if !t.metadata.finalizers.is_empty() {
        meta.insert("finalizers".into(), json!(t.metadata.finalizers));
    }
    meta.insert("ownerReferences".into(), json!([controller_ref(resource, &owner.metadata)]));
    let meta = Value::Object(meta).to_string();
    let spec = t.spec.as_ref().map_or("{}", |s| s.get());
    format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{meta},"spec":{spec}}}"#)
}

/// Orders pods by which goes first, as upstream: unassigned, pending, unready, cheap, doubled-up, newly ready, often
/// restarted, new.
pub fn to_delete(active: &[Arc<Pod>], related: &[Arc<Pod>], n: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if n >= active.len() {
        return active.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for p in related.iter().filter(|p| p.is_active()) {
        *on_node.entry(&p.spec.node_name).or_default() += 1;
    }
    let rank = |p: &Pod| on_node.get(p.spec.node_name.as_str()).copied().unwrap_or(0);
    let mut all = active.to_vec();
    all.sort_by(|a, b| before(a, b, rank(a), rank(b), now));
    all.truncate(n);
    all
}

fn before(a: &Pod, b: &Pod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let assigned = |p: &Pod| !p.spec.node_name.is_empty();
    let phase = |p: &Pod| match p.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |p: &Pod| -> i32 {
        p.metadata
            .annotations
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|c| c.parse().ok())
            .unwrap_or(0)
    };
    assigned(a)
        .cmp(&assigned(b))
        .then(phase(a).cmp(&phase(b)))
        .then(a.is_ready().cmp(&b.is_ready()))
        .then(cost(a).cmp(&cost(b)))
        .then(rank_b.cmp(&rank_a))
        .then_with(|| newer(a, b, a.ready_since(), b.ready_since(), now))
        .then_with(|| b.max_restarts().cmp(&a.max_restarts()))
        .then_with(|| newer(a, b, a.metadata.creation_timestamp, b.metadata.creation_timestamp, now))
}

/// The newer first, ages compared by their order of magnitude and equal ones by uid, so that old pods are not always
/// the ones that stay.
fn newer(a: &Pod, b: &Pod, at: Option<Timestamp>, bt: Option<Timestamp>, now: Timestamp) -> Ordering {
    let (Some(at), Some(bt)) = (at, bt) else { return at.is_some().cmp(&bt.is_some()) };
    if at == bt {
        return Ordering::Equal;
    }
    let magnitude = |t| since(t, now).as_nanos().checked_ilog2();
    magnitude(at).cmp(&magnitude(bt)).then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

pub fn status(
    owner: &Owner,
    active: &[Arc<Pod>],
    terminating: usize,
    failed: Option<String>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let count = |f: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|p| f(p)).count()).unwrap_or(i32::MAX);
    let nonzero = |n: i32| (n > 0).then_some(n);
    let labels = &owner.template.metadata.labels;
    let mut conditions = owner.status.conditions.clone().unwrap_or_default();
    let had = conditions.iter().any(|c| c.type_ == "ReplicaFailure");
    match failed {
        Some(message) if !had => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if active.len() < owner.replicas { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(message),
            last_transition_time: Some(time(now)),
        }),
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: nonzero(count(&|p| labels.iter().all(|(k, v)| p.metadata.labels.get(k) == Some(v)))),
        ready_replicas: nonzero(count(&Pod::is_ready)),
        available_replicas: nonzero(count(&|p| p.is_available(owner.min_ready_seconds, now))),
        terminating_replicas: owner.counts_terminating.then(|| i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: Some(owner.metadata.generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// When the next pod becomes available by time alone.
pub fn next_available(active: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    active
        .iter()
        .filter_map(|p| p.available_in(min_ready_seconds, now))
        .filter(|d| !d.is_zero())
        .min()
        .map(|d| d + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::Object;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + s).unwrap()
    }

    fn owner(replicas: usize) -> Owner {
        let text = format!(
            r#"{{"kind":"ReplicaSet","metadata":{{"name":"web","namespace":"n","uid":"u","generation":3}},"spec":{{"replicas":{replicas},"minReadySeconds":10,
            "selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[]}}}}}}}}"#
        );
        Owner::decode(&Object::from_wire(text.into(), &[]).unwrap()).unwrap()
    }

    /// `name node phase ready-since cost restarts created`, `-` for none.
    fn pod_of(line: &str) -> Arc<Pod> {
        let f: Vec<&str> = line.split(' ').collect();
        let opt = |s: &str| (s != "-").then(|| at(s.parse().unwrap()).to_string());
        let conditions = match opt(f[3]) {
            Some(t) => json!([{"type": "Ready", "status": "True", "lastTransitionTime": t}]),
            None => json!([]),
        };
        let cost = if f[4] == "-" { json!({}) } else { json!({"controller.kubernetes.io/pod-deletion-cost": f[4]}) };
        let value = json!({
            "metadata": {"name": f[0], "uid": f[0], "annotations": cost, "creationTimestamp": opt(f[6]), "labels": {"a": "b"}},
            "spec": {"nodeName": if f[1] == "-" { "" } else { f[1] }},
            "status": {"phase": f[2], "conditions": conditions, "containerStatuses": [{"restartCount": f[5].parse::<i32>().unwrap()}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn scales() {
        assert_eq!(scale(3, 3, 10), Scale::None);
        assert_eq!(scale(3, 5, 10), Scale::Up(2));
        assert_eq!(scale(0, 50, 10), Scale::Up(10));
        assert_eq!(scale(7, 5, 10), Scale::Down(2));
    }

    #[test]
    fn deletes_in_upstreams_order() {
        for (first, second) in [
            ("a - Pending - - 0 0", "b n1 Pending - - 0 0"),
            ("a n1 Pending - - 0 0", "b n1 Running - - 0 0"),
            ("a n1 Running - - 0 0", "b n1 Running 5 - 0 0"),
            ("a n1 Running 5 -10 0 0", "b n1 Running 5 - 0 0"),
            ("a n1 Running 5 - 0 0", "b n2 Running 5 - 0 0"),
            ("a n1 Running 90 - 0 0", "b n1 Running 5 - 0 0"),
            ("a n1 Running 5 - 7 0", "b n1 Running 5 - 0 0"),
            ("a n1 Running 5 - 0 95", "b n1 Running 5 - 0 0"),
        ] {
            // Two more pods on n1 make it the crowded node.
            let related = [pod_of("x n1 Running 5 - 0 0"), pod_of("y n1 Running 5 - 0 0")];
            for both in [[first, second], [second, first]] {
                let pods = both.map(pod_of);
                let got = to_delete(&pods, &related, 1, at(100));
                assert_eq!(got[0].metadata.name, "a", "{first} before {second}");
            }
        }
    }

    #[test]
    fn counts_and_conditions() {
        let o = owner(2);
        let pods = ["a n Running 50 - 0 0", "b n Running 95 - 0 0", "c n Pending - - 0 0"].map(pod_of);
        let s = status(&o, &pods, 1, None, at(100));
        assert_eq!(
            (s.replicas, s.ready_replicas, s.available_replicas, s.fully_labeled_replicas),
            (3, Some(2), Some(1), Some(3))
        );
        assert_eq!((s.observed_generation, s.terminating_replicas), (Some(3), Some(1)));
        assert_eq!(next_available(&pods, 10, at(100)), Some(Duration::from_secs(5) + SKEW));
        assert_eq!(next_available(&pods, 10, at(200)), None);
        let s = status(&o, &pods[..1], 0, Some("quota".into()), at(100));
        let c = &s.conditions.as_ref().unwrap()[0];
        assert_eq!((c.reason.as_deref(), c.message.as_deref()), (Some("FailedCreate"), Some("quota")));
        let mut o = owner(2);
        o.status = s;
        assert!(status(&o, &pods, 0, None, at(100)).conditions.is_none());
        assert_eq!(
            status(&o, &pods, 0, Some("later".into()), at(200)).conditions.unwrap()[0].message.as_deref(),
            Some("quota")
        );
    }

    #[test]
    fn pods_of_the_template() {
        let rs = pintle_api::resources::by_kind("apps/v1", "ReplicaSet").unwrap();
        let v: Value = serde_json::from_str(&pod(rs, &owner(1))).unwrap();
        assert_eq!(v["metadata"]["generateName"], "web-");
        assert_eq!(v["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
        assert_eq!(v["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(v["spec"], json!({"containers": []}));
    }
}
