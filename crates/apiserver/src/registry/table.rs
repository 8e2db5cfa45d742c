//! Objects as Tables and as object metadata only.

use bytes::Bytes;
use jiff::Timestamp;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use super::Res;
use crate::http::query::Query;

/// What a row of a Table carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// From the query's `includeObject`.
///
/// # Errors
/// 400 for an unknown value.
pub(crate) fn include(q: &Query) -> Result<Include, Status> {
    match q.non_empty("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
            pintle_schema::quote::quoted(other)
        ))),
    }
}

/// The object's metadata as a `PartialObjectMetadata`.
pub(crate) fn partial(object: &Object, version: &str) -> Bytes {
    let head = format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":");
    let mut out = Vec::with_capacity(head.len() + object.metadata().len() + 1);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(object.metadata());
    out.push(b'}');
    out.into()
}

/// Writes a Table of these objects. `head` says whether the columns are described.
///
/// # Errors
/// When an object does not parse.
pub(crate) fn table<'a>(
    res: &Res,
    version: &str,
    metadata: &Value,
    objects: impl Iterator<Item = &'a Object>,
    include: Include,
    head: bool,
    now: Timestamp,
) -> Result<Vec<u8>, Status> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":").as_bytes(),
    );
    write(&mut out, metadata);
    out.extend_from_slice(b",\"columnDefinitions\":");
    if head {
        out.extend_from_slice(super::columns::definitions(res.def).unwrap_or("[]").as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b",\"rows\":[");
    for (i, object) in objects.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let value: Value = object.view().map_err(Status::internal)?;
        let cursor = Cursor::root(&value);
        out.extend_from_slice(b"{\"cells\":");
        write(&mut out, &Value::Array((res.strategy.row)(&cursor, now)));
        let conditions = (res.strategy.row_conditions)(&cursor);
        if !conditions.is_empty() {
            out.extend_from_slice(b",\"conditions\":");
            write(&mut out, &Value::Array(conditions));
        }
        match include {
            Include::None => out.extend_from_slice(b",\"object\":null"),
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&partial(object, version));
            }
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(object.bytes());
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn write(out: &mut Vec<u8>, value: &Value) {
    // Writing a tree to a vector does not fail.
    let _ = serde_json::to_writer(out, value);
}
