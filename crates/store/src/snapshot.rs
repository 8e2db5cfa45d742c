//! The file format of snapshots, the same for every implementation.
//!
//! All numbers are little-endian. `"pintle-snapshot\n"`, version (u32, 1), revision (u64); then for each key in order:
//! key length (u32, not 0), key, modification revision (u64), remaining life in milliseconds (u64, 0 for ever), value
//! length (u32), value; at the end: 0 (u32), number of keys (u64), and the SHA-256 of everything before.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Error, KeyValue, Result, Revision, SnapshotInfo};

const MAGIC: &[u8; 16] = b"pintle-snapshot\n";
const VERSION: u32 = 1;
/// No key or value is longer; a length above this means a damaged file.
const MAX_LENGTH: u32 = 64 << 20;
/// Output is handed on in pieces of about this size.
const BUFFER: usize = 256 << 10;

/// One key of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key and its value.
    pub kv: KeyValue,
    /// How long it had yet to live, if it was to go away by itself.
    pub ttl: Option<Duration>,
}

/// Writes a snapshot.
pub struct Writer<'a> {
    out: &'a mut (dyn AsyncWrite + Send + Unpin),
    buffer: Vec<u8>,
    hash: Sha256,
    info: SnapshotInfo,
}

impl<'a> Writer<'a> {
    /// Starts a snapshot of the state at `revision`.
    pub async fn new(out: &'a mut (dyn AsyncWrite + Send + Unpin), revision: Revision) -> Result<Self> {
        let mut buffer = MAGIC.to_vec();
        buffer.extend(VERSION.to_le_bytes());
        buffer.extend(revision.to_le_bytes());
        Ok(Self { out, buffer, hash: Sha256::new(), info: SnapshotInfo { revision, keys: 0 } })
    }

    /// Adds a key; keys come in order.
    pub async fn write(&mut self, record: &Record) -> Result<()> {
        let Record { kv, ttl } = record;
        let length = |bytes: &[u8]| match u32::try_from(bytes.len()) {
            Ok(length) if length <= MAX_LENGTH => Ok(length),
            _ => Err(Error::Invalid(format!("{} is too long for a snapshot", kv.key))),
        };
        let ttl = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        self.buffer.extend(length(kv.key.as_bytes())?.to_le_bytes());
        self.buffer.extend(kv.key.as_bytes());
        self.buffer.extend(kv.mod_revision.to_le_bytes());
        self.buffer.extend(ttl.to_le_bytes());
        self.buffer.extend(length(&kv.value)?.to_le_bytes());
        self.buffer.extend_from_slice(&kv.value);
        self.info.keys += 1;
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    /// Completes the snapshot.
    pub async fn finish(mut self) -> Result<SnapshotInfo> {
        self.buffer.extend(0u32.to_le_bytes());
        self.buffer.extend(self.info.keys.to_le_bytes());
        self.flush().await?;
        let hash = std::mem::take(&mut self.hash).finalize();
        self.out.write_all(&hash).await.map_err(|error| io(&error))?;
        self.out.flush().await.map_err(|error| io(&error))?;
        Ok(self.info)
    }

    async fn flush(&mut self) -> Result<()> {
        self.hash.update(&self.buffer);
        self.out.write_all(&self.buffer).await.map_err(|error| io(&error))?;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a snapshot. Nothing read may be relied upon before [`Reader::next`] has returned `None`, which it does only
/// after the check sum was found right.
pub struct Reader<'a> {
    input: tokio::io::BufReader<&'a mut (dyn AsyncRead + Send + Unpin)>,
    hash: Sha256,
    info: SnapshotInfo,
    done: bool,
}

impl<'a> Reader<'a> {
    /// Reads the head of a snapshot.
    pub async fn new(input: &'a mut (dyn AsyncRead + Send + Unpin)) -> Result<Self> {
        let input = tokio::io::BufReader::with_capacity(BUFFER, input);
        let mut reader = Self { input, hash: Sha256::new(), info: SnapshotInfo { revision: 0, keys: 0 }, done: false };
        if reader.bytes(MAGIC.len()).await? != MAGIC {
            return Err(Error::Format("this is not a Pintle snapshot".into()));
        }
        let version = reader.u32().await?;
        if version != VERSION {
            return Err(Error::Format(format!("snapshot version {version}; this program reads version {VERSION}")));
        }
        reader.info.revision = reader.u64().await?;
        if reader.info.revision == 0 {
            return Err(Error::Corrupt("snapshot has revision 0".into()));
        }
        Ok(reader)
    }

    /// The next key.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        if self.done {
            return Ok(None);
        }
        let key_length = self.u32().await?;
        if key_length == 0 {
            return self.end().await;
        }
        let key = self.sized(key_length).await?;
        let key = String::from_utf8(key).map_err(|_| Error::Corrupt("snapshot has a key that is not UTF-8".into()))?;
        let mod_revision = self.u64().await?;
        let ttl = match self.u64().await? {
            0 => None,
            ttl => Some(Duration::from_millis(ttl)),
        };
        let value_length = self.u32().await?;
        let value = Bytes::from(self.sized(value_length).await?);
        self.info.keys += 1;
        Ok(Some(Record { kv: KeyValue { key: key.into(), value, mod_revision }, ttl }))
    }

    /// The revision of the snapshot and the number of keys read so far.
    pub fn info(&self) -> SnapshotInfo {
        self.info
    }

    async fn end(&mut self) -> Result<Option<Record>> {
        let keys = self.u64().await?;
        let expected = std::mem::take(&mut self.hash).finalize();
        let mut hash = [0; 32];
        self.input.read_exact(&mut hash).await.map_err(|error| truncated(&error))?;
        if keys != self.info.keys || hash != expected.as_slice() {
            return Err(Error::Corrupt("the snapshot's check sum is wrong".into()));
        }
        self.done = true;
        Ok(None)
    }

    async fn sized(&mut self, length: u32) -> Result<Vec<u8>> {
        if length > MAX_LENGTH {
            return Err(Error::Corrupt(format!("snapshot has a record of {length} bytes")));
        }
        self.bytes(length as usize).await
    }

    async fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).await.map_err(|error| truncated(&error))?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    async fn u32(&mut self) -> Result<u32> {
        let bytes = self.bytes(4).await?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    async fn u64(&mut self) -> Result<u64> {
        let (low, high) = (self.u32().await?, self.u32().await?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }
}

fn io(error: &std::io::Error) -> Error {
    Error::Io(format!("writing the snapshot: {error}"))
}

fn truncated(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        Error::Corrupt("the snapshot is cut short".into())
    } else {
        Error::Io(format!("reading the snapshot: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 9).await.unwrap();
        for i in 0..3u64 {
            let kv = KeyValue { key: format!("/k/{i}").into(), value: Bytes::from(vec![7; 100]), mod_revision: i + 2 };
            let ttl = (i == 1).then(|| Duration::from_millis(1500));
            writer.write(&Record { kv, ttl }).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), SnapshotInfo { revision: 9, keys: 3 });
        out
    }

    async fn read(mut input: &[u8]) -> Result<Vec<Record>> {
        let mut reader = Reader::new(&mut input).await?;
        let mut records = Vec::new();
        while let Some(record) = reader.next().await? {
            records.push(record);
        }
        Ok(records)
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let records = read(&written().await).await.unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(records[1].kv.mod_revision, 3);
        assert_eq!(records[1].ttl, Some(Duration::from_millis(1500)));
    }

    #[tokio::test]
    async fn damage_is_found() {
        let good = written().await;
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).await.is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(&bad).await.is_err(), "flipped at {at}");
        }
    }
}
