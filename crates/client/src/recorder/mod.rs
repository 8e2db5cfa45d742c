//! `Recorder`: writes Events about objects, without ever making its caller wait.

mod correlator;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_api::Object;
use pintle_api::resources::Resource;
use tokio::sync::mpsc;

use crate::client::{Client, Patch, WriteParams, encode};
use crate::clock::{Clock, time};
use crate::error::Error;
use crate::meta::Meta;
use crate::typed::resource_of;
use correlator::{Correlated, Correlator, object_key};

/// Events that may wait to be written; more are dropped, as upstream drops them.
const QUEUE: usize = 1000;
/// Events that are written at once.
const AT_ONCE: usize = 32;
/// How often a write is tried while the API cannot be reached, and how long between.
const TRIES: u32 = 12;
const BETWEEN: Duration = Duration::from_secs(10);

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something went wrong.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes Events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    source: EventSource,
    clock: Clock,
    /// The last time an Event was named after: two in the same nanosecond need two names.
    named: Arc<AtomicI64>,
    sender: mpsc::Sender<Event>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.source.component.as_deref().unwrap_or_default())
    }
}

/// A reference to an object of this resource.
#[must_use]
pub fn reference(resource: &Resource, meta: &Meta) -> ObjectReference {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_owned()),
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        field_path: None,
    }
}

/// A reference to an object of this resource, from its typed metadata.
#[must_use]
pub fn reference_of<T: crate::typed::Kind>(object: &T) -> ObjectReference {
    let m = object.metadata();
    ObjectReference {
        api_version: Some(T::API_VERSION.to_owned()),
        kind: Some(T::KIND.to_owned()),
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        resource_version: m.resource_version.clone(),
        field_path: None,
    }
}

/// A reference to a whole object.
#[must_use]
pub fn reference_to(resource: &Resource, object: &Object) -> ObjectReference {
    let meta = Meta {
        name: object.name().into(),
        namespace: object.namespace().into(),
        uid: object.uid().into(),
        resource_version: object.resource_version().to_string(),
        ..Meta::default()
    };
    reference(resource, &meta)
}

impl Recorder {
    /// Writes Events by this client as `component` (such as `deployment-controller`), on `host` when that matters.
    /// Call it within a tokio runtime.
    #[must_use]
    pub fn new(client: Client, component: &str, host: Option<&str>, clock: Clock) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tokio::spawn(write(client, receiver, clock.clone()));
        Self { source, clock, named: Arc::default(), sender }
    }

    /// Records an Event about an object.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let now = self.clock.now();
        let nanos = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let before = self.named.fetch_update(Relaxed, Relaxed, |last| Some(nanos.max(last.saturating_add(1))));
        let unique = before.map_or(nanos, |last| nanos.max(last.saturating_add(1)));
        let name = event_name(about.name.as_deref().unwrap_or_default(), unique);
        let namespace = about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let event = Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: about.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            first_timestamp: Some(time(now)),
            last_timestamp: Some(time(now)),
            count: Some(1),
            type_: Some(kind.as_str().to_owned()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Event::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::warn!(reason, "event dropped: too many wait to be written");
        }
    }

    /// Records an Event of type `Normal`.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    /// Records an Event of type `Warning`.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }
}

fn event_name(object: &str, nanos: i64) -> String {
    format!("{object}.{nanos:x}")
}

/// Events that were taken to be written: those about one object one after the other, in their order, for each may be
/// the same again as the one before.
struct Waiting {
    correlator: Correlator,
    clock: Clock,
    by_object: HashMap<String, VecDeque<Event>>,
    /// How many there are in all.
    events: usize,
}

impl Waiting {
    /// Takes an event; answers its object, when nothing about that is being written.
    fn take(&mut self, event: Event) -> Option<String> {
        let object = object_key(&event.involved_object);
        let idle = !self.by_object.contains_key(&object);
        self.by_object.entry(object.clone()).or_default().push_back(event);
        self.events += 1;
        idle.then_some(object)
    }

    /// What is to be written next about an object.
    fn next(&mut self, object: &str) -> Option<Correlated> {
        loop {
            let Some(event) = self.by_object.get_mut(object)?.pop_front() else {
                self.by_object.remove(object);
                return None;
            };
            self.events -= 1;
            if let Some(correlated) = self.correlator.correlate(event, self.clock.now()) {
                return Some(correlated);
            }
        }
    }
}

async fn write(client: Client, mut events: mpsc::Receiver<Event>, clock: Clock) {
    let mut waiting = Waiting { correlator: Correlator::default(), clock, by_object: HashMap::new(), events: 0 };
    let mut writing = FuturesUnordered::new();
    let mut open = true;
    while open || !writing.is_empty() {
        let free = tokio::select! {
            Some((object, correlated, written)) = writing.next() => {
                if written {
                    waiting.correlator.written(&correlated);
                }
                Some(object)
            }
            event = events.recv(), if open && writing.len() < AT_ONCE && waiting.events < QUEUE => match event {
                Some(event) => waiting.take(event),
                None => {
                    open = false;
                    None
                }
            },
        };
        if let Some(object) = free
            && let Some(correlated) = waiting.next(&object)
        {
            writing.push(put_at_last(&client, object, correlated));
        }
    }
}

/// Writes an event, however long that takes; whether it was written.
async fn put_at_last(client: &Client, object: String, correlated: Correlated) -> (String, Correlated, bool) {
    for attempt in 1..=TRIES {
        match put(client, &correlated).await {
            Ok(()) => return (object, correlated, true),
            // The API took it in and said no; asking again changes nothing.
            Err(error @ (Error::Status(_) | Error::Decode { .. } | Error::Config(_))) => {
                tracing::debug!(%error, "event refused");
                break;
            }
            Err(error) if attempt == TRIES => tracing::warn!(%error, "event given up"),
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
    (object, correlated, false)
}

async fn put(client: &Client, correlated: &Correlated) -> Result<(), Error> {
    let event = &correlated.event;
    let resource = resource_of::<Event>();
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let params = WriteParams::default();
    if correlated.again {
        let patch = serde_json::json!({
            "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
        });
        match client
            .patch(resource, namespace, name, "", Patch::Strategic(Bytes::from(patch.to_string())), &params)
            .await
        {
            Err(e) if e.is_not_found() => {} // It expired meanwhile.
            other => return other.map(drop),
        }
    }
    client.create(resource, namespace, encode(event)?, &params).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ListParams;
    use crate::testing::{FakeApi, Fault};
    use pintle_api::Status;
    use pintle_api::service::UserInfo;

    #[tokio::test(start_paused = true)]
    async fn writes_counts_and_survives_refusal() {
        let api = FakeApi::new();
        let client = Client::in_process(api.service(), UserInfo::default());
        let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
        let recorder = Recorder::new(client.clone(), "test-controller", None, clock);
        let about = ObjectReference {
            kind: Some("Pod".into()),
            name: Some("p".into()),
            namespace: Some("n".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        recorder.normal(&about, "Created", "made it");
        recorder.normal(&about, "Created", "made it");
        recorder.warning(&about, "Failed", "broke");
        let events = loop {
            let events: Vec<Event> = client.of::<Event>().list("n", &ListParams::default()).await.unwrap();
            if events.len() == 2 && events.iter().any(|e| e.count == Some(2)) {
                break events;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        // Many objects do not wait for each other, nor for one whose event is refused or never answered, and nothing
        // is lost.
        api.fault(|r| match r.uri().path() {
            "/api/v1/namespaces/refused/events" => Some(Fault::Status(Status::internal("no"))),
            "/api/v1/namespaces/stuck/events" => Some(Fault::Hang),
            _ => None,
        });
        for namespace in ["refused", "stuck"] {
            let elsewhere = ObjectReference { namespace: Some(namespace.into()), ..about.clone() };
            recorder.normal(&elsewhere, "Created", "made it");
        }
        for i in 0..500 {
            recorder.normal(&ObjectReference { name: Some(format!("q{i}")), ..about.clone() }, "Created", "made it");
        }
        let all = async {
            while client.of::<Event>().list("n", &ListParams::default()).await.unwrap().len() < 502 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all are written");
        let created = events.iter().find(|e| e.reason.as_deref() == Some("Created")).unwrap();
        assert_eq!(created.type_.as_deref(), Some("Normal"));
        assert_eq!(created.source.as_ref().unwrap().component.as_deref(), Some("test-controller"));
        assert!(created.metadata.name.as_deref().unwrap().starts_with("p."));
    }
}
