//! How one part of a process calls the API server of the same process: as a `tower` service, with who is asking and
//! the wish for shared objects in the request's extensions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;

use crate::object::{Object, WatchEvent};
use crate::status::Status;

/// Any error a body may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Body of requests and responses.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The API server's HTTP service: no socket, no TLS. Errors are `Status` answers, so the service itself never fails.
pub type ApiService = tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    use http_body_util::BodyExt;
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name.
    pub name: String,
    /// Unique id; often empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Other attributes, such as `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in the group of all who are authenticated, and in these others.
    #[must_use]
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut all: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        all.push("system:authenticated".into());
        Self { name: name.into(), groups: all, ..Self::default() }
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::authenticated(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        )
    }
}

/// Request extension: the caller is this user, known because it runs in this process. It still goes through
/// authorization and audit.
#[derive(Clone, Debug)]
pub struct InProcessUser(pub Arc<UserInfo>);

/// Request extension: the caller takes [`ObjectList`], [`ObjectStream`] or (of one object) [`SharedObject`] from the
/// response's extensions instead of a body, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct WantObjects;

/// Response extension: the one object that is the answer, shared with the API server's cache.
#[derive(Clone)]
pub struct SharedObject(pub Arc<Object>);

/// Response extension: a LIST's objects, shared with the API server's cache.
#[derive(Clone)]
pub struct ObjectList {
    /// The objects, in key order.
    pub items: Arc<Vec<Arc<Object>>>,
    /// The list's resourceVersion.
    pub resource_version: u64,
    /// Token for the next page; empty on the last one.
    pub continue_token: String,
}

/// The stream inside an [`ObjectStream`].
pub type EventStream = BoxStream<'static, Result<WatchEvent, Status>>;

/// Response extension: a WATCH's events, shared with the API server's cache. The first to call [`ObjectStream::take`]
/// has it. An `Err` is the watch's `ERROR` event and ends it.
#[derive(Clone)]
pub struct ObjectStream(Arc<Mutex<Option<EventStream>>>);

impl ObjectStream {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: EventStream) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// Takes the stream out.
    #[must_use]
    pub fn take(&self) -> Option<EventStream> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl fmt::Debug for ObjectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectStream")
    }
}
