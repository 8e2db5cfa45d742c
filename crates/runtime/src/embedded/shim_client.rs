//! The daemon's line to one shim.

use crate::process::{receive_with_fds, send_with_fds};
use crate::shim::protocol::{Happened, MAX_PACKET, Reply, Request, ToDaemon, ToShim, files};
use crate::shim::{self, short_address};
use crate::sys::Context as _;
use crate::{Code, Error, Result};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncReadExt as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

type Answer = Result<(Reply, Vec<OwnedFd>)>;

/// The line.
#[derive(Debug)]
pub struct ShimClient {
    fd: AsyncFd<OwnedFd>,
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    next: AtomicU64,
}

/// Starts a shim for the sandbox in `dir`, and returns once it holds its namespaces. Answers its process number.
pub async fn spawn(program: &Path, dir: &Path) -> Result<u32> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(files::LOG));
    let log = log.context("opening the shim's log")?;
    let mut child = tokio::process::Command::new(program)
        .arg0("pintle")
        .arg(shim::ROLE)
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context(format!("starting a shim by {}", program.display()))?;
    let pid = child.id().unwrap_or(0);
    let mut said = String::new();
    if let Some(out) = &mut child.stdout {
        out.read_to_string(&mut said).await.context("waiting for the shim")?;
    }
    // It is ours to reap, whenever it ends.
    tokio::spawn(async move { child.wait().await });
    match said.as_str() {
        "ok" => Ok(pid),
        "" => Err(Error::internal("the shim ended without a word")),
        words => Err(Error::unknown(words)),
    }
}

impl ShimClient {
    /// Connects to the shim of the sandbox in `dir`.
    pub fn connect(dir: &Path) -> Result<Arc<Self>> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(dir, flags, rustix::fs::Mode::empty()).context("opening the sandbox")?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .context("making a socket")?;
        rustix::net::connect(&socket, &short_address(&opened)?)
            .context(format!("connecting to the shim at {}", dir.join(files::SOCKET).display()))?;
        let fd = super::async_fd(socket).context("making a socket")?;
        Ok(Arc::new(Self { fd, waiting: Mutex::new(Some(HashMap::new())), next: AtomicU64::new(1) }))
    }

    /// Passes on what happens until the line breaks; then everyone waiting is told.
    pub async fn listen(self: Arc<Self>, mut happened: impl FnMut(Happened)) {
        let mut data = vec![0; MAX_PACKET];
        loop {
            let Ok(mut ready) = self.fd.readable().await else { break };
            let got = ready.try_io(|fd| Ok(receive_with_fds(fd.as_fd(), &mut data)?));
            let Ok(got) = got else { continue };
            let Ok((len, fds)) = got else { break };
            if len == 0 {
                break;
            }
            match serde_json::from_slice(&data[..len]) {
                Ok(ToDaemon::Event(what)) => happened(what),
                Ok(ToDaemon::Answer { id, result }) => {
                    let waiting = self.waiting.lock().as_mut().and_then(|w| w.remove(&id));
                    if let Some(waiting) = waiting {
                        // Whoever asked may have given up.
                        let _ = waiting.send(result.map(|r| (r, fds)).map_err(Error::from));
                    }
                }
                Err(e) => {
                    tracing::warn!("a shim sent what cannot be understood: {e}");
                    break;
                }
            }
        }
        // Dropping the senders tells those who wait; nobody can begin to.
        drop(self.waiting.lock().take());
    }

    /// Asks for something and waits for the answer.
    pub async fn request(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Answer {
        let gone = || Error::new(Code::Unavailable, "the sandbox's shim is gone");
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().as_mut().ok_or_else(gone)?.insert(id, sender);
        let text = serde_json::to_vec(&ToShim { id, request }).map_err(|e| Error::internal(e.to_string()))?;
        let result = self.send(&text, fds).await;
        if let Err(e) = result {
            if let Some(waiting) = self.waiting.lock().as_mut() {
                waiting.remove(&id);
            }
            return Err(e);
        }
        answer.await.map_err(|_| gone())?
    }

    async fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        loop {
            let mut ready = self.fd.writable().await.context("asking the shim")?;
            match ready.try_io(|fd| Ok(send_with_fds(fd.as_fd(), text, fds)?)) {
                Ok(result) => return result.context("asking the shim"),
                Err(_) => continue,
            }
        }
    }
}
