//! Resources that change while the pod runs.

use super::{Done, RETRY, Worker};
use crate::pod::decide::KillReason;
use crate::pod::resize;
use crate::pod::spec::{self, Kind};
use crate::translate::resources;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use pintle_client::recorder::EventType;
use pintle_runtime::{ContainerState, LinuxResources};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What became of telling a container.
pub(super) struct Resized {
    id: String,
    name: String,
    should: LinuxResources,
    outcome: pintle_runtime::Result<()>,
}

/// A running container with other limits than it should have.
struct Change {
    id: String,
    kind: Kind,
    container: Container,
    has: LinuxResources,
    should: LinuxResources,
}

impl Worker {
    /// Takes over a changed pod, with the resources the node can grant it.
    pub(super) fn grant(&mut self, pod: Arc<Pod>) {
        if self.pod.spec == pod.spec && self.resize_pending.is_none() {
            self.pod = pod;
            return;
        }
        let others: Vec<Arc<Pod>> = self
            .k
            .all_workers()
            .into_iter()
            .filter_map(|h| {
                let seen = h.seen.lock();
                (!seen.over && seen.pod.metadata.uid != self.pod.metadata.uid).then(|| seen.pod.clone())
            })
            .collect();
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        let outcome = resize::resize(&self.pod, &pod, &others, &self.k.node.view());
        self.pod = Arc::new(outcome.granted);
        self.asked = outcome.pending.is_some().then_some(pod);
        self.resize_pending = outcome.pending;
    }

    fn changes(&self) -> Vec<Change> {
        let memory = self.k.node.memory_capacity();
        spec::containers(&self.pod)
            .filter(|(kind, _)| *kind != Kind::Ephemeral)
            .filter_map(|(kind, c)| {
                let s = self.runtime.latest(&c.name).filter(|s| s.state == ContainerState::Running)?;
                let should = resources::of_container(&self.pod, &c, &self.k.config, memory);
                let told = self.told_resources.get(&s.id) == Some(&should);
                let change = !told && !self.killing.contains(&s.id) && resize::differs(&s.resources, &should);
                change.then(|| Change {
                    id: s.id.clone(),
                    kind,
                    container: c.clone().into_owned(),
                    has: s.resources.clone(),
                    should,
                })
            })
            .collect()
    }

    /// Kills the containers that must be started anew to have other resources.
    pub(super) fn kill_for_resize(&mut self) {
        for c in self.changes() {
            if resize::needs_restart(&c.container, &c.has, &c.should) {
                let message = format!("Container {} resize requires restart, will be restarted", c.container.name);
                self.kill(c.id, c.kind, &c.container.name, message, KillReason::Other);
            }
        }
    }

    /// Gives running containers the resources they should have.
    pub(super) fn resize_op(&mut self, now: Timestamp) -> Option<BoxFuture<'static, Done>> {
        if self.resize_not_before.is_some_and(|t| t > now) {
            return None;
        }
        self.resize_not_before = None;
        let changes = self.changes();
        let around = resources::of_pod(&self.pod, &self.k.config);
        // What it was made with needs no telling.
        let told = self.told_around.get_or_insert_with(|| around.clone());
        if changes.is_empty() && *told == around {
            return None;
        }
        let k = self.k.clone();
        let sandbox = self.runtime.ready_sandbox().map(|s| s.id.clone());
        // What grows inside must first grow around it, what shrinks the other way round; a pod without a limit has none
        // in the way.
        Some(
            async move {
                let mut out = vec![];
                if let Some(id) = sandbox
                    && let Err(e) = k.runtime.update_pod_sandbox_resources(&id, &around).await
                {
                    tracing::warn!(sandbox = id, error = %e, "cannot change the resources of a pod");
                    return Done::Resized(out, None);
                }
                for c in changes {
                    let wanted = resize::update(&c.has, &c.should);
                    let outcome = k.runtime.update_container_resources(&c.id, &wanted).await;
                    out.push(Resized { id: c.id, name: c.container.name, should: c.should, outcome });
                }
                Done::Resized(out, Some(around))
            }
            .boxed(),
        )
    }

    /// Takes in what became of the containers, and what the pod as a whole now has; `None` where that failed.
    pub(super) async fn resized(&mut self, all: Vec<Resized>, around: Option<LinuxResources>) {
        match around {
            Some(around) => self.told_around = Some(around),
            None => self.resize_not_before = self.k.clock.now().saturating_add(RETRY).ok(),
        }
        for r in all {
            if let Err(e) = r.outcome {
                let kind = spec::container(&self.pod, &r.name).map_or(Kind::Regular, |(k, _)| k);
                let message = format!("Error resizing container {}: {e}", r.name);
                self.container_event(kind, &r.name, EventType::Warning, "ResizeError", message);
                self.resize_not_before = self.k.clock.now().saturating_add(RETRY).ok();
            } else {
                self.told_resources.insert(r.id, r.should);
            }
        }
        self.refresh_all().await;
        let known: BTreeSet<&String> = self.runtime.containers.iter().map(|c| &c.id).collect();
        self.told_resources.retain(|id, _| known.contains(id));
    }
}
