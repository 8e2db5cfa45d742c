//! Workloads as people run them, with real `kubectl` and real containers.

mod faults;
mod kubectl;
mod registry;

use std::time::Duration;

use pintle_testkit::{Cluster, images};

/// A cluster with a busybox image named `busybox`.
fn with_busybox() -> Cluster {
    let cluster = Cluster::start();
    let archive = images::busybox(cluster.scratch(), "docker.io/library/busybox:latest");
    cluster.import(&archive);
    cluster
}

/// For what containers take to start and stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod that runs a shell line.
fn pod(name: &str, line: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: busybox\n    imagePullPolicy: IfNotPresent\n    command: [sh, -c, {}]\n{more}",
        serde_json::Value::from(line)
    )
}
