use super::*;
use crate::model::wire;
use crate::plugins::default_profile;
use serde_json::{Value, json};

fn engine() -> Engine {
    Engine::new(vec![default_profile("default-scheduler")], 7)
}

pub(super) fn node(name: &str, cpu: &str) -> Arc<Node> {
    let text = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}});
    Arc::new(serde_json::from_value::<wire::Node>(text).unwrap().into())
}

pub(super) fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let text = json!({"metadata": {"name": name, "uid": name, "namespace": "d"}, "spec": spec});
    Arc::new(serde_json::from_value::<wire::Pod>(text).unwrap().into())
}

pub(super) fn cpu(name: &str, cpu: &str) -> Arc<Pod> {
    pod(name, json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]}))
}

pub(super) fn step(e: &mut Engine, now: u64) -> String {
    match e.step(now) {
        None => "nothing".into(),
        Some(Outcome::Bind(p, n, _)) => format!("{} on {n}", p.name),
        Some(Outcome::Unschedulable(f)) => format!("{}: {}", f.pod.name, f.message),
        Some(Outcome::Group(g)) => format!("{} {}", g.name, g.reason),
    }
}

#[test]
fn places_and_keeps_count() {
    let mut e = engine();
    e.set_node(&node("n", "2"), 0);
    for p in ["a", "b", "c"] {
        e.set_pod(None, &cpu(p, "1"), 0);
    }
    assert_eq!(step(&mut e, 0), "a on n");
    assert_eq!(step(&mut e, 0), "b on n");
    assert_eq!(
        step(&mut e, 0),
        "c: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
         available: 1 No preemption victims found for incoming pod."
    );
    assert_eq!(step(&mut e, 0), "nothing");
    // Room comes back when a binding is refused and when a pod ends.
    e.unbound(&cpu("a", "1"), true, 10);
    assert_eq!(e.next_wake(), Some(1000));
    assert_eq!(step(&mut e, 1000), "c on n");
}

#[test]
fn news_of_a_binding_may_come_twice_and_in_any_order() {
    let mut e = engine();
    e.set_node(&node("n", "2"), 0);
    let bound = |name: &str| {
        let mut p = cpu(name, "1");
        Arc::get_mut(&mut p).unwrap().node_name = "n".into();
        p
    };
    for p in ["a", "b"] {
        e.set_pod(None, &cpu(p, "1"), 0);
    }
    assert_eq!((step(&mut e, 0), step(&mut e, 0)), ("a on n".into(), "b on n".into()));
    // The watch is quicker than the answer, which is still worth counting.
    e.set_pod(Some(&cpu("a", "1")), &bound("a"), 5);
    assert_eq!((e.bound(&cpu("a", "1")), e.bound(&cpu("a", "1"))), (Some((1, 0)), None));
    // The answer was lost, but it was done.
    e.set_pod(Some(&cpu("b", "1")), &bound("b"), 5);
    e.unbound(&cpu("b", "1"), false, 6);
    assert_eq!((step(&mut e, 60_000), e.next_wake(), e.cache().sizes()), ("nothing".into(), None, (1, 2, 0)));
}

#[test]
fn waits_for_a_node_that_fits() {
    let mut e = engine();
    e.set_pod(None, &cpu("a", "4"), 0);
    assert_eq!(step(&mut e, 0), "a: no nodes available to schedule pods");
    e.set_node(&node("small", "2"), 2000);
    assert_eq!(step(&mut e, 2000), "nothing");
    e.set_node(&node("large", "4"), 2000);
    assert_eq!(step(&mut e, 2000), "a on large");
    e.bound(&cpu("a", "4"));
    assert_eq!(e.pending(), Pending::default());
}

#[test]
fn spreads_over_equals() {
    let mut e = engine();
    for n in ["a", "b", "c", "d"] {
        e.set_node(&node(n, "4"), 0);
    }
    let mut used = std::collections::BTreeMap::<String, usize>::new();
    for i in 0..8 {
        e.set_pod(None, &cpu(&format!("p{i}"), "1"), 0);
        if let Some(Outcome::Bind(_, n, _)) = e.step(0) {
            *used.entry(n).or_default() += 1;
        }
    }
    assert_eq!(used.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[test]
fn other_schedulers_gates_and_deleted_pods_are_left_alone() {
    let mut e = engine();
    e.set_node(&node("n", "4"), 0);
    e.set_pod(None, &pod("a", json!({"schedulerName": "mine"})), 0);
    e.set_pod(None, &pod("b", json!({"schedulingGates": [{"name": "x/y"}]})), 0);
    assert_eq!(step(&mut e, 0), "nothing");
    assert_eq!(e.pending().gated, 1);
    let ungated = pod("b", json!({}));
    e.set_pod(Some(&pod("b", json!({"schedulingGates": [{"name": "x/y"}]}))), &ungated, 0);
    assert_eq!(step(&mut e, 0), "b on n");
}

#[test]
fn named_nodes_only() {
    let mut e = engine();
    for n in ["a", "b"] {
        e.set_node(&node(n, "4"), 0);
    }
    let on = |n: &str| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}]}}}});
    e.set_pod(None, &pod("x", on("b")), 0);
    assert_eq!(step(&mut e, 0), "x on b");
    e.set_pod(None, &pod("y", on("zz")), 0);
    assert!(
        step(&mut e, 0).starts_with("y: 0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]")
    );
}

fn important(name: &str, priority: i32, cpu: &str) -> Arc<Pod> {
    let spec = json!({"priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]});
    pod(name, spec)
}

/// A pod that runs on a node since a time.
fn running(name: &str, node: &str, priority: i32, cpu: &str, since: &str, labels: Value) -> Arc<Pod> {
    let text = json!({
        "metadata": {"name": name, "uid": name, "namespace": "d", "labels": labels},
        "spec": {"nodeName": node, "priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
        "status": {"startTime": since},
    });
    Arc::new(serde_json::from_value::<wire::Pod>(text).unwrap().into())
}

fn failure(e: &mut Engine, now: u64) -> Failure {
    match e.step(now) {
        Some(Outcome::Unschedulable(f)) => f,
        other => panic!("{other:?}"),
    }
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn makes_room_for_the_more_important() {
    let mut e = engine();
    e.set_node(&node("n", "2"), 0);
    let old = running("old", "n", 1, "1", "2026-01-01T00:00:00Z", json!({}));
    let new = running("new", "n", 1, "1", "2026-01-02T00:00:00Z", json!({}));
    e.set_pod(None, &old, 0);
    e.set_pod(None, &new, 0);
    let vip = important("vip", 10, "1");
    e.set_pod(None, &vip, 0);
    let f = failure(&mut e, 0);
    assert_eq!(f.message, "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!((f.nominate.as_deref(), names(&f.victims)), (Some("n"), vec!["new"]));
    // Nobody less important gets the room meanwhile.
    e.set_pod(None, &important("low", 1, "1"), 0);
    e.remove_pod(&new, 1000);
    assert_eq!(e.pending().backoff, 0, "held until the removal was answered");
    let low = failure(&mut e, 1000);
    assert!(low.message.starts_with("0/1 nodes are available: 1 Insufficient cpu. no new claims"), "{}", low.message);
    e.victim_removed("vip", true, 1000);
    assert_eq!(step(&mut e, 1000), "vip on n");
}

#[test]
fn who_may_preempt() {
    let check = |pod: Arc<Pod>, want: &str| {
        let mut e = engine();
        e.set_node(&node("n", "2"), 0);
        e.set_pod(None, &running("x", "n", 1, "2", "", json!({})), 0);
        e.set_pod(None, &pod, 0);
        let f = failure(&mut e, 0);
        assert_eq!(f.message.split_once("cpu. ").map_or("", |(_, m)| m), want, "{}", f.message);
    };
    let no = "no new claims to deallocate, preemption: ";
    let equal = format!("{no}0/1 nodes are available: 1 No preemption victims found for incoming pod.");
    check(important("p", 1, "1"), &equal);
    // An empty node would not do.
    check(important("p", 5, "3"), &format!("{no}0/1 nodes are available: 1 Preemption is not helpful for scheduling."));
    let spec =
        json!({"priority": 5, "preemptionPolicy": "Never", "containers": [{"resources": {"requests": {"cpu": "1"}}}]});
    check(pod("p", spec), &format!("{no}not eligible due to preemptionPolicy=Never."));
    check(important("p", 5, "1"), "");
}

#[test]
fn waits_for_victims_that_end_gracefully() {
    let mut e = engine();
    e.set_node(&node("n", "1"), 0);
    e.set_pod(None, &running("x", "n", 1, "1", "", json!({})), 0);
    let vip = important("vip", 10, "1");
    e.set_pod(None, &vip, 0);
    assert_eq!(names(&failure(&mut e, 0).victims), ["x"]);
    let mut going = running("x", "n", 1, "1", "", json!({}));
    Arc::get_mut(&mut going).unwrap().deleting = true;
    Arc::get_mut(&mut going).unwrap().preempted = true;
    e.set_pod(Some(&running("x", "n", 1, "1", "", json!({}))), &going, 10);
    e.victim_removed("vip", true, 10);
    // Something else happens: it is tried again, but takes no more victims.
    e.set_node(&node("m", "500m"), 2000);
    e.queue.event("e", 2000, |_| true);
    let f = failure(&mut e, 2000);
    assert!(
        f.message.ends_with("preemption: not eligible due to a terminating pod on the nominated node."),
        "{}",
        f.message
    );
    assert!(f.victims.is_empty() && f.nominate.is_none());
    e.remove_pod(&going, 3000);
    assert_eq!(step(&mut e, 9000), "vip on n");
}

#[test]
fn the_cheapest_node_is_chosen() {
    let check = |on: &[(&str, &str, i32, &str, &str)], want_node: &str, want: &[&str]| {
        let mut e = engine();
        for n in ["a", "b", "c"] {
            e.set_node(&node(n, "2"), 0);
        }
        for (name, node, priority, cpu, since) in on {
            e.set_pod(None, &running(name, node, *priority, cpu, since, json!({})), 0);
        }
        e.set_pod(None, &important("vip", 100, "2"), 0);
        let f = failure(&mut e, 0);
        assert_eq!((f.nominate.as_deref(), names(&f.victims)), (Some(want_node), want.to_vec()), "{on:?}");
    };
    // The least important most important victim.
    check(&[("x", "a", 3, "2", ""), ("y", "b", 2, "2", ""), ("z", "c", 4, "2", "")], "b", &["y"]);
    // The least sum.
    check(
        &[
            ("x", "a", 3, "1", ""),
            ("x2", "a", 3, "1", ""),
            ("y", "b", 3, "1", ""),
            ("y2", "b", 2, "1", ""),
            ("z", "c", 3, "2", ""),
            ("z2", "c", 3, "0", ""),
        ],
        "c",
        &["z"],
    );
    // Who began last.
    check(
        &[
            ("x", "a", 3, "2", "2026-01-01T00:00:00Z"),
            ("y", "b", 3, "2", "2026-01-03T00:00:00Z"),
            ("z", "c", 3, "2", "2026-01-02T00:00:00Z"),
        ],
        "b",
        &["y"],
    );
}

#[test]
fn budgets_are_broken_last() {
    let mut e = engine();
    e.set_node(&node("a", "2"), 0);
    e.set_node(&node("b", "2"), 0);
    let budget = json!({"metadata": {"name": "b", "namespace": "d"}, "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 0}});
    let budget = Some(Arc::new(serde_json::from_value(budget).unwrap()));
    e.set_object(&ObjectChange::Budget(crate::cache::objects::Delta { old: None, new: budget }), 0);
    let guarded = json!({"app": "guarded"});
    e.set_pod(None, &running("guarded", "a", 1, "2", "", guarded.clone()), 0);
    e.set_pod(None, &running("dear", "b", 5, "1", "", json!({})), 0);
    e.set_pod(None, &running("guarded2", "b", 1, "1", "", guarded), 0);
    e.set_pod(None, &important("vip", 10, "1"), 0);
    let f = failure(&mut e, 0);
    assert_eq!((f.nominate.as_deref(), names(&f.victims)), (Some("b"), vec!["dear"]));
}

#[test]
fn lesser_nominations_give_way() {
    let mut e = engine();
    e.set_node(&node("n", "1"), 0);
    e.set_pod(None, &running("x", "n", 1, "1", "", json!({})), 0);
    e.set_pod(None, &important("mid", 5, "1"), 0);
    assert_eq!(failure(&mut e, 0).nominate.as_deref(), Some("n"));
    e.set_pod(None, &important("high", 9, "1"), 0);
    let f = failure(&mut e, 0);
    assert_eq!((f.nominate.as_deref(), names(&f.demoted)), (Some("n"), vec!["mid"]));
}

/// The same of the room that could be made: while pods come, go, start and are promised nodes, and budgets change.
#[test]
fn remembered_room_is_true() {
    let mut e = engine();
    let mut random = Search::new(77);
    for i in 0..12 {
        e.set_node(&node(&format!("n{i}"), ["2", "3"][i % 2]), 0);
    }
    let mut there: Vec<Arc<Pod>> = Vec::new();
    let (mut nominations, mut rooms) = (0, 0);
    for i in 0..300 {
        let (name, on) = (format!("p{i}"), format!("n{}", random.random(12)));
        match random.random(6) {
            0..=2 => {
                let p = running(&name, &on, [0, 1, 5][random.random(3)], "700m", "", json!({"app": "a"}));
                e.set_pod(None, &p, 0);
                there.push(p);
            }
            3 if !there.is_empty() => e.remove_pod(&there.swap_remove(random.random(there.len())), 0),
            4 if !there.is_empty() => {
                let at = random.random(there.len());
                let (old, started) = (there[at].clone(), format!("2024-01-01T00:{:02}:00Z", i % 60));
                let new = running(&old.name, &old.node_name, old.priority, "700m", &started, json!({"app": "a"}));
                e.set_pod(Some(&old), &new, 0);
                there[at] = new;
            }
            _ => {
                let budget = json!({"metadata": {"name": "b", "namespace": "d"}, "spec": {"selector": {}},
                    "status": {"disruptionsAllowed": random.random(3)}});
                let new = Some(Arc::new(serde_json::from_value(budget).unwrap()));
                e.set_object(&ObjectChange::Budget(crate::cache::objects::Delta { old: None, new }), 0);
            }
        }
        let vip = important(&format!("vip{i}"), [3, 9][random.random(2)], "1500m");
        for [remembered, anew] in e.profiles[0].rooms_of(&vip, &mut e.cache, &mut e.search) {
            assert_eq!(remembered, anew);
            rooms += usize::from(anew.starts_with("Ok"));
        }
        if random.random(4) == 0 {
            e.set_pod(None, &vip, 0);
            if let Some(Outcome::Unschedulable(f)) = e.step(0) {
                nominations += usize::from(f.nominate.is_some_and(|n| !n.is_empty()));
            }
            if random.random(2) == 0 {
                e.remove_pod(&vip, 0);
            }
        }
    }
    assert!(nominations > 5 && rooms > 500, "{nominations} {rooms}");
}

/// A promise stands in the way of every pod but the one that has it.
#[test]
fn own_promises_are_not_in_the_way() {
    let mut e = engine();
    e.set_node(&node("n", "2"), 0);
    for name in ["a", "b"] {
        e.set_pod(None, &running(name, "n", 0, "700m", "", json!({})), 0);
    }
    let vips = ["one", "two"].map(|name| important(name, 9, "1500m"));
    e.set_pod(None, &vips[0], 0);
    assert_eq!(failure(&mut e, 0).nominate.as_deref(), Some("n"));
    for (i, finds_room) in [(1, false), (0, true), (1, false)] {
        let [[remembered, anew]] = e.profiles[0].rooms_of(&vips[i], &mut e.cache, &mut e.search).try_into().unwrap();
        assert_eq!((anew.starts_with("Ok"), remembered), (finds_room, anew.clone()), "{}", vips[i].name);
    }
}

/// Whether anything is remembered or not, pods hear the same.
#[test]
fn without_batching() {
    let said = [true, false].map(|batching| {
        let mut e = engine().with_batching(batching);
        e.set_node(&node("n", "2"), 0);
        for name in ["a", "b", "c"] {
            e.set_pod(None, &cpu(name, "1"), 0);
        }
        let vip = important("vip", 9, "2");
        e.set_pod(None, &vip, 1);
        std::array::from_fn::<_, 5, _>(|_| step(&mut e, 1))
    });
    assert_eq!(said[0], said[1]);
}

/// What is remembered of nodes for pods alike must be what they would say if they were asked again.
#[test]
fn remembered_scores_are_true() {
    let mut e = engine();
    let mut random = Search::new(99);
    for i in 0..20 {
        e.set_node(&node(&format!("n{i}"), ["2", "4", "6"][i % 3]), 0);
    }
    let mut placed: Vec<Arc<Pod>> = Vec::new();
    for i in 0..400 {
        let spec = [
            json!({"containers": [{"resources": {"requests": {"cpu": "100m"}}}]}),
            json!({"containers": [{"resources": {"requests": {"cpu": "300m", "memory": "100Mi"}}}]}),
            json!({"containers": [{"ports": [{"hostPort": 80}]}]}),
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]}),
            json!({"topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]}),
            json!({"priority": 1, "containers": [{"resources": {"requests": {"cpu": "1900m"}}}]}),
            json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 2,
                "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}]}}}),
        ];
        let p = pod(&format!("p{i}"), spec[random.random(spec.len())].clone());
        e.set_pod(None, &p, 0);
        let scores = e.profiles[0].scores_of(&p, &mut e.cache);
        let top = scores.iter().map(|(_, s)| *s).max();
        match e.step(0) {
            Some(Outcome::Bind(p, n, _)) => {
                let own = scores.iter().find(|(name, _)| *name == n).map(|(_, s)| *s);
                assert_eq!(own, top, "{} on {n}: {scores:?}", p.name);
                placed.push(p);
            }
            Some(Outcome::Unschedulable(f)) => {
                assert_eq!(top, None, "{}", f.message);
                e.queue.remove(&f.pod.uid);
            }
            None | Some(Outcome::Group(_)) => panic!("nothing was tried"),
        }
        // Pods go, and a node changes, now and then.
        if random.random(4) == 0 && !placed.is_empty() {
            let gone = placed.swap_remove(random.random(placed.len()));
            e.remove_pod(&gone, 0);
        }
        if random.random(40) == 0 {
            let name = format!("n{}", random.random(20));
            e.set_node(&node(&name, "5"), 0);
        }
    }
}
