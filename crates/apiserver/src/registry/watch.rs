//! WATCH: what a request asks of the watch cache.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use pintle_api::Status;
use pintle_api::object::{EventType, Object, WatchEvent};

use super::Res;
use super::options::ListOptions;
use crate::Server;
use crate::cache::{Start, Watch, WatchItem, WatchOptions};

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A bookmark of this resource at a revision.
pub(crate) fn bookmark(res: &Res, revision: u64, initial_events_end: bool) -> Result<WatchEvent, Status> {
    let annotations = if initial_events_end {
        format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}")
    } else {
        String::new()
    };
    let text = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}",
        res.def.kind, res.api_version
    );
    let object = Object::from_wire(text.into(), res.strategy.selectable).map_err(Status::internal)?;
    Ok(WatchEvent { kind: EventType::Bookmark, object: Arc::new(object) })
}

/// An item of a watch as an event of this version.
///
/// # Errors
/// When a conversion fails.
pub(crate) fn event(res: &Res, item: &WatchItem) -> Result<WatchEvent, Status> {
    match item {
        WatchItem::Event(d) => Ok(WatchEvent { kind: d.kind, object: res.shown(&d.object)? }),
        WatchItem::Bookmark { revision, initial_events_end } => bookmark(res, *revision, *initial_events_end),
    }
}

/// Starts a watch.
///
/// # Errors
/// 400 for selectors that make no sense, 410 for a revision that is gone.
pub(crate) async fn watch(res: &Res, namespace: &str, o: &ListOptions) -> Result<Watch, Status> {
    let objects = res.objects()?;
    res.check_fields(&o.fields)?;
    let mut namespace = namespace.to_owned();
    if namespace.is_empty()
        && res.def.namespaced
        && let Some(ns) = o.fields.exact("metadata.namespace")
    {
        ns.clone_into(&mut namespace);
    }
    let start = match (o.send_initial_events, o.version) {
        (Some(true), None) | (None, None) => Start::Fresh,
        (Some(true), Some(v)) | (None, Some(v @ 0)) => Start::AtLeast(v),
        (_, Some(v)) if v > 0 => Start::After(v),
        _ => Start::Now,
    };
    objects
        .watch(WatchOptions {
            namespace,
            labels: o.labels.clone(),
            fields: o.fields.clone(),
            start,
            mark_initial: o.bookmarks && o.send_initial_events == Some(true),
            bookmarks: o.bookmarks.then_some(BOOKMARK_EVERY),
        })
        .await
}

type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// A resource's state, a bookmark that it is complete, then changes. Ends when the cache must begin anew.
async fn follow(res: &Arc<Res>) -> Result<Events, Status> {
    let options = ListOptions { send_initial_events: Some(true), bookmarks: true, ..ListOptions::default() };
    let items = watch(res, "", &options).await?;
    let res = Arc::clone(res);
    Ok(items.map(move |item| item.and_then(|i| event(&res, &i))).boxed())
}

/// What one is told who follows a resource.
pub(crate) enum News {
    /// An object that there is, or a change.
    Event(WatchEvent),
    /// Everything up to now has been told.
    Complete,
    /// All that was told counts no more: the state is told anew.
    Anew,
}

/// Follows a resource for the server itself, until that stops.
///
/// # Errors
/// As [`watch`], at the beginning only.
pub(crate) async fn keep_following(server: &Arc<Server>, res: &Arc<Res>) -> Result<BoxStream<'static, News>, Status> {
    let from = (follow(res).await?, Arc::clone(server), Arc::clone(res));
    let next = |(mut events, server, res): (Events, Arc<Server>, Arc<Res>)| async move {
        let news = tokio::select! {
            news = news(&mut events, &res) => news,
            () = server.stopping.cancelled() => return None,
        };
        Some((news, (events, server, res)))
    };
    Ok(stream::unfold(from, next).boxed())
}

async fn news(events: &mut Events, res: &Arc<Res>) -> News {
    let resource = res.def.resource;
    match events.next().await {
        Some(Ok(event)) if event.kind == EventType::Bookmark => return News::Complete,
        Some(Ok(event)) => return News::Event(event),
        Some(Err(e)) => tracing::warn!(resource, "watch failed: {e}"),
        // The cache began anew; so does this.
        None => {}
    }
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        match follow(res).await {
            Ok(again) => {
                *events = again;
                return News::Anew;
            }
            Err(e) => tracing::warn!(resource, "watch failed: {e}"),
        }
        pause = Duration::from_secs(1);
    }
}
