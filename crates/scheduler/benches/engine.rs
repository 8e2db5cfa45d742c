//! Pods placed a second of processor time by the engine alone: no API, no I/O. Each workload is run to its end a few times; the best counts.
//!
//! `cargo bench -p pintle-scheduler [NAME]`

use std::sync::Arc;

use pintle_scheduler::cache::objects::{Delta, GroupingKind, ObjectChange};
use pintle_scheduler::engine::{Engine, Outcome};
use pintle_scheduler::model::{Node, Pod, wire};
use pintle_scheduler::plugins::default_profile;
use serde_json::{Value, json};

/// Processor time of this thread, which a busy machine does not stretch.
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

const NODES: usize = 1000;
const PODS: usize = 5000;
const RUNS: usize = 3;

fn node(i: usize) -> Arc<Node> {
    let name = format!("node-{i}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 10)});
    let text = json!({"metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}});
    Arc::new(serde_json::from_value::<wire::Node>(text).expect("a node").into())
}

fn pod(i: usize, labels: &Value, more: &Value) -> Arc<Pod> {
    let mut spec = json!({"containers": [
        {"image": "example.com/app:1", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]});
    for (k, v) in more.as_object().expect("an object") {
        spec[k] = v.clone();
    }
    let name = format!("pod-{i}");
    let text = json!({"metadata": {"name": name, "uid": name, "namespace": "default", "labels": labels}, "spec": spec});
    Arc::new(serde_json::from_value::<wire::Pod>(text).expect("a pod").into())
}

fn cluster() -> Engine {
    let mut engine = Engine::new(vec![default_profile("default-scheduler")], 1);
    (0..NODES).for_each(|i| engine.set_node(&node(i), 0));
    engine
}

/// Places pods until all are; answers how many a second.
fn place(name: &str, make: impl Fn() -> Engine, pods: impl Fn() -> Vec<Arc<Pod>>) {
    if std::env::args().skip(1).find(|a| !a.starts_with('-')).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let (mut engine, pods) = (make(), pods());
        let n = pods.len();
        pods.iter().for_each(|p| engine.set_pod(None, p, 0));
        let began = cpu();
        let mut bound = 0;
        while let Some(outcome) = engine.step(0) {
            if let Outcome::Bind(pod, ..) = outcome {
                engine.bound(&pod);
                bound += 1;
            }
        }
        assert_eq!(bound, n, "{name}: not every pod was placed");
        best = best.min((cpu() - began) / n as f64);
    }
    println!("{name:24} {:>8.0} pods/s  {:>7.1} us a pod", 1.0 / best, best * 1e6);
}

fn many(labels: Value, more: Value) -> impl Fn() -> Vec<Arc<Pod>> {
    move || (0..PODS).map(|i| pod(i, &labels, &more)).collect()
}

/// Less important pods on every node; each placement is one preemption, with the victims gone at once.
fn preempt() {
    let name = "preemption";
    if std::env::args().skip(1).find(|a| !a.starts_with('-')).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut engine = cluster();
        for i in 0..NODES * 4 {
            let more = json!({"nodeName": format!("node-{}", i % NODES), "priority": 1,
                "containers": [{"resources": {"requests": {"cpu": "900m"}}}]});
            engine.set_pod(None, &pod(100_000 + i, &json!({}), &more), 0);
        }
        let vips = 500_u32;
        let more = json!({"priority": 100, "containers": [{"resources": {"requests": {"cpu": "3"}}}]});
        (0..vips).for_each(|i| engine.set_pod(None, &pod(i as usize, &json!({}), &more), 0));
        let began = cpu();
        let (mut bound, mut now) = (0, 0);
        while bound < vips {
            match engine.step(now) {
                Some(Outcome::Bind(pod, ..)) => {
                    engine.bound(&pod);
                    bound += 1;
                }
                Some(Outcome::Unschedulable(failure)) => {
                    for victim in &failure.victims {
                        engine.remove_pod(victim, now);
                        engine.victim_removed(&failure.pod.uid, true, now);
                    }
                }
                None => now = engine.next_wake().expect("a pod that backs off"),
            }
        }
        best = best.min((cpu() - began) / f64::from(vips));
    }
    println!("{name:24} {:>8.0} pods/s  {:>7.1} us a pod", 1.0 / best, best * 1e6);
}

fn main() {
    println!("{PODS} pods on {NODES} nodes");
    let color = || json!({"color": "green"});
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": "green"}}});
    place("plain", cluster, many(color(), json!({})));
    let with_service = || {
        let mut engine = cluster();
        let service =
            json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"color": "green"}}});
        let service = Some(Arc::new(serde_json::from_value(service).expect("a service")));
        engine.set_object(&ObjectChange::Grouping(GroupingKind::Service, Delta { old: None, new: service }), 0);
        engine
    };
    place("default-spread", with_service, many(color(), json!({})));
    let spread = |when: &str, key: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"color": "green"}}}]})
    };
    place("spread-hard-zone", cluster, many(color(), spread("DoNotSchedule", "topology.kubernetes.io/zone")));
    place("spread-hard-host", cluster, many(color(), spread("DoNotSchedule", "kubernetes.io/hostname")));
    place("spread-soft-zone", cluster, many(color(), spread("ScheduleAnyway", "topology.kubernetes.io/zone")));
    let affinity = |kind: &str, key: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(key)]}}});
    // The zone of the first pod takes 4,000 of them, so fewer are placed.
    let fewer = |more: Value| move || (0..3000).map(|i| pod(i, &json!({"color": "green"}), &more)).collect();
    place("affinity-zone", cluster, fewer(affinity("podAffinity", "topology.kubernetes.io/zone")));
    let one_each = |more: Value| move || (0..NODES).map(|i| pod(i, &json!({"color": "green"}), &more)).collect();
    place("anti-affinity-host", cluster, one_each(affinity("podAntiAffinity", "kubernetes.io/hostname")));
    let preferred = |kind: &str| {
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 1, "podAffinityTerm": term("kubernetes.io/hostname")}]}}})
    };
    place("preferred-affinity", cluster, many(color(), preferred("podAffinity")));
    place("preferred-anti-affinity", cluster, many(color(), preferred("podAntiAffinity")));
    let node_affinity = json!({"nodeSelector": {"topology.kubernetes.io/zone": "zone-1"}});
    place("node-selector", cluster, fewer(node_affinity));
    preempt();
}
