//! What a runtime says about sandboxes, containers and itself.

use crate::{ContainerMetadata, LinuxResources, Mount, NamespaceOptions, SandboxMetadata, StringMap};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The runtime's name.
    pub runtime_name: String,
    /// Its version.
    pub runtime_version: String,
    /// The version of CRI it speaks: `v1`.
    pub runtime_api_version: String,
}

/// Whether a part of the runtime works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady` or `NetworkReady`.
    pub kind: String,
    /// Whether it works.
    pub status: bool,
    /// A short reason why not.
    pub reason: String,
    /// The same for humans.
    pub message: String,
}

/// What the runtime can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Recursive read-only mounts.
    pub recursive_read_only_mounts: bool,
    /// Pods with a user namespace.
    pub user_namespaces: bool,
    /// `SupplementalGroupsPolicy::Strict`.
    pub supplemental_groups_policy: bool,
}

/// The runtime's health and abilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Abilities.
    pub features: Features,
}

/// Whether a sandbox can hold running containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SandboxState {
    /// It can.
    Ready,
    /// It was stopped, or died.
    #[default]
    NotReady,
}

/// A sandbox, for lists and in full: there is no cheaper form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxStatus {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub metadata: SandboxMetadata,
    /// Its state.
    pub state: SandboxState,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// Its addresses, the primary first; none with the host's network.
    pub ips: Vec<IpAddr>,
    /// Its namespaces.
    pub namespaces: NamespaceOptions,
    /// A path to its network namespace while it is ready and has one of its own.
    pub netns: Option<PathBuf>,
    /// Labels as given.
    pub labels: StringMap,
    /// Annotations as given.
    pub annotations: StringMap,
    /// The handler that runs it.
    pub runtime_handler: String,
}

/// Which sandboxes to list; empty fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// This one, by its id or a unique beginning of it.
    pub id: Option<String>,
    /// In this state.
    pub state: Option<SandboxState>,
    /// With these labels.
    pub labels: StringMap,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Started and not over.
    Running,
    /// Over.
    Exited,
    /// The runtime lost track of it.
    #[default]
    Unknown,
}

/// Who a container's first process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// User.
    pub uid: i64,
    /// Primary group.
    pub gid: i64,
    /// Other groups.
    pub supplemental_groups: Vec<i64>,
}

/// A container, for lists and in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStatus {
    /// Its identity.
    pub id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Its name.
    pub metadata: ContainerMetadata,
    /// Its state.
    pub state: ContainerState,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// Nanoseconds since 1970; 0 before.
    pub started_at: i64,
    /// Nanoseconds since 1970; 0 before.
    pub finished_at: i64,
    /// 128 + n when signal n ended it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`; empty before the end.
    pub reason: String,
    /// More about the reason.
    pub message: String,
    /// The image as the user wrote it.
    pub image: String,
    /// The image with its digest, or its id where it has none.
    pub image_ref: String,
    /// The image's id.
    pub image_id: String,
    /// Labels as given.
    pub labels: StringMap,
    /// Annotations as given.
    pub annotations: StringMap,
    /// Mounts as given.
    pub mounts: Vec<Mount>,
    /// The log's full path; empty without a log.
    pub log_path: String,
    /// Limits now.
    pub resources: LinuxResources,
    /// Who it is, once started.
    pub user: Option<ProcessUser>,
    /// The signal that asks it to end.
    pub stop_signal: String,
    /// The first process's number on the host; 0 while there is none.
    pub pid: u32,
}

/// Which containers to list; empty fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// This one, by its id or a unique beginning of it.
    pub id: Option<String>,
    /// Of this sandbox.
    pub sandbox_id: Option<String>,
    /// In this state.
    pub state: Option<ContainerState>,
    /// With these labels.
    pub labels: StringMap,
}

/// CPU time used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// When it was read, nanoseconds since 1970.
    pub timestamp: i64,
    /// Nanoseconds of CPU since the beginning.
    pub usage_core_nano_seconds: u64,
}

/// Memory used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// When it was read, nanoseconds since 1970.
    pub timestamp: i64,
    /// Used and not easily given back.
    pub working_set_bytes: u64,
    /// Limit less working set; `None` without a limit.
    pub available_bytes: Option<u64>,
    /// Everything charged.
    pub usage_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from a disk.
    pub major_page_faults: u64,
    /// Swap used, where it is accounted.
    pub swap_usage_bytes: Option<u64>,
}

/// A container's use of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container.
    pub id: String,
    /// Its name.
    pub metadata: ContainerMetadata,
    /// Labels as given.
    pub labels: StringMap,
    /// Annotations as given.
    pub annotations: StringMap,
    /// CPU.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Its writable layer.
    pub writable_layer: crate::FilesystemUsage,
    /// Processes and threads now.
    pub process_count: u64,
}

/// One network interface's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name inside.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Send errors.
    pub tx_errors: u64,
}

/// A whole sandbox's use of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxStats {
    /// The sandbox.
    pub id: String,
    /// Its name.
    pub metadata: SandboxMetadata,
    /// Labels as given.
    pub labels: StringMap,
    /// Annotations as given.
    pub annotations: StringMap,
    /// CPU of the pod's cgroup.
    pub cpu: CpuUsage,
    /// Memory of the pod's cgroup.
    pub memory: MemoryUsage,
    /// Interfaces, the default one first; none with the host's network.
    pub network: Vec<InterfaceUsage>,
    /// Processes and threads now.
    pub process_count: u64,
    /// Its running containers.
    pub containers: Vec<ContainerStats>,
}
