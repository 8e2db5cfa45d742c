//! Reading back what the kernel holds: names of chains and sets, elements, the generation.

use std::io;

use super::object::{Key, Table};
use super::{Nft, SUBSYSTEM};
use crate::nl::{Attrs, Writer, flags};

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETSET: u16 = 10;
const GETELEM: u16 = 13;
const GETGEN: u16 = 16;
/// `nfgenmsg` before the attributes.
const HEAD: usize = 4;

/// The names of what a table holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its base chains.
    pub base_chains: Vec<String>,
    /// Its other chains.
    pub chains: Vec<String>,
    /// Its named sets and maps.
    pub sets: Vec<String>,
}

/// An element read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadElement {
    /// Its key.
    pub key: Key,
    /// The value a map holds for it.
    pub value: Option<Key>,
}

impl Nft {
    /// The generation of the rules; it grows with every change of any table.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut found = None;
        let mut w = Writer::new();
        let mark = w.begin_netfilter(SUBSYSTEM << 8 | GETGEN, flags::REQUEST | flags::ACK, 1, 0, 0);
        w.end(mark);
        self.socket.request(w.bytes(), |_, body| found = body.get(HEAD..).and_then(|attrs| Attrs(attrs).u32(1)))?;
        found.ok_or_else(|| io::Error::other("the kernel told no generation of its rules"))
    }

    fn list(
        &mut self,
        kind: u16,
        table: Option<Table>,
        set: Option<&str>,
        mut each: impl FnMut(Attrs<'_>),
    ) -> io::Result<()> {
        let mut w = Writer::new();
        let family = table.map_or(0, |table| table.family.number());
        let mark = w.begin_netfilter(SUBSYSTEM << 8 | kind, flags::REQUEST | flags::DUMP, 1, family, 0);
        if let Some(table) = table {
            w.str(1, table.name);
        }
        if let Some(set) = set {
            w.str(2, set);
        }
        w.end(mark);
        self.socket.dump(w.bytes(), |_, body| {
            if let Some(attrs) = body.get(HEAD..) {
                each(Attrs(attrs));
            }
        })
    }

    /// Asks again when the answer was disturbed by a change.
    fn retry<T>(&mut self, mut ask: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        const ATTEMPTS: usize = 16;
        for _ in 1..ATTEMPTS {
            match ask(self) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        ask(self)
    }

    /// Whether a table exists.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn has_table(&mut self, table: Table) -> io::Result<bool> {
        self.retry(|nft| {
            let mut found = false;
            nft.list(GETTABLE, Some(table), None, |attrs| found |= attrs.str(1) == Some(table.name))?;
            Ok(found)
        })
    }

    /// The chains and sets of a table; nothing when it does not exist.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn contents(&mut self, table: Table) -> io::Result<Contents> {
        self.retry(|nft| {
            let mut out = Contents::default();
            nft.list(GETCHAIN, Some(table), None, |attrs| {
                if let (Some(of), Some(name)) = (attrs.str(1), attrs.str(3))
                    && of == table.name
                {
                    if attrs.get(4).is_some() { &mut out.base_chains } else { &mut out.chains }.push(name.to_owned());
                }
            })?;
            nft.list(GETSET, Some(table), None, |attrs| {
                const ANONYMOUS: u32 = 1;
                if let (Some(of), Some(name)) = (attrs.str(1), attrs.str(2))
                    && of == table.name
                    && attrs.u32(3).unwrap_or(0) & ANONYMOUS == 0
                {
                    out.sets.push(name.to_owned());
                }
            })
            .or_else(|err| {
                if err.raw_os_error() == Some(libc::ENOENT) || err.kind() == io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(err)
                }
            })?;
            Ok(out)
        })
    }

    /// The base chains of all tables that drop what no rule accepts: hook, table and chain.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn dropping_chains(&mut self) -> io::Result<Vec<(u32, String, String)>> {
        const DROP: u32 = 0;
        self.retry(|nft| {
            let mut out = Vec::new();
            nft.list(GETCHAIN, None, None, |attrs| {
                if let (Some(table), Some(name), Some(hook), Some(DROP)) =
                    (attrs.str(1), attrs.str(3), attrs.inside(4).u32(1), attrs.u32(5))
                {
                    out.push((hook, table.to_owned(), name.to_owned()));
                }
            })?;
            Ok(out)
        })
    }

    /// The elements of a set or map.
    ///
    /// # Errors
    /// When the set does not exist or the kernel cannot be asked.
    pub fn elements(&mut self, table: Table, set: &str) -> io::Result<Vec<ReadElement>> {
        self.retry(|nft| {
            let mut out = Vec::new();
            nft.list(GETELEM, Some(table), Some(set), |attrs| {
                for (_, element) in attrs.inside(3) {
                    let element = Attrs(element);
                    if let Some(key) = element.inside(1).get(1) {
                        out.push(ReadElement {
                            key: Key::from_bytes(key),
                            value: element.inside(2).get(1).map(Key::from_bytes),
                        });
                    }
                }
            })?;
            Ok(out)
        })
    }
}
