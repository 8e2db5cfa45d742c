//! The row of a pod: the words `kubectl get pods` shows in STATUS.

use jiff::Timestamp;
use pintle_api::time;
use pintle_schema::cursor::Cursor;
use serde_json::{Value, json};

use crate::kinds::table::{self, Column, text};

pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    text("Status", "The aggregate status of the containers in this pod."),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::AGE,
    text("IP", "@PodStatus.podIP").wide(),
    text("Node", "@PodSpec.nodeName").wide(),
    text("Nominated Node", "@PodStatus.nominatedNodeName").wide(),
    text("Readiness Gates", "@PodSpec.readinessGates").wide(),
];

/// Restarts and the time of the last.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Cursor<'_>) {
        self.count += container.get("restartCount").int();
        let finished = time::parse(container.get("lastState").get("terminated").get("finishedAt").str());
        self.last = self.last.max(finished);
    }
}

pub(super) fn row(pod: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.get("spec"), pod.get("status"));
    let phase = status.get("phase").str();
    let mut reason = match status.get("reason").str() {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    if table::condition(pod, "PodScheduled").is_some_and(|c| c.get("reason").str() == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let sidecar = |name: &str| {
        spec.get("initContainers")
            .items()
            .any(|c| c.get("name").str() == name && c.get("restartPolicy").str() == "Always")
    };
    let sidecars = spec.get("initContainers").items().filter(|c| c.get("restartPolicy").str() == "Always").count();
    let total = spec.get("containers").len() + sidecars;
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (i, container) in status.get("initContainerStatuses").items().enumerate() {
        let is_sidecar = sidecar(container.get("name").str());
        restarts.add(&container);
        if is_sidecar {
            sidecar_restarts.add(&container);
        }
        let (terminated, waiting) =
            (container.get("state").get("terminated"), container.get("state").get("waiting").get("reason").str());
        if terminated.is_present() && terminated.get("exitCode").int() == 0 {
            continue;
        }
        if is_sidecar && container.get("started").bool() {
            ready += usize::from(container.get("ready").bool());
            continue;
        }
        initializing = true;
        reason = if terminated.is_present() {
            format!("Init:{}", ended(&terminated))
        } else if !matches!(waiting, "" | "PodInitializing") {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", spec.get("initContainers").len())
        };
        break;
    }
    if !initializing || table::has_condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        let containers: Vec<Cursor<'_>> = status.get("containerStatuses").items().collect();
        for container in containers.iter().rev() {
            restarts.add(container);
            let state = container.get("state");
            let (terminated, waiting) = (state.get("terminated"), state.get("waiting").get("reason").str());
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if terminated.is_present() {
                reason = ended(&terminated);
            } else if container.get("ready").bool() && state.get("running").is_present() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = table::has_condition(pod, "Ready");
            if is_ready { "Running" } else { "NotReady" }.clone_into(&mut reason);
        }
    }
    if pod.get("metadata").get("deletionTimestamp").is_present() {
        if status.get("reason").str() == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let restarts = match restarts {
        Restarts { count, last: Some(last) } if count != 0 => {
            format!("{count} ({} ago)", time::human_duration(table::seconds(last, now)))
        }
        Restarts { count, .. } => count.to_string(),
    };
    let gates = spec.get("readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let open = gates.items().filter(|g| table::has_condition(pod, g.get("conditionType").str())).count();
        format!("{open}/{}", gates.len())
    };
    let or_none = |text: &str| table::or_none(text.to_owned());
    vec![
        table::name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        table::age(pod, now),
        or_none(status.get("podIPs").index(0).get("ip").str()).into(),
        or_none(spec.get("nodeName").str()).into(),
        or_none(status.get("nominatedNodeName").str()).into(),
        gates.into(),
    ]
}

/// Why a container ended, or by which signal or exit code.
fn ended(terminated: &Cursor<'_>) -> String {
    match (terminated.get("reason").str(), terminated.get("signal").int()) {
        ("", 0) => format!("ExitCode:{}", terminated.get("exitCode").int()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

pub(super) fn row_conditions(pod: &Cursor<'_>) -> Vec<Value> {
    let message = match pod.get("status").get("phase").str() {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    let reason = pod.get("status").get("phase").str();
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let now = time::parse("2024-01-01T01:00:00Z").unwrap();
        let check = |spec: Value, status: Value, deleting: bool, expect: [&str; 3]| {
            let mut metadata = json!({"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z"});
            if deleting {
                metadata["deletionTimestamp"] = "2024-01-01T00:30:00Z".into();
            }
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            let row = row(&Cursor::root(&pod), now);
            let got: Vec<&str> = row[1..4].iter().map(|v| v.as_str().unwrap()).collect();
            assert_eq!(got, expect, "{pod}");
            assert_eq!((row.len(), &row[4]), (COLUMNS.len(), &json!("60m")));
        };
        let one = json!({"containers": [{"name": "a"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let init = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        let side = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        let run = |name: &str| json!({"name": name, "ready": true, "state": {"running": {}}});
        let term = |code: i64, reason: &str| json!({"name": "a", "state": {"terminated": {"exitCode": code, "reason": reason}}});
        check(one.clone(), json!({"phase": "Pending"}), false, ["0/1", "Pending", "0"]);
        check(
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [run("a")]}),
            false,
            ["1/1", "Running", "0"],
        );
        check(one.clone(), json!({"phase": "Failed", "reason": "Evicted"}), false, ["0/1", "Evicted", "0"]);
        check(
            one.clone(),
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            false,
            ["0/1", "SchedulingGated", "0"],
        );
        check(
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 3,
                "lastState": {"terminated": {"finishedAt": "2024-01-01T00:59:55Z"}}, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            false,
            ["0/1", "CrashLoopBackOff", "3 (5s ago)"],
        );
        check(
            one.clone(),
            json!({"phase": "Succeeded", "containerStatuses": [term(0, "Completed")]}),
            false,
            ["0/1", "Completed", "0"],
        );
        check(
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [term(3, "")]}),
            false,
            ["0/1", "ExitCode:3", "0"],
        );
        check(
            two.clone(),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [term(0, "Completed"), run("b")]}),
            false,
            ["1/2", "NotReady", "0"],
        );
        check(
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [run("a")]}),
            true,
            ["1/1", "Terminating", "0"],
        );
        check(one.clone(), json!({"phase": "Running", "reason": "NodeLost"}), true, ["0/1", "Unknown", "0"]);
        check(
            one,
            json!({"phase": "Succeeded", "containerStatuses": [term(0, "Completed")]}),
            true,
            ["0/1", "Completed", "0"],
        );
        check(
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"running": {}}}]}),
            false,
            ["0/1", "Init:0/2", "1"],
        );
        check(
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [term(0, "Completed"), {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            false,
            ["0/1", "Init:1/2", "0"],
        );
        check(
            init,
            json!({"phase": "Pending", "initContainerStatuses": [term(1, "Error")]}),
            false,
            ["0/1", "Init:Error", "0"],
        );
        check(
            side,
            json!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}],
                "containerStatuses": [run("a")]}),
            false,
            ["2/2", "Running", "2"],
        );
    }
}
