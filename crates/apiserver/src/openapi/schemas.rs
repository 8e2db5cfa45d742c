//! Types of the schema table as OpenAPI schemas.

use std::collections::{BTreeMap, BTreeSet};

use pintle_schema::{Base, Field, Form, ListKind, Type, Written};
use serde_json::{Map, Value, json};

/// The name of a type among the components.
pub(super) fn name(ty: &Type) -> String {
    let package = ty.package;
    let (group, version) = package.split_once('/').unwrap_or((package, ""));
    let prefix = match group {
        "meta" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}"),
        "apiextensions" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}"),
        "apiregistration" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}"),
        _ => format!("io.k8s.api.{group}.{version}"),
    };
    format!("{prefix}.{}", ty.name)
}

/// The schemas a document uses, collected as they are named.
#[derive(Default)]
pub(super) struct Schemas {
    done: BTreeMap<String, Value>,
    waiting: Vec<&'static Type>,
    seen: BTreeSet<String>,
    special: BTreeSet<&'static str>,
}

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const OR_ARRAY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const OR_STRINGS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

fn special(name: &str) -> Value {
    match name {
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        QUANTITY => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        INT_OR_STRING => json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
        RAW | FIELDS => json!({"type": "object"}),
        _ => json!({}),
    }
}

impl Schemas {
    /// A reference to a type.
    pub(super) fn reference(&mut self, ty: &'static Type) -> Value {
        let name = name(ty);
        if self.seen.insert(name.clone()) {
            self.waiting.push(ty);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn named_special(&mut self, name: &'static str) -> Value {
        self.special.insert(name);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// One value of a field; a reference stands alone or, with `wrap`, beside a default.
    fn one(&mut self, base: Base, wrap: bool) -> Value {
        let (reference, default) = match base {
            Base::Str => return json!({"type": "string"}),
            Base::Bool => return json!({"type": "boolean"}),
            Base::Int32 => return json!({"type": "integer", "format": "int32"}),
            Base::Int64 => return json!({"type": "integer", "format": "int64"}),
            Base::Double => return json!({"type": "number", "format": "double"}),
            Base::Bytes => return json!({"type": "string", "format": "byte"}),
            Base::StringList => return json!({"type": "array", "items": {"type": "string", "default": ""}}),
            Base::Time => (self.named_special(TIME), None),
            Base::MicroTime => (self.named_special(MICRO_TIME), None),
            Base::Quantity => (self.named_special(QUANTITY), None),
            Base::IntOrString => (self.named_special(INT_OR_STRING), None),
            Base::Raw => (self.named_special(RAW), None),
            Base::Fields => (self.named_special(FIELDS), None),
            Base::Json => (self.named_special(JSON), None),
            Base::SchemaOrArray => (self.named_special(OR_ARRAY), None),
            Base::SchemaOrBool => (self.named_special(OR_BOOL), None),
            Base::SchemaOrStrings => (self.named_special(OR_STRINGS), None),
            Base::Struct(id) => (self.reference(id.get()), Some(json!({}))),
        };
        match (wrap, default) {
            (true, Some(d)) => json!({"allOf": [reference], "default": d}),
            (true, None) => json!({"allOf": [reference]}),
            (false, _) => reference,
        }
    }

    fn field(&mut self, f: &Field) -> Value {
        let mut out = match f.form {
            Form::Plain => self.one(f.base, true),
            Form::Pointer => {
                let mut v = self.one(f.base, true);
                if let Some(m) = v.as_object_mut() {
                    m.remove("default");
                }
                v
            }
            Form::List => json!({"type": "array", "items": self.one(f.base, true)}),
            Form::Map => json!({"type": "object", "additionalProperties": self.one(f.base, true)}),
        };
        if let Some(d) = &f.default {
            out["default"] = d.clone();
        } else if f.form == Form::Plain && f.written == Written::Always {
            match f.base {
                Base::Str => out["default"] = "".into(),
                Base::Bool => out["default"] = false.into(),
                Base::Int32 | Base::Int64 | Base::Double => out["default"] = 0.into(),
                _ => {}
            }
        }
        if f.form == Form::List {
            match &f.list {
                ListKind::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
                ListKind::Set => out["x-kubernetes-list-type"] = "set".into(),
                ListKind::Map(keys) => {
                    out["x-kubernetes-list-type"] = "map".into();
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                }
            }
        }
        if f.atomic && f.form == Form::Map {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        let mut strategies = Vec::new();
        if f.merge {
            strategies.push("merge");
        }
        if f.retain_keys {
            strategies.push("retainKeys");
        }
        if !strategies.is_empty() {
            out["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        if let Some(key) = f.merge_key {
            out["x-kubernetes-patch-merge-key"] = key.into();
        }
        out
    }

    fn define(&mut self, ty: &'static Type) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for f in &ty.fields {
            properties.insert(f.name.to_owned(), self.field(f));
            // What Go always writes the user must give, but for what is part of every object.
            let given = !matches!(f.name, "kind" | "apiVersion" | "metadata" | "status" | "creationTimestamp");
            if f.written == Written::Always && given && f.default.is_none() && f.form != Form::Pointer {
                required.push(f.name);
            }
        }
        let mut out = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if ty.atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if ty.is_kind {
            let (group, version) = ty.api_version.split_once('/').unwrap_or(("", ty.api_version));
            out["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": ty.name}]);
        }
        out
    }

    /// All that was named, and what that names.
    pub(super) fn finish(mut self) -> BTreeMap<String, Value> {
        while let Some(ty) = self.waiting.pop() {
            let schema = self.define(ty);
            self.done.insert(name(ty), schema);
        }
        for s in self.special {
            self.done.insert(s.to_owned(), special(s));
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods() {
        let mut s = Schemas::default();
        let pod = pintle_schema::kind("v1", "Pod").unwrap();
        assert_eq!(s.reference(pod)["$ref"], "#/components/schemas/io.k8s.api.core.v1.Pod");
        let all = s.finish();
        let spec = &all["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-list-map-keys"][0], "name");
        assert_eq!(spec["required"], json!(["containers"]));
        assert!(all.contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
        let gvk = &all["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0];
        assert_eq!(gvk, &json!({"group": "", "version": "v1", "kind": "Pod"}));
        // Every reference leads somewhere.
        let text = serde_json::to_string(&all).unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(all.contains_key(name), "{name}");
        }
    }
}
