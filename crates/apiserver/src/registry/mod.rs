//! The one generic registry: create, get, list, watch, update, patch and delete of every resource.

mod columns;
pub(crate) mod create;
pub(crate) mod delete;
mod devices;
pub(crate) mod form;
pub(crate) mod list;
pub(crate) mod managed;
pub(crate) mod meta;
pub(crate) mod options;
pub(crate) mod patch;
pub(crate) mod ports;
mod repair;
pub(crate) mod services;
pub(crate) mod storage;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod versions;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use pintle_api::features::FeatureGates;
use pintle_api::object::Object;
use pintle_api::resources::{self, Resource};
use pintle_api::selector::FieldSelector;
use pintle_api::{Status, service::UserInfo};
use pintle_schema::Type;
use pintle_store::Store;
use serde_json::Value;

use crate::kinds::{self, Strategy};
use storage::Objects;

/// A resource as one version serves it.
pub(crate) struct Res {
    pub(crate) def: &'static Resource,
    pub(crate) strategy: &'static Strategy,
    /// Its objects; `None` for what is never stored. Versions of one resource share them.
    pub(crate) objects: Option<Arc<Objects>>,
    /// The version whose form is stored.
    pub(crate) storage: &'static Resource,
    /// The served kind in the schema.
    pub(crate) ty: Option<&'static Type>,
    /// The stored kind in the schema.
    pub(crate) storage_ty: Option<&'static Type>,
    /// `apiVersion` of what is stored.
    pub(crate) storage_api_version: String,
    /// Fields that apply never owns, by sub-resource; of the main resource first.
    resets: Vec<(&'static str, pintle_schema::apply::Set)>,
    /// `apiVersion` of what is served.
    pub(crate) api_version: String,
    /// What every item of a list begins with and a list leaves out: kind and apiVersion.
    item_prefix: String,
    /// Features that are on.
    features: FeatureGates,
}

impl Res {
    /// Its objects.
    ///
    /// # Errors
    /// 405 for what is never stored.
    pub(crate) fn objects(&self) -> Result<&Arc<Objects>, Status> {
        self.objects.as_ref().ok_or_else(|| Status::method_not_supported(self.def.group, self.def.resource, "get"))
    }

    /// 404 about one object.
    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.def.group, self.def.resource, name)
    }

    /// Whether the served version is another than the stored one.
    pub(crate) fn converts(&self) -> bool {
        !std::ptr::eq(self.def, self.storage)
    }

    /// A stored object as this version shows it.
    pub(crate) fn shown(&self, object: &Arc<Object>) -> Result<Arc<Object>, Status> {
        if !self.converts() {
            return Ok(Arc::clone(object));
        }
        let mut value: Value = object.view().map_err(Status::internal)?;
        versions::convert(&mut value, self.storage, self.def);
        Object::from_wire(encode(&value, self.ty), self.strategy.selectable).map(Arc::new).map_err(Status::internal)
    }

    /// Canonical bytes of an object in the stored version.
    pub(crate) fn encode(&self, object: &Value) -> Bytes {
        encode(object, self.storage_ty)
    }

    /// The bytes of an object as an item of a typed list: after `{`, kind and apiVersion left out.
    pub(crate) fn item<'a>(&self, object: &'a Object) -> &'a [u8] {
        let b = object.bytes();
        if b.get(1..).is_some_and(|rest| rest.starts_with(self.item_prefix.as_bytes())) {
            &b[1 + self.item_prefix.len()..]
        } else {
            b.get(1..).unwrap_or_default()
        }
    }

    /// The kind of a list of these.
    pub(crate) fn list_kind(&self) -> String {
        format!("{}List", self.def.kind)
    }

    /// Refuses fields that the resource cannot select by.
    ///
    /// # Errors
    /// 400 with upstream's message.
    pub(crate) fn check_fields(&self, fields: &FieldSelector) -> Result<(), Status> {
        for (field, _, _) in &fields.terms {
            let known = matches!(field.as_str(), "metadata.name" | "metadata.namespace")
                || (self.def.resource == "namespaces" && field == "name")
                || self.strategy.selectable.iter().any(|(n, ..)| n == field);
            if !known {
                return Err(Status::bad_request(if self.strategy.selectable.is_empty() {
                    format!(
                        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        pintle_schema::quote::quoted(field)
                    )
                } else {
                    format!("field label not supported: {field}")
                }));
            }
        }
        Ok(())
    }

    /// Defaults and canonical forms of an object in the stored version.
    pub(crate) fn default(&self, object: &mut Value) {
        if let Some(ty) = self.storage_ty {
            pintle_schema::apply_defaults(object, ty);
        }
    }

    /// The context for the strategy's functions.
    pub(crate) fn strategy_ctx<'a>(
        &self,
        namespace: &'a str,
        user: &'a UserInfo,
        now: jiff::Timestamp,
    ) -> kinds::Ctx<'a> {
        kinds::Ctx {
            resource: self.storage,
            requested: self.def,
            namespace,
            user,
            now,
            features: self.features,
            notes: parking_lot::Mutex::default(),
        }
    }
}

fn encode(object: &Value, ty: Option<&'static Type>) -> Bytes {
    match ty {
        Some(ty) => pintle_schema::encode(object, ty).into(),
        None => pintle_schema::encode::encode_untyped(object).into(),
    }
}

/// Every resource that is served.
pub(crate) struct Registry {
    /// By resource, then group and version: few share a name.
    by_name: HashMap<&'static str, Vec<Arc<Res>>>,
    ordered: Vec<Arc<Res>>,
}

/// The version of a resource that is stored, where several are served.
fn storage_version(def: &'static Resource) -> &'static Resource {
    let other = match (def.group, def.resource) {
        ("events.k8s.io", "events") => resources::by_resource("", "v1", "events"),
        ("autoscaling", "horizontalpodautoscalers") => resources::by_resource("autoscaling", "v2", def.resource),
        // Of a resource with a GA version that version is stored.
        _ => resources::by_resource(def.group, "v1", def.resource),
    };
    other.unwrap_or(def)
}

impl Registry {
    /// The resources of all served group-versions.
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        root: &str,
        media: form::StorageMediaType,
        features: FeatureGates,
        serves: impl Fn(&Resource) -> bool,
    ) -> Self {
        let mut shared: HashMap<&'static str, Arc<Objects>> = HashMap::new();
        let mut registry = Self { by_name: HashMap::new(), ordered: Vec::new() };
        for def in resources::all().iter().filter(|r| serves(r)) {
            let storage = storage_version(def);
            let strategy = kinds::strategy(storage);
            let objects = storage.storage_key.map(|key| {
                Arc::clone(shared.entry(key).or_insert_with(|| {
                    Arc::new(Objects::new(Arc::clone(store), root, key, storage, strategy.selectable, media))
                }))
            });
            let api_version = def.api_version();
            let item_prefix = format!("\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",", def.kind);
            let ty = pintle_schema::kind(&api_version, def.kind);
            let storage_api_version = storage.api_version();
            let storage_ty = pintle_schema::kind(&storage_api_version, storage.kind);
            let resets = managed::resets(strategy);
            let res = Arc::new(Res {
                def,
                strategy,
                objects,
                storage,
                ty,
                storage_ty,
                storage_api_version,
                resets,
                api_version,
                item_prefix,
                features,
            });
            registry.by_name.entry(def.resource).or_default().push(Arc::clone(&res));
            registry.ordered.push(res);
        }
        registry
    }

    /// A resource by group, version and plural name.
    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Res>> {
        self.by_name.get(resource)?.iter().find(|r| r.def.group == group && r.def.version == version)
    }

    /// A resource that is always there.
    ///
    /// # Errors
    /// 500 when it was switched off.
    pub(crate) fn must(&self, group: &str, version: &str, resource: &str) -> Result<&Arc<Res>, Status> {
        self.get(group, version, resource)
            .ok_or_else(|| Status::internal(format!("resource {resource}.{version}.{group} is not served")))
    }

    /// Whether anything of this group and version is served.
    pub(crate) fn serves(&self, group: &str, version: &str) -> bool {
        self.ordered.iter().any(|r| r.def.group == group && r.def.version == version)
    }

    /// All, in the order of the table.
    pub(crate) fn all(&self) -> &[Arc<Res>] {
        &self.ordered
    }
}
