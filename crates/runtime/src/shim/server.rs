//! The shim's loop: one poll over the socket, the children's ends and every stream.

use super::container::{Attached, Container, Got, Output, State, read_some};
use super::log::{Log, Stream};
use super::oom::OomWatch;
use super::protocol::{
    ExitRecord, Failure, Happened, MAX_PACKET, Reply, Request, StartRecord, ToDaemon, ToShim, files,
};
use crate::process::spec::{ContainerSpec, PidSpec, ProcessSpec};
use crate::process::{self, Message, ParentEnd, SandboxNamespaces, SavedPidNamespace, Stdio};
use crate::sys::{self, Context as _, Fork};
use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags};
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A further process of a container.
#[derive(Debug)]
struct Exec {
    pid: i32,
    /// Until the program runs: who waits for it, and the line to it.
    starting: Option<((u64, u64), ParentEnd)>,
    console: Option<OwnedFd>,
}

/// What a descriptor in the poll is.
#[derive(Clone, Debug)]
enum Source {
    Signals,
    Listener,
    Connection(u64),
    Control(String),
    ExecControl(String),
    Output(String, Stream),
    Input(String),
    AttachInput(u64),
    AttachOutput(u64, usize),
    Oom(String),
}

/// The shim.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    namespaces: SandboxNamespaces,
    listener: OwnedFd,
    signals: OwnedFd,
    connections: BTreeMap<u64, OwnedFd>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<String, Exec>,
    attached: BTreeMap<u64, Attached>,
    next: u64,
    /// Who asked to stop.
    stopping: Option<(u64, u64)>,
}

impl Server {
    pub fn new(dir: PathBuf, namespaces: SandboxNamespaces, listener: OwnedFd, signals: OwnedFd) -> Self {
        Self {
            dir,
            namespaces,
            listener,
            signals,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            attached: BTreeMap::new(),
            next: 0,
            stopping: None,
        }
    }

    /// Serves until told to stop.
    pub fn run(&mut self) -> i32 {
        loop {
            if let Some((connection, id)) = self.stopping
                && self.containers.values().all(|c| matches!(c.state, State::Exited))
            {
                if let Some(pid) = self.namespaces.pause {
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
                let _ = std::fs::remove_file(self.dir.join(files::SOCKET));
                self.answer(connection, id, Ok(Reply::Done), &[]);
                return 0;
            }
            for (source, flags) in self.poll() {
                self.handle(&source, flags);
            }
        }
    }

    fn poll(&self) -> Vec<(Source, PollFlags)> {
        let mut sources = vec![];
        let mut fds: Vec<PollFd<'_>> = vec![];
        let mut add = |source: Source, fd: BorrowedFd<'_>, flags: PollFlags| {
            sources.push(source);
            // SAFETY: every descriptor borrowed here belongs to `self`, which does not change before poll returns.
            let fd = unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&fd)) };
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        add(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        add(Source::Listener, self.listener.as_fd(), PollFlags::IN);
        for (key, c) in &self.connections {
            add(Source::Connection(*key), c.as_fd(), PollFlags::IN);
        }
        for (id, c) in &self.containers {
            if let State::Starting { control, .. } = &c.state {
                add(Source::Control(id.clone()), control.as_fd(), PollFlags::IN);
            }
            let blocked = |n: usize| {
                let own = self.attached.values().filter(|a| a.container == *id);
                own.filter_map(|a| a.outputs[n].as_ref()).any(Output::full)
            };
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = c.source(stream)
                    && !blocked(stream as usize)
                    && !matches!(c.state, State::Exited)
                {
                    add(Source::Output(id.clone(), stream), fd.as_fd(), PollFlags::IN);
                }
            }
            if let Some(fd) = c.console.as_ref().or(c.stdin.as_ref())
                && !c.stdin_pending.is_empty()
            {
                add(Source::Input(id.clone()), fd.as_fd(), PollFlags::OUT);
            }
            if let Some(oom) = &c.oom {
                add(Source::Oom(id.clone()), oom.as_fd(), PollFlags::IN);
            }
        }
        for (id, e) in &self.execs {
            if let Some((_, control)) = &e.starting {
                add(Source::ExecControl(id.clone()), control.as_fd(), PollFlags::IN);
            }
        }
        for (key, a) in &self.attached {
            let ready = self.containers.get(&a.container).is_some_and(Container::wants_input);
            if let (Some(fd), true) = (&a.stdin, ready) {
                add(Source::AttachInput(*key), fd.as_fd(), PollFlags::IN);
            }
            for (n, out) in a.outputs.iter().enumerate() {
                if let Some(out) = out {
                    // Without anything to write it is still told that the reader is gone.
                    let flags = if out.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                    add(Source::AttachOutput(*key, n), out.fd.as_fd(), flags);
                }
            }
        }
        if let Err(e) = rustix::event::poll(&mut fds, None)
            && e != rustix::io::Errno::INTR
        {
            eprintln!("poll: {e}");
        }
        let flags = fds.iter().map(PollFd::revents).collect::<Vec<_>>();
        sources.into_iter().zip(flags).filter(|(_, f)| !f.is_empty()).collect()
    }

    fn handle(&mut self, source: &Source, flags: PollFlags) {
        match source {
            Source::Signals => self.reap(),
            Source::Listener => self.accept(),
            Source::Connection(key) => self.serve(*key),
            Source::Control(id) => self.starting(id),
            Source::ExecControl(id) => self.exec_starting(id),
            Source::Output(id, stream) => drop(self.pump(id, *stream)),
            Source::Input(id) => self.containers.get_mut(id).into_iter().for_each(Container::feed),
            Source::AttachInput(key) => self.attach_input(*key),
            Source::AttachOutput(key, n) => {
                if let Some(a) = self.attached.get_mut(key)
                    && let Some(out) = &mut a.outputs[*n]
                    && (flags.intersects(PollFlags::ERR | PollFlags::HUP) || !out.flush())
                {
                    a.outputs[*n] = None;
                }
                self.drop_finished();
            }
            Source::Oom(id) => self.check_oom(id),
        }
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        if let Ok(fd) = rustix::net::accept_with(&self.listener, flags) {
            self.next += 1;
            self.connections.insert(self.next, fd);
        }
    }

    fn serve(&mut self, key: u64) {
        let Some(fd) = self.connections.get(&key) else { return };
        let mut data = vec![0; MAX_PACKET];
        let (len, fds) = match process::receive_with_fds(fd.as_fd(), &mut data) {
            Ok((0, _)) => {
                self.connections.remove(&key);
                return;
            }
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => {
                self.connections.remove(&key);
                return;
            }
        };
        let Ok(message) = serde_json::from_slice::<ToShim>(&data[..len]) else {
            // Whoever speaks another language is not our daemon.
            self.connections.remove(&key);
            return;
        };
        let id = message.id;
        match self.request(message.request, fds, (key, id)) {
            Ok(None) => {}
            Ok(Some((reply, fds))) => {
                let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                self.answer(key, id, Ok(reply), &borrowed);
            }
            Err(e) => self.answer(key, id, Err(e), &[]),
        }
    }

    /// Does what is wanted. `None` means that the answer comes later.
    fn request(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
        from: (u64, u64),
    ) -> Result<Option<(Reply, Vec<OwnedFd>)>> {
        let done = Ok(Some((Reply::Done, vec![])));
        match request {
            Request::Start { container } => self.start(&container, from).map(|()| None),
            Request::Exec { container, exec, streams } => {
                self.exec(&container, exec, streams, fds, from).map(|()| None)
            }
            Request::Stop => {
                self.stopping = Some(from);
                for c in self.containers.values().filter(|c| !matches!(c.state, State::Exited)) {
                    signal_all(c, libc::SIGKILL)?;
                }
                Ok(None)
            }
            Request::Signal { container, signal, all } => {
                let c = self.container(&container)?;
                if matches!(c.state, State::Exited) {
                    return done;
                }
                if all {
                    signal_all(c, signal)?
                } else {
                    sys::kill(c.pid, signal).context("sending a signal")?
                }
                done
            }
            Request::SignalExec { exec, signal } => {
                if let Some(e) = self.execs.get(&exec) {
                    sys::kill(e.pid, signal).context("sending a signal")?;
                }
                done
            }
            Request::Attach { container, streams } => {
                let console = self.attach(&container, streams, fds)?;
                Ok(Some((Reply::Done, console.into_iter().collect())))
            }
            Request::ReopenLog { container } => {
                self.container(&container)?.log.reopen().context("reopening the log")?;
                done
            }
            Request::Forget { container } => {
                if self.containers.get(&container).is_some_and(|c| matches!(c.state, State::Exited)) {
                    self.containers.remove(&container);
                }
                done
            }
            Request::Connect { port, v6 } => Ok(Some((Reply::Done, vec![self.connect(port, v6)?]))),
            Request::Interfaces => {
                let read = || std::fs::read_to_string("/proc/self/net/dev").context("reading /proc/self/net/dev");
                let text = match &self.namespaces.net {
                    Some(net) => process::in_netns(net, read)??,
                    None => String::new(),
                };
                Ok(Some((Reply::Text(text), vec![])))
            }
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| Error::not_found(format!("container {id:?} is not running")))
    }

    fn answer(&self, connection: u64, id: u64, result: Result<Reply>, fds: &[BorrowedFd<'_>]) {
        self.send(connection, &ToDaemon::Answer { id, result: result.map_err(Failure::from) }, fds);
    }

    fn send(&self, connection: u64, message: &ToDaemon, fds: &[BorrowedFd<'_>]) {
        let Some(fd) = self.connections.get(&connection) else { return };
        let Ok(text) = serde_json::to_vec(message) else { return };
        // A daemon that does not read loses the message; what matters is on disk, and it lists when it comes back.
        let _ = process::send_with_fds(fd.as_fd(), &text, fds);
    }

    fn tell(&self, what: &Happened) {
        for key in self.connections.keys() {
            self.send(*key, &ToDaemon::Event(what.clone()), &[]);
        }
    }

    // ---- life of a container ----

    fn start(&mut self, id: &str, reply_to: (u64, u64)) -> Result<()> {
        if self.stopping.is_some() {
            return Err(Error::precondition("the sandbox is being stopped"));
        }
        if self.containers.contains_key(id) {
            return Err(Error::precondition(format!("container {id:?} was started already")));
        }
        let dir = self.dir.join(files::CONTAINERS).join(id);
        let text = std::fs::read(dir.join(files::SPEC)).context("reading the container's specification")?;
        let spec: ContainerSpec = serde_json::from_slice(&text)
            .map_err(|e| Error::internal(format!("reading the container's specification: {e}")))?;
        let log = Log::open(&spec.log_path).context(format!("opening the log {}", spec.log_path.display()))?;
        let (theirs, ours) = streams(&spec)?;
        let oom = spec.oom.clone().and_then(|c| OomWatch::new(c).ok());
        let (control, child) = ParentEnd::pair()?;
        let shm = self.dir.join(files::SHM);
        let pid = match self.fork_into(&spec.pid)? {
            Fork::Child => process::init_child(&spec, &self.namespaces, &shm, theirs, &child),
            Fork::Parent(pid) => pid,
        };
        let [stdin, stdout, stderr] = ours;
        let state = State::Starting { reply_to, control, record: StartRecord::default() };
        let container = Container {
            dir,
            spec,
            pid,
            state,
            log,
            outputs: [stdout, stderr],
            stdin,
            stdin_pending: vec![],
            stdin_closing: false,
            console: None,
            oom,
            oom_killed: false,
        };
        self.containers.insert(id.into(), container);
        Ok(())
    }

    /// Forks with the child born in a namespace of process ids.
    fn fork_into(&self, pid: &PidSpec) -> Result<Fork> {
        let _saved = match pid {
            PidSpec::Host => None,
            PidSpec::Own => Some(SavedPidNamespace::enter(None)?),
            PidSpec::Sandbox => {
                let ns = self.namespaces.pid.as_ref();
                let ns = ns.ok_or_else(|| Error::internal("the sandbox has no namespace of process ids"))?;
                Some(SavedPidNamespace::enter(Some(ns))?)
            }
            PidSpec::Container(other) => {
                let target = self.containers.get(other).filter(|c| matches!(c.state, State::Running));
                let target =
                    target.ok_or_else(|| Error::not_found(format!("target container {other:?} is not running")))?;
                Some(SavedPidNamespace::enter(Some(&process::open_ns(target.pid, "pid")?))?)
            }
        };
        match sys::fork().context("forking")? {
            Fork::Child => {
                // The child's own children belong where it is; dropping would try to go back.
                std::mem::forget(_saved);
                Ok(Fork::Child)
            }
            parent => Ok(parent),
        }
    }

    /// Hears what a starting container's child has to say.
    fn starting(&mut self, id: &str) {
        loop {
            let Some(c) = self.containers.get_mut(id) else { return };
            let State::Starting { control, record, reply_to } = &mut c.state else { return };
            let reply_to = *reply_to;
            match control.receive() {
                None => return,
                Some(Message::Console(fd)) => {
                    let _ = rustix::io::ioctl_fionbio(&fd, true);
                    c.console = Some(fd);
                }
                Some(Message::User(user)) => record.user = user,
                Some(Message::Started) => {
                    record.pid = c.pid.cast_unsigned();
                    record.start_time = sys::start_time(record.pid).unwrap_or(0);
                    record.started_at = sys::now();
                    let record = record.clone();
                    c.state = State::Running;
                    if let Err(e) = write_json(&c.dir.join(files::STARTED), &record, false) {
                        eprintln!("{id}: {}", e.message);
                    }
                    self.answer(reply_to.0, reply_to.1, Ok(Reply::Started(record)), &[]);
                    return;
                }
                Some(Message::Failed(message)) => {
                    c.state = State::Exited;
                    let record = ExitRecord {
                        exit_code: 128,
                        finished_at: sys::now(),
                        reason: "StartError".into(),
                        message: message.clone(),
                    };
                    if let Err(e) = write_json(&c.dir.join(files::EXIT), &record, true) {
                        eprintln!("{id}: {}", e.message);
                    }
                    self.answer(reply_to.0, reply_to.1, Err(Error::unknown(message)), &[]);
                    return;
                }
            }
        }
    }

    fn pump(&mut self, id: &str, stream: Stream) -> bool {
        let Some(c) = self.containers.get_mut(id) else { return false };
        c.pump(stream, self.attached.values_mut().filter(|a| a.container == id))
    }

    fn check_oom(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        if c.oom.as_mut().is_some_and(OomWatch::check) {
            c.oom_killed = true;
            self.tell(&Happened::Oom { container: id.into() });
        }
    }

    /// Takes the ends of children, our own and those left to us.
    fn reap(&mut self) {
        // The signals themselves say nothing: one may stand for several ends.
        let _ = rustix::io::read(&self.signals, &mut [0u8; 1024]);
        loop {
            let Ok(Some((pid, status))) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) else { return };
            let pid = pid.as_raw_nonzero().get();
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                _ => continue,
            };
            if let Some(id) = self.containers.iter().find(|(_, c)| c.pid == pid).map(|(id, _)| id.clone()) {
                self.ended(&id, code);
            } else if let Some(id) = self.execs.iter().find(|(_, e)| e.pid == pid).map(|(id, _)| id.clone()) {
                // Its line may still hold why it did not start.
                self.exec_starting(&id);
                if self.execs.remove(&id).is_some() {
                    self.tell(&Happened::ExecExited { exec: id, exit_code: code });
                }
            }
        }
    }

    fn ended(&mut self, id: &str, code: i32) {
        self.starting(id);
        let Some(c) = self.containers.get_mut(id) else { return };
        if let State::Starting { reply_to, .. } = c.state {
            // It died without a word.
            let message = format!("the container's process ended during its start with {code}");
            self.answer(reply_to.0, reply_to.1, Err(Error::unknown(message)), &[]);
        }
        let Some(c) = self.containers.get_mut(id) else { return };
        if matches!(c.state, State::Exited) {
            c.oom = None;
            return;
        }
        if c.spec.pid != PidSpec::Own
            && let Err(e) = signal_all(c, libc::SIGKILL)
        {
            eprintln!("{id}: {}", e.message);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.pump(id, stream) {}
        }
        self.check_oom(id);
        let Some(c) = self.containers.get_mut(id) else { return };
        let now = sys::now();
        c.log.end(Stream::Stdout, now);
        c.log.end(Stream::Stderr, now);
        (c.outputs, c.console, c.stdin, c.oom) = ([None, None], None, None, None);
        c.state = State::Exited;
        let record = c.exit_record(code);
        if let Err(e) = write_json(&c.dir.join(files::EXIT), &record, true) {
            eprintln!("{id}: {}", e.message);
        }
        self.tell(&Happened::Exited { container: id.into(), record });
        self.drop_finished();
    }

    // ---- further processes ----

    fn exec(
        &mut self,
        container: &str,
        exec: String,
        streams: [bool; 3],
        fds: Vec<OwnedFd>,
        reply_to: (u64, u64),
    ) -> Result<()> {
        let c = self.containers.get(container).filter(|c| matches!(c.state, State::Running));
        let c = c.ok_or_else(|| Error::not_found(format!("container {container:?} is not running")))?;
        let mut fds = fds.into_iter();
        let spec = fds.next().ok_or_else(|| Error::invalid("an exec without specification"))?;
        let mut take = |wanted: bool| if wanted { fds.next() } else { None };
        let stdio = Stdio { stdin: take(streams[0]), stdout: take(streams[1]), stderr: take(streams[2]) };
        let process = read_spec(spec)?;
        let (control, child) = ParentEnd::pair()?;
        let pid_ns = PidSpec::Container(container.into());
        let host = c.spec.pid == PidSpec::Host;
        match self.fork_into(if host { &PidSpec::Host } else { &pid_ns })? {
            Fork::Child => process::exec_child(&c.spec, &process, c.pid, stdio, &child),
            Fork::Parent(pid) => {
                let starting = Some((reply_to, control));
                self.execs.insert(exec, Exec { pid, starting, console: None });
            }
        }
        Ok(())
    }

    fn exec_starting(&mut self, id: &str) {
        loop {
            let Some(e) = self.execs.get_mut(id) else { return };
            let Some((reply_to, control)) = &e.starting else { return };
            let (connection, request) = *reply_to;
            match control.receive() {
                None => return,
                Some(Message::Console(fd)) => e.console = Some(fd),
                Some(Message::User(_)) => {}
                Some(Message::Started) => {
                    e.starting = None;
                    let reply = Reply::ExecStarted { pid: e.pid.cast_unsigned() };
                    let console = e.console.take();
                    let fds: Vec<BorrowedFd<'_>> = console.iter().map(AsFd::as_fd).collect();
                    self.answer(connection, request, Ok(reply), &fds);
                    return;
                }
                Some(Message::Failed(message)) => {
                    // Its end is still to be reaped, but nobody asks for the code.
                    self.execs.remove(id);
                    self.answer(connection, request, Err(Error::unknown(message)), &[]);
                    return;
                }
            }
        }
    }

    // ---- streams ----

    fn attach(&mut self, container: &str, streams: [bool; 3], fds: Vec<OwnedFd>) -> Result<Option<OwnedFd>> {
        let c = self.container(container)?;
        if !matches!(c.state, State::Running) {
            return Err(Error::not_found(format!("container {container:?} is not running")));
        }
        let console = c.console.as_ref().map(|fd| fd.try_clone().context("duplicating the terminal")).transpose()?;
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| if wanted { fds.next() } else { None };
        let stdin = take(streams[0]);
        let mut output = |n: usize| take(streams[n]).map(|fd| Output { fd, pending: vec![] });
        let outputs = [output(1), output(2)];
        for fd in stdin.iter().chain(outputs.iter().flatten().map(|o| &o.fd)) {
            rustix::io::ioctl_fionbio(fd, true).context("attaching")?;
        }
        self.next += 1;
        self.attached.insert(self.next, Attached { container: container.into(), stdin, outputs });
        Ok(console)
    }

    fn attach_input(&mut self, key: u64) {
        let Some(a) = self.attached.get_mut(&key) else { return };
        let Some(fd) = &a.stdin else { return };
        let got = read_some(fd);
        let Some(c) = self.containers.get_mut(&a.container) else { return };
        match got {
            Got::Nothing => {}
            Got::Data(data) => {
                c.stdin_pending.extend(data);
                c.feed();
            }
            Got::End => {
                a.stdin = None;
                if c.spec.stdin_once {
                    c.stdin_closing = true;
                    c.feed();
                }
            }
        }
        self.drop_finished();
    }

    /// Forgets those who left, and those whose container is over once they have read everything.
    fn drop_finished(&mut self) {
        let containers = &self.containers;
        self.attached.retain(|_, a| {
            if containers.get(&a.container).is_none_or(|c| matches!(c.state, State::Exited)) {
                a.stdin = None;
                for slot in &mut a.outputs {
                    if slot.as_ref().is_some_and(|o| o.pending.is_empty()) {
                        *slot = None;
                    }
                }
            }
            a.stdin.is_some() || a.outputs.iter().any(Option::is_some)
        });
    }

    fn connect(&self, port: u16, v6: bool) -> Result<OwnedFd> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
        let begin = || -> Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
                .context("making a socket")?;
            let ip: std::net::IpAddr =
                if v6 { std::net::Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() };
            match rustix::net::connect(&socket, &std::net::SocketAddr::new(ip, port)) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
                Err(e) => Err(e).context(format!("connecting to port {port}")),
            }
        };
        match &self.namespaces.net {
            Some(net) => process::in_netns(net, begin)?,
            None => begin(),
        }
    }
}

/// The container's and our ends of its streams.
fn streams(spec: &ContainerSpec) -> Result<(Stdio, [Option<OwnedFd>; 3])> {
    if spec.process.tty {
        return Ok((Stdio::default(), [None, None, None]));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("making a pipe");
    let own = |fd: OwnedFd| -> Result<Option<OwnedFd>> {
        rustix::io::ioctl_fionbio(&fd, true).context("making a pipe")?;
        Ok(Some(fd))
    };
    let (out, out_write) = pipe()?;
    let (err, err_write) = pipe()?;
    let mut stdio = Stdio { stdin: None, stdout: Some(out_write), stderr: Some(err_write) };
    let mut ours = [None, own(out)?, own(err)?];
    if spec.stdin {
        let (read, write) = pipe()?;
        stdio.stdin = Some(read);
        ours[0] = own(write)?;
    }
    Ok((stdio, ours))
}

fn read_spec(fd: OwnedFd) -> Result<ProcessSpec> {
    let mut file = std::fs::File::from(fd);
    let mut text = vec![];
    file.rewind().and_then(|()| file.read_to_end(&mut text)).context("reading the process's specification")?;
    serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("the process's specification: {e}")))
}

/// Signals every process of a container: those of its cgroup.
fn signal_all(c: &Container, signal: i32) -> Result<()> {
    let mut pids = vec![c.pid];
    for file in &c.spec.cgroup_procs {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pids.extend(text.lines().filter_map(|l| l.trim().parse::<i32>().ok()).filter(|p| *p > 1));
    }
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        sys::kill(pid, signal).context(format!("sending a signal to {pid}"))?;
    }
    Ok(())
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T, durable: bool) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::internal(e.to_string()))?;
    sys::write_atomic(path, &text, durable).context(format!("writing {}", path.display()))
}
