//! What goes wrong in a user's manifest or image is told as Kubernetes tells it.

use pintle_testkit::{Cluster, until};

use crate::{PATIENCE, pod, with_busybox};

/// Waits until a pod's first container waits for this reason; answers the message.
fn waiting(cluster: &Cluster, name: &str, reason: &str) -> String {
    until(&format!("{name} {reason}"), PATIENCE, || {
        let state =
            cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].state.waiting}"]).ok();
        if state.contains(&format!("\"reason\":\"{reason}\"")) { Ok(state) } else { Err(state) }
    })
}

fn event(cluster: &Cluster, name: &str, text: &str) {
    until(&format!("an Event of {name}: {text}"), PATIENCE, || {
        let said = cluster.kubectl(&["describe", "pod", name]).ok();
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn pods_that_cannot_run_say_why() {
    let cluster = with_busybox();
    cluster.apply(&pod("crash", "echo bye; exit 3", ""));
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: noimage}\nspec: {containers: [{name: c, image: \"127.0.0.1:1/none:1\"}]}\n",
    );
    cluster.apply(&pod("huge", "true", "    resources: {requests: {cpu: 1000}}\n"));
    cluster.apply(&pod("once", "exit 4", "  restartPolicy: Never\n"));
    cluster.apply(&pod("nosecret", "true", "    env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: k}}}]\n"));

    waiting(&cluster, "noimage", "ErrImagePull");
    let said = waiting(&cluster, "noimage", "ImagePullBackOff");
    assert!(said.contains("Back-off pulling image"), "{said}");

    let said = waiting(&cluster, "crash", "CrashLoopBackOff");
    assert!(said.contains("restarting failed container=c pod=crash_default("), "{said}");
    event(&cluster, "crash", "Back-off restarting failed container c in pod crash_default(");
    let last = cluster
        .kubectl(&["get", "pod", "crash", "-o", "jsonpath={.status.containerStatuses[0].lastState.terminated}"])
        .json();
    assert_eq!((last["exitCode"].as_i64(), last["reason"].as_str()), (Some(3), Some("Error")));
    assert_eq!(cluster.kubectl(&["logs", "crash", "--previous"]).ok(), "bye\n");

    let said =
        cluster.kubectl(&["get", "pod", "huge", "-o", "jsonpath={.status.phase} {.status.conditions[0].message}"]).ok();
    assert!(said.starts_with("Pending 0/1 nodes are available: 1 Insufficient cpu."), "{said}");
    event(&cluster, "huge", "FailedScheduling");

    until("once to fail", PATIENCE, || {
        let said = cluster.kubectl(&["get", "pod", "once", "--no-headers"]).ok();
        if said.contains(" Error ") { Ok(()) } else { Err(said) }
    });
    let said = waiting(&cluster, "nosecret", "CreateContainerConfigError");
    assert!(said.contains(r#"secret \"none\" not found"#), "{said}");
}
