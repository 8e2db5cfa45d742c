//! What an expression can speak of.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::cost::{ITEMS, KEYS, Sizes, VALUES};
use super::decls::{Overload, function, type_of_name};
use super::types::{Fields, Object, Type};

/// The variables, types and functions of an expression.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(String, Type)>,
    mutation: bool,
    pub(super) bind: bool,
    /// How large values are, for what expressions cost.
    pub(super) sizes: Option<Sizes>,
}

impl Env {
    /// The language and Kubernetes' libraries, without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this variable; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, t: Type) -> Self {
        self.declare(name, t);
        self
    }

    /// Adds a variable.
    pub fn declare(&mut self, name: &str, t: Type) {
        self.forget(name);
        self.variables.push((name.to_owned(), t));
    }

    /// Takes a variable away.
    pub fn forget(&mut self, name: &str) {
        self.variables.retain(|(n, _)| n != name);
    }

    /// With the types and functions that objects are changed with: `Object{}`, `JSONPatch{}`.
    #[must_use]
    pub fn with_mutation(mut self) -> Self {
        self.mutation = true;
        self
    }

    /// With `cel.bind`.
    #[must_use]
    pub fn with_bind(mut self) -> Self {
        self.bind = true;
        self
    }

    /// With how large the values are that are reached by a path.
    #[must_use]
    pub(super) fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = Some(sizes);
        self
    }

    pub(super) fn ident(&self, name: &str) -> Option<Type> {
        if let Some((_, t)) = self.variables.iter().find(|(n, _)| n == name) {
            return Some(t.clone());
        }
        let made = if self.mutation { mutation_type(name) } else { None };
        made.or_else(|| type_of_name(name)).map(|t| Type::Type(Some(Arc::new(t))))
    }

    pub(super) fn function(&self, name: &str) -> Option<&'static [Overload]> {
        function(name, self.mutation)
    }
}

/// `JSONPatch`, `Object`, `Object.spec` and so on.
fn mutation_type(name: &str) -> Option<Type> {
    if name == "JSONPatch" {
        return Some(json_patch());
    }
    (name == "Object" || name.starts_with("Object."))
        .then(|| Type::Object(Arc::new(Object { name: name.to_owned(), fields: Fields::Anything })))
}

/// One operation of a JSON patch.
#[must_use]
pub fn json_patch() -> Type {
    let string = |name| (name, Type::String);
    Type::object("JSONPatch", [string("op"), string("path"), string("from"), ("value", Type::Dyn)])
}

/// An object to be applied.
#[must_use]
pub fn apply_configuration() -> Type {
    Type::Object(Arc::new(Object { name: "Object".to_owned(), fields: Fields::Anything }))
}

/// What an expression of an admission policy or webhook speaks of.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The type of `object` and `oldObject`; anything when absent.
    pub object: Option<Type>,
    /// Whether there is `params`, and its type.
    pub params: Option<Type>,
    /// Whether there is `authorizer`.
    pub authorizer: bool,
    /// Whether there is `authorizer.requestResource`.
    pub request_resource: bool,
    /// Whether objects are changed.
    pub mutation: bool,
}

/// What all expressions of admission speak of.
static REQUEST: LazyLock<Type> = LazyLock::new(request);
static NAMESPACE: LazyLock<Type> = LazyLock::new(namespace);

impl Admission {
    /// The environment.
    #[must_use]
    pub fn env(&self) -> Env {
        let object = self.object.clone().unwrap_or(Type::Dyn);
        let mut env = Env::new()
            .with("object", object.clone())
            .with("oldObject", object)
            .with("namespaceObject", NAMESPACE.clone())
            .with("request", REQUEST.clone());
        if let Some(params) = &self.params {
            env.declare("params", params.clone());
        }
        if self.authorizer {
            env.declare("authorizer", Type::library("kubernetes.authorization.Authorizer"));
        }
        if self.request_resource {
            env.declare("authorizer.requestResource", Type::library("kubernetes.authorization.ResourceCheck"));
        }
        if self.mutation { env.with_mutation() } else { env }
    }
}

/// The type of `variables`, which grows with each of them.
#[derive(Debug)]
pub struct Variables(Arc<Object>);

impl Default for Variables {
    fn default() -> Self {
        Self(Arc::new(Object { name: "kubernetes.variables".to_owned(), fields: Fields::Named(HashMap::new()) }))
    }
}

impl Variables {
    /// Adds a variable, with the type of its expression's result if that is good. One of the same name is replaced.
    ///
    /// It costs little as long as nobody else keeps the type.
    pub fn add(&mut self, name: &str, result: Option<&Type>) {
        if let Fields::Named(fields) = &mut Arc::make_mut(&mut self.0).fields {
            fields.insert(name.to_owned(), stored(result));
        }
    }

    /// The type as it is by now.
    #[must_use]
    pub fn as_type(&self) -> Type {
        Type::Object(Arc::clone(&self.0))
    }
}

/// The type of a field of `variables` whose expression is of this type, or is wrong. Upstream forgets types of objects.
#[must_use]
fn stored(t: Option<&Type>) -> Type {
    match t {
        Some(Type::List(of)) => Type::list(stored(Some(of))),
        Some(Type::Map(key, value)) => Type::map(stored(Some(key)), stored(Some(value))),
        Some(
            plain @ (Type::Any
            | Type::Bool
            | Type::Bytes
            | Type::Double
            | Type::Duration
            | Type::Int
            | Type::Null
            | Type::String
            | Type::Timestamp
            | Type::Uint),
        ) => plain.clone(),
        _ => Type::Dyn,
    }
}

fn strings<const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = (&'static str, Type)> {
    names.into_iter().map(|n| (n, Type::String))
}

fn request() -> Type {
    let kind = Type::object("kubernetes.GroupVersionKind", strings(["group", "version", "kind"]));
    let resource = Type::object("kubernetes.GroupVersionResource", strings(["group", "version", "resource"]));
    let groups = Type::list(Type::String);
    let extra = Type::map(Type::String, groups.clone());
    let user = strings(["username", "uid"]).chain([("groups", groups), ("extra", extra)]);
    let plain = strings(["subResource", "requestSubResource", "name", "namespace", "operation"]);
    Type::object(
        "kubernetes.AdmissionRequest",
        plain.chain([
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("userInfo", Type::object("kubernetes.UserInfo", user)),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ]),
    )
}

fn namespace() -> Type {
    let finalizers = ("finalizers", Type::list(Type::String));
    let condition = strings(["status", "type", "message", "reason"]).chain([("lastTransitionTime", Type::Timestamp)]);
    let conditions = Type::list(Type::object("kubernetes.NamespaceCondition", condition));
    let texts = Type::map(Type::String, Type::String);
    let metadata = strings(["name", "generateName", "namespace", "UID", "resourceVersion"]).chain([
        ("labels", texts.clone()),
        ("annotations", texts),
        ("creationTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("deletionTimestamp", Type::Timestamp),
        ("generation", Type::Int),
        finalizers.clone(),
    ]);
    let status = [("conditions", conditions), ("phase", Type::String)];
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata", Type::object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Type::object("kubernetes.NamespaceSpec", [finalizers])),
            ("status", Type::object("kubernetes.NamespaceStatus", status)),
        ],
    )
}

/// What a selector of devices speaks of.
pub static DEVICE: LazyLock<Env> = LazyLock::new(|| {
    let by_domain = |of| Type::map(Type::String, Type::map(Type::String, of));
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("attributes", by_domain(Type::Any)),
            ("capacity", by_domain(Type::library("kubernetes.Quantity"))),
            ("allowMultipleAllocations", Type::Bool),
        ],
    );
    Env::new().with("device", device).with_bind().with_sizes(size_of_device)
});

/// How large the parts of a device are at most. Names below attributes are attributes' names; of what is no text, list
/// or map upstream says none.
fn size_of_device(path: &[String]) -> Option<u64> {
    const ATTRIBUTES: u64 = 32;
    const DOMAIN: u64 = 63;
    const ID: u64 = 32;
    const VALUE: u64 = 64;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let ["device", rest @ ..] = path.as_slice() else { return None };
    let within = |name: &str| name == ITEMS || name == VALUES;
    match rest {
        [] => Some(0),
        ["allowMultipleAllocations"] => Some(1),
        ["driver"] => Some(DOMAIN),
        ["attributes" | "capacity"] => Some(ATTRIBUTES),
        ["attributes" | "capacity", KEYS] => Some(DOMAIN),
        ["attributes" | "capacity", one] => within(one).then_some(ATTRIBUTES),
        ["attributes" | "capacity", one, KEYS] if within(one) => Some(ID),
        ["capacity", one, two] if within(one) => within(two).then_some(0),
        ["attributes", one, _] if within(one) => Some(VALUE),
        _ => None,
    }
}
