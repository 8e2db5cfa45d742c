//! The record of node ports in the store, where upstream keeps it and in its form: a `RangeAllocation`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_schema::{Type, proto};
use pintle_store::{Outcome, Store, Txn};
use serde_json::{Value, json};

use super::form::StorageMediaType;
use crate::kinds::core::service::alloc::BoxFuture;
use crate::kinds::core::service::ports::{PortRecord, Recorded};

/// The record.
pub(crate) struct StoredPorts {
    store: Arc<dyn Store>,
    key: String,
    media: StorageMediaType,
}

fn ty() -> Result<&'static Type, String> {
    pintle_schema::kind("v1", "RangeAllocation").ok_or_else(|| "no kind RangeAllocation is known".to_owned())
}

fn open(stored: &[u8], mark: u64) -> Result<Recorded, String> {
    let value: Value = if stored.starts_with(proto::MAGIC) {
        proto::from_proto(stored, ty()?).map_err(|e| e.to_string())?
    } else {
        serde_json::from_slice(stored).map_err(|e| e.to_string())?
    };
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let bits = STANDARD.decode(text("data")).map_err(|e| e.to_string())?;
    Ok(Recorded { range: text("range").to_owned(), bits, mark })
}

fn seal(record: &Recorded, media: StorageMediaType) -> Result<Vec<u8>, String> {
    let value = json!({"kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
        "range": record.range, "data": STANDARD.encode(&record.bits)});
    Ok(match media {
        StorageMediaType::Json => pintle_schema::encode(&value, ty()?),
        StorageMediaType::Protobuf => proto::to_proto(&value, ty()?),
    })
}

impl StoredPorts {
    /// Below this prefix of all keys.
    pub(crate) fn new(store: Arc<dyn Store>, root: &str, media: StorageMediaType) -> Self {
        Self { store, key: format!("{root}/ranges/servicenodeports"), media }
    }
}

impl PortRecord for StoredPorts {
    fn read(&self) -> BoxFuture<'_, Result<Recorded, String>> {
        Box::pin(async move {
            match self.store.get(&self.key).await.map_err(|e| e.to_string())?.kv {
                Some(kv) => open(&kv.value, kv.mod_revision),
                None => Ok(Recorded::default()),
            }
        })
    }

    fn write(&self, record: Recorded) -> BoxFuture<'_, Result<bool, String>> {
        Box::pin(async move {
            let (key, value) = (self.key.as_str(), seal(&record, self.media)?);
            // There is none yet: no revision is 0.
            let txn = if record.mark == 0 { Txn::create(key, value) } else { Txn::update(key, record.mark, value) };
            let outcome = self.store.txn(txn).await.map_err(|e| e.to_string())?;
            Ok(matches!(outcome, Outcome::Succeeded { .. }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_store::MemoryStore;

    #[test]
    fn forms() {
        let record = Recorded { range: "30000-32767".into(), bits: vec![1, 0, 255], mark: 7 };
        for media in [StorageMediaType::Json, StorageMediaType::Protobuf] {
            let sealed = seal(&record, media).unwrap();
            assert_eq!(sealed.starts_with(proto::MAGIC), media == StorageMediaType::Protobuf);
            assert_eq!(open(&sealed, 7).unwrap(), record);
        }
        assert!(open(b"k8s\0\x0a\x05", 1).is_err() && open(b"[", 1).is_err());
    }

    #[tokio::test]
    async fn only_the_present_state_is_replaced() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let ports = StoredPorts::new(store, "/registry", StorageMediaType::Protobuf);
        let first = ports.read().await.unwrap();
        assert_eq!(first, Recorded::default());
        let change = |of: &Recorded, bits: u8| Recorded { range: "1-8".into(), bits: vec![bits], mark: of.mark };
        assert!(ports.write(change(&first, 1)).await.unwrap());
        assert!(!ports.write(change(&first, 2)).await.unwrap());
        let second = ports.read().await.unwrap();
        assert_eq!(second.bits, [1]);
        assert!(ports.write(change(&second, 3)).await.unwrap());
        assert!(!ports.write(change(&second, 4)).await.unwrap());
        assert_eq!(ports.read().await.unwrap().bits, [3]);
    }
}
