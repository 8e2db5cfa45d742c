//! Types of the schema table as OpenAPI schemas.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use pintle_schema::{Base, Field, Form, ListKind, Type, Written};
use serde_json::{Map, Value, json};

use super::texts::Texts;

/// The name of a type among the components.
pub(crate) fn name(ty: &Type) -> String {
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

/// The values of enumerations, by `PACKAGE.TYPE`.
static ENUMS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
    include_str!("enums.txt")
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .map(|(name, values)| (name, values.split('\t').collect()))
        .collect()
});

/// The values a field (or one item of it) may have, when upstream says so.
fn values(ty: &Type, f: &Field) -> Option<&'static [&'static str]> {
    let go = f.go_item_type();
    let name = go.rsplit('.').next()?;
    // Other packages' enumerations are those of core.
    [ty.package, "core/v1"]
        .iter()
        .find_map(|package| ENUMS.get(format!("{package}.{name}").as_str()))
        .map(Vec::as_slice)
}

/// Fields of which the rule for what is required does not hold.
static EXCEPTIONS: LazyLock<HashSet<(&str, &str, &str)>> = LazyLock::new(|| {
    include_str!("required.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(ty, fields)| ty.split_once('.').map(|(package, name)| (package, name, fields)))
        .flat_map(|(package, name, fields)| fields.split(' ').map(move |f| (package, name, f)))
        .collect()
});

/// Members and their Go names.
type Members = &'static [(&'static str, &'static str)];

/// Unions with a field that tells which member is set: type, that field, members.
const UNIONS: &[(&str, &str, Members)] = &[
    ("core/v1.AppArmorProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("core/v1.SeccompProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("flowcontrol/v1.LimitResponse", "type", &[("queuing", "Queuing")]),
    ("flowcontrol/v1.PriorityLevelConfigurationSpec", "type", &[("exempt", "Exempt"), ("limited", "Limited")]),
    ("flowcontrol/v1.Subject", "kind", &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")]),
];

/// The schemas a document uses, collected as they are named.
pub(super) struct Schemas<'a> {
    texts: &'a Texts<'a>,
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
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const OR_ARRAY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const OR_STRINGS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

fn special(name: &str) -> Value {
    match name {
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        QUANTITY => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        INT_OR_STRING => json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
        RAW | FIELDS | PATCH => json!({"type": "object"}),
        VERSION => {
            const REQUIRED: &[&str] = &[
                "major",
                "minor",
                "gitVersion",
                "gitCommit",
                "gitTreeState",
                "buildDate",
                "goVersion",
                "compiler",
                "platform",
            ];
            const MORE: &[&str] =
                &["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
            let mut properties = Map::new();
            for name in REQUIRED {
                properties.insert((*name).to_owned(), json!({"type": "string", "default": ""}));
            }
            for name in MORE {
                properties.insert((*name).to_owned(), json!({"type": "string"}));
            }
            json!({"type": "object", "properties": properties, "required": REQUIRED})
        }
        _ => json!({}),
    }
}

/// Every group-version there is: options and watch events are kinds of each.
fn everywhere(kind: &str) -> Value {
    let mut all: Vec<(&str, &str)> = pintle_api::resources::all().iter().map(|r| (r.group, r.version)).collect();
    all.sort_unstable();
    all.dedup();
    all.iter().map(|(group, version)| json!({"group": group, "version": version, "kind": kind})).collect()
}

impl<'a> Schemas<'a> {
    pub(super) fn new(texts: &'a Texts<'a>) -> Self {
        Self { texts, waiting: Vec::new(), seen: BTreeSet::new(), special: BTreeSet::new() }
    }

    /// A reference to a type.
    pub(super) fn reference(&mut self, ty: &'static Type) -> Value {
        let name = name(ty);
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        if self.seen.insert(name) {
            self.waiting.push(ty);
        }
        reference
    }

    /// A reference to what every patch is.
    pub(super) fn patch(&mut self) -> Value {
        self.named_special(PATCH)
    }

    /// A reference to what `/version` answers.
    pub(super) fn version_info(&mut self) -> Value {
        self.named_special(VERSION)
    }

    fn named_special(&mut self, name: &'static str) -> Value {
        self.special.insert(name);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// One value of a field, as `default` says with the default of Go's zero value. A reference beside something else
    /// is wrapped.
    fn one(&mut self, base: Base, default: bool) -> Value {
        let plain = |mut v: Value, zero: Value| {
            if default {
                v["default"] = zero;
            }
            v
        };
        let reference = match base {
            Base::Str => return plain(json!({"type": "string"}), "".into()),
            Base::Bool => return plain(json!({"type": "boolean"}), false.into()),
            Base::Int32 => return plain(json!({"type": "integer", "format": "int32"}), 0.into()),
            Base::Int64 => return plain(json!({"type": "integer", "format": "int64"}), 0.into()),
            Base::Double => return plain(json!({"type": "number", "format": "double"}), 0.into()),
            Base::Bytes => return json!({"type": "string", "format": "byte"}),
            Base::StringList => return json!({"type": "array", "items": {"type": "string", "default": ""}}),
            Base::Struct(id) => {
                let reference = self.reference(id.get());
                return if default { json!({"allOf": [reference], "default": {}}) } else { reference };
            }
            Base::Time => TIME,
            Base::MicroTime => MICRO_TIME,
            Base::Quantity => QUANTITY,
            Base::IntOrString => INT_OR_STRING,
            Base::Raw => RAW,
            Base::Fields => FIELDS,
            Base::Json => JSON,
            Base::SchemaOrArray => OR_ARRAY,
            Base::SchemaOrBool => OR_BOOL,
            Base::SchemaOrStrings => OR_STRINGS,
        };
        self.named_special(reference)
    }

    fn field(&mut self, owner: &Type, type_name: &str, f: &Field) -> Value {
        let enumeration = values(owner, f);
        let limited = |mut v: Value| {
            if let Some(values) = enumeration {
                v["enum"] = json!(values);
            }
            v
        };
        let mut out = match f.form {
            Form::Plain => {
                // What Go leaves out when empty has no default, but for structs, which it never leaves out.
                let default = f.base.struct_type().is_some() || f.written == Written::Always;
                limited(self.one(f.base, default))
            }
            Form::Pointer => limited(self.one(f.base, false)),
            Form::List => json!({"type": "array", "items": limited(self.one(f.base, true))}),
            Form::Map => json!({"type": "object", "additionalProperties": limited(self.one(f.base, true))}),
        };
        if let Some(text) = self.texts.of_field(type_name, f.name) {
            if out.get("$ref").is_some() {
                out = json!({"allOf": [out]});
            }
            out["description"] = match enumeration {
                Some(values) if matches!(f.form, Form::Plain | Form::Pointer) => {
                    let values: Vec<String> = values.iter().map(|v| format!("\n - `\"{v}\"`")).collect();
                    format!("{text}\n\nPossible enum values:{}", values.concat()).into()
                }
                _ => text.into(),
            };
        }
        if let Some(d) = &f.default {
            if out.get("$ref").is_some() {
                out = json!({"allOf": [out]});
            }
            out["default"] = d.clone();
        }
        extensions(f, &mut out);
        out
    }

    /// The schema of a type of the table.
    fn define(&mut self, ty: &'static Type) -> Value {
        let type_name = name(ty);
        let mut properties = Map::new();
        let mut required = Vec::new();
        // The bare frame of a watch has no kind of its own.
        let framed = ty.package == "meta/v1" && ty.name == "WatchEvent";
        for f in ty.fields.iter().filter(|f| !(framed && f.number == 0)) {
            properties.insert(f.name.to_owned(), self.field(ty, &type_name, f));
            // What Go always writes the user must give, but for what is part of every object.
            let given = !ty.is_kind || !matches!(f.name, "kind" | "apiVersion" | "metadata" | "status");
            let by_rule = f.written == Written::Always && given && f.default.is_none() && f.form != Form::Pointer;
            if by_rule != EXCEPTIONS.contains(&(ty.package, ty.name, f.name)) {
                required.push(f.name);
            }
        }
        let mut out = json!({"type": "object", "properties": properties});
        if let Some(text) = self.texts.of_type(&type_name) {
            out["description"] = text.into();
        }
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if ty.atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if ty.is_kind {
            let (group, version) = ty.api_version.split_once('/').unwrap_or(("", ty.api_version));
            out["x-kubernetes-group-version-kind"] = match ty.name {
                "DeleteOptions" | "WatchEvent" if ty.package == "meta/v1" => everywhere(ty.name),
                _ => json!([{"group": group, "version": version, "kind": ty.name}]),
            };
        }
        let key = format!("{}.{}", ty.package, ty.name);
        if let Some((_, field, members)) = UNIONS.iter().find(|(of, ..)| *of == key) {
            let members: Map<String, Value> =
                members.iter().map(|(field, go)| ((*field).to_owned(), (*go).into())).collect();
            out["x-kubernetes-unions"] = json!([{"discriminator": field, "fields-to-discriminateBy": members}]);
        }
        out
    }

    /// The next schema that was named and not yet told; to be asked until there is none.
    pub(super) fn next(&mut self) -> Option<(String, Value)> {
        if let Some(ty) = self.waiting.pop() {
            return Some((name(ty), self.define(ty)));
        }
        let name = self.special.pop_first()?;
        let mut schema = special(name);
        if let Some(text) = self.texts.of_type(name) {
            schema["description"] = text.into();
        }
        Some((name.to_owned(), schema))
    }
}

/// How lists are merged, for clients that merge.
fn extensions(f: &Field, out: &mut Value) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::texts;

    #[test]
    fn pods() {
        let raw = texts::unpack();
        let texts = Texts::new(&raw);
        let mut s = Schemas::new(&texts);
        let pod = pintle_schema::kind("v1", "Pod").unwrap();
        assert_eq!(s.reference(pod)["$ref"], "#/components/schemas/io.k8s.api.core.v1.Pod");
        let all: std::collections::BTreeMap<String, Value> = std::iter::from_fn(|| s.next()).collect();
        let spec = &all["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-list-map-keys"][0], "name");
        assert_eq!(spec["required"], json!(["containers"]));
        let restart = &spec["properties"]["restartPolicy"];
        assert_eq!(restart["enum"], json!(["Always", "Never", "OnFailure"]));
        assert!(restart["description"].as_str().unwrap().ends_with("\n - `\"OnFailure\"`"), "{restart}");
        let container = &all["io.k8s.api.core.v1.Container"]["properties"];
        assert_eq!(container["command"]["items"], json!({"type": "string", "default": ""}));
        assert!(container["image"]["description"].as_str().unwrap().starts_with("Container image name"));
        assert!(all.contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
        let gvk = &all["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0];
        assert_eq!(gvk, &json!({"group": "", "version": "v1", "kind": "Pod"}));
        let profile = &all["io.k8s.api.core.v1.SeccompProfile"];
        assert_eq!(profile["x-kubernetes-unions"][0]["discriminator"], "type");
        // Every reference leads somewhere.
        let text = serde_json::to_string(&all).unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(all.contains_key(name), "{name}");
        }
    }

    #[test]
    fn enumerations_are_of_the_table() {
        for name in ENUMS.keys() {
            let (package, _) = name.split_once('.').unwrap();
            let known = pintle_api::resources::all()
                .iter()
                .any(|r| pintle_schema::kind(&r.api_version(), r.kind).is_some_and(|t| t.package == package));
            assert!(known, "{name}");
        }
    }

    #[test]
    fn exceptions_are_of_the_table() {
        assert!(EXCEPTIONS.len() > 90);
        for (package, ty, field) in &*EXCEPTIONS {
            let found = pintle_schema::named(package, ty).and_then(|t| t.field(field));
            assert!(found.is_some(), "{package}.{ty} {field}");
        }
    }
}
