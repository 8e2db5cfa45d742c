//! How long a pod and a container take, how fast an image is taken in, how large a shim is. Needs root and
//! `busybox-static`. Prints the figures beside those of other runtimes on a machine of the same kind; compare by ratio.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

use futures::StreamExt as _;
use pintle_runtime::embedded::{Embedded, Options};
use pintle_runtime::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// crun and runc: create, start, exit; milliseconds, p50.
const CRUN: f64 = 10.0;
const RUNC: f64 = 28.0;

fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    use sha2::Digest as _;
    let ids: Vec<String> =
        layers.iter().map(|l| format!("\"sha256:{}\"", hex::encode(sha2::Sha256::digest(l)))).collect();
    let config =
        format!(r#"{{"os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(","));
    let names: Vec<String> = (0..layers.len()).map(|n| format!("\"{n}.tar\"")).collect();
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["bench:1"],"Layers":[{}]}}]"#, names.join(","));
    let mut out = tar::Builder::new(vec![]);
    let mut add = |name: &str, data: &[u8]| {
        let mut h = tar::Header::new_gnu();
        h.set_size(data.len() as u64);
        h.set_mode(0o644);
        out.append_data(&mut h, name, data).unwrap();
    };
    for (n, layer) in layers.iter().enumerate() {
        add(&format!("{n}.tar"), layer);
    }
    add("c.json", config.as_bytes());
    add("manifest.json", manifest.as_bytes());
    out.into_inner().unwrap()
}

fn files(list: &[(String, Vec<u8>, u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, data, mode) in list {
        let mut h = tar::Header::new_gnu();
        h.set_size(data.len() as u64);
        h.set_mode(*mode);
        h.set_uid(0);
        h.set_gid(0);
        tar.append_data(&mut h, name, &data[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn percentiles(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let p50 = ms(times[times.len() / 2]);
    println!("{what:<44} p50 {p50:7.2} ms   p99 {:7.2} ms", ms(times[times.len() * 99 / 100]));
    p50
}

fn resident(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (field("Rss:"), field("Private_Dirty:") + field("Private_Clean:"))
}

async fn bench() {
    let dir = tempfile::Builder::new().prefix("pintle-bench").tempdir().unwrap();
    let cgroup = format!("/pintle-bench-{}", std::process::id());
    let options = Options { cgroup_root: cgroup.clone(), ..Options::new(dir.path().join("state")) };
    let rt = Embedded::open(options, Arc::new(LoopbackOnly)).await.unwrap();
    let busybox = std::fs::read("/bin/busybox").expect("/bin/busybox is missing: apt-get install busybox-static");
    rt.images().import(&archive(&[files(&[("bin/true".into(), busybox, 0o755)])])[..], Some("busybox")).unwrap();

    let sandbox = |n: u32| SandboxConfig {
        metadata: SandboxMetadata { name: format!("p{n}"), ..Default::default() },
        linux: LinuxSandboxConfig { cgroup_parent: format!("/kubepods/pod{n}"), ..Default::default() },
        ..Default::default()
    };
    let (mut up, mut down) = (vec![], vec![]);
    for n in 0..50 {
        let t = Instant::now();
        let id = rt.run_pod_sandbox(&sandbox(n)).await.unwrap();
        up.push(t.elapsed());
        let t = Instant::now();
        rt.remove_pod_sandbox(&id).await.unwrap();
        down.push(t.elapsed());
    }
    percentiles("sandbox: run", up);
    percentiles("sandbox: stop and remove", down);

    let config = sandbox(1000);
    let pod = rt.run_pod_sandbox(&config).await.unwrap();
    let mut events = rt.events();
    let (mut all, mut create, mut start, mut exit, mut remove) = (vec![], vec![], vec![], vec![], vec![]);
    for attempt in 0..300 {
        let c = ContainerConfig {
            metadata: ContainerMetadata { name: "c".into(), attempt },
            image: "busybox".into(),
            command: vec!["/bin/true".into()],
            security_context: LinuxSecurityContext { seccomp: SecurityProfile::RuntimeDefault, ..Default::default() },
            ..Default::default()
        };
        let t = Instant::now();
        let id = rt.create_container(&pod, &c, &config).await.unwrap();
        let t1 = Instant::now();
        rt.start_container(&id).await.unwrap();
        let t2 = Instant::now();
        while !matches!(events.next().await.unwrap().kind, EventKind::ContainerExited { .. }) {}
        let t3 = Instant::now();
        rt.remove_container(&id).await.unwrap();
        all.push(t3 - t);
        create.push(t1 - t);
        start.push(t2 - t1);
        exit.push(t3 - t2);
        remove.push(t3.elapsed());
    }
    percentiles("container: create", create);
    percentiles("container: start", start);
    percentiles("container: exit told", exit);
    percentiles("container: remove", remove);
    let p50 = percentiles("container: create, start, exit", all);
    println!("{:<44} crun {:.1} x, runc {:.1} x as long", "", CRUN / p50, RUNC / p50);

    let record: serde_json::Value = serde_json::from_slice(
        &std::fs::read(dir.path().join("state/sandboxes").join(&pod).join("shim.json")).unwrap(),
    )
    .unwrap();
    let (rss, private) = resident(u32::try_from(record["pid"].as_u64().unwrap()).unwrap());
    println!("{:<44} {rss} KiB resident, {private} KiB its own", "shim");

    let c = ContainerConfig {
        metadata: ContainerMetadata { name: "long".into(), attempt: 0 },
        image: "busybox".into(),
        command: vec!["/bin/true".into()],
        stdin: true,
        ..Default::default()
    };
    let c = ContainerConfig { command: vec!["/bin/sleep".into()], args: vec!["1000".into()], ..c };
    let sleeper = std::fs::read("/bin/busybox").unwrap();
    rt.images().import(&archive(&[files(&[("bin/sleep".into(), sleeper.clone(), 0o755), ("bin/true".into(), sleeper, 0o755)])])[..], Some("sleeper")).unwrap();
    let id = rt.create_container(&pod, &ContainerConfig { image: "sleeper".into(), ..c }, &config).await.unwrap();
    rt.start_container(&id).await.unwrap();
    let mut exec = vec![];
    for _ in 0..200 {
        let t = Instant::now();
        rt.exec_sync(&id, &["/bin/true".into()], Duration::from_secs(10)).await.unwrap();
        exec.push(t.elapsed());
    }
    percentiles("exec", exec);
    rt.remove_all().await.unwrap();

    // About 200 MB in 2,000 files, half of it hard to compress.
    let mut x = 88_172_645_463_325_252u64;
    let mut list = vec![];
    for n in 0..2000u32 {
        let data: Vec<u8> = (0..100_000)
            .map(|i| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                if i % 2 == 0 { (x >> 32) as u8 } else { b'a' }
            })
            .collect();
        list.push((format!("usr/share/d{}/f{n}", n % 50), data, 0o644));
    }
    let plain = archive(&[files(&list)]);
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &plain).unwrap();
    for (what, data) in [("image import, plain", &plain), ("image import, gzip", &packed.finish().unwrap())] {
        let t = Instant::now();
        rt.images().import(&data[..], Some("large")).unwrap();
        let took = t.elapsed().as_secs_f64();
        println!(
            "{what:<44} {:.0} MB in {took:.2} s, {:.0} MB/s",
            plain.len() as f64 / 1e6,
            plain.len() as f64 / 1e6 / took
        );
        rt.remove_image("large").await.unwrap();
    }
    for h in rt.cgroups().hierarchies() {
        for path in ["/kubepods", ""] {
            let _ =
                std::fs::remove_dir(h.mount.join(cgroup.trim_start_matches('/')).join(path.trim_start_matches('/')));
        }
    }
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|a| a == shim::ROLE) {
        std::process::exit(shim::main(args));
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(bench());
}
