//! What is known of a request while it is served.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method};
use parking_lot::Mutex;
use pintle_api::service::UserInfo;

use super::info::RequestInfo;
use super::query::Query;
use crate::audit::Record;

/// One request on its way through the server.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// HTTP method.
    pub(crate) method: Method,
    /// Path as the client sent it.
    pub(crate) raw_path: String,
    /// Query as the client sent it.
    pub(crate) raw_query: Option<String>,
    /// Parsed query.
    pub(crate) query: Query,
    /// Request headers.
    pub(crate) headers: HeaderMap,
    /// Verb and target.
    pub(crate) info: RequestInfo,
    /// Who asks.
    pub(crate) user: Arc<UserInfo>,
    /// The caller runs in this process and takes shared objects instead of a body.
    pub(crate) want_objects: bool,
    /// Identifies the request in audit logs.
    pub(crate) audit_id: String,
    /// The connection itself, for requests that switch protocols.
    pub(crate) upgrade: Mutex<Option<hyper::upgrade::OnUpgrade>>,
    warnings: Mutex<Vec<String>>,
    /// Microseconds that the request waited for its turn or for webhooks.
    held: AtomicU64,
    /// The request's audit record, if one is kept.
    pub(crate) audit: Option<Arc<Record>>,
    /// Uids of the flow schema and the priority level that the request was counted to.
    flow: OnceLock<(String, String)>,
}

impl Ctx {
    /// A request of this user.
    pub(crate) fn new(parts: http::request::Parts, query: Query, info: RequestInfo, audit_id: String) -> Self {
        Self {
            method: parts.method,
            raw_path: parts.uri.path().to_owned(),
            raw_query: parts.uri.query().map(str::to_owned),
            query,
            headers: parts.headers,
            info,
            user: Arc::new(UserInfo::default()),
            want_objects: parts.extensions.get::<pintle_api::service::WantObjects>().is_some(),
            audit_id,
            upgrade: Mutex::new(None),
            warnings: Mutex::new(Vec::new()),
            held: AtomicU64::new(0),
            audit: None,
            flow: OnceLock::new(),
        }
    }

    /// A request the server makes to itself (bootstrap, admission), as the all-powerful loopback user.
    pub(crate) fn loopback() -> Self {
        Self {
            method: Method::GET,
            raw_path: String::new(),
            raw_query: None,
            query: Query::default(),
            headers: HeaderMap::new(),
            info: RequestInfo::default(),
            user: loopback_user(),
            want_objects: false,
            audit_id: String::new(),
            upgrade: Mutex::new(None),
            warnings: Mutex::new(Vec::new()),
            held: AtomicU64::new(0),
            audit: None,
            flow: OnceLock::new(),
        }
    }

    /// Adds a `Warning` header to the answer; the same text is sent once, and an empty one not at all.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    /// The warnings so far.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// Counts time that the request waited for its turn or for webhooks.
    pub(crate) fn hold(&self, waited: Duration) {
        self.held.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes in the audit record why something is as it is.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        if let Some(record) = &self.audit {
            record.annotate(key, value);
        }
    }

    /// Notes the uids of the request's flow schema and priority level.
    pub(crate) fn set_flow(&self, schema: &str, level: &str) {
        // A request is classified once.
        let _ = self.flow.set((schema.to_owned(), level.to_owned()));
    }

    /// The uids of the request's flow schema and priority level.
    pub(crate) fn flow(&self) -> Option<&(String, String)> {
        self.flow.get()
    }

    /// All the time it waited so.
    pub(crate) fn held(&self) -> Duration {
        Duration::from_micros(self.held.load(Ordering::Relaxed))
    }

    /// The `User-Agent` header.
    pub(crate) fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// The identity of the server's own calls.
pub(crate) fn loopback_user() -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated("system:apiserver", &["system:masters"]))
}
