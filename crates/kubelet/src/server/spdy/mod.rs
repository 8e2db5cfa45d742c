//! SPDY/3.1 as kubectl and the API server speak it over an upgraded connection: the client opens streams, both sides
//! write to them. Windows are not kept: neither side of upstream's does.

mod frame;

use super::streams::{Inbox, Output, ToPeer, inbox};
use bytes::{Bytes, BytesMut};
use frame::{Decoder, Encoder, FLAG_FIN, Frame};
use std::collections::HashMap;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// A stream the client opened.
pub struct Opened {
    headers: frame::Headers,
    /// What the client writes to it.
    pub input: Inbox,
    /// What is written to the client.
    pub output: Output,
}

impl Opened {
    /// A header of the stream.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// A peer that opens more streams than this at a time is not one of ours.
const MAX_STREAMS: usize = 1000;

/// Speaks SPDY on a connection. New streams come out of the receiver, which ends with the connection.
pub fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> mpsc::Receiver<Opened> {
    let (opened, streams) = mpsc::channel(8);
    let (read, write) = tokio::io::split(stream);
    let (tx, rx) = mpsc::channel(64);
    tokio::spawn(async move {
        let writer = tokio::spawn(write_frames(write, rx));
        if let Err(e) = read_frames(read, &tx, &opened).await {
            tracing::debug!(error = %e, "SPDY connection ended");
        }
        // With the peer gone, what is still to be sent has no reader; whoever waits for the end of the connection
        // learns of it.
        writer.abort();
    });
    streams
}

async fn write_frames(mut to: impl AsyncWrite + Unpin, mut rx: mpsc::Receiver<ToPeer>) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buf = BytesMut::new();
    while let Some(first) = rx.recv().await {
        let mut next = Some(first);
        // What is there already goes out in one write.
        while let Some(message) = next {
            let frame = match message {
                ToPeer::Data(id, data) => Frame::Data { id, flags: 0, data },
                ToPeer::Close(id) => Frame::Data { id, flags: FLAG_FIN, data: Bytes::new() },
                ToPeer::Reset(id) => Frame::RstStream { id, status: 5 },
                ToPeer::Accept(id) => Frame::SynReply { id, flags: 0, headers: vec![] },
                ToPeer::Pong(n) => Frame::Ping(n),
                ToPeer::End => {
                    encoder.put(&Frame::GoAway, &mut buf);
                    to.write_all(&buf).await?;
                    return to.shutdown().await;
                }
            };
            encoder.put(&frame, &mut buf);
            next = if buf.len() < 64 * 1024 { rx.try_recv().ok() } else { None };
        }
        to.write_all(&buf).await?;
        to.flush().await?;
        buf.clear();
    }
    to.shutdown().await
}

async fn read_frames(
    mut from: impl AsyncRead + Unpin,
    tx: &mpsc::Sender<ToPeer>,
    opened: &mpsc::Sender<Opened>,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buf = BytesMut::with_capacity(16 * 1024);
    let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    loop {
        while let Some(frame) = decoder.take(&mut buf)? {
            match frame {
                Frame::SynStream { id, flags, headers } => {
                    if streams.len() >= MAX_STREAMS {
                        return Err(io::Error::other("too many streams"));
                    }
                    let (sender, input) = inbox();
                    if flags & FLAG_FIN == 0 {
                        streams.insert(id, sender);
                    }
                    let gone = tx.send(ToPeer::Accept(id)).await.is_err();
                    let stream = Opened { headers, input, output: Output::new(id, tx.clone()) };
                    if gone || opened.send(stream).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::Data { id, flags, data } => {
                    let fin = flags & FLAG_FIN != 0;
                    if let Some(s) = streams.get(&id)
                        && !data.is_empty()
                        && s.send(data).await.is_err()
                    {
                        // Nobody reads it any more; what still comes is dropped.
                        streams.remove(&id);
                    }
                    if fin {
                        streams.remove(&id);
                    }
                }
                Frame::RstStream { id, .. } => {
                    streams.remove(&id);
                }
                Frame::Headers { id, flags } if flags & FLAG_FIN != 0 => {
                    streams.remove(&id);
                }
                Frame::Ping(n) => {
                    if tx.send(ToPeer::Pong(n)).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::GoAway | Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Other => {}
            }
        }
        if from.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_both_ways() {
        let (server, mut client) = tokio::io::duplex(64 * 1024);
        let mut streams = serve(server);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut wire = BytesMut::new();
        encoder
            .put(&Frame::SynStream { id: 1, flags: 0, headers: vec![("streamtype".into(), "data".into())] }, &mut wire);
        encoder.put(&Frame::Data { id: 1, flags: 0, data: Bytes::from_static(b"ab") }, &mut wire);
        encoder.put(&Frame::Data { id: 1, flags: FLAG_FIN, data: Bytes::from_static(b"c") }, &mut wire);
        encoder.put(&Frame::Ping(9), &mut wire);
        client.write_all(&wire).await.unwrap();
        let mut s = streams.recv().await.unwrap();
        assert_eq!(s.header("streamtype"), Some("data"));
        let mut got = vec![];
        while let Some(b) = s.input.recv().await {
            got.extend_from_slice(&b);
        }
        assert_eq!(got, b"abc");
        assert!(s.output.send(Bytes::from_static(b"answer")).await);
        s.output.close().await;
        let (mut buf, mut frames) = (BytesMut::new(), vec![]);
        while frames.len() < 4 {
            while let Some(f) = decoder.take(&mut buf).unwrap() {
                frames.push(f);
            }
            if frames.len() < 4 {
                client.read_buf(&mut buf).await.unwrap();
            }
        }
        assert!(frames.contains(&Frame::Ping(9)));
        assert!(frames.contains(&Frame::Data { id: 1, flags: 0, data: Bytes::from_static(b"answer") }));
        assert!(frames.contains(&Frame::Data { id: 1, flags: FLAG_FIN, data: Bytes::new() }));
        drop(client);
        assert!(streams.recv().await.is_none());
    }
}
