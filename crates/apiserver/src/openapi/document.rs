//! Whole documents, made part by part: no more than one path or one definition is held in its unpacked form.

use std::collections::BTreeSet;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::gnostic::{self, Message};
use super::gnostic3;
use super::paths::{self, Paths};
use super::schemas::Schemas;
use super::texts::{self, Texts};
use super::v2::{self, Shared};
use crate::registry::Registry;

fn info() -> Value {
    json!({"title": "Kubernetes", "version": format!("v1.{}.0", crate::discovery::MINOR)})
}

fn security() -> Value {
    json!([{"BearerToken": []}])
}

fn security_definitions() -> Value {
    json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication"}})
}

/// The path below `/openapi/v3` of a group-version.
pub(super) fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The documents there are, by their paths below `/openapi/v3`.
pub(super) fn all(registry: &Registry) -> BTreeSet<String> {
    let mut out: BTreeSet<String> =
        ["api", "apis", "version", "openid/v1/jwks", ".well-known/openid-configuration"].map(str::to_owned).into();
    for r in registry.all() {
        out.insert(path_of(r.def.group, r.def.version));
        if !r.def.group.is_empty() {
            out.insert(format!("apis/{}", r.def.group));
        }
    }
    out
}

fn paths_of(registry: &Registry, document: &str, used: &mut Schemas<'_>) -> Paths {
    let mut out = Paths::new();
    paths::add_root(&mut out, document, used);
    for res in registry.all().iter().filter(|r| path_of(r.def.group, r.def.version) == document) {
        paths::add(&mut out, res, used);
    }
    out
}

/// Writes the members of a JSON object.
struct Members<'a, W: Write> {
    to: &'a mut W,
    first: bool,
}

impl<'a, W: Write> Members<'a, W> {
    fn begin(to: &'a mut W) -> io::Result<Self> {
        to.write_all(b"{")?;
        Ok(Self { to, first: true })
    }

    fn key(&mut self, key: &str) -> io::Result<&mut W> {
        if !self.first {
            self.to.write_all(b",")?;
        }
        self.first = false;
        serde_json::to_writer(&mut *self.to, key)?;
        self.to.write_all(b":")?;
        Ok(self.to)
    }

    fn put(&mut self, key: &str, value: &Value) -> io::Result<()> {
        serde_json::to_writer(self.key(key)?, value)?;
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        self.to.write_all(b"}")
    }
}

fn packer() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::default())
}

/// A document of v3, packed.
///
/// # Errors
/// None in fact: it is written to memory.
pub(super) fn v3(registry: &Registry, document: &str) -> io::Result<Vec<u8>> {
    let raw = texts::unpack();
    let texts = Texts::new(&raw);
    let mut used = Schemas::new(&texts);
    let mut to = packer();
    let mut m = Members::begin(&mut to)?;
    m.put("openapi", &"3.0.0".into())?;
    m.put("info", &info())?;
    let mut paths = Members::begin(m.key("paths")?)?;
    for (path, item) in paths_of(registry, document, &mut used) {
        paths.put(&path, &item)?;
    }
    paths.end()?;
    let mut components = Members::begin(m.key("components")?)?;
    let mut schemas = Members::begin(components.key("schemas")?)?;
    while let Some((name, schema)) = used.next() {
        schemas.put(&name, &schema)?;
    }
    schemas.end()?;
    components.put("securitySchemes", &security_definitions())?;
    components.end()?;
    m.put("security", &security())?;
    m.end()?;
    to.finish()
}

/// A document of v3 in protobuf, packed.
///
/// # Errors
/// None in fact: it is written to memory.
pub(super) fn v3_protobuf(registry: &Registry, document: &str) -> io::Result<Vec<u8>> {
    let raw = texts::unpack();
    let texts = Texts::new(&raw);
    let mut used = Schemas::new(&texts);
    let mut paths = Message::default();
    for (path, item) in paths_of(registry, document, &mut used) {
        paths.named(1, &path, &gnostic3::path_item(&item));
    }
    let mut schemas = Message::default();
    while let Some((name, schema)) = used.next() {
        schemas.named(1, &name, &gnostic3::schema(&schema));
    }
    let mut to = packer();
    to.write_all(&gnostic3::document(&info(), &paths, &schemas, &security_definitions(), &security()))?;
    to.finish()
}

/// The document of v2 in JSON, packed.
///
/// # Errors
/// None in fact: it is written to memory.
pub(super) fn v2_json(registry: &Registry) -> io::Result<Vec<u8>> {
    let raw = texts::unpack();
    let texts = Texts::new(&raw);
    let mut used = Schemas::new(&texts);
    let mut shared = Shared::default();
    let mut to = packer();
    let mut m = Members::begin(&mut to)?;
    m.put("swagger", &"2.0".into())?;
    m.put("info", &info())?;
    let mut paths = Members::begin(m.key("paths")?)?;
    for document in all(registry) {
        for (path, item) in paths_of(registry, &document, &mut used) {
            paths.put(&path, &v2::path_item(&item, &mut shared))?;
        }
    }
    paths.end()?;
    let mut definitions = Members::begin(m.key("definitions")?)?;
    while let Some((name, schema)) = used.next() {
        definitions.put(&name, &v2::schema(&schema))?;
    }
    definitions.end()?;
    let mut parameters = Members::begin(m.key("parameters")?)?;
    for (name, p) in shared.finish() {
        parameters.put(&name, &p)?;
    }
    parameters.end()?;
    m.put("securityDefinitions", &security_definitions())?;
    m.put("security", &security())?;
    m.end()?;
    to.finish()
}

/// The document of v2 in protobuf, packed.
///
/// # Errors
/// None in fact: it is written to memory.
pub(super) fn v2_protobuf(registry: &Registry) -> io::Result<Vec<u8>> {
    let raw = texts::unpack();
    let texts = Texts::new(&raw);
    let mut used = Schemas::new(&texts);
    let mut shared = Shared::default();
    let mut out = gnostic::Document::new(&info());
    let mut paths = Message::default();
    for document in all(registry) {
        for (path, item) in paths_of(registry, &document, &mut used) {
            paths.named(2, &path, &gnostic::path_item(&v2::path_item(&item, &mut shared)));
        }
    }
    out.paths(&paths);
    drop(paths);
    let mut definitions = Message::default();
    while let Some((name, schema)) = used.next() {
        definitions.named(1, &name, &gnostic::schema(&v2::schema(&schema)));
    }
    out.definitions(&definitions);
    drop(definitions);
    let mut parameters = Message::default();
    for (name, p) in shared.finish() {
        parameters.named(1, &name, &gnostic::parameter(&p));
    }
    out.parameters(&parameters);
    let mut to = packer();
    to.write_all(&out.finish(&security(), &security_definitions()))?;
    to.finish()
}
