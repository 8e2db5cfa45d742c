//! Reading request bodies.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use pintle_api::Status;
use pintle_api::service::Body;

/// Largest request body: 3 MiB, as upstream.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;

/// Of a body that nobody wants so much is taken, for so long.
const UNWANTED: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(200);

/// Takes what is left of a small body before its request is answered with an error: some clients (curl 7.88 by HTTP/2)
/// do not look at an answer that comes while they still send.
pub(crate) async fn drain(body: &mut Body) {
    let all = async {
        let mut taken = 0;
        while let (true, Some(Ok(frame))) = (taken <= UNWANTED, body.frame().await) {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Who takes longer may miss why; the request is refused all the same.
    let _ = tokio::time::timeout(PATIENCE, all).await;
}

/// Reads a body whole.
///
/// # Errors
/// 413 when it is over the limit, 400 when it breaks off.
pub(crate) async fn read(body: &mut Body) -> Result<Bytes, Status> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("error reading the request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let have = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if have + data.len() > MAX_BODY {
            return Err(Status::too_large(format!("limit is {MAX_BODY}")));
        }
        match &first {
            None => first = Some(data),
            Some(f) => {
                if rest.is_empty() {
                    rest.extend_from_slice(f);
                    first = Some(Bytes::new());
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    #[tokio::test]
    async fn joins_frames_and_limits() {
        let frames = |parts: Vec<Vec<u8>>| -> Body {
            let s = futures::stream::iter(parts.into_iter().map(|p| Ok(Frame::data(Bytes::from(p)))));
            BodyExt::boxed_unsync(StreamBody::new(s))
        };
        assert_eq!(read(&mut frames(vec![])).await.unwrap(), "");
        assert_eq!(read(&mut frames(vec![b"ab".to_vec()])).await.unwrap(), "ab");
        assert_eq!(
            read(&mut frames(vec![b"ab".to_vec(), b"".to_vec(), b"cd".to_vec(), b"e".to_vec()])).await.unwrap(),
            "abcde"
        );
        let err = read(&mut frames(vec![vec![0; MAX_BODY], vec![0]])).await.unwrap_err();
        assert_eq!((err.code, err.message.as_str()), (413, "Request entity too large: limit is 3145728"));
    }
}
