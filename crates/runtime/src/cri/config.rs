//! What a caller says when it asks for a sandbox or a container.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// Names a sandbox for humans; unique together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Which try at a sandbox for this pod it is, from 0.
    pub attempt: u32,
}

/// A sandbox to make: what the containers of one pod share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxConfig {
    /// Its name.
    pub metadata: SandboxMetadata,
    /// The host name inside; ignored with the host's network.
    pub hostname: String,
    /// The directory of the containers' logs.
    pub log_directory: String,
    /// What to write to `/etc/resolv.conf`; `None` takes the host's.
    pub dns_config: Option<DnsConfig>,
    /// Ports of the host that lead in.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, kept and shown.
    pub labels: StringMap,
    /// Annotations, kept and shown.
    pub annotations: StringMap,
    /// The rest, Linux's own.
    pub linux: LinuxSandboxConfig,
    /// Which of the runtime's handlers runs it; empty is the default, the only one of the embedded runtime.
    pub runtime_handler: String,
}

/// Linux's part of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxSandboxConfig {
    /// The pod's cgroup, below the runtime's root (`/kubepods/burstable/pod<uid>`); made if it is missing.
    pub cgroup_parent: String,
    /// Namespaces and the security of the sandbox itself.
    pub security_context: LinuxSecurityContext,
    /// Kernel parameters of the sandbox's namespaces.
    pub sysctls: StringMap,
    /// What the pod's cgroup may use; `None` leaves it as it is found.
    pub resources: Option<LinuxResources>,
}

/// The contents of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Name servers' addresses.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to a port of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The port inside.
    pub container_port: u16,
    /// The port of the host; 0 is none.
    pub host_port: u16,
    /// The host's address; `None` is all of them.
    pub host_ip: Option<IpAddr>,
}

/// Names a container for humans; unique in its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMetadata {
    /// The container's name in its pod.
    pub name: String,
    /// Which try it is, from 0.
    pub attempt: u32,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A container to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Its name.
    pub metadata: ContainerMetadata,
    /// Its image: an id (`sha256:…`) or a name that is in the store.
    pub image: String,
    /// The image's name as the user wrote it, for statuses.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint (and, when given, drops the image's default arguments).
    pub command: Vec<String>,
    /// Replaces the image's default arguments.
    pub args: Vec<String>,
    /// Replaces the image's working directory; made if it is missing.
    pub working_dir: String,
    /// Added to, and winning over, the image's environment.
    pub envs: Vec<KeyValue>,
    /// Mounts, in this order.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Labels, kept and shown.
    pub labels: StringMap,
    /// Annotations, kept and shown.
    pub annotations: StringMap,
    /// The log's path below the sandbox's log directory; empty keeps no log.
    pub log_path: String,
    /// Keep an input open for attach.
    pub stdin: bool,
    /// Close the input when the first attach that wrote to it ends.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// The signal that asks it to end (`SIGUSR1`); empty takes the image's, else SIGTERM.
    pub stop_signal: String,
    /// Limits.
    pub resources: LinuxResources,
    /// Who it is and what it may do.
    pub security_context: LinuxSecurityContext,
}

/// How mounts made later appear on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// Neither way.
    #[default]
    Private,
    /// What the host mounts later appears inside.
    HostToContainer,
    /// And what is mounted inside appears on the host; needs privilege.
    Bidirectional,
}

/// Something mounted into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where it appears inside.
    pub container_path: PathBuf,
    /// The file or directory of the host (symbolic links are followed on the host); created as a directory when it is
    /// missing. Empty for an image mount.
    pub host_path: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// Read-only with everything mounted below it. Needs `readonly` and private propagation.
    pub recursive_read_only: bool,
    /// Accepted and ignored where SELinux is absent.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: MountPropagation,
    /// Mount this image's file system (read-only) instead of a path of the host.
    pub image: String,
    /// The directory of the image to mount.
    pub image_sub_path: String,
}

/// A device of the host, or a directory of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its path inside.
    pub container_path: PathBuf,
    /// Its path on the host.
    pub host_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// What a cgroup may use. Zero and `None` leave a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxResources {
    /// CPU weight, 2 to 262144 (1024 a CPU).
    pub cpu_shares: u64,
    /// CPU time a period in microseconds; -1 is no limit.
    pub cpu_quota: i64,
    /// The period in microseconds; 0 is 100 ms.
    pub cpu_period: u64,
    /// CPUs it may run on (`0-3,5`).
    pub cpuset_cpus: String,
    /// Memory nodes it may use.
    pub cpuset_mems: String,
    /// Memory in bytes; -1 is no limit.
    pub memory_limit: i64,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap_limit: i64,
    /// Process limit; -1 is no limit.
    pub pids_limit: i64,
    /// Adjusts the kernel's choice of whom to kill, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Huge pages in bytes by page size (`2MB`, `1GB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Files of a version 2 cgroup to write as they are (`memory.high` → `…`).
    pub unified: StringMap,
}

/// Whose namespace of one kind a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's.
    #[default]
    Pod,
    /// One of its own (of process ids only).
    Container,
    /// The host's.
    Node,
    /// That of the container with this id (of process ids only).
    Target(String),
}

/// A range of an id mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id inside.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// A user namespace for the whole pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// The choice of namespaces. A sandbox's own choice decides network, IPC and user namespace of all its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceOptions {
    /// `Pod` or `Node`.
    pub network: NamespaceMode,
    /// Any.
    pub pid: NamespaceMode,
    /// `Pod` or `Node`.
    pub ipc: NamespaceMode,
    /// A user namespace, or `None` for the host's.
    pub user: Option<UserNamespace>,
}

impl Default for NamespaceOptions {
    /// Network and IPC the pod's, process ids the container's own: what a pod has when it says nothing.
    fn default() -> Self {
        Self { network: NamespaceMode::Pod, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod, user: None }
    }
}

/// A seccomp or AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// The file at this path (seccomp) or the loaded profile of this name (AppArmor).
    Localhost(String),
}

/// How the groups of the image's user count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// The image's `/etc/group` adds to the groups given.
    #[default]
    Merge,
    /// Only the groups given count.
    Strict,
}

/// Who a process is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxSecurityContext {
    /// All capabilities, all devices, no masks, no seccomp.
    pub privileged: bool,
    /// Capabilities to add (`NET_ADMIN` or `CAP_NET_ADMIN`, `ALL`).
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Capabilities that a user other than root keeps, too.
    pub add_ambient_capabilities: Vec<String>,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// The user by number; wins over the name and the image.
    pub run_as_user: Option<i64>,
    /// The user by name in the image's `/etc/passwd`.
    pub run_as_username: String,
    /// The group by number; needs a user.
    pub run_as_group: Option<i64>,
    /// More groups (a pod's fsGroup is one of them).
    pub supplemental_groups: Vec<i64>,
    /// Whether the image adds groups.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// No writing to the root file system.
    pub readonly_rootfs: bool,
    /// Nothing the process executes gains privileges.
    pub no_new_privs: bool,
    /// Seccomp profile.
    pub seccomp: SecurityProfile,
    /// AppArmor profile; refused by name where AppArmor is absent, as `Localhost`, otherwise without effect there.
    pub apparmor: SecurityProfile,
    /// Paths to hide; `None` takes the runtime's list, an empty list hides nothing.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths to make read-only; `None` takes the runtime's list.
    pub readonly_paths: Option<Vec<PathBuf>>,
}
