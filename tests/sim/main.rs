//! `pintle sim`: pods on simulated nodes become what the rules say, as any client sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use pintle_testkit::command::run;
use pintle_testkit::{Cluster, Sim, binary, until};

const NODES: usize = 20;
const PODS: usize = 200;
/// For a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn ready_nodes(cluster: &Cluster, selector: &str) -> usize {
    let said = cluster.kubectl(&["get", "nodes", "-l", selector, "--no-headers"]).ok();
    said.lines().filter(|l| l.contains(" Ready ")).count()
}

#[test]
fn simulated_nodes_run_pods() {
    let cluster = Cluster::start();
    let nodes = NODES.to_string();
    let sim = Sim::start(
        &cluster,
        &["--rm", "--nodes", &nodes, "--zones=4", "--label=pool=fake", "--taint=fake=yes:NoSchedule", "--cpu=4"],
    );
    until("the nodes to be Ready", PATIENCE, || match ready_nodes(&cluster, "pool=fake") {
        NODES => Ok(()),
        n => Err(format!("{n}")),
    });
    let on_fake = "nodeSelector: {pool: fake}\n      tolerations: [{key: fake, operator: Exists}]";
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {PODS}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      {on_fake}\n      containers: [{{name: c, image: none}}]\n",
    ));
    let _ = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).ok();
    let what = "jsonpath={range .items[*]}{.status.podIP} {.spec.nodeName} {.status.phase}{\"\\n\"}{end}";
    let said = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", what]).ok();
    let rows: Vec<Vec<&str>> = said.lines().map(|l| l.split(' ').collect()).collect();
    assert_eq!(rows.len(), PODS, "{said}");
    assert!(
        rows.iter().all(|r| r[0].starts_with("100.64.") && r[1].starts_with("sim-") && r[2] == "Running"),
        "{said}"
    );
    let used = |i: usize| rows.iter().map(|r| r[i]).collect::<BTreeSet<_>>().len();
    assert_eq!((used(0), used(1)), (PODS, NODES), "{said}");

    cluster.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: work}}\nspec:\n  completions: 20\n  parallelism: 10\n  template:\n    spec:\n      {on_fake}\n      restartPolicy: Never\n      containers: [{{name: c, image: none}}]\n",
    ));
    let _ = cluster.kubectl(&["wait", "--for=condition=complete", "job/work", "--timeout=120s"]).ok();
    assert_eq!(cluster.kubectl(&["get", "job", "work", "-o", "jsonpath={.status.succeeded}"]).ok(), "20");

    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad, annotations: {pintle.internal/run-for: 0s, pintle.internal/exit-code: \"3\"}}\nspec:\n  nodeName: sim-3\n  restartPolicy: Never\n  tolerations: [{operator: Exists}]\n  containers: [{name: c, image: none}]\n",
    );
    let code = "jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}";
    until("the pod to fail", PATIENCE, || {
        let said = cluster.kubectl(&["get", "pod", "bad", "-o", code]).ok();
        if said == "Failed 3" { Ok(()) } else { Err(said) }
    });

    // Grace is for what runs: pods here are gone at once, and what replaces them runs.
    let _ = cluster.kubectl(&["delete", "pods", "-l", "app=web", "--timeout=120s"]).ok();
    let _ = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).ok();

    assert_eq!(sim.stop(), Some(0));
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", "name"]).ok(), format!("node/{}\n", cluster.node()));
}

#[test]
fn misuse_is_explained() {
    let cluster = Cluster::start();
    for (args, want) in [
        (["--taint=a"], "is no taint such as"),
        (["--cpu=much"], "quantities must match"),
        (["--pod-cidr=10.0.0.1/8"], "is no network such as"),
        (["--lease-duration=0s"], "--lease-duration must be a second at least"),
        (["--kubeconfig=/none"], "cannot be used multiple times"),
    ] {
        let said = run(Sim::command(&cluster, &args), "").err();
        assert!(said.contains(want), "{args:?}: {said}");
    }
    // A node of that name that is real.
    let group = cluster.node().rsplit_once('-').unwrap().0.to_owned();
    let n: usize = cluster.node().rsplit_once('-').unwrap().1.parse().unwrap();
    let said = run(Sim::command(&cluster, &["--group", &group, "--nodes", &(n + 1).to_string()]), "").err();
    assert!(said.contains(&format!("node \"{}\" exists and is not simulated", cluster.node())), "{said}");

    let mut c = cluster.machine().command(&binary::pintle().to_string_lossy());
    c.args(["sim", "--kubeconfig=/none"]);
    assert!(run(c, "").err().contains("/none"));
}
