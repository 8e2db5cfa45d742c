//! What daemon and shim say to each other over a packet socket, and the records a shim leaves on disk.

use crate::{Code, Error, ProcessUser};
use serde::{Deserialize, Serialize};

/// The largest packet. What may be larger travels in an open file beside it.
pub const MAX_PACKET: usize = 64 * 1024;

/// The names of a sandbox's files.
pub mod files {
    /// What the daemon tells the shim to hold.
    pub const SANDBOX: &str = "sandbox.json";
    /// The shim's own record.
    pub const SHIM: &str = "shim.json";
    /// The shim's socket.
    pub const SOCKET: &str = "shim.sock";
    /// The shim's complaints.
    pub const LOG: &str = "shim.log";
    /// The directory of shared memory.
    pub const SHM: &str = "shm";
    /// The directory of containers.
    pub const CONTAINERS: &str = "containers";
    /// In a container's directory: what to run.
    pub const SPEC: &str = "spec.json";
    /// In a container's directory: it was started.
    pub const STARTED: &str = "started.json";
    /// In a container's directory: it is over.
    pub const EXIT: &str = "exit.json";
}

/// A shim's record of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Its process.
    pub pid: u32,
    /// When that process started, in ticks since boot.
    pub start_time: u64,
    /// Its descriptor of the network namespace, if it has one.
    pub netns: Option<i32>,
}

/// A container was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// The first process, as the host counts.
    pub pid: u32,
    /// When that process started, in ticks since boot.
    pub start_time: u64,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// Who it is.
    pub user: ProcessUser,
}

/// A container is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 128 + n when signal n ended it.
    pub exit_code: i32,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`.
    pub reason: String,
    /// More about it.
    pub message: String,
}

/// What the daemon wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start the container whose specification is on disk.
    Start {
        /// Which.
        container: String,
    },
    /// Send a signal to its first process, or to all it consists of.
    Signal {
        /// Which.
        container: String,
        /// The signal's number.
        signal: i32,
        /// To all processes.
        all: bool,
    },
    /// Run a further process. With it come a file with the process's specification and one for each stream.
    Exec {
        /// Where.
        container: String,
        /// The daemon's name for it.
        exec: String,
        /// Which of input, output and error output come along.
        streams: [bool; 3],
    },
    /// Send a signal to such a process.
    SignalExec {
        /// Which.
        exec: String,
        /// The signal's number.
        signal: i32,
    },
    /// Join its first process's streams; one file each comes along. The answer brings its terminal, if it has one.
    Attach {
        /// Whose.
        container: String,
        /// Which of input, output and error output come along.
        streams: [bool; 3],
    },
    /// Open the log file anew.
    ReopenLog {
        /// Whose.
        container: String,
    },
    /// Forget a container that is over.
    Forget {
        /// Which.
        container: String,
    },
    /// Begin a connection to a port of the sandbox; the answer brings the socket.
    Connect {
        /// The port on the loopback address.
        port: u16,
        /// By IPv6.
        v6: bool,
    },
    /// The network interfaces' counters, as `/proc/net/dev` has them.
    Interfaces,
    /// Kill everything and end.
    Stop,
}

/// What the shim answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The container runs.
    Started(StartRecord),
    /// The further process runs; its terminal comes along, if it has one.
    ExecStarted {
        /// Its number on the host.
        pid: u32,
    },
    /// Text asked for.
    Text(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// A container is over; the record is on disk.
    Exited {
        /// Which.
        container: String,
        /// How.
        record: ExitRecord,
    },
    /// The kernel killed a process of a container for want of memory.
    Oom {
        /// Which.
        container: String,
    },
    /// A further process is over.
    ExecExited {
        /// Which.
        exec: String,
        /// How.
        exit_code: i32,
    },
}

/// A packet to the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToShim {
    /// Returned with the answer.
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// A packet to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// An answer.
    Answer {
        /// The request's.
        id: u64,
        /// The outcome.
        result: Result<Reply, Failure>,
    },
    /// An event.
    Event(Happened),
}

/// An error on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether what was named does not exist.
    pub not_found: bool,
    /// In words.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self { not_found: e.code == Code::NotFound, message: e.message }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        Self::new(if f.not_found { Code::NotFound } else { Code::Unknown }, f.message)
    }
}
