//! The demonstration: the built-in sample as a Deployment of three behind a Service, asked by its DNS name from a pod and
//! by its node port from the host.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pintle_client::api::k8s_openapi::api::core::v1::{Pod, Service};
use pintle_client::api::resources::by_kind;
use pintle_client::{Client, Informers, Scope, WriteParams, client::encode};
use serde_json::{Value, json};

use super::progress::Progress;
use crate::sample;

/// The image that holds this binary and nothing else.
pub const IMAGE: &str = "pintle.internal/sample:latest";
const NAMESPACE: &str = "default";
const NAME: &str = "hello";
const REPLICAS: usize = 3;
/// How long the page is asked for before it is said not to answer.
const RETRY: Duration = Duration::from_secs(30);

fn objects() -> [Value; 2] {
    let labels = json!({"app": NAME});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": "web",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["sample", "serve"],
                    "ports": [{"containerPort": 8080}],
                    "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                }]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    [deployment, service]
}

fn caller(url: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello-caller", "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "caller", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                "args": ["sample", "get", format!("--retry={}", RETRY.as_secs()), url],
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }],
        },
    })
}

/// Makes an object, or leaves the one that is there.
async fn ensure(client: &Client, object: &Value) -> anyhow::Result<()> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let resource = by_kind(&text(&object["apiVersion"]), &kind).ok_or_else(|| anyhow!("unknown kind {kind}"))?;
    match client.create(resource, NAMESPACE, encode(object)?, &WriteParams::default()).await {
        Err(e) if !e.is_already_exists() => Err(e).with_context(|| format!("{kind} {name} was refused")),
        _ => Ok(()),
    }
}

/// Runs it and prints what answered.
///
/// # Errors
/// What did not answer, and why.
pub async fn run(
    client: &Client,
    domain: &str,
    node: IpAddr,
    patience: Duration,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let all = async {
        for object in objects() {
            ensure(client, &object).await?;
        }
        progress.done(format_args!("sample deployed: {REPLICAS} replicas behind the Service {NAME}"));
        wait_ready(client).await?;
        progress.done("its pods are ready");
        let url = format!("http://{NAME}.{NAMESPACE}.svc.{domain}/");
        let said = from_a_pod(client, &url).await?;
        progress.done(format_args!("a pod asked {url}"));
        progress.note(said.trim_end());
        let port = node_port(client).await?;
        let url = format!("http://{}/", std::net::SocketAddr::new(node, port));
        let said = from_the_host(&url).await?;
        progress.done(format_args!("the host asked {url}"));
        progress.note(said.trim_end());
        anyhow::Ok(())
    };
    tokio::time::timeout(patience, all).await.unwrap_or_else(|_| {
        Err(anyhow!("it took longer than {} s; see: kubectl describe deployment,pods", patience.as_secs()))
    })
}

/// The sample's pods as they are, after every change, until `enough` says so.
async fn watch_pods<T>(
    client: &Client,
    labels: &str,
    fields: &str,
    mut enough: impl FnMut(&[Pod]) -> Option<anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let informers = Informers::new(client.clone());
    let pods = by_kind("v1", "Pod").ok_or_else(|| anyhow!("no pods"))?;
    let scope = Scope { namespace: NAMESPACE.into(), labels: labels.into(), fields: fields.into() };
    let view = informers.scoped(pods, &scope).view::<Pod>();
    let mut changes = view.subscribe();
    view.synced().await;
    loop {
        let now: Vec<Pod> = view.list().iter().map(|p| (**p).clone()).collect();
        if let Some(answer) = enough(&now) {
            return answer;
        }
        changes.next().await.ok_or_else(|| anyhow!("the watch ended"))?;
    }
}

fn condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

async fn wait_ready(client: &Client) -> anyhow::Result<()> {
    watch_pods(client, &format!("app={NAME}"), "", |pods| {
        (pods.iter().filter(|p| condition(p, "Ready")).count() >= REPLICAS).then_some(Ok(()))
    })
    .await
}

/// Runs a pod that asks, and answers what it printed.
async fn from_a_pod(client: &Client, url: &str) -> anyhow::Result<String> {
    let pods = by_kind("v1", "Pod").ok_or_else(|| anyhow!("no pods"))?;
    let name = "hello-caller";
    // One from an earlier run goes first.
    let typed = client.of::<Pod>();
    if typed.get_opt(NAMESPACE, name).await?.is_some() {
        typed.delete(NAMESPACE, name, None).await?;
        watch_pods(client, "", &format!("metadata.name={name}"), |pods| pods.is_empty().then_some(Ok(()))).await?;
    }
    ensure(client, &caller(url)).await?;
    let ended = watch_pods(client, "", &format!("metadata.name={name}"), |pods| {
        let status = pods.first()?.status.as_ref()?;
        match status.phase.as_deref() {
            Some("Succeeded") => Some(Ok(())),
            Some("Failed") => Some(Err(anyhow!("the pod that asked {url} failed"))),
            _ => None,
        }
    })
    .await;
    let log = client.get_path(&format!("{}/{name}/log", pods.path(Some(NAMESPACE)))).await;
    let log = log.map(|b| String::from_utf8_lossy(&b).into_owned());
    match (ended, log) {
        (Ok(()), Ok(log)) => {
            typed.delete(NAMESPACE, name, None).await?;
            Ok(log)
        }
        (Ok(()), Err(e)) => Err(e).context("its log cannot be read"),
        (Err(e), log) => Err(e.context(log.unwrap_or_default())),
    }
}

async fn node_port(client: &Client) -> anyhow::Result<u16> {
    let service = client.of::<Service>().get(NAMESPACE, NAME).await?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let port = ports.first().and_then(|p| p.node_port).and_then(|p| u16::try_from(p).ok());
    port.ok_or_else(|| anyhow!("the Service {NAME} has no node port"))
}

async fn from_the_host(url: &str) -> anyhow::Result<String> {
    sample::get_until(url, Duration::from_secs(3), RETRY).await
}
