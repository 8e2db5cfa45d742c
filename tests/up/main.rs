//! `pintle up`: one command makes a cluster, a second finds it as it was, and `--rm` leaves nothing.

use std::process::Command;

use pintle_testkit::command::run;
use pintle_testkit::{Cluster, Machine, Options, binary, until};

fn pintle(machine: &Machine, args: &[&str]) -> pintle_testkit::Output {
    let mut c = machine.command(&binary::pintle().to_string_lossy());
    c.args(args);
    run(c, "")
}

/// A demonstration, which must succeed.
fn demo(machine: &Machine, data: &str, more: &[&str]) {
    let args = [&["up", "--demo", "--exit", "--data-dir", data, "--node-name=demo"], more].concat();
    let out = pintle(machine, &args);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let answers = out.stderr.matches("Hello from Pintle! This is pod hello-").count();
    assert_eq!(answers, 2, "by DNS name from a pod and by node port from the host:\n{}", out.stderr);
    assert!(out.stderr.contains("on node demo."), "{}", out.stderr);
}

/// What a cluster would leave on the machine: links, rules, mounts, control groups, processes.
fn left_behind(machine: &Machine, dir: &str, cgroup: &str) -> String {
    let mut out = String::new();
    for line in machine.sh("ip -o link; nft list tables").ok().lines() {
        let known = [" lo:", "eth0@", "wire0@"].iter().any(|k| line.contains(k));
        if !known {
            out += &format!("{line}\n");
        }
    }
    for (what, line) in [
        ("mount", format!("grep {dir} /proc/self/mountinfo || true")),
        ("cgroup", format!("find /sys/fs/cgroup -type d -path '*{cgroup}*' || true")),
        ("process", format!("pgrep -af -- {dir} | grep -v pgrep || true")),
        ("file", format!("ls -A {dir} 2>/dev/null || true")),
    ] {
        let mut c = Command::new("sh");
        c.args(["-c", &line]);
        for l in run(c, "").ok().lines().filter(|l| !l.contains("sh -c")) {
            out += &format!("{what}: {l}\n");
        }
    }
    out
}

#[test]
fn the_demo_answers_and_leaves_nothing() {
    let machine = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let cgroup = dir.path().file_name().unwrap().to_str().unwrap();
    // The second finds the sample running, on a node that has just gone and come.
    for more in [&[][..], &["--rm"]] {
        demo(&machine, data, &[&[&*format!("--cgroup-root=/{cgroup}")], more].concat());
    }
    assert_eq!(left_behind(&machine, data, cgroup), "");
}

/// A program that ends with the test.
struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_up_finds_everything_as_it_was() {
    finds_everything_as_it_was(Cluster::start_with(Options { args: vec!["--demo".into()], ..Options::default() }));
}

/// All of a cluster on etcd, which keeps the objects from one start to the next.
#[test]
fn a_cluster_on_etcd() {
    let machine = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let url = "http://127.0.0.1:2379";
    let mut etcd = machine.command("/usr/bin/etcd");
    etcd.args([
        "--data-dir",
        dir.path().to_str().unwrap(),
        "--listen-client-urls",
        url,
        "--advertise-client-urls",
        url,
    ]);
    etcd.args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level=error"]);
    let _etcd = Beside(etcd.spawn().unwrap());
    until("etcd", std::time::Duration::from_secs(30), || {
        let out = machine.sh("timeout 1 bash -c '</dev/tcp/127.0.0.1/2379'");
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    let args = vec!["--demo".into(), format!("--etcd-servers={url}")];
    let cluster = Cluster::start_on(machine, Options { args, ..Options::default() });
    assert!(!cluster.data_dir().join("store").exists(), "the embedded store is not used");
    finds_everything_as_it_was(cluster);
}

/// Nothing of a cluster with the sample is different after it was stopped, or killed, and started again.
fn finds_everything_as_it_was(mut cluster: Cluster) {
    let pods = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.conditions[?(@.type=='Ready')].status} {.status.conditions[?(@.type=='Ready')].lastTransitionTime} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let ready = "jsonpath={.items[0].status.conditions[?(@.type=='Ready')].lastTransitionTime}";
    let look = |c: &Cluster| {
        // A node that comes back has been ready all the time.
        c.kubectl(&["get", "pods", "-l", "app=hello", "-o", pods]).ok()
            + &c.kubectl(&["get", "nodes", "-o", ready]).ok()
    };
    // The cluster is up before the sample is.
    let before = until("the sample's pods to be ready", std::time::Duration::from_secs(60), || {
        let now = look(&cluster);
        if now.matches(" True ").count() == 3 { Ok(now) } else { Err(now) }
    });
    assert_eq!(before.lines().filter(|l| l.ends_with(" 0")).count(), 3, "{before}");
    assert_eq!(cluster.stop(), Some(0));
    cluster.up();
    assert_eq!(look(&cluster), before, "after an orderly stop");
    cluster.kill();
    cluster.up();
    assert_eq!(look(&cluster), before, "after kill -9");
    let name = before.split(' ').next().unwrap();
    assert!(cluster.kubectl(&["logs", name]).ok().contains("serving on"), "logs were kept");
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut cluster = Cluster::start_with(Options { disk: Some(1024), ..Options::default() });
    let make = |c: &Cluster, name: &str, size: usize| {
        let data = "x".repeat(size);
        let object = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {data}}}\n");
        c.kubectl_with(&["create", "-f", "-"], &object)
    };
    let _ = make(&cluster, "before", 100).ok();
    let fill = cluster.data_dir().join("fill");
    let full = cluster.machine().sh(&format!("dd if=/dev/zero of={} bs=64k 2>&1", fill.display()));
    assert!(full.stdout.contains("No space left on device"), "{full:?}");
    // Room inside the store's file may take some.
    let mut kept = vec!["before".to_owned()];
    let refused = (0..100).find_map(|i| {
        let made = make(&cluster, &format!("during-{i}"), 900_000);
        if made.code != 0 {
            return Some(made.stderr);
        }
        kept.push(format!("during-{i}"));
        None
    });
    let refused = refused.expect("the disk is full");
    assert!(refused.contains("Error from server") && refused.contains("No space left"), "{refused}");
    let all = |c: &Cluster| {
        let names = c.kubectl(&["get", "configmaps", "-o", "name"]).ok();
        let names = names.lines().filter_map(|l| l.strip_prefix("configmap/")).filter(|n| *n != "kube-root-ca.crt");
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(all(&cluster), kept.iter().cloned().collect(), "what was told to be there is there");
    std::fs::remove_file(fill).unwrap();
    until("room to be used again", std::time::Duration::from_secs(60), || {
        let made = make(&cluster, "after", 100);
        if made.code == 0 { Ok(()) } else { Err(made.stderr) }
    });
    kept.push("after".into());
    cluster.kill();
    cluster.up();
    assert_eq!(all(&cluster), kept.into_iter().collect(), "after kill -9");
}

#[test]
fn misuse_is_explained() {
    let machine = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    // On the host's own network here, where the port is taken.
    let mut c = Command::new(binary::pintle());
    c.args([
        "up",
        "--data-dir",
        data,
        "--bind-address=127.0.0.1",
        "--advertise-address=192.0.2.1",
        "--secure-port",
        &port,
    ]);
    let said = run(c, "").err();
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("--secure-port"), "{said}");

    let cluster = Cluster::start();
    let said =
        pintle(cluster.machine(), &["up", "--data-dir", cluster.data_dir().to_str().unwrap(), "--secure-port=0"]).err();
    assert!(said.contains("is in use by another pintle (pid ") && said.contains("--data-dir"), "{said}");

    let mut c = machine.command("setpriv");
    c.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary::pintle()).args(["up", "--data-dir", data]);
    let said = run(c, "").err();
    assert!(said.contains("must run as root"), "{said}");

    assert!(pintle(&machine, &["up", "--no-such-flag"]).err().contains("--no-such-flag"));
    let help = pintle(&machine, &["up", "--help"]).ok();
    for flag in ["--data-dir", "--demo", "--exit", "--rm", "--secure-port", "--advertise-address"] {
        assert!(help.contains(flag), "{flag}");
    }
}
