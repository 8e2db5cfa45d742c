//! Pods placed a second of processor time by the engine alone: no API, no I/O. Each workload is run to its end a few
//! times; the best counts. First workloads of our own on 1,000 nodes, then those of upstream's `scheduler_perf` in their
//! largest size, beside the floor that upstream publishes for its whole scheduler on its own CI machines.
//!
//! `cargo bench -p pintle-scheduler --bench engine [NAME]`

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
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn node(i: usize, zones: usize) -> Arc<Node> {
    let name = format!("node-{i}");
    let labels = json!({HOST: name, ZONE: format!("zone-{}", i % zones)});
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

fn cluster(nodes: usize, zones: usize) -> Engine {
    let mut engine = Engine::new(vec![default_profile("default-scheduler")], 1);
    (0..nodes).for_each(|i| engine.set_node(&node(i, zones), 0));
    engine
}

/// Tries pods until none is left to try now; answers how many were placed.
fn run(engine: &mut Engine, each: &mut impl FnMut(&mut Engine, usize)) -> usize {
    let mut bound = 0;
    while let Some(outcome) = engine.step(0) {
        if let Outcome::Bind(pod, ..) = outcome {
            engine.bound(&pod);
            bound += 1;
            each(engine, bound);
        }
    }
    bound
}

/// One workload.
struct Work {
    name: &'static str,
    /// Upstream's floor, in pods a second.
    upstream: Option<u32>,
    nodes: usize,
    zones: usize,
    /// How many pods are there before, and how many are measured.
    before: usize,
    pods: usize,
    labels: Value,
    more: Value,
    /// Of the pods that are there before, when they are not like the others.
    more_before: Option<Value>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            name: "",
            upstream: None,
            nodes: NODES,
            zones: 10,
            before: 0,
            pods: PODS,
            labels: json!({"color": "green"}),
            more: json!({}),
            more_before: None,
        }
    }
}

fn is_wanted(name: &str) -> bool {
    std::env::args().skip(1).find(|a| !a.starts_with('-')).is_none_or(|only| name.contains(&only))
}

fn report(name: &str, upstream: Option<u32>, seconds: f64) {
    let rate = 1.0 / seconds;
    print!("{name:28} {rate:>8.0} pods/s  {:>7.1} us a pod", seconds * 1e6);
    match upstream {
        Some(floor) => println!("   upstream {floor:>5} pods/s   {:>6.1} times", rate / f64::from(floor)),
        None => println!(),
    }
}

impl Work {
    /// Places pods until all are.
    fn place(self) {
        self.place_with(|_| {}, |_, _| {});
    }

    /// The same, in a cluster that is prepared, with something done after each placement.
    fn place_with(self, prepare: impl Fn(&mut Engine), mut each: impl FnMut(&mut Engine, usize)) {
        if !is_wanted(self.name) {
            return;
        }
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let mut engine = cluster(self.nodes, self.zones);
            prepare(&mut engine);
            let earlier = self.more_before.as_ref().unwrap_or(&self.more);
            (0..self.before).for_each(|i| engine.set_pod(None, &pod(1_000_000 + i, &self.labels, earlier), 0));
            run(&mut engine, &mut |_, _| {});
            let pods: Vec<_> = (0..self.pods).map(|i| pod(i, &self.labels, &self.more)).collect();
            pods.iter().for_each(|p| engine.set_pod(None, p, 0));
            let began = cpu();
            let bound = run(&mut engine, &mut each);
            assert_eq!(bound, self.pods, "{}: not every pod was placed", self.name);
            best = best.min((cpu() - began) / self.pods as f64);
        }
        report(self.name, self.upstream, best);
    }
}

/// Less important pods on every node; each placement is one preemption, with the victims gone at once.
fn preempt(name: &str, upstream: Option<u32>, nodes: usize, pods: usize) {
    if !is_wanted(name) {
        return;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut engine = cluster(nodes, 10);
        for i in 0..nodes * 4 {
            let more = json!({"nodeName": format!("node-{}", i % nodes), "priority": 1,
                "containers": [{"resources": {"requests": {"cpu": "900m"}}}]});
            engine.set_pod(None, &pod(1_000_000 + i, &json!({}), &more), 0);
        }
        let more = json!({"priority": 100, "containers": [{"resources": {"requests": {"cpu": "3"}}}]});
        (0..pods).for_each(|i| engine.set_pod(None, &pod(i, &json!({}), &more), 0));
        let began = cpu();
        let (mut bound, mut now) = (0, 0);
        while bound < pods {
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
                Some(Outcome::Group(_)) => {}
                None => now = engine.next_wake().expect("a pod that backs off"),
            }
        }
        best = best.min((cpu() - began) / pods as f64);
    }
    report(name, upstream, best);
}

fn term(key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": "green"}}})
}

fn required(kind: &str, key: &str) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(key)]}}})
}

fn preferred(kind: &str, key: &str) -> Value {
    json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "podAffinityTerm": term(key)}]}}})
}

fn spread(when: &str, key: &str) -> Value {
    json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"color": "green"}}}]})
}

fn service(i: usize) -> ObjectChange {
    let service = json!({"metadata": {"name": format!("s-{i}"), "namespace": "default"}, "spec": {"selector": {"color": "green"}}});
    let new = Some(Arc::new(serde_json::from_value(service).expect("a service")));
    ObjectChange::Grouping(GroupingKind::Service, Delta { old: None, new })
}

fn on_1000_nodes() {
    println!("{PODS} pods on {NODES} nodes");
    let work = |name, more| Work { name, more, ..Work::default() };
    work("plain", json!({})).place();
    work("default-spread", json!({})).place_with(|e| e.set_object(&service(0), 0), |_, _| {});
    let one_zone = json!({"nodeSelector": {ZONE: "zone-1"}});
    Work { pods: 3000, ..work("default-spread-selector", one_zone) }
        .place_with(|e| e.set_object(&service(0), 0), |_, _| {});
    work("spread-hard-zone", spread("DoNotSchedule", ZONE)).place();
    work("spread-hard-host", spread("DoNotSchedule", HOST)).place();
    work("spread-soft-zone", spread("ScheduleAnyway", ZONE)).place();
    // The zone of the first pod takes 4,000 of them, so fewer are placed.
    Work { pods: 3000, ..work("affinity-zone", required("podAffinity", ZONE)) }.place();
    Work { pods: NODES, ..work("anti-affinity-host", required("podAntiAffinity", HOST)) }.place();
    work("preferred-affinity", preferred("podAffinity", HOST)).place();
    work("preferred-anti-affinity", preferred("podAntiAffinity", HOST)).place();
    Work { pods: 3000, ..work("node-selector", json!({"nodeSelector": {ZONE: "zone-1"}})) }.place();
    preempt("preemption", None, NODES, 500);
}

/// What upstream calls `SchedulingWithMixedChurn`: while pods are placed, nodes, large important pods and Services come
/// and go. Upstream does so once a second; here it is done for each of so many placements as upstream makes a second.
fn churn(upstream: u32) {
    let mut round = 0;
    let each = |engine: &mut Engine, bound: usize| {
        if !bound.is_multiple_of(upstream as usize) {
            return;
        }
        round += 1;
        engine.set_node(&node(1_000_000 + round, 10), 0);
        engine.remove_node(&format!("node-{}", 1_000_000 + round - 1), 0);
        let large =
            json!({"priority": 10, "containers": [{"resources": {"requests": {"cpu": "9", "memory": "500Mi"}}}]});
        let large = pod(2_000_000 + round, &json!({}), &large);
        engine.set_pod(None, &large, 0);
        engine.set_object(&service(round), 0);
    };
    let work = Work { name: "5k-mixed-churn", upstream: Some(upstream), nodes: 5000, pods: 10_000, ..Work::default() };
    work.place_with(|_| {}, each);
}

fn of_scheduler_perf() {
    println!("upstream's scheduler_perf on 5,000 nodes");
    let work = |name, floor, before, pods, more| Work {
        name,
        upstream: Some(floor),
        nodes: 5000,
        before,
        pods,
        more,
        ..Work::default()
    };
    work("5k-basic", 680, 1000, 10_000, json!({})).place();
    let zones = json!([{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-0", "zone-1"]}]}]);
    let affine = json!({"affinity": {"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zones}}}});
    // Upstream's nodes are all in one zone, and so all of them match.
    Work { zones: 1, ..work("5k-node-affinity", 220, 5000, 10_000, affine) }.place();
    Work { zones: 1, ..work("5k-affinity", 35, 5000, 5000, required("podAffinity", ZONE)) }.place();
    work("5k-anti-affinity", 60, 1000, 2000, required("podAntiAffinity", HOST)).place();
    work("5k-preferred-affinity", 90, 5000, 5000, preferred("podAffinity", HOST)).place();
    work("5k-preferred-anti-affinity", 90, 5000, 5000, preferred("podAntiAffinity", HOST)).place();
    Work { zones: 3, ..work("5k-spread", 460, 1000, 5000, spread("DoNotSchedule", ZONE)) }.place();
    Work { zones: 3, ..work("5k-preferred-spread", 340, 1000, 5000, spread("ScheduleAnyway", ZONE)) }.place();
    churn(710);
    // Pods that fit nowhere wait while the others are placed.
    let large = json!({"containers": [{"resources": {"requests": {"cpu": "9", "memory": "500Mi"}}}]});
    Work { more_before: Some(large), ..work("5k-unschedulable", 590, 1000, 10_000, json!({})) }.place();
    preempt("5k-preemption-async", Some(570), 5000, 5000);
    daemonset();
}

/// Each pod names its node, as those of a DaemonSet do.
fn daemonset() {
    let (name, nodes, pods) = ("15k-daemonset", 15_000, 30_000);
    if !is_wanted(name) {
        return;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut engine = cluster(nodes, 10);
        for i in 0..pods {
            let to = [format!("node-{}", i % nodes)];
            let fields = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": to}]}]);
            let more = json!({"affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": fields}}}});
            engine.set_pod(None, &pod(i, &json!({}), &more), 0);
        }
        let began = cpu();
        assert_eq!(run(&mut engine, &mut |_, _| {}), pods, "{name}");
        best = best.min((cpu() - began) / pods as f64);
    }
    report(name, Some(1100), best);
}

fn main() {
    on_1000_nodes();
    of_scheduler_perf();
}
