//! A pull: from a name to an image in the store.

use super::manifest::{ConfigDocument, Descriptor, Manifest};
use super::name::ImageName;
use super::registry::{Registry, RegistryHosts};
use super::store::{ImageStore, chain_id, digest_of};
use crate::sys::Context as _;
use crate::{Code, Error, RegistryAuth, Result};
use futures::StreamExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// How many layers are fetched at once.
const AT_ONCE: usize = 3;

/// Makes the image of this name present, as its registry has it now. Answers its reference.
pub async fn pull(
    store: &Arc<ImageStore>,
    hosts: &RegistryHosts,
    name: &str,
    auth: Option<&RegistryAuth>,
) -> Result<String> {
    let parsed: ImageName = name.parse()?;
    let fail = |e: Error| e.context(format!("failed to pull and unpack image {:?}", parsed.to_string()));
    let lock = store.pull_lock(&parsed.to_string());
    let _turn = lock.lock().await;
    let _busy = store.busy()?;
    let mut first: Option<Error> = None;
    for host in hosts.of(&parsed.registry) {
        let registry = Registry::new(&host, &parsed, auth).map_err(fail)?;
        match from_host(store, &registry, &parsed).await {
            Ok(reference) => return Ok(reference),
            // The last host's is the registry's own answer; before it any mirror may fail as it likes.
            Err(e) => first = Some(e),
        }
    }
    Err(fail(first.unwrap_or_else(|| Error::internal("no host to ask"))))
}

async fn from_host(store: &Arc<ImageStore>, registry: &Registry, name: &ImageName) -> Result<String> {
    let resolving = |e: Error| {
        let e = if e.code == Code::NotFound { e.context(name) } else { e };
        e.context(format!("failed to resolve reference {:?}", name.to_string()))
    };
    let text = registry.manifest(name.reference()).await.map_err(resolving)?;
    let top = digest_of(&text);
    if let Some(wanted) = &name.digest
        && *wanted != top
    {
        return Err(resolving(Error::unknown(format!("the registry sent a manifest with the digest {top}"))));
    }
    let mut manifest = Manifest::parse(&text)?;
    let (mut own_digest, mut own_text) = (top.clone(), text.clone());
    for _ in 0..4 {
        if !manifest.is_index() {
            break;
        }
        let d = manifest.for_this_machine()?.clone();
        own_text = registry.manifest(&d.digest).await?;
        own_digest = digest_of(&own_text);
        if own_digest != d.digest {
            return Err(Error::unknown(format!("manifest {} came with the digest {own_digest}", d.digest)));
        }
        manifest = Manifest::parse(&own_text)?;
    }
    let config = manifest.config.clone().ok_or_else(|| Error::invalid("the index leads to no manifest"))?;
    let config_text = match store.read_blob(&config.digest) {
        Ok(text) => text,
        Err(_) => registry.small_blob(&config.digest).await?,
    };
    if digest_of(&config_text) != config.digest {
        return Err(Error::unknown(format!("configuration {} was damaged or forged", config.digest)));
    }
    let document = ConfigDocument::parse(&config_text)?;
    if document.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid("manifest and configuration differ in their number of layers"));
    }
    layers(store, registry, &manifest.layers, &document.rootfs.diff_ids).await?;
    for data in [&config_text, &own_text, &text] {
        store.put_blob(data)?;
    }
    // The digest by which it was asked for counts, which may be an index's.
    let id = store.commit(&own_digest, &manifest, &document, std::slice::from_ref(name), false, &top)?;
    let record = store.find(&id).ok_or_else(|| Error::internal("the image vanished"))?;
    let background = store.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = background.make_durable(&id) {
            tracing::warn!("{e}");
        }
    });
    let by_digest = format!("{}@{top}", name.familiar());
    Ok(if record.digests.contains(&by_digest) { by_digest } else { record.reference() })
}

/// Fetches what is missing, several at once, and unpacks in order, as each comes.
async fn layers(
    store: &Arc<ImageStore>,
    registry: &Registry,
    layers: &[Descriptor],
    diff_ids: &[String],
) -> Result<()> {
    let mut chain: Vec<String> = vec![];
    for diff in diff_ids {
        chain.push(chain_id(chain.last().map(String::as_str), diff));
    }
    let fetch = |n: usize| {
        let layer = &layers[n];
        let present = store.has_layer(&chain[n]) && store.blob_path(&layer.digest).is_ok_and(|p| p.exists());
        let path: PathBuf = store.tmp();
        async move {
            if present {
                return Ok((n, None));
            }
            registry.blob(&layer.digest, layer.size, &path).await?;
            Ok::<_, Error>((n, Some(path)))
        }
    };
    // Futures made one by one, for the compiler cannot see through a closure in a stream here.
    let fetches: Vec<_> = (0..layers.len()).map(fetch).collect();
    let mut fetched = futures::stream::iter(fetches).buffered(AT_ONCE);
    while let Some(next) = fetched.next().await {
        let (n, Some(path)) = next? else { continue };
        let (store, digest, diff) = (store.clone(), layers[n].digest.clone(), diff_ids[n].clone());
        let below = chain[..n].to_vec();
        let unpacked = tokio::task::spawn_blocking(move || store.add_layer(&path, &digest, &diff, &below)).await;
        unpacked.map_err(|e| Error::internal(e.to_string()))?.context("failed to extract layer")?;
    }
    Ok(())
}
