//! Limits on memory, processes and CPU.

use crate::fixture::*;
use futures::StreamExt as _;
use pintle_runtime::*;

pub async fn out_of_memory() {
    let node = node().await;
    let mut events = node.rt.events();
    // A variable that doubles until it is too large.
    let mut c = shell("c", "x=0123456789abcdef; while :; do x=$x$x; done");
    c.resources.memory_limit = 16 << 20;
    c.resources.memory_swap_limit = 16 << 20;
    let (status, _) = node.run("p", &c).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    loop {
        match events.next().await.unwrap().kind {
            EventKind::ContainerOom => break,
            EventKind::SandboxRemoved => panic!("nobody told of the kill"),
            _ => {}
        }
    }
    node.finish().await;
}

pub async fn process_limit() {
    let node = node().await;
    let mut c = shell("c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait; echo unlimited");
    c.resources.pids_limit = 4;
    let (status, text) = node.run("p", &c).await;
    assert!(status.exit_code != 0 && text.contains("can't fork"), "{text}");
    node.finish().await;
}

pub async fn update() {
    let node = node().await;
    let pod = node.pod("p").await;
    let mut c = shell("c", "sleep 1000");
    c.resources =
        LinuxResources { cpu_shares: 100, memory_limit: 64 << 20, oom_score_adj: Some(500), ..Default::default() };
    let id = node.start(&pod, &c).await;
    let limit = async || node.rt.container_stats(&id).await.unwrap().memory.available_bytes.unwrap();
    assert!(limit().await <= 64 << 20);
    let read = async |path: &str| {
        let cmd = ["cat", path].map(String::from);
        let out = node.rt.exec_sync(&id, &cmd, std::time::Duration::from_secs(10)).await.unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_string()
    };
    assert_eq!(read("/proc/1/oom_score_adj").await, "500");
    let more = LinuxResources {
        memory_limit: 128 << 20,
        memory_swap_limit: 128 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    node.rt.update_container_resources(&id, &more).await.unwrap();
    let now = limit().await;
    assert!(now > 64 << 20 && now <= 128 << 20, "{now}");
    let status = node.rt.container_status(&id).await.unwrap();
    assert_eq!((status.resources.cpu_quota, status.resources.cpu_shares), (50_000, 100));
    if !node.rt.cgroups().is_v2() {
        assert_eq!(read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").await, "50000");
        assert_eq!(read("/sys/fs/cgroup/cpu/cpu.shares").await, "100");
        assert_eq!(read("/sys/fs/cgroup/memory/memory.limit_in_bytes").await, (128 << 20).to_string());
    }
    node.finish().await;
}

/// Version 2's device filter, wherever a version 2 hierarchy is mounted: the kernel takes it and obeys.
pub async fn device_filter_of_v2() {
    use pintle_runtime::cgroup::{Cgroups, DeviceRule, Hierarchy};
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v2 = mounts.lines().find(|l| l.contains(" - cgroup2 ")).map(|l| l.split(' ').nth(4).unwrap().to_string());
    let Some(mount) = v2 else { return };
    let h = Hierarchy { mount: mount.into(), controllers: vec![], unified: true };
    let cg = Cgroups::new(&format!("/pintle-test-{}-bpf", std::process::id()), vec![h]);
    cg.create("/a").unwrap();
    cg.allow_devices("/a", &[DeviceRule::char(1, Some(5), "rw")]).unwrap();
    let procs = cg.procs_files("/a").unwrap()[0].display().to_string();
    let script = format!(
        "echo 0 > {procs}; head -c 1 /dev/zero | wc -c; head -c 1 /dev/urandom 2>&1 >/dev/zero | grep -c 'not permitted'"
    );
    let out = std::process::Command::new("/bin/busybox").args(["sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1\n1\n", "{}", String::from_utf8_lossy(&out.stderr));
    cg.remove("/a").unwrap();
    let top = cg.hierarchies()[0].mount.join(format!("pintle-test-{}-bpf", std::process::id()));
    std::fs::remove_dir(top).unwrap();
}
