//! The table of every built-in type: what its fields are called, what they hold, how they are written and merged.

mod parse;

use serde_json::Value;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

/// The number of a type in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u16);

impl TypeId {
    /// The type of this number.
    pub fn get(self) -> &'static Type {
        &TABLE.types[usize::from(self.0)]
    }
}

/// What one value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A string.
    Str,
    /// A boolean.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A double.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A time in whole seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
    /// A resource quantity.
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// Any object, as it is (`RawExtension`).
    Raw,
    /// A set of fields of server-side apply (`FieldsV1`).
    Fields,
    /// Any JSON value (`apiextensions.JSON`).
    Json,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or a boolean.
    SchemaOrBool,
    /// A JSON schema or a list of strings.
    SchemaOrStrings,
    /// A list of strings in a message of its own (`ExtraValue`, `Verbs`).
    StringList,
    /// A struct of the table.
    Struct(TypeId),
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One, never absent: Go holds a zero value.
    Plain,
    /// One or none.
    Pointer,
    /// A list.
    List,
    /// A map from strings.
    Map,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Always.
    Always,
    /// Not when empty; Go never takes a struct for empty.
    NotEmpty,
    /// Not when zero, structs included.
    NotZero,
}

/// How server-side apply merges a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// As a whole.
    Atomic,
    /// As a set of scalars.
    Set,
    /// Items are known by these fields.
    Map(Box<[&'static str]>),
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its protobuf number; 0 for `kind` and `apiVersion`, which protobuf keeps in the envelope.
    pub number: u32,
    /// How many values.
    pub form: Form,
    /// What each value is.
    pub base: Base,
    /// When it is written.
    pub written: Written,
    /// How server-side apply merges a list.
    pub list: ListKind,
    /// Whether server-side apply takes a map or struct here as a whole.
    pub atomic: bool,
    /// The strategic merge patch strategy `merge`.
    pub merge: bool,
    /// The strategic merge patch strategy `retainKeys`.
    pub retain_keys: bool,
    /// The key that strategic merge patch knows items by.
    pub merge_key: Option<&'static str>,
    /// The constant default.
    pub default: Option<Value>,
    /// Whether it is a member of a union.
    pub union: bool,
    go: Option<&'static str>,
}

/// A part of a protobuf message.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    /// The field at this place of [`Type::fields`].
    Field(u8),
    /// A nested message holding fields that JSON has inline: the type, and the place of its first field.
    Inline {
        /// The protobuf number.
        number: u32,
        /// The type of the message.
        ty: TypeId,
        /// Where its fields begin in the outer type's.
        start: u8,
    },
}

/// A built-in type.
#[derive(Debug)]
pub struct Type {
    /// Its number.
    pub id: TypeId,
    /// Its name, `Pod`.
    pub name: &'static str,
    /// Its package, `core/v1`.
    pub package: &'static str,
    /// The apiVersion of its package, `v1` or `apps/v1`.
    pub api_version: &'static str,
    /// Whether it is an API object with `kind` and `apiVersion`.
    pub is_kind: bool,
    /// Whether server-side apply takes it as a whole.
    pub atomic: bool,
    /// The fields in the order they are written, inline ones in place.
    pub fields: Box<[Field]>,
    /// The parts of its protobuf message by number.
    pub message: Box<[Member]>,
    /// The names of the fields, close together for looking up.
    names: Box<[&'static str]>,
    by_name: Box<[u8]>,
    always: Box<[u8]>,
    zero: OnceLock<Value>,
}

impl Field {
    /// The Go type as Go's messages name it: `[]v1.Container`, `v1.RestartPolicy`.
    pub fn go_type(&self) -> String {
        if let Some(name) = self.go {
            return name.to_owned();
        }
        let item = self.base.go_type();
        match self.form {
            Form::Plain | Form::Pointer => item,
            Form::List => format!("[]{item}"),
            Form::Map => format!("map[string]{item}"),
        }
    }

    /// The Go type of one item of a list or map.
    pub fn go_item_type(&self) -> String {
        match (self.form, self.go) {
            (Form::List | Form::Map, Some(name)) => match name.split_once(']') {
                Some((_, item)) => item.to_owned(),
                None => self.base.go_type(),
            },
            (Form::List | Form::Map, None) => self.base.go_type(),
            _ => self.go_type(),
        }
    }

    /// Whether Go writes it however empty it is.
    pub fn always_written(&self) -> bool {
        match self.written {
            Written::Always => true,
            Written::NotZero => false,
            Written::NotEmpty => self.form == Form::Plain && self.base.is_go_struct(),
        }
    }

    /// What Go writes for the absent field.
    pub fn zero(&self) -> Value {
        match self.form {
            Form::Plain => self.base.zero(),
            Form::Pointer | Form::List | Form::Map => Value::Null,
        }
    }

    /// The struct type of the field or its items.
    pub fn struct_type(&self) -> Option<&'static Type> {
        self.base.struct_type()
    }
}

impl Base {
    /// Whether the Go type is a struct, which `omitempty` never takes for empty.
    pub fn is_go_struct(self) -> bool {
        !matches!(
            self,
            Base::Str | Base::Bool | Base::Int32 | Base::Int64 | Base::Double | Base::Bytes | Base::StringList
        )
    }

    /// The struct type, if it is one.
    pub fn struct_type(self) -> Option<&'static Type> {
        match self {
            Base::Struct(id) => Some(id.get()),
            _ => None,
        }
    }

    /// What Go writes for its zero value.
    pub fn zero(self) -> Value {
        match self {
            Base::Str => Value::from(""),
            Base::Bool => Value::from(false),
            Base::Int32 | Base::Int64 | Base::Double | Base::IntOrString => Value::from(0),
            Base::Quantity => Value::from("0"),
            Base::Struct(id) => id.get().zero().clone(),
            Base::SchemaOrBool => Value::from(false),
            Base::Bytes
            | Base::Time
            | Base::MicroTime
            | Base::Raw
            | Base::Fields
            | Base::Json
            | Base::SchemaOrArray
            | Base::SchemaOrStrings
            | Base::StringList => Value::Null,
        }
    }

    fn go_type(self) -> String {
        match self {
            Base::Str => "string",
            Base::Bool => "bool",
            Base::Int32 => "int32",
            Base::Int64 => "int64",
            Base::Double => "float64",
            Base::Bytes => "[]uint8",
            Base::Time => "v1.Time",
            Base::MicroTime => "v1.MicroTime",
            Base::Quantity => "resource.Quantity",
            Base::IntOrString => "intstr.IntOrString",
            Base::Raw => "runtime.RawExtension",
            Base::Fields => "v1.FieldsV1",
            Base::Json => "v1.JSON",
            Base::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Base::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Base::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
            Base::StringList => "v1.ExtraValue",
            Base::Struct(id) => return id.get().go_type(),
        }
        .to_owned()
    }
}

impl Type {
    /// Its place in the table.
    pub(crate) fn index(&self) -> usize {
        usize::from(self.id.0)
    }

    /// The Go type as Go's messages name it: `v1.Pod`.
    pub fn go_type(&self) -> String {
        let version = self.package.rsplit('/').next().unwrap_or(self.package);
        format!("{version}.{}", self.name)
    }

    /// The field of this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.field_index(name, 0).map(|i| &self.fields[i])
    }

    /// The place of the field of this JSON name. `hint` is the place to try first: in the order of writing, one after
    /// the last.
    pub fn field_index(&self, name: &str, hint: usize) -> Option<usize> {
        // Mostly a few optional fields have been left out in between.
        let near = self.names.get(hint..).unwrap_or_default();
        if let Some(ahead) = near.iter().take(8).position(|n| *n == name) {
            return Some(hint + ahead);
        }
        let at = self.by_name.binary_search_by(|&i| self.names[usize::from(i)].cmp(name)).ok()?;
        Some(usize::from(self.by_name[at]))
    }

    /// The type of a list's items, for `PodList` and the like.
    pub fn item_type(&self) -> Option<&'static Type> {
        if !self.is_kind || !self.name.ends_with("List") {
            return None;
        }
        self.field("items").and_then(Field::struct_type)
    }

    /// Whether an empty list stays one. Protobuf, the form in which upstream stores most kinds, cannot tell an empty
    /// list from none; these packages are stored as JSON.
    pub fn keeps_empty_lists(&self) -> bool {
        matches!(self.package, "apiextensions/v1" | "apiregistration/v1")
    }

    /// The fields that Go writes however empty they are, each with its place.
    pub(crate) fn always_written(&self) -> impl Iterator<Item = (usize, &Field)> {
        self.always.iter().map(|&at| (usize::from(at), &self.fields[usize::from(at)]))
    }

    /// What Go writes for an empty struct of this type.
    pub fn zero(&self) -> &Value {
        self.zero
            .get_or_init(|| Value::Object(self.always_written().map(|(_, f)| (f.name.to_owned(), f.zero())).collect()))
    }
}

struct Table {
    types: Vec<Type>,
    by_name: HashMap<(&'static str, &'static str), u16>,
    kinds: HashMap<(&'static str, &'static str), u16>,
    #[cfg(test)]
    lines: usize,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| parse::table(include_str!("kinds.txt")));

/// The built-in kind of this apiVersion and name: objects, their lists, and the kinds that belong to no single group:
/// options and `WatchEvent` are known in every apiVersion, `Status` in `v1`, `PartialObjectMetadata` in `meta.k8s.io`.
pub fn kind(api_version: &str, kind: &str) -> Option<&'static Type> {
    let table = &*TABLE;
    let find = |api_version: &str| table.kinds.get(&(api_version, kind)).map(|&i| &table.types[usize::from(i)]);
    if let Some(found) = find(api_version) {
        return Some(found);
    }
    let meta = find("meta.k8s.io/v1")?;
    let known = match meta.name {
        "PartialObjectMetadata" | "PartialObjectMetadataList" => api_version == "meta.k8s.io/v1beta1",
        "Status" | "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions" => api_version == "v1",
        _ => true,
    };
    known.then_some(meta)
}

/// The type `name` of a package: `named("core/v1", "PodSpec")`.
pub fn named(package: &str, name: &str) -> Option<&'static Type> {
    let table = &*TABLE;
    table.by_name.get(&(package, name)).map(|&i| &table.types[usize::from(i)])
}

/// Every type of the table.
pub fn types() -> impl ExactSizeIterator<Item = &'static Type> {
    TABLE.types.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(types().len(), 782);
        assert_eq!(TABLE.lines, 2_802);
        assert_eq!(types().filter(|t| t.is_kind).count(), 202);
    }

    #[test]
    fn looks_up() {
        let check = |api_version: &str, name: &str, package: Option<&str>| {
            assert_eq!(kind(api_version, name).map(|t| t.package), package, "{api_version} {name}");
        };
        check("v1", "Pod", Some("core/v1"));
        check("apps/v1", "DeploymentList", Some("apps/v1"));
        check("v1", "Status", Some("meta/v1"));
        check("apps/v1", "DeleteOptions", Some("meta/v1"));
        check("v1", "WatchEvent", Some("meta/v1"));
        check("meta.k8s.io/v1", "PartialObjectMetadata", Some("meta/v1"));
        check("autoscaling/v1", "Scale", Some("autoscaling/v1"));
        check("policy/v1", "Eviction", Some("policy/v1"));
        check("authentication.k8s.io/v1", "TokenRequest", Some("authentication/v1"));
        check("v1", "Binding", Some("core/v1"));
        check("apps/v1", "Status", None);
        check("v1", "PodSpec", None);
        check("v1", "Nothing", None);
        assert_eq!(kind("v1", "PodList").and_then(Type::item_type).map(|t| t.name), Some("Pod"));
    }

    #[test]
    fn fields() {
        let pod = named("core/v1", "PodSpec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!((containers.number, containers.merge_key, containers.merge), (2, Some("name"), true));
        assert_eq!(containers.list, ListKind::Map(["name"].into()));
        assert_eq!(containers.go_type(), "[]v1.Container");
        assert_eq!(pod.field("restartPolicy").unwrap().go_type(), "v1.RestartPolicy");
        let probe = named("core/v1", "Probe").unwrap();
        assert!(probe.field("httpGet").is_some(), "inline fields are there");
        assert!(matches!(probe.message[0], Member::Inline { number: 1, .. }));
        for t in types() {
            assert!(t.fields.len() <= 64, "{}", t.name);
            for (i, f) in t.fields.iter().enumerate() {
                assert_eq!(t.field_index(f.name, 0), Some(i), "{} {}", t.name, f.name);
            }
        }
    }

    #[test]
    fn zero_values_are_as_go_writes_them() {
        let check = |package: &str, name: &str, expect: &str| {
            assert_eq!(named(package, name).unwrap().zero().to_string(), expect);
        };
        check("core/v1", "PodSpec", r#"{"containers":null}"#);
        check("core/v1", "ServiceStatus", r#"{"loadBalancer":{}}"#);
        check("meta/v1", "ObjectMeta", "{}");
        check("meta/v1", "Condition", r#"{"lastTransitionTime":null,"message":"","reason":"","status":"","type":""}"#);
    }
}
