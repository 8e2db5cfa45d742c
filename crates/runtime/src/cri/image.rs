//! Images, as a runtime shows them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Credentials for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name for basic authentication.
    pub username: String,
    /// Password for basic authentication.
    pub password: String,
    /// A refresh token to trade for an access token, instead of user name and password.
    pub identity_token: String,
    /// A bearer token to send as it is.
    pub registry_token: String,
}

/// An image in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its identity: the digest of its configuration, `sha256:…`.
    pub id: String,
    /// The names that lead to it, complete (`docker.io/library/busybox:1.36`).
    pub repo_tags: Vec<String>,
    /// The names with manifest digests that lead to it (`docker.io/library/busybox@sha256:…`).
    pub repo_digests: Vec<String>,
    /// Its size in bytes as the registry stores it.
    pub size: u64,
    /// The numeric user of its configuration, if that is what it names.
    pub uid: Option<i64>,
    /// The user name of its configuration, if it names one by name.
    pub username: String,
    /// Never removed by garbage collection: imported and built-in images.
    pub pinned: bool,
    /// Its configuration.
    pub config: ImageConfig,
}

/// The parts of an image's configuration that say how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Environment, `NAME=value` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Always-run part of the command line.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Where the process starts.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
    /// Paths that get a volume each.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, Empty>,
}

/// Registries hold configurations in which an empty list or map is written `null`.
fn null_as_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// How much of the disk images take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was measured, nanoseconds since 1970.
    pub timestamp: i64,
    /// A directory on the file system in question.
    pub mountpoint: String,
    /// Bytes used.
    pub used_bytes: u64,
    /// Inodes used.
    pub inodes_used: u64,
}

/// The file systems behind images and behind containers' writable layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    /// Where images are.
    pub images: Vec<FilesystemUsage>,
    /// Where writable layers are.
    pub containers: Vec<FilesystemUsage>,
}

/// The value `{}` of a set written as a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
