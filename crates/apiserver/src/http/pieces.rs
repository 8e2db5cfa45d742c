//! Long lists, made while they are sent.

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pintle_api::service::{Body, BoxError};

use super::respond;

/// Longer lists are made while they are sent: what is made of them takes no memory beside the objects themselves, and
/// its first bytes are on their way at once.
pub(crate) const STREAM_OVER: usize = 512 * 1024;
/// About so much is made at a time.
const PIECE: usize = 128 * 1024;

/// A list's text or message in pieces.
pub(crate) struct Pieces<F> {
    /// The bytes of all pieces.
    pub(crate) size: usize,
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
    /// Adds the item of a number with what stands before it; whether there is one.
    pub(crate) put: F,
}

impl<F: FnMut(&mut BytesMut, usize) -> bool + Send + 'static> Pieces<F> {
    /// All of it at once.
    pub(crate) fn whole(mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size);
        out.put_slice(&self.head);
        let mut at = 0;
        while (self.put)(&mut out, at) {
            at += 1;
        }
        out.put_slice(&self.tail);
        out.freeze()
    }

    /// An answer that makes it as it is sent.
    pub(crate) fn streamed(self, content_type: &'static str) -> Response<Body> {
        let Self { size, head, tail, mut put } = self;
        let (mut head, mut tail, mut at) = (Some(head), Some(tail), 0);
        let pieces = std::iter::from_fn(move || {
            tail.as_ref()?;
            let mut out = BytesMut::with_capacity(PIECE + PIECE / 8);
            if let Some(head) = head.take() {
                out.put_slice(&head);
            }
            while out.len() < PIECE {
                if put(&mut out, at) {
                    at += 1;
                } else {
                    out.put_slice(&tail.take().unwrap_or_default());
                    break;
                }
            }
            Some(Ok::<_, BoxError>(Frame::data(out.freeze())))
        });
        let mut r = Response::new(BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(pieces))));
        r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        r.extensions_mut().insert(respond::Length(size as u64));
        r
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_at_once_and_piece_by_piece_is_the_same() {
        let item = vec![b'x'; 50_000];
        for n in [0, 1, 2, 3, 20] {
            let pieces = || {
                let item = item.clone();
                let put = move |out: &mut BytesMut, i: usize| {
                    if i < n {
                        out.put_slice(&item);
                    }
                    i < n
                };
                Pieces { size: n * 50_000 + 3, head: b"<".to_vec(), tail: b"/>".to_vec(), put }
            };
            let whole = pieces().whole();
            assert_eq!(whole.len(), n * 50_000 + 3);
            let sent = pieces().streamed("text/plain");
            assert_eq!(sent.extensions().get::<respond::Length>().map(|l| l.0), Some(whole.len() as u64));
            assert_eq!(sent.into_body().collect().await.unwrap().to_bytes(), whole, "{n}");
        }
    }
}
