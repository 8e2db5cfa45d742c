//! What the server says of itself: `/metrics`' own values, `/statusz`, `/flagz`, `/configz`, `/debug/pprof`.

use std::sync::{Arc, Weak};

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use serde_json::{Value, json};

use super::context::Ctx;
use super::respond;
use crate::{Server, metrics};

const UNSTABLE: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n";

/// A page that is text for people and a document for those who ask for it.
struct Page {
    kind: &'static str,
    text: String,
    document: Value,
}

impl Page {
    /// The page as the client wants it.
    fn answer(mut self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        let accept = ctx.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        for part in accept.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let media = fields.next().unwrap_or_default();
            let parameter = |name: &str| {
                fields
                    .clone()
                    .find_map(|f| f.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
                    .unwrap_or_default()
            };
            match media {
                "" | "text/plain" | "text/*" | "*/*" => return Ok(respond::text(200, self.text)),
                "application/json" | "application/yaml"
                    if parameter("as") == self.kind
                        && parameter("g") == "config.k8s.io"
                        && matches!(parameter("v").as_str(), "v1alpha1" | "v1beta1") =>
                {
                    let version = parameter("v");
                    self.document["apiVersion"] = format!("config.k8s.io/{version}").into();
                    let text = self.document.to_string();
                    let mut r = if media == "application/yaml" {
                        respond::bytes(200, "application/yaml", crate::codec::json_to_yaml(text.as_bytes()))
                    } else {
                        respond::bytes(200, "application/json", text + "\n")
                    };
                    if version == "v1alpha1" {
                        let path = self.kind.to_lowercase();
                        let text = format!(
                            "299 - \"This version of the {path} endpoint is deprecated. Please use a newer version.\""
                        );
                        if let Ok(v) = http::HeaderValue::from_str(&text) {
                            r.headers_mut().append(http::header::WARNING, v);
                        }
                    }
                    return Ok(r);
                }
                _ => {}
            }
        }
        Err(Status::not_acceptable(&["text/plain", "application/json", "application/yaml"]))
    }
}

impl Server {
    /// Has what is only known when somebody looks at the metrics looked at then.
    pub(crate) fn collect(self: &Arc<Self>) {
        let server: Weak<Self> = Arc::downgrade(self);
        pintle_api::metrics::before_write(move || {
            let Some(server) = server.upgrade() else { return false };
            server.refresh_metrics();
            true
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    fn refresh_metrics(&self) {
        let (reading, writing) = self.inflight.now();
        metrics::INFLIGHT.with(&["mutating"]).set(writing as f64);
        metrics::INFLIGHT.with(&["readOnly"]).set(reading as f64);
        for res in self.registry.all() {
            let Some(cache) = res.objects.as_ref().and_then(|o| o.loaded()).filter(|_| !res.converts()) else {
                continue;
            };
            metrics::STORED.with(&[&res.def.group_resource()]).set(cache.len() as f64);
            metrics::OBJECTS.with(&[res.def.group, res.def.resource]).set(cache.len() as f64);
        }
        let version = crate::discovery::version();
        let version = version["gitVersion"].as_str().unwrap_or_default();
        metrics::BUILD.with(&[version, "1", crate::discovery::MINOR]).set(1.0);
        metrics::process();
    }

    /// `/statusz`: what runs here and since when.
    pub(crate) fn statusz(&self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        let up = self.clock.now().duration_since(self.started).as_secs();
        let (days, hours, minutes, seconds) = (up / 86400, up / 3600 % 24, up / 60 % 60, up % 60);
        let version = crate::discovery::version();
        let text = |k: &str| version[k].as_str().unwrap_or_default().to_owned();
        let minor = crate::discovery::MINOR;
        let paths = ["/healthz", "/livez", "/metrics", "/readyz", "/version"];
        let started = self.started.strftime("%a %b %e %H:%M:%S UTC %Y");
        Page {
            kind: "Statusz",
            text: format!(
                "\nkube-apiserver statusz\n{UNSTABLE}\nStarted: {started}\nUp: {} hr {minutes:02} min {seconds:02} sec\nGo version: {}\nBinary version: {}\nEmulation version: 1.{minor}\nPaths: {}\n",
                days * 24 + hours,
                text("goVersion"),
                text("gitVersion").trim_start_matches('v'),
                paths.join(" "),
            ),
            document: json!({
                "kind": "Statusz", "apiVersion": "", "metadata": {"name": "kube-apiserver"},
                "startTime": pintle_api::time::format(self.started), "uptimeSeconds": up, "goVersion": text("goVersion"),
                "binaryVersion": text("gitVersion").trim_start_matches('v'), "emulationVersion": format!("1.{minor}"),
                "paths": paths,
            }),
        }
        .answer(ctx)
    }

    /// `/flagz`: the flags as given.
    pub(crate) fn flagz(&self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        let mut flags = self.config.flags.clone();
        flags.sort();
        let mut text = format!("\nkube-apiserver flagz\n{UNSTABLE}");
        for (k, v) in &flags {
            text.push_str(&format!("{k}={v}\n"));
        }
        let flags: serde_json::Map<String, Value> = flags.into_iter().map(|(k, v)| (k, v.into())).collect();
        let document =
            json!({"kind": "Flagz", "apiVersion": "", "metadata": {"name": "kube-apiserver"}, "flags": flags});
        Page { kind: "Flagz", text, document }.answer(ctx)
    }

    /// `/configz`: what the server was configured with, by upstream's names.
    pub(crate) fn configz(&self) -> Value {
        let c = &self.config;
        json!({"apiserver.config.k8s.io": {
            "authorizationModes": c.authorization_modes.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>(),
            "enableAdmissionPlugins": c.enable_admission_plugins,
            "disableAdmissionPlugins": c.disable_admission_plugins,
            "serviceClusterIPRange": c.service_cidrs.join(","),
            "serviceNodePortRange": format!("{}-{}", c.node_port_range.0, c.node_port_range.1),
            "eventTTL": format!("{}s", c.event_ttl.as_secs()),
            "requestTimeout": format!("{}s", c.request_timeout.as_secs()),
            "minRequestTimeout": c.min_request_timeout.as_secs(),
            "maxRequestsInflight": c.max_requests_inflight,
            "maxMutatingRequestsInflight": c.max_mutating_requests_inflight,
            "anonymousAuth": c.anonymous,
            "enableBootstrapTokenAuth": c.enable_bootstrap_token_auth,
            "serviceAccountIssuer": c.service_account_issuer,
            "etcdPrefix": c.storage_prefix,
            "runtimeConfig": c.runtime_config.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        }})
    }

    /// `/debug/pprof/…`: what can be told of a process that is not Go. `None` for profiles there are none of.
    pub(crate) fn pprof(&self, path: &str) -> Option<Response<Body>> {
        let read = |file: &str| std::fs::read(format!("/proc/self/{file}")).unwrap_or_default();
        match path.trim_start_matches("/debug/pprof").trim_matches('/') {
            "" => Some(respond::bytes(
                200,
                "text/html; charset=utf-8",
                "<html><head><title>/debug/pprof/</title></head><body>\
                 <a href='cmdline'>cmdline</a><br><a href='goroutine'>goroutine</a><br><a href='heap'>heap</a><br></body></html>\n",
            )),
            "cmdline" => {
                let mut line = read("cmdline");
                while line.last() == Some(&0) {
                    line.pop();
                }
                Some(respond::text(200, line))
            }
            "goroutine" => {
                let metrics = tokio::runtime::Handle::current().metrics();
                Some(respond::text(
                    200,
                    format!(
                        "goroutine profile: total {}\nworkers: {}\nqueued: {}\n",
                        metrics.num_alive_tasks(),
                        metrics.num_workers(),
                        metrics.global_queue_depth()
                    ),
                ))
            }
            "heap" => Some(respond::text(200, read("status"))),
            _ => None,
        }
    }
}
