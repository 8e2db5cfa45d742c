//! The scheduler at work: informers in, bindings, conditions and Events out.

use std::sync::Arc;

use parking_lot::Mutex;
use pintle_api::resources::Resource;
use pintle_client::recorder::reference;
use pintle_client::{Change, Client, Clock, Informers, Meta, Patch, Recorder, WriteParams, client::encode};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Outcome};
use crate::framework::profile::Profile;
use crate::model::{Node, Pod};
use crate::plugins::default_profile;

/// How often pods that have been unschedulable for very long are looked for, as upstream.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// Pods tried in a row before other tasks of the process get their turn.
const BATCH: usize = 32;

/// Configuration of the scheduler.
pub struct Config {
    /// The profiles; one for each `schedulerName` it serves.
    pub profiles: Vec<Profile>,
    /// Decides among equally good nodes.
    pub seed: u64,
    /// The wall clock, for Events.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self { profiles: vec![default_profile("default-scheduler")], seed: 1, clock: Clock::system() }
    }
}

struct Shared {
    engine: Mutex<Engine>,
    news: Notify,
    start: Instant,
    client: Client,
    recorder: Recorder,
    pods: &'static Resource,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn change(&self, f: impl FnOnce(&mut Engine, u64)) {
        f(&mut self.engine.lock(), self.now());
        self.news.notify_one();
    }
}

/// Schedules until `shutdown`. `client` is who binds (`system:kube-scheduler`); the informers may be shared with others.
pub async fn run(client: Client, informers: Informers, config: Config, shutdown: CancellationToken) {
    let (Some(pods), Some(nodes)) =
        (pintle_api::resources::by_resource("", "v1", "pods"), pintle_api::resources::by_resource("", "v1", "nodes"))
    else {
        tracing::error!("the resource registry lacks pods or nodes");
        return;
    };
    let recorder = Recorder::new(client.clone(), "default-scheduler", None, config.clock.clone());
    let shared = Arc::new(Shared {
        engine: Mutex::new(Engine::new(config.profiles, config.seed)),
        news: Notify::new(),
        start: Instant::now(),
        client,
        recorder,
        pods,
    });
    let (node_view, pod_view) =
        (informers.get(nodes).view_with(Node::decode), informers.get(pods).view_with(Pod::decode));
    let to = shared.clone();
    node_view.on_change(move |change| {
        to.change(|engine, now| match change.now() {
            Some(node) => engine.set_node(node, now),
            None => engine.remove_node(&change.last().name),
        });
    });
    node_view.synced().await;
    let to = shared.clone();
    pod_view.on_change(move |change| {
        to.change(|engine, now| match change {
            Change::Added(_, new) => engine.set_pod(None, new, now),
            Change::Modified(_, old, new) => {
                if old.uid != new.uid {
                    engine.remove_pod(old, now);
                }
                engine.set_pod(Some(old), new, now);
            }
            Change::Deleted(_, last) => engine.remove_pod(last, now),
        });
    });
    // Without all assigned pods in sight nodes would look emptier than they are.
    pod_view.synced().await;
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.tick().await;
    loop {
        let (outcomes, wake, unschedulable) = {
            let mut engine = shared.engine.lock();
            let now = shared.now();
            let outcomes: Vec<Outcome> = std::iter::from_fn(|| engine.step(now)).take(BATCH).collect();
            (outcomes, engine.next_wake(), engine.pending().unschedulable)
        };
        let more = outcomes.len() == BATCH;
        for outcome in outcomes {
            tokio::spawn(carry_out(shared.clone(), outcome));
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        let until = wake.map(|at| shared.start + Duration::from_millis(at));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.news.notified() => {}
            // Only while something waits: an idle scheduler does not wake.
            _ = flush.tick(), if unschedulable > 0 => shared.change(Engine::flush_old),
            () = sleep_until(until) => {}
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn carry_out(shared: Arc<Shared>, outcome: Outcome) {
    match outcome {
        Outcome::Bind(pod, node) => bind(&shared, &pod, &node).await,
        Outcome::Unschedulable(pod, why) => report(&shared, &pod, &why).await,
    }
}

fn meta(pod: &Pod) -> Meta {
    Meta { name: pod.name.clone(), namespace: pod.namespace.clone(), uid: pod.uid.clone(), ..Meta::default() }
}

async fn bind(shared: &Shared, pod: &Pod, node: &str) {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"kind": "Node", "name": node},
    });
    let answer = async {
        let body = encode(&binding)?;
        shared.client.create_subresource(shared.pods, &pod.namespace, &pod.name, "binding", body).await
    };
    match answer.await {
        Ok(_) => {
            shared.change(|engine, _| engine.bound(pod));
            let text = format!("Successfully assigned {} to {node}", pod.key);
            shared.recorder.normal(&reference(shared.pods, &meta(pod)), "Scheduled", text);
        }
        Err(error) => {
            let gone = error.is_not_found();
            if !gone {
                tracing::warn!(pod = pod.key, node, %error, "binding failed");
                let text = format!("binding rejected: {error}");
                shared.recorder.warning(&reference(shared.pods, &meta(pod)), "FailedScheduling", text);
            }
            shared.change(|engine, now| engine.unbound(pod, gone, now));
        }
    }
}

/// Says in an Event and in the `PodScheduled` condition why a pod is placed nowhere.
async fn report(shared: &Shared, pod: &Pod, why: &str) {
    shared.recorder.warning(&reference(shared.pods, &meta(pod)), "FailedScheduling", why);
    if pod.unschedulable.as_ref().is_some_and(|(reason, message)| reason == "Unschedulable" && message == why) {
        return;
    }
    let now = pintle_api::time::format(jiff::Timestamp::now());
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": why,
        "observedGeneration": pod.generation,
    });
    if pod.unschedulable.is_none() {
        condition["lastTransitionTime"] = now.into();
    }
    let patch = Patch::strategic(&json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}));
    let answer = match patch {
        Ok(patch) => {
            shared.client.patch(shared.pods, &pod.namespace, &pod.name, "status", patch, &WriteParams::default()).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = answer
        && !error.is_not_found()
    {
        tracing::warn!(pod = pod.key, %error, "the PodScheduled condition was not written");
    }
}
