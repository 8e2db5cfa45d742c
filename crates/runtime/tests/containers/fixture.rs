//! A runtime of a test's own, an image made on the spot, and a check that nothing stays behind.

use pintle_runtime::embedded::{Embedded, Options};
use pintle_runtime::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A runtime in a directory of its own, below a cgroup of its own.
pub struct Node {
    pub rt: Embedded,
    pub dir: tempfile::TempDir,
    pub cgroup: String,
}

/// An archive as `docker save` writes it: busybox with all its names, and some users.
pub fn busybox_archive() -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").expect("/bin/busybox is missing: apt-get install busybox-static");
    let mut tar = tar::Builder::new(vec![]);
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, link: &str, data: &[u8]| {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_uid(0);
        h.set_gid(0);
        h.set_size(data.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut h, name, data).unwrap();
        } else {
            tar.append_link(&mut h, name, link).unwrap();
        }
    };
    for (dir, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home", 0o755)] {
        add(dir, tar::EntryType::Directory, mode, "", b"");
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, "", &program);
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list).unwrap().lines().filter(|n| *n != "busybox") {
        add(&format!("bin/{name}"), tar::EntryType::Symlink, 0o777, "busybox", b"");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/home:/bin/sh\n";
    add("etc/passwd", tar::EntryType::Regular, 0o644, "", passwd.as_bytes());
    add("etc/group", tar::EntryType::Regular, 0o644, "", b"root:x:0:\nweb:x:33:\nlog:x:44:web\n");
    add("usr/lib/marker", tar::EntryType::Regular, 0o644, "", b"marker\n");
    add("lib", tar::EntryType::Symlink, 0o777, "usr/lib", b"");
    let layer = tar.into_inner().unwrap();
    let digest = {
        use sha2::Digest as _;
        hex::encode(sha2::Sha256::digest(&layer))
    };
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"],"Env":["FROM_IMAGE=yes"],"WorkingDir":"/tmp","Volumes":{{"/data":{{}}}}}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["busybox:test"],"Layers":["layer.tar"]}]"#;
    let mut out = tar::Builder::new(vec![]);
    for (name, data) in
        [("layer.tar", &layer[..]), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]
    {
        let mut h = tar::Header::new_gnu();
        h.set_size(data.len() as u64);
        h.set_mode(0o644);
        out.append_data(&mut h, name, data).unwrap();
    }
    out.into_inner().unwrap()
}

pub fn options(dir: &Path, cgroup: &str) -> Options {
    Options { cgroup_root: cgroup.into(), ..Options::new(dir.join("state")) }
}

/// A runtime with the image `busybox:test`.
pub async fn node() -> Node {
    let dir = tempfile::Builder::new().prefix("pintle-test").tempdir().unwrap();
    let cgroup = format!("/pintle-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let rt = Embedded::open(options(dir.path(), &cgroup), Arc::new(LoopbackOnly)).await.unwrap();
    rt.images().import(&busybox_archive()[..], None).unwrap();
    Node { rt, dir, cgroup }
}

/// A pod's sandbox with all defaults.
pub fn sandbox(name: &str, node: &Node) -> SandboxConfig {
    SandboxConfig {
        metadata: SandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: name.into(),
        log_directory: node.dir.path().join("logs").join(name).display().to_string(),
        linux: LinuxSandboxConfig { cgroup_parent: format!("/kubepods/pod-{name}"), ..Default::default() },
        ..Default::default()
    }
}

/// A container that runs a shell script, its errors among its output.
pub fn together(name: &str, script: &str) -> ContainerConfig {
    shell(name, &format!("exec 2>&1; {script}"))
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: name.into(), attempt: 0 },
        image: "busybox:test".into(),
        command: ["sh", "-c", script].map(Into::into).to_vec(),
        log_path: format!("{name}.log"),
        security_context: LinuxSecurityContext { seccomp: SecurityProfile::RuntimeDefault, ..Default::default() },
        ..Default::default()
    }
}

impl Node {
    pub async fn pod(&self, name: &str) -> (String, SandboxConfig) {
        let config = sandbox(name, self);
        (self.rt.run_pod_sandbox(&config).await.unwrap(), config)
    }

    pub async fn start(&self, sandbox: &(String, SandboxConfig), config: &ContainerConfig) -> String {
        let id = self.rt.create_container(&sandbox.0, config, &sandbox.1).await.unwrap();
        self.rt.start_container(&id).await.unwrap();
        id
    }

    /// Waits for a container's end.
    pub async fn wait(&self, id: &str) -> ContainerStatus {
        use futures::StreamExt as _;
        let mut events = self.rt.events();
        loop {
            let status = self.rt.container_status(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            events.next().await.unwrap();
        }
    }

    /// Runs a container in a pod of its own to its end. Answers its status and what it wrote.
    pub async fn run(&self, name: &str, config: &ContainerConfig) -> (ContainerStatus, String) {
        let pod = self.pod(name).await;
        let id = self.start(&pod, config).await;
        let status = self.wait(&id).await;
        let text = log(&status);
        // Logs outlive their containers, and the next one may have the same name.
        std::fs::remove_file(&status.log_path).unwrap();
        self.rt.remove_pod_sandbox(&pod.0).await.unwrap();
        (status, text)
    }

    /// Runs a script in a pod of its own and answers what it wrote; it must succeed.
    pub async fn output(&self, name: &str, script: &str) -> String {
        let (status, text) = self.run(name, &shell("c", script)).await;
        assert_eq!(status.exit_code, 0, "{script}: {text}");
        text
    }

    /// Removes everything and makes sure that nothing is left on the machine.
    pub async fn finish(self) {
        let shims = shims_of(self.dir.path());
        self.rt.remove_all().await.unwrap();
        for pid in shims {
            wait_until(&format!("shim {pid} to end"), || !Path::new(&format!("/proc/{pid}")).exists()).await;
        }
        assert!(std::fs::read_dir(self.dir.path().join("state/sandboxes")).unwrap().next().is_none());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.dir.path().display().to_string();
        assert!(!mounts.contains(&own), "mounts are left");
        let left = self.rt.cgroups().processes("/");
        assert!(left.is_empty(), "processes are left: {left:?}");
        self.rt.cgroups().remove("/kubepods").unwrap();
        for h in self.rt.cgroups().hierarchies() {
            let top = h.mount.join(self.cgroup.trim_start_matches('/'));
            match std::fs::remove_dir(&top) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{}: {e}", top.display()),
                _ => {}
            }
        }
    }
}

impl Drop for Node {
    /// A test that failed leaves nothing behind either; after [`Node::finish`] there is nothing to do.
    fn drop(&mut self) {
        let mut pids: Vec<u32> = shims_of(self.dir.path());
        pids.extend(self.rt.cgroups().processes("/").into_iter().filter_map(|p| u32::try_from(p).ok()));
        for pid in pids {
            // These are our own: the shims of our directory, and what is in our cgroup.
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for _ in 0..100 {
            let top = self.cgroup.trim_start_matches('/');
            let left = |h: &pintle_runtime::cgroup::Hierarchy| h.mount.join(top).exists();
            if !self.rt.cgroups().hierarchies().iter().any(left) {
                break;
            }
            let _ = self.rt.cgroups().remove("/kubepods");
            for h in self.rt.cgroups().hierarchies() {
                let _ = std::fs::remove_dir(h.mount.join(top));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The shims of the sandboxes below a test's directory.
pub fn shims_of(dir: &Path) -> Vec<u32> {
    let sandboxes = std::fs::read_dir(dir.join("state/sandboxes")).into_iter().flatten().flatten();
    let pid = |p: PathBuf| -> Option<u32> {
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(p.join("shim.json")).ok()?).ok()?;
        u32::try_from(record["pid"].as_u64()?).ok()
    };
    sandboxes.filter_map(|e| pid(e.path())).collect()
}

/// A container's log without times: `stdout F text` lines become `text`.
pub fn log(status: &ContainerStatus) -> String {
    let text = std::fs::read_to_string(&status.log_path).unwrap_or_default();
    text.lines().map(|l| format!("{}\n", l.splitn(4, ' ').nth(3).unwrap_or(l))).collect()
}

/// Waits for something that nobody tells.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
