//! What upstream's documentation says of pod groups and gang scheduling.

use super::tests::{node, pod};
use super::*;
use crate::cache::objects::Delta;
use crate::plugins::profile_with;
use pintle_api::features::{Feature, FeatureGates};
use serde_json::{Value, json};

const FULL: &str = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                    available: 1 No preemption victims found for incoming pod.";

fn engine() -> Engine {
    let mut gates = FeatureGates::default();
    gates.set(Feature::GenericWorkload, true);
    gates.set(Feature::GangScheduling, true);
    Engine::new([profile_with("default-scheduler", &gates), profile_with("other", &gates)], 7).with_groups(true)
}

fn member(name: &str, group: &str, cpu: &str, more: &Value) -> Arc<Pod> {
    let mut spec = json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}],
        "schedulingGroup": {"podGroupName": group}});
    for (k, v) in more.as_object().unwrap() {
        spec[k] = v.clone();
    }
    pod(name, spec)
}

fn add(e: &mut Engine, names: &[&str], now: u64) {
    names.iter().for_each(|n| e.set_pod(None, &member(n, "g", "1", &json!({})), now));
}

fn group(e: &mut Engine, name: &str, policy: &Value, conditions: &Value) -> Value {
    let text = json!({"metadata": {"name": name, "namespace": "d", "generation": 3},
        "spec": {"schedulingPolicy": policy}, "status": {"conditions": conditions}});
    let new = Some(Arc::new(serde_json::from_value(text.clone()).unwrap()));
    let old = e.cache.objects.pod_groups.get(&format!("d/{name}")).cloned();
    e.set_object(&ObjectChange::PodGroup(Delta { old, new }), 0);
    text
}

fn gang(e: &mut Engine, least: usize) {
    group(e, "g", &json!({"gang": {"minCount": least}}), &json!([]));
}

/// Everything that can be done now, in the order it is decided.
fn all(e: &mut Engine, now: u64) -> Vec<String> {
    std::iter::from_fn(|| e.step(now))
        .map(|o| match o {
            Outcome::Bind(p, n, _) => format!("{} on {n}", p.name),
            Outcome::Group(g) => format!("{} {} {}", g.name, g.reason, g.message).trim().to_owned(),
            Outcome::Unschedulable(f) => {
                let victims: Vec<_> = f.victims.iter().map(|v| &v.name).collect();
                let victims = if victims.is_empty() { String::new() } else { format!(" {victims:?}") };
                format!("{}: {}{victims}", f.pod.name, f.message)
            }
        })
        .collect()
}

fn waits(name: &str) -> String {
    format!("{name}: pod group is unschedulable, one or more plugins asked to wait and no plugin rejected pod {name:?}")
}

#[test]
fn held_until_the_group_and_enough_pods_are_there() {
    let mut e = engine();
    e.set_node(&node("n", "9"), 0);
    add(&mut e, &["a", "b"], 0);
    assert_eq!((all(&mut e, 0), e.pending().gated), (vec![], 2));
    gang(&mut e, 3);
    assert_eq!((all(&mut e, 0), e.pending().gated), (vec![], 2));
    // Neither another group's pods count nor those of the same name in another namespace.
    e.set_pod(None, &member("x", "other", "1", &json!({})), 0);
    assert_eq!(e.pending().gated, 3);
    add(&mut e, &["c"], 0);
    assert_eq!(all(&mut e, 0), ["g Scheduled", "a on n", "b on n", "c on n"]);
    assert_eq!(e.pending().gated, 1);
}

#[test]
fn one_that_is_gone_is_not_waited_for() {
    let mut e = engine();
    e.set_node(&node("n", "9"), 0);
    gang(&mut e, 2);
    add(&mut e, &["a"], 0);
    e.remove_pod(&member("a", "g", "1", &json!({})), 0);
    add(&mut e, &["b"], 0);
    assert_eq!((all(&mut e, 0), e.pending().gated), (vec![], 1));
    // A lower minimum will do, too.
    gang(&mut e, 1);
    assert_eq!(all(&mut e, 0), ["g Scheduled", "b on n"]);
}

#[test]
fn all_or_nothing() {
    let mut e = engine();
    e.set_node(&node("n", "2"), 0);
    gang(&mut e, 3);
    add(&mut e, &["a", "b", "c"], 0);
    assert_eq!(
        all(&mut e, 0),
        ["g Unschedulable pod group is unschedulable".to_owned(), waits("a"), waits("b"), format!("c: {FULL}")]
    );
    // Nothing is left behind, and other pods have the room.
    assert_eq!(e.cache().sizes(), (1, 0, 0));
    // What helps one is for all of them.
    e.set_node(&node("m", "1"), 5000);
    assert_eq!(all(&mut e, 5000), ["g Scheduled", "a on n", "b on m", "c on n"]);
}

#[test]
fn more_than_the_minimum_are_placed_as_they_fit() {
    let mut e = engine();
    e.set_node(&node("n", "3"), 0);
    gang(&mut e, 2);
    add(&mut e, &["a", "b", "c", "d"], 0);
    assert_eq!(all(&mut e, 0), ["g Scheduled", "a on n", "b on n", "c on n", &format!("d: {FULL}")],);
    // Those that come later join those that are there; what is known of the group stays so.
    let scheduled = json!([{"type": "PodGroupScheduled", "status": "True", "reason": "Scheduled"}]);
    group(&mut e, "g", &json!({"gang": {"minCount": 2}}), &scheduled);
    add(&mut e, &["e"], 5000);
    e.set_node(&node("m", "1"), 5000);
    let after = all(&mut e, 5000);
    assert!(after.iter().any(|o| o.ends_with(" on m")) && !after.iter().any(|o| o.starts_with("g ")), "{after:?}");
}

#[test]
fn a_basic_group_is_placed_as_it_fits() {
    let mut e = engine();
    e.set_node(&node("n", "1"), 0);
    group(&mut e, "g", &json!({"basic": {}}), &json!([]));
    add(&mut e, &["a", "b"], 0);
    assert_eq!(all(&mut e, 0), ["g Scheduled", "a on n", &format!("b: {FULL}")]);
}

#[test]
fn important_ones_first() {
    let mut e = engine();
    e.set_node(&node("n", "1"), 0);
    gang(&mut e, 1);
    for (name, priority) in [("a", 0), ("b", 5)] {
        let p = member(name, "g", "1", &json!({"priority": priority, "preemptionPolicy": "Never"}));
        e.set_pod(None, &p, 0);
    }
    assert_eq!(all(&mut e, 0)[..2], ["g Scheduled", "b on n"]);
}

#[test]
fn room_is_made_for_a_whole_gang_only() {
    for (least, want) in [
        // Two find room where the less important ones are, and no more.
        (3, vec!["g Unschedulable pod group is unschedulable".to_owned(), waits("a"), waits("b"), String::new()]),
        (
            2,
            vec![
                "g Unschedulable pod group is unschedulable, pod group is waiting for preemption to complete"
                    .to_owned(),
                "a: 0/2 nodes are available: 2 Insufficient cpu. [\"low-".to_owned(),
                "b: 0/2 nodes are available: 2 Insufficient cpu. [\"low-".to_owned(),
            ],
        ),
    ] {
        let mut e = engine();
        for n in ["m", "n"] {
            e.set_node(&node(n, "1"), 0);
            let low = json!({"nodeName": n, "priority": -1, "containers": [{"resources": {"requests": {"cpu": "1"}}}]});
            e.set_pod(None, &pod(&format!("low-{n}"), low), 0);
        }
        gang(&mut e, least);
        ["a", "b", "c"][..least].iter().for_each(|n| add(&mut e, &[n], 0));
        let said = all(&mut e, 0);
        assert_eq!(said.len(), want.len(), "{said:?}");
        assert!(said.iter().zip(&want).all(|(said, want)| said.starts_with(want)), "{said:?}");
        assert_eq!(e.cache().sizes(), (2, 2, 0));
        if least == 2 {
            // Once the victims are gone all have their place.
            for n in ["m", "n"] {
                let low = pod(&format!("low-{n}"), json!({"nodeName": n}));
                e.remove_pod(&low, 2000);
            }
            for p in ["a", "b"] {
                e.victim_removed(p, true, 2000);
            }
            let mut after = all(&mut e, 2000);
            after.sort_by_key(String::len);
            assert_eq!(after.len(), 3, "{after:?}");
            assert!(after[..2].iter().all(|o| o.contains(" on ")) && after[2] == "g Scheduled", "{after:?}");
        }
    }
}

#[test]
fn one_scheduler_for_all() {
    let mut e = engine();
    e.set_node(&node("n", "9"), 0);
    gang(&mut e, 2);
    add(&mut e, &["a"], 0);
    e.set_pod(None, &member("b", "g", "1", &json!({"schedulerName": "other"})), 1);
    let why = "all pods in a single pod group should have the same .spec.schedulerName set, got: \"default-scheduler\" \
               and \"other\"";
    assert_eq!(all(&mut e, 1), [format!("a: {why}"), format!("b: {why}")]);
}

#[test]
fn without_the_features_groups_are_nothing() {
    let mut e = Engine::new([profile_with("default-scheduler", &FeatureGates::default())], 7);
    e.set_node(&node("n", "1"), 0);
    add(&mut e, &["a"], 0);
    assert_eq!(all(&mut e, 0), ["a on n"]);
}
