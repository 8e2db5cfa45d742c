//! OpenAPI v2 in the protobuf form of the gnostic project, which kubectl reads. The numbers are those of its
//! `openapiv2/OpenAPIv2.proto`.

use serde_json::Value;

/// A protobuf message being written.
#[derive(Default)]
pub(super) struct Message {
    out: Vec<u8>,
}

impl Message {
    /// A number as it is written.
    pub(super) fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
            self.out.push(v as u8 | 0x80);
            v >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 0x80")]
        self.out.push(v as u8);
    }

    /// Bytes, or a message that was written already.
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A text, left out when empty.
    pub(super) fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    /// Something that is so, left out when it is not.
    pub(super) fn flag(&mut self, number: u32, on: bool) {
        if on {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    /// A number that may have a fraction.
    pub(super) fn double(&mut self, number: u32, value: f64) {
        self.varint(u64::from(number) << 3 | 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A message within.
    pub(super) fn inner(&mut self, number: u32, inner: &Message) {
        self.bytes(number, &inner.out);
    }

    /// A message within, of a name and a value.
    pub(super) fn named(&mut self, number: u32, name: &str, value: &Message) {
        let mut m = Message::default();
        m.text(1, name);
        m.inner(2, value);
        self.inner(number, &m);
    }

    /// What was written.
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    fn texts(&mut self, number: u32, list: &Value) {
        for text in list.as_array().into_iter().flatten() {
            self.bytes(number, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn extensions(&mut self, number: u32, of: &Value) {
        for (name, value) in of.as_object().into_iter().flatten().filter(|(k, _)| k.starts_with("x-")) {
            self.named(number, name, &any(value));
        }
    }
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is(v: &Value, key: &str) -> bool {
    v.get(key) == Some(&Value::Bool(true))
}

/// `Any`: YAML text, of which JSON is a part.
pub(super) fn any(v: &Value) -> Message {
    let mut m = Message::default();
    m.text(2, &format!("{v}\n"));
    m
}

/// `Schema`
pub(super) fn schema(v: &Value) -> Message {
    let mut m = Message::default();
    m.text(1, text(v, "$ref"));
    m.text(2, text(v, "format"));
    m.text(4, text(v, "description"));
    m.texts(19, &v["required"]);
    for value in v["enum"].as_array().into_iter().flatten() {
        m.inner(20, &any(value));
    }
    if let Some(inner) = v.get("additionalProperties") {
        let mut item = Message::default();
        item.inner(1, &schema(inner));
        m.inner(21, &item);
    }
    if let Some(of) = v.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.text(1, of);
        m.inner(22, &item);
    }
    if let Some(inner) = v.get("items") {
        let mut item = Message::default();
        item.inner(1, &schema(inner));
        m.inner(23, &item);
    }
    if let Some(properties) = v.get("properties").and_then(Value::as_object) {
        let mut all = Message::default();
        for (name, inner) in properties {
            all.named(1, name, &schema(inner));
        }
        m.inner(25, &all);
    }
    m.extensions(31, v);
    m
}

/// `Parameter`
pub(super) fn parameter(p: &Value) -> Message {
    let mut m = Message::default();
    if text(p, "in") == "body" {
        let mut body = Message::default();
        body.text(1, text(p, "description"));
        body.text(2, text(p, "name"));
        body.text(3, text(p, "in"));
        body.flag(4, is(p, "required"));
        body.inner(5, &schema(&p["schema"]));
        m.inner(1, &body);
        return m;
    }
    let in_path = text(p, "in") == "path";
    let mut plain = Message::default();
    plain.flag(1, is(p, "required"));
    plain.text(2, text(p, "in"));
    plain.text(3, text(p, "description"));
    plain.text(4, text(p, "name"));
    // In a query an empty value may be allowed, which takes a number.
    let shift = u32::from(!in_path);
    plain.text(5 + shift, text(p, "type"));
    plain.flag(19 + shift, is(p, "uniqueItems"));
    let mut either = Message::default();
    either.inner(if in_path { 4 } else { 3 }, &plain);
    m.inner(2, &either);
    m
}

/// `ParametersItem`s: parameters or references to shared ones.
fn parameters(m: &mut Message, number: u32, list: &Value) {
    for p in list.as_array().into_iter().flatten() {
        let mut item = Message::default();
        match p.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let mut r = Message::default();
                r.text(1, reference);
                item.inner(2, &r);
            }
            None => item.inner(1, &parameter(p)),
        }
        m.inner(number, &item);
    }
}

/// `Operation`
fn operation(op: &Value) -> Message {
    let mut m = Message::default();
    m.texts(1, &op["tags"]);
    m.text(3, text(op, "description"));
    m.text(5, text(op, "operationId"));
    m.texts(6, &op["produces"]);
    m.texts(7, &op["consumes"]);
    parameters(&mut m, 8, &op["parameters"]);
    let mut responses = Message::default();
    for (code, r) in op["responses"].as_object().into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, text(r, "description"));
        if let Some(s) = r.get("schema") {
            let mut item = Message::default();
            item.inner(1, &schema(s));
            response.inner(2, &item);
        }
        let mut value = Message::default();
        value.inner(1, &response);
        responses.named(1, code, &value);
    }
    m.inner(9, &responses);
    m.texts(10, &op["schemes"]);
    m.extensions(13, op);
    m
}

/// `PathItem`
pub(super) fn path_item(item: &Value) -> Message {
    let mut m = Message::default();
    for (number, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(op) = item.get(method) {
            m.inner(number, &operation(op));
        }
    }
    parameters(&mut m, 9, &item["parameters"]);
    m
}

/// Writes the parts of a `Document`. Each must be written once.
pub(super) struct Document {
    out: Message,
}

impl Document {
    /// Begins with what is about the document.
    pub(super) fn new(info: &Value) -> Self {
        let mut out = Message::default();
        out.text(1, "2.0");
        let mut m = Message::default();
        m.text(1, text(info, "title"));
        m.text(2, text(info, "version"));
        out.inner(2, &m);
        Self { out }
    }

    /// The paths: a message of [`path_item`]s under 2.
    pub(super) fn paths(&mut self, paths: &Message) {
        self.out.inner(8, paths);
    }

    /// The definitions: a message of [`schema`]s under 1.
    pub(super) fn definitions(&mut self, definitions: &Message) {
        self.out.inner(9, definitions);
    }

    /// The shared parameters: a message of [`parameter`]s under 1.
    pub(super) fn parameters(&mut self, parameters: &Message) {
        self.out.inner(10, parameters);
    }

    /// Ends with how clients prove who they are.
    pub(super) fn finish(mut self, security: &Value, definitions: &Value) -> Vec<u8> {
        for requirement in security.as_array().into_iter().flatten() {
            let mut m = Message::default();
            for (name, _) in requirement.as_object().into_iter().flatten() {
                m.named(1, name, &Message::default());
            }
            self.out.inner(12, &m);
        }
        let mut all = Message::default();
        for (name, d) in definitions.as_object().into_iter().flatten() {
            let mut key = Message::default();
            key.text(1, text(d, "type"));
            key.text(2, text(d, "name"));
            key.text(3, text(d, "in"));
            key.text(4, text(d, "description"));
            let mut item = Message::default();
            item.inner(2, &key);
            all.named(1, name, &item);
        }
        self.out.inner(13, &all);
        self.out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes() {
        let got = schema(&json!({"type": "object", "properties": {"a": {"$ref": "#/definitions/B"}}, "x-y": ["z"]}));
        let mut want = vec![0xb2, 0x01, 8, 0x0a, 6];
        want.extend(b"object");
        want.extend([0xca, 0x01, 24, 0x0a, 22, 0x0a, 1, b'a', 0x12, 17, 0x0a, 15]);
        want.extend(b"#/definitions/B");
        want.extend([0xfa, 0x01, 15, 0x0a, 3]);
        want.extend(b"x-y");
        want.extend([0x12, 8, 0x12, 6]);
        want.extend(b"[\"z\"]\n");
        assert_eq!(got.finish(), want);
    }

    #[test]
    fn parameters_of_query_and_path_differ() {
        let got = parameter(&json!({"name": "w", "in": "query", "type": "boolean", "uniqueItems": true})).finish();
        let mut inner = vec![0x12, 5];
        inner.extend(b"query");
        inner.extend([0x22, 1, b'w', 0x32, 7]);
        inner.extend(b"boolean");
        inner.extend([0xa0, 0x01, 1]);
        let len = u8::try_from(inner.len()).unwrap();
        let mut want = vec![0x12, len + 2, 0x1a, len];
        want.extend(inner);
        assert_eq!(got, want);
        let got = parameter(&json!({"name": "n", "in": "path", "required": true, "type": "string"})).finish();
        assert_eq!(got[..3], [0x12, 21, 0x22]);
    }
}
