//! Who a process becomes: users and groups from the image's own files, capabilities, filters.

use super::spec::{ProcessSpec, UserSpec};
use crate::sys::{self, Context as _};
use crate::{Error, ProcessUser, Result};
use base64::Engine as _;
use rustix::thread::CapabilitySet;
use std::os::fd::BorrowedFd;

/// Capabilities by number.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A user as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

impl From<&Identity> for ProcessUser {
    fn from(i: &Identity) -> Self {
        let groups = i.groups.iter().map(|g| i64::from(*g)).collect();
        Self { uid: i.uid.into(), gid: i.gid.into(), supplemental_groups: groups }
    }
}

/// Looks a user up in the text of `/etc/passwd` and `/etc/group`.
pub fn look_up(spec: &UserSpec, passwd: &str, group: &str) -> Result<Identity> {
    let (user, given_group) = match spec.user.split_once(':') {
        Some((u, g)) => (u, Some(g)),
        None => (spec.user.as_str(), None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    // name:password:uid:gid:comment:home:shell
    let rows = || passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|r| r.len() >= 4);
    // A name wins over the same digits as a number.
    let row =
        rows().find(|r| r[0] == user).or_else(|| rows().find(|r| number.is_some() && r[2].parse().ok() == number));
    let mut out = Identity::default();
    match (&row, number) {
        (Some(r), _) => {
            out.uid = r[2].parse().map_err(|_| Error::unknown(format!("/etc/passwd: bad uid of user {:?}", r[0])))?;
            out.gid = r[3].parse().map_err(|_| Error::unknown(format!("/etc/passwd: bad gid of user {:?}", r[0])))?;
            out.home = r.get(5).unwrap_or(&"").to_string();
        }
        (None, Some(n)) => out.uid = n,
        (None, None) => {
            return Err(Error::unknown(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    }
    // name:password:gid:members
    let groups = || group.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|r| r.len() >= 3);
    if let Some(g) = given_group.filter(|g| !g.is_empty()) {
        out.gid = match (groups().find(|r| r[0] == g).and_then(|r| r[2].parse().ok()), g.parse()) {
            (Some(found), _) => found,
            (None, Ok(n)) => n,
            (None, Err(_)) => {
                return Err(Error::unknown(format!("unable to find group {g}: no matching entries in group file")));
            }
        };
    }
    out.groups.push(out.gid);
    if spec.image_groups
        && let Some(name) = row.as_ref().map(|r| r[0])
    {
        let member = |r: &Vec<&str>| r.get(3).is_some_and(|m| m.split(',').any(|u| u.trim() == name));
        out.groups.extend(groups().filter(member).filter_map(|r| r[2].parse::<u32>().ok()));
    }
    out.groups.extend(&spec.groups);
    let mut seen = std::collections::BTreeSet::new();
    out.groups.retain(|g| seen.insert(*g));
    Ok(out)
}

/// Looks the user up in the files of this process's root.
pub fn find(spec: &UserSpec) -> Result<Identity> {
    let read = |path: &str| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    look_up(spec, &read("/etc/passwd"), &read("/etc/group"))
}

/// Reads the filter's instructions.
fn decode_filter(text: &str) -> Result<Vec<libc::sock_filter>> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| Error::internal(format!("the seccomp filter is damaged: {e}")))?;
    let insn = |c: &[u8]| libc::sock_filter {
        code: u16::from_le_bytes([c[0], c[1]]),
        jt: c[2],
        jf: c[3],
        k: u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
    };
    Ok(bytes.chunks_exact(8).map(insn).collect())
}

/// Writes the filter's instructions.
pub fn encode_filter(program: &[libc::sock_filter]) -> String {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for i in program {
        bytes.extend(i.code.to_le_bytes());
        bytes.extend([i.jt, i.jf]);
        bytes.extend(i.k.to_le_bytes());
    }
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Makes this process the user, with the capabilities and under the filter of `spec`: the last step before the program.
pub fn become_user(spec: &ProcessSpec, who: &Identity) -> Result<()> {
    let filter = if spec.seccomp.is_empty() { None } else { Some(decode_filter(&spec.seccomp)?) };
    if spec.no_new_privs {
        rustix::thread::set_no_new_privs(true).context("setting no_new_privs")?;
    } else if let Some(filter) = &filter {
        // Without no_new_privs a filter needs privilege, which is about to go.
        sys::set_seccomp_filter(filter).context("installing the seccomp filter")?;
    }
    let bounding = spec.capabilities.bounding & known_capabilities();
    for n in 0..64u32 {
        if bounding & 1 << n == 0 && known_capabilities() & 1 << n != 0 {
            sys::prctl(libc::PR_CAPBSET_DROP, n.into()).context("dropping capabilities")?;
        }
    }
    rustix::thread::set_keep_capabilities(true).context("keeping capabilities")?;
    let gid = rustix::fs::Gid::from_raw(who.gid);
    let uid = rustix::fs::Uid::from_raw(who.uid);
    let groups: Vec<_> = who.groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).context("setting groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("setting the group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("setting the user")?;
    rustix::thread::set_keep_capabilities(false).context("keeping capabilities")?;
    let ambient = spec.capabilities.ambient & bounding;
    // For root the program gets the bounding set by itself; another user keeps the ambient set only.
    let own = if who.uid == 0 { bounding } else { ambient };
    let sets = rustix::thread::CapabilitySets {
        effective: CapabilitySet::from_bits_retain(own),
        permitted: CapabilitySet::from_bits_retain(own),
        inheritable: CapabilitySet::from_bits_retain(ambient),
    };
    rustix::thread::set_capabilities(None, sets).context("setting capabilities")?;
    for n in (0..64u32).filter(|n| ambient & 1 << n != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << n);
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .context("setting ambient capabilities")?;
    }
    if let (true, Some(filter)) = (spec.no_new_privs, &filter) {
        sys::set_seccomp_filter(filter).context("installing the seccomp filter")?;
    }
    Ok(())
}

/// The capabilities this process may hand on: others cannot be given to anyone.
pub fn known_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or_default();
    u64::from_str_radix(bounding.trim(), 16).unwrap_or(u64::MAX)
}

/// Lets a user write to its own output again under the name `/dev/stdout`, which opens it anew.
pub fn own_stdio(who: &Identity, fds: [BorrowedFd<'_>; 3]) {
    for fd in fds {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        // Shared devices like /dev/null are nobody's to give away.
        if kind == rustix::fs::FileType::CharacterDevice && rustix::fs::major(stat.st_rdev) == 1 {
            continue;
        }
        if stat.st_uid != who.uid {
            // Some kinds of files have no owner to change; then nothing is lost.
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(who.uid)), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n1000:x:7:8::/seven:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:web,other\nbig:x:5000:web\n";

    #[test]
    fn users() {
        let check = |user: &str, groups: &[u32], image_groups: bool, expect: Option<(u32, u32, &[u32], &str)>| {
            let spec = UserSpec { user: user.into(), groups: groups.to_vec(), image_groups };
            let got = look_up(&spec, PASSWD, GROUP).ok();
            let expect = expect.map(|(uid, gid, groups, home)| Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.into(),
            });
            assert_eq!(got, expect, "{user}");
        };
        check("", &[], true, Some((0, 0, &[0], "/root")));
        check("web", &[9], true, Some((33, 34, &[34, 4, 5000, 9], "/var/www")));
        check("33", &[4], true, Some((33, 34, &[34, 4, 5000], "/var/www")));
        check("web", &[9], false, Some((33, 34, &[34, 9], "/var/www")));
        check("web:log", &[], false, Some((33, 4, &[4], "/var/www")));
        check("4711", &[], true, Some((4711, 0, &[0], "")));
        check("4711:12", &[], true, Some((4711, 12, &[12], "")));
        check("1000", &[], true, Some((7, 8, &[8], "/seven")));
        check("nobody", &[], true, None);
        check("web:nogroup", &[], true, None);
    }

    #[test]
    fn filters_survive_the_file() {
        let program = crate::seccomp::default_profile(&[]).compile().unwrap();
        let back = decode_filter(&encode_filter(&program)).unwrap();
        assert_eq!(back.len(), program.len());
        assert!(back.iter().zip(&program).all(|(a, b)| (a.code, a.jt, a.jf, a.k) == (b.code, b.jt, b.jf, b.k)));
    }
}
