//! `Client`: requests to a Kubernetes API as somebody.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::object::{Object, WatchEvent};
use pintle_api::resources::Resource;
use pintle_api::service::{
    ApiService, Body, BoxError, InProcessUser, ObjectList, ObjectStream, SharedObject, UserInfo, WantObjects, full,
};
use pintle_api::status::Status;
use serde::Serialize;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::Result;
use crate::error::Error;
use crate::metrics::Requests;
use crate::transport::{self, Transport};
use crate::watch;

/// How often a request is sent again after an answer that says when to come back.
const RETRIES_AFTER: u32 = 10;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Requests to a Kubernetes API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    requests: Arc<Requests>,
    user: Option<Arc<UserInfo>>,
    user_agent: HeaderValue,
    kube: OnceLock<kube::Client>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.user {
            Some(u) => write!(f, "Client(in process, as {})", u.name),
            None => f.write_str("Client(https)"),
        }
    }
}

/// What to list or watch, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListParams {
    /// Label selector; empty for all.
    pub labels: String,
    /// Field selector; empty for all.
    pub fields: String,
    /// Largest number of objects a page; 0 for all at once.
    pub limit: u32,
    /// Token of the next page.
    pub continue_token: String,
    /// The `resourceVersion` parameter; empty for the newest state.
    pub resource_version: String,
}

/// Parameters of writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteParams {
    /// `fieldManager`.
    pub field_manager: String,
    /// Check and answer, but store nothing.
    pub dry_run: bool,
    /// `force`, for server-side apply.
    pub force: bool,
}

/// A patch and its form.
#[derive(Clone, Debug)]
pub enum Patch {
    /// JSON merge patch.
    Merge(Bytes),
    /// Strategic merge patch.
    Strategic(Bytes),
    /// JSON patch.
    Json(Bytes),
    /// Server-side apply.
    Apply(Bytes),
}

impl Patch {
    /// A merge patch of anything that serialises.
    ///
    /// # Errors
    /// When it does not serialise.
    pub fn merge(value: &impl Serialize) -> Result<Self> {
        encode(value).map(Self::Merge)
    }

    /// A strategic merge patch of anything that serialises.
    ///
    /// # Errors
    /// When it does not serialise.
    pub fn strategic(value: &impl Serialize) -> Result<Self> {
        encode(value).map(Self::Strategic)
    }

    /// A JSON patch of anything that serialises.
    ///
    /// # Errors
    /// When it does not serialise.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        encode(value).map(Self::Json)
    }

    fn parts(self) -> (HeaderValue, Bytes) {
        let (kind, bytes) = match self {
            Self::Merge(b) => ("application/merge-patch+json", b),
            Self::Strategic(b) => ("application/strategic-merge-patch+json", b),
            Self::Json(b) => ("application/json-patch+json", b),
            Self::Apply(b) => ("application/apply-patch+yaml", b),
        };
        (HeaderValue::from_static(kind), bytes)
    }
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The objects.
    pub items: Arc<Vec<Arc<Object>>>,
    /// The list's resourceVersion.
    pub resource_version: String,
    /// Token of the next page; empty on the last one.
    pub continue_token: String,
}

/// Encodes a value as JSON.
///
/// # Errors
/// When it does not serialise.
pub fn encode(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Error::decode("cannot encode the object", e))
}

/// Path of an object or a sub-resource of it.
#[must_use]
pub fn object_path(resource: &Resource, namespace: &str, name: &str, subresource: &str) -> String {
    let mut path = resource.path((!namespace.is_empty()).then_some(namespace));
    if !name.is_empty() {
        path.push('/');
        path.extend(percent_encoding::utf8_percent_encode(name, SEGMENT));
    }
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

const SEGMENT: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'/')
    .add(b'%');
const QUERY: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Appends query parameters, leaving out empty ones.
#[must_use]
pub fn with_query(mut path: String, params: &[(&str, &str)]) -> String {
    let mut lead = '?';
    for (key, value) in params.iter().filter(|(_, v)| !v.is_empty()) {
        path.push(lead);
        path.push_str(key);
        path.push('=');
        path.extend(percent_encoding::utf8_percent_encode(value, QUERY));
        lead = '&';
    }
    path
}

impl ListParams {
    pub(crate) fn query<'a>(&'a self, limit: &'a str) -> [(&'static str, &'a str); 5] {
        [
            ("labelSelector", &self.labels),
            ("fieldSelector", &self.fields),
            ("limit", limit),
            ("continue", &self.continue_token),
            ("resourceVersion", &self.resource_version),
        ]
    }
}

impl WriteParams {
    fn query(&self) -> [(&'static str, &str); 3] {
        [
            ("fieldManager", &self.field_manager),
            ("dryRun", if self.dry_run { "All" } else { "" }),
            ("force", if self.force { "true" } else { "" }),
        ]
    }
}

impl Client {
    fn new(
        transport: Transport,
        requests: Arc<Requests>,
        user: Option<Arc<UserInfo>>,
        user_agent: HeaderValue,
    ) -> Self {
        Self { inner: Arc::new(Inner { transport, requests, user, user_agent, kube: OnceLock::new() }) }
    }

    fn default_agent() -> HeaderValue {
        HeaderValue::from_static(concat!("pintle/", env!("CARGO_PKG_VERSION")))
    }

    /// To the API server of this process, as `user`.
    #[must_use]
    pub fn in_process(service: ApiService, user: UserInfo) -> Self {
        let requests = Requests::to("in-process".into());
        Self::new(transport::in_process(service), requests, Some(Arc::new(user)), Self::default_agent())
    }

    /// Over HTTPS as a kubeconfig says (its current context, or the one named). Certificates and tokens that change on
    /// disk are taken up.
    ///
    /// # Errors
    /// When the file or what it names cannot be read.
    pub async fn from_kubeconfig(path: impl Into<PathBuf>, context: Option<&str>) -> Result<Self> {
        let (transport, host) = transport::over_kubeconfig(path.into(), context.map(Into::into)).await?;
        Ok(Self::new(transport, Requests::to(host), None, Self::default_agent()))
    }

    /// Over HTTPS by a configuration of the `kube` crate: in a pod, by a token file, by what the environment says.
    ///
    /// # Errors
    /// When certificates do not parse.
    pub fn from_config(config: kube::Config) -> Result<Self> {
        let requests = Requests::to(transport::host(&config));
        Ok(Self::new(transport::over_https(config)?, requests, None, Self::default_agent()))
    }

    /// The same connection as another user. In process the identity changes; over HTTPS it is the credentials' and
    /// stays.
    #[must_use]
    pub fn as_user(&self, user: UserInfo) -> Self {
        let i = &self.inner;
        let user = i.user.as_ref().map(|_| Arc::new(user));
        Self::new(i.transport.clone(), i.requests.clone(), user, i.user_agent.clone())
    }

    /// The same connection under another `User-Agent`. Characters that a header cannot hold leave it as it is.
    #[must_use]
    pub fn with_user_agent(&self, agent: &str) -> Self {
        let i = &self.inner;
        let agent = HeaderValue::from_str(agent).unwrap_or_else(|_| i.user_agent.clone());
        Self::new(i.transport.clone(), i.requests.clone(), i.user.clone(), agent)
    }

    /// Whether the API server is in this process.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        self.inner.user.is_some()
    }

    /// Who asks, when that is decided here.
    #[must_use]
    pub fn user(&self) -> Option<&UserInfo> {
        self.inner.user.as_deref()
    }

    /// A client of the `kube` crate over the same connection, for `kube::Api<T>`. Call it within a tokio runtime.
    #[must_use]
    pub fn kube(&self) -> kube::Client {
        let me = self.without_kube();
        self.inner
            .kube
            .get_or_init(|| {
                let service = tower::service_fn(move |request: Request<kube::client::Body>| {
                    me.call(request.map(|b| b.map_err(BoxError::from).boxed_unsync())).map_err(BoxError::from)
                });
                kube::Client::new(service, "default")
            })
            .clone()
    }

    /// The kube client keeps a client of ours; one without a kube client in turn, so that there is no cycle.
    fn without_kube(&self) -> Self {
        let i = &self.inner;
        Self::new(i.transport.clone(), i.requests.clone(), i.user.clone(), i.user_agent.clone())
    }

    /// Sends one request (the URI being path and query) and answers whatever comes, errors included.
    ///
    /// # Errors
    /// When the API cannot be reached.
    pub fn call(&self, mut request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>>> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.inner.user_agent.clone());
        if let Some(user) = &self.inner.user {
            request.extensions_mut().insert(InProcessUser(user.clone()));
        }
        let (method, requests, began) = (request.method().clone(), self.inner.requests.clone(), Instant::now());
        let count = move |answer: Result<Response<Body>, BoxError>| {
            requests.ended(&method, answer.as_ref().ok().map(Response::status), began.elapsed());
            answer.map_err(Error::Transport)
        };
        self.inner.transport.clone().oneshot(request).map(count).boxed()
    }

    /// Sends a request, again when the server says to come back later, and turns failures into errors.
    async fn send(&self, ask: Ask) -> Result<Response<Body>> {
        let mut tries = 0;
        loop {
            let response = self.call(ask.request()?).await?;
            let code = response.status().as_u16();
            if code < 400 {
                return Ok(response);
            }
            let after =
                response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
            match after {
                Some(seconds) if (code == 429 || code >= 500) && tries < RETRIES_AFTER => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Err(failure(response).await),
            }
        }
    }

    async fn send_bytes(&self, method: Method, uri: String, content: Option<(HeaderValue, Bytes)>) -> Result<Bytes> {
        read(self.send(Ask { method, uri, content, objects: false }).await?).await
    }

    /// Sends a request whose answer is an object. In process that is the API server's own, neither copied nor read
    /// anew.
    async fn send_object(
        &self,
        method: Method,
        uri: String,
        content: Option<(HeaderValue, Bytes)>,
    ) -> Result<Arc<Object>> {
        let mut response = self.send(Ask { method, uri, content, objects: true }).await?;
        if let Some(SharedObject(object)) = response.extensions_mut().remove::<SharedObject>() {
            return Ok(object);
        }
        let bytes = read(response).await?;
        Object::from_wire(bytes, &[]).map(Arc::new).map_err(|e| Error::decode("answer", e))
    }

    /// GETs a path such as `/version` and answers the body.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn get_path(&self, path: &str) -> Result<Bytes> {
        self.send_bytes(Method::GET, path.to_owned(), None).await
    }

    /// One object.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Arc<Object>> {
        self.send_object(Method::GET, object_path(resource, namespace, name, ""), None).await
    }

    /// A list: all of it, or one page when `limit` is set. An empty namespace means all of them.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn list(&self, resource: &'static Resource, namespace: &str, params: &ListParams) -> Result<List> {
        let limit = if params.limit > 0 { params.limit.to_string() } else { String::new() };
        let uri = with_query(object_path(resource, namespace, "", ""), &params.query(&limit));
        let mut response = self.send(Ask { method: Method::GET, uri, content: None, objects: true }).await?;
        if let Some(shared) = response.extensions_mut().remove::<ObjectList>() {
            return Ok(List {
                items: shared.items,
                resource_version: shared.resource_version.to_string(),
                continue_token: shared.continue_token,
            });
        }
        watch::split_list(&read(response).await?)
    }

    /// Changes from `resource_version` on. An `Err` ends the stream; so may the server, at any time and without one.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn watch(
        &self,
        resource: &'static Resource,
        namespace: &str,
        params: &ListParams,
        extra: &[(&str, &str)],
    ) -> Result<BoxStream<'static, Result<WatchEvent>>> {
        let mut query = params.query("").to_vec();
        query.push(("watch", "true"));
        query.push(("allowWatchBookmarks", "true"));
        query.extend_from_slice(extra);
        let uri = with_query(object_path(resource, namespace, "", ""), &query);
        let mut response = self.send(Ask { method: Method::GET, uri, content: None, objects: true }).await?;
        if let Some(events) = response.extensions_mut().remove::<ObjectStream>().and_then(|s| s.take()) {
            return Ok(events.map(|e| e.map_err(Error::from)).boxed());
        }
        Ok(watch::decode(response.into_body()).boxed())
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        body: Bytes,
        params: &WriteParams,
    ) -> Result<Arc<Object>> {
        let uri = with_query(object_path(resource, namespace, "", ""), &params.query());
        self.send_object(Method::POST, uri, Some((JSON, body))).await
    }

    /// POSTs to a sub-resource (`binding`, `eviction`, `token`, …) and answers what it answers.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn create_subresource(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        self.send_bytes(Method::POST, object_path(resource, namespace, name, subresource), Some((JSON, body))).await
    }

    /// Replaces an object or, with a sub-resource named, that part of it.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn update(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Bytes,
        params: &WriteParams,
    ) -> Result<Arc<Object>> {
        let uri = with_query(object_path(resource, namespace, name, subresource), &params.query());
        self.send_object(Method::PUT, uri, Some((JSON, body))).await
    }

    /// Patches an object or a sub-resource.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn patch(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: Patch,
        params: &WriteParams,
    ) -> Result<Arc<Object>> {
        let uri = with_query(object_path(resource, namespace, name, subresource), &params.query());
        self.send_object(Method::PATCH, uri, Some(patch.parts())).await
    }

    /// Deletes an object; the answer is the object when it lives on for its finalizers or its grace period, and
    /// otherwise a `Status`.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Bytes> {
        let body = encode(options)?;
        self.send_bytes(Method::DELETE, object_path(resource, namespace, name, ""), Some((JSON, body))).await
    }

    /// Deletes every object that the parameters select.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn delete_collection(
        &self,
        resource: &'static Resource,
        namespace: &str,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<()> {
        let uri = with_query(object_path(resource, namespace, "", ""), &params.query(""));
        self.send_bytes(Method::DELETE, uri, Some((JSON, encode(options)?))).await.map(drop)
    }
}

/// A request that can be made again.
struct Ask {
    method: Method,
    uri: String,
    content: Option<(HeaderValue, Bytes)>,
    /// Whether shared objects are taken instead of a body.
    objects: bool,
}

impl Ask {
    fn request(&self) -> Result<Request<Body>> {
        let mut builder = Request::builder().method(&self.method).uri(&self.uri).header(ACCEPT, JSON);
        if let Some((kind, _)) = &self.content {
            builder = builder.header(CONTENT_TYPE, kind);
        }
        if self.objects {
            builder = builder.extension(WantObjects);
        }
        let body = self.content.as_ref().map(|(_, b)| b.clone()).unwrap_or_default();
        builder.body(full(body)).map_err(|e| Error::Config(format!("bad request for {}: {e}", self.uri)))
    }
}

async fn read(response: Response<Body>) -> Result<Bytes> {
    response.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(Error::Transport)
}

/// An answer that is a failure, as an error.
async fn failure(response: Response<Body>) -> Error {
    let code = response.status().as_u16();
    let text = match read(response).await {
        Ok(text) => text,
        Err(e) => return e,
    };
    match serde_json::from_slice::<Status>(&text) {
        Ok(mut s) if s.kind == "Status" => {
            if s.code == 0 {
                s.code = code;
            }
            s.into()
        }
        // A proxy's page, or a server that is not Kubernetes.
        _ => Status::failure(code, "", String::from_utf8_lossy(&text[..text.len().min(1024)]).into_owned()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::resources::by_resource;

    #[test]
    fn paths() {
        let pods = by_resource("", "v1", "pods").unwrap();
        let roles = by_resource("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
        for (r, ns, name, sub, want) in [
            (pods, "n", "p", "status", "/api/v1/namespaces/n/pods/p/status"),
            (pods, "", "", "", "/api/v1/pods"),
            (roles, "", "system:a b/c", "", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a%20b%2Fc"),
        ] {
            assert_eq!(object_path(r, ns, name, sub), want);
        }
        assert_eq!(
            with_query("/x".into(), &[("a", ""), ("b", "x=y,z in (q)"), ("c", "1")]),
            "/x?b=x%3Dy%2Cz%20in%20%28q%29&c=1"
        );
    }
}
