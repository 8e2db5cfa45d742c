//! OpenAPI v3 in the protobuf form of the gnostic project. The numbers are those of its `openapiv3/OpenAPIv3.proto`.

use serde_json::Value;

use super::gnostic::{Message, any};

/// How a member of a JSON object is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    Double,
    Integer,
    Texts,
    /// Values of any kind.
    Anys,
    /// A scalar of any kind.
    Default,
    /// An object.
    One(&'static Shape),
    /// A list of objects.
    Many(&'static Shape),
    /// An object in a message that is only about it, under this number.
    Within(u32, &'static Shape),
    /// An object whose members are objects: a message that repeats name and value under this number.
    Named(u32, &'static Shape),
}

/// An object: its members, and the number of its extensions.
struct Shape {
    members: &'static [(&'static str, u32, Form)],
    extensions: u32,
    /// It may be a reference instead: then there is a message around it, with the object under 1 and a reference under 2.
    referable: bool,
}

static SCHEMA: Shape = Shape {
    members: &[
        ("nullable", 1, Form::Flag),
        ("readOnly", 3, Form::Flag),
        ("writeOnly", 4, Form::Flag),
        ("deprecated", 8, Form::Flag),
        ("title", 9, Form::Text),
        ("multipleOf", 10, Form::Double),
        ("maximum", 11, Form::Double),
        ("exclusiveMaximum", 12, Form::Flag),
        ("minimum", 13, Form::Double),
        ("exclusiveMinimum", 14, Form::Flag),
        ("maxLength", 15, Form::Integer),
        ("minLength", 16, Form::Integer),
        ("pattern", 17, Form::Text),
        ("maxItems", 18, Form::Integer),
        ("minItems", 19, Form::Integer),
        ("uniqueItems", 20, Form::Flag),
        ("maxProperties", 21, Form::Integer),
        ("minProperties", 22, Form::Integer),
        ("required", 23, Form::Texts),
        ("enum", 24, Form::Anys),
        ("type", 25, Form::Text),
        ("allOf", 26, Form::Many(&SCHEMA)),
        ("oneOf", 27, Form::Many(&SCHEMA)),
        ("anyOf", 28, Form::Many(&SCHEMA)),
        ("items", 30, Form::Within(1, &SCHEMA)),
        ("properties", 31, Form::Named(1, &SCHEMA)),
        ("additionalProperties", 32, Form::Within(1, &SCHEMA)),
        ("default", 33, Form::Default),
        ("description", 34, Form::Text),
        ("format", 35, Form::Text),
    ],
    extensions: 36,
    referable: true,
};

static MEDIA_TYPE: Shape = Shape { members: &[("schema", 1, Form::One(&SCHEMA))], extensions: 5, referable: false };

static PARAMETER: Shape = Shape {
    members: &[
        ("name", 1, Form::Text),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("deprecated", 5, Form::Flag),
        ("allowEmptyValue", 6, Form::Flag),
        ("style", 7, Form::Text),
        ("explode", 8, Form::Flag),
        ("allowReserved", 9, Form::Flag),
        ("schema", 10, Form::One(&SCHEMA)),
        ("content", 13, Form::Named(1, &MEDIA_TYPE)),
    ],
    extensions: 14,
    referable: true,
};

static REQUEST_BODY: Shape = Shape {
    members: &[
        ("description", 1, Form::Text),
        ("content", 2, Form::Named(1, &MEDIA_TYPE)),
        ("required", 3, Form::Flag),
    ],
    extensions: 4,
    referable: true,
};

static RESPONSE: Shape = Shape {
    members: &[("description", 1, Form::Text), ("content", 3, Form::Named(1, &MEDIA_TYPE))],
    extensions: 5,
    referable: true,
};

static OPERATION: Shape = Shape {
    members: &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("parameters", 6, Form::Many(&PARAMETER)),
        ("requestBody", 7, Form::One(&REQUEST_BODY)),
        ("responses", 8, Form::Named(2, &RESPONSE)),
        ("deprecated", 10, Form::Flag),
    ],
    extensions: 13,
    referable: false,
};

static PATH_ITEM: Shape = Shape {
    members: &[
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("get", 4, Form::One(&OPERATION)),
        ("put", 5, Form::One(&OPERATION)),
        ("post", 6, Form::One(&OPERATION)),
        ("delete", 7, Form::One(&OPERATION)),
        ("options", 8, Form::One(&OPERATION)),
        ("head", 9, Form::One(&OPERATION)),
        ("patch", 10, Form::One(&OPERATION)),
        ("parameters", 13, Form::Many(&PARAMETER)),
    ],
    extensions: 14,
    referable: false,
};

static SECURITY_SCHEME: Shape = Shape {
    members: &[
        ("type", 1, Form::Text),
        ("description", 2, Form::Text),
        ("name", 3, Form::Text),
        ("in", 4, Form::Text),
        ("scheme", 5, Form::Text),
    ],
    extensions: 9,
    referable: true,
};

static INFO: Shape =
    Shape { members: &[("title", 1, Form::Text), ("version", 6, Form::Text)], extensions: 7, referable: false };

impl Shape {
    /// The message of an object.
    fn write(&'static self, v: &Value) -> Message {
        let mut m = Message::default();
        if self.referable {
            match v.get("$ref").and_then(Value::as_str) {
                Some(reference) => {
                    let mut r = Message::default();
                    r.text(1, reference);
                    m.inner(2, &r);
                }
                None => m.inner(1, &self.plain(v)),
            }
            return m;
        }
        self.plain(v)
    }

    fn plain(&'static self, v: &Value) -> Message {
        let mut m = Message::default();
        for (name, number, form) in self.members {
            if let Some(value) = v.get(*name) {
                form.write(&mut m, *number, value);
            }
        }
        for (name, value) in v.as_object().into_iter().flatten().filter(|(k, _)| k.starts_with("x-")) {
            m.named(self.extensions, name, &any(value));
        }
        m
    }
}

impl Form {
    fn write(self, m: &mut Message, number: u32, v: &Value) {
        let items = || v.as_array().into_iter().flatten();
        match self {
            Self::Text => m.text(number, v.as_str().unwrap_or_default()),
            Self::Flag => m.flag(number, v == &Value::Bool(true)),
            Self::Double => m.double(number, v.as_f64().unwrap_or_default()),
            Self::Integer => {
                m.varint(u64::from(number) << 3);
                m.varint(v.as_u64().unwrap_or_default());
            }
            Self::Texts => items().for_each(|text| m.bytes(number, text.as_str().unwrap_or_default().as_bytes())),
            Self::Anys => items().for_each(|value| m.inner(number, &any(value))),
            Self::Default => {
                let mut inner = Message::default();
                match v {
                    Value::Number(n) => inner.double(1, n.as_f64().unwrap_or_default()),
                    // One of several: it is written even when it is false or empty.
                    Value::Bool(b) => {
                        inner.varint(2 << 3);
                        inner.varint((*b).into());
                    }
                    Value::String(text) => inner.bytes(3, text.as_bytes()),
                    // The form has no other defaults.
                    _ => return,
                }
                m.inner(number, &inner);
            }
            Self::One(shape) => m.inner(number, &shape.write(v)),
            Self::Many(shape) => items().for_each(|value| m.inner(number, &shape.write(value))),
            Self::Within(at, shape) => {
                let mut inner = Message::default();
                inner.inner(at, &shape.write(v));
                m.inner(number, &inner);
            }
            Self::Named(at, shape) => {
                let mut inner = Message::default();
                for (name, value) in v.as_object().into_iter().flatten() {
                    inner.named(at, name, &shape.write(value));
                }
                m.inner(number, &inner);
            }
        }
    }
}

/// `PathItem`
pub(super) fn path_item(v: &Value) -> Message {
    PATH_ITEM.write(v)
}

/// `SchemaOrReference`
pub(super) fn schema(v: &Value) -> Message {
    SCHEMA.write(v)
}

/// A whole `Document` of a message of [`path_item`]s and one of [`schema`]s, each by name under 1.
pub(super) fn document(
    info: &Value,
    paths: &Message,
    schemas: &Message,
    security_schemes: &Value,
    security: &Value,
) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, "3.0.0");
    out.inner(2, &INFO.write(info));
    out.inner(4, paths);
    let mut components = Message::default();
    components.inner(1, schemas);
    Form::Named(1, &SECURITY_SCHEME).write(&mut components, 7, security_schemes);
    out.inner(5, &components);
    for requirement in security.as_array().into_iter().flatten() {
        let mut m = Message::default();
        for (name, scopes) in requirement.as_object().into_iter().flatten() {
            let mut list = Message::default();
            Form::Texts.write(&mut list, 1, scopes);
            m.named(1, name, &list);
        }
        out.inner(6, &m);
    }
    out.finish()
}

#[cfg(test)]
#[path = "../../tests/fields/mod.rs"]
mod fields;

#[cfg(test)]
mod tests {
    use super::fields::{fields, within};
    use super::*;
    use serde_json::json;

    fn at<'a>(data: &'a [u8], path: &[u64]) -> &'a [u8] {
        path.iter().fold(data, |data, number| within(data, *number))
    }

    #[test]
    fn schemas() {
        let s = schema(&json!({"type": "object", "default": "", "x-list": ["a"], "description": "d", "minimum": 1,
            "properties": {"a": {"allOf": [{"$ref": "#/components/schemas/B"}], "default": {}},
                "b": {"items": {"type": "string"}, "type": "array"}}}))
        .finish();
        assert_eq!(at(&s, &[1, 25]), b"object");
        assert_eq!(at(&s, &[1, 34]), b"d");
        assert_eq!(at(&s, &[1, 13]), 1f64.to_le_bytes());
        assert_eq!(at(&s, &[1, 33, 3]), b"");
        assert_eq!(at(&s, &[1, 36, 1]), b"x-list");
        assert_eq!(at(&s, &[1, 36, 2, 2]), b"[\"a\"]\n");
        assert_eq!(at(&s, &[1, 31, 1, 1]), b"a");
        assert_eq!(at(&s, &[1, 31, 1, 2, 1, 26, 2, 1]), b"#/components/schemas/B");
        let properties = fields(at(&s, &[1, 31]));
        assert_eq!(at(properties[1].1, &[2, 1, 30, 1, 1, 25]), b"string");
        assert!(fields(at(properties[0].1, &[2, 1])).iter().all(|(n, _)| *n != 33));
    }

    #[test]
    fn documents() {
        let mut paths = Message::default();
        let item = json!({"get": {"operationId": "o", "responses": {"200": {"description": "OK",
            "content": {"application/json": {"schema": {"$ref": "#/x"}}}}}},
            "parameters": [{"name": "p", "in": "query", "schema": {"type": "boolean"}}]});
        paths.named(1, "/a", &path_item(&item));
        let info = json!({"title": "T", "version": "1"});
        let schemes = json!({"B": {"type": "apiKey"}});
        let d = document(&info, &paths, &Message::default(), &schemes, &json!([{"B": []}]));
        assert_eq!((at(&d, &[1]), at(&d, &[2, 6])), (&b"3.0.0"[..], &b"1"[..]));
        assert_eq!(at(&d, &[4, 1, 2, 4, 5]), b"o");
        assert_eq!(at(&d, &[4, 1, 2, 4, 8, 2, 1]), b"200");
        assert_eq!(at(&d, &[4, 1, 2, 4, 8, 2, 2, 1, 3, 1, 2, 1, 2, 1]), b"#/x");
        assert_eq!(at(&d, &[4, 1, 2, 13, 1, 10, 1, 25]), b"boolean");
        assert_eq!(at(&d, &[5, 7, 1, 2, 1, 1]), b"apiKey");
        assert_eq!(at(&d, &[6, 1, 1]), b"B");
    }
}
