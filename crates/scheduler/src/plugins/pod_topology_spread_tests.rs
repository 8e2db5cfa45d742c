use super::*;
use crate::cache::objects::{Delta, GroupingKind, ObjectChange};
use crate::model::objects::Grouping;
use crate::plugins::testing::{cluster, filter_all, pod, score_all};
use serde_json::{Value, json};

const SKEW: &str = "node(s) didn't match pod topology spread constraints";
const MISSING: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

fn constraint(key: &str, more: &Value) -> Value {
    let mut c = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    for (k, v) in more.as_object().unwrap() {
        c[k] = v.clone();
    }
    c
}

fn p(constraints: &[Value]) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default", "labels": {"app": "web", "rev": "2"}},
        "spec": {"topologySpreadConstraints": constraints}})
}

fn web(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": "web", "rev": "1"}}})
}

fn node(name: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

fn host(name: &str, zone: &str) -> Value {
    node(name, &json!({"zone": zone, "kubernetes.io/hostname": name}))
}

/// So many pods on a1 and a2 (zone a), b1 and b2 (zone b).
fn zones(counts: [usize; 4]) -> Vec<(Value, Vec<Value>)> {
    [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")]
        .into_iter()
        .zip(counts)
        .map(|((n, z), count)| (host(n, z), (0..count).map(|i| web(&format!("{n}-{i}"))).collect()))
        .collect()
}

fn reasons(p: &Value, nodes: &[(Value, Vec<Value>)]) -> Vec<String> {
    let mut cache = cluster(nodes);
    filter_all(&PodTopologySpread::default(), p, &mut cache).into_iter().map(|(_, r)| r).collect()
}

#[test]
fn hard_constraints() {
    let zone = p(&[constraint("zone", &json!({}))]);
    assert_eq!(reasons(&zone, &zones([0, 0, 0, 0])), ["", "", "", ""]);
    assert_eq!(reasons(&zone, &zones([1, 0, 0, 0])), [SKEW, SKEW, "", ""]);
    assert_eq!(reasons(&zone, &zones([2, 1, 0, 3])), ["", "", "", ""]);
    assert_eq!(reasons(&zone, &zones([2, 1, 0, 2])), [SKEW, SKEW, "", ""]);
    assert_eq!(reasons(&p(&[constraint("zone", &json!({"maxSkew": 2}))]), &zones([1, 0, 0, 0])), ["", "", "", ""]);
    // Both must hold: by zone b, by host b2.
    let both = p(&[constraint("zone", &json!({})), constraint("kubernetes.io/hostname", &json!({}))]);
    assert_eq!(reasons(&both, &zones([2, 1, 2, 0])), [SKEW, SKEW, SKEW, ""]);
    // Pods that do not match themselves may stand where all are alike already.
    let mut other = p(&[constraint("zone", &json!({"maxSkew": 1}))]);
    other["metadata"]["labels"]["app"] = "db".into();
    assert_eq!(reasons(&other, &zones([1, 0, 0, 0])), ["", "", "", ""]);
    assert_eq!(reasons(&other, &zones([2, 0, 0, 0])), [SKEW, SKEW, "", ""]);
}

#[test]
fn nodes_without_the_label() {
    let zone = p(&[constraint("zone", &json!({}))]);
    let mut nodes = zones([1, 0, 0, 0]);
    nodes.push((node("c1", &json!({})), vec![web("c")]));
    assert_eq!(reasons(&zone, &nodes), [SKEW, SKEW, "", "", MISSING]);
}

#[test]
fn min_domains() {
    let c = |n: i32| p(&[constraint("zone", &json!({"minDomains": n}))]);
    assert_eq!(reasons(&c(2), &zones([1, 0, 1, 0])), ["", "", "", ""]);
    assert_eq!(reasons(&c(3), &zones([1, 0, 1, 0])), [SKEW, SKEW, SKEW, SKEW]);
}

#[test]
fn node_policies() {
    let mut in_a = p(&[constraint("zone", &json!({}))]);
    in_a["spec"]["nodeSelector"] = json!({"zone": "a"});
    // Zone b does not count, so zone a is the least crowded.
    assert_eq!(reasons(&in_a, &zones([1, 1, 0, 0]))[..2], ["", ""]);
    in_a["spec"]["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = "Ignore".into();
    assert_eq!(reasons(&in_a, &zones([1, 1, 0, 0]))[..2], [SKEW, SKEW]);
    let mut nodes = zones([1, 1, 0, 0]);
    for n in &mut nodes[2..] {
        n.0["spec"] = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    }
    assert_eq!(reasons(&p(&[constraint("zone", &json!({}))]), &nodes)[..2], [SKEW, SKEW]);
    assert_eq!(reasons(&p(&[constraint("zone", &json!({"nodeTaintsPolicy": "Honor"}))]), &nodes)[..2], ["", ""]);
}

#[test]
fn a_node_that_changes_counts_as_it_is() {
    let mut in_x = p(&[constraint("zone", &json!({}))]);
    in_x["spec"]["nodeSelector"] = json!({"pool": "x"});
    let mut cache = cluster(&zones([1, 0, 0, 0]));
    let plugin = PodTopologySpread::default();
    let ask = |cache: &mut Cache| filter_all(&plugin, &in_x, cache).into_iter().map(|(_, r)| r).collect::<Vec<_>>();
    assert_eq!(ask(&mut cache), ["", "", "", ""], "no node counts");
    for (name, zone) in [("a1", "a"), ("b1", "b")] {
        let labels = json!({"zone": zone, "kubernetes.io/hostname": name, "pool": "x"});
        cache.set_node(Arc::new(crate::plugins::testing::node(&node(name, &labels))));
    }
    assert_eq!(ask(&mut cache), [SKEW, SKEW, "", ""], "two do, one with a pod");
}

#[test]
fn match_label_keys_and_pods_on_their_way_out() {
    let by_revision = p(&[constraint("zone", &json!({"matchLabelKeys": ["rev"]}))]);
    assert_eq!(reasons(&by_revision, &zones([1, 0, 0, 0])), ["", "", "", ""]);
    let mut nodes = zones([1, 0, 0, 0]);
    nodes[0].1[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(reasons(&p(&[constraint("zone", &json!({}))]), &nodes), ["", "", "", ""]);
}

#[test]
fn supposing_moves_the_least_crowded() {
    let mut cache = cluster(&zones([1, 0, 0, 0]));
    let plugin = PodTopologySpread::default();
    let p = pod(&p(&[constraint("zone", &json!({}))]));
    let mut state = plugin.pre_filter(&p, &mut cache).unwrap().state;
    let (node, info) = cache.node("a1").unwrap();
    let fits = |state: &State| plugin.filter(state, &p, node, info, &cache).is_ok();
    assert!(!fits(&state));
    let there = info.pods["a1-0"].clone();
    plugin.suppose(&mut state, &p, &there, info, false, &cache);
    assert!(fits(&state));
    plugin.suppose(&mut state, &p, &there, info, true, &cache);
    assert!(!fits(&state));
}

fn scores(p: &Value, cache: &mut Cache) -> Vec<i64> {
    score_all(&PodTopologySpread::default(), p, cache).into_iter().map(|(_, s)| s).collect()
}

#[test]
fn soft_constraints() {
    let soft = |key: &str| constraint(key, &json!({"whenUnsatisfiable": "ScheduleAnyway"}));
    assert!(scores(&p(&[constraint("zone", &json!({}))]), &mut cluster(&zones([1, 0, 0, 0]))).is_empty());
    // All alike.
    assert_eq!(scores(&p(&[soft("zone")]), &mut cluster(&zones([0, 0, 0, 0]))), [100; 4]);
    let host = p(&[soft("kubernetes.io/hostname")]);
    // Two pods count for 2 ln(4 nodes + 2), rounded, and so on.
    assert_eq!(scores(&host, &mut cluster(&zones([2, 1, 0, 3]))), [20, 60, 100, 0]);
    let zone = p(&[soft("zone")]);
    assert_eq!(scores(&zone, &mut cluster(&zones([2, 2, 1, 0]))), [16, 16, 100, 100]);
    let mut nodes = zones([1, 0, 0, 0]);
    nodes.push((node("c1", &json!({})), vec![]));
    assert_eq!(scores(&zone, &mut cluster(&nodes)), [0, 0, 100, 100, 0]);
}

#[test]
fn system_defaults_follow_owners_and_services() {
    let mut cache = cluster(&zones([2, 0, 0, 0]));
    let plain = p(&[]);
    assert!(scores(&plain, &mut cache).is_empty());
    let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
    let service: Arc<Grouping> = Arc::new(serde_json::from_value(service).unwrap());
    cache.apply(&ObjectChange::Grouping(GroupingKind::Service, Delta { old: None, new: Some(service.clone()) }));
    let with_service = scores(&plain, &mut cache);
    assert!(with_service[0] < with_service[1], "{with_service:?}");
    cache.apply(&ObjectChange::Grouping(GroupingKind::Service, Delta { old: Some(service), new: None }));
    assert!(scores(&plain, &mut cache).is_empty());
    let set = json!({"metadata": {"name": "rs", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    let set: Arc<Grouping> = Arc::new(serde_json::from_value(set).unwrap());
    cache.apply(&ObjectChange::Grouping(GroupingKind::ReplicaSet, Delta { old: None, new: Some(set) }));
    let mut owned = plain.clone();
    owned["metadata"]["ownerReferences"] =
        json!([{"kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true}]);
    assert_eq!(scores(&owned, &mut cache), with_service);
    assert!(scores(&plain, &mut cache).is_empty());
}
