//! What a test may say to a [`FakeRuntime`], and ask of it.

use super::*;
use std::io::Write as _;

/// What a container does when it is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// It ends at once with this code.
    Exit(i32),
    /// It ignores the signal and is killed after the time limit (137).
    Ignore,
}

/// Answers an exec: the container's name and the command line.
pub type ExecHandler = Arc<dyn Fn(&str, &[String]) -> Result<ExecOutput> + Send + Sync>;

impl FakeRuntime {
    /// Makes an image present.
    pub fn add_image(&self, name: &str, config: ImageConfig, size: u64) {
        let name = full_name(name);
        let id =
            format!("sha256:{:064x}", name.bytes().fold(7u128, |h, b| h.wrapping_mul(0x0100_0193) ^ u128::from(b)));
        let uid = config.user.split(':').next().and_then(|u| u.parse().ok());
        let username = if uid.is_some() { String::new() } else { config.user.clone() };
        let repo = name.rsplit_once(':').map_or(name.as_str(), |(r, _)| r).to_string();
        let image = Image {
            repo_digests: vec![format!("{repo}@{id}")],
            repo_tags: vec![name.clone()],
            id,
            size,
            uid,
            username,
            pinned: false,
            config,
        };
        self.state.lock().images.insert(name, image);
    }

    /// Lets every pull of this image fail, until `None` is given.
    pub fn pull_error(&self, name: &str, error: Option<Error>) {
        let mut s = self.state.lock();
        match error {
            Some(e) => s.pull_errors.insert(full_name(name), e),
            None => s.pull_errors.remove(&full_name(name)),
        };
    }

    /// Lets pulls of this image hang until [`FakeRuntime::release_pulls`].
    pub fn hold_pulls(&self, name: &str) {
        self.state.lock().held_pulls.insert(full_name(name), watch::Sender::new(false));
    }

    /// Lets the pulls go on that [`FakeRuntime::hold_pulls`] holds.
    pub fn release_pulls(&self, name: &str) {
        if let Some(gate) = self.state.lock().held_pulls.remove(&full_name(name)) {
            gate.send_replace(true);
        }
    }

    /// Lets the next call of this operation (`start_container`, …) fail; several queue up.
    pub fn fail_next(&self, operation: &str, error: Error) {
        self.state.lock().failures.entry(operation.into()).or_default().push_back(error);
    }

    /// Lets the next container of this name end with `code` as soon as it is started; several queue up.
    pub fn exit_on_start(&self, container: &str, code: i32) {
        self.state.lock().on_start.entry(container.into()).or_default().push_back(code);
    }

    /// What containers of this name do when they are asked to end. The default is to end with 0.
    pub fn on_stop(&self, container: &str, what: OnStop) {
        self.state.lock().on_stop.insert(container.into(), what);
    }

    /// Answers every exec.
    pub fn on_exec(&self, handler: impl Fn(&str, &[String]) -> Result<ExecOutput> + Send + Sync + 'static) {
        self.state.lock().exec = Some(Arc::new(handler));
    }

    /// Ends a running container; answers whether it ran.
    pub fn exit(&self, id: &str, code: i32) -> bool {
        self.finish(id, code, reason_of(code))
    }

    /// Kills a running container for want of memory; answers whether it ran.
    pub fn oom(&self, id: &str) -> bool {
        let sandbox = self.state.lock().containers.get(id).map(|c| c.status.sandbox_id.clone());
        if let Some(sandbox) = sandbox {
            self.emit(&sandbox, id, EventKind::ContainerOom);
        }
        self.finish(id, 137, "OOMKilled")
    }

    /// Lets a sandbox die with everything in it.
    pub fn sandbox_gone(&self, id: &str) {
        self.stop_sandbox(id, "Error");
    }

    pub(super) fn stop_sandbox(&self, id: &str, reason: &str) {
        let running: Vec<String> = {
            let s = self.state.lock();
            s.containers.values().filter(|c| c.status.sandbox_id == id).map(|c| c.status.id.clone()).collect()
        };
        for c in running {
            self.finish(&c, 137, reason);
        }
        let was_ready = self.state.lock().sandboxes.get_mut(id).is_some_and(|s| {
            s.status.netns = None;
            std::mem::replace(&mut s.status.state, SandboxState::NotReady) == SandboxState::Ready
        });
        if was_ready {
            self.emit(id, "", EventKind::SandboxGone);
        }
    }

    /// Appends a line to a container's log file as its output (`stdout` or `stderr`).
    pub fn write_log(&self, id: &str, stream: &str, line: &str) -> std::io::Result<()> {
        let path = self.state.lock().containers.get(id).map(|c| c.status.log_path.clone()).unwrap_or_default();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        let at = now();
        // Any fixed time of the right form will do for the calendar part.
        writeln!(file, "2026-01-02T03:04:05.{:09}Z {stream} F {line}", at % 1_000_000_000)
    }

    /// The newest container of this name in the newest sandbox of this pod.
    #[must_use]
    pub fn find(&self, pod: &str, container: &str) -> Option<ContainerStatus> {
        let s = self.state.lock();
        s.containers
            .values()
            .filter(|c| c.status.metadata.name == container)
            .filter(|c| s.sandboxes.get(&c.status.sandbox_id).is_some_and(|b| b.status.metadata.name == pod))
            .max_by_key(|c| c.status.created_at)
            .map(|c| c.status.clone())
    }

    /// The configuration a container was made with.
    #[must_use]
    pub fn container_config(&self, id: &str) -> Option<ContainerConfig> {
        self.state.lock().containers.get(id).map(|c| c.config.clone())
    }

    /// The configuration a sandbox was made with.
    #[must_use]
    pub fn sandbox_config(&self, id: &str) -> Option<SandboxConfig> {
        self.state.lock().sandboxes.get(id).map(|c| c.config.clone())
    }

    /// The resources last given to a sandbox by an update.
    #[must_use]
    pub fn sandbox_resources(&self, id: &str) -> Option<LinuxResources> {
        self.state.lock().sandboxes.get(id).and_then(|c| c.resources.clone())
    }

    /// Every call so far: the operation, a space and its main argument.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Waits until `condition` answers something; it is asked again after every change.
    pub async fn wait<T>(&self, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = condition(self) {
                return found;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }
}
