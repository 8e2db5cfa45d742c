//! The documents that describe an image, in the forms of OCI and Docker, which agree in all we read.

use crate::{Error, ImageConfig, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media types of manifests that name one image.
pub const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// Media types of lists of manifests, one a platform.
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// OCI's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's plain layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Points to a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size.
    #[serde(default)]
    pub size: u64,
    /// For which platform it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index: what is absent tells which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    #[serde(default)]
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// The image's layers, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
}

/// An image's configuration document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// For which architecture it is.
    #[serde(default)]
    pub architecture: String,
    /// For which system it is.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// What its layers unpack to.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// The uncompressed layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the layers' plain archives, the lowest first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// This machine's architecture, as images call it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

impl Manifest {
    /// Reads a manifest or an index.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| Error::invalid(format!("the manifest is malformed: {e}")))
    }

    /// Whether it is an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        self.config.is_none()
    }

    /// The manifest of an index that is for this machine.
    pub fn for_this_machine(&self) -> Result<&Descriptor> {
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture())
                && (d.media_type.is_empty()
                    || MANIFESTS.contains(&d.media_type.as_str())
                    || INDEXES.contains(&d.media_type.as_str()))
        };
        // Entries with a platform first: one without may be anything.
        let exact = self.manifests.iter().filter(|d| d.platform.is_some()).find(fits);
        exact.or_else(|| self.manifests.iter().find(fits)).ok_or_else(|| {
            Error::not_found(format!("no match for platform in manifest: linux/{} not found", architecture()))
        })
    }
}

impl ConfigDocument {
    /// Reads a configuration.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let out: Self = serde_json::from_slice(json)
            .map_err(|e| Error::invalid(format!("the image's configuration is malformed: {e}")))?;
        if out.rootfs.diff_ids.iter().any(|d| !super::name::is_digest(d)) {
            return Err(Error::invalid("the image's configuration names a layer by something that is not a digest"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_platform() {
        let json = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"sha256:1","platform":{{"architecture":"s390x","os":"linux"}}}},
                {{"digest":"sha256:2","platform":{{"architecture":"unknown","os":"unknown"}}}},
                {{"digest":"sha256:3","platform":{{"architecture":"{}","os":"linux"}}}}]}}"#,
            architecture()
        );
        let index = Manifest::parse(json.as_bytes()).unwrap();
        assert!(index.is_index());
        assert_eq!(index.for_this_machine().unwrap().digest, "sha256:3");
        let other = br#"{"manifests":[{"digest":"sha256:1","platform":{"architecture":"z","os":"linux"}}]}"#;
        assert!(Manifest::parse(other).unwrap().for_this_machine().unwrap_err().is_not_found());
    }

    #[test]
    fn null_lists() {
        let json =
            br#"{"config":{"Env":null,"Entrypoint":null,"Cmd":["sh"],"Volumes":null},"rootfs":{"type":"layers"}}"#;
        let doc = ConfigDocument::parse(json).unwrap();
        assert_eq!(doc.config.unwrap().cmd, ["sh"]);
    }
}
