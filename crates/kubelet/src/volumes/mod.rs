//! A pod's volumes: directories of the host made ready for the containers, kept up to date, and taken down.

pub mod atomic;
pub mod mounts;
pub mod payload;
pub mod read;
pub mod tokens;

use crate::config::KubeletConfig;
use crate::pod::spec;
use crate::translate::env::Objects;
use atomic::Payload;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use pintle_api::quantity::Quantity as Amount;
use rustix::mount::{MountFlags, UnmountFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A volume that containers can mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A path of the host.
    Path {
        /// The path.
        path: PathBuf,
        /// Nobody may write to it.
        read_only: bool,
    },
    /// The file system of an image.
    Image(String),
}

/// A pod's volumes by name.
pub type ReadyVolumes = BTreeMap<String, Ready>;

/// What the node agent has in hand for a pod's volumes.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Files of volumes that are written as a whole, by volume name.
    pub payloads: BTreeMap<String, Result<Payload, String>>,
    /// Claims with the volumes they are bound to, by volume name.
    pub claims: BTreeMap<String, Result<(PersistentVolumeClaim, PersistentVolume), String>>,
    /// Images that are present, by volume name.
    pub images: BTreeMap<String, Result<String, String>>,
}

/// The names of the volumes that some container mounts; the others are left alone.
#[must_use]
pub fn used(pod: &Pod) -> BTreeSet<String> {
    spec::containers(pod)
        .flat_map(|(_, c)| {
            let mounts = c.volume_mounts.iter().flatten().map(|m| m.name.clone()).collect::<Vec<_>>();
            let devices = c.volume_devices.iter().flatten().map(|d| d.name.clone()).collect::<Vec<_>>();
            mounts.into_iter().chain(devices)
        })
        .collect()
}

/// The directory of a volume: `<pod>/volumes/kubernetes.io~<plugin>/<name>`.
#[must_use]
pub fn volume_dir(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

fn mkdir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // Creation is subject to the process's mask, this is not.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whether something is mounted at `path` itself.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    let (Ok(own), Some(parent)) = (fs::symlink_metadata(path), path.parent()) else { return false };
    fs::symlink_metadata(parent).is_ok_and(|p| p.dev() != own.dev())
}

fn mount_tmpfs(path: &Path, options: &str) -> io::Result<()> {
    mkdir(path, 0o755)?;
    if is_mount_point(path) {
        return Ok(());
    }
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(())
}

/// Gives the volume to the pod's group: everything in it belongs to the group, and new files will, too.
fn own_by_group(dir: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    std::os::unix::fs::lchown(dir, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mut mode = meta.permissions().mode() | if read_only { 0o440 } else { 0o660 };
    if meta.is_dir() {
        mode |= 0o2110;
        for entry in fs::read_dir(dir)? {
            own_by_group(&entry?.path(), group, read_only)?;
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o7777))
}

/// The group that owns the pod's volumes.
#[must_use]
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = spec::spec(pod).security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn group_skips(pod: &Pod, dir: &Path, group: u32) -> bool {
    let policy = spec::spec(pod).security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
    policy == Some("OnRootMismatch") && fs::metadata(dir).is_ok_and(|m| m.gid() == group && m.mode() & 0o2070 == 0o2070)
}

fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource, path: &Path, config: &KubeletConfig) -> io::Result<()> {
    let _ = config;
    match source.medium.as_deref().unwrap_or_default() {
        "Memory" => {
            let limit = |a: Option<Amount>| a.map(|a| a.value()).filter(|v| *v > 0);
            let own = limit(source.size_limit.as_ref().and_then(|q| Amount::parse(&q.0).ok()));
            let pod_limit = limit(memory_limit(pod));
            let size = [own, pod_limit].into_iter().flatten().min();
            mount_tmpfs(path, &size.map(|s| format!("size={s}")).unwrap_or_default())?;
        }
        huge if huge.starts_with("HugePages") => {
            let size = huge.strip_prefix("HugePages-").and_then(|s| Amount::parse(s).ok()).map(|a| a.value());
            mkdir(path, 0o755)?;
            if !is_mount_point(path) {
                let options = size.map(|s| format!("pagesize={}M", s >> 20)).unwrap_or_default();
                let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
                rustix::mount::mount(
                    "nodev",
                    path,
                    "hugetlbfs",
                    MountFlags::empty(),
                    (!options.is_empty()).then_some(options.as_c_str()),
                )?;
            }
        }
        _ => {
            if path.exists() {
                return Ok(());
            }
        }
    }
    mkdir(path, 0o777)?;
    if let Some(group) = fs_group(pod) {
        own_by_group(path, group, false)?;
    }
    Ok(())
}

/// The pod's memory limit, if every container has one.
fn memory_limit(pod: &Pod) -> Option<Amount> {
    let all = spec::spec(pod).containers.iter().all(|c| spec::limit(c, "memory").is_some());
    if all { spec::pod_total(pod, "memory", true) } else { None }
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let make_dir = || mkdir(path, 0o755).map_err(|e| e.to_string());
    let meta = fs::metadata(path);
    let expect = |what: &str, test: &dyn Fn(&fs::Metadata) -> bool| match &meta {
        Ok(m) if test(m) => Ok(()),
        _ => Err(format!("hostPath type check failed: {} is not a {what}", source.path)),
    };
    match kind {
        "DirectoryOrCreate" if meta.is_err() => make_dir(),
        "Directory" | "DirectoryOrCreate" => expect("directory", &fs::Metadata::is_dir),
        "FileOrCreate" if meta.is_err() => {
            fs::File::create(path).map_err(|e| format!("open {}: {e}", source.path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(|e| e.to_string())
        }
        "File" | "FileOrCreate" => expect("file", &fs::Metadata::is_file),
        "Socket" => expect("socket file", &|m| m.file_type().is_socket()),
        "CharDevice" => expect("character device", &|m| m.file_type().is_char_device()),
        "BlockDevice" => expect("block device", &|m| m.file_type().is_block_device()),
        "" => Ok(()),
        other => Err(format!("hostPath type check failed: {other} is an invalid volume type")),
    }
}

/// The plugin whose directory a volume's files are in, for volumes that are written as a whole.
fn written_plugin(v: &Volume) -> Option<&'static str> {
    match v {
        _ if v.config_map.is_some() => Some("configmap"),
        _ if v.secret.is_some() => Some("secret"),
        _ if v.downward_api.is_some() => Some("downward-api"),
        _ if v.projected.is_some() => Some("projected"),
        _ => None,
    }
}

/// Makes one volume ready. `stamp` must be new each time.
///
/// # Errors
/// Why it is not, in upstream's words.
fn set_up(pod: &Pod, v: &Volume, inputs: &Inputs, config: &KubeletConfig, stamp: &str) -> Result<Ready, String> {
    let pod_dir = config.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let text = |e: io::Error| e.to_string();
    if let Some(plugin) = written_plugin(v) {
        let payload = match inputs.payloads.get(&v.name) {
            Some(Ok(p)) => p,
            Some(Err(e)) => return Err(e.clone()),
            None => return Err("the volume's contents are not known".into()),
        };
        let path = volume_dir(&pod_dir, plugin, &v.name);
        if matches!(plugin, "secret" | "projected") {
            // Never on a disk.
            mount_tmpfs(&path, "").map_err(text)?;
        } else {
            mkdir(&path, 0o755).map_err(text)?;
        }
        mkdir(&path, 0o777).map_err(text)?;
        let group = fs_group(pod);
        atomic::write(&path, payload, stamp, |fresh| group.map_or(Ok(()), |g| own_by_group(fresh, g, true)))
            .map_err(text)?;
        if let Some(g) = group {
            std::os::unix::fs::chown(&path, None, Some(g)).map_err(text)?;
        }
        return Ok(Ready::Path { path, read_only: true });
    }
    if let Some(source) = &v.empty_dir {
        let path = volume_dir(&pod_dir, "empty-dir", &v.name);
        empty_dir(pod, source, &path, config).map_err(text)?;
        return Ok(Ready::Path { path, read_only: false });
    }
    if let Some(source) = &v.host_path {
        host_path(source)?;
        return Ok(Ready::Path { path: source.path.clone().into(), read_only: false });
    }
    if v.image.is_some() {
        return match inputs.images.get(&v.name) {
            Some(Ok(image)) => Ok(Ready::Image(image.clone())),
            Some(Err(e)) => Err(e.clone()),
            None => Err("the volume's image is not present".into()),
        };
    }
    if v.persistent_volume_claim.is_some() || v.ephemeral.is_some() {
        let (claim, volume) = match inputs.claims.get(&v.name) {
            Some(Ok(found)) => found,
            Some(Err(e)) => return Err(e.clone()),
            None => return Err("the volume's claim is not known".into()),
        };
        return claimed(pod, v, claim, volume);
    }
    Err(no_plugin(&v.name))
}

fn no_plugin(name: &str) -> String {
    format!("failed to get Plugin from volumeSpec for volume {name:?} err=no volume plugin matched")
}

fn claimed(pod: &Pod, v: &Volume, _claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Ready, String> {
    let read_only = v.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or_default();
    let Some(source) = &volume.spec else { return Err(no_plugin(&v.name)) };
    if let Some(h) = &source.host_path {
        host_path(h)?;
        return Ok(Ready::Path { path: h.path.clone().into(), read_only });
    }
    if let Some(l) = &source.local {
        let path = PathBuf::from(&l.path);
        if !path.exists() {
            return Err(format!("path {:?} does not exist", l.path));
        }
        if let Some(group) = fs_group(pod).filter(|g| !group_skips(pod, &path, *g)) {
            own_by_group(&path, group, read_only).map_err(|e| e.to_string())?;
        }
        return Ok(Ready::Path { path, read_only });
    }
    Err(no_plugin(&v.name))
}

/// Makes all volumes ready that some container mounts. What failed is told by volume name; the rest is ready anyway.
pub fn set_up_all(
    pod: &Pod,
    inputs: &Inputs,
    config: &KubeletConfig,
    stamp: &str,
) -> (ReadyVolumes, BTreeMap<String, String>) {
    let used = used(pod);
    let (mut ready, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for v in spec::spec(pod).volumes.iter().flatten().filter(|v| used.contains(&v.name)) {
        match set_up(pod, v, inputs, config, stamp) {
            Ok(r) => ready.insert(v.name.clone(), r).map(drop),
            Err(e) => failed.insert(v.name.clone(), e).map(drop),
        };
    }
    (ready, failed)
}

/// Unmounts and removes all that was made for a pod's volumes. Contents of the host's own paths are not touched.
///
/// # Errors
/// What could not be unmounted or removed.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    for dir in ["volume-subpaths", "volumes"] {
        let dir = pod_dir.join(dir);
        unmount_below(&dir, 4)?;
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Unmounts what is mounted up to `depth` levels below; nothing is looked at behind a mount.
fn unmount_below(dir: &Path, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        // A bind mount of a file or directory of the same file system shows no other device: ask the kernel.
        match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => continue,
            // Not a mount point, or nothing this process could have mounted.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        if kind.is_dir() && depth > 1 {
            unmount_below(&path, depth - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn config(dir: &Path) -> KubeletConfig {
        KubeletConfig { root_dir: dir.into(), ..Default::default() }
    }

    #[test]
    fn host_paths() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str, want: Result<(), &str>| {
            let path = dir.path().join(name).display().to_string();
            let source = HostPathVolumeSource { path: path.clone(), type_: Some(kind.into()) };
            assert_eq!(
                host_path(&source).map_err(|e| e.replace(&path, "P")).as_ref().map_err(String::as_str),
                want.as_ref().map_err(|e| *e),
                "{kind}"
            );
        };
        check("none", "", Ok(()));
        check("none", "Directory", Err("hostPath type check failed: P is not a directory"));
        check("d", "DirectoryOrCreate", Ok(()));
        check("d", "Directory", Ok(()));
        check("d", "File", Err("hostPath type check failed: P is not a file"));
        check("f", "FileOrCreate", Ok(()));
        check("f", "File", Ok(()));
        check("f", "Socket", Err("hostPath type check failed: P is not a socket file"));
        check("f", "X", Err("hostPath type check failed: X is an invalid volume type"));
    }

    #[test]
    fn only_what_is_mounted_is_set_up() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let p = pod(
            "spec:
               volumes: [{name: a, emptyDir: {}}, {name: unused, nfs: {server: s, path: /}}, {name: n, nfs: {server: s, path: /}}, {name: c, configMap: {name: x}}]
               containers: [{name: c, volumeMounts: [{name: a, mountPath: /a}, {name: n, mountPath: /n}, {name: c, mountPath: /c}]}]",
        );
        let mut inputs = Inputs::default();
        inputs.payloads.insert("c".into(), Err("configmap \"x\" not found".into()));
        let (ready, failed) = set_up_all(&p, &inputs, &config, "s1");
        let path = config.pod_dir("uid-1").join("volumes/kubernetes.io~empty-dir/a");
        assert_eq!(ready, [("a".to_string(), Ready::Path { path: path.clone(), read_only: false })].into());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o777);
        assert_eq!(failed["c"], "configmap \"x\" not found");
        assert_eq!(failed["n"], "failed to get Plugin from volumeSpec for volume \"n\" err=no volume plugin matched");
        let file = atomic::File { data: b"v".to_vec(), mode: 0o644, owner: None };
        inputs.payloads.insert("c".into(), Ok([("k".to_string(), file)].into()));
        let (ready, _) = set_up_all(&p, &inputs, &config, "s2");
        assert!(
            matches!(&ready["c"], Ready::Path { path, read_only: true } if fs::read(path.join("k")).unwrap() == b"v")
        );
        tear_down(&config.pod_dir("uid-1")).unwrap();
        assert!(!path.exists());
    }
}
