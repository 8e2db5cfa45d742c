//! What must be true of the machine before anything is started; every miss is named with what to do about it.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Context, bail};

/// Checks privileges and kernel features.
///
/// # Errors
/// All misses at once.
pub fn check(data_dir: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("pintle up must run as root: it makes namespaces, mounts and network links. Try: sudo pintle up");
    }
    let mut missing = Vec::new();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_fs = |name: &str| filesystems.lines().any(|l| l.split_whitespace().last() == Some(name));
    if !has_fs("overlay") && !load_module("overlay") {
        missing.push("overlayfs: load it with `modprobe overlay` (CONFIG_OVERLAY_FS)".to_owned());
    }
    if !has_fs("cgroup2") && !has_fs("cgroup") {
        missing.push("control groups (CONFIG_CGROUPS)".to_owned());
    }
    for ns in ["net", "pid", "ipc", "uts", "mnt", "user"] {
        if !Path::new("/proc/self/ns").join(ns).exists() {
            missing.push(format!("{ns} namespaces (CONFIG_{}_NS)", ns.to_uppercase()));
        }
    }
    if !missing.is_empty() {
        bail!("this machine's kernel lacks:\n  - {}", missing.join("\n  - "));
    }
    fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data directory {}: choose another by --data-dir", data_dir.display()))
}

/// Asks the kernel for a module, as `modprobe` does; `false` when that does not work.
fn load_module(name: &str) -> bool {
    std::process::Command::new("modprobe").arg(name).status().is_ok_and(|s| s.success())
}

/// Takes a port, or says which is taken and how to choose another.
///
/// # Errors
/// When the port cannot be had.
pub fn listen(address: IpAddr, port: u16, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let at = SocketAddr::new(address, port);
    let listener = TcpListener::bind(at)
        .with_context(|| format!("{what} cannot listen on {at}: choose another port by {flag}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The address this machine would use towards the world. Nothing is sent: connecting a datagram socket only looks up the
/// route.
#[must_use]
pub fn default_address() -> Option<IpAddr> {
    let probe = |local: &str, remote: &str| {
        let socket = UdpSocket::bind(local).ok()?;
        // Addresses set aside for documentation (RFC 5737, RFC 3849).
        socket.connect(remote).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    probe("0.0.0.0:0", "192.0.2.1:9").or_else(|| probe("[::]:0", "[2001:db8::1]:9"))
}

/// The machine's name as a node name: lower case, as the node agent of upstream has it.
#[must_use]
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    if name.is_empty() { "node".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_named() {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let first = listen(localhost, 0, "the API server", "--secure-port").unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen(localhost, port, "the API server", "--secure-port").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the API server cannot listen on 127.0.0.1:{port}: choose another port by --secure-port")
        );
    }
}
