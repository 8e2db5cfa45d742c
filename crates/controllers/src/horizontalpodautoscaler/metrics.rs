//! The three metrics APIs: resources, custom, external.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pintle_api::duration;
use pintle_api::quantity::Quantity;
use pintle_client::client::with_query;
use pintle_client::{Client, Error};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::calculate::{Sample, Samples};
use crate::support::discovery;

const RESOURCES: &str = "/apis/metrics.k8s.io/v1beta1";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
/// Over how long a custom metric was measured when it does not say.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    described_object: Option<Named>,
    timestamp: Option<Timestamp>,
    window_seconds: Option<u64>,
    #[serde(default)]
    value: String,
}

fn milli(text: &str) -> i64 {
    text.parse::<Quantity>().map_or(0, |q| q.milli_value())
}

/// A selector as text.
pub fn selector(selector: Option<&LabelSelector>) -> Result<String, String> {
    let Some(s) = selector else { return Ok(String::new()) };
    let mut parts: Vec<String> = s.match_labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    for e in s.match_expressions.iter().flatten() {
        let values = || e.values.as_deref().unwrap_or_default().join(",");
        parts.push(match e.operator.as_str() {
            "In" => format!("{} in ({})", e.key, values()),
            "NotIn" => format!("{} notin ({})", e.key, values()),
            "Exists" => e.key.clone(),
            "DoesNotExist" => format!("!{}", e.key),
            other => return Err(format!("{other:?} is not a valid label selector operator")),
        });
    }
    Ok(parts.join(","))
}

/// Asks; what cannot be found is worded as client-go words it.
async fn ask<T: DeserializeOwned>(client: &Client, path: &str, what: &str) -> Result<T, String> {
    let body = client.get_path(path).await.map_err(|e| match e.status() {
        Some(s) if s.message.starts_with("the server") && !s.message.ends_with(')') => {
            format!("{} ({what})", s.message)
        }
        _ => e.to_string(),
    })?;
    serde_json::from_slice(&body).map_err(|e| e.to_string())
}

/// Use of a resource by pods: of one container, or of all.
pub async fn resource(
    client: &Client,
    namespace: &str,
    labels: &str,
    container: &str,
    resource: &str,
) -> Result<Samples, String> {
    let path = with_query(format!("{RESOURCES}/namespaces/{namespace}/pods"), &[("labelSelector", labels)]);
    let list: Items<PodMetrics> = ask(client, &path, "get pods.metrics.k8s.io")
        .await
        .map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".into());
    }
    let mut all = Samples::new();
    for pod in list.items {
        if !container.is_empty() && !pod.containers.iter().any(|c| c.name == container) {
            return Err(format!(
                "failed to get container metrics: container {container} not present in metrics for pod {}/{}",
                pod.metadata.namespace, pod.metadata.name
            ));
        }
        let containers = pod.containers.iter().filter(|c| container.is_empty() || c.name == container);
        // A pod that lacks the metric of one container counts as one without.
        let mut uses = containers.map(|c| c.usage.get(resource).map(|q| milli(q)));
        if let Some(value) = uses.try_fold(0_i64, |sum, n| Some(sum.saturating_add(n?))) {
            all.insert(
                pod.metadata.name,
                Sample { value, at: pod.timestamp, window: duration::parse(&pod.window).unwrap_or_default() },
            );
        }
    }
    Ok(all)
}

/// The path of the version of the custom metrics API that is served.
async fn custom(client: &Client) -> Result<String, String> {
    Ok(ask::<discovery::Group>(client, CUSTOM, "get custom.metrics.k8s.io").await?.path())
}

/// A custom metric of each pod.
pub async fn pods(
    client: &Client,
    namespace: &str,
    labels: &str,
    metric: &MetricIdentifier,
) -> Result<Samples, String> {
    let list = async {
        let metric_labels = selector(metric.selector.as_ref())?;
        let root = custom(client).await?;
        let path = with_query(
            format!("{root}/namespaces/{namespace}/pods/%2A/{}", metric.name),
            &[("labelSelector", labels), ("metricLabelSelector", &metric_labels)],
        );
        ask::<Items<Value>>(client, &path, "get pods.custom.metrics.k8s.io *").await
    };
    let list = list.await.map_err(|e| format!("unable to fetch metrics from custom metrics API: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from custom metrics API".into());
    }
    let sample = |v: Value| {
        let window = v.window_seconds.map_or(DEFAULT_WINDOW, Duration::from_secs);
        (
            v.described_object.map(|o| o.name).unwrap_or_default(),
            Sample { value: milli(&v.value), at: v.timestamp, window },
        )
    };
    Ok(list.items.into_iter().map(sample).collect())
}

/// A custom metric of one object.
pub async fn object(
    client: &Client,
    namespace: &str,
    object: &CrossVersionObjectReference,
    metric: &MetricIdentifier,
) -> Result<i64, String> {
    let value = async {
        let metric_labels = selector(metric.selector.as_ref())?;
        let root = custom(client).await?;
        let path = if object.kind == "Namespace" && object.api_version.as_deref().unwrap_or("v1") == "v1" {
            format!("{root}/namespaces/{}/metrics/{}", object.name, metric.name)
        } else {
            let found = target(client, object).await?;
            let resource = found.group_resource();
            let scope = if found.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
            format!("{root}{scope}/{resource}/{}/{}", object.name, metric.name)
        };
        let path = with_query(path, &[("metricLabelSelector", &metric_labels)]);
        let list: Items<Value> = ask(client, &path, "get custom.metrics.k8s.io").await?;
        list.items.first().map(|v| milli(&v.value)).ok_or_else(|| "no metrics returned".to_owned())
    };
    value.await.map_err(|e| format!("unable to fetch metrics from custom metrics API: {e}"))
}

/// An external metric: the sum of its series.
pub async fn external(client: &Client, namespace: &str, metric: &MetricIdentifier) -> Result<i64, String> {
    let labels = selector(metric.selector.as_ref())?;
    let path = with_query(format!("{EXTERNAL}/namespaces/{namespace}/{}", metric.name), &[("labelSelector", &labels)]);
    let what = format!("get {}.external.metrics.k8s.io", metric.name);
    let list: Items<Value> = ask(client, &path, &what)
        .await
        .map_err(|e| format!("unable to fetch metrics from external metrics API: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from external metrics API".into());
    }
    Ok(list.items.iter().map(|v| milli(&v.value)).fold(0, i64::saturating_add))
}

/// The resource a reference names, built in or discovered.
pub async fn target(
    client: &Client,
    of: &CrossVersionObjectReference,
) -> Result<&'static pintle_api::resources::Resource, String> {
    let version = of.api_version.as_deref().unwrap_or_default();
    if let Some(r) = pintle_api::resources::by_kind(version, &of.kind) {
        return Ok(r);
    }
    let group = pintle_api::resources::GroupVersion::parse(version).group.to_owned();
    let served = discovery::preferred(client).await.map_err(|e: Error| e.to_string())?;
    let found = served.resources.into_iter().find(|r| r.kind == of.kind && r.group == group);
    found.ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", of.kind))
}
