use super::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// One entry of a test's archive.
enum E<'a> {
    Dir(&'a str, u32),
    File(&'a str, &'a str, u32),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Xattr(&'a str, &'a str, &'a str),
    Device(&'a str, u32, u32),
}

fn tar_of(entries: &[E<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for e in entries {
        let mut h = tar::Header::new_gnu();
        h.set_mtime(1_000_000);
        h.set_uid(7);
        h.set_gid(8);
        let mut put = |h: &mut tar::Header, name: &str, kind, mode, data: &[u8]| {
            h.set_entry_type(kind);
            h.set_mode(mode);
            h.set_size(data.len() as u64);
            // Past the builder's own checks: bad names are what is tested.
            let bytes = h.as_old_mut();
            bytes.name[..name.len()].copy_from_slice(name.as_bytes());
            h.set_cksum();
            tar.append(h, data).unwrap();
        };
        match e {
            E::Dir(name, mode) => put(&mut h, name, tar::EntryType::Directory, *mode, b""),
            E::File(name, data, mode) => put(&mut h, name, tar::EntryType::Regular, *mode, data.as_bytes()),
            E::Link(name, to) => {
                h.set_link_name_literal(to).unwrap();
                put(&mut h, name, tar::EntryType::Symlink, 0o777, b"");
            }
            E::Hard(name, to) => {
                h.set_link_name_literal(to).unwrap();
                put(&mut h, name, tar::EntryType::Link, 0o644, b"");
            }
            E::Device(name, major, minor) => {
                h.set_device_major(*major).unwrap();
                h.set_device_minor(*minor).unwrap();
                put(&mut h, name, tar::EntryType::Char, 0o600, b"");
            }
            E::Xattr(name, key, value) => {
                let record = format!("SCHILY.xattr.{key}={value}\n");
                let mut len = record.len() + 3;
                while format!("{len} {record}").len() != len {
                    len += 1;
                }
                let line = format!("{len} {record}");
                put(&mut h, "pax", tar::EntryType::XHeader, 0o644, line.as_bytes());
                let mut h = tar::Header::new_gnu();
                h.set_uid(0);
                h.set_gid(0);
                h.set_mtime(1);
                put(&mut h, name, tar::EntryType::Regular, 0o644, b"x");
            }
        }
    }
    tar.into_inner().unwrap()
}

fn unpack_to(entries: &[E<'_>], target: &Path, below: &[std::path::PathBuf]) -> crate::Result<(String, u64)> {
    fs::create_dir_all(target).unwrap();
    unpack::unpack(&tar_of(entries)[..], target, below)
}

#[test]
fn unpacks() {
    let dir = tempfile::tempdir().unwrap();
    let (low, high) = (dir.path().join("low"), dir.path().join("high"));
    let lower = [
        E::Dir("tmp", 0o1777),
        E::Dir("usr/lib", 0o755),
        E::Link("lib", "usr/lib"),
        E::File("etc/a", "a", 0o640),
        E::File("etc/old", "old", 0o644),
        E::File("bin/su", "su", 0o4755),
        E::Hard("bin/su2", "bin/su"),
        E::Xattr("x", "user.k", "v"),
    ];
    unpack_to(&lower, &low, &[]).unwrap();
    assert_eq!(fs::metadata(low.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let su = fs::metadata(low.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink(), su.mtime()), (0o4755, 7, 8, 2, 1_000_000));

    let upper = [
        E::File("tmp/new", "n", 0o644),
        E::File("lib/x", "through the link", 0o644),
        E::File("etc/.wh.old", "", 0o644),
        E::Dir("opt", 0o755),
        E::File("opt/.wh..wh..opq", "", 0o644),
        E::File("etc/b", "1", 0o644),
        E::File("etc/b", "2", 0o644),
        E::Hard("linked", "etc/a"),
    ];
    unpack_to(&upper, &high, std::slice::from_ref(&low)).unwrap();
    let tmp = fs::metadata(high.join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1777, 7), "as the layer below has it");
    assert!(high.join("usr/lib/x").is_file());
    assert!(!high.join("lib").exists());
    let hidden = fs::symlink_metadata(high.join("etc/old")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    assert_eq!(fs::read_to_string(high.join("etc/b")).unwrap(), "2");
    assert_eq!(fs::read_to_string(high.join("linked")).unwrap(), "a");
    let mut value = [0; 8];
    let n = rustix::fs::getxattr(high.join("opt"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..n], b"y");
    let n = rustix::fs::getxattr(low.join("x"), "user.k", &mut value).unwrap();
    assert_eq!(&value[..n], b"v");
}

#[test]
fn refuses_to_leave() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    let out = outside.to_str().unwrap();
    let bad: &[&[E<'_>]] = &[
        &[E::File("../outside/x", "x", 0o644)],
        &[E::File("a/../../outside/x", "x", 0o644)],
        &[E::Hard("a", "../outside/secret")],
        &[E::Hard("a", &format!("{out}/secret")[..])],
        &[E::Device("null", 0, 0)],
        &[E::File(".wh..", "", 0o644)],
    ];
    for (i, entries) in bad.iter().enumerate() {
        let target = dir.path().join(format!("bad{i}"));
        assert!(unpack_to(entries, &target, &[]).is_err(), "{i}");
    }
    // Links may point anywhere; nothing is written through them.
    let target = dir.path().join("links");
    unpack_to(&[E::Link("l", out), E::File("l/x", "x", 0o644)], &target, &[]).ok();
    unpack_to(&[E::Link("f", &format!("{out}/secret")), E::File("f", "new", 0o644)], &target, &[]).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "s");
    let attribute = [E::Xattr("y", "trusted.overlay.redirect", "/etc")];
    unpack_to(&attribute, &target, &[]).unwrap();
    assert!(rustix::fs::getxattr(target.join("y"), "trusted.overlay.redirect", &mut [0; 8]).is_err());
}

fn docker_archive(layer: &[u8], tag: &str) -> Vec<u8> {
    let diff = store::digest_of(layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"],"Env":null,"User":"web"}},
            "rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["{tag}"],"Layers":["l/layer.tar"]}}]"#);
    let mut tar = tar::Builder::new(vec![]);
    for (name, data) in [("l/layer.tar", layer), ("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]
    {
        let mut h = tar::Header::new_gnu();
        h.set_size(data.len() as u64);
        h.set_mode(0o644);
        tar.append_data(&mut h, name, data).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn imports_exports_and_removes() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    let layer = tar_of(&[E::File("etc/a", "a", 0o644)]);
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&docker_archive(&layer, "app:1")).unwrap();
    let ids = store.import(&packed.finish().unwrap()[..], None).unwrap();
    let record = store.find("app:1").unwrap();
    assert_eq!(ids, std::slice::from_ref(&record.id));
    assert!(record.pinned && record.durable);
    assert_eq!(record.image().username, "web");
    assert_eq!(record.tags, ["docker.io/library/app:1"]);

    let mut archive = vec![];
    store.export(&["app:1"], &mut archive).unwrap();
    let other = ImageStore::open(dir.path().join("other")).unwrap();
    assert_eq!(other.import(&archive[..], None).unwrap(), ids);
    let again = other.find("docker.io/library/app:1").unwrap();
    assert_eq!(again.digests, record.digests);
    assert!(other.layer_dir(&again.layers[0]).join("fs/etc/a").is_file());

    // A container's hold outlives the image.
    let held = other.hold("c1", &again).unwrap();
    other.remove("app:1").unwrap();
    assert!(other.find("app:1").is_none());
    assert!(held.dirs[0].is_dir());
    other.release("c1");
    assert!(!held.dirs[0].exists());
    assert_eq!(fs::read_dir(dir.path().join("other/blobs/sha256")).unwrap().count(), 0);

    // Another process sees what this one does, and the other way round.
    let second = ImageStore::open(dir.path().join("images")).unwrap();
    assert_eq!(second.find("app:1").unwrap(), record);
    second.tag("app:1", "app:2").unwrap();
    let record = store.find("app:2").unwrap();
    // Nothing is removed while anyone is busy.
    let busy = second.busy().unwrap();
    store.put_blob(b"not in any list yet").unwrap();
    store.collect();
    assert_eq!(fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count(), 4);
    drop(busy);
    assert_eq!(fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count(), 3);

    // Everything is found again.
    drop(store);
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    assert_eq!(store.find(&record.id[..20]).unwrap(), record);
    assert!(store.prune(|_| false).unwrap().is_empty(), "pinned");
}

#[test]
fn bad_archives() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let layer = tar_of(&[E::File("a", "a", 0o644)]);
    let good = docker_archive(&layer, "app:1");
    let check = |data: &[u8], words: &str| {
        let e = store.import(data, None).unwrap_err();
        assert!(e.message.contains(words), "{}", e.message);
    };
    check(&tar_of(&[E::File("x", "", 0o644)]), "no archive of images");
    check(&docker_archive(&layer, "UPPER"), "must be lowercase");
    check(&good[..good.len() / 3], "archive");
    let text = String::from_utf8_lossy(&good).replace("\"l/layer.tar\"", "\"m/layer.tar\"");
    check(text.as_bytes(), "lacks");
    let at = good.windows(6).position(|w| w == b"sha256").unwrap();
    let mut forged = good;
    forged[at + 8] = if forged[at + 8] == b'0' { b'1' } else { b'0' };
    check(&forged, "instead of");
    assert!(store.all().is_empty());
    store.collect();
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn our_own_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    let image = BuiltinImage { name: "pintle.local/sample:v1".into(), path: "/pintle".into(), ..Default::default() };
    let id = store.register_builtin(&image, &program).unwrap();
    assert_eq!(store.register_builtin(&image, &program).unwrap(), id);
    let record = store.find("pintle.local/sample:v1").unwrap();
    let inside = store.layer_dir(&record.layers[0]).join("fs/pintle");
    assert_eq!(fs::metadata(&inside).unwrap().ino(), fs::metadata(&program).unwrap().ino(), "not copied");
    fs::remove_file(&program).unwrap();
    fs::write(&program, "another").unwrap();
    assert_ne!(store.register_builtin(&image, &program).unwrap(), id);
    assert_eq!(store.all().len(), 1);
}
