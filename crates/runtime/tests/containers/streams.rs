//! Exec, attach, port forwarding, log rotation.

use crate::fixture::*;
use pintle_runtime::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

async fn read_all(reader: Option<Reader>) -> String {
    let mut out = vec![];
    reader.unwrap().read_to_end(&mut out).await.unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads until the text is there.
async fn read_until(reader: &mut Reader, text: &str) -> String {
    let mut out = String::new();
    while !out.contains(text) {
        let mut chunk = [0; 1024];
        let n = reader.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the stream ended with {out:?}");
        out.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    out
}

pub async fn exec_sync() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "export X=1; sleep 1000")).await;
    let run = async |cmd: &[&str]| node.rt.exec_sync(&id, &words(cmd), Duration::from_secs(20)).await;
    let out = run(&["sh", "-c", "echo out; echo err >&2; pwd; echo $FROM_IMAGE; exit 9"]).await.unwrap();
    assert_eq!(out.exit_code, 9);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "out\n/tmp\nyes\n");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "err\n");
    // It is inside: same processes, same files, same limits on system calls.
    let out = run(&[
        "sh",
        "-c",
        "ps | grep -c 'sleep 100[0]'; grep Seccomp: /proc/self/status; cat /proc/self/cgroup | grep -v :/$",
    ])
    .await;
    assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), "1\nSeccomp:\t2\n");
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).await.unwrap().exit_code, 137);
    let e = run(&["nope"]).await.unwrap_err();
    assert!(e.message.contains("exec: \"nope\": executable file not found in $PATH"), "{}", e.message);
    let e = node.rt.exec_sync(&id, &words(&["sleep", "100"]), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(e.code, Code::DeadlineExceeded);
    let large = run(&["sh", "-c", "head -c 3000000 /dev/zero"]).await.unwrap();
    assert_eq!(large.stdout.len(), 3_000_000);
    // Something left behind holds the output open; the answer comes all the same.
    let out = run(&["sh", "-c", "sleep 300 & echo done"]).await.unwrap();
    assert_eq!(out.exit_code, 0);
    node.rt.stop_container(&id, Duration::ZERO).await.unwrap();
    let e = run(&["true"]).await.unwrap_err();
    assert_eq!(e.message, "container is in CONTAINER_EXITED state");
    node.finish().await;
}

pub async fn exec_with_streams() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "sleep 1000")).await;
    let request = ExecRequest {
        cmd: words(&["sh", "-c", "cat; echo over >&2; exit 2"]),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = node.rt.exec(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let data = "x".repeat(200_000);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    assert_eq!(read_all(session.stdout).await, data);
    assert_eq!(read_all(session.stderr).await, "over\n");
    assert_eq!(session.exit.await.unwrap(), 2);
    writer.await.unwrap();
    node.finish().await;
}

pub async fn exec_on_a_terminal() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "sleep 1000")).await;
    let request = ExecRequest { cmd: words(&["sh"]), tty: true, stdin: true, stdout: true, stderr: false };
    let mut session = node.rt.exec(&id, &request).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let resize = session.resize.take().unwrap();
    resize.send(TermSize { width: 123, height: 45 }).await.unwrap();
    // The size arrives on its own way; ask until it is there.
    stdin
        .write_all(
            b"while [ \"$(stty size 2>/dev/null)\" != '45 123' ]; do sleep 0.01; done; echo si''ze; tty; echo $TERM\n",
        )
        .await
        .unwrap();
    let text = read_until(&mut stdout, "xterm").await;
    assert!(text.contains("size") && text.contains("/dev/pts/"), "{text}");
    stdin.write_all(b"exit 6\n").await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 6);
    let mut rest = vec![];
    stdout.read_to_end(&mut rest).await.unwrap();
    node.finish().await;
}

pub async fn attach() {
    let node = node().await;
    let pod = node.pod("p").await;
    let config = ContainerConfig { stdin: true, stdin_once: true, ..shell("c", "cat; echo bye >&2; exit 8") };
    let id = node.start(&pod, &config).await;
    let all = AttachRequest { stdin: true, stdout: true, stderr: true };
    let watcher = node.rt.attach(&id, &AttachRequest { stdin: false, ..all }).await.unwrap();
    let mut session = node.rt.attach(&id, &all).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    assert_eq!(read_until(&mut stdout, "hello").await, "hello\n");
    stdin.shutdown().await.unwrap();
    drop(stdin);
    assert_eq!(session.exit.await.unwrap(), 8);
    assert_eq!(read_all(session.stderr).await, "bye\n");
    assert_eq!(read_all(watcher.stdout).await, "hello\n");
    assert_eq!(log(&node.wait(&id).await), "hello\nbye\n");
    assert!(node.rt.attach(&id, &all).await.is_err());
    node.finish().await;
}

pub async fn attach_to_a_terminal() {
    let node = node().await;
    let pod = node.pod("p").await;
    let script = "tty; ls -l /dev/console | cut -c1; while [ \"$(stty size 2>/dev/null)\" != '11 99' ]; do sleep 0.01; done; \
                  echo si''zed; read x; echo got $x; exit 5";
    let config = ContainerConfig { stdin: true, tty: true, ..shell("c", script) };
    let id = node.start(&pod, &config).await;
    let request = AttachRequest { stdin: true, stdout: true, stderr: true };
    let mut session = node.rt.attach(&id, &request).await.unwrap();
    assert!(session.stderr.is_none());
    session.resize.as_ref().unwrap().send(TermSize { width: 99, height: 11 }).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    read_until(&mut stdout, "sized").await;
    stdin.write_all(b"end\n").await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 5);
    let text = log(&node.wait(&id).await);
    assert_eq!(text, "/dev/pts/0\nc\nsized\nend\ngot end\n");
    node.finish().await;
}

pub async fn port_forward() {
    let node = node().await;
    let pod = node.pod("p").await;
    let id = node.start(&pod, &shell("c", "nc -ll -p 8080 -e cat")).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match node.rt.port_forward(&pod.0, 8080).await {
            Ok(stream) => break stream,
            Err(e) => assert!(tokio::time::Instant::now() < deadline, "{e}"),
        }
    };
    stream.write_all(b"through\n").await.unwrap();
    let mut back = [0; 8];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"through\n");
    let e = node.rt.port_forward(&pod.0, 81).await.map(drop).unwrap_err();
    assert!(e.message.contains("failed to connect to localhost:81 inside namespace"), "{}", e.message);
    assert!(e.message.contains("efused"), "{}", e.message);
    node.rt.stop_container(&id, Duration::ZERO).await.unwrap();
    node.finish().await;
}

pub async fn log_rotation() {
    let node = node().await;
    let pod = node.pod("p").await;
    let config = ContainerConfig { stdin: true, ..shell("c", "cat") };
    let id = node.start(&pod, &config).await;
    let path = node.rt.container_status(&id).await.unwrap().log_path;
    let request = AttachRequest { stdin: true, ..Default::default() };
    let mut stdin = node.rt.attach(&id, &request).await.unwrap().stdin.unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    let has = |path: &str, text: &str| std::fs::read_to_string(path).is_ok_and(|t| t.contains(text));
    wait_until("the first line", || has(&path, "one")).await;
    let old = format!("{path}.old");
    std::fs::rename(&path, &old).unwrap();
    node.rt.reopen_container_log(&id).await.unwrap();
    stdin.write_all(b"two\n").await.unwrap();
    wait_until("the second line", || has(&path, "two")).await;
    assert!(!has(&old, "two") && !has(&path, "one"));
    node.finish().await;
}
