use super::*;
use crate::cache::objects::{Delta, ObjectChange};
use crate::model::objects::Namespace;
use crate::plugins::testing::{cluster, filter_all, pod, score_all};
use serde_json::{Value, json};

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn with(name: &str, app: &str, affinity: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": app}}, "spec": {"affinity": affinity}})
}

fn plain(name: &str, app: &str) -> Value {
    with(name, app, &json!({}))
}

fn required(kind: &str, terms: &[Value]) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn preferred(kind: &str, weight: i32, term: &Value) -> Value {
    json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}})
}

/// Nodes a1 and a2 in zone a, b1 in zone b, c1 in no zone.
fn nodes(pods: [Vec<Value>; 4]) -> Cache {
    let zones = [("a1", Some("a")), ("a2", Some("a")), ("b1", Some("b")), ("c1", None)];
    let all: Vec<(Value, Vec<Value>)> = zones
        .into_iter()
        .zip(pods)
        .map(|((name, zone), pods)| {
            let mut labels = json!({"host": name});
            if let Some(z) = zone {
                labels["zone"] = z.into();
            }
            (json!({"metadata": {"name": name, "labels": labels}}), pods)
        })
        .collect();
    cluster(&all)
}

fn check(p: &Value, pods: [Vec<Value>; 4], want: [&str; 4]) {
    let mut cache = nodes(pods);
    let got = filter_all(&InterPodAffinity::default(), p, &mut cache);
    let want: Vec<(String, String)> =
        ["a1", "a2", "b1", "c1"].iter().zip(want).map(|(n, w)| ((*n).into(), w.into())).collect();
    assert_eq!(got, want, "{p}");
}

#[test]
fn required_affinity() {
    let p = with("p", "web", &required("podAffinity", &[term("db", "zone")]));
    check(&p, [vec![plain("x", "db")], vec![], vec![], vec![]], ["", "", AFFINITY, AFFINITY]);
    check(&p, [vec![], vec![], vec![], vec![plain("x", "db")]], [AFFINITY; 4]);
    // Of another namespace.
    let mut other = plain("x", "db");
    other["metadata"]["namespace"] = "other".into();
    check(&p, [vec![other], vec![], vec![], vec![]], [AFFINITY; 4]);
    // All terms must mean the same pod.
    let both = with("p", "web", &required("podAffinity", &[term("db", "zone"), term("cache", "host")]));
    check(&both, [vec![plain("x", "db"), plain("y", "cache")], vec![], vec![], vec![]], [AFFINITY; 4]);
    let same = with("p", "web", &required("podAffinity", &[term("db", "zone"), term("db", "host")]));
    check(&same, [vec![plain("x", "db")], vec![], vec![], vec![]], ["", AFFINITY, AFFINITY, AFFINITY]);
}

#[test]
fn the_first_of_its_kind_may_go_anywhere_with_the_label() {
    let p = with("p", "web", &required("podAffinity", &[term("web", "zone")]));
    check(&p, [vec![], vec![], vec![], vec![]], ["", "", "", AFFINITY]);
    check(&p, [vec![], vec![], vec![plain("x", "web")], vec![]], [AFFINITY, AFFINITY, "", AFFINITY]);
}

#[test]
fn required_anti_affinity_and_its_symmetry() {
    let p = with("p", "web", &required("podAntiAffinity", &[term("web", "zone")]));
    check(&p, [vec![plain("x", "web")], vec![], vec![], vec![]], [ANTI, ANTI, "", ""]);
    check(&plain("q", "web"), [vec![], vec![], vec![p.clone()], vec![]], ["", "", EXISTING, ""]);
    check(&plain("q", "db"), [vec![], vec![], vec![p], vec![]], [""; 4]);
    let by_host = with("h", "web", &required("podAntiAffinity", &[term("web", "host")]));
    check(&plain("q", "web"), [vec![by_host], vec![], vec![], vec![]], [EXISTING, "", "", ""]);
}

#[test]
fn namespaces_by_name_and_label() {
    let other = json!({"metadata": {"name": "x", "namespace": "other", "labels": {"app": "db"}}});
    for (more, found) in [
        (json!({}), false),
        (json!({"namespaces": ["other"]}), true),
        (json!({"namespaces": ["third"]}), false),
        (json!({"namespaceSelector": {}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "t"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "u"}}}), false),
        (json!({"namespaceSelector": {"matchLabels": {"team": "u"}}, "namespaces": ["other"]}), true),
    ] {
        let mut t = term("db", "zone");
        for (k, v) in more.as_object().unwrap() {
            t[k] = v.clone();
        }
        let mut cache = nodes([vec![other.clone()], vec![], vec![], vec![]]);
        let ns = json!({"metadata": {"name": "other", "labels": {"team": "t"}}});
        let ns: Arc<Namespace> = Arc::new(serde_json::from_value(ns).unwrap());
        cache.apply(&ObjectChange::Namespace(Delta { old: None, new: Some(ns) }));
        let anti = with("p", "web", &required("podAntiAffinity", &[t.clone()]));
        let got = filter_all(&InterPodAffinity::default(), &anti, &mut cache);
        assert_eq!(got[0].1 == ANTI, found, "{t}");
        // And what the others say of this one.
        let mut there = anti.clone();
        there["metadata"]["name"] = "there".into();
        let mut it = pod(&there);
        it.node_name = "b1".into();
        it.uid = "there".into();
        cache.set_pod(Arc::new(it));
        let mut newcomer = other.clone();
        newcomer["metadata"]["name"] = "new".into();
        let got = filter_all(&InterPodAffinity::default(), &newcomer, &mut cache);
        assert_eq!(got[2].1 == EXISTING, found, "{t}");
    }
}

#[test]
fn counts_follow_labels_of_namespaces_and_nodes() {
    let mut cache = nodes([vec![plain("x", "db")], vec![], vec![], vec![]]);
    let p = with("p", "web", &required("podAffinity", &[term("db", "zone")]));
    let ok = |cache: &mut Cache| -> Vec<bool> {
        filter_all(&InterPodAffinity::default(), &p, cache).iter().map(|(_, r)| r.is_empty()).collect()
    };
    assert_eq!(ok(&mut cache), [true, true, false, false]);
    let moved = json!({"metadata": {"name": "a1", "labels": {"zone": "b"}}});
    cache.set_node(Arc::new(crate::plugins::testing::node(&moved)));
    assert_eq!(ok(&mut cache), [true, false, true, false]);
    cache.remove_node("a1");
    assert_eq!(ok(&mut cache), [false, false, false]);
    cache.set_node(Arc::new(crate::plugins::testing::node(&moved)));
    assert_eq!(ok(&mut cache), [true, false, true, false]);
}

#[test]
fn supposing_is_undone() {
    let p = pod(&with("p", "web", &required("podAntiAffinity", &[term("web", "zone")])));
    let x = with("x", "web", &required("podAntiAffinity", &[term("web", "host")]));
    let mut cache = nodes([vec![x], vec![], vec![], vec![]]);
    let plugin = InterPodAffinity::default();
    let mut state = plugin.pre_filter(&p, &mut cache).unwrap().state;
    let (node, info) = cache.node("a1").unwrap();
    let reasons = |state: &State| plugin.filter(state, &p, node, info, &cache).err().map(|r| r.text());
    assert_eq!(reasons(&state).as_deref(), Some(ANTI));
    let x = info.pods["x"].clone();
    plugin.suppose(&mut state, &p, &x, info, false, &cache);
    assert_eq!(reasons(&state), None);
    plugin.suppose(&mut state, &p, &x, info, true, &cache);
    assert_eq!(reasons(&state).as_deref(), Some(ANTI));
}

#[test]
fn wishes() {
    let score = |plugin: &InterPodAffinity, p: &Value, pods: [Vec<Value>; 4]| -> Vec<i64> {
        score_all(plugin, p, &mut nodes(pods)).into_iter().map(|(_, s)| s).collect()
    };
    let plugin = InterPodAffinity::default();
    let likes = with("p", "web", &preferred("podAffinity", 5, &term("db", "zone")));
    let none = Vec::<i64>::new();
    assert_eq!(score(&plugin, &likes, [vec![], vec![], vec![], vec![]]), none);
    assert_eq!(score(&plugin, &likes, [vec![plain("x", "db")], vec![], vec![], vec![]]), [100, 100, 0, 0]);
    let dislikes = with("p", "web", &preferred("podAntiAffinity", 5, &term("db", "zone")));
    assert_eq!(score(&plugin, &dislikes, [vec![plain("x", "db")], vec![], vec![], vec![]]), [0, 0, 100, 100]);
    // More company counts more.
    let pods = [vec![plain("x", "db"), plain("y", "db")], vec![], vec![plain("z", "db")], vec![]];
    assert_eq!(score(&plugin, &likes, pods), [100, 100, 50, 0]);
    // What those that are there wish: required affinity counts by the hard weight, wishes by their own.
    let hard = with("h", "db", &required("podAffinity", &[term("web", "zone")]));
    let soft = with("s", "db", &preferred("podAffinity", 4, &term("web", "zone")));
    let p = plain("p", "web");
    assert_eq!(score(&plugin, &p, [vec![hard.clone()], vec![], vec![soft.clone()], vec![]]), [25, 25, 100, 0]);
    let ignoring = InterPodAffinity { ignore_preferred_terms_of_existing_pods: true, hard_pod_affinity_weight: 1 };
    assert_eq!(score(&ignoring, &p, [vec![hard], vec![], vec![soft], vec![]]), none);
}
