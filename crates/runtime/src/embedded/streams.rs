//! Exec, attach and port forwarding: pipes and terminals between the caller and processes of containers.

use super::{Inner, new_id, read_json};
use crate::process::spec::{ContainerSpec, ProcessSpec};
use crate::shim::protocol::{Request, files};
use crate::sys::Context as _;
use crate::*;
use futures::FutureExt as _;
use rustix::fs::MemfdFlags;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// How much of a short command's output is kept.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
/// How long the output of a command that is over may stay open: something it left behind holds it.
const LINGER: Duration = Duration::from_secs(1);

/// Ends of pipes that go to the shim, and the caller's ends.
#[derive(Default)]
struct Pipes {
    theirs: Vec<OwnedFd>,
    streams: [bool; 3],
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
}

impl Pipes {
    fn new(streams: [bool; 3]) -> Result<Self> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("making a pipe");
        let mut out = Self { streams, ..Self::default() };
        if streams[0] {
            let (read, write) = pipe()?;
            out.theirs.push(read);
            let sender = pipe::Sender::from_owned_fd(write).context("making a pipe")?;
            out.stdin = Some(Box::new(Input(Some(sender))));
        }
        for n in [1, 2] {
            if streams[n] {
                let (read, write) = pipe()?;
                out.theirs.push(write);
                let reader: Reader = Box::new(pipe::Receiver::from_owned_fd(read).context("making a pipe")?);
                if n == 1 { out.stdout = Some(reader) } else { out.stderr = Some(reader) }
            }
        }
        Ok(out)
    }
}

impl Inner {
    /// Starts a further process. Answers its session and its name for signals.
    async fn begin_exec(&self, id: &str, request: &ExecRequest) -> Result<(Session, String)> {
        let c = self.container(id)?;
        c.running()?;
        if request.cmd.is_empty() {
            return Err(Error::invalid("an exec needs a command"));
        }
        let spec: Option<ContainerSpec> = read_json(&c.dir.join(files::SPEC));
        let base = spec.ok_or_else(|| Error::internal("the container's specification is gone"))?.process;
        let mut process = ProcessSpec { args: request.cmd.clone(), tty: request.tty, ..base };
        if request.tty && !process.env.iter().any(|e| e.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        let streams = if request.tty { [false; 3] } else { [request.stdin, request.stdout, request.stderr] };
        let pipes = Pipes::new(streams)?;
        let file = in_memory(&serde_json::to_vec(&process).map_err(|e| Error::internal(e.to_string()))?)?;
        let exec = new_id()?;
        let (sender, exit) = oneshot::channel();
        self.execs.lock().insert(exec.clone(), sender);
        let mut fds: Vec<BorrowedFd<'_>> = vec![file.as_fd()];
        fds.extend(pipes.theirs.iter().map(AsFd::as_fd));
        let ask = Request::Exec { container: c.id.clone(), exec: exec.clone(), streams: pipes.streams };
        let answer = c.sandbox.shim()?.request(ask, &fds).await;
        let (_, got) = match answer {
            Ok(answer) => answer,
            Err(e) => {
                self.execs.lock().remove(&exec);
                return Err(e.context(format!("failed to exec in container: failed to start exec {exec:?}")));
            }
        };
        drop(pipes.theirs);
        let (mut stdin, mut stdout, mut resize) = (pipes.stdin, pipes.stdout, None);
        if request.tty {
            let master = got.into_iter().next().ok_or_else(|| Error::internal("the terminal got lost"))?;
            let terminal = Terminal::new(master)?;
            stdin = request.stdin.then(|| Box::new(terminal.clone()) as Writer);
            stdout = request.stdout.then(|| Box::new(terminal.clone()) as Reader);
            resize = Some(terminal.resizer());
        }
        let exit = async move { exit.await.map_err(|_| Error::new(Code::Unavailable, "the sandbox's shim is gone")) };
        Ok((Session { stdin, stdout, stderr: pipes.stderr, resize, exit: exit.boxed() }, exec))
    }

    pub async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session> {
        self.begin_exec(id, request).await.map(|(session, _)| session)
    }

    pub async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecOutput> {
        let request = ExecRequest { cmd: cmd.to_vec(), stdout: true, stderr: true, ..Default::default() };
        let (session, exec) = self.begin_exec(id, &request).await?;
        let collect = |reader: Option<Reader>| async move {
            let mut out = vec![];
            if let Some(reader) = reader {
                // What broke off is what there is.
                let _ = reader.take(MAX_OUTPUT).read_to_end(&mut out).await;
            }
            out
        };
        let stdout = tokio::spawn(collect(session.stdout));
        let stderr = tokio::spawn(collect(session.stderr));
        let limit = if timeout.is_zero() { Duration::from_secs(u64::from(u32::MAX)) } else { timeout };
        let Ok(exit_code) = tokio::time::timeout(limit, session.exit).await else {
            let c = self.container(id)?;
            if let Ok(shim) = c.sandbox.shim() {
                let _ = shim.request(Request::SignalExec { exec, signal: libc::SIGKILL }, &[]).await;
            }
            return Err(Error::new(
                Code::DeadlineExceeded,
                format!("failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded"),
            ));
        };
        let exit_code = exit_code?;
        let finish = |task: tokio::task::JoinHandle<Vec<u8>>| async move {
            let mut task = task;
            match tokio::time::timeout(LINGER, &mut task).await {
                Ok(out) => out.unwrap_or_default(),
                Err(_) => {
                    task.abort();
                    vec![]
                }
            }
        };
        let (stdout, stderr) = tokio::join!(finish(stdout), finish(stderr));
        Ok(ExecOutput { stdout, stderr, exit_code })
    }

    pub async fn attach(&self, id: &str, request: &AttachRequest) -> Result<Session> {
        let c = self.container(id)?;
        c.running()?;
        let (tty, has_stdin) = {
            let record = c.record.lock();
            (record.config.tty, record.config.stdin)
        };
        let pipes = Pipes::new([request.stdin && has_stdin, request.stdout, request.stderr && !tty])?;
        let fds: Vec<BorrowedFd<'_>> = pipes.theirs.iter().map(AsFd::as_fd).collect();
        let ask = Request::Attach { container: c.id.clone(), streams: pipes.streams };
        let (_, got) = c.sandbox.shim()?.request(ask, &fds).await.context("failed to attach container")?;
        drop(pipes.theirs);
        let resize = match got.into_iter().next() {
            Some(master) if tty => Some(Terminal::new(master)?.resizer()),
            _ => None,
        };
        let mut exit = c.exit.subscribe();
        let exit = async move {
            let ended = exit.wait_for(Option::is_some).await;
            let code = ended.ok().and_then(|r| r.as_ref().map(|r| r.exit_code));
            code.ok_or_else(|| Error::unknown("the container was removed"))
        };
        Ok(Session { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr, resize, exit: exit.boxed() })
    }

    pub async fn port_forward(&self, id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.sandbox(id)?;
        let shim = sandbox.shim()?;
        let mut failed = vec![];
        for v6 in [false, true] {
            let begun = shim.request(Request::Connect { port, v6 }, &[]).await;
            match begun.map(|(_, fds)| fds.into_iter().next()) {
                Ok(Some(socket)) => match connected(socket).await {
                    Ok(stream) => return Ok(Box::new(stream)),
                    Err(e) => failed.push(e.to_string()),
                },
                Ok(None) => failed.push("no socket".into()),
                Err(e) => failed.push(e.message),
            }
        }
        Err(Error::unknown(format!(
            "failed to execute portforward in network namespace {:?}: failed to connect to localhost:{port} inside \
             namespace {:?}, IPv4: {} IPv6 {}",
            sandbox.netns().unwrap_or_default().display(),
            sandbox.id,
            failed[0],
            failed[1]
        )))
    }
}

/// Waits until a connection under way is made or refused.
async fn connected(socket: OwnedFd) -> std::io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(e) => Err(e),
        None => Ok(stream),
    }
}

/// A file in memory for what is too large for a packet.
fn in_memory(data: &[u8]) -> Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("spec", MemfdFlags::CLOEXEC).context("making a file in memory")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(data).and_then(|()| file.rewind()).context("making a file in memory")?;
    Ok(file)
}

/// A pipe into a process. A pipe ends only when it is closed, so that is what shutting it down does.
struct Input(Option<pipe::Sender>);

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.0 {
            Some(pipe) => Pin::new(pipe).poll_write(cx, data),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

/// Our side of a terminal.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(fd: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true).context("preparing the terminal")?;
        Ok(Self(Arc::new(super::async_fd(fd).context("preparing the terminal")?)))
    }

    /// Takes sizes as long as someone sends any.
    fn resizer(&self) -> mpsc::Sender<TermSize> {
        let (sender, mut sizes) = mpsc::channel::<TermSize>(4);
        let fd = self.0.clone();
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let size =
                    rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
                // If the program is gone its size does not matter.
                let _ = rustix::termios::tcsetwinsize(fd.get_ref(), size);
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let mut chunk = vec![0; buf.remaining().min(32 * 1024)];
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut chunk)?)) {
                Ok(Ok(n)) => {
                    buf.put_slice(&chunk[..n]);
                    return Poll::Ready(Ok(()));
                }
                // So a terminal says that no program has it open any more.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Task<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd, data)?)) {
                return Poll::Ready(result);
            }
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        // The end of input is a character, which only the user can mean.
        Poll::Ready(Ok(()))
    }
}
