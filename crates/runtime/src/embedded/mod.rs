//! The runtime that is part of this program: no daemon beside it, no other program needed.

mod container;
mod recover;
mod sandbox;
mod service;
mod shim_client;
mod spec;
mod state;
mod stats;
mod streams;

use crate::cgroup::Cgroups;
use crate::image::{ImageStore, RegistryHosts};
use crate::shim::protocol::Happened;
use crate::sys::{self, Context as _};
use crate::{Error, Event, EventKind, EventStream, Result, SandboxNetwork};
use futures::StreamExt as _;
use parking_lot::Mutex;
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use state::{Container, Sandbox, State};
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{broadcast, oneshot};

/// How many events a listener may fall behind before it has to list anew.
const EVENTS: usize = 4096;

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept: sandboxes, containers, images.
    pub state_dir: PathBuf,
    /// What all cgroups are below; `/` puts a pod's cgroup where its path says.
    pub cgroup_root: String,
    /// The program that plays the shim's role when called with [`crate::shim::ROLE`].
    pub executable: PathBuf,
    /// Mirrors, certificates and credentials of registries.
    pub registries: RegistryHosts,
}

impl Options {
    /// The usual set-up: our own program is the shim.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            cgroup_root: "/".into(),
            executable: "/proc/self/exe".into(),
            registries: RegistryHosts::default(),
        }
    }
}

/// The embedded runtime. Clones are the same runtime.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    cgroups: Cgroups,
    images: Arc<ImageStore>,
    network: Arc<dyn SandboxNetwork>,
    events: broadcast::Sender<Event>,
    state: Mutex<State>,
    execs: Mutex<HashMap<String, oneshot::Sender<i32>>>,
    shim_program: ShimProgram,
    registries: RegistryHosts,
    /// Held as long as this process uses the state directory.
    _lock: fs::File,
}

/// The shim's program, behind a mount of its own that cannot be written: a container that gets hold of it cannot change
/// the program on the host.
struct ShimProgram {
    path: PathBuf,
    _mount: Option<OwnedFd>,
}

impl ShimProgram {
    fn new(path: &Path) -> Result<Self> {
        // A detached mount belongs to its descriptor and leaves nothing behind.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let path = fs::canonicalize(path).context(format!("looking for {}", path.display()))?;
        let mount = rustix::mount::open_tree(CWD, &path, flags).ok();
        let mount = mount.filter(|m| sys::mount_setattr(m.as_fd(), sys::MOUNT_RDONLY, 0, false).is_ok());
        let path = mount.as_ref().map_or(path, |m| format!("/proc/self/fd/{}", m.as_raw_fd()).into());
        Ok(Self { path, _mount: mount })
    }
}

impl Embedded {
    /// Opens the runtime in its state directory and takes over what runs there.
    pub async fn open(options: Options, network: Arc<dyn SandboxNetwork>) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::precondition("running containers needs root"));
        }
        let dir = options.state_dir;
        fs::create_dir_all(dir.join("sandboxes")).context(format!("making {}", dir.display()))?;
        let dir = fs::canonicalize(&dir).context(format!("opening {}", dir.display()))?;
        let lock = fs::File::create(dir.join("lock")).context(format!("locking {}", dir.display()))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::precondition(format!("another process uses {}", dir.display())))?;
        let (events, _) = broadcast::channel(EVENTS);
        let inner = Inner {
            cgroups: Cgroups::detect(&options.cgroup_root)?,
            images: Arc::new(ImageStore::open(dir.join("images"))?),
            network,
            events,
            state: Mutex::default(),
            execs: Mutex::default(),
            shim_program: ShimProgram::new(&options.executable)?,
            registries: options.registries,
            dir,
            _lock: lock,
        };
        let out = Self { inner: Arc::new(inner) };
        out.inner.recover().await?;
        Ok(out)
    }

    /// The image store, for what goes beyond CRI: import, export, tags, images of our own program.
    #[must_use]
    pub fn images(&self) -> &Arc<ImageStore> {
        &self.inner.images
    }

    /// The cgroups, for whoever keeps the tree above pods.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.inner.cgroups
    }

    /// Stops and removes every sandbox. Images stay.
    pub async fn remove_all(&self) -> Result<()> {
        let ids: Vec<String> = self.inner.state.lock().sandboxes.keys().cloned().collect();
        let mut result = Ok(());
        for id in ids {
            // One that fails keeps no other from going.
            if let Err(e) = self.inner.remove_sandbox(&id).await {
                result = Err(e);
            }
        }
        result
    }
}

impl Inner {
    /// Runs what waits for the disk or the kernel where that holds up nobody else.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Arc<Self>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.clone();
        let done = tokio::task::spawn_blocking(move || f(&inner)).await;
        done.unwrap_or_else(|e| Err(Error::internal(format!("the operation broke off: {e}"))))
    }

    fn emit(&self, sandbox: &str, container: &str, kind: EventKind) {
        // Nobody listening is fine.
        let _ = self.events.send(Event {
            at: sys::now(),
            sandbox_id: sandbox.into(),
            container_id: container.into(),
            kind,
        });
    }

    fn event_stream(&self) -> EventStream {
        let receiver = self.events.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => Event {
                    at: sys::now(),
                    sandbox_id: String::new(),
                    container_id: String::new(),
                    kind: EventKind::Resync,
                },
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((event, receiver))
        })
        .boxed()
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = find(&self.state.lock().sandboxes, id);
        found.ok_or_else(|| Error::not_found(format!("an error occurred when try to find sandbox {id:?}: not found")))
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = find(&self.state.lock().containers, id);
        found.ok_or_else(|| Error::not_found(format!("an error occurred when try to find container {id:?}: not found")))
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.state.lock().containers.values().filter(|c| c.sandbox.id == sandbox).cloned().collect()
    }

    /// Takes what a shim tells.
    fn happened(&self, what: Happened) {
        match what {
            Happened::Exited { container, record } => {
                if let Ok(c) = self.container(&container) {
                    self.exited(&c, record);
                }
            }
            Happened::Oom { container } => {
                if let Ok(c) = self.container(&container) {
                    self.emit(&c.sandbox.id, &c.id, EventKind::ContainerOom);
                }
            }
            Happened::ExecExited { exec, exit_code } => {
                if let Some(waiting) = self.execs.lock().remove(&exec) {
                    let _ = waiting.send(exit_code);
                }
            }
        }
    }
}

/// Finds by the whole id or a unique beginning of it.
fn find<T>(map: &std::collections::BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(exact) = map.get(id) {
        return Some(exact.clone());
    }
    let mut fits = map.range(id.to_string()..).take_while(|(k, _)| !id.is_empty() && k.starts_with(id));
    match (fits.next(), fits.next()) {
        (Some((_, one)), None) => Some(one.clone()),
        _ => None,
    }
}

/// A new identity.
fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("making an id")?;
    Ok(hex::encode(bytes))
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::internal(e.to_string()))?;
    sys::write_atomic(path, &text, false).context(format!("writing {}", path.display()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Lets the runtime wait on a descriptor.
fn async_fd(fd: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the answer, which never replaces it and closes it only after deregistering.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(std::io::Error::from)
}
