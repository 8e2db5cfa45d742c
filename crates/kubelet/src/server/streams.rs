//! Byte streams of one connection, whatever protocol carries them.

use bytes::Bytes;
use tokio::sync::mpsc;

/// What the peer writes to a stream; ends when it closes its half.
pub type Inbox = mpsc::Receiver<Bytes>;

/// How many pieces a stream holds before its sender waits.
const DEPTH: usize = 32;

/// A stream's inbox.
pub fn inbox() -> (mpsc::Sender<Bytes>, Inbox) {
    mpsc::channel(DEPTH)
}

/// What is sent to the peer, by the number of the stream.
#[derive(Debug)]
pub enum ToPeer {
    /// Contents.
    Data(u32, Bytes),
    /// The end of our half.
    Close(u32),
    /// The stream is broken off.
    Reset(u32),
    /// A stream is accepted.
    Accept(u32),
    /// The answer to a ping.
    Pong(u32),
    /// The end of the connection.
    End,
}

/// Our half of one stream. Clones are the same stream.
#[derive(Clone, Debug)]
pub struct Output {
    id: u32,
    tx: mpsc::Sender<ToPeer>,
}

impl Output {
    /// A stream of a connection.
    pub fn new(id: u32, tx: mpsc::Sender<ToPeer>) -> Self {
        Self { id, tx }
    }

    /// Sends; answers whether the connection is still there.
    pub async fn send(&self, data: Bytes) -> bool {
        self.tx.send(ToPeer::Data(self.id, data)).await.is_ok()
    }

    /// Ends our half.
    pub async fn close(&self) {
        // Without a connection there is nothing to end.
        let _ = self.tx.send(ToPeer::Close(self.id)).await;
    }

    /// Breaks the stream off.
    pub async fn reset(&self) {
        let _ = self.tx.send(ToPeer::Reset(self.id)).await;
    }

    /// Ends the whole connection, after what was sent before.
    pub async fn end_connection(&self) {
        let _ = self.tx.send(ToPeer::End).await;
    }

    /// Waits until the connection is gone.
    pub async fn gone(&self) {
        self.tx.closed().await;
    }
}

/// The streams of an exec or attach.
pub struct Remote {
    /// To the process.
    pub stdin: Option<Inbox>,
    /// From the process.
    pub stdout: Option<Output>,
    /// From the process.
    pub stderr: Option<Output>,
    /// The outcome.
    pub error: Output,
    /// New sizes of the terminal, as JSON.
    pub resize: Option<Inbox>,
    /// Whether the outcome is told as a Status (since version 4), not as text.
    pub status: bool,
}
