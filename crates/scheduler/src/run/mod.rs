//! The scheduler at work: informers in, bindings, conditions and Events out.

mod carry_out;
mod extender;
mod informed;

use std::sync::Arc;

use parking_lot::Mutex;
use pintle_api::resources::{Resource, by_resource};
use pintle_client::leader::stand;
use pintle_client::{Client, Clock, Informers, Recorder, View};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::cache::objects::ObjectChange;
use crate::config::Config;
use crate::engine::Engine;
use crate::framework::extender::Extender;
use crate::metrics;
use crate::model::objects::Claim;
use crate::model::{Node, Pod};
use extender::HttpExtender;

/// How often pods that have been unschedulable for very long are looked for, as upstream.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// Pods tried in a row before other tasks of the process get their turn.
const BATCH: usize = 32;

/// Group, version and resource of pod groups.
const POD_GROUPS: (&str, &str, &str) = ("scheduling.k8s.io", "v1alpha2", "podgroups");

/// Something the engine is to be told.
enum News {
    Pod(Option<Arc<Pod>>, Arc<Pod>),
    PodGone(Arc<Pod>),
    Node(Arc<Node>),
    NodeGone(Arc<Node>),
    Object(ObjectChange),
    Bound(Arc<Pod>),
    /// Not bound; whether the pod is gone.
    Unbound(Arc<Pod>, bool),
    /// A victim of the pod of this uid was removed, or could not be.
    VictimRemoved(String, bool),
}

/// What the tasks around the engine share. The engine itself belongs to its loop alone, so that nobody who brings news
/// waits for it.
struct Shared {
    inbox: Mutex<Vec<News>>,
    news: Notify,
    client: Client,
    recorder: Recorder,
    pods: &'static Resource,
    claims: View<Claim>,
    clock: Clock,
    extenders: Vec<Arc<HttpExtender>>,
}

impl Shared {
    fn tell(&self, news: News) {
        self.inbox.lock().push(news);
        self.news.notify_one();
    }
}

fn take_in(engine: &mut Engine, news: News, now: u64) {
    match news {
        News::Pod(old, new) => engine.set_pod(old.as_deref(), &new, now),
        News::PodGone(pod) => engine.remove_pod(&pod, now),
        News::Node(node) => engine.set_node(&node, now),
        News::NodeGone(node) => engine.remove_node(&node.name, now),
        News::Object(change) => engine.set_object(&change, now),
        News::Bound(pod) => {
            if let Some((attempts, since)) = engine.bound(&pod) {
                metrics::bound(attempts, Duration::from_millis(now.saturating_sub(since)).as_secs_f64());
            }
        }
        News::Unbound(pod, gone) => engine.unbound(&pod, gone, now),
        News::VictimRemoved(preemptor, removed) => engine.victim_removed(&preemptor, removed, now),
    }
}

/// Schedules whenever this replica, called `identity`, holds the Lease of the configuration, until `shutdown`; with no
/// Lease configured, all the time.
///
/// # Errors
/// When what the configuration names cannot be used.
pub async fn lead(
    client: Client,
    informers: Informers,
    config: Config,
    identity: &str,
    shutdown: CancellationToken,
) -> Result<(), String> {
    for spec in &config.extenders {
        extender::check(spec).map_err(|why| format!("extender {}: {why}", spec.url_prefix))?;
    }
    for warning in &config.warnings {
        tracing::warn!("scheduler configuration: {warning}");
    }
    let Some(mut lease) = config.leader_election.clone() else {
        run(client, informers, config, shutdown).await;
        return Ok(());
    };
    lease.identity = identity.to_owned();
    let component = config.profiles.first().map_or("default-scheduler", |p| p.name.as_str());
    let recorder = Recorder::new(client.clone(), component, None, config.clock.clone());
    let work = |stop| run(client.clone(), informers.clone(), config.clone(), stop);
    stand(&client, &lease, &config.clock, Some(&recorder), &shutdown, work).await;
    Ok(())
}

/// Schedules until `shutdown`. `client` is who binds (`system:kube-scheduler`); the informers may be shared with others.
pub async fn run(client: Client, informers: Informers, config: Config, shutdown: CancellationToken) {
    let (Some(pods), Some(claims)) = (by_resource("", "v1", "pods"), by_resource("", "v1", "persistentvolumeclaims"))
    else {
        tracing::error!("the resource registry lacks pods or claims");
        return;
    };
    let informers = informers.handle();
    let mut extenders = Vec::new();
    if !config.extenders.is_empty()
        && let Some(nodes) = by_resource("", "v1", "nodes")
    {
        for spec in config.extenders {
            let url = spec.url_prefix.clone();
            match HttpExtender::new(spec, informers.get(pods), informers.get(nodes)) {
                Ok(extender) => extenders.push(extender),
                Err(why) => {
                    tracing::error!(url, why, "an extender cannot be used: nothing is scheduled without it");
                    return;
                }
            }
        }
    }
    let recorder = Recorder::new(client.clone(), "default-scheduler", None, config.clock.clone());
    let shared = Arc::new(Shared {
        inbox: Mutex::default(),
        news: Notify::new(),
        client,
        recorder,
        pods,
        claims: informers.get(claims).view::<Claim>(),
        clock: config.clock,
        extenders,
    });
    let ms = |seconds: u64| seconds.saturating_mul(1000);
    let engine = Engine::new(config.profiles, config.seed)
        .with_backoff(ms(config.pod_initial_backoff_seconds), ms(config.pod_max_backoff_seconds))
        .with_groups(config.groups)
        .with_batching(config.batching)
        .with_observer(Box::new(metrics::Timed::new()));
    let asked = shared.extenders.iter().map(|e| e.clone() as Arc<dyn Extender>);
    let mut engine = engine.with_extenders(asked.collect());
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Without all assigned pods in sight nodes would look emptier than they are.
    tokio::select! {
        () = informed::follow(&shared, &informers, config.groups) => {}
        () = shutdown.cancelled() => return,
    }
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.tick().await;
    loop {
        let inbox = std::mem::take(&mut *shared.inbox.lock());
        for news in inbox {
            take_in(&mut engine, news, now());
        }
        let mut done = 0;
        while done < BATCH {
            let began = std::time::Instant::now();
            let Some(outcome) = engine.step(now()) else { break };
            done += 1;
            metrics::algorithm(began.elapsed().as_secs_f64());
            tokio::spawn(carry_out::carry_out(shared.clone(), outcome, began));
        }
        metrics::state(&mut engine);
        if done == BATCH {
            tokio::task::yield_now().await;
            continue;
        }
        // What is further away than the clock goes does not come.
        let until = engine.next_wake().and_then(|at| start.checked_add(Duration::from_millis(at)));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.news.notified() => {}
            // Only while something waits: an idle scheduler does not wake.
            _ = flush.tick(), if engine.pending().unschedulable > 0 => engine.flush_old(now()),
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

#[cfg(test)]
mod tests;
