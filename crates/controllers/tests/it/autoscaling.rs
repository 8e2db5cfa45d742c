//! The autoscaler on the in-memory API, with metrics as a metrics server would serve them.

use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use pintle_api::service::full;
use pintle_controllers::Config;
use serde_json::{Value, json};

use super::common::{Cluster, start};

/// Writes a metric as a metrics server serves it.
async fn serve(c: &Cluster, path: &str, item: Value) {
    let request = Request::post(path).header("content-type", "application/json").body(full(item.to_string())).unwrap();
    assert!(c.client.call(request).await.unwrap().status().is_success());
}

async fn pods(c: &Cluster, n: usize) {
    for i in 0..n {
        c.create::<Pod>(json!({"metadata": {"name": format!("p{i}"), "namespace": "n", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"phase": "Running", "startTime": "2023-12-31T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2023-12-31T00:00:00Z"}]}}))
        .await;
        let metrics = json!({"metadata": {"name": format!("p{i}"), "labels": {"app": "web"}}, "timestamp": "2024-01-01T00:00:00Z", "window": "30s",
            "containers": [{"name": "c", "usage": {"cpu": "90m"}}]});
        serve(c, "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods", metrics).await;
    }
}

fn autoscaler(metrics: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

fn condition<'a>(h: &'a HorizontalPodAutoscaler, kind: &str) -> (&'a str, &'a str, &'a str) {
    let all = h.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    all.iter().find(|c| c.type_ == kind).map_or(("", "", ""), |c| {
        (&c.status, c.reason.as_deref().unwrap_or_default(), c.message.as_deref().unwrap_or_default())
    })
}

#[tokio::test(start_paused = true)]
async fn scales_by_cpu_and_says_what_is_missing() {
    let c = start(&["horizontal-pod-autoscaler-controller"], Config::default());
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    c.create::<HorizontalPodAutoscaler>(autoscaler(cpu)).await;
    let h = c
        .until::<HorizontalPodAutoscaler>("n", "no target", |h| condition(&h[0], "AbleToScale").1 == "FailedGetScale")
        .await;
    assert_eq!(
        condition(&h[0], "AbleToScale").2,
        "the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found"
    );
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {}}, "status": {"replicas": 2}})).await;
    let h =
        c.until::<HorizontalPodAutoscaler>("n", "no metrics", |h| condition(&h[0], "ScalingActive").0 == "False").await;
    assert_eq!(
        condition(&h[0], "ScalingActive"),
        (
            "False",
            "FailedGetResourceMetric",
            "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"
        )
    );
    pods(&c, 2).await;
    let size = |d: &[Deployment]| d[0].spec.as_ref().unwrap().replicas;
    // Ninety of a hundred are used, fifty are wanted.
    c.until::<Deployment>("n", "larger", |d| size(d) == Some(4)).await;
    let h = c
        .until::<HorizontalPodAutoscaler>("n", "told", |h| condition(&h[0], "AbleToScale").1 == "SucceededRescale")
        .await;
    let s = h[0].status.as_ref().unwrap();
    assert_eq!((s.current_replicas, s.desired_replicas), (Some(2), 4));
    let current = &s.current_metrics.as_ref().unwrap()[0].resource.as_ref().unwrap().current;
    assert_eq!((current.average_utilization, current.average_value.as_ref().unwrap().0.as_str()), (Some(90), "90m"));
    assert_eq!(
        condition(&h[0], "ScalingActive"),
        (
            "True",
            "ValidMetricFound",
            "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"
        )
    );
    c.until::<Event>("n", "the event", |e| {
        e.iter().any(|e| {
            e.message.as_deref()
                == Some("New size: 4; reason: cpu resource utilization (percentage of request) above target")
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn scales_by_external_metrics() {
    let c = start(&["horizontal-pod-autoscaler-controller"], Config::default());
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {}}, "status": {"replicas": 2}})).await;
    pods(&c, 2).await;
    for (name, value) in [("a", "30"), ("b", "31")] {
        serve(
            &c,
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/depth",
            json!({"metadata": {"name": name}, "metricName": "depth", "value": value}),
        )
        .await;
    }
    let external = json!([{"type": "External", "external": {"metric": {"name": "depth"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]);
    c.create::<HorizontalPodAutoscaler>(autoscaler(external)).await;
    // Seven are asked for; at first it goes to four.
    c.until::<Deployment>("n", "four", |d| d[0].spec.as_ref().unwrap().replicas == Some(4)).await;
    let h = c
        .until::<HorizontalPodAutoscaler>("n", "limited", |h| condition(&h[0], "ScalingLimited").1 == "ScaleUpLimit")
        .await;
    assert_eq!(condition(&h[0], "ScalingLimited").0, "True");
    c.until::<Deployment>("n", "seven", |d| d[0].spec.as_ref().unwrap().replicas == Some(7)).await;
}
