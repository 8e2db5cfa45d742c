//! Extenders over HTTP, as upstream's `HTTPExtender`.
//!
//! The framework asks and waits; the calls are made by a thread of their own, so that the runtime's threads stay free
//! for those who answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use kube::config::{AuthInfo, Config as HttpConfig};
use pintle_api::{Object, duration};
use pintle_client::Informer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::Extender as Spec;
use crate::framework::extender::{Extender, Filtered, Victims};
use crate::model::Pod;

/// How long an answer is waited for unless the configuration says otherwise, as upstream.
const TIMEOUT: Duration = Duration::from_secs(5);

type Answer = Result<Vec<u8>, String>;
type Call = (String, Vec<u8>, mpsc::SyncSender<Answer>);

/// One extender.
pub(super) struct HttpExtender {
    spec: Spec,
    calls: mpsc::Sender<Call>,
    pods: Informer,
    nodes: Informer,
}

/// The connection's settings.
fn http_config(spec: &Spec) -> Result<HttpConfig, String> {
    let url = spec.url_prefix.trim_end_matches('/');
    let url = if spec.enable_https { url.replacen("http://", "https://", 1) } else { url.to_owned() };
    let mut config = HttpConfig::new(url.parse().map_err(|e| format!("urlPrefix {url:?}: {e}"))?);
    config.proxy_url = None;
    let timeout = match &spec.http_timeout {
        Some(text) => duration::parse(text).map_err(|e| format!("httpTimeout: {e}"))?,
        None => TIMEOUT,
    };
    config.read_timeout = Some(timeout);
    config.connect_timeout = Some(timeout);
    let tls = spec.tls_config.clone().unwrap_or_default();
    let ca = match (tls.ca_data.is_empty(), tls.ca_file.is_empty()) {
        (false, _) => Some(decode(&tls.ca_data)?),
        (true, false) => Some(std::fs::read(&tls.ca_file).map_err(|e| format!("{}: {e}", tls.ca_file))?),
        (true, true) => None,
    };
    // Without a certificate authority nobody could be trusted; upstream then trusts everybody.
    config.accept_invalid_certs = tls.insecure || (spec.enable_https && ca.is_none());
    let trusted = ca.map(|pem| certificates(&pem).map_err(|e| format!("the extender's certificate authority: {e}")));
    config.root_cert = trusted.transpose()?;
    config.tls_server_name = (!tls.server_name.is_empty()).then_some(tls.server_name);
    let text = |s: String| (!s.is_empty()).then_some(s);
    config.auth_info = AuthInfo {
        client_certificate: text(tls.cert_file),
        client_certificate_data: text(tls.cert_data),
        client_key: text(tls.key_file),
        client_key_data: text(tls.key_data).map(Into::into),
        ..AuthInfo::default()
    };
    Ok(config)
}

/// Whether an extender can be reached as its configuration says.
///
/// # Errors
/// What is wrong with its address, its certificates or its timeout.
pub(super) fn check(spec: &Spec) -> Result<(), String> {
    http_config(spec).map(drop)
}

fn decode(base64_text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(base64_text.trim()).map_err(|e| e.to_string())
}

/// The certificates of a PEM text, as DER.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("no certificate is in it".into()),
        Ok(all) => Ok(all.into_iter().map(|c| c.to_vec()).collect()),
        Err(e) => Err(e.to_string()),
    }
}

/// Makes the calls, one after the other.
fn serve(config: HttpConfig, calls: &mpsc::Receiver<Call>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "an extender's thread has no runtime"),
    };
    let client = runtime.block_on(async { kube::Client::try_from(config).map_err(|e| e.to_string()) });
    while let Ok((path, body, to)) = calls.recv() {
        let answer = match &client {
            Ok(client) => runtime.block_on(post(client, &path, body)),
            Err(why) => Err(why.clone()),
        };
        // Whoever asked has gone when this fails.
        let _ = to.send(answer);
    }
}

async fn post(client: &kube::Client, path: &str, body: Vec<u8>) -> Answer {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body))
        .map_err(|e| e.to_string())?;
    let response = client.send(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect_bytes().await.map_err(|e| e.to_string())?;
    if status.as_u16() != 200 {
        return Err(format!("failed {path} with extender, code {}", status.as_u16()));
    }
    Ok(bytes.to_vec())
}

/// A field by its name in whatever case, as Go reads them.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.iter().find(|(k, v)| k.eq_ignore_ascii_case(name) && !v.is_null()).map(|(_, v)| v)
}

fn failure(answer: &Value) -> Result<(), String> {
    match field(answer, "Error").and_then(Value::as_str).unwrap_or_default() {
        "" => Ok(()),
        why => Err(why.to_owned()),
    }
}

fn raw(object: &Object) -> Result<Box<RawValue>, String> {
    let text = std::str::from_utf8(object.bytes()).map_err(|e| e.to_string())?;
    RawValue::from_string(text.to_owned()).map_err(|e| e.to_string())
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Args {
    pod: Box<RawValue>,
    nodes: Option<NodeList>,
    node_names: Option<Vec<String>>,
}

#[derive(serde::Serialize)]
struct NodeList {
    metadata: Value,
    items: Vec<Box<RawValue>>,
}

impl HttpExtender {
    /// One by its configuration.
    ///
    /// # Errors
    /// What is wrong with its address or its certificates.
    pub(super) fn new(spec: Spec, pods: Informer, nodes: Informer) -> Result<Arc<Self>, String> {
        let config = http_config(&spec)?;
        let (calls, receiver) = mpsc::channel();
        let name = format!("extender {}", Path::new(&spec.url_prefix).display());
        thread::Builder::new().name(name).spawn(move || serve(config, &receiver)).map_err(|e| e.to_string())?;
        Ok(Arc::new(Self { spec, calls, pods, nodes }))
    }

    fn call(&self, verb: &str, args: &impl serde::Serialize) -> Result<Value, String> {
        let body = serde_json::to_vec(args).map_err(|e| e.to_string())?;
        let (to, from) = mpsc::sync_channel(1);
        let path = format!("/{}", verb.trim_start_matches('/'));
        self.calls.send((path, body, to)).map_err(|_| "the extender's thread has ended".to_owned())?;
        let wait = || from.recv().map_err(|_| "the extender's thread has ended".to_owned());
        let many = tokio::runtime::Handle::try_current()
            .is_ok_and(|h| h.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
        let answer = if many { tokio::task::block_in_place(wait) } else { wait() }??;
        serde_json::from_slice(&answer).map_err(|e| e.to_string())
    }

    fn pod(&self, pod: &Pod) -> Result<Box<RawValue>, String> {
        raw(&*self.pods.get(&pod.key).ok_or_else(|| format!("pod {} is gone", pod.key))?)
    }

    fn args(&self, pod: &Pod, nodes: &[String]) -> Result<Args, String> {
        let pod = self.pod(pod)?;
        if self.spec.node_cache_capable {
            return Ok(Args { pod, nodes: None, node_names: Some(nodes.to_vec()) });
        }
        let items = nodes.iter().filter_map(|n| self.nodes.get(n)).map(|n| raw(&n)).collect::<Result<_, _>>()?;
        Ok(Args { pod, nodes: Some(NodeList { metadata: json!({}), items }), node_names: None })
    }

    fn ask_filter(&self, pod: &Pod, nodes: &[String]) -> Result<Filtered, String> {
        let answer = self.call(&self.spec.filter_verb, &self.args(pod, nodes)?)?;
        failure(&answer)?;
        let map = |name: &str| -> BTreeMap<String, String> {
            let map = field(&answer, name).and_then(Value::as_object);
            map.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
        };
        let names = if self.spec.node_cache_capable {
            field(&answer, "NodeNames").and_then(Value::as_array).map(|a| a.iter().collect::<Vec<_>>())
        } else {
            let items = field(&answer, "Nodes").and_then(|n| field(n, "items")).and_then(Value::as_array);
            items.map(|items| items.iter().filter_map(|n| n.pointer("/metadata/name")).collect())
        };
        let names = names.unwrap_or_default().into_iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Filtered { nodes: names, failed: map("FailedNodes"), unresolvable: map("FailedAndUnresolvableNodes") })
    }

    fn ask_preempt(&self, pod: &Pod, asked: &BTreeMap<String, Victims>) -> Result<BTreeMap<String, Victims>, String> {
        let mut by_node = serde_json::Map::new();
        for (node, v) in asked {
            let pods: Vec<Value> = if self.spec.node_cache_capable {
                v.pods.iter().map(|p| json!({"UID": p.uid})).collect()
            } else {
                let whole = v.pods.iter().filter_map(|p| self.pods.get(&p.key));
                whole.filter_map(|p| serde_json::from_slice(p.bytes()).ok()).collect()
            };
            by_node.insert(node.clone(), json!({"Pods": pods, "NumPDBViolations": v.violations}));
        }
        let name = if self.spec.node_cache_capable { "NodeNameToMetaVictims" } else { "NodeNameToVictims" };
        let pod: Value = serde_json::from_str(self.pod(pod)?.get()).map_err(|e| e.to_string())?;
        let answer = self.call(&self.spec.preempt_verb, &json!({"Pod": pod, name: by_node}))?;
        let said = field(&answer, "NodeNameToMetaVictims").and_then(Value::as_object);
        let mut out = BTreeMap::new();
        for (node, v) in said.into_iter().flatten() {
            let Some(known) = asked.get(node) else { return Err(format!("unknown node {node:?} in the answer")) };
            let uids: Vec<&str> = field(v, "Pods")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|p| field(p, "UID")?.as_str())
                .collect();
            let pods = known.pods.iter().filter(|p| uids.contains(&p.uid.as_str())).cloned().collect();
            let violations = field(v, "NumPDBViolations").and_then(Value::as_u64).unwrap_or(0);
            out.insert(node.clone(), Victims { pods, violations: usize::try_from(violations).unwrap_or(usize::MAX) });
        }
        Ok(out)
    }

    /// Binds a pod, when this extender is the one that binds it.
    pub(super) fn bind(&self, pod: &Pod, node: &str) -> Option<Result<(), String>> {
        if self.spec.bind_verb.is_empty() || !self.is_interested(pod) {
            return None;
        }
        let args = json!({"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node});
        Some(self.call(&self.spec.bind_verb, &args).and_then(|answer| failure(&answer)))
    }
}

impl Extender for HttpExtender {
    fn name(&self) -> &str {
        &self.spec.url_prefix
    }

    fn is_interested(&self, pod: &Pod) -> bool {
        let managed = &self.spec.managed_resources;
        managed.is_empty() || managed.iter().any(|r| pod.requests.scalar.contains_key(r.name.as_str()))
    }

    fn is_ignorable(&self) -> bool {
        self.spec.ignorable
    }

    fn filter(&self, pod: &Pod, nodes: &[String]) -> Option<Result<Filtered, String>> {
        (!self.spec.filter_verb.is_empty()).then(|| self.ask_filter(pod, nodes))
    }

    fn prioritize(&self, pod: &Pod, nodes: &[String]) -> Option<Result<BTreeMap<String, i64>, String>> {
        let ask = || {
            let answer = self.call(&self.spec.prioritize_verb, &self.args(pod, nodes)?)?;
            let list = answer.as_array().ok_or("the answer is no list")?;
            let one = |v: &Value| {
                let score = field(v, "Score")?.as_i64()?;
                Some((field(v, "Host")?.as_str()?.to_owned(), score.saturating_mul(self.spec.weight)))
            };
            Ok(list.iter().filter_map(one).collect())
        };
        (!self.spec.prioritize_verb.is_empty()).then(ask)
    }

    fn preempt(
        &self,
        pod: &Pod,
        victims: &BTreeMap<String, Victims>,
    ) -> Option<Result<BTreeMap<String, Victims>, String>> {
        (!self.spec.preempt_verb.is_empty()).then(|| self.ask_preempt(pod, victims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn what_cannot_be_used_is_refused() {
        let tls = |ca: &str| serde_json::from_value(json!({"caData": ca})).unwrap();
        for (spec, want) in [
            (
                Spec { http_timeout: Some("5".into()), ..spec("http://h") },
                "httpTimeout: time: missing unit in duration \"5\"",
            ),
            (
                Spec { tls_config: tls("bm9uZQ=="), ..spec("https://h") },
                "certificate authority: no certificate is in it",
            ),
            (spec("http://a b"), "urlPrefix \"http://a b\""),
        ] {
            let said = http_config(&spec).map(drop).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
        assert_eq!(http_config(&spec("http://h")).unwrap().read_timeout, Some(TIMEOUT));
    }

    /// Answers each request with the next of these bodies; hands back what was asked.
    fn server(answers: Vec<(u16, Value)>) -> (String, thread::JoinHandle<Vec<(String, Value)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/prefix", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let n = stream.read(&mut buffer).unwrap();
                    bytes.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&bytes).to_string();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| {
                        l.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse::<usize>().unwrap())
                    });
                    if body.len() >= length.unwrap_or(0) {
                        let path = head.split(' ').nth(1).unwrap().to_owned();
                        asked.push((path, serde_json::from_str(body).unwrap()));
                        break;
                    }
                }
                let body = body.to_string();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
            asked
        });
        (url, served)
    }

    fn spec(url: &str) -> Spec {
        Spec {
            url_prefix: url.into(),
            filter_verb: "filter".into(),
            prioritize_verb: "prioritize".into(),
            bind_verb: "bind".into(),
            weight: 2,
            node_cache_capable: true,
            ..Spec::default()
        }
    }

    /// The informers of pods and nodes of an API that has one pod, and that pod.
    async fn fixture() -> ((Informer, Informer), Pod) {
        use pintle_api::resources::by_resource;
        use pintle_client::testing::FakeApi;
        let user = pintle_api::service::UserInfo::authenticated("u", &[]);
        let client = pintle_client::Client::in_process(FakeApi::new().service(), user);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u"}});
        let pods = by_resource("", "v1", "pods").unwrap();
        let body = serde_json::to_vec(&pod).unwrap().into();
        client.create(pods, "d", body, &pintle_client::WriteParams::default()).await.unwrap();
        let informers = pintle_client::Informers::new(client);
        let out = (informers.get(pods), informers.get(by_resource("", "v1", "nodes").unwrap()));
        informers.synced().await;
        // The informers live as long as whoever holds them.
        Box::leak(Box::new(informers));
        let mut pod = crate::plugins::testing::pod(&pod);
        pod.key = "d/p".into();
        (out, pod)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn asks_and_understands() {
        let (url, served) = server(vec![
            (
                200,
                json!({"nodenames": ["a"], "failedNodes": {"b": "too loud"}, "failedAndUnresolvableNodes": {"c": "never"}}),
            ),
            (200, json!([{"Host": "a", "Score": 3}])),
            (200, json!({"Error": "no"})),
            (500, json!({})),
        ]);
        let (informers, pod) = fixture().await;
        let e = HttpExtender::new(spec(&url), informers.0, informers.1).unwrap();
        let nodes = ["a".to_owned(), "b".into(), "c".into()];
        let said = e.filter(&pod, &nodes).unwrap().unwrap();
        assert_eq!(
            (said.nodes, said.failed["b"].as_str(), said.unresolvable["c"].as_str()),
            (vec!["a".to_owned()], "too loud", "never")
        );
        assert_eq!(e.prioritize(&pod, &nodes).unwrap().unwrap(), [("a".to_owned(), 6)].into());
        assert_eq!(e.bind(&pod, "a"), Some(Err("no".into())));
        assert_eq!(e.filter(&pod, &nodes).unwrap().unwrap_err(), "failed /filter with extender, code 500");
        let asked = served.join().unwrap();
        let paths: Vec<&str> = asked.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(paths, ["/prefix/filter", "/prefix/prioritize", "/prefix/bind", "/prefix/filter"]);
        assert_eq!(asked[0].1["NodeNames"], json!(["a", "b", "c"]));
        assert_eq!(asked[0].1["Pod"]["metadata"]["name"], "p");
        assert_eq!(asked[2].1, json!({"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "a"}));
    }
}
