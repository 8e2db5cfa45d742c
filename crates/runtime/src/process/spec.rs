//! What a shim is told to do, as files and messages: plain data, complete, with every choice already made.

use crate::cgroup::OomCounter;
use crate::{MountPropagation, StringMap};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A sandbox to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its identity.
    pub id: String,
    /// The host name inside.
    pub hostname: String,
    /// Make a network namespace.
    pub network: bool,
    /// Make an IPC namespace, and shared memory with it.
    pub ipc: bool,
    /// Make a namespace of process ids that all containers share.
    pub shared_pid: bool,
    /// Kernel parameters to set in the namespaces.
    pub sysctls: StringMap,
}

/// Who the process is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// `user`, `uid`, `user:group`, `uid:gid`, or empty for root.
    pub user: String,
    /// More groups.
    pub groups: Vec<u32>,
    /// Whether the image's `/etc/group` adds to them.
    pub image_groups: bool,
}

/// Sets of capabilities as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySpec {
    /// What the process and its children may ever have, and what root has.
    pub bounding: u64,
    /// What a user other than root keeps.
    pub ambient: u64,
}

/// A program to run, with everything that belongs to its process alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Where it starts; made if it is missing.
    pub cwd: String,
    /// On a terminal.
    pub tty: bool,
    /// Who it is.
    pub user: UserSpec,
    /// What it may do.
    pub capabilities: CapabilitySpec,
    /// Nothing it executes gains privileges.
    pub no_new_privs: bool,
    /// The system call filter's instructions, 8 bytes each, in base64; empty is none.
    pub seccomp: String,
    /// Adjusts the kernel's choice of whom to kill.
    pub oom_score_adj: Option<i32>,
    /// The loaded AppArmor profile to run under; empty is none.
    pub apparmor: String,
}

/// Which namespace of process ids a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidSpec {
    /// One of its own.
    #[default]
    Own,
    /// The sandbox's.
    Sandbox,
    /// The host's.
    Host,
    /// That of another container of the sandbox.
    Container(String),
}

/// What to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Its path there.
        source: PathBuf,
        /// With everything mounted below it read-only.
        recursive_read_only: bool,
        /// Propagation.
        propagation: MountPropagation,
    },
    /// A directory of an image, given by its layers, the uppermost first.
    Layers {
        /// The layers' directories.
        layers: Vec<PathBuf>,
        /// The directory within; empty is all.
        sub_path: String,
    },
    /// What the root itself has there, made if it is missing; it can be written even where the root cannot.
    Own,
    /// The processes.
    Proc,
    /// The kernel's objects.
    Sysfs,
    /// An empty file system in memory.
    Tmpfs {
        /// Mode of its root directory, in octal digits.
        mode: String,
        /// Its size (`65536k`).
        size: String,
        /// Allow to run programs and to use device files.
        dev_exec: bool,
    },
    /// Terminals.
    Devpts,
    /// Message queues.
    Mqueue,
    /// The sandbox's shared memory.
    SandboxShm,
    /// Control groups.
    Cgroup,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Where.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Read-only.
    pub readonly: bool,
}

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Its path inside.
    pub path: PathBuf,
    /// Block device, otherwise character.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The root file system: layers of an image and a writable one above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSpec {
    /// The image's layers' directories, the uppermost first.
    pub layers: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlayfs' own directory beside it.
    pub work: PathBuf,
    /// Where it is mounted, in the container's own mount namespace only.
    pub target: PathBuf,
    /// No writing.
    pub readonly: bool,
}

/// One hierarchy of control groups to show inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMount {
    /// The directory's name below `/sys/fs/cgroup`; empty for version 2 alone.
    pub name: String,
    /// Version 1's controllers.
    pub controllers: Vec<String>,
    /// Whether it is version 2.
    pub unified: bool,
}

/// A container to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its identity.
    pub id: String,
    /// Its first process.
    pub process: ProcessSpec,
    /// Its root.
    pub root: RootSpec,
    /// Join the sandbox's network namespace.
    pub network: bool,
    /// Join the sandbox's IPC namespace.
    pub ipc: bool,
    /// Namespace of process ids.
    pub pid: PidSpec,
    /// A cgroup namespace of its own.
    pub cgroup_namespace: bool,
    /// Mounts in order.
    pub mounts: Vec<MountSpec>,
    /// Device nodes beside the usual ones.
    pub devices: Vec<DeviceNode>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The files that take a process into its cgroups.
    pub cgroup_procs: Vec<PathBuf>,
    /// What `MountKind::Cgroup` shows.
    pub cgroup_mounts: Vec<CgroupMount>,
    /// Where out-of-memory kills are counted.
    pub oom: Option<OomCounter>,
    /// The log file; empty is none.
    pub log_path: PathBuf,
    /// Keep its input open.
    pub stdin: bool,
    /// Close its input after the first attach that wrote to it.
    pub stdin_once: bool,
}
