//! For tests: a node, the outside world and pods, each a network namespace of its own that vanishes with its handle.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::netns::NetNs;

/// How long a call that must be answered may take, and one that must be dropped is watched.
const ANSWER: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

/// Runs a command inside a namespace and gives what it printed.
pub fn run(ns: &NetNs, command: &str) -> String {
    let out = ns.run(|| Command::new("sh").args(["-ec", command]).output().unwrap()).unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The rules of a namespace as `nft` prints them.
pub fn rules(ns: &NetNs) -> String {
    run(ns, "nft list ruleset")
}

/// A node with one uplink (192.168.7.2, fd07::2) to the outside (192.168.7.1, fd07::1).
pub struct World {
    pub node: NetNs,
    pub outside: NetNs,
}

pub const NODE4: &str = "192.168.7.2";
pub const NODE6: &str = "fd07::2";
pub const OUTSIDE4: &str = "192.168.7.1";
pub const OUTSIDE6: &str = "fd07::1";

/// A path other code can open the namespace by.
pub fn path(ns: &NetNs) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", ns.fd().unwrap().as_raw_fd()).into()
}

impl World {
    pub fn new() -> Self {
        let (node, outside) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        run(
            &node,
            &format!(
                // Redirects would use up what the kernel grants a caller of ICMP answers.
                "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
                 ip link set lo up; ip link add up0 type veth peer name down0 netns {}
                 ip addr add {NODE4}/24 dev up0; ip addr add {NODE6}/64 dev up0 nodad; ip link set up0 up
                 ip route add default via {OUTSIDE4}; ip route add default via {OUTSIDE6}",
                path(&outside).display().to_string().replace("self", &std::process::id().to_string())
            ),
        );
        run(
            &outside,
            &format!(
                "ip link set lo up; ip addr add {OUTSIDE4}/24 dev down0; ip addr add {OUTSIDE6}/64 dev down0 nodad; ip link set down0 up
                 ip route add 10.96.0.0/12 via {NODE4}"
            ),
        );
        Self { node, outside }
    }
}

/// A server inside a namespace that answers each TCP connection and each UDP packet with its name and the caller's address.
pub struct Echo {
    stop: SocketAddr,
    ns: NetNs,
    udp: Option<SocketAddr>,
}

impl Echo {
    pub fn start(ns: &NetNs, addr: &str, name: &str) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let (tcp, udp) = ns.run(|| (TcpListener::bind(addr).unwrap(), UdpSocket::bind(addr).unwrap())).unwrap();
        let text = name.to_owned();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(peer) = stream.peer_addr() else { continue };
                let _ = stream.set_read_timeout(Some(ANSWER));
                let mut ask = [0u8; 4];
                if stream.read_exact(&mut ask).is_err() || &ask == b"stop" {
                    return;
                }
                let _ = stream.write_all(format!("{text} {}", peer.ip()).as_bytes());
            }
        });
        let text = name.to_owned();
        std::thread::spawn(move || {
            let mut ask = [0u8; 4];
            while let Ok((_, peer)) = udp.recv_from(&mut ask) {
                if &ask == b"stop" {
                    return;
                }
                let _ = udp.send_to(format!("{text} {}", peer.ip()).as_bytes(), peer);
            }
        });
        Self { stop: addr, ns: ns.clone(), udp: Some(addr) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let (tcp, udp) = (self.stop, self.udp.take());
        let _ = self.ns.run(|| {
            if let Ok(mut stream) = TcpStream::connect_timeout(&tcp, SILENCE) {
                let _ = stream.write_all(b"stop");
            }
            if let (Some(addr), Ok(socket)) = (udp, UdpSocket::bind(if tcp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }))
            {
                let _ = socket.send_to(b"stop", addr);
            }
        });
    }
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Outcome {
    /// The server's name, and the address it saw.
    Answer(String, IpAddr),
    /// Refused at once.
    Refused,
    /// No answer.
    Silence,
}

impl Outcome {
    pub fn name(&self) -> &str {
        match self {
            Self::Answer(name, _) => name,
            _ => panic!("no answer: {self:?}"),
        }
    }
}

fn answer(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (name, ip) = text.split_once(' ').unwrap();
    Outcome::Answer(name.into(), ip.parse().unwrap())
}

fn outcome_of(err: &std::io::Error) -> Outcome {
    match err.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => Outcome::Refused,
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => Outcome::Silence,
        _ => panic!("{err}"),
    }
}

/// Calls a TCP server from inside a namespace.
pub fn tcp(from: &NetNs, to: &str) -> Outcome {
    tcp_within(from, to, ANSWER)
}

/// The same for a call that is expected to get no answer.
pub fn tcp_silent(from: &NetNs, to: &str) -> Outcome {
    tcp_within(from, to, SILENCE)
}

fn tcp_within(from: &NetNs, to: &str, time: Duration) -> Outcome {
    let to: SocketAddr = to.parse().unwrap();
    from.run(|| {
        let call = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&to, time)?;
            stream.set_read_timeout(Some(time))?;
            stream.write_all(b"ask\n")?;
            let mut out = Vec::new();
            stream.read_to_end(&mut out)?;
            Ok(out)
        };
        call().map_or_else(|err| outcome_of(&err), |bytes| answer(&bytes))
    })
    .unwrap()
}

/// A UDP socket inside a namespace.
pub fn udp_socket(from: &NetNs, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    from.run(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        socket.connect(to).unwrap();
        socket
    })
    .unwrap()
}

/// Asks a UDP server once.
pub fn udp_ask(socket: &UdpSocket) -> Outcome {
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    let mut out = [0u8; 256];
    match socket.send(b"ask\n").and_then(|_| socket.recv(&mut out)) {
        Ok(len) => answer(&out[..len]),
        Err(err) => outcome_of(&err),
    }
}

/// Calls a UDP server from inside a namespace.
pub fn udp(from: &NetNs, to: &str) -> Outcome {
    udp_ask(&udp_socket(from, to))
}
