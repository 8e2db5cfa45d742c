//! Pods.

mod table;

use serde_json::Value;

use crate::kinds::{DeleteOptions, Strategy, value};

/// The strategy of pods.
pub static POD: Strategy = Strategy {
    selectable: &[
        ("spec.nodeName", &["spec", "nodeName"]),
        ("spec.restartPolicy", &["spec", "restartPolicy"]),
        ("spec.schedulerName", &["spec", "schedulerName"]),
        ("spec.serviceAccountName", &["spec", "serviceAccountName"]),
        ("spec.hostNetwork", &["spec", "hostNetwork"]),
        ("status.phase", &["status", "phase"]),
        ("status.podIP", &["status", "podIP"]),
        ("status.nominatedNodeName", &["status", "nominatedNodeName"]),
    ],
    selectable_zero: &[("spec.hostNetwork", "false")],
    generation: &[&["spec"]],
    graceful_delete,
    columns: table::COLUMNS,
    row: table::row,
    row_conditions: table::row_conditions,
    ..Strategy::DEFAULT
};

/// How long a pod may take to end: what is asked for or the pod says; nothing where no kubelet has it or it has ended.
fn graceful_delete(pod: &Value, options: DeleteOptions) -> Option<i64> {
    let asked =
        options.grace_period_seconds.unwrap_or_else(|| value::int_at(pod, &["spec", "terminationGracePeriodSeconds"]));
    let over = value::str_at(pod, &["spec", "nodeName"]).is_empty()
        || matches!(value::str_at(pod, &["status", "phase"]), "Failed" | "Succeeded");
    Some(match asked {
        _ if over => 0,
        ..0 => 1,
        seconds => seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn grace() {
        let check = |node: &str, phase: &str, asked: Option<i64>, expect: i64| {
            let pod =
                json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
            assert_eq!(graceful_delete(&pod, DeleteOptions { grace_period_seconds: asked }), Some(expect));
        };
        check("n", "Running", None, 30);
        check("n", "Running", Some(5), 5);
        check("n", "Running", Some(0), 0);
        check("n", "Running", Some(-3), 1);
        check("", "Pending", None, 0);
        check("n", "Succeeded", Some(5), 0);
    }
}
