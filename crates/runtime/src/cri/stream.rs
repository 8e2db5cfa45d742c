//! Byte streams into containers: exec, attach and port forwarding.

use crate::{Error, Result};
use futures::future::BoxFuture;
use std::fmt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Something to read bytes from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Something to write bytes to; `shutdown` passes on the end of input.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TermSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A command to run in a running container.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub cmd: Vec<String>,
    /// Run it on a terminal of its own; then stderr is part of stdout.
    pub tty: bool,
    /// Give it an input; without, it reads from /dev/null.
    pub stdin: bool,
    /// Hand out its output.
    pub stdout: bool,
    /// Hand out its error output; not together with `tty`.
    pub stderr: bool,
}

/// Which streams of a running container to join. The terminal is the container's own, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AttachRequest {
    /// Write to the container's input.
    pub stdin: bool,
    /// Read the container's output.
    pub stdout: bool,
    /// Read the container's error output.
    pub stderr: bool,
}

/// The open streams of an exec or attach. Dropping it closes them; an exec'd process lives on without them.
pub struct Session {
    /// Goes to the process's input, when asked for.
    pub stdin: Option<Writer>,
    /// The process's output, when asked for; ends when the process and all that inherited it have closed it.
    pub stdout: Option<Reader>,
    /// The process's error output, when asked for and without a terminal.
    pub stderr: Option<Reader>,
    /// Takes new sizes of the terminal; there is none without a terminal.
    pub resize: Option<mpsc::Sender<TermSize>>,
    /// For exec: the process's exit code. For attach: the container's, once it ends.
    pub exit: BoxFuture<'static, Result<i32, Error>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// The whole result of a short command.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// What it wrote to its output (bounded by the runtime, 16 MiB).
    pub stdout: Vec<u8>,
    /// What it wrote to its error output.
    pub stderr: Vec<u8>,
    /// Its exit code; 128 + n when signal n ended it.
    pub exit_code: i32,
}
