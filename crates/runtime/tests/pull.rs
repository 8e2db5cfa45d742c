//! Pulls from real registries on loopback (Debian's `docker-registry`), and from one that misbehaves. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pintle_runtime::embedded::{Embedded, Options};
use pintle_runtime::image::{RegistryHost, RegistryHosts};
use pintle_runtime::*;
use pintle_testkit::Registry;
use pintle_testkit::registry::{USER, digest};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let mut h = tar::Header::new_gnu();
    h.set_size(size as u64);
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    // Not to be compressed to nothing.
    let mut x = 88_172_645_463_325_252u64;
    let mut random = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    let data: Vec<u8> = (0..size).map(|_| random()).collect();
    tar.append_data(&mut h, name, &data[..]).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// The blobs of an image, its manifest last.
fn image(layers: &[(Vec<u8>, Vec<u8>)], architecture: &str) -> Vec<Vec<u8>> {
    let diffs: Vec<String> = layers.iter().map(|(plain, _)| format!("\"{}\"", digest(plain))).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diffs.join(",")
    );
    let list: Vec<String> = layers
        .iter()
        .map(|(_, packed)| {
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, digest(packed), packed.len())
        })
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        list.join(",")
    );
    let mut out: Vec<Vec<u8>> = layers.iter().map(|(_, packed)| packed.clone()).collect();
    out.push(config.into_bytes());
    out.push(manifest.into_bytes());
    out
}

async fn runtime(dir: &Path, registries: RegistryHosts) -> Embedded {
    let options = Options { registries, ..Options::new(dir) };
    Embedded::open(options, Arc::new(LoopbackOnly)).await.unwrap()
}

async fn file_of(rt: &Embedded, name: &str, file: &str) -> bool {
    let record = rt.images().find(name).unwrap();
    let layers = rt.images().hold("test", &record).unwrap();
    let found = layers.dirs.iter().any(|d| d.join(file).is_file());
    rt.images().release("test");
    found
}

#[tokio::test]
async fn tags_digests_and_indexes() {
    let server = Registry::start("");
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime(dir.path(), RegistryHosts::default()).await;
    let (a, b) = (layer("a", 3_000_000), layer("b", 1000));
    let zstd = zstd::encode_all(&b[..], 1).unwrap();
    let packed = gzip(&a);
    let native =
        image(&[(a.clone(), packed), (b.clone(), zstd)], if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let first = server.put("team/app", "v1", &native, 1);

    let name = format!("{}/team/app", server.address);
    let reference = rt.pull_image(&format!("{name}:v1"), None).await.unwrap();
    assert_eq!(reference, format!("{name}@{first}"));
    assert!(file_of(&rt, &format!("{name}:v1"), "a").await && file_of(&rt, &reference, "b").await);
    let shown = rt.image_status(&format!("{name}:v1")).await.unwrap().unwrap();
    assert_eq!((shown.repo_tags, shown.repo_digests), (vec![format!("{name}:v1")], vec![reference.clone()]));
    assert!(!shown.pinned && shown.size > 3_000_000);
    // Again, and by digest: nothing is fetched a second time.
    assert_eq!(rt.pull_image(&reference, None).await.unwrap(), reference);
    assert_eq!(rt.list_images().await.unwrap().len(), 1);

    // An index: the machine's own image is taken, the index's digest is its name.
    let other = image(&[(b.clone(), gzip(&b))], "s390x");
    let entry = |i: &[Vec<u8>], architecture: &str| {
        let m = i.last().unwrap();
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#,
            digest(m),
            m.len()
        )
    };
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = |entries: &[String]| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            entries.join(",")
        )
        .into_bytes()
    };
    server.put("team/app", "v1", &native, 1);
    server.put("team/app", "other", &other, 1);
    let both = server.put("team/app", "multi", &[index(&[entry(&other, "s390x"), entry(&native, own)])], 1);
    assert_eq!(rt.pull_image(&format!("{name}:multi"), None).await.unwrap(), format!("{name}@{both}"));
    assert_eq!(rt.image_status(&format!("{name}:multi")).await.unwrap().unwrap().id, shown.id);
    server.put("team/app", "foreign", &[index(&[entry(&other, "s390x")])], 1);
    let e = rt.pull_image(&format!("{name}:foreign"), None).await.unwrap_err();
    assert!(e.is_not_found() && e.message.contains("no match for platform in manifest"), "{e}");

    // A tag that moves takes its name along.
    let newer = image(&[(b.clone(), gzip(&b))], own);
    server.put("team/app", "v1", &newer, 1);
    rt.pull_image(&format!("{name}:v1"), None).await.unwrap();
    assert_ne!(rt.image_status(&format!("{name}:v1")).await.unwrap().unwrap().id, shown.id);
    assert_eq!(rt.list_images().await.unwrap().len(), 2);
    for i in rt.list_images().await.unwrap() {
        rt.remove_image(&i.id).await.unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join("images/layers")).unwrap().count(), 0);
}

#[tokio::test]
async fn errors() {
    let server = Registry::start("");
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime(dir.path(), RegistryHosts::default()).await;
    let a = layer("a", 1000);
    let mut blobs = image(&[(a.clone(), gzip(&a))], "amd64");
    server.put("app", "v1", &blobs, 1);
    let check = async |name: &str, code: Code, words: &str| {
        let e = rt.pull_image(&format!("{}/{name}", server.address), None).await.unwrap_err();
        assert_eq!(e.code, code, "{e}");
        assert!(e.message.contains(words), "{e}");
    };
    let full = format!("{}/app:nope", server.address);
    let words =
        format!("failed to pull and unpack image {full:?}: failed to resolve reference {full:?}: {full}: not found");
    check("app:nope", Code::NotFound, &words).await;
    check("nope", Code::NotFound, "not found").await;
    check("UPPER", Code::InvalidArgument, "must be lowercase").await;
    check(&format!("app@sha256:{}", "0".repeat(64)), Code::NotFound, "not found").await;
    // A blob that is not what its name says.
    blobs[0][40] ^= 1;
    let data = server.blobs();
    let d = digest(&gzip(&a));
    fs::write(data.join(&d[7..9]).join(&d[7..]).join("data"), &blobs[0]).unwrap();
    check("app:v1", Code::Unknown, "").await;
    assert!(rt.list_images().await.unwrap().is_empty());
    let e = rt.pull_image("127.0.0.1:1/x", None).await.unwrap_err();
    assert!(e.code == Code::Unavailable && e.message.contains("Connection refused"), "{e}");
}

#[tokio::test]
async fn passwords_and_mirrors() {
    let server = Registry::start(USER);
    let dir = tempfile::tempdir().unwrap();
    let login = RegistryAuth { username: "user".into(), password: "secret".into(), ..Default::default() };
    let mirror =
        RegistryHost { url: format!("http://{}", server.address), auth: Some(login.clone()), ..Default::default() };
    let dead = RegistryHost { url: "http://127.0.0.1:1".into(), ..Default::default() };
    let hosts = RegistryHosts([("docker.io".to_string(), vec![dead, mirror])].into());
    let rt = runtime(dir.path(), hosts).await;
    let a = layer("a", 1000);
    server.put("library/app", "latest", &image(&[(a.clone(), gzip(&a))], "amd64"), 1);
    let name = format!("{}/library/app", server.address);
    let e = rt.pull_image(&name, None).await.unwrap_err();
    assert!(e.code == Code::Unauthenticated && e.message.contains("no basic auth credentials"), "{e}");
    let wrong = RegistryAuth { password: "wrong".into(), ..login.clone() };
    let e = rt.pull_image(&name, Some(&wrong)).await.unwrap_err();
    assert!(e.code == Code::Unauthenticated && e.message.contains("pull access denied"), "{e}");
    rt.pull_image(&name, Some(&login)).await.unwrap();
    // Docker Hub's image from a mirror, after one that is dead; the name stays Docker Hub's.
    rt.pull_image("app", None).await.unwrap();
    assert!(rt.image_status("docker.io/library/app:latest").await.unwrap().is_some());
}

/// A registry that hands out tokens, redirects, and breaks off in the middle.
#[tokio::test]
async fn tokens_redirections_and_broken_downloads() {
    let a = layer("a", 400_000);
    let blobs: Arc<Vec<Vec<u8>>> = Arc::new(image(&[(a.clone(), gzip(&a))], "amd64"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broken = Arc::new(AtomicUsize::new(0));
    let server = {
        let (blobs, address, broken) = (blobs.clone(), address.clone(), broken.clone());
        tokio::spawn(async move {
            loop {
                let (mut s, _) = listener.accept().await.unwrap();
                let (blobs, address, broken) = (blobs.clone(), address.clone(), broken.clone());
                tokio::spawn(async move {
                    let mut text = String::new();
                    let mut chunk = [0; 4096];
                    while !text.contains("\r\n\r\n") {
                        let n = s.read(&mut chunk).await.unwrap();
                        if n == 0 {
                            return;
                        }
                        text.push_str(&String::from_utf8_lossy(&chunk[..n]));
                    }
                    let lower = text.to_lowercase();
                    let path = text.split(' ').nth(1).unwrap().to_string();
                    let (mut status, mut extra, mut body) = ("200 OK".to_string(), String::new(), vec![]);
                    if path.starts_with("/token") {
                        let asked = path.contains("scope=repository%3Aapp%3Apull") && path.contains("service=here");
                        let login = lower.contains("authorization: basic dxnlcjpzzwnyzxq=");
                        if asked && login {
                            body = br#"{"token":"T0ken"}"#.to_vec();
                        } else {
                            status = "401 Unauthorized".into();
                        }
                    } else if path.starts_with("/elsewhere/") {
                        // Another place: it must not see the token, and it breaks off.
                        assert!(!lower.contains("authorization: bearer"), "{text}");
                        let from = lower
                            .split("range: bytes=")
                            .nth(1)
                            .and_then(|r| r.split('-').next()?.parse::<usize>().ok());
                        let all = &blobs[0];
                        let from = from.unwrap_or(0);
                        if from > 0 {
                            status = "206 Partial Content".into();
                        }
                        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", all.len() - from);
                        s.write_all(head.as_bytes()).await.unwrap();
                        let stop = if broken.fetch_add(1, Ordering::SeqCst) < 2 {
                            (from + 100_000).min(all.len())
                        } else {
                            all.len()
                        };
                        let _ = s.write_all(&all[from..stop]).await;
                        return;
                    } else if !lower.contains("authorization: bearer t0ken") {
                        status = "401 Unauthorized".into();
                        extra = format!(
                            "WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"here\",scope=\"repository:app:pull\"\r\n"
                        );
                    } else if path.contains("/blobs/") && path.ends_with(&digest(&blobs[0])) {
                        status = "307 Temporary Redirect".into();
                        let other = address.replace("127.0.0.1", "localhost");
                        extra = format!("Location: http://{other}/elsewhere/x\r\n");
                    } else if let Some(found) = blobs.iter().find(|b| path.ends_with(&digest(b))) {
                        body.clone_from(found);
                    } else {
                        body.clone_from(blobs.last().unwrap());
                    }
                    let head = format!(
                        "HTTP/1.1 {status}\r\n{extra}Connection: close\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    s.write_all(head.as_bytes()).await.unwrap();
                    s.write_all(&body).await.unwrap();
                });
            }
        })
    };
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime(dir.path(), RegistryHosts::default()).await;
    let name = format!("{address}/app:v1");
    let e = rt.pull_image(&name, None).await.unwrap_err();
    assert!(e.message.contains("failed to fetch anonymous token"), "{e}");
    let login = RegistryAuth { username: "user".into(), password: "secret".into(), ..Default::default() };
    rt.pull_image(&name, Some(&login)).await.unwrap();
    assert!(file_of(&rt, &name, "a").await);
    assert_eq!(broken.load(Ordering::SeqCst), 3, "two resumed");
    server.abort();
}
