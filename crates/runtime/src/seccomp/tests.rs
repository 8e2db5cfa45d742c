use super::*;

/// Runs a filter as the kernel would.
fn run(program: &[libc::sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = vec![];
    data.extend(nr.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for a in args {
        data.extend(a.to_le_bytes());
    }
    let mut acc = 0u32;
    let mut pc = 0usize;
    loop {
        let i = program[pc];
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => acc = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            0x54 => acc &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => pc += jump(acc == i.k),
            0x25 => pc += jump(acc > i.k),
            0x35 => pc += jump(acc >= i.k),
            0x06 => return i.k,
            other => panic!("unknown instruction {other:x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0001;

fn nr(name: &str) -> u32 {
    u32::try_from(arch::Native::from_str(name).unwrap().id()).unwrap()
}

#[test]
fn default_profile_decides() {
    let plain = default_profile(&["CAP_SYS_CHROOT"]).compile().unwrap();
    let admin = default_profile(&["CAP_SYS_ADMIN"]).compile().unwrap();
    let check = |program: &[libc::sock_filter], name: &str, arg: u64, expect: u32| {
        assert_eq!(run(program, arch::NATIVE, nr(name), [arg, 0, 0, 0, 0, 0]), expect, "{name} {arg:x}");
    };
    check(&plain, "read", 0, ALLOW);
    check(&plain, "chroot", 0, ALLOW);
    check(&admin, "chroot", 0, DENY);
    check(&plain, "mount", 0, DENY);
    check(&admin, "mount", 0, ALLOW);
    check(&plain, "clone", 0x11, ALLOW);
    check(&plain, "clone", 0x1000_0000, DENY);
    check(&plain, "clone3", 0, 0x0005_0000 | 38);
    check(&admin, "clone3", 0, ALLOW);
    check(&plain, "socket", 2, ALLOW);
    check(&plain, "socket", 38, DENY);
    check(&plain, "socket", 39, ALLOW);
    check(&plain, "socket", 40, DENY);
    check(&plain, "socket", 41, ALLOW);
    check(&plain, "personality", 0xffff_ffff, ALLOW);
    check(&plain, "personality", 3, DENY);
    check(&plain, "kexec_load", 0, DENY);
    assert_eq!(run(&plain, 0x1234, 0, [0; 6]), DENY, "another architecture");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn older_architecture() {
    let p = default_profile(&[]).compile().unwrap();
    let mount = u32::try_from(arch::Compat::mount.id()).unwrap();
    let read = u32::try_from(arch::Compat::read.id()).unwrap();
    assert_eq!(run(&p, 0x4000_0003, read, [0; 6]), ALLOW);
    assert_eq!(run(&p, 0x4000_0003, mount, [0; 6]), DENY);
}

#[test]
fn comparisons() {
    let big = 0x1_0000_0005u64;
    let check = |op: &str, arg: u64, expect: bool| {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":1,"value":{big},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        );
        let p = Profile::parse(json.as_bytes()).unwrap().compile().unwrap();
        let got = run(&p, arch::NATIVE, nr("read"), [0, arg, 0, 0, 0, 0]) == ALLOW;
        assert_eq!(got, expect, "{op} {arg:x}");
    };
    for other in [0, 5, big - 1, big, big + 1, 0x2_0000_0000, u64::MAX] {
        check("EQ", other, other == big);
        check("NE", other, other != big);
        check("LT", other, other < big);
        check("LE", other, other <= big);
        check("GT", other, other > big);
        check("GE", other, other >= big);
    }
}

#[test]
fn bad_profiles() {
    assert!(Profile::parse(b"{").is_err());
    assert!(Profile::parse(br#"{"defaultAction":"SCMP_ACT_NOPE"}"#).is_err());
    let seven = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",
        "args":[{"index":7,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert!(Profile::parse(seven).unwrap().compile().is_err());
}
