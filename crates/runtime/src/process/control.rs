//! The line between a shim and the child that becomes a container's process: the child's terminal and identity, or what
//! went wrong. It closes by itself when the program starts.

use crate::{ProcessUser, Result, sys::Context as _};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a child says.
#[derive(Debug)]
pub enum Message {
    /// The program's terminal.
    Console(OwnedFd),
    /// Who the program will be.
    User(ProcessUser),
    /// It cannot be started.
    Failed(String),
    /// It was started.
    Started,
}

/// The shim's end; not blocking.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub struct ChildEnd(OwnedFd);

const MAX: usize = 16 * 1024;

/// A new line.
pub fn pair() -> Result<(ParentEnd, ChildEnd)> {
    let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("making a control line")?;
    rustix::io::ioctl_fionbio(&a, true).context("making a control line")?;
    Ok((ParentEnd(a), ChildEnd(b)))
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ParentEnd {
    /// A new line.
    pub fn pair() -> Result<(ParentEnd, ChildEnd)> {
        pair()
    }

    /// The next message, or `None` if there is none yet.
    pub fn receive(&self) -> Option<Message> {
        let mut data = vec![0; MAX];
        let (len, fd) = match receive_with_fd(self.as_fd(), &mut data) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
            Err(e) => return Some(Message::Failed(format!("the control line broke: {e}"))),
        };
        let text = data.get(1..len).unwrap_or_default();
        Some(match (data[..len].first(), fd) {
            (None, _) => Message::Started,
            (Some(b'C'), Some(fd)) => Message::Console(fd),
            (Some(b'U'), _) => match serde_json::from_slice(text) {
                Ok(user) => Message::User(user),
                Err(e) => Message::Failed(format!("the control line broke: {e}")),
            },
            _ => Message::Failed(String::from_utf8_lossy(text).into_owned()),
        })
    }
}

impl ChildEnd {
    fn send(&self, kind: u8, text: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut data = vec![kind];
        data.extend(&text[..text.len().min(MAX - 1)]);
        send_with_fds(self.0.as_fd(), &data, fd.as_slice()).context("telling the shim")
    }

    /// Hands over the terminal's other side.
    pub fn console(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.send(b'C', b"", Some(fd))
    }

    /// Says who the program will be.
    pub fn user(&self, user: &ProcessUser) -> Result<()> {
        self.send(b'U', &serde_json::to_vec(user).unwrap_or_default(), None)
    }

    /// Says why the program cannot be started.
    pub fn failed(&self, message: &str) {
        // If the shim is gone nobody is left to be told.
        let _ = self.send(b'E', message.as_bytes(), None);
    }
}

/// Sends a packet with open files.
pub fn send_with_fds(to: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(rustix::io::Errno::INVAL);
    }
    rustix::net::sendmsg(to, &[IoSlice::new(data)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Receives a packet and at most one open file.
fn receive_with_fd(from: BorrowedFd<'_>, data: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let (len, fds) = receive_with_fds(from, data)?;
    Ok((len, fds.into_iter().next()))
}

/// Receives a packet and its open files. A packet larger than `data` is an error.
pub fn receive_with_fds(from: BorrowedFd<'_>, data: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(from, &mut [IoSliceMut::new(data)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = vec![];
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    Ok((got.bytes, fds))
}
