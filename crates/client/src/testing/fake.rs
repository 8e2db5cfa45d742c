//! `FakeApi`: an API server in memory, for tests of controllers. It stores and watches objects of every resource with
//! resourceVersions, generations, finalizers, generateName, sub-resources `status` and `scale`, merge patches and
//! preconditions. It validates, defaults and authorizes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use parking_lot::Mutex;
use pintle_api::object::{EventType, Object, WatchEvent};
use pintle_api::selector::{FieldSelector, Selector};
use pintle_api::service::{ApiService, Body, ObjectList, ObjectStream, WantObjects, full};
use pintle_api::status::Status;
use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, watch};
use tower::service_fn;

use super::fault::{Fault, Faults, answer};

/// An object as it is worked on, and as it is handed out: made once, shared by all who read it.
#[derive(Clone)]
struct Stored {
    value: Value,
    object: Arc<Object>,
}

#[derive(Default)]
struct State {
    /// By `collection path` + NUL + `namespace/name`.
    objects: BTreeMap<String, Stored>,
    revision: u64,
    log: VecDeque<Arc<Event>>,
    created: u64,
    requests: Vec<(Method, String)>,
}

struct Event {
    revision: u64,
    collection: String,
    kind: EventType,
    object: Arc<Object>,
    old: Option<Stored>,
}

struct Inner {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<Event>>,
    faults: Mutex<Option<Faults>>,
    now: Mutex<String>,
    /// Told of every request that was answered.
    answered: watch::Sender<()>,
}

/// An API server in memory. Clones are the same server.
#[derive(Clone)]
pub struct FakeApi(Arc<Inner>);

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeApi({} objects)", self.0.state.lock().objects.len())
    }
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

/// A request's path, taken apart.
struct Target {
    /// `/api/v1/pods`, without the namespace.
    collection: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
    sub: String,
}

impl Target {
    /// Whether objects of the resource have a status of its own sub-resource.
    fn has_status(&self) -> bool {
        let version = self.collection.rsplit('/').nth(1).unwrap_or_default();
        pintle_api::resources::by_resource(&self.group, version, &self.resource)
            .is_some_and(|r| r.subresource("status").is_some())
    }
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (prefix, group, mut rest) = match parts.as_slice() {
        ["api", v, rest @ ..] => (format!("/api/{v}"), "", rest),
        ["apis", g, v, rest @ ..] => (format!("/apis/{g}/{v}"), *g, rest),
        _ => return None,
    };
    let mut namespace = "";
    if let ["namespaces", ns, more @ ..] = rest
        && !more.is_empty()
        && !matches!(more, ["status" | "finalize"])
    {
        namespace = ns;
        rest = more;
    }
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let resource = (*rest.first()?).to_owned();
    Some(Target {
        collection: format!("{prefix}/{resource}"),
        group: group.to_owned(),
        resource,
        namespace: namespace.to_owned(),
        name: rest.get(1).map(|s| decode(s)).unwrap_or_default(),
        sub: rest.get(2).map(|s| (*s).to_owned()).unwrap_or_default(),
    })
}

/// The legacy discovery documents of the built-in resources.
fn discovery(path: &str) -> Option<Value> {
    let on = || pintle_api::resources::all().iter().filter(|r| r.on);
    let gv = match path.trim_matches('/') {
        "apis" => {
            let mut all: Vec<_> = on().filter(|r| !r.group.is_empty()).map(|r| (r.group, r.api_version())).collect();
            all.dedup_by(|a, b| a.0 == b.0);
            let groups: Vec<Value> =
                all.iter().map(|(g, gv)| json!({"name": g, "preferredVersion": {"groupVersion": gv}})).collect();
            return Some(json!({"kind": "APIGroupList", "groups": groups}));
        }
        "api/v1" => "v1",
        other => other.strip_prefix("apis/").filter(|gv| gv.matches('/').count() == 1)?,
    };
    let resources: Vec<Value> = on()
        .filter(|r| r.api_version() == gv)
        .map(|r| json!({"name": r.resource, "kind": r.kind, "namespaced": r.namespaced, "verbs": r.verbs}))
        .collect();
    Some(json!({"kind": "APIResourceList", "groupVersion": gv, "resources": resources}))
}

fn query(uri: &http::Uri) -> BTreeMap<String, String> {
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), decode(v))).collect()
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(into) = into {
        for (k, v) in patch {
            if v.is_null() {
                into.remove(k);
            } else {
                merge(into.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
    }
}

fn object(value: &Value) -> Arc<Object> {
    const FIELDS: &[pintle_api::object::SelectableField] = &[
        ("spec.nodeName", &["spec", "nodeName"], ""),
        ("status.phase", &["status", "phase"], ""),
        ("type", &["type"], ""),
    ];
    #[expect(clippy::expect_used, reason = "everything stored has metadata")]
    Arc::new(Object::from_wire(value.to_string().into(), FIELDS).expect("a stored object"))
}

/// An object's scale.
fn scale(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    let m = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": m["name"], "namespace": m["namespace"], "uid": m["uid"], "resourceVersion": m["resourceVersion"]},
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",")},
    })
}

struct Filter {
    collection: String,
    namespace: String,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    fn matches(&self, o: &Object) -> bool {
        (self.namespace.is_empty() || o.namespace() == self.namespace)
            && self.labels.matches_object(o)
            && self.fields.matches_object(o)
    }

    /// The event as a watcher with these selectors sees it.
    fn see(&self, e: &Event) -> Option<WatchEvent> {
        if e.collection != self.collection {
            return None;
        }
        let now = e.kind != EventType::Deleted && self.matches(&e.object);
        let before = e.old.as_ref().is_some_and(|o| self.matches(&o.object));
        let kind = match (before, now) {
            (false, true) => EventType::Added,
            (true, true) => EventType::Modified,
            (true, false) => EventType::Deleted,
            (false, false) => return None,
        };
        // What stops matching is told by its last state that matched.
        let object = match e.old.as_ref().filter(|_| kind == EventType::Deleted) {
            Some(last) => {
                let mut value = last.value.clone();
                value["metadata"]["resourceVersion"] = json!(e.revision.to_string());
                object(&value)
            }
            None => e.object.clone(),
        };
        Some(WatchEvent { kind, object })
    }
}

impl State {
    /// What is selected, in the order of keys.
    fn of<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Stored> {
        let prefix = format!("{}\0", filter.collection);
        let all = self.objects.range(prefix.clone()..).take_while(move |(k, _)| k.starts_with(&prefix));
        all.map(|(_, s)| s).filter(|s| filter.matches(&s.object))
    }
}

impl FakeApi {
    /// An empty server.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State { revision: 1, ..State::default() }),
            events: broadcast::channel(65_536).0,
            faults: Mutex::new(None),
            now: Mutex::new("2024-01-01T00:00:00Z".into()),
            answered: watch::Sender::new(()),
        }))
    }

    /// The time that `creationTimestamp` and `deletionTimestamp` are given.
    pub fn set_now(&self, now: &str) {
        now.clone_into(&mut self.0.now.lock());
    }

    /// Lets `faults` decide what goes wrong from now on.
    pub fn fault(&self, faults: impl Fn(&Request<Body>) -> Option<Fault> + Send + Sync + 'static) {
        *self.0.faults.lock() = Some(Arc::new(faults));
    }

    /// Nothing goes wrong from now on.
    pub fn no_faults(&self) {
        *self.0.faults.lock() = None;
    }

    /// Requests made so far: method and URI.
    #[must_use]
    pub fn requests(&self) -> Vec<(Method, String)> {
        self.0.state.lock().requests.clone()
    }

    /// How many requests were made so far.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.0.state.lock().requests.len()
    }

    /// Waits until `f` holds; it is asked anew after every answer.
    pub async fn until(&self, f: impl Fn(&Self) -> bool) {
        let mut answered = self.0.answered.subscribe();
        while !f(self) {
            // The sender lives in `self`, so the wait cannot fail.
            let _ = answered.changed().await;
        }
    }

    /// Waits until nothing was asked for this long.
    pub async fn quiet(&self, long: Duration) {
        let mut answered = self.0.answered.subscribe();
        while tokio::time::timeout(long, answered.changed()).await.is_ok() {}
    }

    /// Forgets history: watches from before now are answered 410.
    pub fn compact(&self) {
        self.0.state.lock().log.clear();
    }

    /// As a service.
    #[must_use]
    pub fn service(&self) -> ApiService {
        let (me, inner) = (self.clone(), self.0.clone());
        let plain = ApiService::new(service_fn(move |request| {
            let me = me.clone();
            async move {
                let response = me.handle(request).await.unwrap_or_else(|s| answer(&s));
                me.0.answered.send_replace(());
                Ok(response)
            }
        }));
        let faults: Faults = Arc::new(move |r| inner.faults.lock().as_ref().and_then(|f| f(r)));
        super::with_faults(plain, faults)
    }

    async fn handle(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(Status::internal)?.to_bytes();
        if let Some(found) = discovery(parts.uri.path()) {
            return Ok(Response::new(full(found.to_string())));
        }
        let t = target(parts.uri.path()).ok_or_else(Status::path_not_found)?;
        let q = query(&parts.uri);
        self.0.state.lock().requests.push((parts.method.clone(), parts.uri.to_string()));
        let parse = || -> Result<Value, Status> {
            serde_json::from_slice(&body).map_err(|e| Status::bad_request(e.to_string()))
        };
        let reply = |v: &Value, code: StatusCode| {
            let mut r = Response::new(full(v.to_string()));
            *r.status_mut() = code;
            Ok(r)
        };
        let dry = q.contains_key("dryRun");
        match parts.method {
            Method::GET if t.name.is_empty() && q.get("watch").is_some_and(|w| w == "true") => self.watch(&t, &q),
            Method::GET if t.name.is_empty() => self.list(&t, &q, parts.extensions.get::<WantObjects>().is_some()),
            Method::GET if t.sub == "scale" => reply(&scale(&self.get(&t)?), StatusCode::OK),
            Method::GET => reply(&self.get(&t)?, StatusCode::OK),
            Method::POST if t.sub == "eviction" => {
                self.delete(&t, &DeleteOptions::default()).and_then(|v| reply(&v, StatusCode::CREATED))
            }
            Method::POST if t.sub == "binding" => {
                let node = parse()?["target"]["name"].clone();
                let mut pod = self.get(&t)?;
                pod["spec"]["nodeName"] = node;
                self.put(&t, pod, false)?;
                reply(
                    &json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}),
                    StatusCode::CREATED,
                )
            }
            Method::POST => reply(&self.create(&t, parse()?, dry)?, StatusCode::CREATED),
            Method::PUT => reply(&self.update(&t, parse()?, dry)?, StatusCode::OK),
            Method::PATCH => {
                let mut new = self.get(&t)?;
                let patch = parse()?;
                if patch.is_array() {
                    return Err(Status::unsupported_media_type(&["application/merge-patch+json"]));
                }
                merge(&mut new, &patch);
                if patch["metadata"]["resourceVersion"].is_null()
                    && let Some(m) = new["metadata"].as_object_mut()
                {
                    m.remove("resourceVersion");
                }
                reply(&self.update(&t, new, dry)?, StatusCode::OK)
            }
            Method::DELETE if t.name.is_empty() => {
                let filter = self.filter(&t, &q)?;
                let names: Vec<(String, String)> = {
                    let state = self.0.state.lock();
                    state.of(&filter).map(|s| (s.object.namespace().to_owned(), s.object.name().to_owned())).collect()
                };
                for (namespace, name) in names {
                    let one = Target {
                        namespace,
                        name,
                        sub: String::new(),
                        collection: t.collection.clone(),
                        group: t.group.clone(),
                        resource: t.resource.clone(),
                    };
                    self.delete(&one, &DeleteOptions::default())?;
                }
                reply(&json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}), StatusCode::OK)
            }
            Method::DELETE => {
                let options = if body.is_empty() {
                    DeleteOptions::default()
                } else {
                    serde_json::from_slice(&body).map_err(|e| Status::bad_request(e.to_string()))?
                };
                reply(&self.delete(&t, &options)?, StatusCode::OK)
            }
            _ => Err(Status::method_not_supported(&t.group, &t.resource, parts.method.as_str())),
        }
    }

    fn key(t: &Target) -> String {
        format!("{}\0{}", t.collection, crate::meta::key(&t.namespace, &t.name))
    }

    fn get(&self, t: &Target) -> Result<Value, Status> {
        let found = self.0.state.lock().objects.get(&Self::key(t)).map(|s| s.value.clone());
        found.ok_or_else(|| Status::not_found(&t.group, &t.resource, &t.name))
    }

    fn filter(&self, t: &Target, q: &BTreeMap<String, String>) -> Result<Filter, Status> {
        let get = |k: &str| q.get(k).map(String::as_str).unwrap_or_default();
        Ok(Filter {
            collection: t.collection.clone(),
            namespace: t.namespace.clone(),
            labels: Selector::parse(get("labelSelector")).map_err(Status::bad_request)?,
            fields: FieldSelector::parse(get("fieldSelector")).map_err(Status::bad_request)?,
        })
    }

    fn list(&self, t: &Target, q: &BTreeMap<String, String>, shared: bool) -> Result<Response<Body>, Status> {
        let filter = self.filter(t, q)?;
        let state = self.0.state.lock();
        if shared {
            let mut response = Response::new(full(""));
            response.extensions_mut().insert(ObjectList {
                items: Arc::new(state.of(&filter).map(|s| s.object.clone()).collect()),
                resource_version: state.revision,
                continue_token: String::new(),
            });
            return Ok(response);
        }
        let items: Vec<&Value> = state.of(&filter).map(|s| &s.value).collect();
        let metadata = json!({"resourceVersion": state.revision.to_string()});
        let body = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
        Ok(Response::new(full(body.to_string())))
    }

    fn watch(&self, t: &Target, q: &BTreeMap<String, String>) -> Result<Response<Body>, Status> {
        let filter = Arc::new(self.filter(t, q)?);
        let state = self.0.state.lock();
        let from: u64 = q.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(state.revision);
        let oldest = state.log.front().map_or(state.revision, |e| e.revision - 1);
        if from < oldest {
            return Err(Status::too_old(from, oldest));
        }
        let seen = state.log.partition_point(|e| e.revision <= from);
        let past: Vec<WatchEvent> = state.log.range(seen..).filter_map(|e| filter.see(e)).collect();
        let receiver = self.0.events.subscribe();
        drop(state);
        let live = stream::unfold((receiver, filter), |(mut receiver, filter)| async move {
            loop {
                match receiver.recv().await {
                    Ok(e) => {
                        if let Some(seen) = filter.see(&e) {
                            return Some((Ok(seen), (receiver, filter)));
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Some((Err(Status::expired("too slow")), (receiver, filter)));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let mut response = Response::new(full(""));
        response.extensions_mut().insert(ObjectStream::new(stream::iter(past).map(Ok).chain(live).boxed()));
        Ok(response)
    }

    fn create(&self, t: &Target, mut value: Value, dry: bool) -> Result<Value, Status> {
        let now = self.0.now.lock().clone();
        let mut state = self.0.state.lock();
        state.created += 1;
        let n = state.created;
        let meta = value
            .as_object_mut()
            .ok_or_else(|| Status::bad_request("no object"))?
            .entry("metadata")
            .or_insert_with(|| json!({}));
        if text(&meta["name"]).is_empty() {
            let prefix = text(&meta["generateName"]);
            if prefix.is_empty() {
                return Err(Status::invalid(&t.group, &t.resource, "", vec![]));
            }
            meta["name"] = json!(format!("{prefix}{n:05}"));
        }
        if !t.namespace.is_empty() {
            meta["namespace"] = json!(t.namespace);
        }
        let name = text(&meta["name"]);
        meta["uid"] = json!(format!("uid-{n}"));
        meta["creationTimestamp"] = json!(now);
        meta["generation"] = json!(1);
        let t = Target {
            name: name.clone(),
            collection: t.collection.clone(),
            group: t.group.clone(),
            resource: t.resource.clone(),
            namespace: t.namespace.clone(),
            sub: String::new(),
        };
        if state.objects.contains_key(&Self::key(&t)) {
            return Err(Status::already_exists(&t.group, &t.resource, &name));
        }
        if !t.namespace.is_empty()
            && state
                .objects
                .get(&format!("/api/v1/namespaces\0{}", t.namespace))
                .is_some_and(|n| n.object.is_deleting())
        {
            let why =
                format!("unable to create new content in namespace {} because it is being terminated", t.namespace);
            return Err(Status::forbidden(&t.group, &t.resource, &name, &why).cause(
                "NamespaceTerminating",
                format!("namespace {} is being terminated", t.namespace),
                "metadata.namespace",
            ));
        }
        if dry {
            return Ok(value);
        }
        Ok(self.commit(&mut state, &t, EventType::Added, value))
    }

    fn commit(&self, state: &mut State, t: &Target, kind: EventType, mut value: Value) -> Value {
        state.revision += 1;
        let revision = state.revision;
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        let object = object(&value);
        let old = if kind == EventType::Deleted {
            state.objects.remove(&Self::key(t))
        } else {
            state.objects.insert(Self::key(t), Stored { value: value.clone(), object: object.clone() })
        };
        let event = Arc::new(Event { revision, collection: t.collection.clone(), kind, object, old });
        state.log.push_back(event.clone());
        // Nobody may be watching.
        let _ = self.0.events.send(event);
        value
    }

    fn put(&self, t: &Target, new: Value, dry: bool) -> Result<Value, Status> {
        let mut state = self.0.state.lock();
        let old = state
            .objects
            .get(&Self::key(t))
            .map(|s| s.value.clone())
            .ok_or_else(|| Status::not_found(&t.group, &t.resource, &t.name))?;
        let sent = text(&new["metadata"]["resourceVersion"]);
        if !sent.is_empty() && sent != text(&old["metadata"]["resourceVersion"]) {
            return Err(Status::modified(&t.group, &t.resource, &t.name));
        }
        let uid = text(&new["metadata"]["uid"]);
        if !uid.is_empty() && uid != text(&old["metadata"]["uid"]) {
            return Err(Status::conflict(
                &t.group,
                &t.resource,
                &t.name,
                "Precondition failed: UID in precondition does not match",
            ));
        }
        let mut new = new;
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        for kept in ["uid", "creationTimestamp", "deletionTimestamp", "generation"] {
            if old["metadata"][kept].is_null() {
                if let Some(m) = new["metadata"].as_object_mut() {
                    m.remove(kept);
                }
            } else {
                new["metadata"][kept] = old["metadata"][kept].clone();
            }
        }
        for same in ["kind", "apiVersion"] {
            if new[same].is_null() {
                new[same] = old[same].clone();
            }
        }
        if new == old || dry {
            return Ok(new);
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let gone = !new["metadata"]["deletionTimestamp"].is_null()
            && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let kind = if gone { EventType::Deleted } else { EventType::Modified };
        Ok(self.commit(&mut state, t, kind, new))
    }

    fn update(&self, t: &Target, sent: Value, dry: bool) -> Result<Value, Status> {
        let old = self.get(t)?;
        let new = match t.sub.as_str() {
            "status" => {
                let mut new = old;
                new["status"] = sent["status"].clone();
                // Pod conditions' labels and annotations may be written with the status, as upstream lets it.
                if let Some(v) = sent["metadata"].get("annotations") {
                    new["metadata"]["annotations"] = v.clone();
                }
                new["metadata"]["resourceVersion"] = sent["metadata"]["resourceVersion"].clone();
                new
            }
            "finalize" => {
                let mut new = old;
                new["spec"]["finalizers"] = sent["spec"]["finalizers"].clone();
                new
            }
            "scale" => {
                let mut new = old;
                new["spec"]["replicas"] = sent["spec"]["replicas"].clone();
                new
            }
            "" | "approval" => {
                let mut new = sent;
                if t.sub.is_empty() && t.has_status() {
                    match old.get("status") {
                        Some(s) => new["status"] = s.clone(),
                        None => drop(new.as_object_mut().and_then(|o| o.remove("status"))),
                    }
                }
                new
            }
            other => return Err(Status::bad_request(format!("no sub-resource {other}"))),
        };
        self.put(t, new, dry)
    }

    fn delete(&self, t: &Target, options: &DeleteOptions) -> Result<Value, Status> {
        let now = self.0.now.lock().clone();
        let mut state = self.0.state.lock();
        let mut old = state
            .objects
            .get(&Self::key(t))
            .map(|s| s.value.clone())
            .ok_or_else(|| Status::not_found(&t.group, &t.resource, &t.name))?;
        if let Some(p) = &options.preconditions {
            let differs = |want: &Option<String>, have: &Value| want.as_ref().is_some_and(|w| *w != text(have));
            if differs(&p.uid, &old["metadata"]["uid"])
                || differs(&p.resource_version, &old["metadata"]["resourceVersion"])
            {
                return Err(Status::conflict(&t.group, &t.resource, &t.name, "Precondition failed"));
            }
        }
        let before = old.clone();
        let add = match options.propagation_policy.as_deref() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(add) = add {
            let list = old["metadata"].as_object_mut().map(|m| m.entry("finalizers").or_insert_with(|| json!([])));
            if let Some(Value::Array(list)) = list
                && !list.contains(&json!(add))
            {
                list.push(json!(add));
            }
        }
        let held = |v: &Value| v.as_array().is_some_and(|f| !f.is_empty());
        if held(&old["metadata"]["finalizers"]) || held(&old["spec"]["finalizers"]) {
            if old["metadata"]["deletionTimestamp"].is_null() {
                old["metadata"]["deletionTimestamp"] = json!(now);
            }
            if old == before {
                return Ok(old);
            }
            return Ok(self.commit(&mut state, t, EventType::Modified, old));
        }
        self.commit(&mut state, t, EventType::Deleted, old);
        Ok(json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}))
    }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}
