//! A container as its shim sees it, and those who joined its streams.

use super::log::{Log, Stream};
use super::oom::OomWatch;
use super::protocol::{ExitRecord, StartRecord};
use crate::process::ParentEnd;
use crate::process::spec::ContainerSpec;
use crate::sys;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// How much an attached reader may leave unread before the container has to wait.
const ATTACH_BUFFER: usize = 256 * 1024;
/// How much is read at once.
const CHUNK: usize = 32 * 1024;

/// Where a container's process is.
#[derive(Debug)]
pub enum State {
    /// On its way to the program.
    Starting {
        /// Who waits for the outcome: connection and request.
        reply_to: (u64, u64),
        /// The child's line.
        control: ParentEnd,
        /// What is known so far.
        record: StartRecord,
    },
    /// The program runs.
    Running,
    /// It is over.
    Exited,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    pub dir: PathBuf,
    pub spec: ContainerSpec,
    pub pid: i32,
    pub state: State,
    pub log: Log,
    /// Output and error output.
    pub outputs: [Option<OwnedFd>; 2],
    pub stdin: Option<OwnedFd>,
    /// Input that the container has not taken yet.
    pub stdin_pending: Vec<u8>,
    /// Close the input as soon as nothing is pending.
    pub stdin_closing: bool,
    /// The terminal, instead of outputs and input.
    pub console: Option<OwnedFd>,
    pub oom: Option<OomWatch>,
    pub oom_killed: bool,
}

/// Someone who joined a container's streams.
#[derive(Debug)]
pub struct Attached {
    pub container: String,
    pub stdin: Option<OwnedFd>,
    pub outputs: [Option<Output>; 2],
}

/// One side of an [`Attached`].
#[derive(Debug)]
pub struct Output {
    pub fd: OwnedFd,
    pub pending: Vec<u8>,
}

impl Output {
    /// Writes what it can. Answers false when the reader is gone.
    pub fn flush(&mut self) -> bool {
        match write_some(&self.fd, &mut self.pending) {
            Ok(()) => true,
            Err(e) => e == rustix::io::Errno::AGAIN,
        }
    }
    pub fn full(&self) -> bool {
        self.pending.len() > ATTACH_BUFFER
    }
}

/// Writes as much as the other side takes without waiting.
pub fn write_some(fd: &OwnedFd, pending: &mut Vec<u8>) -> rustix::io::Result<()> {
    while !pending.is_empty() {
        match rustix::io::write(fd, pending) {
            Ok(n) => drop(pending.drain(..n)),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What a read brought.
pub enum Got {
    /// Bytes.
    Data(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

/// Reads without waiting.
pub fn read_some(fd: impl AsFd) -> Got {
    let mut buffer = vec![0; CHUNK];
    loop {
        match rustix::io::read(&fd, &mut buffer) {
            Ok(0) => return Got::End,
            Ok(n) => {
                buffer.truncate(n);
                return Got::Data(buffer);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Got::Nothing,
            // A terminal whose program is gone answers EIO.
            Err(_) => return Got::End,
        }
    }
}

impl Container {
    /// The descriptor from which a stream is read.
    pub fn source(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.console.as_ref().or(self.outputs[0].as_ref()),
            Stream::Stderr => self.outputs[1].as_ref(),
        }
    }

    fn close(&mut self, stream: Stream) {
        self.log.end(stream, sys::now());
        if stream == Stream::Stdout {
            self.console = None;
        }
        self.outputs[stream as usize] = None;
    }

    /// Reads a stream once, to the log and to everyone attached. Answers whether there may be more.
    pub fn pump<'a>(&mut self, stream: Stream, attached: impl Iterator<Item = &'a mut Attached>) -> bool {
        let Some(fd) = self.source(stream) else { return false };
        match read_some(fd) {
            Got::Nothing => false,
            Got::End => {
                self.close(stream);
                false
            }
            Got::Data(data) => {
                self.log.write(stream, &data, sys::now());
                for a in attached {
                    let slot = &mut a.outputs[stream as usize];
                    if let Some(out) = slot {
                        out.pending.extend_from_slice(&data);
                        if !out.flush() {
                            *slot = None;
                        }
                    }
                }
                true
            }
        }
    }

    /// Passes input on to the container.
    pub fn feed(&mut self) {
        let to = self.console.as_ref().or(self.stdin.as_ref());
        let broken = match to {
            Some(fd) => {
                matches!(write_some(fd, &mut self.stdin_pending), Err(e) if e != rustix::io::Errno::AGAIN)
            }
            None => true,
        };
        if broken {
            self.stdin_pending.clear();
        }
        if broken || (self.stdin_closing && self.stdin_pending.is_empty()) {
            self.stdin = None;
        }
    }

    /// Whether it takes more input now.
    pub fn wants_input(&self) -> bool {
        self.stdin_pending.len() < CHUNK
    }

    /// How its first process's end is told.
    pub fn exit_record(&self, exit_code: i32) -> ExitRecord {
        let reason = match exit_code {
            _ if self.oom_killed => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        ExitRecord { exit_code, finished_at: sys::now(), reason: reason.into(), message: String::new() }
    }
}
