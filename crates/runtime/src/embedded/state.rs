//! What the daemon knows of sandboxes and containers, in memory and on disk.

use super::shim_client::ShimClient;
use crate::shim::protocol::{ExitRecord, ShimRecord, StartRecord, files};
use crate::*;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// The file in a sandbox's or container's directory that the daemon keeps.
pub const CONFIG: &str = "config.json";

#[derive(Default)]
pub struct State {
    pub sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub containers: BTreeMap<String, Arc<Container>>,
}

/// What is on disk of a sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub config: SandboxConfig,
    pub created_at: i64,
    pub state: SandboxState,
    pub ips: Vec<IpAddr>,
}

pub struct Sandbox {
    pub id: String,
    pub dir: PathBuf,
    pub record: Mutex<SandboxRecord>,
    pub shim: Mutex<Option<Arc<ShimClient>>>,
    pub shim_record: Mutex<Option<ShimRecord>>,
    /// One stop or removal at a time.
    pub turn: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub fn new(id: String, dir: PathBuf, record: SandboxRecord) -> Arc<Self> {
        Arc::new(Self {
            id,
            dir,
            record: Mutex::new(record),
            shim: Mutex::new(None),
            shim_record: Mutex::new(None),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub fn shim(&self) -> Result<Arc<ShimClient>> {
        let shim = self.shim.lock().clone();
        shim.ok_or_else(|| Error::unknown(format!("sandbox container {:?} is not running", self.id)))
    }

    pub fn ready(&self) -> bool {
        self.record.lock().state == SandboxState::Ready
    }

    pub fn save(&self) -> Result<()> {
        let record = self.record.lock().clone();
        super::write_json(&self.dir.join(CONFIG), &record)
    }

    /// The pod's cgroup.
    pub fn cgroup(&self) -> String {
        match self.record.lock().config.linux.cgroup_parent.as_str() {
            "" => format!("/{}", self.id),
            path => path.into(),
        }
    }

    pub fn netns(&self) -> Option<PathBuf> {
        let record = (*self.shim_record.lock())?;
        Some(format!("/proc/{}/fd/{}", record.pid, record.netns?).into())
    }

    pub fn network(&self) -> NetworkSandbox {
        let config = &self.record.lock().config;
        NetworkSandbox {
            id: self.id.clone(),
            name: config.metadata.name.clone(),
            namespace: config.metadata.namespace.clone(),
            uid: config.metadata.uid.clone(),
            hostname: config.hostname.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            port_mappings: config.port_mappings.clone(),
        }
    }

    pub fn own_network(&self) -> bool {
        self.record.lock().config.linux.security_context.namespaces.network != NamespaceMode::Node
    }

    pub fn status(&self) -> SandboxStatus {
        let record = self.record.lock().clone();
        SandboxStatus {
            id: self.id.clone(),
            netns: if record.state == SandboxState::Ready { self.netns() } else { None },
            metadata: record.config.metadata,
            state: record.state,
            created_at: record.created_at,
            ips: record.ips,
            namespaces: record.config.linux.security_context.namespaces,
            labels: record.config.labels,
            annotations: record.config.annotations,
            runtime_handler: record.config.runtime_handler,
        }
    }
}

/// What is on disk of a container, beside what its shim keeps there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub config: ContainerConfig,
    pub created_at: i64,
    pub image_id: String,
    pub image_ref: String,
    pub stop_signal: String,
    pub log_path: String,
    /// Layers held in the image store.
    pub layers: Vec<String>,
    /// Devices allowed.
    pub devices: Vec<crate::cgroup::DeviceRule>,
}

pub struct Container {
    pub id: String,
    pub sandbox: Arc<Sandbox>,
    pub dir: PathBuf,
    pub record: Mutex<ContainerRecord>,
    pub started: Mutex<Option<StartRecord>>,
    /// How it ended, once it has.
    pub exit: watch::Sender<Option<ExitRecord>>,
    /// One start, stop or removal at a time.
    pub turn: tokio::sync::Mutex<()>,
}

impl Container {
    pub fn new(id: String, sandbox: Arc<Sandbox>, dir: PathBuf, record: ContainerRecord) -> Arc<Self> {
        Arc::new(Self {
            id,
            sandbox,
            dir,
            record: Mutex::new(record),
            started: Mutex::new(None),
            exit: watch::Sender::new(None),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Reads what the shim left.
    pub fn load(&self) {
        if let Some(record) = super::read_json(&self.dir.join(files::STARTED)) {
            *self.started.lock() = Some(record);
        }
    }

    pub fn exit_on_disk(&self) -> Option<ExitRecord> {
        super::read_json(&self.dir.join(files::EXIT))
    }

    pub fn save(&self) -> Result<()> {
        let record = self.record.lock().clone();
        super::write_json(&self.dir.join(CONFIG), &record)
    }

    pub fn cgroup(&self) -> String {
        format!("{}/{}", self.sandbox.cgroup().trim_end_matches('/'), self.id)
    }

    pub fn state(&self) -> ContainerState {
        match (self.started.lock().is_some(), self.exit.borrow().is_some()) {
            (_, true) => ContainerState::Exited,
            (true, false) => ContainerState::Running,
            (false, false) => ContainerState::Created,
        }
    }

    /// Refuses unless it runs.
    pub fn running(&self) -> Result<()> {
        match self.state() {
            ContainerState::Running => Ok(()),
            state => Err(Error::unknown(format!(
                "container is in CONTAINER_{} state",
                format!("{state:?}").to_ascii_uppercase()
            ))),
        }
    }

    pub fn status(&self) -> ContainerStatus {
        let state = self.state();
        let record = self.record.lock().clone();
        let started = self.started.lock().clone();
        let exit = self.exit.borrow().clone().unwrap_or_default();
        ContainerStatus {
            id: self.id.clone(),
            sandbox_id: self.sandbox.id.clone(),
            metadata: record.config.metadata,
            state,
            created_at: record.created_at,
            started_at: started.as_ref().map_or(0, |s| s.started_at),
            finished_at: exit.finished_at,
            exit_code: exit.exit_code,
            reason: exit.reason,
            message: exit.message,
            image: record.config.user_specified_image,
            image_ref: record.image_ref,
            image_id: record.image_id,
            labels: record.config.labels,
            annotations: record.config.annotations,
            mounts: record.config.mounts,
            log_path: record.log_path,
            resources: record.config.resources,
            pid: started.as_ref().filter(|_| state == ContainerState::Running).map_or(0, |s| s.pid),
            user: started.map(|s| s.user),
            stop_signal: record.stop_signal,
        }
    }
}

/// Where containers of a sandbox are.
pub fn containers_dir(sandbox: &Path) -> PathBuf {
    sandbox.join(files::CONTAINERS)
}
