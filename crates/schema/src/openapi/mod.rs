//! OpenAPI documents of the built-in kinds, v3 (one a group-version) and v2 (one for all), made from the table and the
//! resource registry on demand and kept nowhere.

mod names;
mod operations;
mod print;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use pintle_api::resources::Resource;
use serde_json::{Map, Value, json};

use crate::table::Type;

/// Which document a part is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavor {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Flavor {
    /// A reference to a schema.
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The v3 document of one group-version. `version` is the server's, such as `v1.36.0`.
#[must_use]
pub fn v3<'r>(resources: impl IntoIterator<Item = &'r Resource>, version: &str) -> Value {
    let (paths, schemas) = parts(Flavor::V3, resources);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    })
}

/// The v2 document of all these resources.
#[must_use]
pub fn v2<'r>(resources: impl IntoIterator<Item = &'r Resource>, version: &str) -> Value {
    let (paths, schemas) = parts(Flavor::V2, resources);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": schemas,
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"})
}

fn parts<'r>(flavor: Flavor, resources: impl IntoIterator<Item = &'r Resource>) -> (Value, Value) {
    let mut used = Used::default();
    let mut paths = Map::new();
    for resource in resources {
        for path in operations::of(resource) {
            let item = print::path_item(flavor, &path, &mut used);
            paths.insert(path.path, item);
        }
    }
    let mut out = Map::new();
    while let Some(next) = used.pending.pop() {
        match next {
            Named::Type(t) => {
                let schema = schemas::of_type(flavor, t, &mut used);
                out.insert(names::of_type(t), schema);
            }
            Named::Special(name) => {
                out.insert(name.to_owned(), schemas::special(flavor, name));
            }
        }
    }
    (Value::Object(paths), Value::Object(out))
}

/// A schema that has a name.
#[derive(Clone, Copy)]
enum Named {
    Type(&'static Type),
    Special(&'static str),
}

/// Schemas that were referred to, and those of them still to be printed.
#[derive(Default)]
struct Used {
    seen: BTreeSet<String>,
    pending: Vec<Named>,
}

impl Used {
    fn add(&mut self, named: Named) -> String {
        let name = match named {
            Named::Type(t) => names::of_type(t),
            Named::Special(s) => s.to_owned(),
        };
        if self.seen.insert(name.clone()) {
            self.pending.push(named);
        }
        name
    }
}

/// What the documents are made from, for a hash that changes when they do.
#[must_use]
pub fn source() -> [&'static str; 2] {
    [crate::table::SOURCE, env!("CARGO_PKG_VERSION")]
}
