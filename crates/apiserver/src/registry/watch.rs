//! WATCH: a stream of events from the state or from a revision on.

use std::sync::Arc;

use futures::StreamExt;
use pintle_api::Status;
use pintle_api::object::{EventType, Object, WatchEvent};
use pintle_api::service::EventStream;

use super::Res;
use super::options::ListOptions;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

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

/// Starts a watch.
///
/// # Errors
/// 400 for selectors that make no sense, 410 for a revision that is gone.
pub(crate) async fn watch(res: &Arc<Res>, namespace: &str, o: &ListOptions) -> Result<EventStream, Status> {
    let objects = res.objects()?;
    res.check_fields(&o.fields)?;
    let mut namespace = namespace.to_owned();
    if namespace.is_empty()
        && res.def.namespaced
        && let Some(ns) = o.fields.exact("metadata.namespace")
    {
        ns.clone_into(&mut namespace);
    }
    let (labels, fields) = (o.labels.clone(), o.fields.clone());
    let matches = move |object: &Object| labels.matches_object(object) && fields.matches_object(object);
    let matches: Arc<dyn Fn(&Object) -> bool + Send + Sync> = Arc::new(matches);
    let wants_state = match o.send_initial_events {
        Some(yes) => yes,
        None => o.version.is_none_or(|v| v == 0),
    };
    let (initial, after) = if wants_state {
        if let Some(v) = o.version {
            super::list::not_in_future(objects.revision().await?, v)?;
        }
        let page = objects.list(&namespace, None, None, 0, &*matches, false).await?;
        (page.items, page.revision)
    } else {
        (
            Vec::new(),
            match o.version {
                Some(v) if v > 0 => v,
                _ => objects.revision().await?,
            },
        )
    };
    let mut first: Vec<Result<WatchEvent, Status>> =
        initial.into_iter().map(|object| Ok(WatchEvent { kind: EventType::Added, object })).collect();
    if wants_state && o.bookmarks && o.send_initial_events == Some(true) {
        first.push(bookmark(res, after, true));
    }
    let live = objects.watch(&namespace, after, matches).await?;
    let all = futures::stream::iter(first).chain(live);
    if !res.converts() {
        return Ok(all.boxed());
    }
    let res = Arc::clone(res);
    Ok(all
        .map(move |event| {
            let event = event?;
            if event.kind == EventType::Bookmark {
                return Ok(event);
            }
            Ok(WatchEvent { kind: event.kind, object: res.shown(&event.object)? })
        })
        .boxed())
}
