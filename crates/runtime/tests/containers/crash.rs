//! What survives whom.

use crate::fixture::*;
use pintle_runtime::embedded::Embedded;
use pintle_runtime::*;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The role of a daemon that is to be killed: it starts a pod, says what it made, and waits for its end.
pub fn daemon(mut args: impl Iterator<Item = OsString>) -> ! {
    let dir = std::path::PathBuf::from(args.next().unwrap());
    let cgroup = args.next().unwrap().into_string().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let rt = Embedded::open(options(&dir, &cgroup), Arc::new(LoopbackOnly)).await.unwrap();
        rt.images().import(&busybox_archive()[..], None).unwrap();
        let config = SandboxConfig {
            metadata: SandboxMetadata { name: "p".into(), ..Default::default() },
            log_directory: dir.join("logs").display().to_string(),
            linux: LinuxSandboxConfig { cgroup_parent: "/kubepods/pod-p".into(), ..Default::default() },
            ..Default::default()
        };
        let sandbox = rt.run_pod_sandbox(&config).await.unwrap();
        let mut ids = vec![];
        // One ends before the kill, one after it and before the next daemon, one lives on.
        let waits = "i=0; while ! test -e /gate/go; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last; exit 42";
        for (name, script) in [("before", "echo b; exit 41"), ("during", waits), ("after", "echo up; sleep 1000")] {
            let mut c = shell(name, script);
            c.mounts =
                vec![Mount { container_path: "/gate".into(), host_path: dir.join("gate"), ..Default::default() }];
            let id = rt.create_container(&sandbox, &c, &config).await.unwrap();
            rt.start_container(&id).await.unwrap();
            ids.push(id);
        }
        println!("{sandbox} {}", ids.join(" "));
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
    std::process::exit(1);
}

pub async fn daemon_is_killed() {
    let dir = tempfile::Builder::new().prefix("pintle-test").tempdir().unwrap();
    let cgroup = format!("/pintle-test-{}-crash", std::process::id());
    let mut child = Command::new("/proc/self/exe")
        .arg0("daemon")
        .arg("daemon")
        .args([dir.path().as_os_str(), cgroup.as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ids: Vec<&str> = line.split_whitespace().collect();
    let [sandbox, before, during, after] = ids[..] else { panic!("the daemon said {line:?}") };
    child.kill().unwrap();
    child.wait().unwrap();
    // Life goes on without a daemon: this one ends, its record and last lines are kept by the shim.
    std::fs::write(dir.path().join("gate/go"), "").unwrap();
    let exit = dir.path().join("state/sandboxes").join(sandbox).join("containers").join(during).join("exit.json");
    wait_until("the exit record", || exit.exists()).await;

    let rt = Embedded::open(options(dir.path(), &cgroup), Arc::new(LoopbackOnly)).await.unwrap();
    let node = Node { rt, dir, cgroup };
    assert_eq!(node.rt.pod_sandbox_status(sandbox).await.unwrap().state, SandboxState::Ready);
    let status = node.rt.container_status(before).await.unwrap();
    assert_eq!((status.exit_code, log(&status)), (41, "b\n".to_string()));
    let status = node.rt.container_status(during).await.unwrap();
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (ContainerState::Exited, 42, "Error"));
    let text = log(&status);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"last"));
    assert!(lines[..lines.len() - 1].iter().enumerate().all(|(i, l)| *l == format!("line {}", i + 1)), "{text}");
    let status = node.rt.container_status(after).await.unwrap();
    assert_eq!((status.state, log(&status)), (ContainerState::Running, "up\n".to_string()));
    let cmd = ["echo", "again"].map(String::from);
    let out = node.rt.exec_sync(after, &cmd, std::time::Duration::from_secs(10)).await.unwrap();
    assert_eq!(out.stdout, b"again\n");
    let config = SandboxConfig::default();
    let more = node.rt.create_container(sandbox, &shell("more", "exit 1"), &config).await.unwrap();
    node.rt.start_container(&more).await.unwrap();
    assert_eq!(node.wait(&more).await.exit_code, 1);
    let two = Embedded::open(options(node.dir.path(), &node.cgroup), Arc::new(LoopbackOnly)).await;
    assert!(two.map(drop).unwrap_err().message.contains("another process uses"));
    node.rt.stop_container(after, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(node.rt.container_status(after).await.unwrap().exit_code, 137);
    node.finish().await;
}

pub async fn shim_is_killed() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "sleep 1000")).await;
    let pid = node.rt.container_status(&id).await.unwrap().pid;
    let shim = i32::try_from(shims_of(node.dir.path())[0]).unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let status = node.wait(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    wait_until("the container's process to end", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    wait_until("the sandbox to be given up", || {
        let found = futures::executor::block_on(node.rt.pod_sandbox_status(&pod.0)).unwrap();
        found.state == SandboxState::NotReady
    })
    .await;
    node.finish().await;
}
