//! OpenAPI v2 (Swagger): the parts of v3 turned one by one.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use serde_json::{Map, Value, json};

/// A schema of v3 as v2 writes it: references stand beside their description, nothing is one of several, and there are
/// no defaults.
pub(super) fn schema(v: &Value) -> Value {
    let Some(map) = v.as_object() else { return v.clone() };
    let mut out = Map::new();
    for (k, inner) in map {
        let inner = match k.as_str() {
            "default" => continue,
            "allOf" | "$ref" => {
                let reference = inner.pointer("/0/$ref").unwrap_or(inner).as_str().unwrap_or_default();
                let name = reference.trim_start_matches("#/components/schemas/");
                out.insert("$ref".into(), format!("#/definitions/{name}").into());
                continue;
            }
            "oneOf" => {
                out.insert("type".into(), "string".into());
                continue;
            }
            "items" | "additionalProperties" => schema(inner),
            "properties" => inner
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), schema(v)))
                .collect::<Map<_, _>>()
                .into(),
            _ => inner.clone(),
        };
        out.insert(k.clone(), inner);
    }
    out.into()
}

/// Parameters that many operations have stand in one place, under upstream's names for them.
#[derive(Default)]
pub(super) struct Shared {
    names: HashMap<String, String>,
    all: BTreeMap<String, Value>,
}

impl Shared {
    /// The shared parameters by name.
    pub(super) fn finish(self) -> BTreeMap<String, Value> {
        self.all
    }

    fn parameter(&mut self, p: Value) -> Value {
        let name = p["name"].as_str().unwrap_or_default();
        // kubectl looks for the last two of these where they are used.
        let own = match name {
            "body" => {
                let of = p.pointer("/schema/$ref").and_then(Value::as_str).unwrap_or_default();
                !of.starts_with("#/definitions/io.k8s.apimachinery")
            }
            _ => matches!(name, "name" | "dryRun" | "fieldValidation"),
        };
        if own {
            return p;
        }
        let text = p.to_string();
        let key = match self.names.get(&text) {
            Some(key) => key.clone(),
            None => {
                let hash = text
                    .bytes()
                    .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b));
                let hash = base64::engine::general_purpose::URL_SAFE.encode(&hash.to_be_bytes()[..6]);
                let key = format!("{name}-{hash}");
                self.all.insert(key.clone(), p);
                self.names.insert(text, key.clone());
                key
            }
        };
        json!({"$ref": format!("#/parameters/{key}")})
    }
}

/// A parameter of a path or query, whose type stands in v2 beside its name.
fn parameter(p: &Value) -> Value {
    let mut out = p.clone();
    if let Some(map) = out.as_object_mut()
        && let Some(Value::Object(inner)) = map.remove("schema")
    {
        map.extend(inner);
    }
    out
}

fn media(content: Option<&Value>) -> Vec<String> {
    content.and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()).collect()
}

fn first_schema(content: Option<&Value>) -> Option<Value> {
    content.and_then(Value::as_object)?.values().next()?.get("schema").map(schema)
}

fn operation(op: &Value, shared: &mut Shared) -> Value {
    let mut out = op.clone();
    let Some(map) = out.as_object_mut() else { return out };
    let mut parameters: Vec<Value> =
        op.get("parameters").and_then(Value::as_array).into_iter().flatten().map(parameter).collect();
    let mut consumes = vec!["*/*".to_owned()];
    if let Some(body) = map.remove("requestBody") {
        consumes = media(body.get("content"));
        if let Some(s) = first_schema(body.get("content")) {
            let mut p = json!({"name": "body", "in": "body", "schema": s});
            if body.get("required") == Some(&Value::Bool(true)) {
                p["required"] = true.into();
            }
            parameters.insert(0, p);
        }
    }
    let mut produces = Vec::new();
    let mut responses = Map::new();
    for (code, r) in op.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let mut one = json!({"description": r.get("description").cloned().unwrap_or_default()});
        if let Some(s) = first_schema(r.get("content")) {
            one["schema"] = s;
        }
        if produces.is_empty() {
            produces = media(r.get("content"));
        }
        responses.insert(code.clone(), one);
    }
    if !parameters.is_empty() {
        let parameters: Vec<Value> = parameters.into_iter().map(|p| shared.parameter(p)).collect();
        map.insert("parameters".into(), parameters.into());
    }
    map.insert("consumes".into(), consumes.into());
    map.insert("produces".into(), produces.into());
    map.insert("responses".into(), responses.into());
    map.insert("schemes".into(), json!(["https"]));
    out
}

/// A path with its operations.
pub(super) fn path_item(item: &Value, shared: &mut Shared) -> Value {
    let mut one = Map::new();
    for (k, v) in item.as_object().into_iter().flatten() {
        let v = match k.as_str() {
            "parameters" => {
                let list: Vec<Value> =
                    v.as_array().into_iter().flatten().map(|p| shared.parameter(parameter(p))).collect();
                list.into()
            }
            _ => operation(v, shared),
        };
        one.insert(k.clone(), v);
    }
    one.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas() {
        for (given, want) in [
            (
                json!({"allOf": [{"$ref": "#/components/schemas/B"}], "default": {}, "description": "x"}),
                json!({"$ref": "#/definitions/B", "description": "x"}),
            ),
            (json!({"oneOf": [{"type": "string"}, {"type": "number"}]}), json!({"type": "string"})),
            (
                json!({"type": "array", "items": {"$ref": "#/components/schemas/B"}}),
                json!({"type": "array", "items": {"$ref": "#/definitions/B"}}),
            ),
            (
                json!({"type": "object", "properties": {"default": {"type": "string", "default": ""}}}),
                json!({"type": "object", "properties": {"default": {"type": "string"}}}),
            ),
        ] {
            assert_eq!(schema(&given), want);
        }
    }

    #[test]
    fn operations() {
        let item = json!({
            "parameters": [{"name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
            "post": {
                "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string"}}],
                "requestBody": {"required": true, "content": {"*/*": {"schema": {"$ref": "#/components/schemas/A"}}}},
                "responses": {"200": {"description": "OK",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}},
            }
        });
        let mut shared = Shared::default();
        let got = path_item(&item, &mut shared);
        let op = &got["post"];
        assert_eq!(
            op["parameters"][0],
            json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/A"}})
        );
        assert_eq!(op["parameters"][1]["name"], "dryRun");
        assert_eq!(op["consumes"], json!(["*/*"]));
        assert_eq!(op["responses"]["200"]["schema"]["$ref"], "#/definitions/A");
        let shared = shared.finish();
        let (key, pretty) = shared.iter().next().unwrap();
        assert_eq!(got["parameters"][0]["$ref"], format!("#/parameters/{key}"));
        assert_eq!(pretty["type"], "string");
        assert!(key.starts_with("pretty-") && key.len() == "pretty-".len() + 8, "{key}");
    }
}
