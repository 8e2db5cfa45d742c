//! Lists and watch streams as they come over the wire, cut into objects without building trees.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use pintle_api::object::{EventType, Object, WatchEvent};
use pintle_api::scan;
use pintle_api::service::Body;
use pintle_api::status::Status;

use crate::Result;
use crate::client::List;
use crate::error::Error;

/// A piece of a larger text as an object with bytes of its own, so that it does not keep the whole text alive.
fn object(text: &[u8]) -> Result<Arc<Object>> {
    Object::from_wire(Bytes::copy_from_slice(text), &[]).map(Arc::new).map_err(|e| Error::decode("answer", e))
}

fn malformed(what: &str) -> Error {
    Error::decode(what, "malformed JSON")
}

/// Cuts a list into its objects. Items of built-in kinds carry no `apiVersion` and `kind` of their own.
pub fn split_list(text: &Bytes) -> Result<List> {
    let string = |path: &[&str]| {
        scan::find(text, 0, path)
            .map(|s| scan::unquoted(text, s).of(text))
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut items = Vec::new();
    if let Some(span) = scan::find(text, 0, &["items"]).filter(|s| s.of(text).first() == Some(&b'[')) {
        let array = span.of(text);
        let mut at = scan::skip_space(array, 1);
        while array.get(at).is_some_and(|c| *c != b']') {
            let end = scan::skip_value(array, at).ok_or_else(|| malformed("list"))?;
            items.push(object(&array[at..end])?);
            at = scan::skip_space(array, end);
            if array.get(at) == Some(&b',') {
                at = scan::skip_space(array, at + 1);
            }
        }
    } else if scan::find(text, 0, &["metadata"]).is_none() {
        return Err(malformed("list"));
    }
    Ok(List {
        items: Arc::new(items),
        resource_version: string(&["metadata", "resourceVersion"]),
        continue_token: string(&["metadata", "continue"]),
    })
}

/// One frame: `{"type":"ADDED","object":{…}}`.
fn event(line: &[u8]) -> Result<WatchEvent> {
    let (mut kind, mut body) = (None, None);
    let start = scan::skip_space(line, 0);
    scan::members(line, start, |key, span| match key {
        b"type" => kind = Some(scan::unquoted(line, span)),
        b"object" => body = Some(span),
        _ => {}
    })
    .ok_or_else(|| malformed("watch event"))?;
    let body = body.ok_or_else(|| malformed("watch event"))?.of(line);
    let kind = match kind.map(|k| k.of(line)) {
        Some(b"ADDED") => EventType::Added,
        Some(b"MODIFIED") => EventType::Modified,
        Some(b"DELETED") => EventType::Deleted,
        Some(b"BOOKMARK") => EventType::Bookmark,
        Some(b"ERROR") => {
            let status: Status = serde_json::from_slice(body).map_err(|e| Error::decode("watch error", e))?;
            return Err(status.into());
        }
        _ => return Err(malformed("watch event type")),
    };
    Ok(WatchEvent { kind, object: object(body)? })
}

/// A watch's body as events.
pub fn decode(body: Body) -> impl Stream<Item = Result<WatchEvent>> + Send {
    let chunks = body.into_data_stream().map_err(Error::Transport);
    stream::unfold(Some((chunks.boxed(), BytesMut::new(), 0usize)), |state| async move {
        let (mut chunks, mut buffer, mut searched) = state?;
        loop {
            if let Some(end) = buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(searched + end);
                buffer.advance(1);
                searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let item = event(&line);
                let next = item.is_ok().then_some((chunks, buffer, 0));
                return Some((item, next));
            }
            searched = buffer.len();
            match chunks.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(e)) => return Some((Err(e), None)),
                None if buffer.iter().all(u8::is_ascii_whitespace) => return None,
                None => return Some((event(&buffer), None)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream::iter;
    use http_body::Frame;
    use http_body_util::StreamBody;

    #[test]
    fn lists() {
        let text = Bytes::from_static(
            br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"c"},"items":[{"metadata":{"name":"a"}} , {"metadata":{"name":"b"}}]}"#,
        );
        let list = split_list(&text).unwrap();
        assert_eq!(list.items.iter().map(|o| o.name()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((list.resource_version.as_str(), list.continue_token.as_str()), ("7", "c"));
        assert!(split_list(&Bytes::from_static(br#"{"metadata":{},"items":null}"#)).unwrap().items.is_empty());
        for bad in ["", "[]", "{}", r#"{"items":[{"metadata":{}"#, r#"{"metadata":{},"items":[3]}"#] {
            assert!(split_list(&Bytes::from(bad)).is_err(), "{bad}");
        }
    }

    async fn events(chunks: &[&'static str]) -> Vec<Result<WatchEvent>> {
        let frames: Vec<_> =
            chunks.iter().map(|c| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(c.as_bytes())))).collect();
        let body = BodyExt::map_err(StreamBody::new(iter(frames)), Into::into).boxed_unsync();
        decode(body).collect().await
    }

    #[tokio::test]
    async fn frames_may_be_cut_anywhere() {
        let got = events(&[
            "{\"type\":\"ADDED\",\"obj",
            "ect\":{\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"b\"}}}\n\n{\"type\":\"BOOKMARK\"",
            ",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n",
            "{\"object\":{\"metadata\":{\"name\":\"c\"}},\"type\":\"DELETED\"}",
        ])
        .await;
        let got: Vec<_> = got.into_iter().map(|e| e.unwrap()).map(|e| (e.kind, e.object.name().to_owned())).collect();
        use EventType::{Added, Bookmark, Deleted, Modified};
        assert_eq!(
            got,
            [(Added, "a".into()), (Modified, "b".into()), (Bookmark, String::new()), (Deleted, "c".into())]
        );
    }

    #[tokio::test]
    async fn an_error_ends_the_stream() {
        let status = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (5)","reason":"Expired","code":410}}"#;
        let got = events(&[status, "\n", r#"{"type":"ADDED","object":{"metadata":{}}}"#]).await;
        assert_eq!(got.len(), 1);
        assert!(got[0].as_ref().unwrap_err().is_expired());
        for bad in [
            "x\n",
            "{\"type\":\"ADDED\"}\n",
            "{\"type\":\"NEW\",\"object\":{\"metadata\":{}}}",
            "{\"type\":\"ADDED\",\"object\":{}}",
        ] {
            assert!(events(&[bad]).await.pop().unwrap().is_err(), "{bad}");
        }
    }
}
