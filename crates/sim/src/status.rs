//! A pod's status as the kubelet words it.

use std::net::IpAddr;

use jiff::Timestamp;
use pintle_api::time;
use serde_json::{Value, json};

use crate::rules::{Container, Pod, holds};

/// Exit status of what was stopped by SIGTERM.
const TERMINATED: i32 = 143;

fn condition(pod: &Pod, kind: &str, is: bool, reason: &str, now: &str) -> Value {
    let mut out = json!({
        "type": kind,
        "status": if is { "True" } else { "False" },
        "observedGeneration": pod.metadata.generation,
    });
    if pod.condition(kind).is_none() || holds(&pod.status.conditions, kind) != is {
        out["lastTransitionTime"] = now.into();
    }
    if !reason.is_empty() {
        out["reason"] = reason.into();
    }
    out
}

fn of_container(pod: &Pod, c: &Container, state: Value, up: bool, restarts: u32) -> Value {
    json!({
        "name": c.name,
        "image": c.image,
        "imageID": "",
        "containerID": format!("sim://{}/{}/{restarts}", pod.metadata.uid, c.name),
        "ready": up,
        "started": up,
        "restartCount": restarts,
        "state": state,
    })
}

fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

fn ended(code: i32, from: &str, to: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": from, "finishedAt": to}})
}

/// What a patch of the status of a pod says.
fn patch(pod: &Pod, status: Value) -> Value {
    let mut status = status;
    status["observedGeneration"] = pod.metadata.generation.into();
    // The uid keeps it from another pod of the same name.
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

/// All containers of a pod that runs, started so many times again.
fn running(pod: &Pod, restarts: u32, last: &Value, now: &str) -> (Vec<Value>, Vec<Value>) {
    let run = || json!({"running": {"startedAt": now}});
    let init = pod.spec.init_containers.iter().map(|c| {
        if is_sidecar(c) {
            of_container(pod, c, run(), true, 0)
        } else {
            let mut status = of_container(pod, c, ended(0, now, now), false, 0);
            status["ready"] = true.into();
            status
        }
    });
    let main = pod.spec.containers.iter().map(|c| {
        let mut status = of_container(pod, c, run(), true, restarts);
        if !last.is_null() {
            status["lastState"] = last.clone();
        }
        status
    });
    (init.collect(), main.collect())
}

/// A pod has started, with these addresses, on a node with those.
pub fn started(pod: &Pod, ips: &[IpAddr], host_ips: &[IpAddr], now: Timestamp) -> Value {
    let now = time::format(now);
    let ready = pod.gates_open();
    let (init, main) = running(pod, 0, &Value::Null, &now);
    let list = |ips: &[IpAddr]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let mut status = json!({
        "phase": "Running",
        "startTime": pod.status.start_time.map_or_else(|| now.clone(), time::format),
        "hostIP": host_ips.first(),
        "hostIPs": list(host_ips),
        "podIP": ips.first(),
        "podIPs": list(ips),
        "conditions": [
            condition(pod, "PodReadyToStartContainers", true, "", &now),
            condition(pod, "Initialized", true, "", &now),
            condition(pod, "Ready", ready, if ready { "" } else { "ReadinessGatesNotReady" }, &now),
            condition(pod, "ContainersReady", true, "", &now),
        ],
        "containerStatuses": main,
    });
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    patch(pod, status)
}

/// A pod's gates have opened or closed.
pub fn readiness(pod: &Pod, ready: bool, now: Timestamp) -> Value {
    let reason = if ready { "" } else { "ReadinessGatesNotReady" };
    let mut condition = condition(pod, "Ready", ready, reason, &time::format(now));
    if ready {
        condition["reason"] = Value::Null;
    }
    patch(pod, json!({"conditions": [condition]}))
}

/// A pod's containers have ended with an exit status and started again.
pub fn restarted(pod: &Pod, code: i32, now: Timestamp) -> Value {
    let text = time::format(now);
    let from = pod.running_since().map_or_else(|| text.clone(), time::format);
    let (_, main) = running(pod, pod.restarts() + 1, &ended(code, &from, &text), &text);
    patch(pod, json!({"containerStatuses": main}))
}

/// A pod has ended.
pub fn finished(pod: &Pod, code: i32, now: Timestamp) -> Value {
    let text = time::format(now);
    let from = pod.running_since().map_or_else(|| text.clone(), time::format);
    let reason = if code == 0 { "PodCompleted" } else { "PodFailed" };
    let all = |list: &[Container], code: i32, restarts: u32| -> Vec<Value> {
        list.iter().map(|c| of_container(pod, c, ended(code, &from, &text), false, restarts)).collect()
    };
    let mut status = json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "conditions": [
            condition(pod, "PodReadyToStartContainers", false, "", &text),
            condition(pod, "Initialized", true, if code == 0 { reason } else { "" }, &text),
            condition(pod, "Ready", false, reason, &text),
            condition(pod, "ContainersReady", false, reason, &text),
        ],
        "containerStatuses": all(&pod.spec.containers, code, pod.restarts()),
    });
    if !pod.spec.init_containers.is_empty() {
        status["initContainerStatuses"] = all(&pod.spec.init_containers, 0, 0).into();
    }
    patch(pod, status)
}

/// A pod was stopped because it was asked to go.
pub fn stopped(pod: &Pod, now: Timestamp) -> Value {
    finished(pod, TERMINATED, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u", "generation": 3},
            "spec": {"initContainers": [{"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "y"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [{"restartCount": 2, "state": {"running": {"startedAt": "2024-01-01T00:00:00Z"}}}]},
        }))
        .unwrap()
    }

    fn by_type<'v>(status: &'v Value, kind: &str) -> &'v Value {
        status["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
    }

    #[test]
    fn of_a_pod_that_starts() {
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        let (ip, host) = (["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], ["192.0.2.1".parse().unwrap()]);
        let said = started(&pod(), &ip, &host, now);
        let s = &said["status"];
        assert_eq!(
            (&s["podIP"], &s["podIPs"][1]["ip"], &s["hostIP"]),
            (&json!("10.0.0.1"), &json!("fd00::1"), &json!("192.0.2.1"))
        );
        assert_eq!((&said["metadata"]["uid"], &s["observedGeneration"]), (&json!("u"), &json!(3)));
        assert_eq!(by_type(&said, "Ready")["status"], "True");
        assert_eq!(s["containerStatuses"][0]["state"]["running"]["startedAt"], "2024-01-01T00:01:00Z");
        assert_eq!(s["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
        assert!(!s["initContainerStatuses"][1]["state"]["running"].is_null());
        // What was so before has not changed now.
        assert!(by_type(&said, "Initialized")["lastTransitionTime"].is_null());
        assert_eq!(by_type(&said, "ContainersReady")["lastTransitionTime"], "2024-01-01T00:01:00Z");
    }

    #[test]
    fn of_a_pod_that_ends() {
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        for (said, phase, code, reason) in [
            (finished(&pod(), 0, now), "Succeeded", 0, "PodCompleted"),
            (finished(&pod(), 3, now), "Failed", 3, "PodFailed"),
            (stopped(&pod(), now), "Failed", 143, "PodFailed"),
        ] {
            assert_eq!(said["status"]["phase"], phase);
            let ready = by_type(&said, "Ready");
            assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!(reason)));
            let end = &said["status"]["containerStatuses"][0]["state"]["terminated"];
            assert_eq!((&end["exitCode"], &end["startedAt"]), (&json!(code), &json!("2024-01-01T00:00:00Z")));
        }
        let again = &restarted(&pod(), 1, now)["status"]["containerStatuses"][0];
        assert_eq!(again["restartCount"], 3);
        assert_eq!(again["lastState"]["terminated"]["finishedAt"], "2024-01-01T00:01:00Z");
    }
}
