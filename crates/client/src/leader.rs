//! `LeaderElector`: one of several replicas works, the one that holds a Lease.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_api::metrics::{Family, Kind, Stability};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::client::Client;
use crate::clock::{Clock, micro_time};
use crate::error::Error;
use crate::recorder::{Recorder, reference_of};

/// Stretches the pause between attempts to become leader, so that replicas do not all try at once.
const JITTER: f64 = 1.2;

static STATUS: Family = Family::new(
    "leader_election_master_status",
    Kind::Gauge,
    Stability::Alpha,
    &["name"],
    "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
);

/// Runs `lead` whenever this replica holds the Lease, until `shutdown`, or until `lead` ends by itself. Who lost the lead
/// stands again: upstream's process ends for that and is started anew.
pub async fn stand<R>(
    client: &Client,
    config: &LeaderConfig,
    clock: &Clock,
    recorder: Option<&Recorder>,
    shutdown: &CancellationToken,
    lead: impl Fn(CancellationToken) -> R,
) where
    R: Future<Output = ()> + Send + 'static,
{
    // It shows as 0 until then.
    let status = STATUS.with(&[&config.name]);
    let leading = |stop| {
        let (work, status) = (lead(stop), status.clone());
        async move {
            let _leads = status.hold();
            work.await;
        }
    };
    let elector = || LeaderElector::new(client.clone(), config.clone(), clock.clone(), recorder.cloned());
    while elector().run(shutdown.clone(), &leading).await {}
}

/// Which Lease, as whom, and how long.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who this replica is; no other may be called the same.
    pub identity: String,
    /// How long others wait after the last renewal they saw before they take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry_period: Duration,
    /// Whether to give the Lease back on shutdown.
    pub release_on_cancel: bool,
}

impl LeaderConfig {
    /// Upstream's defaults: 15 s, 10 s, 2 s.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
        }
    }
}

/// Takes part in an election.
#[derive(Debug)]
pub struct LeaderElector {
    client: Client,
    config: LeaderConfig,
    clock: Clock,
    recorder: Option<Recorder>,
    seen: Option<Seen>,
}

/// The Lease as last seen, and when that was by our own clock: other machines' clocks are not trusted.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    at: Instant,
}

impl LeaderElector {
    /// An elector that is not yet running. The recorder, if any, says who became leader.
    #[must_use]
    pub fn new(client: Client, config: LeaderConfig, clock: Clock, recorder: Option<Recorder>) -> Self {
        Self { client, config, clock, recorder, seen: None }
    }

    /// Whether this replica leads, as far as it knows.
    fn is_leader(&self) -> bool {
        self.seen.as_ref().is_some_and(|s| holder(&s.lease) == self.config.identity)
    }

    /// Waits to become leader and then runs `lead`, whose token is cancelled when the lead is lost or `shutdown` is.
    /// Answers whether the lead was lost (and not shut down): upstream's components then exit.
    pub async fn run<F, R>(mut self, shutdown: CancellationToken, lead: F) -> bool
    where
        F: FnOnce(CancellationToken) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        loop {
            match self.acquire_or_renew().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::warn!(lease = self.config.name, %error, "cannot get the lease"),
            }
            let pause = self.config.retry_period.mul_f64(1.0 + JITTER * fastrand::f64());
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::info!(lease = self.config.name, identity = self.config.identity, "became leader");
        if let (Some(recorder), Some(seen)) = (&self.recorder, &self.seen) {
            recorder.normal(
                &reference_of(&seen.lease),
                "LeaderElection",
                format!("{} became leader", self.config.identity),
            );
        }
        let stop = CancellationToken::new();
        let mut work = tokio::spawn(lead(stop.clone()));
        let lost = tokio::select! {
            () = self.renew() => true,
            () = shutdown.cancelled() => false,
            // Work that ends by itself gives up the lead.
            _ = &mut work => false,
        };
        stop.cancel();
        if !work.is_finished() {
            // Its end is awaited so that nothing of it runs beside the next leader. What it panicked with is logged
            // by the runtime's hook.
            let _ = work.await;
        }
        if lost {
            tracing::error!(lease = self.config.name, "leader election lost");
        } else if self.config.release_on_cancel {
            self.release().await;
        }
        lost
    }

    /// Renews until that fails for too long.
    async fn renew(&mut self) {
        loop {
            let deadline = Instant::now() + self.config.renew_deadline;
            loop {
                match tokio::time::timeout_at(deadline, self.acquire_or_renew()).await {
                    Ok(Ok(true)) => break,
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) => tracing::warn!(lease = self.config.name, %error, "cannot renew the lease"),
                    Err(_) => return,
                }
                if Instant::now() + self.config.retry_period >= deadline {
                    return;
                }
                tokio::time::sleep(self.config.retry_period).await;
            }
            tokio::time::sleep(self.config.retry_period).await;
        }
    }

    fn see(&mut self, lease: Lease) {
        if self.seen.as_ref().is_none_or(|s| s.lease.spec != lease.spec) {
            self.seen = Some(Seen { lease, at: Instant::now() });
        } else if let Some(seen) = &mut self.seen {
            seen.lease = lease;
        }
    }

    async fn acquire_or_renew(&mut self) -> Result<bool> {
        let leases = self.client.of::<Lease>();
        let now = micro_time(self.clock.now());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        // The leader usually finds the Lease as it left it.
        if self.is_leader()
            && let Some(seen) = &self.seen
        {
            let mut lease = seen.lease.clone();
            keep(&mut spec, &lease);
            lease.spec = Some(spec.clone());
            if let Ok(lease) = leases.update(&lease).await {
                self.see(lease);
                return Ok(true);
            }
        }
        let Some(mut lease) = leases.get_opt(&self.config.namespace, &self.config.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = leases.create(&Lease { metadata, spec: Some(spec) }).await?;
            self.see(lease);
            return Ok(true);
        };
        self.see(lease.clone());
        let holder = holder(&lease);
        if !holder.is_empty() && holder != self.config.identity {
            let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or(0);
            let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            if self.seen.as_ref().is_some_and(|s| s.at + duration > Instant::now()) {
                return Ok(false);
            }
        }
        keep(&mut spec, &lease);
        lease.spec = Some(spec);
        let lease = leases.update(&lease).await?;
        self.see(lease);
        Ok(true)
    }

    async fn release(&mut self) {
        let Some(seen) = self.seen.take() else { return };
        let mut done = self.give_back(seen.lease).await;
        if done.as_ref().is_err_and(Error::is_conflict) {
            // A renewal that the shutdown cut short was written all the same.
            done = match self.client.of::<Lease>().get(&self.config.namespace, &self.config.name).await {
                Ok(lease) if holder(&lease) == self.config.identity => self.give_back(lease).await,
                Ok(_) => Ok(()),
                Err(e) => Err(e),
            };
        }
        if let Err(error) = done {
            tracing::warn!(lease = self.config.name, %error, "cannot release the lease");
        }
    }

    async fn give_back(&self, mut lease: Lease) -> Result<()> {
        let now = micro_time(self.clock.now());
        let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: transitions,
            ..LeaseSpec::default()
        });
        self.client.of::<Lease>().update(&lease).await.map(drop)
    }
}

/// Who holds a lease; empty when nobody does.
fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

/// A renewal keeps when the lease was acquired; a change of hands counts.
fn keep(spec: &mut LeaseSpec, old: &Lease) {
    let Some(old) = &old.spec else { return };
    if old.holder_identity == spec.holder_identity {
        spec.acquire_time.clone_from(&old.acquire_time);
        spec.lease_transitions = old.lease_transitions;
    } else {
        spec.lease_transitions = Some(old.lease_transitions.unwrap_or(0) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Patch;
    use crate::testing::{FakeApi, Fault};
    use parking_lot::Mutex;
    use pintle_api::Status;
    use pintle_api::service::UserInfo;
    use std::sync::Arc;

    struct Replica {
        log: Arc<Mutex<Vec<&'static str>>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<bool>,
    }

    fn start(client: &Client, clock: &Clock, who: &'static str, log: &Arc<Mutex<Vec<&'static str>>>) -> Replica {
        let stop = CancellationToken::new();
        let elector =
            LeaderElector::new(client.clone(), LeaderConfig::new("kube-system", "x", who), clock.clone(), None);
        let (l, s) = (log.clone(), stop.clone());
        let task = tokio::spawn(elector.run(s, move |lead| async move {
            l.lock().push(who);
            lead.cancelled().await;
        }));
        Replica { log: log.clone(), stop, task }
    }

    impl Replica {
        async fn until(&self, n: usize) {
            while self.log.lock().len() < n {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hands_over_on_shutdown_and_after_silence() {
        let api = FakeApi::new();
        let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
        let client = |name: &str| Client::in_process(api.service(), UserInfo::authenticated(name, &[]));
        let log = Arc::new(Mutex::new(Vec::new()));
        let a = start(&client("a"), &clock, "a", &log);
        a.until(1).await;
        let b = start(&client("b"), &clock, "b", &log);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*log.lock(), ["a"]);
        // A clean shutdown gives the lease back: the other has it within its retry period.
        a.stop.cancel();
        assert!(!a.task.await.unwrap());
        let began = Instant::now();
        b.until(2).await;
        assert!(began.elapsed() < Duration::from_secs(6));
        // The API refuses b's renewals: b stops within the renew deadline, c takes over after the lease ran out.
        let c = start(&client("c"), &clock, "c", &log);
        tokio::time::sleep(Duration::from_secs(5)).await;
        api.fault(|r| {
            let user = r.extensions().get::<pintle_api::service::InProcessUser>()?;
            (user.0.name == "b").then(|| Fault::Status(Status::internal("broken")))
        });
        assert!(b.task.await.unwrap());
        assert_eq!(*log.lock(), ["a", "b"]);
        c.until(3).await;
        let lease: Lease = client("a").of::<Lease>().get("kube-system", "x").await.unwrap();
        assert_eq!(lease.spec.unwrap().lease_transitions, Some(2));
        // Its last renewal was written, though it never heard of that: it gives the lease back all the same.
        api.no_faults();
        let touch = Patch::merge(&serde_json::json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
        client("a").of::<Lease>().patch("kube-system", "x", touch).await.unwrap();
        c.stop.cancel();
        c.task.await.unwrap();
        let lease: Lease = client("a").of::<Lease>().get("kube-system", "x").await.unwrap();
        assert_eq!(holder(&lease), "");
    }
}
