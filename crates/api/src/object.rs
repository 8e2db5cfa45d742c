//! `Object`: a stored or watched object as immutable canonical JSON bytes with a small index.
//!
//! Stored bytes carry no `metadata.resourceVersion`, for it is known only when the write commits; [`Object::from_stored`]
//! puts it in. Bytes that came over the wire have it already: [`Object::from_wire`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::scan::{self, Span};

/// A field that field selectors may name: its selector name, where it stands, and what it reads as where it is absent,
/// such as `("spec.unschedulable", &["spec", "unschedulable"], "false")`. A name may stand several times: the first value
/// that is there counts.
pub type SelectableField = (&'static str, &'static [&'static str], &'static str);

/// Why bytes are no object.
#[derive(Debug, thiserror::Error)]
#[error("not a Kubernetes object: {0}")]
pub struct ObjectError(&'static str);

/// An immutable object. Share it as `Arc<Object>`; it is never changed.
pub struct Object {
    bytes: Bytes,
    resource_version: u64,
    name: Span,
    namespace: Span,
    uid: Span,
    labels: Span,
    owner_references: Span,
    finalizers: Span,
    metadata: Span,
    deleting: bool,
    fields: Box<[Span]>,
    selectable: &'static [SelectableField],
    protobuf: OnceLock<Bytes>,
    row: OnceLock<Bytes>,
}

/// What one pass over the text found.
#[derive(Clone, Copy, Default)]
struct Index {
    name: Span,
    generate_name: Span,
    namespace: Span,
    uid: Span,
    labels: Span,
    owner_references: Span,
    finalizers: Span,
    resource_version: Span,
    metadata: Span,
    deleting: bool,
}

impl Index {
    fn of(text: &[u8]) -> Result<Self, ObjectError> {
        let start = scan::enter(text, 0, "metadata").ok_or(ObjectError("it has no metadata"))?;
        let mut ix = Self::default();
        let end = scan::members(text, start, |key, span| match key {
            b"name" => ix.name = scan::unquoted(text, span),
            b"generateName" => ix.generate_name = scan::unquoted(text, span),
            b"namespace" => ix.namespace = scan::unquoted(text, span),
            b"uid" => ix.uid = scan::unquoted(text, span),
            b"resourceVersion" => ix.resource_version = scan::unquoted(text, span),
            b"labels" if span.of(text).first() == Some(&b'{') => ix.labels = span,
            b"ownerReferences" if span.of(text) != b"null" => ix.owner_references = span,
            b"finalizers" if span.of(text) != b"null" => ix.finalizers = span,
            b"deletionTimestamp" => ix.deleting = span.of(text) != b"null",
            _ => {}
        });
        let end = end.ok_or(ObjectError("its metadata does not parse"))?;
        ix.metadata = Span::new(start, end).ok_or(ObjectError("it is too long"))?;
        if std::str::from_utf8(text).is_err() {
            return Err(ObjectError("it is not UTF-8"));
        }
        Ok(ix)
    }

    /// The index of the text whose bytes from `at` on were moved by `by`.
    fn moved(self, at: usize, by: isize) -> Self {
        let moved = |span: Span| span.moved(at, by);
        Self {
            name: moved(self.name),
            generate_name: moved(self.generate_name),
            namespace: moved(self.namespace),
            uid: moved(self.uid),
            labels: moved(self.labels),
            owner_references: moved(self.owner_references),
            finalizers: moved(self.finalizers),
            resource_version: moved(self.resource_version),
            metadata: moved(self.metadata),
            deleting: self.deleting,
        }
    }
}

impl Object {
    /// From stored bytes (canonical JSON without a resourceVersion) and the revision they were written at.
    ///
    /// # Errors
    /// When the bytes are no JSON object with metadata.
    pub fn from_stored(
        stored: &[u8],
        revision: u64,
        selectable: &'static [SelectableField],
    ) -> Result<Self, ObjectError> {
        let ix = Index::of(stored)?;
        let old = ix.resource_version;
        // What comes in, and in place of what.
        let (version, from, to) = if old.is_empty() {
            // Upstream prints it after name, generateName, namespace and uid.
            match [ix.uid, ix.namespace, ix.generate_name, ix.name].into_iter().find(|s| !s.is_empty()) {
                Some(span) => {
                    let at = span.end as usize + 1;
                    (format!(",\"resourceVersion\":\"{revision}\""), at, at)
                }
                None => {
                    let at = ix.metadata.start as usize + 1;
                    let comma = if ix.metadata.of(stored) == b"{}" { "" } else { "," };
                    (format!("\"resourceVersion\":\"{revision}\"{comma}"), at, at)
                }
            }
        } else {
            (revision.to_string(), old.start as usize, old.end as usize)
        };
        let mut out = BytesMut::with_capacity(stored.len() + version.len());
        out.put_slice(&stored[..from]);
        out.put_slice(version.as_bytes());
        out.put_slice(&stored[to..]);
        let by = version.len().cast_signed() - (to - from).cast_signed();
        Ok(Self::new(out.freeze(), ix.moved(to, by), revision, selectable))
    }

    /// Whether these stored bytes (without a resourceVersion), written at its revision, would be this very object.
    #[must_use]
    pub fn is_stored_as(&self, stored: &[u8]) -> bool {
        let version = format!(",\"resourceVersion\":\"{}\"", self.resource_version);
        let at = self.uid.end as usize + 1;
        match (self.uid.is_empty(), stored.split_at_checked(at), self.bytes.split_at_checked(at)) {
            (false, Some((before, after)), Some((own_before, own_after))) => {
                before == own_before && own_after.strip_prefix(version.as_bytes()) == Some(after)
            }
            _ => Self::from_stored(stored, self.resource_version, &[]).is_ok_and(|o| o.bytes == self.bytes),
        }
    }

    /// From bytes as the API printed them, with their resourceVersion.
    ///
    /// # Errors
    /// When the bytes are no JSON object with metadata.
    pub fn from_wire(bytes: Bytes, selectable: &'static [SelectableField]) -> Result<Self, ObjectError> {
        let ix = Index::of(&bytes)?;
        let version = std::str::from_utf8(ix.resource_version.of(&bytes)).ok().and_then(|s| s.parse().ok());
        Ok(Self::new(bytes, ix, version.unwrap_or(0), selectable))
    }

    fn new(bytes: Bytes, ix: Index, resource_version: u64, selectable: &'static [SelectableField]) -> Self {
        let mut fields = vec![Span::default(); selectable.len()].into_boxed_slice();
        scan::find_all(&bytes, 0, selectable, |(_, path, _)| path, &mut fields);
        fields.iter_mut().for_each(|span| *span = scan::unquoted(&bytes, *span));
        Self {
            resource_version,
            name: ix.name,
            namespace: ix.namespace,
            uid: ix.uid,
            labels: ix.labels,
            owner_references: ix.owner_references,
            finalizers: ix.finalizers,
            metadata: ix.metadata,
            deleting: ix.deleting,
            fields,
            selectable,
            bytes,
            protobuf: OnceLock::new(),
            row: OnceLock::new(),
        }
    }

    /// The same object as of another revision: the last state of a deleted object carries the delete's revision.
    ///
    /// # Errors
    /// Never for an object that was made by this type; the signature is that of [`Object::from_stored`].
    pub fn at_revision(&self, revision: u64) -> Result<Self, ObjectError> {
        Self::from_stored(&self.bytes, revision, self.selectable)
    }

    fn str(&self, span: Span) -> &str {
        // The whole text was checked to be UTF-8, and spans end at ASCII quotes, so this never falls back.
        std::str::from_utf8(span.of(&self.bytes)).unwrap_or_default()
    }

    /// Its JSON text.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.str(self.name)
    }

    /// `metadata.namespace`; empty for cluster-scoped objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.str(self.namespace)
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.str(self.uid)
    }

    /// `metadata.resourceVersion` as a number; 0 when it has none.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// Whether `metadata.deletionTimestamp` is set.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// JSON text of `metadata.ownerReferences`; empty when it has none.
    #[must_use]
    pub fn owner_references(&self) -> &[u8] {
        self.owner_references.of(&self.bytes)
    }

    /// JSON text of `metadata.finalizers`; empty when it has none.
    #[must_use]
    pub fn finalizers(&self) -> &[u8] {
        self.finalizers.of(&self.bytes)
    }

    /// JSON text of `metadata`.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.metadata.of(&self.bytes)
    }

    /// Its labels, in the order of the text. Valid labels hold nothing that JSON escapes.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = &self.bytes[..];
        let mut at = if self.labels.is_empty() { usize::MAX } else { self.labels.start as usize + 1 };
        std::iter::from_fn(move || {
            at = scan::skip_space(text, at);
            let key_end = (*text.get(at)? == b'"').then(|| scan::skip_value(text, at)).flatten()?;
            let key = text.get(at + 1..key_end - 1)?;
            let mut v = scan::skip_space(text, key_end);
            v = scan::skip_space(text, v + 1);
            let end = scan::skip_value(text, v)?;
            let value = text.get(v + 1..end.max(v + 2) - 1).unwrap_or_default();
            at = scan::skip_space(text, end);
            at = if text.get(at) == Some(&b',') { at + 1 } else { usize::MAX };
            Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?))
        })
    }

    /// The value of one label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The value of a selectable field (its zero when the object lacks it); `None` when the resource does not know the
    /// field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => {
                // A field with several paths has the first value that is there.
                let mut paths = self.selectable.iter().zip(&self.fields).filter(|((n, ..), _)| *n == name).peekable();
                let ((_, _, absent), _) = paths.peek()?;
                Some(paths.find(|(_, span)| !span.is_empty()).map_or(absent, |(_, span)| self.str(*span)))
            }
        }
    }

    /// JSON text of the value at a path of keys; a pass over the text, so not for hot paths.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&[u8]> {
        scan::find(&self.bytes, 0, path).map(|s| s.of(&self.bytes))
    }

    /// Decodes it, or a narrow view of it: a struct that names only the fields its user needs.
    ///
    /// # Errors
    /// When the object does not fit the type.
    pub fn view<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.bytes)
    }

    /// `namespace/name`, or the name alone: how work queues and stores key it.
    #[must_use]
    pub fn key(&self) -> String {
        if self.namespace.is_empty() { self.name().to_owned() } else { format!("{}/{}", self.namespace(), self.name()) }
    }

    /// Its protobuf form, made once.
    pub fn protobuf(&self, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.protobuf.get_or_init(make)
    }

    /// Its Table row, made once.
    pub fn row(&self, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.row.get_or_init(make)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: an object may be a Secret.
        write!(f, "Object({} @{})", self.key(), self.resource_version)
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It appeared, or started to match the selector.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or stopped matching the selector; the object is its last state.
    Deleted,
    /// Only a revision: everything before it has been sent.
    Bookmark,
}

impl EventType {
    /// As the wire names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// One watch event.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventType,
    /// The object; for a bookmark one that holds little more than a resourceVersion.
    pub object: Arc<Object>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"b","uid":"u","generation":1,"labels":{"app":"x","tier":"y"}},"spec":{"nodeName":"n1"}}"#;
    const FIELDS: &[SelectableField] = &[
        ("spec.nodeName", &["spec", "nodeName"], ""),
        ("status.phase", &["status", "phase"], ""),
        ("spec.hostNetwork", &["spec", "hostNetwork"], "false"),
        ("either", &["spec", "other"], ""),
        ("either", &["spec", "nodeName"], ""),
    ];

    #[test]
    fn splices_the_version_after_the_uid() {
        let o = Object::from_stored(POD.as_bytes(), 42, FIELDS).unwrap();
        assert!(std::str::from_utf8(o.bytes()).unwrap().contains(r#""uid":"u","resourceVersion":"42","generation":1"#));
        assert_eq!((o.name(), o.namespace(), o.uid(), o.resource_version()), ("a", "b", "u", 42));
        assert_eq!(o.field("spec.nodeName"), Some("n1"));
        assert_eq!(o.field("status.phase"), Some(""));
        assert_eq!(o.field("spec.hostNetwork"), Some("false"));
        assert_eq!(o.field("spec.other"), None);
        assert_eq!(o.field("either"), Some("n1"), "the first path that leads to something");
        assert_eq!(o.field("metadata.name"), Some("a"));
        assert_eq!(o.labels().collect::<Vec<_>>(), [("app", "x"), ("tier", "y")]);
        assert_eq!(o.label("tier"), Some("y"));
        assert!(!o.is_deleting());
        let later = o.at_revision(50).unwrap();
        assert_eq!(later.resource_version(), 50);
        assert_eq!(later.bytes().len(), o.bytes().len());
    }

    #[test]
    fn splices_where_there_is_little() {
        for (text, want) in [
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#),
            (r#"{"metadata":{"labels":{}}}"#, r#"{"metadata":{"resourceVersion":"7","labels":{}}}"#),
            (r#"{"metadata":{"name":"n"}}"#, r#"{"metadata":{"name":"n","resourceVersion":"7"}}"#),
        ] {
            assert_eq!(Object::from_stored(text.as_bytes(), 7, &[]).unwrap().bytes(), want);
        }
    }

    #[test]
    fn what_is_spliced_is_found_as_what_is_read() {
        let full = r#"{"kind":"Pod","metadata":{"name":"a","generateName":"a-","namespace":"b","uid":"u","finalizers":["f"],"labels":{"app":"x"},"ownerReferences":[{"uid":"o"}],"deletionTimestamp":"t"},"spec":{"nodeName":"n1","other":"é"},"status":{"phase":"Running"}}"#;
        let late =
            r#"{"status":{"phase":"P"},"metadata":{"finalizers":null,"labels":{"a":"b"}},"spec":{"hostNetwork":true}}"#;
        for text in [POD, full, late, r#"{"metadata":{}}"#] {
            for text in [text.to_owned(), text.replace("\"metadata\":{", "\"metadata\":{\"resourceVersion\":\"12345\"")]
            {
                let text = text.replace("5\"\"", "5\",\"");
                for revision in [1, 12345, 1_234_567_890] {
                    let o = Object::from_stored(text.as_bytes(), revision, FIELDS).unwrap();
                    let read = Object::from_wire(o.bytes().clone(), FIELDS).unwrap();
                    let seen = |o: &Object| {
                        let fields = FIELDS.iter().map(|(f, ..)| o.field(f).unwrap().to_owned()).collect::<Vec<_>>();
                        let labels = o.labels().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
                        let parts = [o.owner_references(), o.finalizers(), o.metadata()].map(<[u8]>::to_vec);
                        (o.key(), o.uid().to_owned(), o.resource_version(), o.is_deleting(), fields, labels, parts)
                    };
                    assert_eq!(seen(&o), seen(&read), "{text}");
                    assert_eq!(o.resource_version(), revision);
                }
            }
        }
        let o = Object::from_stored(full.as_bytes(), 1, FIELDS).unwrap();
        assert_eq!((o.owner_references(), o.finalizers()), (&br#"[{"uid":"o"}]"#[..], &br#"["f"]"#[..]));
        let o = Object::from_stored(late.as_bytes(), 1, FIELDS).unwrap();
        assert_eq!((o.owner_references(), o.finalizers()), (&b""[..], &b""[..]));
    }

    #[test]
    fn tells_whether_it_would_be_written_as_it_is() {
        for stored in [POD, r#"{"metadata":{}}"#, r#"{"metadata":{"name":"n"}}"#] {
            let o = Object::from_stored(stored.as_bytes(), 42, &[]).unwrap();
            assert!(o.is_stored_as(stored.as_bytes()));
            for other in [
                stored.replace("{}", r#"{"name":"m"}"#).replace("\"a\"", "\"c\"").replace("\"n\"", "\"m\""),
                format!("{stored} "),
            ] {
                assert!(!o.is_stored_as(other.as_bytes()), "{other}");
            }
            assert!(!o.is_stored_as(b""));
        }
    }

    #[test]
    fn refuses_what_is_no_object() {
        for text in ["", "[]", "{}", r#"{"metadata":3}"#, "{\"metadata\":{\"name\":\"\u{0}"] {
            assert!(Object::from_stored(text.as_bytes(), 1, &[]).is_err(), "{text}");
        }
        assert!(Object::from_stored(b"{\"metadata\":{\"name\":\"\xff\"}}", 1, &[]).is_err());
    }

    #[test]
    fn no_labels() {
        let o = Object::from_stored(br#"{"metadata":{"name":"n","labels":{}}}"#, 1, &[]).unwrap();
        assert_eq!(o.labels().count(), 0);
        let o = Object::from_stored(br#"{"metadata":{"name":"n"}}"#, 1, &[]).unwrap();
        assert_eq!(o.labels().count(), 0);
    }
}
