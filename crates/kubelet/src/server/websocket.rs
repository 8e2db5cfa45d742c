//! WebSockets as the API speaks them: numbered channels in one connection, or a tunnel for SPDY.

use super::streams::{Inbox, Output, Remote, ToPeer, inbox};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// What the peer and we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Channels in binary messages, by version (0 has no name of its own).
    Channels(u8),
    /// Channels in text messages, the contents in base64.
    Base64(u8),
    /// SPDY/3.1 in binary messages.
    Tunnel,
}

/// What exec and attach take.
pub const EXEC: [(&str, Protocol); 6] = [
    ("v5.channel.k8s.io", Protocol::Channels(5)),
    ("v4.channel.k8s.io", Protocol::Channels(4)),
    ("v4.base64.channel.k8s.io", Protocol::Base64(4)),
    ("channel.k8s.io", Protocol::Channels(0)),
    ("base64.channel.k8s.io", Protocol::Base64(0)),
    ("", Protocol::Channels(0)),
];

/// What port forwarding takes.
pub const FORWARD: [(&str, Protocol); 4] = [
    ("SPDY/3.1+portforward.k8s.io", Protocol::Tunnel),
    ("v4.channel.k8s.io", Protocol::Channels(4)),
    ("v4.base64.channel.k8s.io", Protocol::Base64(4)),
    ("", Protocol::Channels(4)),
];

/// The first of the client's protocols that we speak. A client that names none gets the one without a name.
pub fn choose(offered: &[String], known: &'static [(&'static str, Protocol)]) -> Option<(&'static str, Protocol)> {
    if offered.is_empty() {
        return known.iter().find(|(n, _)| n.is_empty()).copied();
    }
    offered.iter().find_map(|o| known.iter().find(|(n, _)| !n.is_empty() && n == o)).copied()
}

/// The number of the channel that tells which other channel is closed (version 5).
const CLOSE: u8 = 255;
const STDIN: u8 = 0;
const RESIZE: u8 = 4;

type Socket<S> = WebSocketStream<Ending<S>>;

/// A stream whose sending direction ends with the flush after it was told to. Clients there are that wait for bytes
/// from the network while the last frames are within their TLS library: only the end of the connection wakes them.
struct Ending<S> {
    inner: S,
    end: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        if self.end.load(Ordering::Acquire) {
            return Pin::new(&mut self.inner).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

async fn socket<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(inner: S) -> (Socket<S>, Arc<AtomicBool>) {
    let end = Arc::default();
    let stream = Ending { inner, end: Arc::clone(&end) };
    (WebSocketStream::from_raw_socket(stream, Role::Server, None).await, end)
}

/// Opens channels: `inputs` are those the client writes to. The outputs are numbered as they are sent.
async fn channels<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    protocol: Protocol,
    inputs: &[u8],
) -> (BTreeMap<u8, Inbox>, mpsc::Sender<ToPeer>) {
    let (socket, end) = socket(stream).await;
    let (sink, source) = socket.split();
    let (tx, rx) = mpsc::channel(64);
    let (mut senders, mut receivers) = (BTreeMap::new(), BTreeMap::new());
    for channel in inputs {
        let (s, r) = inbox();
        senders.insert(*channel, s);
        receivers.insert(*channel, r);
    }
    tokio::spawn(write_channels(sink, rx, protocol, end));
    // The reader holds no sender, so that the writer ends with those who use it.
    let alive = tx.downgrade();
    tokio::spawn(async move {
        read_channels(source, senders, protocol).await;
        // The peer is gone: a writer that waits for nothing must not wait for ever.
        if let Some(tx) = alive.upgrade() {
            let _ = tx.send(ToPeer::End).await;
        }
    });
    (receivers, tx)
}

async fn write_channels<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<Socket<S>, Message>,
    mut rx: mpsc::Receiver<ToPeer>,
    protocol: Protocol,
    end: Arc<AtomicBool>,
) {
    while let Some(message) = rx.recv().await {
        let out = match message {
            ToPeer::Data(id, data) => {
                let id = u8::try_from(id).unwrap_or(CLOSE);
                match protocol {
                    Protocol::Base64(_) => {
                        Message::text(format!("{}{}", char::from(b'0' + id.min(9)), BASE64.encode(&data)))
                    }
                    _ => {
                        let mut framed = BytesMut::with_capacity(data.len() + 1);
                        framed.put_u8(id);
                        framed.put(data);
                        Message::binary(framed.freeze())
                    }
                }
            }
            ToPeer::End => break,
            // Channels have no end of their own towards the client.
            ToPeer::Close(_) | ToPeer::Reset(_) | ToPeer::Accept(_) | ToPeer::Pong(_) => continue,
        };
        if sink.send(out).await.is_err() {
            return;
        }
    }
    close(&mut sink, &end).await;
}

/// Ends a connection in order: clients take an end without a code for a failure.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(sink: &mut SplitSink<Socket<S>, Message>, end: &AtomicBool) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // A client that is gone needs no end.
    let _ = sink.send(Message::Close(Some(frame))).await;
    end.store(true, Ordering::Release);
    let _ = sink.flush().await;
}

async fn read_channels<S: AsyncRead + AsyncWrite + Unpin>(
    mut source: SplitStream<Socket<S>>,
    mut senders: BTreeMap<u8, mpsc::Sender<Bytes>>,
    protocol: Protocol,
) {
    while let Some(Ok(message)) = source.next().await {
        let (channel, data) = match message {
            Message::Binary(data) => match data.first() {
                Some(c) => (*c, data.slice(1..)),
                None => continue,
            },
            Message::Text(text) => {
                let bytes = text.as_bytes();
                let Some((first, rest)) = bytes.split_first() else { continue };
                let channel = first.wrapping_sub(b'0');
                match protocol {
                    Protocol::Base64(_) => match BASE64.decode(rest) {
                        Ok(data) => (channel, Bytes::from(data)),
                        Err(_) => return,
                    },
                    _ => (*first, Bytes::copy_from_slice(rest)),
                }
            }
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if channel == CLOSE && protocol == Protocol::Channels(5) {
            if let Some(closed) = data.first() {
                senders.remove(closed);
            }
            continue;
        }
        let Some(to) = senders.get(&channel) else { continue };
        if data.is_empty() {
            continue;
        }
        if to.send(data).await.is_err() {
            // Nobody reads it any more.
            senders.remove(&channel);
        }
    }
}

/// Which streams an exec or attach wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Error output.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// The streams of an exec or attach.
pub async fn remote<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    protocol: Protocol,
    wanted: Wanted,
) -> Remote {
    let (mut inputs, tx) = channels(stream, protocol, &[STDIN, RESIZE]).await;
    let version = match protocol {
        Protocol::Channels(v) | Protocol::Base64(v) => v,
        Protocol::Tunnel => 0,
    };
    let out = |n: u32| Output::new(n, tx.clone());
    let remote = Remote {
        stdin: inputs.remove(&STDIN).filter(|_| wanted.stdin),
        stdout: wanted.stdout.then(|| out(1)),
        stderr: wanted.stderr.then(|| out(2)),
        error: out(3),
        resize: inputs.remove(&RESIZE).filter(|_| wanted.tty),
        status: version >= 4,
    };
    // A client learns from empty messages which channels are open.
    for o in [&remote.stdout, &remote.stderr].into_iter().flatten() {
        o.send(Bytes::new()).await;
    }
    remote.error.send(Bytes::new()).await;
    remote
}

/// One forwarded port's data and error streams.
pub struct Forwarded {
    /// The port.
    pub port: u16,
    /// From the client.
    pub input: Inbox,
    /// To the client.
    pub output: Output,
    /// What failed.
    pub error: Output,
}

/// Port forwarding by channels: two a port, each begun by the port's number.
pub async fn forward<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    protocol: Protocol,
    ports: &[u16],
) -> Vec<Forwarded> {
    let numbers: Vec<u8> = (0..ports.len()).filter_map(|i| u8::try_from(i * 2).ok()).collect();
    let (mut inputs, tx) = channels(stream, protocol, &numbers).await;
    let mut all = vec![];
    for (n, port) in numbers.iter().zip(ports) {
        let Some(input) = inputs.remove(n) else { continue };
        let output = Output::new(u32::from(*n), tx.clone());
        let error = Output::new(u32::from(*n) + 1, tx.clone());
        for o in [&output, &error] {
            o.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        all.push(Forwarded { port: *port, input, output, error });
    }
    all
}

/// The bytes inside a tunnel.
pub async fn tunnel<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> DuplexStream {
    let (socket, end) = socket(stream).await;
    let (mut sink, mut source) = socket.split();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut read, mut write) = tokio::io::split(theirs);
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(data) => {
                    let written = write.write_all(&data).await;
                    if written.is_err() {
                        break;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = write.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buf = BytesMut::with_capacity(32 * 1024);
        while let Ok(n) = read.read_buf(&mut buf).await {
            if n == 0 || sink.send(Message::binary(buf.split().freeze())).await.is_err() {
                break;
            }
            buf.reserve(32 * 1024);
        }
        close(&mut sink, &end).await;
    });
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_of_protocol() {
        let own = |l: &[&str]| l.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            choose(&own(&["x", "v5.channel.k8s.io", "v4.channel.k8s.io"]), &EXEC).unwrap().1,
            Protocol::Channels(5)
        );
        assert_eq!(choose(&own(&["base64.channel.k8s.io"]), &EXEC).unwrap().1, Protocol::Base64(0));
        assert_eq!(choose(&[], &EXEC).unwrap().1, Protocol::Channels(0));
        assert_eq!(choose(&own(&["x"]), &EXEC), None);
        assert_eq!(choose(&own(&["SPDY/3.1+portforward.k8s.io"]), &FORWARD).unwrap().1, Protocol::Tunnel);
    }

    async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    #[tokio::test]
    async fn channels_of_version_5() {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let wanted = Wanted { stdin: true, stdout: true, ..Default::default() };
        let mut remote = remote(a, Protocol::Channels(5), wanted).await;
        assert!(remote.status && remote.stderr.is_none() && remote.resize.is_none());
        let mut c = client(b).await;
        c.send(Message::binary(&b"\x00in"[..])).await.unwrap();
        c.send(Message::binary(&b"\xff\x00"[..])).await.unwrap();
        let mut stdin = remote.stdin.take().unwrap();
        assert_eq!(stdin.recv().await.unwrap(), "in");
        assert_eq!(stdin.recv().await, None, "closed by itself");
        assert!(remote.stdout.as_ref().unwrap().send(Bytes::from_static(b"out")).await);
        remote.error.end_connection().await;
        let mut got = vec![];
        while let Some(Ok(m)) = c.next().await {
            if m.is_binary() && m.len() > 1 {
                got.push(m.into_data());
            }
        }
        assert_eq!(got, [&b"\x01out"[..]]);
    }

    #[tokio::test]
    async fn base64_and_tunnels() {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let mut remote = remote(a, Protocol::Base64(4), Wanted { stdin: true, ..Default::default() }).await;
        let mut c = client(b).await;
        c.send(Message::text("0aGk=")).await.unwrap();
        assert_eq!(remote.stdin.take().unwrap().recv().await.unwrap(), "hi");
        let (a, b) = tokio::io::duplex(64 * 1024);
        let mut inside = tunnel(a).await;
        let mut c = client(b).await;
        c.send(Message::binary(&b"abc"[..])).await.unwrap();
        let mut buf = [0; 3];
        inside.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"abc");
        inside.write_all(b"xyz").await.unwrap();
        assert_eq!(c.next().await.unwrap().unwrap().into_data(), &b"xyz"[..]);
    }
}
