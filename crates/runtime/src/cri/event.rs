//! What happened to containers and sandboxes, told as it happens, so that nobody has to list again and again.

use futures::stream::BoxStream;

/// A change of a container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// The sandbox concerned; empty for [`EventKind::Resync`].
    pub sandbox_id: String,
    /// The container concerned; empty for events of the sandbox itself.
    pub container_id: String,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The container was created.
    ContainerCreated,
    /// The container's process runs.
    ContainerStarted,
    /// The container's first process ended.
    ContainerExited {
        /// Its exit code; 128 + n when signal n ended it.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled` or another short reason.
        reason: String,
    },
    /// The kernel killed a process of the container because of its memory limit.
    ContainerOom,
    /// The container was removed.
    ContainerRemoved,
    /// The sandbox is ready.
    SandboxReady,
    /// The sandbox stopped or died: its namespaces and every container in it are gone.
    SandboxGone,
    /// The sandbox was removed.
    SandboxRemoved,
    /// The listener fell behind and events were dropped: list everything once.
    Resync,
}

/// An endless stream of events from the moment of the call on. Whoever falls behind receives [`EventKind::Resync`].
pub type EventStream = BoxStream<'static, Event>;
