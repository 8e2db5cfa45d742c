//! From creation to the end.

use crate::fixture::*;
use futures::StreamExt as _;
use pintle_runtime::*;
use std::time::Duration;

pub async fn runs_and_exits() {
    let node = node().await;
    let (status, text) = node.run("p", &shell("c", "echo hello; echo $FROM_IMAGE $HOSTNAME $HOME; pwd; exit 3")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert_eq!(text, "hello\nyes p /root\n/tmp\n");
    assert!(status.started_at >= status.created_at && status.finished_at >= status.started_at);
    assert_eq!(status.user.unwrap().uid, 0);
    let (status, _) = node.run("p", &shell("c", "true")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    let (status, _) = node.run("p", &shell("c", "kill -9 $$")).await;
    // A first process is safe from its own signals.
    assert_eq!(status.exit_code, 0);
    node.finish().await;
}

pub async fn logs() {
    let node = node().await;
    let script = "echo out; echo err >&2; printf 'no end'; head -c 20000 /dev/zero | tr '\\0' x; echo";
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", script)).await;
    let status = node.wait(&id).await;
    let text = std::fs::read_to_string(&status.log_path).unwrap();
    let fields: Vec<Vec<&str>> = text.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    assert!(
        fields.iter().all(|f| f[0].len() == "2026-01-02T03:04:05.000000000Z".len() && f[0].ends_with('Z')),
        "{text}"
    );
    let stream = |name: &str| fields.iter().filter(|f| f[1] == name).collect::<Vec<_>>();
    assert_eq!(stream("stderr").iter().map(|f| f[3]).collect::<Vec<_>>(), ["err"]);
    let out = stream("stdout");
    assert_eq!((out[0][2], out[0][3]), ("F", "out"));
    assert_eq!((out[1][2], out[2][2]), ("P", "F"));
    assert_eq!(out[1][3].len() + out[2][3].len(), "no end".len() + 20000);
    node.finish().await;
}

pub async fn start_errors() {
    let node = node().await;
    let pod = node.pod("p").await;
    let check = async |name: &str, command: &[&str], words: &str| {
        let command = command.iter().map(ToString::to_string).collect();
        let config = ContainerConfig { command, ..shell(name, "") };
        let id = node.rt.create_container(&pod.0, &config, &pod.1).await.unwrap();
        let e = node.rt.start_container(&id).await.unwrap_err();
        assert!(e.message.contains(words), "{}", e.message);
        let status = node.rt.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 128));
        assert_eq!(status.reason, "StartError");
        assert!(status.message.contains(words));
    };
    check("a", &["nope"], "exec: \"nope\": executable file not found in $PATH").await;
    check("b", &["/nope"], "exec: \"/nope\": stat /nope: no such file or directory").await;
    check("c", &["/etc"], "exec: \"/etc\": is a directory").await;
    check("d", &["/etc/passwd"], "exec: \"/etc/passwd\": permission denied").await;
    let user = LinuxSecurityContext { run_as_username: "nobody".into(), ..Default::default() };
    let config = ContainerConfig { security_context: user, ..shell("e", "true") };
    let id = node.rt.create_container(&pod.0, &config, &pod.1).await.unwrap();
    let e = node.rt.start_container(&id).await.unwrap_err();
    assert!(e.message.contains("unable to find user nobody: no matching entries in passwd file"), "{}", e.message);
    let config = ContainerConfig { image: "absent".into(), ..shell("f", "true") };
    assert!(node.rt.create_container(&pod.0, &config, &pod.1).await.unwrap_err().is_not_found());
    assert!(node.rt.start_container("feed").await.unwrap_err().is_not_found());
    node.finish().await;
}

pub async fn stop_signals() {
    let node = node().await;
    let pod = node.pod("p").await;
    let check = async |name: &str, config: ContainerConfig, timeout: u64, code: i32| {
        let metadata = ContainerMetadata { name: name.into(), attempt: 0 };
        let config = ContainerConfig { metadata, log_path: format!("{name}.log"), ..config };
        let id = node.start(&pod, &config).await;
        let log = node.rt.container_status(&id).await.unwrap().log_path;
        wait_until("the trap", || std::fs::read_to_string(&log).is_ok_and(|t| t.contains("ready"))).await;
        node.rt.stop_container(&id, Duration::from_secs(timeout)).await.unwrap();
        let status = node.rt.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, code), "{name}");
    };
    let trap = |signal: &str| format!("trap 'exit 7' {signal}; echo ready; while :; do sleep 0.01; done");
    check("term", shell("c", &trap("TERM")), 30, 7).await;
    let usr1 = ContainerConfig { stop_signal: "SIGUSR1".into(), ..shell("c", &trap("USR1")) };
    check("usr1", usr1, 30, 7).await;
    check("stubborn", shell("c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"), 1, 137).await;
    check("now", shell("c", &trap("TERM")), 0, 137).await;
    node.rt.stop_container("absent", Duration::ZERO).await.unwrap();
    node.finish().await;
}

pub async fn events() {
    let node = node().await;
    let mut events = node.rt.events();
    node.run("p", &shell("c", "exit 4")).await;
    let mut seen = vec![];
    while seen.last() != Some(&EventKind::SandboxRemoved) {
        seen.push(events.next().await.unwrap().kind);
    }
    let expect = [
        EventKind::SandboxReady,
        EventKind::ContainerCreated,
        EventKind::ContainerStarted,
        EventKind::ContainerExited { exit_code: 4, reason: "Error".into() },
        EventKind::SandboxGone,
        EventKind::ContainerRemoved,
        EventKind::SandboxRemoved,
    ];
    assert_eq!(seen, expect);
    node.finish().await;
}

pub async fn stats() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "head -c 100000 /dev/zero > /root/f; sleep 1000")).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let stats = loop {
        let stats = node.rt.container_stats(&id).await.unwrap();
        if stats.writable_layer.used_bytes >= 100_000 || tokio::time::Instant::now() > deadline {
            break stats;
        }
    };
    assert!(stats.writable_layer.used_bytes >= 100_000);
    assert!(stats.cpu.usage_core_nano_seconds > 0);
    assert!(stats.memory.usage_bytes > 0 && stats.process_count >= 1, "{stats:?}");
    let pod_stats = node.rt.pod_sandbox_stats(&pod.0).await.unwrap();
    assert_eq!(pod_stats.containers.len(), 1);
    assert!(pod_stats.cpu.usage_core_nano_seconds >= stats.cpu.usage_core_nano_seconds);
    assert_eq!(node.rt.list_container_stats(&ContainerFilter::default()).await.unwrap().len(), 1);
    node.finish().await;
}

pub async fn sandbox_stop_kills() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "trap '' TERM; sleep 1000 & wait")).await;
    assert!(node.rt.pod_sandbox_status(&pod.0).await.unwrap().netns.unwrap().exists());
    node.rt.stop_pod_sandbox(&pod.0).await.unwrap();
    node.rt.stop_pod_sandbox(&pod.0).await.unwrap();
    assert_eq!(node.rt.container_status(&id).await.unwrap().exit_code, 137);
    let status = node.rt.pod_sandbox_status(&pod.0).await.unwrap();
    assert_eq!((status.state, status.netns), (SandboxState::NotReady, None));
    let refused = node.rt.create_container(&pod.0, &shell("d", "true"), &pod.1).await;
    assert!(refused.unwrap_err().message.contains("is not running"));
    node.finish().await;
}

/// Far more than any limit of the shim or the kernel could hide.
pub async fn many_in_a_row() {
    let node = node().await;
    let pod = node.pod("p").await;
    for attempt in 0..300 {
        let metadata = ContainerMetadata { name: "c".into(), attempt };
        let config = ContainerConfig { metadata, log_path: String::new(), ..shell("c", "exit 5") };
        let id = node.start(&pod, &config).await;
        assert_eq!(node.wait(&id).await.exit_code, 5);
        node.rt.remove_container(&id).await.unwrap();
    }
    let shim = shims_of(node.dir.path())[0];
    let open = std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    assert!(open < 20, "the shim has {open} files open");
    node.finish().await;
}

pub async fn shared_pids() {
    let node = node().await;
    let mut config = sandbox("p", &node);
    config.linux.security_context.namespaces.pid = NamespaceMode::Pod;
    let pod = (node.rt.run_pod_sandbox(&config).await.unwrap(), config);
    let shared = |name: &str, script: &str| {
        let mut c = shell(name, script);
        c.security_context.namespaces.pid = NamespaceMode::Pod;
        c
    };
    node.start(&pod, &shared("a", "exec sleep 12345")).await;
    let b = node
        .start(&pod, &shared("b", "while ! ps | grep -q 'sleep 1234[5]'; do sleep 0.01; done; ps; echo me $$"))
        .await;
    let text = log(&node.wait(&b).await);
    assert!(text.contains("sleep 12345") && !text.contains("me 1\n"), "{text}");
    // A container of its own, looking at another's processes.
    let target = node.start(&pod, &shell("t", "exec sleep 54321")).await;
    let mut look = shell("look", "ps");
    look.security_context.namespaces.pid = NamespaceMode::Target(target);
    let id = node.start(&pod, &look).await;
    let text = log(&node.wait(&id).await);
    assert!(text.contains("sleep 54321") && !text.contains("sleep 12345"), "{text}");
    node.finish().await;
}

/// Twenty pods at once, from nothing to nothing.
pub async fn many_at_once() {
    let node = std::sync::Arc::new(node().await);
    let mut tasks = vec![];
    for n in 0..20 {
        let node = node.clone();
        tasks.push(tokio::spawn(async move {
            let name = format!("p{n}");
            let (status, text) = node.run(&name, &shell("c", &format!("hostname; exit {n}"))).await;
            assert_eq!((status.exit_code, text), (n, format!("{name}\n")));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    std::sync::Arc::into_inner(node).unwrap().finish().await;
}
