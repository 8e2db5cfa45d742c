//! Bytes to objects and back.

use bytes::Bytes;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_schema::proto::Transcoder;
use pintle_schema::{Decoded, Mode, Type, decode, proto};
use serde_json::Value;

use crate::http::negotiate::Media;
use crate::registry::options::FieldValidation;
use crate::registry::patch::PatchType;

/// Decodes a body without a schema: options and other small things.
///
/// # Errors
/// The parser's words.
pub(crate) fn plain(media: Media, body: &[u8]) -> Result<Value, String> {
    match media {
        Media::Json => decode::decode_json_untyped(body, Mode::Lenient).map(|d| d.value).map_err(|e| e.to_string()),
        Media::Yaml => decode::yaml_to_value(body).map(|(v, _)| v).map_err(|e| e.to_string()),
        Media::Protobuf => Err("protobuf is not understood here".into()),
    }
}

/// JSON text as YAML.
pub(crate) fn json_to_yaml(body: &[u8]) -> Bytes {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    serde_saphyr::to_string(&value).unwrap_or_default().into()
}

/// JSON text of a built-in kind in protobuf.
///
/// # Errors
/// For what has no protobuf form.
pub(crate) fn json_to_protobuf(body: &[u8]) -> Result<Bytes, Status> {
    let meta = decode::type_meta(body).map_err(Status::internal)?;
    match pintle_schema::kind(&meta.api_version, &meta.kind) {
        Some(ty) => {
            let body = proto::json_to_body(body, ty).map_err(Status::internal)?;
            Ok(proto::seal(&meta.api_version, &meta.kind, &body).into())
        }
        None => Err(Status::not_acceptable(&["application/json", "application/yaml"])),
    }
}

/// The protobuf body of a stored object, made once.
pub(crate) fn protobuf_body<'a>(object: &'a Object, ty: &'static Type) -> &'a Bytes {
    protobuf_body_by(&mut Transcoder::default(), object, ty)
}

/// The same, by what has made others of its list.
pub(crate) fn protobuf_body_by<'a>(by: &mut Transcoder, object: &'a Object, ty: &'static Type) -> &'a Bytes {
    object.protobuf(|| {
        // What is kept was encoded by the schema; were it not to read so, the slow way says more.
        let body = by.body(object.bytes(), ty);
        body.unwrap_or_else(|_| proto::to_body(&object.view().unwrap_or_default(), ty)).into()
    })
}

/// A watch event as a length-delimited protobuf frame around an object's JSON.
pub(crate) fn protobuf_frame(event: &str, object: &[u8]) -> Bytes {
    let enveloped = json_to_protobuf(object).unwrap_or_default();
    proto::watch_frame(event, &enveloped).into()
}

/// Go's package of a group's internal types, as its messages name them.
fn internal_package(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() }
}

fn unrecognized(kind: &str, why: &impl std::fmt::Display, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// Decodes an object of a resource, as one of its sub-resources' kinds when `kind` says so. Unknown and duplicate
/// fields are refused, or listed to warn of, or dropped.
///
/// # Errors
/// 400 with upstream's messages.
pub(crate) fn decode(
    media: Media,
    body: &[u8],
    api_version: &str,
    kind: &str,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let gv = pintle_api::resources::GroupVersion::parse(api_version);
    let yaml;
    let (have_version, have_kind) = match media {
        Media::Json => {
            let meta = decode::type_meta(body).map_err(|e| unrecognized(kind, &e, body))?;
            yaml = None;
            (meta.api_version, meta.kind)
        }
        Media::Yaml => {
            let value = decode::yaml_to_value(body).map_err(|e| unrecognized(kind, &e, body))?.0;
            let text = |k: &str| value.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
            let meta = (text("apiVersion"), text("kind"));
            yaml = Some(());
            meta
        }
        Media::Protobuf => {
            let e = proto::envelope(body).map_err(|e| unrecognized(kind, &e, body))?;
            yaml = None;
            (e.api_version, e.kind)
        }
    };
    let given = if have_version.is_empty() { api_version } else { have_version.as_str() };
    let given_gv = pintle_api::resources::GroupVersion::parse(given);
    if !have_kind.is_empty() && have_kind != kind {
        let known = pintle_schema::kind(given, &have_kind).is_some();
        let why = if known {
            format!(
                "converting ({}.{have_kind}) to ({}.{kind}): unknown conversion",
                given_gv.version,
                internal_package(gv.group)
            )
        } else {
            format!(
                "no kind \"{have_kind}\" is registered for version \"{given}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            )
        };
        return Err(Status::bad_request(format!(
            "{have_kind} in version \"{}\" cannot be handled as a {kind}: {why}",
            given_gv.version
        )));
    }
    if given != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    let mode = if validation == FieldValidation::Ignore { Mode::Lenient } else { Mode::Strict };
    let ty = pintle_schema::kind(api_version, kind);
    let decoded = match (ty, yaml) {
        (Some(ty), _) if media == Media::Protobuf => {
            let mut value = proto::from_proto(body, ty).map_err(|e| unrecognized(kind, &e, body))?;
            value["kind"] = kind.into();
            value["apiVersion"] = api_version.into();
            return Ok((value, Vec::new()));
        }
        (Some(ty), None) => decode::decode_json(body, ty, mode),
        (Some(ty), Some(())) => decode::decode_yaml(body, ty, mode),
        (None, None) => decode::decode_json_untyped(body, mode),
        (None, Some(())) => decode::decode_yaml_untyped(body, mode),
    };
    let fails = |why: String| {
        Status::bad_request(format!("{kind} in version \"{}\" cannot be handled as a {kind}: {why}", gv.version))
    };
    let Decoded { mut value, strict } = decoded.map_err(|e| fails(e.to_string()))?;
    if !value.is_object() {
        return Err(fails("json: cannot unmarshal a non-object".into()));
    }
    if validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(fails(format!("strict decoding error: {}", strict.join(", "))));
    }
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    Ok((value, strict))
}

/// The beginning of a body, for messages.
fn summary(body: &[u8]) -> String {
    if body.is_empty() {
        return "<empty>".into();
    }
    let head = &body[..body.len().min(30)];
    let dots = if body.len() > 30 { " ..." } else { "" };
    if body[0] == b'{' {
        format!("{}{dots}", String::from_utf8_lossy(head))
    } else {
        format!("{}{dots}", hex::encode(head))
    }
}

/// Decodes options, which are accepted in the version of any group.
///
/// # Errors
/// 400 when the body is something else.
pub(crate) fn options(media: Media, body: &[u8], kind: &str) -> Result<Value, Status> {
    let value = match (media, pintle_schema::kind("v1", kind)) {
        (Media::Protobuf, Some(ty)) => proto::from_proto(body, ty).map_err(|e| e.to_string()),
        _ => plain(media, body),
    }
    .map_err(Status::bad_request)?;
    match value.get("kind").and_then(Value::as_str) {
        Some(k) if k != kind && !k.is_empty() => {
            Err(Status::bad_request(format!("decoded object cannot be converted to {kind}")))
        }
        _ => Ok(value),
    }
}

/// The object of a type after a patch. Answers what to warn of, too.
///
/// # Errors
/// 400 for a patch that does not parse, 422 for one that does not apply.
pub(crate) fn patched(
    patch_type: PatchType,
    current: &Value,
    body: &[u8],
    ty: Option<&'static Type>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    use pintle_schema::patch;
    let mode = if validation == FieldValidation::Ignore { Mode::Lenient } else { Mode::Strict };
    let made = match (patch_type, ty) {
        (PatchType::Json, _) => patch::json_patch(current, body, mode),
        (PatchType::Merge, _) => patch::merge_patch(current, body, mode),
        (PatchType::Strategic, Some(ty)) => patch::strategic_merge_patch(current, body, ty, mode),
        (PatchType::Strategic, None) | (PatchType::Apply, _) => {
            return Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
            ]));
        }
    };
    let patch::Patched { value: object, strict: complaints } = made.map_err(|e| {
        let reason = match e.code {
            400 => "BadRequest",
            413 => "RequestEntityTooLarge",
            422 => "Invalid",
            _ => "InternalError",
        };
        let text = if e.code == 413 { format!("Request entity too large: {e}") } else { e.to_string() };
        let mut s = Status::failure(e.code, reason, text);
        s.details_mut();
        s
    })?;
    let strict_error = |all: &[String]| format!("strict decoding error: {}", all.join(", "));
    let Some(ty) = ty else { return Ok((object, complaints)) };
    let invalid = |object: &Value, why: &str| {
        let mut errors = pintle_schema::errors::Errors::new();
        errors.invalid_value("patch", object.to_string(), why);
        Status::invalid("", "", "", crate::registry::options::causes(&errors))
    };
    let decoded = decode::decode_value(object.clone(), ty, mode).map_err(|e| invalid(&object, &e.to_string()))?;
    let all: Vec<String> = complaints.into_iter().chain(decoded.strict).collect();
    if validation == FieldValidation::Strict && !all.is_empty() {
        return Err(invalid(&object, &strict_error(&all)));
    }
    Ok((decoded.value, all))
}
