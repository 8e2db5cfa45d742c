//! The end of a pod: its containers, its sandbox, its volumes, its object, its traces.

use super::kill::Turns;
use super::{Done, Stage, Worker, report};
use crate::kubelet::Shared;
use crate::pod::spec::{self, Kind};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pintle_client::clock::after;
use pintle_client::recorder::EventType;
use pintle_runtime::ContainerState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

impl Worker {
    /// The pod is to end, or to end sooner than it was to.
    pub(super) fn begin_end(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Terminating;
            self.cancel.cancel();
        }
        self.set_deadline();
    }

    /// Whether the node, not a user, ended the pod.
    pub(super) fn ended_by_node(&self) -> bool {
        self.ending.is_some() && self.stage >= Stage::Terminating
    }

    /// How long the pod's containers have to end.
    fn grace(&self) -> Duration {
        let seconds = self
            .grace_override
            .or(self.pod.metadata.deletion_grace_period_seconds)
            .or(spec::spec(&self.pod).termination_grace_period_seconds)
            .unwrap_or(30);
        // Nobody is killed without being asked.
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    pub(super) fn set_deadline(&self) {
        let new = after(self.grace());
        self.deadline.send_if_modified(|d| {
            let nearer = d.is_none_or(|d| new < d);
            if nearer {
                *d = Some(new);
            }
            nearer
        });
    }

    pub(super) fn step_terminating(&mut self) {
        self.probing.only_readiness();
        if self.op.is_some() {
            return;
        }
        let alive =
            |c: &&pintle_runtime::ContainerStatus| matches!(c.state, ContainerState::Running | ContainerState::Unknown);
        let running: Vec<(String, String)> =
            self.runtime.containers.iter().filter(alive).map(|c| (c.id.clone(), c.metadata.name.clone())).collect();
        let new: Vec<_> = running.iter().filter(|(id, _)| !self.killing.contains(id)).cloned().collect();
        if !new.is_empty() {
            let sidecars = spec::init_containers(&self.pod).iter().filter(|c| spec::is_sidecar(c));
            let names: BTreeSet<String> = running.iter().map(|(_, n)| n.clone()).collect();
            let turns = Turns::new(sidecars.map(|c| c.name.clone()).collect(), names);
            for (id, name) in new {
                let kind = spec::container(&self.pod, &name).map_or(Kind::Regular, |(k, _)| k);
                self.container_event(kind, &name, EventType::Normal, "Killing", format!("Stopping container {name}"));
                self.killing.insert(id.clone());
                let job = self.kill_job(id, kind, &name, self.grace(), Some(turns.clone()));
                self.kills.push(job);
            }
        }
        if self.kills.is_empty() && running.is_empty() {
            self.op = Some(self.stop_sandboxes());
        }
    }

    fn stop_sandboxes(&self) -> BoxFuture<'static, Done> {
        let k = self.k.clone();
        let ids: Vec<String> = self.runtime.sandboxes.iter().map(|s| s.id.clone()).collect();
        async move {
            for id in ids {
                while let Err(e) = k.runtime.stop_pod_sandbox(&id).await {
                    tracing::warn!(sandbox = id, error = %e, "cannot stop the sandbox");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Done::Stopped
        }
        .boxed()
    }

    pub(super) fn stopped(&mut self) {
        if !self.runtime.any_alive() {
            self.stage = Stage::CleaningUp;
            self.probing.stop_all();
            for tell in self.tell_over.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = tell.send(());
            }
        }
    }

    pub(super) fn step_cleaning_up(&mut self) {
        if self.op.is_some() {
            return;
        }
        let dir = self.k.config.pod_dir(&self.r.uid);
        let uid = self.r.uid.clone();
        let k = self.k.clone();
        self.op = Some(
            async move {
                k.config_maps.release(&uid);
                k.secrets.release(&uid);
                k.tokens.forget(&uid);
                k.images.forget(&uid);
                let worked = tokio::task::spawn_blocking(move || crate::volumes::tear_down(&dir)).await;
                let outcome = match worked {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(e)) => Err(e.to_string()),
                    Err(e) => Err(e.to_string()),
                };
                if outcome.is_err() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Done::CleanedUp(outcome)
            }
            .boxed(),
        );
    }

    pub(super) fn cleaned_up(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.stage = Stage::Over,
            Err(e) => tracing::warn!(pod = %self.r, error = e, "cannot take down the pod's volumes"),
        }
    }

    pub(super) fn step_over(&mut self) {
        if self.source_gone && self.op.is_none() {
            let (k, r) = (self.k.clone(), self.r.clone());
            let sandboxes: Vec<String> = self.runtime.sandboxes.iter().map(|s| s.id.clone()).collect();
            self.op = Some(
                async move {
                    remove_traces(&k, &r, &sandboxes).await;
                    Done::Removed
                }
                .boxed(),
            );
        }
    }

    pub(super) fn written(&mut self, w: report::Written) {
        match w {
            // A static pod goes on without the object that stands for it; another one is made.
            report::Written::Gone if spec::is_static(&self.pod) => {}
            report::Written::Gone => {
                // The object is not there any more, or is another one: the watch says so too, maybe later.
                self.source_gone = true;
                self.begin_end();
            }
        }
    }
}

/// Removes what is left of a pod: sandboxes with their containers, logs, directory.
async fn remove_traces(k: &Arc<Shared>, r: &spec::PodRef, sandboxes: &[String]) {
    for id in sandboxes {
        if let Err(e) = k.runtime.remove_pod_sandbox(id).await {
            tracing::warn!(sandbox = id, error = %e, "cannot remove the sandbox");
        }
        k.disown_sandbox(id);
    }
    let dirs = [k.config.pod_dir(&r.uid), k.config.pod_log_dir(r)];
    let removed = tokio::task::spawn_blocking(move || {
        for dir in dirs {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(dir = %dir.display(), error = %e, "cannot remove the directory");
                }
                _ => {}
            }
        }
    });
    // A panic in it is logged by the runtime; nothing else can fail.
    let _ = removed.await;
}
