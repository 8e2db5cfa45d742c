//! What the runtime has of one pod.

use pintle_runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};
use std::collections::BTreeMap;

/// Labels and annotations under which the node agent finds its own again; upstream's names, so that tools that look at
/// a runtime understand them.
pub mod labels {
    /// The pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// The pod's uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// The container's name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: the hash of the container's spec.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: how often the container was restarted.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation: how often all of the pod's containers had been restarted together when this one was made.
    pub const ROUND: &str = "io.pintle.pod.round";
    /// Annotation: the container's `terminationMessagePath`.
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation: the container's `terminationMessagePolicy`.
    pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation: the pod's grace period at the container's start.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Annotation: the pod's own grace period while it is being deleted.
    pub const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
}

/// The sandboxes and containers of one pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeState {
    /// Sandboxes.
    pub sandboxes: Vec<SandboxStatus>,
    /// Containers of all its sandboxes.
    pub containers: Vec<ContainerStatus>,
}

/// How often the container was restarted before.
#[must_use]
pub fn restart_count(c: &ContainerStatus) -> u32 {
    c.annotations.get(labels::RESTART_COUNT).and_then(|n| n.parse().ok()).unwrap_or(c.metadata.attempt)
}

/// How often all of the pod's containers had been restarted together when this one was made.
#[must_use]
pub fn round(c: &ContainerStatus) -> u32 {
    c.annotations.get(labels::ROUND).and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl RuntimeState {
    /// How often all containers have been restarted together.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.containers.iter().map(round).max().unwrap_or(0)
    }

    /// A state of these parts.
    #[must_use]
    pub fn new(sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        let mut s = Self { sandboxes, containers };
        s.sort();
        s
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.metadata.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, restart_count(c))));
    }

    /// Takes in the present status of one container.
    pub fn put_container(&mut self, status: ContainerStatus) {
        match self.containers.iter_mut().find(|c| c.id == status.id) {
            Some(old) => *old = status,
            None => {
                self.containers.push(status);
                self.sort();
            }
        }
    }

    /// Takes in the present status of one sandbox.
    pub fn put_sandbox(&mut self, status: SandboxStatus) {
        match self.sandboxes.iter_mut().find(|s| s.id == status.id) {
            Some(old) => *old = status,
            None => {
                self.sandboxes.push(status);
                self.sort();
            }
        }
    }

    /// Forgets a container.
    pub fn drop_container(&mut self, id: &str) {
        self.containers.retain(|c| c.id != id);
    }

    /// Forgets a sandbox and its containers.
    pub fn drop_sandbox(&mut self, id: &str) {
        self.sandboxes.retain(|s| s.id != id);
        self.containers.retain(|c| c.sandbox_id != id);
    }

    /// The newest container of this name.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.metadata.name == name)
    }

    /// All containers of this name, the newest first.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerStatus> {
        self.containers.iter().filter(move |c| c.metadata.name == name)
    }

    /// The container with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.id == id)
    }

    /// The newest sandbox, if it is ready.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready)
    }

    /// Whether any container runs, or may.
    #[must_use]
    pub fn any_alive(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
    }
}

/// Whether a pod needs another sandbox, and if so the attempt's number.
#[must_use]
pub fn sandbox_needed(host_network: bool, state: &RuntimeState) -> Option<u32> {
    let Some(newest) = state.sandboxes.first() else { return Some(0) };
    let ready = state.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count();
    let next = Some(newest.metadata.attempt + 1);
    if ready > 1 || newest.state != SandboxState::Ready {
        return next;
    }
    if (newest.namespaces.network == pintle_runtime::NamespaceMode::Node) != host_network {
        return next;
    }
    if !host_network && newest.ips.is_empty() {
        return next;
    }
    None
}

/// What the last round of a probe said. Absent means it has not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed often enough.
    Success,
    /// Failed often enough.
    Failure,
}

/// The verdicts of the probes by container id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Liveness probes.
    pub liveness: BTreeMap<String, Verdict>,
    /// Readiness probes.
    pub readiness: BTreeMap<String, Verdict>,
    /// Startup probes.
    pub startup: BTreeMap<String, Verdict>,
}
