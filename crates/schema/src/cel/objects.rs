//! The fields of object types: those of built-in kinds come from the table, as upstream's OpenAPI has them.

use std::collections::HashMap;
use std::sync::Arc;

use super::parse::{LITERALS, RESERVED};
use super::types::{Fields, Object, Type};
use crate::table::{self, Base, Form, TypeId};

/// The type of the objects of a built-in kind, under the name that its fields' types begin with.
pub fn of_kind(api_version: &str, kind: &str) -> Option<Type> {
    let found = table::kind(api_version, kind).filter(|t| t.is_kind)?;
    Some(of_table(kind.to_owned(), found.id, &[]))
}

fn of_table(name: String, id: TypeId, above: &[TypeId]) -> Type {
    let fields = if above.contains(&id) {
        // Upstream has an object of no fields where a type would contain itself.
        Fields::Named(HashMap::new())
    } else {
        Fields::Table(id, above.iter().copied().chain([id]).collect())
    };
    Type::Object(Arc::new(Object { name, fields }))
}

impl Object {
    /// The type of a field; `Some(None)` when there is no such field, `None` when none can be asked for.
    pub(super) fn field(&self, name: &str) -> Option<Option<Type>> {
        match &self.fields {
            Fields::Unknown => None,
            Fields::Anything => Some(Some(Type::Dyn)),
            Fields::Named(fields) => Some(fields.get(name).cloned()),
            Fields::Table(id, above) => {
                let path = format!("{}.{name}", self.name);
                let found = plain(name).and_then(|plain| {
                    let field = id.get().field(&plain)?;
                    let item = match field.form {
                        Form::List => format!("{path}.@idx"),
                        Form::Map => format!("{path}.@elem"),
                        Form::Plain | Form::Pointer => path,
                    };
                    let one = of_base(field.base, item, above)?;
                    Some(match field.form {
                        Form::List => Type::list(one),
                        Form::Map => Type::map(Type::String, one),
                        Form::Plain | Form::Pointer => one,
                    })
                });
                Some(found)
            }
        }
    }
}

/// Whether no name in an expression may be this.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || LITERALS.contains(&name)
}

/// The field's name as objects have it: expressions write some in other letters.
fn plain(name: &str) -> Option<String> {
    if RESERVED.contains(&name) || !name.contains("__") {
        return Some(name.to_owned());
    }
    let inner = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"));
    if let Some(word) = inner.filter(|w| is_reserved(w)) {
        return Some(word.to_owned());
    }
    let marks = [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")];
    Some(marks.iter().fold(name.to_owned(), |name, (mark, plain)| name.replace(mark, plain)))
}

/// What upstream's OpenAPI makes of a value: of some it says no type, and they cannot be seen.
fn of_base(base: Base, name: String, above: &[TypeId]) -> Option<Type> {
    Some(match base {
        Base::Str => Type::String,
        Base::Bool => Type::Bool,
        Base::Int32 | Base::Int64 => Type::Int,
        Base::Double => Type::Double,
        Base::Bytes => Type::Bytes,
        Base::Time | Base::MicroTime => Type::Timestamp,
        Base::IntOrString => Type::Dyn,
        Base::StringList => Type::list(Type::String),
        Base::Raw | Base::Fields => Type::Object(Arc::new(Object { name, fields: Fields::Named(HashMap::new()) })),
        Base::Struct(id) => of_table(name, id, above),
        Base::Quantity | Base::Json | Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_kinds() {
        let check = |api_version: &str, kind: &str, path: &str, expect: Option<&str>| {
            let mut t = of_kind(api_version, kind);
            for name in path.split('.') {
                t = match t {
                    Some(Type::Object(o)) => o.field(name).flatten(),
                    Some(Type::List(of)) => match &*of {
                        Type::Object(o) => o.field(name).flatten(),
                        _ => None,
                    },
                    _ => None,
                };
            }
            assert_eq!(t.map(|t| t.to_string()).as_deref(), expect, "{kind} {path}");
        };
        check("apps/v1", "Deployment", "spec.replicas", Some("int"));
        check("apps/v1", "Deployment", "spec.replica", None);
        check("apps/v1", "Deployment", "metadata.labels", Some("map(string, string)"));
        check("apps/v1", "Deployment", "metadata.namespace", Some("string"));
        check("apps/v1", "Deployment", "metadata.__namespace__", Some("string"));
        check("apps/v1", "Deployment", "metadata.creationTimestamp", Some("timestamp"));
        check(
            "apps/v1",
            "Deployment",
            "spec.template.spec.containers",
            Some("list(Deployment.spec.template.spec.containers.@idx)"),
        );
        check("v1", "Service", "spec.ports.targetPort", Some("dyn"));
        check("v1", "Secret", "data", Some("map(string, bytes)"));
        check("v1", "Pod", "spec.containers.resources.requests", None);
        check(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "spec.versions.schema.openAPIV3Schema.not.type",
            None,
        );
        assert_eq!(of_kind("v1", "Nothing"), None);
    }
}
