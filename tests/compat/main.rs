//! Clients that know nothing of Pintle work with it: kubectl of several ages, the Python and JavaScript clients, kube-rs.
//! `scripts/clients` fetches them; one that could not be had is skipped, and that is said.

mod kube_rs;
mod kubectl;
mod scripts;

use std::path::PathBuf;
use std::time::Duration;

use pintle_testkit::{Cluster, images, until};
use serde_json::{Value, json};

const NAMESPACE: &str = "compat";
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `scripts/clients` puts what it fetches.
fn clients() -> PathBuf {
    std::env::var_os("PINTLE_CLIENTS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/clients"), PathBuf::from)
}

/// The path of a client, if it is here.
fn client(name: &str) -> Option<PathBuf> {
    let path = clients().join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no {}; scripts/clients fetches it", path.display());
    None
}

/// An object of each kind.
fn objects() -> Vec<Value> {
    serde_saphyr::from_str(include_str!("objects.yaml")).expect("objects.yaml is YAML")
}

/// The objects under names of their own.
fn named_objects(prefix: &str) -> Vec<Value> {
    let mut all = objects();
    for (i, object) in all.iter_mut().enumerate() {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        object["metadata"] = json!({"name": format!("{prefix}-{kind}-{i}"), "labels": {"compat": "yes"}});
    }
    all
}

/// A cluster with a namespace.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    let _ = cluster.kubectl(&["create", "namespace", NAMESPACE]).ok();
    cluster
}

/// A pod `box` that has said `ready`, with a container `c` of busybox.
fn with_pod() -> Cluster {
    let cluster = cluster();
    let archive = images::busybox(cluster.scratch(), "docker.io/library/busybox:latest");
    cluster.import(&archive);
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: box, namespace: {NAMESPACE}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: busybox\n    \
         imagePullPolicy: IfNotPresent\n    command: [sh, -c, 'echo ready; exec sleep 100000']\n"
    ));
    until("the pod has said ready", PATIENCE, || {
        let said = cluster.kubectl(&["logs", "-n", NAMESPACE, "box"]);
        if said.stdout == "ready\n" { Ok(()) } else { Err(format!("{} {}", said.stdout, said.stderr)) }
    });
    cluster
}
