//! The loop that keeps a cache equal to the API: list, watch, resume, list again when history is gone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use pintle_api::Object;
use pintle_api::object::EventType;
use pintle_api::resources::Resource;

use crate::cache::{Cache, Key};
use crate::client::{Client, ListParams};
use crate::error::Error;
use crate::{Backoff, Result};

/// Shortest time after which a watch asks the server to end it; the longest is twice that. The spread keeps watches
/// from all coming back at once.
const WATCH_SECONDS: u64 = 300;

pub(crate) struct Reflector {
    pub client: Client,
    pub resource: &'static Resource,
    pub namespace: String,
    pub params: ListParams,
    pub cache: Cache<Object>,
}

/// Why a watch ended.
enum End {
    /// The server closed it: go on from the last revision.
    Resume,
    /// History is gone: list again.
    Relist,
}

fn key(object: &Object) -> Key {
    object.key().into()
}

impl Reflector {
    /// Runs until dropped.
    pub async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30), 0.5);
        // Servers without streamed lists say so once.
        let mut streamed = !self.client.is_in_process();
        let mut version = String::new();
        loop {
            let result = if version.is_empty() {
                if streamed {
                    self.stream_list(&mut version, &mut backoff).await
                } else {
                    self.list(&mut version).await
                }
            } else {
                self.watch(&mut version, &mut backoff).await
            };
            match result {
                Ok(End::Resume) => {}
                Ok(End::Relist) => version.clear(),
                Err(e) if e.is_expired() => version.clear(),
                Err(e) if version.is_empty() && streamed && matches!(e.code(), 400 | 422) => {
                    streamed = false;
                    continue;
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::debug!(resource = %self.resource.group_resource(), %error, ?delay, "list or watch failed");
                    tokio::time::sleep(delay).await;
                    continue;
                }
            }
            // A server that ends every watch at once, without an error, must not be asked without pause.
            tokio::task::yield_now().await;
        }
    }

    fn replace(&self, items: impl IntoIterator<Item = Arc<Object>>) {
        let all = items.into_iter().map(|o| (key(&o), o)).collect();
        self.cache.replace(all, |a, b| a.resource_version() == b.resource_version() && a.uid() == b.uid());
        self.cache.set_synced();
    }

    async fn list(&self, version: &mut String) -> Result<End> {
        let list = self.client.list(self.resource, &self.namespace, &self.params).await?;
        self.replace(list.items.iter().cloned());
        *version = list.resource_version;
        Ok(End::Resume)
    }

    fn timeout() -> String {
        (WATCH_SECONDS + fastrand::u64(0..=WATCH_SECONDS)).to_string()
    }

    /// The list as the beginning of a watch, and then the watch.
    async fn stream_list(&self, version: &mut String, backoff: &mut Backoff) -> Result<End> {
        let timeout = Self::timeout();
        let extra = [
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("timeoutSeconds", timeout.as_str()),
        ];
        let mut events = self.client.watch(self.resource, &self.namespace, &self.params, &extra).await?;
        let mut initial = Some(Vec::new());
        while let Some(event) = events.next().await {
            let event = event?;
            match (&mut initial, event.kind) {
                (Some(all), EventType::Bookmark) => {
                    if is_initial_end(&event.object) {
                        self.replace(std::mem::take(all));
                        initial = None;
                        backoff.reset();
                    }
                }
                (Some(all), EventType::Added) => all.push(event.object.clone()),
                // A change to what was already sent, before the end of the initial events.
                (Some(all), kind) => {
                    all.retain(|o| key(o) != key(&event.object));
                    if kind == EventType::Modified {
                        all.push(event.object.clone());
                    }
                }
                (None, kind) => self.apply(kind, &event.object),
            }
            if initial.is_none() {
                *version = event.object.resource_version().to_string();
            }
        }
        if initial.is_some() {
            return Err(Error::Config("the watch ended before its initial events did".into()));
        }
        Ok(End::Resume)
    }

    async fn watch(&self, version: &mut String, backoff: &mut Backoff) -> Result<End> {
        let timeout = Self::timeout();
        let params = ListParams { resource_version: version.clone(), ..self.params.clone() };
        let extra: &[(&str, &str)] = if self.client.is_in_process() { &[] } else { &[("timeoutSeconds", &timeout)] };
        let mut events = self.client.watch(self.resource, &self.namespace, &params, extra).await?;
        let mut any = false;
        while let Some(event) = events.next().await {
            let event = match event {
                // Whatever went wrong with a watch that had begun, the next one starts from the last revision seen;
                // unless that is gone.
                Err(e) if e.is_expired() || e.status().is_some_and(|s| s.is("Gone")) => return Ok(End::Relist),
                Err(e) => return Err(e),
                Ok(event) => event,
            };
            if !any {
                any = true;
                backoff.reset();
            }
            self.apply(event.kind, &event.object);
            *version = event.object.resource_version().to_string();
        }
        if any {
            Ok(End::Resume)
        } else {
            // Nothing came at all: as likely as not something is wrong, so do not come back at once.
            tokio::time::sleep(backoff.next_delay()).await;
            Ok(End::Resume)
        }
    }

    fn apply(&self, kind: EventType, object: &Arc<Object>) {
        match kind {
            EventType::Added | EventType::Modified => self.cache.apply(&key(object), Some(object.clone())),
            // The event carries the last state, which may be newer than the cache's.
            EventType::Deleted => self.cache.apply_last(&key(object), object),
            EventType::Bookmark => {}
        }
    }
}

/// The bookmark that ends a streamed list.
fn is_initial_end(object: &Object) -> bool {
    object.at(&["metadata", "annotations", "k8s.io/initial-events-end"]) == Some(b"\"true\"".as_slice())
}
