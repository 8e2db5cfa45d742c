//! SPDY/3.1 frames: reading and writing them, with the compression of header blocks. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Ends the sender's half of a stream.
pub const FLAG_FIN: u8 = 1;
/// No frame is larger than this; a peer that sends one is mistaken.
const MAX_FRAME: usize = 1 << 20;
/// Nor is a header block, unpacked.
const MAX_HEADERS: usize = 64 * 1024;

const VERSION: u16 = 3;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Its number.
        id: u32,
        /// Flags.
        flags: u8,
        /// Its headers.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// Its number.
        id: u32,
        /// Flags.
        flags: u8,
        /// Headers.
        headers: Headers,
    },
    /// Breaks a stream off.
    RstStream {
        /// Its number.
        id: u32,
        /// Why.
        status: u32,
    },
    /// Are you there? Sent back as it is.
    Ping(u32),
    /// No more streams.
    GoAway,
    /// More headers.
    Headers {
        /// The stream.
        id: u32,
        /// Flags.
        flags: u8,
    },
    /// Contents.
    Data {
        /// The stream.
        id: u32,
        /// Flags.
        flags: u8,
        /// The bytes.
        data: Bytes,
    },
    /// A frame without meaning here.
    Other,
}

/// Header names (lower case) and values.
pub type Headers = Vec<(String, String)>;

/// The dictionary header blocks are compressed with, as the protocol fixes it: words with their lengths, then a text.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
        set-cookie keep-alive origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = vec![];
    for word in WORDS.split(' ').filter(|w| !w.is_empty()) {
        let word = word.replace('_', " ");
        out.put_u32(u32::try_from(word.len()).unwrap_or(0));
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TEXT.as_bytes());
    out
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub &'static str);

impl From<ProtocolError> for std::io::Error {
    fn from(e: ProtocolError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, e.0)
    }
}

/// Reads frames.
pub struct Decoder {
    inflate: Decompress,
    dictionary: Vec<u8>,
}

/// Writes frames.
pub struct Encoder {
    deflate: Compress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true), dictionary: dictionary() }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        let mut deflate = Compress::new(Compression::default(), true);
        // Nothing has been compressed yet, so this cannot fail.
        let _ = deflate.set_dictionary(&dictionary());
        Self { deflate }
    }
}

impl Decoder {
    fn unpack(&mut self, block: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let bad = ProtocolError("malformed header block");
        let mut out = Vec::with_capacity(1024);
        let mut input = block;
        loop {
            out.reserve(1024);
            let (before_in, before_out) = (self.inflate.total_in(), out.len());
            let outcome = self.inflate.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let used = usize::try_from(self.inflate.total_in() - before_in).unwrap_or(usize::MAX);
            input = input.get(used..).ok_or_else(|| bad.clone())?;
            match outcome {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) => {
                    if input.is_empty() && out.len() < out.capacity() {
                        return Ok(out);
                    }
                    if used == 0 && out.len() == before_out && out.len() < out.capacity() {
                        return Err(bad);
                    }
                }
                Err(e) if e.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&self.dictionary).map_err(|_| bad.clone())?;
                }
                Err(_) => return Err(bad),
            }
            if out.len() > MAX_HEADERS {
                return Err(ProtocolError("header block too large"));
            }
        }
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, ProtocolError> {
        let bad = || ProtocolError("malformed headers");
        let plain = self.unpack(block)?;
        let mut b = plain.as_slice();
        fn number(b: &mut &[u8]) -> Option<usize> {
            (b.len() >= 4).then(|| b.get_u32() as usize)
        }
        let text = |b: &mut &[u8]| -> Option<String> {
            let n = number(b)?;
            let (word, rest) = b.split_at_checked(n)?;
            *b = rest;
            Some(String::from_utf8_lossy(word).into_owned())
        };
        let count = number(&mut b).ok_or_else(bad)?;
        let mut out = vec![];
        for _ in 0..count {
            let name = text(&mut b).ok_or_else(bad)?;
            let values = text(&mut b).ok_or_else(bad)?;
            out.extend(values.split('\0').map(|v| (name.to_lowercase(), v.to_string())));
        }
        Ok(out)
    }

    /// Takes one frame off the front of `buf`, if a whole one is there.
    ///
    /// # Errors
    /// When what is there is no frame.
    pub fn take(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        let Some(head) = buf.get(..8) else { return Ok(None) };
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (first, second) = (word(0), word(4));
        let flags = head[4];
        let length = (second & 0x00ff_ffff) as usize;
        if length > MAX_FRAME {
            return Err(ProtocolError("frame too large"));
        }
        if buf.len() < 8 + length {
            buf.reserve(8 + length - buf.len());
            return Ok(None);
        }
        buf.advance(8);
        let body = buf.split_to(length).freeze();
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, flags, data: body }));
        }
        if (first >> 16) & 0x7fff != u32::from(VERSION) {
            return Err(ProtocolError("not SPDY version 3"));
        }
        let at = |i: usize| -> Result<u32, ProtocolError> {
            let b = body.get(i..i + 4).ok_or(ProtocolError("frame too short"))?;
            Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        let rest = |i: usize| body.get(i..).ok_or(ProtocolError("frame too short"));
        Ok(Some(match first & 0xffff {
            1 => Frame::SynStream { id: at(0)? & 0x7fff_ffff, flags, headers: self.headers(rest(10)?)? },
            2 => Frame::SynReply { id: at(0)? & 0x7fff_ffff, flags, headers: self.headers(rest(4)?)? },
            3 => Frame::RstStream { id: at(0)? & 0x7fff_ffff, status: at(4)? },
            6 => Frame::Ping(at(0)?),
            7 => Frame::GoAway,
            8 => {
                // The block must be read to keep the compression in step.
                self.headers(rest(4)?)?;
                Frame::Headers { id: at(0)? & 0x7fff_ffff, flags }
            }
            _ => Frame::Other,
        }))
    }
}

impl Encoder {
    fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = vec![];
        let number = |n: usize| u32::try_from(n).unwrap_or(0);
        plain.put_u32(number(headers.len()));
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(number(text.len()));
                plain.put_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut input = plain.as_slice();
        loop {
            out.reserve(256);
            let before = self.deflate.total_in();
            // Compressing into memory fails only when it is used wrongly.
            if self.deflate.compress_vec(input, &mut out, FlushCompress::Sync).is_err() {
                return out;
            }
            let used = usize::try_from(self.deflate.total_in() - before).unwrap_or(0);
            input = input.get(used..).unwrap_or_default();
            if input.is_empty() && out.len() < out.capacity() {
                return out;
            }
        }
    }

    fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) {
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u32((u32::from(flags) << 24) | u32::try_from(body.len()).unwrap_or(0));
        out.put_slice(body);
    }

    /// Writes a frame.
    pub fn put(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { id, flags, data } => {
                out.put_u32(*id);
                out.put_u32((u32::from(*flags) << 24) | u32::try_from(data.len()).unwrap_or(0));
                out.put_slice(data);
            }
            Frame::SynStream { id, flags, headers } => {
                let mut body = vec![];
                body.put_u32(*id);
                body.put_u32(0);
                body.put_u16(0);
                body.extend(self.pack(headers));
                Self::control(out, 1, *flags, &body);
            }
            Frame::SynReply { id, flags, headers } => {
                let mut body = id.to_be_bytes().to_vec();
                body.extend(self.pack(headers));
                Self::control(out, 2, *flags, &body);
            }
            Frame::RstStream { id, status } => {
                Self::control(out, 3, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat());
            }
            Frame::Ping(id) => Self::control(out, 6, 0, &id.to_be_bytes()),
            Frame::GoAway => Self::control(out, 7, 0, &[0; 8]),
            Frame::Headers { .. } | Frame::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let d = dictionary();
        assert_eq!(d.len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in d {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((b << 16) | a, 0xe3c6_a7c2);
    }

    #[test]
    fn frames_both_ways() {
        let headers: Headers = vec![("streamtype".into(), "stdin".into()), ("port".into(), "80".into())];
        let frames = [
            Frame::SynStream { id: 1, flags: 0, headers: headers.clone() },
            Frame::Data { id: 1, flags: FLAG_FIN, data: Bytes::from_static(b"hello") },
            Frame::SynStream { id: 3, flags: FLAG_FIN, headers: headers.iter().cycle().take(300).cloned().collect() },
            Frame::SynReply { id: 3, flags: 0, headers: vec![] },
            Frame::RstStream { id: 1, status: 5 },
            Frame::Ping(7),
            Frame::GoAway,
        ];
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut wire = BytesMut::new();
        for f in &frames {
            encoder.put(f, &mut wire);
        }
        // One byte at a time, as bad a network as there is.
        let (mut buf, mut got) = (BytesMut::new(), vec![]);
        for b in wire {
            buf.put_u8(b);
            while let Some(f) = decoder.take(&mut buf).unwrap() {
                got.push(f);
            }
        }
        assert_eq!(got, frames);
    }

    #[test]
    fn nonsense_is_refused() {
        let take = |bytes: &[u8]| Decoder::default().take(&mut BytesMut::from(bytes));
        assert!(take(b"GET / HTTP/1.1\r\n").is_err() || take(b"GET / HTTP/1.1\r\n").unwrap().is_none());
        assert!(take(&[0x80, 2, 0, 1, 0, 0, 0, 0]).is_err(), "another version");
        assert!(take(&[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]).is_err(), "too short");
        assert!(take(&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).is_err(), "no zlib");
        assert!(take(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).is_err(), "too large");
        assert_eq!(take(&[0, 0, 0]).unwrap(), None);
    }
}
