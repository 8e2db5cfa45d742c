//! What kind of machine it is.

use crate::config::KubeletConfig;
use pintle_runtime::Runtime;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs.
    pub cpus: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Swap in bytes.
    pub swap: i64,
    /// Size of the file system of the node agent's data.
    pub disk: i64,
    /// Huge pages: size in bytes and number.
    pub hugepages: Vec<(i64, i64)>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's.
    pub system_uuid: String,
    /// New with every start of the machine.
    pub boot_id: String,
    /// Kernel.
    pub kernel: String,
    /// Distribution.
    pub os_image: String,
    /// `amd64`, `arm64`, …
    pub architecture: &'static str,
    /// Runtime and its version.
    pub runtime: String,
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

/// A field of `/proc/meminfo` in bytes.
#[must_use]
pub fn meminfo(text: &str, field: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.split(':').next() == Some(field))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn os_image(text: &str) -> Option<String> {
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_string())
}

fn hugepages() -> Vec<(i64, i64)> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut out: Vec<(i64, i64)> = entries
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let kib: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = read(e.path().join("nr_hugepages")).parse().unwrap_or(0);
            Some((kib * 1024, count))
        })
        .collect();
    out.sort_unstable();
    out
}

/// Go's name of the architecture.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Size and free bytes, inodes and free inodes of a file system.
///
/// # Errors
/// When it cannot be asked.
pub fn disk(path: &Path) -> std::io::Result<(u64, u64, u64, u64)> {
    let s = rustix::fs::statvfs(path)?;
    Ok((s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize, s.f_files, s.f_favail))
}

impl Machine {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When it cannot be told what it is.
    pub async fn probe(config: &KubeletConfig, runtime: &dyn Runtime) -> Result<Self, String> {
        let meminfo_text = fs::read_to_string("/proc/meminfo").map_err(|e| format!("/proc/meminfo: {e}"))?;
        let version = runtime.version().await.map_err(|e| e.to_string())?;
        let cpus = std::thread::available_parallelism().map_err(|e| e.to_string())?;
        let disk = disk(&config.root_dir).map_err(|e| format!("{}: {e}", config.root_dir.display()))?.0;
        let machine_id = read("/etc/machine-id");
        let uuid = read("/sys/class/dmi/id/product_uuid");
        let release = read("/etc/os-release");
        Ok(Self {
            cpus: i64::try_from(cpus.get()).unwrap_or(1),
            memory: meminfo(&meminfo_text, "MemTotal").ok_or("/proc/meminfo has no MemTotal")?,
            swap: meminfo(&meminfo_text, "SwapTotal").unwrap_or(0),
            disk: i64::try_from(disk).unwrap_or(i64::MAX),
            hugepages: hugepages(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: os_image(&release).unwrap_or_else(|| "Linux".into()),
            architecture: architecture(),
            runtime: format!("{}://{}", version.runtime_name, version.runtime_version),
        })
    }
}

/// The addresses of the host in the kernel's `/proc/net/fib_trie`.
fn local_addresses(text: &str) -> Vec<Ipv4Addr> {
    let mut out = vec![];
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(ip) = last.filter(|ip| !ip.is_loopback() && !out.contains(ip))
        {
            out.push(ip);
        }
    }
    out
}

/// The address by which others reach the host: that of the default route, else any that is not its loopback.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    // Connecting a datagram socket asks the kernel for a route and sends nothing.
    let routed = |bind: &str, to: &str| {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    let mut out: Vec<IpAddr> = routed("0.0.0.0:0", "192.0.2.1:9").into_iter().collect();
    if out.is_empty() {
        out.extend(local_addresses(&read("/proc/net/fib_trie")).first().map(|ip| IpAddr::from(*ip)));
    }
    out.extend(routed("[::]:0", "[2001:db8::1]:9"));
    if out.is_empty() {
        out.push(IpAddr::from(Ipv4Addr::LOCALHOST));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel() {
        assert_eq!(meminfo("MemTotal:  2048 kB\nX: 1 kB", "MemTotal"), Some(2 << 20));
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        assert_eq!(local_addresses(trie), [Ipv4Addr::new(10, 1, 2, 3)]);
        assert!(!own_addresses().is_empty());
    }
}
