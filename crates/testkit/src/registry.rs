//! An image registry: Debian's `docker-registry` on loopback, with files written as a push leaves them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sha2::Digest as _;

use crate::command::run;
use crate::machine::Machine;
use crate::wait::until;

/// An htpasswd line: `user` with the password `secret`.
pub const USER: &str = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
/// The port of a registry on a [`Machine`] of its own.
const PORT: u16 = 5000;

/// A blob's name: its digest.
#[must_use]
pub fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(data)))
}

/// A registry process with its files; ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    /// Address and port, as image names begin.
    pub address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts one on this machine's loopback; `users` are lines of an htpasswd file, none lets everybody in.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(users: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = free.map_or(PORT, |a| a.port());
        Self::run(users, port, |program| Command::new(program))
    }

    /// Starts one on the loopback of another machine.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_on(machine: &Machine, users: &str) -> Self {
        Self::run(users, PORT, |program| machine.command(program))
    }

    #[expect(clippy::panic, reason = "a test's verdict")]
    fn run(users: &str, port: u16, command: impl Fn(&str) -> Command) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("a temporary directory: {e}"));
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.path().join("data").display()
        );
        if !users.is_empty() {
            let file = dir.path().join("users");
            write(&file, users.as_bytes());
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        let file = dir.path().join("config.yml");
        write(&file, config.as_bytes());
        let mut server = command("docker-registry");
        server.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            server.spawn().unwrap_or_else(|e| panic!("docker-registry: {e} (scripts/setup installs what tests use)"));
        let registry = Self { child, dir, address };
        until("the registry", Duration::from_secs(20), || {
            let mut ask = command("curl");
            ask.args(["-s", "-o", "/dev/null", &format!("http://{}/v2/", registry.address)]);
            if run(ask, "").code == 0 { Ok(()) } else { Err("it does not answer".into()) }
        });
        registry
    }

    /// Where blobs are, by digest.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.base().join("blobs/sha256")
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("data/docker/registry/v2")
    }

    /// Puts blobs into a repository, as a push leaves them. The last `manifests` of them are manifests; the very last
    /// gets the tag. Answers the last one's digest.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn put(&self, repository: &str, tag: &str, blobs: &[Vec<u8>], manifests: usize) -> String {
        let repo = self.base().join("repositories").join(repository);
        let mut last = String::new();
        for (i, blob) in blobs.iter().enumerate() {
            last = digest(blob);
            let hex = last.trim_start_matches("sha256:");
            write(&self.blobs().join(&hex[..2]).join(hex).join("data"), blob);
            let kind = if i + manifests >= blobs.len() { "_manifests/revisions" } else { "_layers" };
            write(&repo.join(kind).join("sha256").join(hex).join("link"), last.as_bytes());
        }
        let tags = repo.join("_manifests/tags").join(tag);
        write(&tags.join("current/link"), last.as_bytes());
        write(&tags.join("index/sha256").join(last.trim_start_matches("sha256:")).join("link"), last.as_bytes());
        last
    }

    /// Puts the image of an archive of [`crate::images`] into a repository. Answers its digest.
    ///
    /// # Panics
    /// When the archive is none.
    pub fn put_archive(&self, repository: &str, tag: &str, archive: &Path) -> String {
        let file = |name: &str| {
            let mut tar = Command::new("tar");
            let out = tar.arg("-xOf").arg(archive).arg(name).output();
            out.map(|o| o.stdout).unwrap_or_default()
        };
        let list: serde_json::Value = serde_json::from_slice(&file("manifest.json")).unwrap_or_default();
        let name = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        let (config, layer) = (file(&name(&list[0]["Config"])), file(&name(&list[0]["Layers"][0])));
        assert!(!config.is_empty() && !layer.is_empty(), "{} is no image", archive.display());
        let describe = |kind: &str, blob: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(blob), "size": blob.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": [describe("layer.v1.tar", &layer)],
        });
        self.put(repository, tag, &[layer, config, manifest.to_string().into_bytes()], 1)
    }
}

fn write(path: &Path, data: &[u8]) {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, data));
    assert!(made.is_ok(), "{}: {made:?}", path.display());
}
