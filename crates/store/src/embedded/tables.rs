//! What is in the file, and how it is written there.

use std::sync::Arc;

use bytes::Bytes;
use redb::TableDefinition;

use crate::{Error, Event, Key, KeyValue, Result, Revision};

/// Numbers about the whole store, by the names below.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The present state: key to [`Cell`].
pub(super) const CURRENT: TableDefinition<&str, &[u8]> = TableDefinition::new("current");
/// History: (revision, number within it) to [`Event`].
pub(super) const LOG: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("log");
/// Keys with a limited life: (end in milliseconds since 1970, key).
pub(super) const EXPIRY: TableDefinition<(u64, &str), ()> = TableDefinition::new("expiry");

/// The version of everything described in this module.
pub(super) const FORMAT: &str = "format";
pub(super) const FORMAT_VERSION: u64 = 1;
/// The revision of the last transaction.
pub(super) const REVISION: &str = "revision";
/// History up to here is gone, or about to be deleted.
pub(super) const COMPACTED: &str = "compacted";
/// How often the store has been opened; written at each start to see that writing works.
pub(super) const OPENED: &str = "opened";
/// The bytes of all keys, values and history.
pub(super) const BYTES: &str = "bytes";

const CELL_HEAD: usize = 16;

/// The state of a key as kept in `CURRENT`: modification revision and end of life (0: none), then the value.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub mod_revision: Revision,
    pub expires: u64,
    pub value: &'a [u8],
}

impl<'a> Cell<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend(self.mod_revision.to_le_bytes());
        out.extend(self.expires.to_le_bytes());
        out.extend_from_slice(self.value);
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut input = Input(bytes);
        Ok(Self { mod_revision: input.u64()?, expires: input.u64()?, value: input.0 })
    }

    pub(super) fn kv(&self, key: Key) -> KeyValue {
        KeyValue { key, value: Bytes::copy_from_slice(self.value), mod_revision: self.mod_revision }
    }

    /// The bytes the cell takes together with its key.
    pub(super) fn weight(key: &str, value: &[u8]) -> u64 {
        (key.len() + CELL_HEAD + value.len()) as u64
    }
}

const HAS_VALUE: u8 = 1;
const HAS_PREV: u8 = 2;

/// An event as kept in `LOG`: flags, key, then the new and the previous state where there is one.
pub(super) fn encode_event(event: &Event, out: &mut Vec<u8>) {
    out.clear();
    let flags = u8::from(event.value.is_some()) * HAS_VALUE + u8::from(event.prev.is_some()) * HAS_PREV;
    out.push(flags);
    sized(event.key.as_bytes(), out);
    if let Some(value) = &event.value {
        sized(value, out);
    }
    if let Some(prev) = &event.prev {
        out.extend(prev.mod_revision.to_le_bytes());
        sized(&prev.value, out);
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    // Keys and values are far below 4 GiB: the transaction refuses longer ones.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The key of an event without the rest.
pub(super) fn event_key(bytes: &[u8]) -> Result<&str> {
    let mut input = Input(bytes);
    input.take(1)?;
    input.str()
}

pub(super) fn decode_event(revision: Revision, bytes: &[u8]) -> Result<Event> {
    let mut input = Input(bytes);
    let flags = input.take(1)?[0];
    let key: Key = Arc::from(input.str()?);
    let value = if flags & HAS_VALUE != 0 { Some(Bytes::copy_from_slice(input.sized()?)) } else { None };
    let prev = if flags & HAS_PREV != 0 {
        let mod_revision = input.u64()?;
        Some(KeyValue { key: key.clone(), value: Bytes::copy_from_slice(input.sized()?), mod_revision })
    } else {
        None
    };
    Ok(Event { created: prev.is_none(), key, revision, value, prev })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }
    fn u32(&mut self) -> Result<u32> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| damaged())
    }
    fn u64(&mut self) -> Result<u64> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| damaged())
    }
    fn sized(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }
    fn str(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.sized()?).map_err(|_| damaged())
    }
}

fn damaged() -> Error {
    Error::Corrupt("a record of the store cannot be read".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        let key: Key = "/a/b".into();
        let kv =
            |value: &'static [u8]| KeyValue { key: key.clone(), value: Bytes::from_static(value), mod_revision: 7 };
        let value = Some(Bytes::from_static(b"new"));
        for (value, prev) in
            [(value.clone(), None), (value, Some(kv(b"old"))), (None, Some(kv(b""))), (Some(Bytes::new()), None)]
        {
            let event = Event { key: key.clone(), revision: 9, created: prev.is_none(), value, prev };
            let mut bytes = Vec::new();
            encode_event(&event, &mut bytes);
            assert_eq!(decode_event(9, &bytes).unwrap(), event);
            assert_eq!(event_key(&bytes).unwrap(), "/a/b");
            for cut in 0..bytes.len() {
                assert!(decode_event(9, &bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        assert!(Cell::decode(&[0; 15]).is_err());
    }
}
