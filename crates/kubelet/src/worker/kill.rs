//! Ending one container: hook, its turn, signal, and the time all that may take.

use super::Worker;
use crate::pod::decide::KillReason;
use crate::pod::spec::{self, Kind};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pintle_client::clock::after;
use pintle_client::recorder::EventType;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Every container gets this long, whatever hooks have used up.
const MINIMUM: Duration = Duration::from_secs(2);

/// The order in which a pod's containers end: sidecars after all that were started after them.
pub(super) struct Turns {
    alive: watch::Sender<BTreeSet<String>>,
    order: Vec<String>,
}

impl Turns {
    /// Sidecars in the order of the spec; `alive` are the names of all containers that run.
    pub(super) fn new(sidecars: Vec<String>, alive: BTreeSet<String>) -> Arc<Self> {
        Arc::new(Self { alive: watch::Sender::new(alive), order: sidecars })
    }

    /// Waits until all that must end before `name` have ended.
    async fn wait(&self, name: &str) {
        let Some(at) = self.order.iter().position(|s| s == name) else { return };
        let before: BTreeSet<&String> = self.order[..=at].iter().collect();
        let mut rx = self.alive.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = rx.wait_for(|alive| alive.iter().all(|a| before.contains(a))).await;
    }

    fn ended(&self, name: &str) {
        self.alive.send_modify(|a| {
            a.remove(name);
        });
    }
}

impl Worker {
    /// How long a container gets that is killed while its pod goes on.
    pub(super) fn grace_for(&self, name: &str, reason: KillReason) -> Duration {
        if reason == KillReason::RestartAll {
            // Neither hooks nor the pod's own time: it is to be quick.
            return Duration::ZERO;
        }
        let own = spec::container(&self.pod, name).and_then(|(_, c)| {
            let probe = match reason {
                KillReason::StartupProbe => c.startup_probe.as_ref(),
                KillReason::LivenessProbe => c.liveness_probe.as_ref(),
                KillReason::Other | KillReason::RestartAll => None,
            };
            probe?.termination_grace_period_seconds
        });
        let seconds = own.or(spec::spec(&self.pod).termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Ends a container within `grace`, or, with `turns`, by the pod's deadline, which may come nearer meanwhile.
    pub(super) fn kill_job(
        &self,
        id: String,
        kind: Kind,
        name: &str,
        grace: Duration,
        turns: Option<Arc<Turns>>,
    ) -> BoxFuture<'static, String> {
        let (k, pod, name) = (self.k.clone(), self.pod.clone(), name.to_string());
        let mut deadline = self.deadline.subscribe();
        let by_pod = turns.is_some();
        let fixed = after(grace);
        let ip = crate::kubelet::pod_ip(&self.pod, &self.runtime, &k.node.addresses());
        async move {
            let end = |d: &watch::Receiver<Option<Instant>>| if by_pod { d.borrow().unwrap_or(fixed) } else { fixed };
            let container = spec::container(&pod, &name).map(|(_, c)| c.into_owned());
            let hook = container.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
            if let (Some(c), Some(hook)) = (&container, hook)
                && !grace.is_zero()
            {
                let r = spec::PodRef::of(&pod).to_string();
                let run = crate::hooks::run(&*k.runtime, &id, c, &r, &ip, &hook);
                tokio::pin!(run);
                loop {
                    tokio::select! {
                        ran = &mut run => {
                            if let Err(error) = ran {
                                tracing::warn!(pod = r, container = name, error, "preStop hook failed");
                                let mut about = pintle_client::recorder::reference_of(&*pod);
                                about.field_path = Some(spec::field_path(kind, &name));
                                k.recorder.event(&about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
                            }
                            break;
                        }
                        () = tokio::time::sleep_until(end(&deadline)) => break,
                        Ok(()) = deadline.changed() => {}
                    }
                }
            }
            if let Some(turns) = &turns {
                tokio::select! {
                    () = turns.wait(&name) => {}
                    () = tokio::time::sleep_until(end(&deadline)) => {}
                }
            }
            loop {
                let left = end(&deadline).saturating_duration_since(Instant::now()).max(MINIMUM);
                tokio::select! {
                    stopped = k.runtime.stop_container(&id, left) => {
                        if let Err(e) = stopped {
                            tracing::warn!(container = id, error = %e, "cannot stop the container");
                            // It is asked again when the pod is looked at.
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                        break;
                    }
                    Ok(()) = deadline.changed(), if by_pod => {}
                }
            }
            if let Some(turns) = &turns {
                turns.ended(&name);
            }
            id
        }
        .boxed()
    }
}
