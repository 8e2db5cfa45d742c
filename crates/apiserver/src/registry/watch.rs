//! WATCH: what a request asks of the watch cache.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use pintle_api::Status;
use pintle_api::object::{EventType, Object, WatchEvent};

use super::Res;
use super::options::ListOptions;
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

/// Follows a resource for the server itself: its state, a bookmark that it is complete, then changes. Ends when the
/// cache must begin anew.
///
/// # Errors
/// As [`watch`].
pub(crate) async fn follow(
    res: &Arc<Res>,
) -> Result<impl Stream<Item = Result<WatchEvent, Status>> + Send + Unpin + use<>, Status> {
    let options = ListOptions { send_initial_events: Some(true), bookmarks: true, ..ListOptions::default() };
    let items = watch(res, "", &options).await?;
    let res = Arc::clone(res);
    Ok(items.map(move |item| item.and_then(|i| event(&res, &i))))
}
