//! Images made of a file of this machine: the program itself, so that a sample needs no registry.

use super::name::ImageName;
use super::store::{ImageStore, Record, chain_id, digest_of};
use super::unpack::Hashing;
use crate::sys::Context as _;
use crate::{ImageConfig, Result};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// An image with one file.
#[derive(Clone, Debug, Default)]
pub struct BuiltinImage {
    /// Its name.
    pub name: String,
    /// The file's path in the image (`/pintle`).
    pub path: String,
    /// How to run it.
    pub config: ImageConfig,
}

impl ImageStore {
    /// Lists an image made of `file`. The file is shared with the image by a hard link where the disk allows it, and
    /// copied otherwise. Nothing is read when the same file is registered again. Answers the image's id.
    pub fn register_builtin(&self, image: &BuiltinImage, file: &Path) -> Result<String> {
        let busy = self.busy()?;
        let name: ImageName = image.name.parse()?;
        let tag = ImageName { digest: None, ..name.clone() }.to_string();
        let meta = fs::metadata(file).context(format!("looking at {}", file.display()))?;
        let origin = format!("{} {} {} {} {}", meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        if let Some(old) = self.find(&tag)
            && old.origin == origin
            && old.config == image.config
        {
            return Ok(old.id);
        }
        let content = Hashing::new(File::open(file).context("opening the program")?).finish();
        let diff_id = digest_of(format!("{} {}", image.path, content.context("reading the program")?).as_bytes());
        let chain = chain_id(None, &diff_id);
        if !self.has_layer(&chain) {
            let tmp = self.tmp();
            let target = tmp.join("fs").join(image.path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap_or(&tmp)).context("making a layer")?;
            // A link shares the mode, so it will do only if everyone may run the program.
            let runnable = meta.permissions().mode() & 0o555 == 0o555;
            if !runnable || fs::hard_link(file, &target).is_err() {
                fs::copy(file, &target).context("copying the program")?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).context("copying the program")?;
            }
            fs::write(tmp.join("size"), meta.len().to_string()).context("making a layer")?;
            fs::rename(&tmp, self.layer_dir(&chain)).context("keeping a layer")?;
        }
        let text = serde_json::to_vec(&(&image.config, &diff_id)).unwrap_or_default();
        let record = Record {
            id: digest_of(&text),
            layers: vec![chain.trim_start_matches("sha256:").to_string()],
            size: meta.len(),
            pinned: true,
            config: image.config.clone(),
            boot: self.boot().into(),
            origin,
            ..Record::default()
        };
        // What an older program left under the name is of no use.
        if let Some(old) = self.find(&tag)
            && old.id != record.id
            && !old.origin.is_empty()
        {
            self.remove(&old.id)?;
        }
        let digest = format!("{}@{}", name.familiar(), record.id);
        let id = self.list(record, vec![tag], vec![digest])?;
        drop(busy);
        Ok(id)
    }
}
