//! Archives of images: OCI layouts and what `docker save` writes.

use super::manifest::{self, ConfigDocument, Descriptor, MANIFESTS, Manifest};
use super::name::ImageName;
use super::store::{ImageStore, chain_id};
use super::unpack;
use crate::sys::Context as _;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// An entry of `manifest.json` in what `docker save` writes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An archive's files, taken out of it: name to where it is now.
struct Files {
    dir: PathBuf,
    files: HashMap<String, PathBuf>,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Files {
    fn extract(from: impl Read + Send, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).context("importing")?;
        let mut out = Self { dir, files: HashMap::new() };
        let mut links: Vec<(String, String)> = vec![];
        let plain = unpack::decompress(BufReader::with_capacity(256 * 1024, from))?;
        let mut tar = tar::Archive::new(plain);
        for entry in tar.entries().context("reading the archive")? {
            let mut entry = entry.context("reading the archive")?;
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()), "");
            if entry.header().entry_type().is_file() {
                // Never under its own name, which is not to be trusted.
                let path = out.dir.join(out.files.len().to_string());
                let mut file = File::create(&path).context("importing")?;
                std::io::copy(&mut entry, &mut file).context("reading the archive")?;
                out.files.insert(name, path);
            } else if entry.header().entry_type().is_symlink() || entry.header().entry_type().is_hard_link() {
                let to = entry.link_name_bytes().unwrap_or_default().into_owned();
                let base = if entry.header().entry_type().is_symlink() { parent(&name) } else { "" };
                links.push((name.clone(), normal(&String::from_utf8_lossy(&to), base)));
            }
        }
        for (name, to) in links {
            if let Some(path) = out.files.get(&to).cloned() {
                out.files.insert(name, path);
            }
        }
        Ok(out)
    }

    fn path(&self, name: &str) -> Result<&Path> {
        let found = self.files.get(&normal(name, ""));
        found.map(PathBuf::as_path).ok_or_else(|| Error::invalid(format!("the archive lacks {name:?}")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.path(name)?).context(format!("reading {name:?}"))
    }

    fn blob(&self, digest: &str) -> Result<&Path> {
        self.path(&format!("blobs/{}", digest.replacen(':', "/", 1)))
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(p, _)| p)
}

fn normal(name: &str, base: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            p => parts.push(p),
        }
    }
    parts.join("/")
}

impl ImageStore {
    /// Takes in an archive, compressed or not. Its images are pinned. `name` is for an archive that names none. Answers
    /// the images' ids.
    pub fn import(&self, from: impl Read + Send, name: Option<&str>) -> Result<Vec<String>> {
        let busy = self.busy()?;
        let name = name.map(str::parse::<ImageName>).transpose()?;
        let files = Files::extract(from, self.tmp())?;
        let ids = if files.files.contains_key("index.json") {
            self.import_oci(&files, name.as_ref())
        } else if files.files.contains_key("manifest.json") {
            self.import_docker(&files, name.as_ref())
        } else {
            Err(Error::invalid("neither index.json nor manifest.json is in the archive: it is no archive of images"))
        }?;
        for id in &ids {
            self.make_durable(id)?;
        }
        drop(busy);
        Ok(ids)
    }

    fn import_oci(&self, files: &Files, name: Option<&ImageName>) -> Result<Vec<String>> {
        let index = Manifest::parse(&files.read("index.json")?)?;
        let mut ids = vec![];
        for entry in &index.manifests {
            let annotation = |key: &str| entry.annotations.as_ref().and_then(|a| a.get(key)).cloned();
            let written =
                annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
            let names = match (&written, name) {
                // A bare tag needs the name it belongs to.
                (Some(w), Some(n)) if !w.contains(['/', ':']) => vec![ImageName { tag: Some(w.clone()), ..n.clone() }],
                (_, Some(n)) => vec![n.clone()],
                (Some(w), None) => w.parse().into_iter().collect(),
                (None, None) => vec![],
            };
            let mut at = entry.clone();
            let mut manifest = Manifest::parse(&fs::read(files.blob(&at.digest)?).context("reading a manifest")?)?;
            for _ in 0..4 {
                if !manifest.is_index() {
                    break;
                }
                at = manifest.for_this_machine()?.clone();
                manifest = Manifest::parse(&fs::read(files.blob(&at.digest)?).context("reading a manifest")?)?;
            }
            ids.push(self.import_manifest(files, &at, &manifest, &names)?);
        }
        if ids.is_empty() { Err(Error::invalid("the archive holds no image")) } else { Ok(ids) }
    }

    fn import_manifest(&self, files: &Files, at: &Descriptor, m: &Manifest, names: &[ImageName]) -> Result<String> {
        let config = m.config.as_ref().ok_or_else(|| Error::invalid("the manifest has no configuration"))?;
        let text = fs::read(files.blob(&config.digest)?).context("reading the configuration")?;
        let document = ConfigDocument::parse(&text)?;
        if document.rootfs.diff_ids.len() != m.layers.len() {
            return Err(Error::invalid("manifest and configuration differ in their number of layers"));
        }
        let mut below: Vec<String> = vec![];
        for (layer, diff_id) in m.layers.iter().zip(&document.rootfs.diff_ids) {
            below.push(self.import_layer(files.blob(&layer.digest)?, &layer.digest, diff_id, &below)?.0);
        }
        let manifest_text = fs::read(files.blob(&at.digest)?).context("reading a manifest")?;
        for (data, digest) in [(&manifest_text, &at.digest), (&text, &config.digest)] {
            let found = self.put_blob(data)?;
            if found != *digest {
                return Err(Error::invalid(format!("blob {digest} has the digest {found}: it was damaged or forged")));
            }
        }
        self.commit(&at.digest, m, &document, names, true, &at.digest)
    }

    /// Unpacks one layer unless it is here. Answers chain id and blob digest.
    fn import_layer(&self, file: &Path, blob: &str, diff_id: &str, below: &[String]) -> Result<(String, String)> {
        let chain = chain_id(below.last().map(String::as_str), diff_id);
        if self.has_layer(&chain) && !blob.is_empty() && self.blob_path(blob)?.exists() {
            return Ok((chain, blob.into()));
        }
        // Two names in one archive may be one file, which moves away.
        let copy = self.tmp();
        fs::hard_link(file, &copy).or_else(|_| fs::copy(file, &copy).map(drop)).context("importing")?;
        self.add_layer(&copy, blob, diff_id, below)
    }

    fn import_docker(&self, files: &Files, name: Option<&ImageName>) -> Result<Vec<String>> {
        let text = files.read("manifest.json")?;
        let entries: Vec<DockerEntry> =
            serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("manifest.json is malformed: {e}")))?;
        let mut ids = vec![];
        for entry in entries {
            let text = files.read(&entry.config)?;
            let document = ConfigDocument::parse(&text)?;
            if document.rootfs.diff_ids.len() != entry.layers.len() {
                return Err(Error::invalid("manifest.json and configuration differ in their number of layers"));
            }
            let (mut below, mut layers): (Vec<String>, Vec<Descriptor>) = (vec![], vec![]);
            for (layer, diff_id) in entry.layers.iter().zip(&document.rootfs.diff_ids) {
                let file = files.path(layer)?;
                let size = file.metadata().context("importing")?.len();
                let (chain, digest) = self.import_layer(file, "", diff_id, &below)?;
                let packed = digest != *diff_id;
                let media_type = format!("{}{}", manifest::LAYER, if packed { "+gzip" } else { "" });
                layers.push(Descriptor { media_type, digest, size, ..Descriptor::default() });
                below.push(chain);
            }
            // It brings no manifest of the usual kind: write the one a registry would have.
            let config = Descriptor {
                media_type: manifest::CONFIG.into(),
                digest: self.put_blob(&text)?,
                size: text.len() as u64,
                ..Descriptor::default()
            };
            let media_type = MANIFESTS[0].to_string();
            let m = Manifest { schema_version: 2, media_type, config: Some(config), layers, manifests: vec![] };
            let digest = self.put_blob(&serde_json::to_vec(&m).map_err(|e| Error::internal(e.to_string()))?)?;
            let mut names: Vec<ImageName> =
                entry.repo_tags.iter().flatten().map(|t| t.parse()).collect::<Result<_>>()?;
            names.extend(name.cloned());
            ids.push(self.commit(&digest, &m, &document, &names, true, &digest)?);
        }
        if ids.is_empty() { Err(Error::invalid("the archive holds no image")) } else { Ok(ids) }
    }

    /// Writes images as an OCI layout.
    pub fn export(&self, images: &[&str], to: impl Write) -> Result<()> {
        let busy = self.busy()?;
        let mut tar = tar::Builder::new(to);
        let mut index = Manifest { schema_version: 2, media_type: manifest::INDEXES[0].into(), ..Manifest::default() };
        let mut written = std::collections::HashSet::new();
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for name in images {
            let record = self.find(name).ok_or_else(|| Error::not_found(format!("no such image: {name}")))?;
            let Some(manifest) = record.blobs.first() else {
                return Err(Error::unsupported(format!("{name} is part of the program and cannot be exported")));
            };
            for blob in &record.blobs {
                if written.insert(blob.clone()) {
                    let mut file = File::open(self.blob_path(blob)?).context(format!("reading blob {blob}"))?;
                    let path = format!("blobs/{}", blob.replacen(':', "/", 1));
                    tar.append_file(path, &mut file).context("writing the archive")?;
                }
            }
            let size = self.blob_path(manifest)?.metadata().context("reading a manifest")?.len();
            let media_type = Manifest::parse(&self.read_blob(manifest)?)?.media_type;
            let media_type = if media_type.is_empty() { MANIFESTS[0].into() } else { media_type };
            let entry = Descriptor { media_type, digest: manifest.clone(), size, ..Descriptor::default() };
            let named = |tag: &String| {
                let short = tag.rsplit_once(':').map_or("latest", |(_, t)| t);
                let pairs = [("io.containerd.image.name", tag.as_str()), ("org.opencontainers.image.ref.name", short)];
                let annotations = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                Descriptor { annotations: Some(annotations), ..entry.clone() }
            };
            index.manifests.extend(record.tags.iter().map(named));
            if record.tags.is_empty() {
                index.manifests.push(entry.clone());
            }
        }
        append(&mut tar, "index.json", &serde_json::to_vec(&index).map_err(|e| Error::internal(e.to_string()))?)?;
        tar.finish().context("writing the archive")?;
        drop(busy);
        Ok(())
    }
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, data: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, data).context("writing the archive")
}
