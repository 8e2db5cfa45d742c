//! Watches of etcd: one stream of every change, from which all watches of this process are fed.
//!
//! Every revision has a change, so a stream of all of them shows by itself how far it has come. That needs no report
//! of progress from etcd, which in versions before 3.4.25 and 3.5.8 may overtake changes; and nothing is sent twice,
//! since the caches want nearly all of it anyway.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::client::{Client, plain};
use super::proto::{EVENT_DELETE, WatchCreateRequest, WatchRequest as Ask, WatchResponse};
use super::{Shared, own, revision, signed, unsigned};
use crate::hub::{History, Hub};
use crate::store::{ProgressRequester, Watch, WatchHandle, WatchSink};
use crate::{Error, Event, KeyValue, Result, Revision, WatchBatch, WatchRequest};

/// A stream of the changes of all keys.
struct Changes {
    answers: Streaming<WatchResponse>,
    /// Closing it would end the stream.
    _asks: mpsc::UnboundedSender<Ask>,
    /// The first revision asked for.
    from: Revision,
    prefix: String,
}

impl Changes {
    /// Starts at a revision, or (0) after the present one, which is returned.
    async fn open(client: &Client, prefix: &str, from: Revision) -> Result<(Self, Revision)> {
        let (asks, mut receiver) = mpsc::unbounded_channel();
        let all = Bytes::from_static(b"\0");
        let create =
            WatchCreateRequest { key: all.clone(), range_end: all, start_revision: signed(from), prev_kv: true };
        let _ = asks.send(Ask { create: Some(create) });
        let asks_stream = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let answers = client.watch(asks_stream).await.map_err(|status| plain(&status))?;
        let mut changes = Self { answers, _asks: asks, from, prefix: prefix.to_owned() };
        // The first answer says that the watch exists, and after which revision.
        let first = changes.answer().await?;
        Ok((changes, revision(first.header.as_ref())))
    }

    async fn answer(&mut self) -> Result<WatchResponse> {
        let answer = match self.answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(Error::Unavailable("etcd ended the watch".into())),
            Err(status) => return Err(plain(&status)),
        };
        if answer.compact_revision > 0 {
            return Err(Error::Compacted { requested: self.from, compacted: unsigned(answer.compact_revision) });
        }
        if answer.canceled {
            return Err(Error::Unavailable(format!("etcd ended the watch: {}", answer.cancel_reason)));
        }
        Ok(answer)
    }

    /// The next changes; those of others' keys count only for the revision.
    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            let answer = self.answer().await?;
            let Some(last) = answer.events.iter().filter_map(|event| event.kv.as_ref()).next_back() else { continue };
            let revision = unsigned(last.mod_revision);
            let events = answer.events.into_iter().filter_map(|event| self.event(event)).collect();
            return Ok(WatchBatch { events, revision });
        }
    }

    fn event(&self, event: super::proto::Event) -> Option<Arc<Event>> {
        let kv = event.kv?;
        let key = own(&self.prefix, &kv.key)?;
        let deleted = event.kind == EVENT_DELETE;
        let prev = event.prev_kv.map(|prev| KeyValue {
            key: key.clone(),
            value: prev.value,
            mod_revision: unsigned(prev.mod_revision),
        });
        Some(Arc::new(Event {
            key,
            revision: unsigned(kv.mod_revision),
            created: !deleted && kv.create_revision == kv.mod_revision,
            value: (!deleted).then_some(kv.value),
            prev,
        }))
    }
}

/// The revision up to which etcd has been compacted, which it tells only to a watch that asks for more. To be called
/// when that is known to be so.
pub(super) async fn compacted(client: &Client) -> Result<Revision> {
    let (mut changes, _) = match Changes::open(client, "", 1).await {
        Ok(opened) => opened,
        Err(Error::Compacted { compacted, .. }) => return Ok(compacted),
        Err(error) => return Err(error),
    };
    loop {
        match changes.answer().await {
            Ok(_) => {}
            Err(Error::Compacted { compacted, .. }) => return Ok(compacted),
            Err(error) => return Err(error),
        }
    }
}

/// The running stream and those it feeds.
#[derive(Clone)]
pub(super) struct Feed {
    hub: Arc<Hub>,
    /// How far it has come.
    reached: watch::Receiver<Revision>,
}

impl Feed {
    async fn start(client: &Client, prefix: &str, closed: CancellationToken) -> Result<Self> {
        let (mut changes, start) = Changes::open(client, prefix, 0).await?;
        let hub = Arc::new(Hub::new(start));
        let (reach, reached) = watch::channel(start);
        let target = hub.clone();
        tokio::spawn(async move {
            let error = loop {
                let batch = tokio::select! {
                    batch = changes.next() => batch,
                    () = closed.cancelled() => Err(Error::Closed),
                };
                match batch {
                    Ok(batch) => target.publish(&batch.events, batch.revision),
                    Err(error) => break error,
                }
                reach.send_replace(target.published());
            };
            if error != Error::Closed {
                tracing::warn!(%error, "the watch of etcd ended");
            }
            target.close(&error);
        });
        Ok(Self { hub, reached })
    }

    fn is_running(&self) -> bool {
        self.reached.has_changed().is_ok()
    }

    /// Waits until everything that is in etcd now has been handed on, or will not be.
    async fn catch_up(mut self, client: Client) {
        if let Ok(current) = super::current(&client).await {
            let _ = self.reached.wait_for(|reached| *reached >= current).await;
        }
    }

    /// Asks a watch for progress once the feed is up to date.
    fn progress(self, client: Client, ask: impl Fn() + Send + Sync + 'static) -> ProgressRequester {
        let ask = Arc::new(ask);
        let runtime = tokio::runtime::Handle::current();
        ProgressRequester::new(move || {
            let (feed, client, ask) = (self.clone(), client.clone(), ask.clone());
            runtime.spawn(async move {
                feed.catch_up(client).await;
                ask();
            });
        })
    }
}

impl Shared {
    /// The feed, started if it does not run.
    async fn feed(&self) -> Result<Feed> {
        self.check_open()?;
        let mut slot = self.feed.lock().await;
        if let Some(feed) = slot.as_ref().filter(|feed| feed.is_running()) {
            return Ok(feed.clone());
        }
        let feed = Feed::start(&self.client, &self.prefix, self.closed.clone()).await?;
        *slot = Some(feed.clone());
        Ok(feed)
    }

    /// A request with a definite start, for "now" is etcd's, not the feed's.
    async fn definite(&self, mut request: WatchRequest) -> Result<WatchRequest> {
        if request.from_revision.is_none() {
            request.from_revision = Some(super::current(&self.client).await? + 1);
        }
        Ok(request)
    }

    pub(super) async fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<Watch> {
        let feed = self.feed().await?;
        let request = self.definite(request).await?;
        let watch = feed.hub.watch(self.clone(), request);
        let requester = watch.progress_requester();
        let progress = feed.progress(self.client.clone(), move || requester.request());
        Ok(watch.with_progress(progress))
    }

    pub(super) async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle> {
        let feed = self.feed().await?;
        let request = self.definite(request).await?;
        // What is in etcd now is to be delivered before this returns, and the feed may lag behind.
        feed.clone().catch_up(self.client.clone()).await;
        let handle = feed.hub.watch_with(self, request, sink).await?;
        let requester = handle.progress_requester();
        let progress = feed.progress(self.client.clone(), move || requester.request());
        Ok(handle.with_progress(progress))
    }
}

#[async_trait]
impl History for Shared {
    async fn history(&self, after: Revision, request: &WatchRequest) -> Result<WatchBatch> {
        self.check_open()?;
        // Only called for what the feed has had already, so that there is a change to wait for.
        let (mut changes, _) = Changes::open(&self.client, &self.prefix, after + 1).await?;
        let mut batch = changes.next().await?;
        batch.events.retain(|event| request.matches(&event.key));
        Ok(batch)
    }
}
