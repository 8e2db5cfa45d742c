//! The autoscaling group. Autoscalers are stored in the form of `autoscaling/v2`.

use pintle_schema::cursor::Cursor;

use super::Strategy;
use super::table::{self, Column, text};

/// The strategy of horizontal pod autoscalers.
pub static HORIZONTAL_POD_AUTOSCALER: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("Reference", "@HorizontalPodAutoscalerSpec.scaleTargetRef"),
        text("Targets", "@HorizontalPodAutoscalerSpec.metrics"),
        text("MinPods", "@HorizontalPodAutoscalerSpec.minReplicas"),
        text("MaxPods", "@HorizontalPodAutoscalerSpec.maxReplicas"),
        text("Replicas", "@HorizontalPodAutoscalerStatus.currentReplicas"),
        Column::AGE,
    ],
    row: |o, now| {
        let (spec, status) = (o.get("spec"), o.get("status"));
        let target = spec.get("scaleTargetRef");
        let min = spec.get("minReplicas").opt_int().map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
        vec![
            table::name(o),
            format!("{}/{}", target.get("kind").str(), target.get("name").str()).into(),
            targets(&spec.get("metrics"), &status.get("currentMetrics")).into(),
            min.into(),
            spec.get("maxReplicas").int().into(),
            status.get("currentReplicas").int().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

/// `cpu: 30%/80%, 5/10 (avg)`: what is against what is wanted, of the first two metrics.
fn targets(specs: &Cursor<'_>, statuses: &Cursor<'_>) -> String {
    let mut list: Vec<String> = specs.items().enumerate().map(|(i, spec)| target(&spec, &statuses.index(i))).collect();
    let count = list.len();
    list.truncate(2);
    match count {
        0 => "<none>".to_owned(),
        1 | 2 => list.join(", "),
        _ => format!("{} + {} more...", list.join(", "), count - 2),
    }
}

fn target(spec: &Cursor<'_>, status: &Cursor<'_>) -> String {
    let source = match spec.get("type").str() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (spec.get(source).get("target"), status.get(source).get("current"));
    let now = |field| current.get(field).opt_str().unwrap_or("<unknown>");
    let average = wanted.get("averageValue");
    match source {
        "pods" => format!("{}/{}", now("averageValue"), average.str()),
        "external" | "object" if average.is_present() => format!("{}/{} (avg)", now("averageValue"), average.str()),
        "external" | "object" => format!("{}/{}", now("value"), wanted.get("value").str()),
        _ => {
            let name = spec.get(source).get("name").str();
            if average.is_present() {
                return format!("{name}: {}/{}", now("averageValue"), average.str());
            }
            let percent =
                |at: Cursor<'_>, none: &str| at.opt_int().map_or_else(|| none.to_owned(), |n| format!("{n}%"));
            let current = percent(current.get("averageUtilization"), "<unknown>");
            format!("{name}: {current}/{}", percent(wanted.get("averageUtilization"), "<auto>"))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"averageValue": "10"}}});
        let hpa = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [cpu, pods]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30}}}]},
        });
        assert_eq!(
            json!(testing::row(&hpa, 5)),
            json!(["h", "Deployment/d", "cpu: 30%/80%, <unknown>/10", "1", 5, 2, "5s"])
        );
        let more = testing::changed(&hpa, "spec/metrics/2", cpu);
        assert_eq!(testing::row(&more, 5)[2], "cpu: 30%/80%, <unknown>/10 + 1 more...");
    }
}
