//! The form of objects in the store: JSON, or protobuf as upstream writes it. Either is read, in any version.

use std::borrow::Cow;

use bytes::Bytes;
use pintle_api::resources::{self, Resource};
use pintle_schema::{Mode, Type, decode, proto};
use serde_json::Value;

use super::versions;

/// How objects of built-in kinds are written (`--storage-media-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageMediaType {
    /// JSON text, which is also what is served.
    #[default]
    Json,
    /// Protobuf in an envelope, as upstream's default.
    Protobuf,
}

impl std::str::FromStr for StorageMediaType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "application/json" => Ok(Self::Json),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            other => Err(format!(
                "--storage-media-type {other:?} invalid, must be application/json or application/vnd.kubernetes.protobuf"
            )),
        }
    }
}

/// The stored form of one resource.
pub(super) struct Form {
    storage: &'static Resource,
    ty: Option<&'static Type>,
    media: StorageMediaType,
    /// What our own JSON begins with.
    head: Vec<u8>,
}

impl Form {
    pub(super) fn new(storage: &'static Resource, media: StorageMediaType) -> Self {
        let api_version = storage.api_version();
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",", storage.kind).into_bytes();
        Self { storage, ty: pintle_schema::kind(&api_version, storage.kind), media, head }
    }

    /// What is put into the store for an object's canonical JSON.
    pub(super) fn seal(&self, json: &Bytes) -> Bytes {
        let Some(ty) = self.ty.filter(|_| self.media == StorageMediaType::Protobuf) else { return json.clone() };
        match proto::json_to_body(json, ty) {
            Ok(body) => proto::seal(&self.storage.api_version(), self.storage.kind, &body).into(),
            // JSON is read as well.
            Err(error) => {
                tracing::error!(kind = self.storage.kind, %error, "an object has no protobuf form; it is stored as JSON");
                json.clone()
            }
        }
    }

    /// The canonical JSON, in the version that is stored here, of what is in the store.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if stored.starts_with(&self.head) {
            return Ok(Cow::Borrowed(stored));
        }
        let Some(ty) = self.ty else { return Ok(Cow::Borrowed(stored)) };
        let (mut value, api_version) = if stored.starts_with(proto::MAGIC) {
            let envelope = proto::envelope(stored).map_err(|e| e.to_string())?;
            let of = pintle_schema::kind(&envelope.api_version, &envelope.kind)
                .ok_or_else(|| format!("no kind {:?} of version {:?} is known", envelope.kind, envelope.api_version))?;
            (proto::from_proto(stored, of).map_err(|e| e.to_string())?, envelope.api_version)
        } else {
            let meta = decode::type_meta(stored).map_err(|e| e.to_string())?;
            let of = pintle_schema::kind(&meta.api_version, &meta.kind)
                .ok_or_else(|| format!("no kind {:?} of version {:?} is known", meta.kind, meta.api_version))?;
            let decoded = decode::decode_json(stored, of, Mode::Lenient).map_err(|e| e.to_string())?;
            (decoded.value, meta.api_version)
        };
        let own = self.storage.api_version();
        if api_version != own
            && let Some(from) = resources::by_kind(&api_version, self.storage.kind)
        {
            versions::convert(&mut value, from, self.storage);
        }
        value["kind"] = self.storage.kind.into();
        value["apiVersion"] = Value::from(own);
        pintle_schema::apply_defaults(&mut value, ty);
        Ok(Cow::Owned(pintle_schema::encode(&value, ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(api_version: &str, kind: &str, media: StorageMediaType) -> Form {
        Form::new(resources::by_kind(api_version, kind).unwrap(), media)
    }

    #[test]
    fn both_forms_are_read() {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let ty = pintle_schema::kind("v1", "Pod").unwrap();
        let mut whole = pod.clone();
        pintle_schema::apply_defaults(&mut whole, ty);
        let canonical = Bytes::from(pintle_schema::encode(&whole, ty));
        for media in [StorageMediaType::Json, StorageMediaType::Protobuf] {
            let form = form("v1", "Pod", media);
            let sealed = form.seal(&canonical);
            assert_eq!(sealed.starts_with(proto::MAGIC), media == StorageMediaType::Protobuf);
            assert_eq!(&*form.open(&sealed).unwrap(), &*canonical);
            // What another wrote, in another order and without defaults.
            let other = br#"{"apiVersion":"v1","spec":{"containers":[{"image":"i","name":"c"}]},"kind":"Pod","metadata":{"namespace":"n","name":"p"}}"#;
            assert_eq!(&*form.open(other).unwrap(), &*canonical);
        }
        let form = form("v1", "Pod", StorageMediaType::Json);
        for bad in [&b"k8s\0"[..], b"k8s\0\x0a\x05", b"nonsense", br#"{"kind":"Pot","apiVersion":"v1"}"#] {
            assert!(form.open(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn other_versions_are_converted() {
        let old = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}});
        let ty = pintle_schema::kind("autoscaling/v1", "HorizontalPodAutoscaler").unwrap();
        let form = form("autoscaling/v2", "HorizontalPodAutoscaler", StorageMediaType::Protobuf);
        let read: Value = serde_json::from_slice(&form.open(&proto::to_proto(&old, ty)).unwrap()).unwrap();
        assert_eq!(read["apiVersion"], "autoscaling/v2");
        assert_eq!(read["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    }
}
