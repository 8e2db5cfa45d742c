//! The blocking netlink socket.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with, sockopt,
};

use super::attr::{Attrs, HEADER};
use crate::netns::NetNs;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOL_NETLINK_MSG_CAPPED: u16 = 0x100;
const SOL_NETLINK_EXT_TLVS: u16 = 0x200;
const EXT_ATTR_MSG: u16 = 1;
const DUMP_INTERRUPTED: u16 = 0x10;
const RECEIVE: usize = 1 << 16;

/// One refusal of the kernel: which message, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The sequence number of the refused message.
    pub seq: u32,
    /// The error number.
    pub errno: i32,
    /// The kernel's own words, when it has any.
    pub reason: Option<String>,
}

impl Nack {
    /// The refusal as an input/output error.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let err = io::Error::from_raw_os_error(self.errno);
        match self.reason {
            Some(reason) => io::Error::new(err.kind(), format!("{reason}: {err}")),
            None => err,
        }
    }
}

/// A netfilter netlink socket bound inside one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    send_buffer: usize,
}

impl Socket {
    /// Opens a socket that speaks to netfilter in `ns`.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink or refuses the socket.
    pub fn open(ns: &NetNs) -> io::Result<Self> {
        let fd = ns.run(|| -> io::Result<OwnedFd> {
            let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
            bind(&fd, &SocketAddrNetlink::new(0, 0))?;
            Ok(fd)
        })??;
        set_netlink_option(&fd, libc::NETLINK_EXT_ACK)?;
        set_netlink_option(&fd, libc::NETLINK_CAP_ACK)?;
        // Room for the answers of a large batch that is refused message by message.
        sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, 4 << 20))?;
        Ok(Self { fd, send_buffer: 0 })
    }

    /// Sends a batch and returns what the kernel refused; empty means all was done.
    ///
    /// # Errors
    /// When the batch cannot be sent at all.
    pub fn batch(&mut self, bytes: &[u8]) -> io::Result<Vec<Nack>> {
        self.send(bytes)?;
        let mut nacks = Vec::new();
        let mut overflow = None;
        // Everything was handled inside `send`; answers, if any, are waiting already.
        while self.waiting()? {
            let data = match self.receive() {
                Ok(data) => data,
                // More refusals than the buffer holds: those that fitted say enough.
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {
                    overflow = Some(err);
                    continue;
                }
                Err(err) => return Err(err),
            };
            for message in Messages(&data) {
                if message.kind == NLMSG_ERROR
                    && let Some(nack) = nack_of(&message)
                {
                    nacks.push(nack);
                }
            }
        }
        match overflow {
            Some(err) if nacks.is_empty() => Err(err),
            _ => Ok(nacks),
        }
    }

    /// Sends one dump request and gives the body (after the netlink header) of every answer to `each`.
    ///
    /// # Errors
    /// What the kernel answered; `Interrupted` when the set changed under the dump and it must be asked again.
    pub fn dump(&mut self, bytes: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(bytes)?;
        let mut interrupted = false;
        loop {
            let data = self.receive()?;
            for message in Messages(&data) {
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match nack_of(&message) {
                            Some(nack) => Err(nack.into_io()),
                            None => Ok(()),
                        };
                    }
                    NLMSG_NOOP => {}
                    kind => each(kind, message.body),
                }
            }
        }
    }

    /// Sends one request that is acknowledged, and gives the bodies of answers before the acknowledgement to `each`.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn request(&mut self, bytes: &[u8], each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.dump(bytes, each)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() + 4096 > self.send_buffer {
            let want = (bytes.len() + 4096).next_power_of_two().max(1 << 18);
            sockopt::set_socket_send_buffer_size_force(&self.fd, want)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, want))?;
            self.send_buffer = want;
        }
        let sent = sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn waiting(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buf = vec![0u8; RECEIVE];
        loop {
            match recv(&self.fd, buf.as_mut_slice(), RecvFlags::TRUNC) {
                Ok((_, len)) if len > RECEIVE => return Err(io::Error::other("a netlink answer was cut short")),
                Ok((read, _)) => {
                    buf.truncate(read);
                    return Ok(buf);
                }
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
}

fn set_netlink_option(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` is open; the option value points at an int that outlives the call, with its true size.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let head = self.0.get(..HEADER)?;
        let len = u32::from_ne_bytes(head[..4].try_into().ok()?) as usize;
        let body = self.0.get(HEADER..len)?;
        self.0 = self.0.get((len + 3) & !3..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            body,
        })
    }
}

/// Reads an error message; `None` when it is an acknowledgement.
fn nack_of(message: &Message<'_>) -> Option<Nack> {
    let errno = -i32::from_ne_bytes(message.body.get(..4)?.try_into().ok()?);
    if errno == 0 {
        return None;
    }
    let original = message.body.get(4..4 + HEADER)?;
    let seq = u32::from_ne_bytes(original[8..12].try_into().ok()?);
    let tlvs = if message.flags & SOL_NETLINK_EXT_TLVS == 0 {
        &[][..]
    } else if message.flags & SOL_NETLINK_MSG_CAPPED != 0 {
        &message.body[4 + HEADER..]
    } else {
        let len = u32::from_ne_bytes(original[..4].try_into().ok()?) as usize;
        message.body.get(4 + ((len + 3) & !3)..).unwrap_or_default()
    };
    let reason = Attrs(tlvs).str(EXT_ATTR_MSG).map(str::to_owned);
    Some(Nack { seq, errno, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_with_the_kernels_words() {
        let mut body = (-2i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&40u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&7u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&[7, 0, 1, 0, b'n', b'o', 0, 0]);
        let message = Message { kind: NLMSG_ERROR, flags: SOL_NETLINK_MSG_CAPPED | SOL_NETLINK_EXT_TLVS, body: &body };
        assert_eq!(nack_of(&message), Some(Nack { seq: 7, errno: 2, reason: Some("no".into()) }));
        let ack = [0u8; 20];
        assert_eq!(nack_of(&Message { kind: NLMSG_ERROR, flags: 0, body: &ack }), None);
    }

    #[test]
    fn cut_messages_are_not_read() {
        for bad in [&[0u8; 3][..], &[40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]] {
            assert_eq!(Messages(bad).count(), 0);
        }
    }
}
