use super::*;
use std::collections::BTreeMap;

/// A tree of plain files that looks like a hierarchy with one cgroup `/r/a`.
fn fake(unified: bool, controllers: &[&str], files: &[&str]) -> (tempfile::TempDir, Cgroups) {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = dir.path().join("r/a");
    fs::create_dir_all(&cgroup).unwrap();
    for f in files {
        fs::write(cgroup.join(f), "").unwrap();
    }
    for level in ["", "r"] {
        fs::write(dir.path().join(level).join("cgroup.subtree_control"), "").unwrap();
    }
    let h = Hierarchy {
        mount: dir.path().into(),
        controllers: controllers.iter().map(ToString::to_string).collect(),
        unified,
    };
    let cgroups = Cgroups::new("/r", vec![h]);
    (dir, cgroups)
}

fn read(dir: &tempfile::TempDir, file: &str) -> String {
    fs::read_to_string(dir.path().join("r/a").join(file)).unwrap()
}

#[test]
fn v2_values() {
    let files = ["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max", "cpuset.cpus", "memory.high"];
    let (dir, cg) = fake(true, &["cpu", "memory", "pids", "cpuset"], &files);
    let r = LinuxResources {
        cpu_shares: 1024,
        cpu_quota: 50_000,
        memory_limit: 1 << 20,
        memory_swap_limit: 1 << 20,
        pids_limit: -1,
        cpuset_cpus: "0-1".into(),
        unified: BTreeMap::from([("memory.high".into(), "5".into())]),
        ..Default::default()
    };
    cg.create("a").unwrap();
    cg.apply("/a", &r).unwrap();
    let check = |file: &str, expect: &str| assert_eq!(read(&dir, file), expect, "{file}");
    check("cpu.weight", "100");
    check("cpu.max", "50000 100000");
    check("memory.max", "1048576");
    check("memory.swap.max", "0");
    check("pids.max", "max");
    check("cpuset.cpus", "0-1");
    check("memory.high", "5");
    let on = fs::read_to_string(dir.path().join("r/cgroup.subtree_control")).unwrap();
    assert_eq!(on, "+cpu +cpuset +memory +pids");
    assert!(cg.is_v2());
    let too_small = LinuxResources { memory_limit: 10, memory_swap_limit: 5, ..Default::default() };
    assert!(cg.apply("/a", &too_small).is_err());
}

#[test]
fn v2_weights() {
    let check = |shares, expect| assert_eq!(v2::weight(shares), expect, "{shares}");
    check(2, 1);
    check(102, 17);
    check(1024, 100);
    check(262_144, 10_000);
    check(1 << 40, 10_000);
}

#[test]
fn v2_stats() {
    let (dir, cg) = fake(true, &["cpu", "memory", "pids"], &[]);
    let put = |file: &str, text: &str| fs::write(dir.path().join("r/a").join(file), text).unwrap();
    put("cpu.stat", "usage_usec 7\nuser_usec 3\n");
    put("memory.current", "100\n");
    put("memory.max", "1000\n");
    put("memory.stat", "anon 40\ninactive_file 30\npgfault 5\npgmajfault 1\n");
    put("memory.events", "low 0\noom 2\noom_kill 1\n");
    put("pids.current", "3\n");
    let s = cg.stats("a").unwrap();
    assert_eq!((s.cpu.usage_core_nano_seconds, s.pids), (7000, 3));
    let m = s.memory;
    assert_eq!((m.usage_bytes, m.working_set_bytes, m.available_bytes, m.rss_bytes), (100, 70, Some(930), 40));
    assert_eq!(cg.oom_counter("a").unwrap().read(), 1);
    put("memory.max", "max\n");
    assert_eq!(cg.stats("a").unwrap().memory.available_bytes, None);
    assert!(cg.stats("b").unwrap_err().is_not_found());
}

#[test]
fn v1_values() {
    let files = [
        "cpu.shares",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "pids.max",
    ];
    let (dir, cg) = fake(false, &["cpu", "memory", "pids"], &files);
    let r = LinuxResources {
        cpu_shares: 1,
        cpu_quota: -1,
        cpu_period: 100_000,
        memory_limit: 4096,
        memory_swap_limit: 4096,
        pids_limit: 9,
        ..Default::default()
    };
    cg.apply("a", &r).unwrap();
    let check = |file: &str, expect: &str| assert_eq!(read(&dir, file), expect, "{file}");
    check("cpu.shares", "2");
    check("cpu.cfs_quota_us", "-1");
    check("memory.limit_in_bytes", "4096");
    check("memory.memsw.limit_in_bytes", "4096");
    check("pids.max", "9");
    let unified =
        LinuxResources { unified: BTreeMap::from([("memory.high".into(), "5".into())]), ..Default::default() };
    assert!(cg.apply("a", &unified).is_err());
}

/// Pods that start at once make their parents at once: one finds a directory that another has not filled yet.
#[test]
fn v1_cpusets_of_parents_just_made() {
    let files = ["cpuset.cpus", "cpuset.mems"];
    let (dir, cg) = fake(false, &["cpuset"], &files);
    for (file, value) in files.iter().zip(["0-1\n", "0\n"]) {
        fs::write(dir.path().join(file), value).unwrap();
        fs::write(dir.path().join("r").join(file), "").unwrap();
    }
    cg.create("a").unwrap();
    for (level, want) in [("r", ["0-1", "0"]), ("r/a", ["0-1", "0"])] {
        let got = files.map(|f| fs::read_to_string(dir.path().join(level).join(f)).unwrap());
        assert_eq!(got, want, "{level}");
    }
}

#[test]
fn paths() {
    let (_dir, cg) = fake(true, &[], &[]);
    assert!(cg.create("../x").is_err());
    assert!(cg.remove("a/../..").is_err());
    assert!(Cgroups::new("/", vec![]).remove("/").is_err());
}

#[test]
fn mount_table() {
    let text = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                32 23 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                34 23 0:29 / /mnt/again rw - cgroup2 cgroup2 rw\n\
                35 23 0:30 / / rw shared:1 - ext4 /dev/vda rw\n";
    let found = parse_mountinfo(text);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
    assert_eq!(found[1].controllers, ["name=systemd"]);
    assert!(found[2].unified);
}
