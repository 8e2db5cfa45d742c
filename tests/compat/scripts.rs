//! The clients whose programs stand beside this file.

use std::path::Path;

use pintle_testkit::Cluster;
use pintle_testkit::command::run;
use serde_json::Value;

use crate::{NAMESPACE, client, objects, with_pod};

/// Runs a program of another language on the cluster's machine.
fn drive(cluster: &Cluster, interpreter: &str, variable: &str, modules: &Path, program: &str) {
    let file = cluster.scratch().join("objects.json");
    std::fs::write(&file, Value::from(objects()).to_string()).expect("the scratch directory is ours");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat").join(program);
    let mut command = cluster.machine().command(interpreter);
    command.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.scratch()).env(variable, modules);
    command.arg(program).arg(&file).args([NAMESPACE, "box"]);
    let said = run(command, "").ok();
    assert!(said.ends_with(" kinds\n"), "{said}");
}

#[test]
fn python() {
    let Some(modules) = client("python") else { return };
    drive(&with_pod(), "python3", "PYTHONPATH", &modules, "client.py");
}

#[test]
fn javascript() {
    let Some(modules) = client("node_modules") else { return };
    drive(&with_pod(), "node", "NODE_PATH", &modules, "client.mjs");
}
