//! The wire format. Messages are written from their end, so that a length is known when it is due.

use super::ProtoError;

/// Varint.
pub const VARINT: u8 = 0;
/// Eight bytes.
pub const FIXED64: u8 = 1;
/// Bytes with their length.
pub const BYTES: u8 = 2;
/// Four bytes.
pub const FIXED32: u8 = 5;

/// A number as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Varint {
    bytes: [u8; 10],
    len: usize,
}

impl Varint {
    pub fn new(mut value: u64) -> Self {
        let mut out = Self { bytes: [0; 10], len: 1 };
        while value >= 0x80 {
            out.bytes[out.len - 1] = value as u8 | 0x80;
            value >>= 7;
            out.len += 1;
        }
        out.bytes[out.len - 1] = value as u8;
        out
    }
}

impl AsRef<[u8]> for Varint {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Writes backwards: what is written last comes first.
pub struct Writer {
    buf: Vec<u8>,
    start: usize,
}

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(64);
        Writer { buf: vec![0; capacity], start: capacity }
    }

    /// How much is written so far.
    pub fn len(&self) -> usize {
        self.buf.len() - self.start
    }

    fn reserve(&mut self, more: usize) {
        if self.start < more {
            let len = self.len();
            let size = (self.buf.len() * 2).max(len + more);
            let mut buf = vec![0; size];
            buf[size - len..].copy_from_slice(&self.buf[self.start..]);
            self.start = size - len;
            self.buf = buf;
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.start;
        self.start -= bytes.len();
        self.buf[self.start..end].copy_from_slice(bytes);
    }

    pub fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.reserve(1);
            self.start -= 1;
            self.buf[self.start] = value as u8;
        } else {
            self.raw(Varint::new(value).as_ref());
        }
    }

    pub fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    pub fn varint_field(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, VARINT);
    }

    pub fn bytes_field(&mut self, number: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.tag(number, BYTES);
    }

    /// Makes all that was written since the length was `end` a field.
    pub fn length_field(&mut self, number: u32, end: usize) {
        self.varint((self.len() - end) as u64);
        self.tag(number, BYTES);
    }

    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// What was written, in as much memory as it takes: bodies are kept.
    pub fn finish(self) -> Vec<u8> {
        self.written().to_vec()
    }
}

/// Reads a message.
pub struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data, pos: 0 }
    }

    pub fn at_end(&self) -> bool {
        self.pos >= self.data.len()
    }

    fn varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.data.get(self.pos).ok_or_else(ProtoError::eof)?;
            self.pos += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtoError::new("proto: integer overflow"))
    }

    /// The number and wire type of the next field; none at the end.
    pub fn tag(&mut self, message: &str) -> Result<Option<(u32, u8)>, ProtoError> {
        if self.at_end() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (number, wire) = ((tag >> 3) as u32 as i32, (tag & 7) as u8);
        if wire == 4 {
            return Err(ProtoError::new(format!("proto: {message}: wiretype end group for non-group")));
        }
        if number <= 0 {
            return Err(ProtoError::new(format!("proto: {message}: illegal tag {number} (wire type {tag})")));
        }
        Ok(Some((number as u32, wire)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtoError> {
        let end = self
            .pos
            .checked_add(len)
            .ok_or_else(|| ProtoError::new("proto: negative length found during unmarshaling"))?;
        let bytes = self.data.get(self.pos..end).ok_or_else(ProtoError::eof)?;
        self.pos = end;
        Ok(bytes)
    }

    fn wrong(wire: u8, field: &str) -> ProtoError {
        let mut name = field.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        ProtoError::new(format!("proto: wrong wireType = {wire} for field {name}"))
    }

    pub fn bytes(&mut self, wire: u8, field: &str) -> Result<&'a [u8], ProtoError> {
        if wire != BYTES {
            return Err(Self::wrong(wire, field));
        }
        let len = self.varint()?;
        let len =
            i64::try_from(len).map_err(|_| ProtoError::new("proto: negative length found during unmarshaling"))?;
        self.take(usize::try_from(len).map_err(|_| ProtoError::eof())?)
    }

    pub fn number(&mut self, wire: u8, field: &str) -> Result<u64, ProtoError> {
        if wire != VARINT { Err(Self::wrong(wire, field)) } else { self.varint() }
    }

    /// A varint without a tag, inside a packed list.
    pub fn packed(&mut self) -> Result<u64, ProtoError> {
        self.varint()
    }

    pub fn double(&mut self, wire: u8, field: &str) -> Result<f64, ProtoError> {
        if wire != FIXED64 {
            return Err(Self::wrong(wire, field));
        }
        let bytes = self.take(8)?;
        Ok(f64::from_le_bytes(bytes.try_into().map_err(|_| ProtoError::eof())?))
    }

    /// Reads past a field that is not known.
    pub fn skip(&mut self, wire: u8) -> Result<(), ProtoError> {
        let mut wire = wire;
        let mut groups = 0u32;
        loop {
            match wire {
                VARINT => {
                    self.varint()?;
                }
                FIXED64 => {
                    self.take(8)?;
                }
                BYTES => {
                    self.bytes(BYTES, "")?;
                }
                3 => groups += 1,
                4 if groups == 0 => return Err(ProtoError::new("proto: unexpected end of group")),
                4 => groups -= 1,
                FIXED32 => {
                    self.take(4)?;
                }
                _ => return Err(ProtoError::new(format!("proto: illegal wireType {wire}"))),
            }
            if groups == 0 {
                return Ok(());
            }
            wire = (self.varint()? & 7) as u8;
        }
    }
}
