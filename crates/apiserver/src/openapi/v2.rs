//! OpenAPI v2 (Swagger): all group-versions in one document, turned from those of v3.

use serde_json::{Map, Value, json};

/// A schema of v3 as v2 writes it: references stand alone, and nothing is one of several.
fn schema(v: &Value) -> Value {
    if let Some(name) = v
        .pointer("/allOf/0/$ref")
        .or_else(|| v.get("$ref"))
        .and_then(Value::as_str)
        .and_then(|r| r.strip_prefix("#/components/schemas/"))
    {
        return json!({"$ref": format!("#/definitions/{name}")});
    }
    let Some(map) = v.as_object() else { return v.clone() };
    let mut out = Map::new();
    for (k, inner) in map {
        let inner = match k.as_str() {
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

fn operation(op: &Value) -> Value {
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
        map.insert("parameters".into(), parameters.into());
    }
    map.insert("consumes".into(), consumes.into());
    map.insert("produces".into(), produces.into());
    map.insert("responses".into(), responses.into());
    map.insert("schemes".into(), json!(["https"]));
    out
}

/// The document of all these.
pub(super) fn merge(documents: impl Iterator<Item = Value>) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    let mut info = Value::Null;
    for d in documents {
        info = d["info"].clone();
        for (path, item) in d["paths"].as_object().into_iter().flatten() {
            let mut one = Map::new();
            for (k, v) in item.as_object().into_iter().flatten() {
                let v = match k.as_str() {
                    "parameters" => v.as_array().into_iter().flatten().map(parameter).collect::<Vec<_>>().into(),
                    _ => operation(v),
                };
                one.insert(k.clone(), v);
            }
            paths.insert(path.clone(), one.into());
        }
        for (name, s) in d.pointer("/components/schemas").and_then(Value::as_object).into_iter().flatten() {
            definitions.entry(name.clone()).or_insert_with(|| schema(s));
        }
    }
    json!({
        "swagger": "2.0",
        "info": info,
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns() {
        let d = json!({"info": {"title": "K"}, "paths": {"/p": {
                "parameters": [{"name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
                "post": {"requestBody": {"required": true, "content": {"*/*": {"schema": {"$ref": "#/components/schemas/A"}}}},
                    "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}}}}},
            "components": {"schemas": {"A": {"type": "object", "properties": {"q": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                "b": {"allOf": [{"$ref": "#/components/schemas/B"}], "default": {}}}}}}});
        let got = merge(std::iter::once(d));
        assert_eq!(got["definitions"]["A"]["properties"]["b"], json!({"$ref": "#/definitions/B"}));
        assert_eq!(got["definitions"]["A"]["properties"]["q"], json!({"type": "string"}));
        let op = &got["paths"]["/p"]["post"];
        assert_eq!(
            op["parameters"][0],
            json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/A"}})
        );
        assert_eq!(op["responses"]["200"]["schema"]["$ref"], "#/definitions/A");
        assert_eq!(got["paths"]["/p"]["parameters"][0]["type"], "string");
    }
}
