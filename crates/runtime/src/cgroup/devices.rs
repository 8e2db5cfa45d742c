//! Which devices the processes of a cgroup may use: a list in version 1, a small program in version 2.

use super::write;
use crate::sys::Context as _;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Block or character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// Allows devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Of this kind.
    pub kind: DeviceKind,
    /// With this major number, or any.
    pub major: Option<u32>,
    /// With this minor number, or any.
    pub minor: Option<u32>,
    /// To be used in these ways: any of `r`, `w`, `m`.
    pub access: String,
}

impl DeviceRule {
    /// A character device.
    #[must_use]
    pub fn char(major: u32, minor: Option<u32>, access: &str) -> Self {
        Self { kind: DeviceKind::Char, major: Some(major), minor, access: access.into() }
    }

    /// Every device.
    #[must_use]
    pub fn all() -> Self {
        Self { kind: DeviceKind::All, major: None, minor: None, access: "rwm".into() }
    }

    /// What every container may use: make any node, and use the harmless ones.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let mut rules = vec![
            Self { kind: DeviceKind::Char, major: None, minor: None, access: "m".into() },
            Self { kind: DeviceKind::Block, major: None, minor: None, access: "m".into() },
        ];
        // null, zero, full, random, urandom, tty, console, ptmx
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
            rules.push(Self::char(major, Some(minor), "rwm"));
        }
        // pts
        rules.push(Self::char(136, None, "rwm"));
        rules
    }
}

pub fn write_v1(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    write(dir, "devices.deny", "a")?;
    let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
    for r in rules {
        let kind = match r.kind {
            DeviceKind::All => "a",
            DeviceKind::Block => "b",
            DeviceKind::Char => "c",
        };
        write(dir, "devices.allow", format!("{kind} {}:{} {}", number(r.major), number(r.minor), r.access))?;
    }
    Ok(())
}

/// One instruction of the kernel's virtual machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    code: u8,
    /// Destination in the low half, source in the high half.
    regs: u8,
    off: i16,
    imm: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND_IMM: u8 = 0x54; // 32 bit
const RSH_IMM: u8 = 0x74; // 32 bit
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const JNE_IMM: u8 = 0x55;
const JNE_REG: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The program: the registers hold kind (2), wanted access (3), major (4) and minor (5); each rule jumps past itself as
/// soon as something does not fit, and answers 1 otherwise; what no rule allows is answered 0.
#[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
pub fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let insn = |code, dst: u8, src: u8, off, imm| Insn { code, regs: dst | src << 4, off, imm };
    let mut out = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(AND_IMM, 2, 0, 0, 0xffff),
        insn(LOAD_WORD, 3, 1, 0, 0),
        insn(RSH_IMM, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for r in rules {
        let mut rule = vec![];
        match r.kind {
            DeviceKind::All => {}
            DeviceKind::Block => rule.push(insn(JNE_IMM, 2, 0, 0, 1)),
            DeviceKind::Char => rule.push(insn(JNE_IMM, 2, 0, 0, 2)),
        }
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        let access = bits.iter().filter(|(c, _)| r.access.contains(*c)).fold(0, |all, (_, bit)| all | bit);
        if access != 7 {
            rule.push(insn(MOV_REG, 1, 3, 0, 0));
            rule.push(insn(AND_IMM, 1, 0, 0, access));
            rule.push(insn(JNE_REG, 1, 3, 0, 0));
        }
        if let Some(major) = r.major {
            rule.push(insn(JNE_IMM, 4, 0, 0, major as i32));
        }
        if let Some(minor) = r.minor {
            rule.push(insn(JNE_IMM, 5, 0, 0, minor as i32));
        }
        rule.push(insn(MOV_IMM, 0, 0, 0, 1));
        rule.push(insn(EXIT, 0, 0, 0, 0));
        let len = rule.len();
        for (i, ins) in rule.iter_mut().enumerate() {
            if matches!(ins.code, JNE_IMM | JNE_REG) {
                ins.off = (len - i - 1) as i16;
            }
        }
        out.extend(rule);
    }
    out.push(insn(MOV_IMM, 0, 0, 0, 0));
    out.push(insn(EXIT, 0, 0, 0, 0));
    out
}

/// The part of the kernel's `bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 12],
}

/// The part of the kernel's `bpf_attr` for attaching a program.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

fn bpf<T>(command: i32, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is one of the two structures above, laid out as the kernel reads it for the command, and all it
    // points to lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

/// Puts the program on a version 2 cgroup, where it stays as long as the cgroup.
pub fn attach(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let program = program(rules);
    let load = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Error::invalid("too many device rules"))?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 12],
    };
    let fd = bpf(BPF_PROG_LOAD, &load).context("loading the device filter")?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let cgroup = File::open(dir).context(format!("opening cgroup {}", dir.display()))?;
    let raw = |fd: i32| u32::try_from(fd).unwrap_or(0);
    let attach = AttachAttr {
        target_fd: raw(cgroup.as_raw_fd()),
        attach_bpf_fd: raw(fd.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    bpf(BPF_PROG_ATTACH, &attach).context("attaching the device filter").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let ctx = [access << 16 | kind, major, minor];
        let mut r = [0i64; 11];
        let mut pc = 0usize;
        loop {
            let i = program[pc];
            let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            pc += 1;
            let jump = match i.code {
                LOAD_WORD => {
                    r[dst] = i64::from(ctx[usize::try_from(i.off / 4).unwrap()]);
                    false
                }
                AND_IMM => {
                    r[dst] &= i64::from(i.imm);
                    false
                }
                RSH_IMM => {
                    r[dst] >>= i.imm;
                    false
                }
                MOV_REG => {
                    r[dst] = r[src];
                    false
                }
                MOV_IMM => {
                    r[dst] = i64::from(i.imm);
                    false
                }
                JNE_IMM => r[dst] != i64::from(i.imm),
                JNE_REG => r[dst] != r[src],
                EXIT => return r[0] == 1,
                other => panic!("unknown instruction {other:x}"),
            };
            if jump {
                pc += usize::try_from(i.off).unwrap();
            }
        }
    }

    #[test]
    fn default_devices() {
        let p = program(&DeviceRule::defaults());
        let (mknod, read, write) = (1, 2, 4);
        let check = |kind, access, major, minor, expect| assert_eq!(run(&p, kind, access, major, minor), expect);
        check(2, read | write, 1, 3, true); // null
        check(2, read, 1, 1, false); // mem
        check(2, mknod, 1, 1, true);
        check(1, mknod, 8, 0, true);
        check(1, read, 8, 0, false);
        check(1, read, 1, 3, false); // a block device with null's numbers
        check(2, read | write, 136, 7, true); // a pty
        assert!(run(&program(&[DeviceRule::all()]), 1, 7, 8, 1));
        assert!(!run(&program(&[]), 2, read, 1, 3));
    }
}
