//! The types of expressions.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::table::TypeId;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// `null`.
    Null,
    /// `true` and `false`.
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// A floating point number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// Something that is not known before it is there.
    Dyn,
    /// The same, as protobuf's `Any`.
    Any,
    /// What has been complained of already.
    Error,
    /// A list.
    List(Arc<Type>),
    /// A map.
    Map(Arc<Type>, Arc<Type>),
    /// A value of a library.
    Opaque(&'static str),
    /// A value that may be missing.
    Optional(Arc<Type>),
    /// An object, which has fields.
    Object(Arc<Object>),
    /// A type as a value.
    Type(Option<Arc<Type>>),
    /// A parameter of a function's declaration.
    Param(u8),
    /// What is yet to be found out.
    Var(usize),
}

/// An object type.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name, which is what tells it from others.
    pub name: String,
    /// Where its fields are.
    pub fields: Fields,
}

/// Where the fields of an object type are.
#[derive(Clone, Debug)]
pub enum Fields {
    /// None can be selected: a value of a library.
    Unknown,
    /// These.
    Named(HashMap<String, Type>),
    /// Those of a built-in type, reached through these types.
    Table(TypeId, Vec<TypeId>),
    /// Any, of any type.
    Anything,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Type {
    /// A list of these.
    #[must_use]
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// A map.
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// A value that may be missing.
    #[must_use]
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// An object type with these fields.
    pub fn object<N: Into<String>>(name: &str, fields: impl IntoIterator<Item = (N, Self)>) -> Self {
        let fields = Fields::Named(fields.into_iter().map(|(n, t)| (n.into(), t)).collect());
        Self::Object(Arc::new(Object { name: name.to_owned(), fields }))
    }

    /// An object type of a library.
    pub(super) fn library(name: &str) -> Self {
        Self::Object(Arc::new(Object { name: name.to_owned(), fields: Fields::Unknown }))
    }

    /// Whether anything goes.
    #[must_use]
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    /// Whether anything goes, or was complained of.
    pub(super) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || *self == Self::Error
    }

    /// The type within an optional one, and whether it was one.
    pub(super) fn unwrapped(&self) -> (&Self, bool) {
        match self {
            Self::Optional(t) => (t, true),
            t => (t, false),
        }
    }

    /// What the checker calls it.
    fn write(&self, declared: bool, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = match self {
            Self::Null if declared => "null_type",
            Self::Timestamp if declared => "google.protobuf.Timestamp",
            Self::Duration if declared => "google.protobuf.Duration",
            Self::Any if declared => "google.protobuf.Any",
            Self::Null => "null",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Opaque(name) => name,
            Self::Object(object) => &object.name,
            Self::Type(None) => "type",
            Self::List(t) => return one("list", t, declared, f),
            Self::Optional(t) => return one("optional_type", t, declared, f),
            Self::Type(Some(t)) => return one("type", t, declared, f),
            Self::Map(k, v) => {
                f.write_str("map(")?;
                k.write(declared, f)?;
                f.write_str(", ")?;
                v.write(declared, f)?;
                return f.write_str(")");
            }
            Self::Param(n) => return write!(f, "{}", char::from(b'A' + n % 26)),
            Self::Var(n) => return write!(f, "_var{n}"),
        };
        f.write_str(plain)
    }

    /// Its name where a result of another type was wanted: `google.protobuf.Timestamp`.
    pub fn declared(&self) -> impl Display + '_ {
        struct Declared<'a>(&'a Type);
        impl Display for Declared<'_> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.0.write(true, f)
            }
        }
        Declared(self)
    }
}

fn one(name: &str, of: &Type, declared: bool, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "{name}(")?;
    of.write(declared, f)?;
    f.write_str(")")
}

/// Its name in complaints about types: `timestamp`.
impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(false, f)
    }
}
