//! Exec, attach and port forwarding: the hand-shake, and the bytes both ways.

use super::http::{Query, Reply};
use super::route::{Named, running_container};
use super::spdy;
use super::streams::{Inbox, Output, Remote};
use super::websocket::{self, Protocol, Wanted};
use crate::kubelet::Shared;
use bytes::{Bytes, BytesMut};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use pintle_runtime::{AttachRequest, ContainerState, ExecRequest, Reader, Session, TermSize, Writer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

/// How long a client has to open the streams it asked for.
const STREAMS_IN: Duration = Duration::from_secs(30);
/// How long output may go on after the process that was started has ended (its children may hold it open).
const DRAIN: Duration = Duration::from_secs(10);

const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// SPDY's protocols for exec and attach, the best first.
const SPDY_EXEC: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const SPDY_FORWARD: [&str; 1] = ["portforward.k8s.io"];

/// What the client wants the connection to become.
enum Upgrade {
    WebSocket,
    Spdy,
}

fn wanted_upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    let value = headers.get(UPGRADE)?.to_str().ok()?.to_ascii_lowercase();
    match value.as_str() {
        "websocket" => Some(Upgrade::WebSocket),
        v if v.starts_with("spdy/3.1") => Some(Upgrade::Spdy),
        _ => None,
    }
}

/// The values of a header that may be repeated or hold a list.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_string())
        .filter(|v| !v.is_empty())
        .collect()
}

/// The hand-shake's answer, and what was agreed on.
struct Agreed {
    reply: Reply,
    on: OnUpgrade,
    spdy: bool,
    protocol: Protocol,
    /// SPDY's version of exec.
    version: u8,
}

fn header(name: HeaderName, value: &str) -> (HeaderName, HeaderValue) {
    (name, HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("")))
}

fn shake_hands(
    request: &mut Request<Incoming>,
    spdy_known: &[&str],
    known: &'static [(&'static str, Protocol)],
) -> Result<Agreed, Reply> {
    let headers = request.headers().clone();
    match wanted_upgrade(&headers) {
        None => Err(Reply::text(400, "unable to upgrade: missing upgrade headers in request\n")),
        Some(Upgrade::Spdy) => {
            let offered = listed(&headers, &PROTOCOL);
            let chosen = if offered.is_empty() {
                Some("")
            } else {
                spdy_known.iter().find(|k| offered.iter().any(|o| o == *k)).copied()
            };
            let Some(chosen) = chosen else {
                let text = format!(
                    "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spdy_known:?}"
                );
                return Err(Reply::text(403, text).with(spdy_known.iter().map(|k| header(ACCEPTED, k))));
            };
            let mut answer = vec![header(CONNECTION, "Upgrade"), header(UPGRADE, "SPDY/3.1")];
            if !chosen.is_empty() {
                answer.push(header(PROTOCOL, chosen));
            }
            let version = chosen.strip_prefix('v').and_then(|v| v.split('.').next()?.parse().ok()).unwrap_or(1);
            let on = hyper::upgrade::on(request);
            Ok(Agreed { reply: Reply::switching(answer), on, spdy: true, protocol: Protocol::Tunnel, version })
        }
        Some(Upgrade::WebSocket) => {
            let offered = listed(&headers, &SEC_WEBSOCKET_PROTOCOL);
            // A token in place of a protocol was meant for the API server.
            let offered: Vec<String> =
                offered.into_iter().filter(|o| !o.starts_with("base64url.bearer.authorization.k8s.io.")).collect();
            let Some((name, protocol)) = websocket::choose(&offered, known) else {
                return Err(Reply::text(
                    400,
                    format!("unable to upgrade: none of the protocols {offered:?} is known\n"),
                ));
            };
            let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
                return Err(Reply::text(400, "missing Sec-WebSocket-Key\n"));
            };
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let mut answer = vec![
                header(CONNECTION, "Upgrade"),
                header(UPGRADE, "websocket"),
                header(SEC_WEBSOCKET_ACCEPT, &accept),
            ];
            if !name.is_empty() {
                answer.push(header(SEC_WEBSOCKET_PROTOCOL, name));
            }
            let on = hyper::upgrade::on(request);
            Ok(Agreed { reply: Reply::switching(answer), on, spdy: false, protocol, version: 0 })
        }
    }
}

/// What is to be connected.
enum Job {
    Exec { id: String, command: Vec<String>, wanted: Wanted },
    Attach { id: String, wanted: Wanted },
}

fn wanted(q: &Query) -> Wanted {
    let either = |a: &str, b: &str| q.is(a) || q.is(b);
    let tty = q.is("tty");
    Wanted {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        // A terminal has one output.
        stderr: either("error", "stderr") && !tty,
        tty,
    }
}

/// Serves `/exec` and `/attach`.
pub(super) fn exec_or_attach(
    k: &Arc<Shared>,
    named: &Named,
    query: &Query,
    request: Request<Incoming>,
    exec: bool,
) -> Reply {
    let container = match running_container(k, named) {
        Ok(c) => c,
        Err(reply) => return reply,
    };
    let w = wanted(query);
    if !(w.stdin || w.stdout || w.stderr) {
        return Reply::text(400, "you must specify at least 1 of stdin, stdout, stderr");
    }
    if exec && container.state != ContainerState::Running {
        return Reply::text(500, format!("container not found ({:?})", named.container));
    }
    let mut job = if exec {
        Job::Exec { id: container.id, command: query.all("command"), wanted: w }
    } else {
        Job::Attach { id: container.id, wanted: w }
    };
    if let Job::Attach { wanted, .. } = &mut job {
        // The container has a terminal or it has none, whatever is asked for.
        let spec = k.worker_named(&named.namespace, &named.pod).map(|h| h.seen.lock().pod.clone());
        let tty =
            spec.and_then(|p| crate::pod::spec::container(&p, &named.container).map(|(_, c)| c.tty == Some(true)));
        if tty == Some(true) {
            wanted.stderr = false;
        }
    }
    let mut request = request;
    let agreed = match shake_hands(&mut request, &SPDY_EXEC, &websocket::EXEC) {
        Ok(a) => a,
        Err(reply) => return reply,
    };
    let k = k.clone();
    let Agreed { reply, on, spdy, protocol, version } = agreed;
    tokio::spawn(async move {
        let Some(stream) = upgraded(on).await else { return };
        let remote = if spdy {
            spdy_remote(stream, w, version).await
        } else {
            Some(websocket::remote(stream, protocol, w).await)
        };
        if let Some(remote) = remote {
            run(&k, job, remote).await;
        }
    });
    reply
}

async fn upgraded(on: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    match on.await {
        Ok(stream) => Some(TokioIo::new(stream)),
        Err(e) => {
            tracing::debug!(error = %e, "the connection was not upgraded");
            None
        }
    }
}

/// Waits for the streams the client asked for.
async fn spdy_remote(stream: TokioIo<Upgraded>, w: Wanted, version: u8) -> Option<Remote> {
    let mut streams = spdy::serve(stream);
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    let gather = async {
        loop {
            let complete = error.is_some()
                && (stdin.is_some() || !w.stdin)
                && (stdout.is_some() || !w.stdout)
                && (stderr.is_some() || !w.stderr)
                && (resize.is_some() || !w.tty || version < 3);
            if complete {
                return true;
            }
            let Some(s) = streams.recv().await else { return false };
            match s.header("streamtype") {
                Some("error") => error = Some(s.output),
                Some("stdin") => stdin = Some(s.input),
                Some("stdout") => stdout = Some(s.output),
                Some("stderr") => stderr = Some(s.output),
                Some("resize") => resize = Some(s.input),
                _ => s.output.reset().await,
            }
        }
    };
    if !matches!(tokio::time::timeout(STREAMS_IN, gather).await, Ok(true)) {
        return None;
    }
    // Streams that come later have no meaning.
    tokio::spawn(async move { while streams.recv().await.is_some() {} });
    Some(Remote { stdin, stdout, stderr, error: error?, resize, status: version >= 4 })
}

async fn run(k: &Shared, job: Job, remote: Remote) {
    let error = remote.error.clone();
    let as_status = remote.status;
    let (opened, exec) = match &job {
        Job::Exec { id, command, wanted } => {
            let request = ExecRequest {
                cmd: command.clone(),
                tty: wanted.tty,
                stdin: wanted.stdin,
                stdout: wanted.stdout,
                stderr: wanted.stderr,
            };
            (k.runtime.exec(id, &request).await, true)
        }
        Job::Attach { id, wanted } => {
            let request = AttachRequest { stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr };
            (k.runtime.attach(id, &request).await, false)
        }
    };
    let outcome = match opened {
        Ok(session) => {
            tokio::select! {
                outcome = connect(session, remote) => outcome,
                // Nobody is there any more; the process goes on or ends as it likes.
                () = error.gone() => return,
            }
        }
        Err(e) => Err(e),
    };
    let told = match (outcome, exec) {
        (Ok(code), true) if code != 0 => Some(exit_status(code)),
        (Ok(_), _) => None,
        (Err(e), true) => Some(internal(&format!("error executing command in container: {e}"))),
        (Err(e), false) => Some(internal(&format!("error attaching to container: {e}"))),
    };
    let message = match (told, as_status) {
        (None, true) => Some(json!({"metadata": {}, "status": "Success"}).to_string()),
        (None, false) => None,
        (Some(status), true) => Some(status.to_string()),
        (Some(status), false) => status["message"].as_str().map(String::from),
    };
    if let Some(m) = message {
        error.send(m.into()).await;
    }
    error.close().await;
    error.end_connection().await;
}

fn exit_status(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn internal(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

/// Connects a process with its streams; answers its exit code.
async fn connect(session: Session, remote: Remote) -> pintle_runtime::Result<i32> {
    let mut inputs = JoinSet::new();
    let mut outputs = JoinSet::new();
    if let (Some(from), Some(to)) = (remote.stdin, session.stdin) {
        inputs.spawn(feed(from, to));
    }
    if let (Some(mut from), Some(to)) = (remote.resize, session.resize) {
        inputs.spawn(async move {
            let mut pending = vec![];
            while let Some(data) = from.recv().await {
                pending.extend_from_slice(&data);
                for size in sizes(&mut pending) {
                    // A process that has ended needs no size.
                    let _ = to.send(size).await;
                }
            }
        });
    }
    for (from, to) in [(session.stdout, remote.stdout), (session.stderr, remote.stderr)] {
        match (from, to) {
            (Some(from), Some(to)) => drop(outputs.spawn(drain(from, to))),
            (None, Some(to)) => to.close().await,
            _ => {}
        }
    }
    let code = session.exit.await;
    // All that the process wrote reaches the client before its exit code does.
    let _ = tokio::time::timeout(DRAIN, async { while outputs.join_next().await.is_some() {} }).await;
    code
}

async fn feed(mut from: Inbox, mut to: Writer) {
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The client has closed its half: so does the process's input.
    let _ = to.shutdown().await;
}

async fn drain(mut from: Reader, to: Output) {
    let mut buf = BytesMut::with_capacity(32 * 1024);
    while let Ok(n) = from.read_buf(&mut buf).await {
        if n == 0 || !to.send(buf.split().freeze()).await {
            break;
        }
        buf.reserve(32 * 1024);
    }
    to.close().await;
}

/// The whole sizes at the front of what has come so far.
fn sizes(pending: &mut Vec<u8>) -> Vec<TermSize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    #[derive(Default)]
    struct Size {
        width: u16,
        height: u16,
    }
    let mut out = vec![];
    let mut stream = serde_json::Deserializer::from_slice(pending).into_iter::<Size>();
    let mut used = 0;
    let mut broken = false;
    for next in stream.by_ref() {
        match next {
            Ok(s) => out.push(TermSize { width: s.width, height: s.height }),
            Err(e) => {
                broken = !e.is_eof();
                break;
            }
        }
    }
    used += stream.byte_offset();
    if broken {
        pending.clear();
    } else {
        pending.drain(..used.min(pending.len()));
    }
    out
}

/// Serves `/run`: a command to its end, its output as the answer.
pub(super) async fn run_command(k: &Shared, named: &Named, query: &Query) -> Reply {
    let container = match running_container(k, named) {
        Ok(c) => c,
        Err(reply) => return reply,
    };
    let command: Vec<String> = query.get("cmd").unwrap_or_default().split_whitespace().map(String::from).collect();
    match k.runtime.exec_sync(&container.id, &command, Duration::ZERO).await {
        Ok(out) if out.exit_code == 0 => Reply::bytes("text/plain; charset=utf-8", [out.stdout, out.stderr].concat()),
        Ok(out) => {
            let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
            Reply::text(500, format!("command '{}' exited with {}: {text}\n", command.join(" "), out.exit_code))
        }
        Err(e) => Reply::text(500, format!("{e}\n")),
    }
}

/// Serves `/portForward`.
pub(super) fn port_forward(k: &Arc<Shared>, named: &Named, query: &Query, request: Request<Incoming>) -> Reply {
    let sandbox = k.worker_named(&named.namespace, &named.pod).and_then(|h| {
        let seen = h.seen.lock();
        let same = named.uid.as_ref().is_none_or(|u| seen.pod.metadata.uid.as_ref() == Some(u));
        seen.runtime.ready_sandbox().filter(|_| same).map(|s| s.id.clone())
    });
    let Some(sandbox) = sandbox else { return Reply::text(404, "pod does not exist\n") };
    let mut ports = vec![];
    for text in query.all("port").iter().chain(&query.all("ports")).flat_map(|p| p.split(',')) {
        match text.parse::<u16>() {
            Ok(p) if p > 0 => ports.push(p),
            _ => return Reply::text(400, format!("unable to parse {text:?} as a port\n")),
        }
    }
    let mut request = request;
    let agreed = match shake_hands(&mut request, &SPDY_FORWARD, &websocket::FORWARD) {
        Ok(a) => a,
        Err(reply) => return reply,
    };
    let target = Target {
        k: k.clone(),
        sandbox,
        pod: format!("{}_{}", named.pod, named.namespace),
        uid: named.uid.clone().unwrap_or_default(),
    };
    let Agreed { reply, on, protocol, .. } = agreed;
    let spdy = agreed.spdy;
    tokio::spawn(async move {
        let Some(stream) = upgraded(on).await else { return };
        match (spdy, protocol) {
            (true, _) => target.by_spdy(spdy::serve(stream)).await,
            (false, Protocol::Tunnel) => target.by_spdy(spdy::serve(websocket::tunnel(stream).await)).await,
            (false, _) => {
                let mut all = JoinSet::new();
                for f in websocket::forward(stream, protocol, &ports).await {
                    all.spawn(target.clone().forward(f.port, f.input, f.output, f.error));
                }
                while all.join_next().await.is_some() {}
            }
        }
    });
    reply
}

#[derive(Clone)]
struct Target {
    k: Arc<Shared>,
    sandbox: String,
    pod: String,
    uid: String,
}

impl Target {
    /// Pairs the streams of each request and connects them.
    async fn by_spdy(self, mut streams: tokio::sync::mpsc::Receiver<spdy::Opened>) {
        let mut half: HashMap<String, spdy::Opened> = HashMap::new();
        let mut running = JoinSet::new();
        loop {
            let stream = tokio::select! {
                s = streams.recv() => s,
                Some(_) = running.join_next() => continue,
            };
            let Some(stream) = stream else { return };
            let kind = stream.header("streamtype").unwrap_or_default().to_string();
            if kind != "error" && kind != "data" {
                stream.output.reset().await;
                continue;
            }
            // Old clients name no request; theirs is the port.
            let name = stream.header("requestid").or_else(|| stream.header("port")).unwrap_or_default();
            let Some(other) = half.remove(name) else {
                half.insert(name.to_string(), stream);
                continue;
            };
            let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
            let port = data.header("port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0);
            let Some(port) = port else {
                error.output.send(Bytes::from_static(b"unable to parse the port")).await;
                error.output.close().await;
                data.output.reset().await;
                continue;
            };
            running.spawn(self.clone().forward(port, data.input, data.output, error.output));
        }
    }

    async fn forward(self, port: u16, mut input: Inbox, output: Output, error: Output) {
        let opened = self.k.runtime.port_forward(&self.sandbox, port).await;
        let mut stream = match opened {
            Ok(s) => s,
            Err(e) => {
                let text = format!("error forwarding port {port} to pod {}, uid {}: {e}", self.pod, self.uid);
                error.send(text.into()).await;
                error.close().await;
                output.close().await;
                return;
            }
        };
        let mut buf = BytesMut::with_capacity(32 * 1024);
        let (mut open_in, mut open_out) = (true, true);
        while open_out {
            tokio::select! {
                data = input.recv(), if open_in => match data {
                    Some(data) => {
                        if stream.write_all(&data).await.is_err() || stream.flush().await.is_err() {
                            break;
                        }
                    }
                    None => {
                        open_in = false;
                        if stream.shutdown().await.is_err() {
                            break;
                        }
                    }
                },
                read = stream.read_buf(&mut buf) => match read {
                    Ok(n) if n > 0 => {
                        if !output.send(buf.split().freeze()).await {
                            return;
                        }
                        buf.reserve(32 * 1024);
                    }
                    _ => open_out = false,
                },
                () = output.gone() => return,
            }
        }
        output.close().await;
        error.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sizes() {
        let mut pending = br#"{"Width":80,"Height":24}{"Width":1"#.to_vec();
        assert_eq!(sizes(&mut pending), [TermSize { width: 80, height: 24 }]);
        pending.extend_from_slice(b"00,\"Height\":30}\n");
        assert_eq!(sizes(&mut pending), [TermSize { width: 100, height: 30 }]);
        pending.extend_from_slice(b"nonsense");
        assert_eq!(sizes(&mut pending), []);
        assert!(pending.is_empty());
    }

    #[test]
    fn headers() {
        let mut h = HeaderMap::new();
        h.append(PROTOCOL, HeaderValue::from_static("v4.channel.k8s.io, v3.channel.k8s.io"));
        h.append(PROTOCOL, HeaderValue::from_static("channel.k8s.io"));
        assert_eq!(listed(&h, &PROTOCOL).len(), 3);
        h.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(matches!(wanted_upgrade(&h), Some(Upgrade::Spdy)));
    }
}
