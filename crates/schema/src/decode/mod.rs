//! Decoding: text to a value as Go would hold it and print it again.
//!
//! One pass by the schema: unknown and duplicate fields are found, wrong types refused, what Go would not write is left
//! out, what it always writes is there, and quantities, times and bytes are in their canonical form.

mod json;
mod source;
mod typed;
mod yaml;

use crate::patch::Operation;
use crate::table::Type;
use serde_json::Value;
use std::fmt;

pub(crate) use typed::kept;
pub use yaml::yaml_to_value;

/// How deep lists and maps may nest. Upstream stops at 10,000; whoever reads a stored object here with `serde_json`
/// stops at 128, and no object that is meant seriously comes near either.
pub const MAX_DEPTH: usize = 120;

/// Whether to look for unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Drop them silently (`fieldValidation=Ignore`).
    Lenient,
    /// List them in [`Decoded::strict`] (`fieldValidation=Warn` and `Strict`).
    Strict,
}

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value.
    pub value: Value,
    /// What strict decoding objects to, in upstream's words: `unknown field "spec.foo"`.
    pub strict: Vec<String>,
}

/// Why a text cannot be decoded, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(String);

impl DecodeError {
    fn syntax(message: impl Into<String>) -> Self {
        DecodeError(message.into())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// The `kind` and `apiVersion` that a text states; empty where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// The apiVersion, or "".
    pub api_version: String,
    /// The kind, or "".
    pub kind: String,
}

/// Reads what a JSON text says it is, checking the syntax of the whole.
pub fn type_meta(data: &[u8]) -> Result<TypeMeta, DecodeError> {
    typed::type_meta(&mut json::Json::new(data))
        .map_err(|e| DecodeError(format!("couldn't get version/kind; json parse error: {e}")))
}

/// Decodes JSON as a type of the table.
pub fn decode_json(data: &[u8], ty: &'static Type, mode: Mode) -> Result<Decoded, DecodeError> {
    let mut source = json::Json::new(data);
    let decoded = typed::decode(&mut source, ty, mode);
    finish(&mut source, decoded)
}

/// Decodes JSON of any shape, for custom resources.
pub fn decode_json_untyped(data: &[u8], mode: Mode) -> Result<Decoded, DecodeError> {
    let mut source = json::Json::new(data);
    let decoded = typed::decode_untyped(&mut source, mode);
    finish(&mut source, decoded)
}

fn finish(
    source: &mut json::Json<'_>,
    decoded: Result<Result<Decoded, DecodeError>, DecodeError>,
) -> Result<Decoded, DecodeError> {
    // A syntax error anywhere comes before an error of type, as upstream checks the whole text first.
    let decoded = decoded?;
    source.end()?;
    decoded
}

/// Decodes JSON of any kind, numbers as they are written.
pub fn decode_raw(data: &[u8]) -> Result<Value, DecodeError> {
    let mut source = json::Json::new(data);
    let value = typed::raw(&mut source)?;
    source.end()?;
    value
}

/// Decodes the operations of a JSON patch.
pub(crate) fn json_patch_operations(data: &[u8], mode: Mode) -> Result<(Vec<Operation>, Vec<String>), DecodeError> {
    let mut source = json::Json::new(data);
    let operations = typed::operations(&mut source, mode)?;
    source.end()?;
    operations
}

/// Decodes a value in memory as a type of the table: what a patch has made, for example.
pub fn decode_value(value: Value, ty: &'static Type, mode: Mode) -> Result<Decoded, DecodeError> {
    typed::decode(&mut source::Tree::new(value), ty, mode)?
}

/// Decodes YAML as a type of the table.
pub fn decode_yaml(data: &[u8], ty: &'static Type, mode: Mode) -> Result<Decoded, DecodeError> {
    with_yaml(data, mode, |value| decode_value(value, ty, mode))
}

/// Decodes YAML of any shape, for custom resources.
pub fn decode_yaml_untyped(data: &[u8], mode: Mode) -> Result<Decoded, DecodeError> {
    with_yaml(data, mode, |value| typed::decode_untyped(&mut source::Tree::new(value), mode)?)
}

fn with_yaml(
    data: &[u8],
    mode: Mode,
    decode: impl FnOnce(Value) -> Result<Decoded, DecodeError>,
) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = yaml_to_value(data)?;
    let mut decoded = decode(value)?;
    if mode == Mode::Strict && !duplicates.is_empty() {
        decoded.strict.insert(0, duplicates);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
