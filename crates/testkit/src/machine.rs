//! A machine: a network namespace with an address and a default route of its own, so that several clusters and nodes run
//! beside each other and nothing touches the host's network.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::{Output, run};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A machine made of a network namespace.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: Ipv4Addr,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Makes one.
    ///
    /// # Panics
    /// When the system refuses: tests of the whole system run as root.
    #[must_use]
    pub fn new() -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pintle-test-{}-{n}", std::process::id());
        let address = Ipv4Addr::new(192, 168, n, 1);
        let ip = |args: &str| run(shell(&format!("ip {args}")), "").ok();
        let _ = ip(&format!("netns add {name}"));
        let machine = Self { name, address };
        for args in [
            "link set lo up".to_owned(),
            // Both ends stand here: an interface with an address and a route, and no way out.
            "link add eth0 type veth peer name wire0".into(),
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".into(),
            "link set wire0 up".into(),
            format!("route add default via 192.168.{n}.254"),
        ] {
            let _ = ip(&format!("-n {} {args}", machine.name));
        }
        machine
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The file that names its network namespace.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Lets this thread speak to this machine's addresses from now on, as one that runs on it.
    ///
    /// # Panics
    /// When the system refuses.
    #[expect(clippy::panic, reason = "a test's verdict")]
    pub fn enter(&self) {
        let entered = std::fs::File::open(self.netns())
            .and_then(|netns| Ok(move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?));
        entered.unwrap_or_else(|e| panic!("{}: {e}", self.netns().display()));
    }

    /// A command on this machine. Only the network is its own: `ip netns exec` would hide the control groups too.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net={}", self.netns().display())).arg("--").arg(program);
        c
    }

    /// Runs a shell line on this machine.
    #[must_use]
    pub fn sh(&self, line: &str) -> Output {
        let mut c = self.command("sh");
        c.args(["-c", line]);
        run(c, "")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = run(shell(&format!("ip netns delete {}", self.name)), "");
    }
}

fn shell(line: &str) -> Command {
    let mut c = Command::new("sh");
    c.args(["-c", line]);
    c
}
