//! Descriptions of kinds and fields: packed in the binary, unpacked while a document is made.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

/// The text of all descriptions: a line `NAME\tTEXT` for a type, then `\tFIELD\tTEXT` for its fields.
pub(crate) fn unpack() -> String {
    let mut out = String::new();
    // It was packed by our own build and is part of the program; were it broken, documents would lack descriptions.
    let _ = flate2::read::GzDecoder::new(PACKED).read_to_string(&mut out);
    out
}

/// Descriptions by type and field.
pub(crate) struct Texts<'a> {
    types: HashMap<&'a str, (&'a str, HashMap<&'a str, &'a str>)>,
}

impl<'a> Texts<'a> {
    /// Reads what [`unpack`] gave.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut types: HashMap<&str, (&str, HashMap<&str, &str>)> = HashMap::new();
        let mut now = "";
        for line in text.lines() {
            match line.split_once('\t') {
                Some(("", field)) => {
                    if let (Some((_, fields)), Some((name, text))) = (types.get_mut(now), field.split_once('\t')) {
                        fields.insert(name, text);
                    }
                }
                Some((name, text)) => {
                    now = name;
                    types.insert(name, (text, HashMap::new()));
                }
                None => {}
            }
        }
        Self { types }
    }

    /// The description of a type.
    pub(crate) fn of_type(&self, name: &str) -> Option<String> {
        self.types.get(name).and_then(|(text, _)| plain(text)).or_else(|| list(name))
    }

    /// The description of a field.
    pub(crate) fn of_field(&self, name: &str, field: &str) -> Option<String> {
        match self.types.get(name).and_then(|(_, fields)| fields.get(field)) {
            Some(text) => plain(text),
            None => common(name, field).map(str::to_owned),
        }
    }
}

/// A text as it stood in source code.
fn plain(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    serde_json::from_str(&format!("\"{text}\"")).ok()
}

/// Lists of objects are all described alike.
fn list(name: &str) -> Option<String> {
    let kind = name.rsplit('.').next()?.strip_suffix("List")?;
    Some(format!("{kind}List is a list of {kind} objects."))
}

static COMMON: LazyLock<[(&str, &str); 3]> = LazyLock::new(|| {
    [
        (
            "apiVersion",
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        ),
        (
            "kind",
            "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        ),
        (
            "metadata",
            "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        ),
    ]
});

fn common(name: &str, field: &str) -> Option<&'static str> {
    let is_list = name.ends_with("List");
    match field {
        "items" if is_list => Some("items is the list of objects."),
        "metadata" if !is_list => None,
        _ => COMMON.iter().find(|(f, _)| *f == field).map(|(_, text)| *text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds() {
        let raw = unpack();
        let texts = Texts::new(&raw);
        let pod = "io.k8s.api.core.v1.Pod";
        assert!(texts.of_type(pod).unwrap().starts_with("Pod is a collection of containers"));
        assert!(texts.of_field("io.k8s.api.core.v1.Container", "image").unwrap().starts_with("Container image name."));
        let value = texts.of_field("io.k8s.api.core.v1.EnvVar", "value").unwrap();
        assert!(value.contains("\"$$(VAR_NAME)\"") && !value.contains('\\'), "{value}");
        assert_eq!(texts.of_type("io.k8s.api.core.v1.PodList").unwrap(), "PodList is a list of Pod objects.");
        assert!(texts.of_field("io.k8s.api.core.v1.PodList", "metadata").is_some());
        assert!(texts.of_type("nope").is_none() && texts.of_field("nope", "x").is_none());
    }

    #[test]
    fn every_field_has_one() {
        let raw = unpack();
        let texts = Texts::new(&raw);
        let (mut known, mut missing) = (0, Vec::new());
        for r in pintle_api::resources::all() {
            let mut waiting = vec![pintle_schema::kind(&r.api_version(), r.kind).unwrap()];
            let mut seen = std::collections::HashSet::new();
            while let Some(ty) = waiting.pop() {
                if !seen.insert(ty.id) {
                    continue;
                }
                let name = super::super::schemas::name(ty);
                for f in &ty.fields {
                    waiting.extend(f.struct_type());
                    match texts.of_field(&name, f.name) {
                        Some(_) => known += 1,
                        None => missing.push(format!("{name} {}", f.name)),
                    }
                }
            }
        }
        missing.sort();
        missing.dedup();
        // Upstream gives these none either.
        missing.retain(|m| {
            !["JSONSchemaProps ", "ExternalDocumentation ", "GroupResource ", "IngressRule http"]
                .iter()
                .any(|none| m.contains(none))
                && m != "io.k8s.api.certificates.v1.CertificateSigningRequest metadata"
        });
        assert!(missing.is_empty() && known > 5000, "{known} known, {}: {missing:#?}", missing.len());
    }
}
