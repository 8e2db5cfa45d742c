//! File systems of containers.

use crate::fixture::*;
use pintle_runtime::*;
use std::fs;

pub async fn mounts() {
    let node = node().await;
    let host = node.dir.path().join("host");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("f"), "from the host\n").unwrap();
    let mount = |at: &str, from: &std::path::Path, readonly: bool| Mount {
        container_path: at.into(),
        host_path: from.into(),
        readonly,
        ..Default::default()
    };
    let mut c = together(
        "c",
        "cat /a/f /one; echo x > /a/new; echo y > /ro/z || echo refused; ls -d /made; cat /lib/deep/f; ls /dev/shm | wc -l",
    );
    c.mounts = vec![
        mount("/lib/deep", &host, false),
        mount("/a", &host, false),
        mount("/ro", &host, true),
        mount("/one", &host.join("f"), true),
        mount("/made", &node.dir.path().join("not/there"), false),
    ];
    let (status, text) = node.run("p", &c).await;
    assert_eq!(status.exit_code, 0, "{text}");
    let expect = "from the host\nfrom the host\nsh: can't create /ro/z: Read-only file system\nrefused\n/made\nfrom the host\n0\n";
    assert_eq!(text, expect);
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "x\n");
    assert!(node.dir.path().join("not/there").is_dir());
    node.finish().await;
}

pub async fn etc_files() {
    let node = node().await;
    let mut config = sandbox("web-0", &node);
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["default.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    let pod = (node.rt.run_pod_sandbox(&config).await.unwrap(), config);
    let id = node.start(&pod, &shell("c", "cat /etc/hostname /etc/resolv.conf; hostname")).await;
    let text = log(&node.wait(&id).await);
    let expect = "web-0\nsearch default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\nweb-0\n";
    assert_eq!(text, expect);
    // Shared memory is the pod's: what one leaves another finds.
    let id = node.start(&pod, &shell("d", "echo shared > /dev/shm/x; df /dev/shm | tail -1")).await;
    assert!(log(&node.wait(&id).await).contains("65536"));
    let id = node.start(&pod, &shell("e", "cat /dev/shm/x; mount | grep -c mqueue")).await;
    assert_eq!(log(&node.wait(&id).await), "shared\n1\n");
    node.finish().await;
}

pub async fn layers_are_not_written() {
    let node = node().await;
    assert_eq!(node.output("p", "rm /bin/vi; echo changed > /usr/lib/marker; cat /lib/marker").await, "changed\n");
    assert_eq!(node.output("p", "ls /bin/vi; cat /lib/marker").await, "/bin/vi\nmarker\n");
    node.finish().await;
}

pub async fn image_volumes() {
    let node = node().await;
    let mut c = together("c", "cat /volume/lib/marker /part/marker; touch /volume/x || echo refused");
    let image = |at: &str, sub: &str| Mount {
        container_path: at.into(),
        image: "busybox:test".into(),
        image_sub_path: sub.into(),
        ..Default::default()
    };
    c.mounts = vec![image("/volume", ""), image("/part", "usr/lib")];
    let (_, text) = node.run("p", &c).await;
    assert_eq!(text, "marker\nmarker\ntouch: /volume/x: Read-only file system\nrefused\n");
    node.finish().await;
}

pub async fn propagation() {
    let node = node().await;
    let host = node.dir.path().join("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    let mut c = shell("c", "true");
    c.mounts = vec![Mount {
        container_path: "/m".into(),
        host_path: host.clone(),
        propagation: MountPropagation::Bidirectional,
        ..Default::default()
    }];
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status().unwrap();
        assert!(status.success(), "mount {args:?}");
    };
    let path = host.to_str().unwrap();
    mount(&["-t", "tmpfs", "none", path]);
    mount(&["--make-private", path]);
    let pod = node.pod("p").await;
    let refused = node.rt.create_container(&pod.0, &c, &pod.1).await.unwrap_err();
    assert!(refused.message.contains("but it is not a shared mount"), "{}", refused.message);
    mount(&["--make-shared", path]);
    fs::create_dir_all(host.join("sub")).unwrap();
    c.command =
        ["sh", "-c", "mount -t tmpfs none /m/sub && echo inside > /m/sub/f; sleep 1000"].map(Into::into).to_vec();
    c.security_context.privileged = true;
    let _both = node.start(&pod, &c).await;
    wait_until("the container's mount on the host", || host.join("sub/f").exists()).await;
    // The other way.
    fs::create_dir_all(host.join("later")).unwrap();
    let mut slave = shell("slave", "while ! test -e /m/later/f; do sleep 0.01; done; cat /m/later/f");
    slave.mounts = vec![Mount { propagation: MountPropagation::HostToContainer, ..c.mounts[0].clone() }];
    let id = node.start(&pod, &slave).await;
    let later = host.join("later");
    mount(&["-t", "tmpfs", "none", later.to_str().unwrap()]);
    fs::write(later.join("f"), "later\n").unwrap();
    assert_eq!(log(&node.wait(&id).await), "later\n");
    node.rt.remove_pod_sandbox(&pod.0).await.unwrap();
    assert!(std::process::Command::new("umount").args(["-R", path]).status().unwrap().success());
    node.finish().await;
}
