//! Audit: who did what when, as events of `audit.k8s.io/v1`.

mod log;
mod policy;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use pintle_api::Status;
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_api::service::UserInfo;
use serde_json::{Map, Value, json};

pub use log::LogConfig;
pub(crate) use policy::{Level, Stage};
pub use webhook::WebhookConfig;

use crate::clock::Clock;
use crate::http::context::Ctx;
use log::Log;
use policy::{Decision, Policy};
use webhook::Webhook;

static EVENTS: Family = Family::new(
    "apiserver_audit_event_total",
    Kind::Counter,
    Stability::Alpha,
    &[],
    "Counter of audit events generated and sent to the audit backend.",
);
static ERRORS: Family = Family::new(
    "apiserver_audit_error_total",
    Kind::Counter,
    Stability::Alpha,
    &["plugin"],
    "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
);

/// Events of a batch were given up.
fn lost() {
    ERRORS.with(&["webhook"]).inc();
}

/// What is recorded and where it goes.
#[derive(Clone, Debug, Default)]
pub struct AuditConfig {
    /// The policy; without one nothing is recorded.
    pub policy_file: Option<PathBuf>,
    /// A log.
    pub log: Option<LogConfig>,
    /// A server that is told.
    pub webhook: Option<WebhookConfig>,
}

/// The policy and where events go.
pub(crate) struct Audit {
    policy: Policy,
    log: Option<Log>,
    webhook: Option<Webhook>,
    clock: Arc<dyn Clock>,
}

impl Audit {
    /// Reads the policy and opens the log; `None` when nothing is to be recorded.
    ///
    /// # Errors
    /// What is wrong with the policy or the backends' configuration.
    pub(crate) fn new(config: &AuditConfig, clock: Arc<dyn Clock>) -> Result<Option<Arc<Self>>, String> {
        let Some(path) = &config.policy_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let policy = Policy::parse(&text).map_err(|e| format!("audit policy {}: {e}", path.display()))?;
        let log = config.log.clone().map(Log::open).transpose()?;
        let webhook = config.webhook.as_ref().map(Webhook::new).transpose()?;
        if log.is_none() && webhook.is_none() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { policy, log, webhook, clock })))
    }

    /// Starts what runs beside requests.
    pub(crate) fn start(&self) {
        if let Some(w) = &self.webhook {
            w.start();
        }
    }

    fn write(&self, event: &Value) {
        EVENTS.with(&[]).inc();
        let mut line = event.to_string().into_bytes();
        if let Some(webhook) = &self.webhook
            && !webhook.push(&Bytes::copy_from_slice(&line))
        {
            ERRORS.with(&["webhook"]).inc();
        }
        if let Some(log) = &self.log {
            line.push(b'\n');
            if let Err(e) = log.write(&line) {
                ERRORS.with(&["log"]).inc();
                tracing::error!("writing the audit log failed: {e}");
            }
        }
    }

    /// Begins the record of a request, if the policy wants one.
    pub(crate) fn record(self: &Arc<Self>, ctx: &Ctx, sources: Vec<String>) -> Option<Arc<Record>> {
        let decision = self.policy.decide(&ctx.user, &ctx.info);
        if decision.level == Level::None {
            return None;
        }
        let i = &ctx.info;
        let mut event = Map::new();
        let mut put = |k: &str, v: Value| {
            if !matches!(&v, Value::String(s) if s.is_empty()) && v != json!([]) {
                event.insert(k.to_owned(), v);
            }
        };
        put("kind", "Event".into());
        put("apiVersion", "audit.k8s.io/v1".into());
        put("level", decision.level.name().into());
        put("auditID", ctx.audit_id.as_str().into());
        let query = ctx.raw_query.as_deref().map(|q| format!("?{q}")).unwrap_or_default();
        put("requestURI", format!("{}{query}", ctx.raw_path).into());
        put("verb", i.verb.as_str().into());
        put("user", user_value(&ctx.user));
        put("sourceIPs", sources.into());
        put("userAgent", ctx.user_agent().into());
        let mut target = Map::new();
        if i.is_resource {
            for (k, v) in [
                ("resource", &i.resource),
                ("namespace", &i.namespace),
                ("name", &i.name),
                ("apiGroup", &i.group),
                ("apiVersion", &i.version),
                ("subresource", &i.subresource),
            ] {
                if !v.is_empty() {
                    target.insert(k.to_owned(), v.as_str().into());
                }
            }
        }
        let record = Record {
            audit: Arc::clone(self),
            decision,
            received: self.clock.now(),
            state: Mutex::new(State { event, target, annotations: BTreeMap::new() }),
        };
        Some(Arc::new(record))
    }
}

fn user_value(user: &UserInfo) -> Value {
    let mut out = json!({});
    if !user.name.is_empty() {
        out["username"] = user.name.as_str().into();
    }
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        out["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

/// Where a request came from: as proxies say, and the connection's other end.
pub(crate) fn sources(headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    for part in text("x-forwarded-for").split(',').map(str::trim).filter(|p| !p.is_empty()) {
        if let Ok(ip) = part.parse::<std::net::IpAddr>() {
            out.push(ip.to_string());
        }
    }
    if let Ok(ip) = text("x-real-ip").parse::<std::net::IpAddr>() {
        let ip = ip.to_string();
        if out.first() != Some(&ip) {
            out.push(ip);
        }
    }
    if let Some(ip) = peer {
        let ip = ip.to_canonical().to_string();
        if out.last() != Some(&ip) {
            out.push(ip);
        }
    }
    out
}

struct State {
    event: Map<String, Value>,
    target: Map<String, Value>,
    annotations: BTreeMap<String, String>,
}

/// The record of one request.
pub(crate) struct Record {
    audit: Arc<Audit>,
    decision: Decision,
    received: Timestamp,
    state: Mutex<State>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({})", self.decision.level.name())
    }
}

impl Record {
    /// How much is recorded.
    pub(crate) fn level(&self) -> Level {
        self.decision.level
    }

    /// Notes why something is as it is. What was noted first stays.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        self.state.lock().annotations.entry(key.to_owned()).or_insert_with(|| value.into());
    }

    /// The request is made in another's name.
    pub(crate) fn impersonated(&self, user: &UserInfo) {
        self.state.lock().event.insert("impersonatedUser".into(), user_value(user));
    }

    /// Notes which object it is about, as far as the path did not say.
    pub(crate) fn about(&self, object: &Value) {
        let mut state = self.state.lock();
        for (k, field) in
            [("namespace", "namespace"), ("name", "name"), ("uid", "uid"), ("resourceVersion", "resourceVersion")]
        {
            let v = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default();
            if !v.is_empty() && !state.target.contains_key(k) {
                state.target.insert(k.to_owned(), v.into());
            }
        }
    }

    /// Notes what was sent.
    pub(crate) fn sent(&self, object: Value) {
        if self.decision.level >= Level::Request && !object.is_null() {
            let object = self.without_owners(object);
            self.state.lock().event.insert("requestObject".into(), object);
        }
    }

    /// Notes what was answered.
    pub(crate) fn answered(&self, object: Value) {
        if self.decision.level == Level::RequestResponse && !object.is_null() {
            let object = self.without_owners(object);
            self.state.lock().event.insert("responseObject".into(), object);
        }
    }

    fn without_owners(&self, mut object: Value) -> Value {
        if self.decision.omit_managed_fields {
            let strip = |o: &mut Value| {
                if let Some(m) = o.get_mut("metadata").and_then(Value::as_object_mut) {
                    m.remove("managedFields");
                }
            };
            strip(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        }
        object
    }

    /// Notes the outcome.
    pub(crate) fn outcome(&self, code: u16, status: Option<&Status>) {
        let mut out = json!({"metadata": {}});
        if let Some(status) = status {
            let whole: Value = serde_json::from_slice(&status.to_json()).unwrap_or_default();
            for k in ["status", "message", "reason", "details"] {
                if let Some(v) = whole.get(k) {
                    out[k] = v.clone();
                }
            }
        }
        out["code"] = code.into();
        self.state.lock().event.insert("responseStatus".into(), out);
    }

    /// Writes the event of a stage, unless the policy leaves it out.
    pub(crate) fn stage(&self, stage: Stage) {
        if self.decision.omit_stages.contains(&stage) {
            return;
        }
        let now = if stage == Stage::RequestReceived { self.received } else { self.audit.clock.now() };
        let event = {
            let state = self.state.lock();
            let mut event = state.event.clone();
            event.insert("stage".into(), stage.name().into());
            if !state.target.is_empty() {
                event.insert("objectRef".into(), state.target.clone().into());
            }
            for (k, t) in [("requestReceivedTimestamp", self.received), ("stageTimestamp", now)] {
                event.insert(k.into(), pintle_api::time::format_micro(t).into());
            }
            if !state.annotations.is_empty() {
                event.insert("annotations".into(), json!(state.annotations));
            }
            event
        };
        self.audit.write(&Value::Object(event));
    }
}

/// Writes that a request is complete when the last who serves it is done.
pub(crate) struct Completion(pub(crate) Arc<Record>);

impl Drop for Completion {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_come_from() {
        let mut headers = HeaderMap::new();
        assert!(sources(&headers, None).is_empty());
        headers.insert("x-forwarded-for", "10.0.0.1, nonsense, 10.0.0.2".parse().unwrap());
        headers.insert("x-real-ip", "10.0.0.1".parse().unwrap());
        assert_eq!(sources(&headers, Some("::ffff:10.0.0.9".parse().unwrap())), ["10.0.0.1", "10.0.0.2", "10.0.0.9"]);
    }
}
