//! Protobuf, as Kubernetes writes it: the envelope, the bodies, lists and watch frames.
//!
//! A body holds no `kind` and `apiVersion`; the envelope does. Custom resources and Tables are never protobuf.

mod read;
mod transcode;
mod wire;
mod write;

use crate::table::Type;
use serde_json::Value;
use std::fmt;

pub use read::from_body;
pub use transcode::{Transcoder, json_to_body};
pub use write::to_body;

/// What every enveloped object begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are not protobuf of the kind expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtoError(String);

impl ProtoError {
    fn new(message: impl Into<String>) -> Self {
        ProtoError(message.into())
    }

    fn eof() -> Self {
        Self::new("unexpected EOF")
    }
}

impl fmt::Display for ProtoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProtoError {}

/// An envelope (`runtime.Unknown`) and the body inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The apiVersion, or "".
    pub api_version: String,
    /// The kind, or "".
    pub kind: String,
    /// The body.
    pub raw: &'a [u8],
    /// How the body is encoded, or "".
    pub content_encoding: String,
    /// What the body is; "" for protobuf.
    pub content_type: String,
}

/// Opens an envelope.
pub fn envelope(data: &[u8]) -> Result<Envelope<'_>, ProtoError> {
    if data.is_empty() {
        return Err(ProtoError::new("empty data"));
    }
    let Some(data) = data.strip_prefix(MAGIC) else {
        return Err(ProtoError::new(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    };
    if data.is_empty() {
        return Err(ProtoError::new("empty body"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = Envelope::default();
    let mut reader = wire::Reader::new(data);
    while let Some((number, wire)) = reader.tag("Unknown")? {
        match number {
            1 => {
                let mut meta = wire::Reader::new(reader.bytes(wire, "TypeMeta")?);
                while let Some((number, wire)) = meta.tag("TypeMeta")? {
                    match number {
                        1 => out.api_version = text(meta.bytes(wire, "APIVersion")?),
                        2 => out.kind = text(meta.bytes(wire, "Kind")?),
                        _ => meta.skip(wire)?,
                    }
                }
            }
            2 => out.raw = reader.bytes(wire, "Raw")?,
            3 => out.content_encoding = text(reader.bytes(wire, "ContentEncoding")?),
            4 => out.content_type = text(reader.bytes(wire, "ContentType")?),
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

/// Puts a body into an envelope.
pub fn seal(api_version: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut out = wire::Writer::with_capacity(body.len() + api_version.len() + kind.len() + 32);
    out.bytes_field(4, b"");
    out.bytes_field(3, b"");
    out.bytes_field(2, body);
    let end = out.len();
    out.bytes_field(2, kind.as_bytes());
    out.bytes_field(1, api_version.as_bytes());
    out.length_field(1, end);
    out.raw(MAGIC);
    out.finish()
}

/// An object as enveloped protobuf. Its `kind` and `apiVersion` go into the envelope; where it states none, the type's.
pub fn to_proto(value: &Value, ty: &'static Type) -> Vec<u8> {
    let stated = |name: &str| value.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    let (api_version, kind) = (stated("apiVersion").unwrap_or(ty.api_version), stated("kind").unwrap_or(ty.name));
    seal(api_version, kind, &to_body(value, ty))
}

/// An object from enveloped protobuf, as Go would hold it and print it.
pub fn from_proto(data: &[u8], ty: &'static Type) -> Result<Value, ProtoError> {
    let envelope = envelope(data)?;
    let mut value = from_body(envelope.raw, ty)?;
    if let Value::Object(map) = &mut value
        && ty.is_kind
    {
        for (name, text) in [("kind", envelope.kind), ("apiVersion", envelope.api_version)] {
            if !text.is_empty() {
                map.insert(name.to_owned(), Value::from(text));
            }
        }
    }
    Ok(value)
}

/// A list as enveloped protobuf, of items that are bodies already: piece by piece, so that it need not be made whole.
#[derive(Debug)]
pub struct List {
    /// What comes before the first item.
    pub head: Vec<u8>,
    /// What comes after the last item.
    pub tail: Vec<u8>,
    /// The bytes of all of it.
    pub size: usize,
}

impl List {
    /// A list of items of these lengths.
    pub fn new(api_version: &str, kind: &str, metadata: &Value, items: impl Iterator<Item = usize>) -> Self {
        let body = crate::table::named("meta/v1", "ListMeta").map(|ty| to_body(metadata, ty)).unwrap_or_default();
        let mut first = wire::Writer::with_capacity(body.len() + 8);
        first.bytes_field(1, &body);
        let first = first.finish();
        let size: usize = items.map(|len| Self::before(len).len + len).sum();
        let mut head = wire::Writer::with_capacity(first.len() + api_version.len() + kind.len() + 64);
        head.raw(&first);
        head.varint((first.len() + size) as u64);
        head.tag(2, wire::BYTES);
        let end = head.len();
        head.bytes_field(2, kind.as_bytes());
        head.bytes_field(1, api_version.as_bytes());
        head.length_field(1, end);
        head.raw(MAGIC);
        let mut tail = wire::Writer::with_capacity(8);
        tail.bytes_field(4, b"");
        tail.bytes_field(3, b"");
        let (head, tail) = (head.finish(), tail.finish());
        let size = head.len() + size + tail.len();
        Self { head, tail, size }
    }

    /// What comes before an item of this length.
    #[must_use]
    pub fn before(len: usize) -> Before {
        let length = wire::Varint::new(len as u64);
        let length = length.as_ref();
        let mut out = Before { bytes: [(2 << 3) | wire::BYTES; 11], len: 1 + length.len() };
        out.bytes[1..out.len].copy_from_slice(length);
        out
    }
}

/// What comes before an item of a [`List`].
#[derive(Clone, Copy, Debug)]
pub struct Before {
    bytes: [u8; 11],
    len: usize,
}

impl AsRef<[u8]> for Before {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A frame of a watch: its length, and a bare `WatchEvent` around an enveloped object.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = wire::Writer::with_capacity(object.len() + event.len() + 24);
    out.bytes_field(1, object);
    out.length_field(2, 0);
    out.bytes_field(1, event.as_bytes());
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out.raw(&length.to_be_bytes());
    out.finish()
}

/// A frame of a watch as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFrame<'a> {
    /// `ADDED` and so on.
    pub event: String,
    /// The enveloped object.
    pub object: &'a [u8],
    /// How many bytes the frame took.
    pub len: usize,
}

/// Reads the first frame of a watch; nothing while the frame is not whole.
pub fn read_watch_frame(data: &[u8]) -> Result<Option<WatchFrame<'_>>, ProtoError> {
    let Some((length, rest)) = data.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let (mut event, mut object) = (String::new(), &frame[..0]);
    let mut reader = wire::Reader::new(frame);
    while let Some((number, wire)) = reader.tag("WatchEvent")? {
        match number {
            1 => event = String::from_utf8_lossy(reader.bytes(wire, "Type")?).into_owned(),
            2 => {
                let mut raw = wire::Reader::new(reader.bytes(wire, "Object")?);
                while let Some((number, wire)) = raw.tag("RawExtension")? {
                    match number {
                        1 => object = raw.bytes(wire, "Raw")?,
                        _ => raw.skip(wire)?,
                    }
                }
            }
            _ => reader.skip(wire)?,
        }
    }
    Ok(Some(WatchFrame { event, object, len: 4 + length }))
}

#[cfg(test)]
mod tests;
