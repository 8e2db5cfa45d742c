//! Who a container is and what it may do.

use crate::fixture::*;
use pintle_runtime::*;
use std::os::unix::fs::MetadataExt as _;

async fn run_as(node: &Node, script: &str, change: impl FnOnce(&mut LinuxSecurityContext)) -> String {
    let mut c = together("c", script);
    change(&mut c.security_context);
    let (status, text) = node.run("p", &c).await;
    assert_eq!(status.exit_code, 0, "{script}: {text}");
    text
}

pub async fn users() {
    let node = node().await;
    let id = "id -u; id -g; id -G; echo $HOME; echo line > /dev/stdout";
    let text = run_as(&node, id, |s| s.run_as_user = Some(33)).await;
    assert_eq!(text, "33\n33\n33 44\n/home\nline\n");
    let text = run_as(&node, id, |s| {
        s.run_as_user = Some(4000);
        s.run_as_group = Some(5000);
        s.supplemental_groups = vec![6000];
    })
    .await;
    assert_eq!(text, "4000\n5000\n5000 6000\n/\nline\n");
    let text = run_as(&node, id, |s| {
        s.run_as_username = "web".into();
        s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
    })
    .await;
    assert_eq!(text, "33\n33\n33\n/home\nline\n");
    node.finish().await;
}

pub async fn capabilities() {
    let node = node().await;
    let script = "grep -E 'Cap(Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | tr -d '\\t'";
    assert_eq!(
        run_as(&node, script, |_| {}).await,
        "CapEff:00000000a80425fb\nCapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\n"
    );
    let text = run_as(&node, script, |s| {
        s.drop_capabilities = vec!["ALL".into()];
        s.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        s.no_new_privs = true;
    })
    .await;
    assert_eq!(text, "CapEff:0000000000000400\nCapBnd:0000000000000400\nCapAmb:0000000000000000\nNoNewPrivs:1\n");
    let text = run_as(&node, script, |s| s.run_as_user = Some(1000)).await;
    assert!(text.starts_with("CapEff:0000000000000000\nCapBnd:00000000a80425fb\n"), "{text}");
    let text = run_as(&node, script, |s| {
        s.run_as_user = Some(1000);
        s.add_ambient_capabilities = vec!["NET_BIND_SERVICE".into()];
    })
    .await;
    assert!(text.starts_with("CapEff:0000000000000400\n"), "{text}");
    node.finish().await;
}

pub async fn filters() {
    let node = node().await;
    let script =
        "grep Seccomp: /proc/self/status; mkdir /tmp/x; unshare -U true 2>/dev/null && echo allowed || echo refused";
    assert_eq!(run_as(&node, script, |_| {}).await, "Seccomp:\t2\nrefused\n");
    let text = run_as(&node, script, |s| s.seccomp = SecurityProfile::Unconfined).await;
    assert_eq!(text, "Seccomp:\t0\nallowed\n");
    let profile = node.dir.path().join("profile.json");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    std::fs::write(&profile, json).unwrap();
    let text = run_as(&node, script, |s| {
        s.seccomp = SecurityProfile::Localhost(profile.display().to_string());
        s.no_new_privs = true;
    })
    .await;
    assert_eq!(text, "Seccomp:\t2\nmkdir: can't create directory '/tmp/x': Permission denied\nallowed\n");
    let pod = node.pod("p").await;
    let mut c = shell("c", "true");
    c.security_context.seccomp = SecurityProfile::Localhost("/nowhere.json".into());
    let e = node.rt.create_container(&pod.0, &c, &pod.1).await.unwrap_err();
    assert!(e.message.contains("cannot load seccomp profile"), "{}", e.message);
    node.finish().await;
}

pub async fn read_only_root() {
    let node = node().await;
    let text =
        run_as(&node, "touch /x || echo refused; touch /dev/shm/x && echo shm; touch /data/x && echo volume", |s| {
            s.readonly_rootfs = true
        })
        .await;
    assert_eq!(text, "touch: /x: Read-only file system\nrefused\nshm\nvolume\n");
    node.finish().await;
}

pub async fn masked_and_private() {
    let node = node().await;
    let script = "ls -l /proc/keys | cut -c1; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic || echo ro; \
                  touch /sys/x || echo ro; ls /proc | grep -c '^[0-9]'; ls /sys/class/net; hostname; \
                  wc -l < /proc/net/tcp; cat /proc/1/comm; mount | grep -c /state/ ";
    let (status, text) = node.run("p", &together("c", script)).await;
    // The last grep finds nothing but the overlay's own line.
    assert!(status.exit_code <= 1, "{text}");
    assert!(text.starts_with("c\n0\n"), "{text}");
    assert_eq!(text.matches("ro\n").count(), 2, "{text}");
    assert!(text.contains("\nlo\np\n"), "{text}");
    assert!(text.contains("\nsh\n"), "{text}");
    let text = run_as(&node, "ls /sys/firmware | wc -l", |s| s.masked_paths = Some(vec![])).await;
    let host = std::fs::read_dir("/sys/firmware").map_or(0, Iterator::count);
    assert_eq!(text, format!("{host}\n"));
    node.finish().await;
}

pub async fn devices() {
    let node = node().await;
    let script = "ls /dev | tr '\\n' ' '; echo; head -c 1 /dev/zero | wc -c; echo x > /dev/null && echo null; \
                  mknod /tmp/m b 1 1; head -c 1 /tmp/m 2>&1 | grep -c denied || true; head -c 1 /tmp/m; ls -ld /dev/shm | cut -c1-10";
    let (_, text) = node.run("p", &together("c", script)).await;
    let expect = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n1\nnull\n";
    assert!(text.starts_with(expect), "{text}");
    assert!(text.contains("Operation not permitted"), "{text}");
    // Any device that everyone may open will do.
    let device =
        ["/dev/fuse", "/dev/loop-control", "/dev/net/tun"].into_iter().find(|d| std::path::Path::new(d).exists());
    let mut c = together("c", "ls -l /dev/mine | cut -c1; : < /dev/mine && echo read; : > /dev/mine || echo refused");
    c.devices =
        vec![Device { container_path: "/dev/mine".into(), host_path: device.unwrap().into(), permissions: "r".into() }];
    let (_, text) = node.run("p", &c).await;
    assert!(text.starts_with("c\nread\n") && text.contains("Operation not permitted"), "{text}");
    node.finish().await;
}

pub async fn privileged() {
    let node = node().await;
    let script = "mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted; ls /dev/kmsg; \
                  grep Seccomp: /proc/self/status; echo $(cat /proc/sys/kernel/panic) > /proc/sys/kernel/panic && echo rw";
    let text = run_as(&node, script, |s| s.privileged = true).await;
    assert!(text.starts_with("mounted\n/dev/kmsg\nSeccomp:\t0\nrw\n"), "{text}");
    node.finish().await;
}

pub async fn host_namespaces() {
    let node = node().await;
    let mut config = sandbox("p", &node);
    let ns = &mut config.linux.security_context.namespaces;
    (ns.network, ns.ipc, ns.pid) = (NamespaceMode::Node, NamespaceMode::Node, NamespaceMode::Node);
    let ns = ns.clone();
    let pod = (node.rt.run_pod_sandbox(&config).await.unwrap(), config);
    let status = node.rt.pod_sandbox_status(&pod.0).await.unwrap();
    assert!(status.ips.is_empty() && status.netns.is_none());
    let mut c = shell(
        "c",
        "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; sleep 1000 & disown 2>/dev/null; exit 0",
    );
    c.security_context.namespaces = ns;
    let id = node.start(&pod, &c).await;
    let text = log(&node.wait(&id).await);
    let own: Vec<String> = ["net", "ipc", "uts", "pid", "mnt"]
        .iter()
        .map(|n| std::fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display().to_string())
        .collect();
    let inside: Vec<&str> = text.lines().collect();
    assert_eq!(inside[..4], own[..4]);
    assert_ne!(inside[4], own[4]);
    // What it left running is gone with it, though it shares the host's processes.
    wait_until("leftovers to end", || node.rt.cgroups().processes("/kubepods").is_empty()).await;
    node.finish().await;
}

pub async fn sysctls() {
    let node = node().await;
    let mut config = sandbox("p", &node);
    config.linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
    config.linux.sysctls.insert("kernel.shmmni".into(), "99".into());
    let pod = (node.rt.run_pod_sandbox(&config).await.unwrap(), config.clone());
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni";
    let id = node.start(&pod, &together("c", script)).await;
    assert_eq!(log(&node.wait(&id).await), "77\n99\n");
    config.metadata.name = "bad".into();
    config.linux.sysctls.insert("net.nope".into(), "1".into());
    let e = node.rt.run_pod_sandbox(&config).await.unwrap_err();
    assert!(e.message.contains("setting sysctl net.nope"), "{}", e.message);
    assert_eq!(node.rt.list_pod_sandboxes(&SandboxFilter::default()).await.unwrap().len(), 1);
    assert!(std::fs::metadata("/proc/self/exe").unwrap().nlink() > 0);
    node.finish().await;
}
