//! A runtime in memory, for tests of what drives a runtime. By default every pull and every operation succeeds and
//! containers run until they are stopped; the methods of [`FakeRuntime`] itself script everything else.

mod script;
mod service;

pub use script::{ExecHandler, OnStop};

use crate::*;
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, watch};

/// How many events a listener may fall behind.
const EVENTS: usize = 4096;

/// A runtime in memory.
pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    /// Counts state changes, for waiting on one.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, Image>,
    calls: Vec<String>,
    failures: HashMap<String, VecDeque<Error>>,
    pull_errors: HashMap<String, Error>,
    held_pulls: HashMap<String, watch::Sender<bool>>,
    on_start: HashMap<String, VecDeque<i32>>,
    on_stop: HashMap<String, OnStop>,
    exec: Option<ExecHandler>,
    next_ip: u8,
}

struct Sandbox {
    status: SandboxStatus,
    config: SandboxConfig,
    resources: Option<LinuxResources>,
}

struct Container {
    status: ContainerStatus,
    config: ContainerConfig,
    /// Told the exit code.
    exit: watch::Sender<Option<i32>>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

impl FakeRuntime {
    /// An empty runtime.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS);
        Arc::new(Self { state: Mutex::default(), events, changed: watch::Sender::new(0) })
    }

    fn emit(&self, sandbox_id: &str, container_id: &str, kind: EventKind) {
        // Nobody listening is fine.
        let _ = self.events.send(Event {
            at: now(),
            sandbox_id: sandbox_id.into(),
            container_id: container_id.into(),
            kind,
        });
        self.changed.send_modify(|n| *n += 1);
    }

    /// Notes the call and answers the failure scripted for it, if any.
    fn call(&self, operation: &str, argument: &str) -> Result<()> {
        let mut s = self.state.lock();
        s.calls.push(if argument.is_empty() { operation.into() } else { format!("{operation} {argument}") });
        let failure = s.failures.get_mut(operation).and_then(VecDeque::pop_front);
        drop(s);
        self.changed.send_modify(|n| *n += 1);
        failure.map_or(Ok(()), Err)
    }

    /// Ends a running container. Answers whether it ran.
    fn finish(&self, id: &str, code: i32, reason: &str) -> bool {
        let mut s = self.state.lock();
        let Some(c) = s.containers.get_mut(id).filter(|c| c.status.state == ContainerState::Running) else {
            return false;
        };
        c.status.state = ContainerState::Exited;
        c.status.exit_code = code;
        c.status.finished_at = now();
        c.status.pid = 0;
        c.status.reason = reason.into();
        c.exit.send_replace(Some(code));
        let sandbox = c.status.sandbox_id.clone();
        drop(s);
        self.emit(&sandbox, id, EventKind::ContainerExited { exit_code: code, reason: reason.into() });
        true
    }

    fn event_stream(&self) -> EventStream {
        let rx = self.events.subscribe();
        futures::stream::unfold(rx, |mut rx| async move {
            match rx.recv().await {
                Ok(event) => Some((event, rx)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((
                    Event {
                        at: now(),
                        sandbox_id: String::new(),
                        container_id: String::new(),
                        kind: EventKind::Resync,
                    },
                    rx,
                )),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

fn reason_of(code: i32) -> &'static str {
    if code == 0 { "Completed" } else { "Error" }
}

fn labels_match(wanted: &StringMap, labels: &StringMap) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn id_matches(wanted: Option<&String>, id: &str) -> bool {
    wanted.is_none_or(|w| id.starts_with(w.as_str()))
}

fn container_matches(f: &ContainerFilter, c: &ContainerStatus) -> bool {
    id_matches(f.id.as_ref(), &c.id)
        && f.sandbox_id.as_ref().is_none_or(|s| c.sandbox_id.starts_with(s.as_str()))
        && f.state.is_none_or(|s| c.state == s)
        && labels_match(&f.labels, &c.labels)
}

fn sandbox_matches(f: &SandboxFilter, s: &SandboxStatus) -> bool {
    id_matches(f.id.as_ref(), &s.id) && f.state.is_none_or(|x| s.state == x) && labels_match(&f.labels, &s.labels)
}

fn log_path(sandbox: &SandboxConfig, config: &ContainerConfig) -> String {
    if config.log_path.is_empty() || sandbox.log_directory.is_empty() {
        return String::new();
    }
    PathBuf::from(&sandbox.log_directory).join(&config.log_path).display().to_string()
}

/// The complete form of an image's name, as far as tests need it.
fn full_name(name: &str) -> String {
    if name.starts_with("sha256:") {
        return name.into();
    }
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_string()),
        Some(_) => ("docker.io", name.to_string()),
        None => ("docker.io", format!("library/{name}")),
    };
    let tagged = rest.contains('@') || rest.rsplit('/').next().is_some_and(|last| last.contains(':'));
    format!("{registry}/{rest}{}", if tagged { "" } else { ":latest" })
}

#[cfg(test)]
mod tests;
