//! A batch: messages applied together or not at all, each remembered by name so that a refusal can be told.

use std::fmt;

use super::SUBSYSTEM;
use super::expr::Rule;
use super::object::{Chain, Element, Set, Table, remark};
use crate::nl::{Nack, Writer, flags};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Elements of one set are written in lists of at most this many bytes: an attribute's length has 16 bits.
const LIST_LIMIT: usize = 60_000;

/// Message numbers of nf_tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    DelRule = 8,
    NewSet = 9,
    DelSet = 11,
    NewElem = 12,
    DelElem = 14,
}

/// What a message was about, for errors.
#[derive(Debug, Clone)]
pub struct Subject {
    what: &'static str,
    table: Table,
    name: String,
}

/// One object the kernel refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    subject: Option<Subject>,
    /// The error number.
    pub errno: i32,
    reason: Option<String>,
}

impl Refusal {
    pub(super) fn resolve(nacks: Vec<Nack>, subjects: &[Subject]) -> Vec<Self> {
        nacks
            .into_iter()
            .map(|nack| Self {
                // Message 0 opens the batch.
                subject: (nack.seq as usize).checked_sub(1).and_then(|at| subjects.get(at)).cloned(),
                errno: nack.errno,
                reason: nack.reason,
            })
            .collect()
    }

    pub(super) fn list(refusals: &[Self]) -> String {
        const SHOWN: usize = 5;
        let mut text = refusals.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if refusals.len() > SHOWN {
            text.push_str(&format!("; and {} more", refusals.len() - SHOWN));
        }
        text
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(Subject { what, table, name }) => {
                write!(f, "{what} {name:?} (table {:?} {}): ", table.family, table.name)?
            }
            None => f.write_str("batch: ")?,
        }
        if let Some(reason) = &self.reason {
            write!(f, "{reason}: ")?;
        }
        write!(f, "{}", std::io::Error::from_raw_os_error(self.errno))
    }
}

/// A batch under construction.
#[derive(Debug, Default)]
pub struct Batch {
    writer: Writer,
    subjects: Vec<Subject>,
    next_set: u32,
    generation: Option<u32>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Makes the kernel refuse the batch unless the rules are still of this generation.
    pub fn only_at(&mut self, generation: u32) {
        self.generation = Some(generation);
    }

    fn message(
        &mut self,
        op: Op,
        extra: u16,
        table: Table,
        what: &'static str,
        name: &str,
        fill: impl FnOnce(&mut Writer),
    ) {
        let seq = u32::try_from(self.subjects.len() + 1).unwrap_or(u32::MAX);
        let mark = self.writer.begin_netfilter(
            SUBSYSTEM << 8 | op as u16,
            flags::REQUEST | extra,
            seq,
            table.family.number(),
            0,
        );
        fill(&mut self.writer);
        self.writer.end(mark);
        self.subjects.push(Subject { what, table, name: name.to_owned() });
    }

    /// Adds a table if it is not there.
    pub fn add_table(&mut self, table: Table, comment: &str) {
        self.message(Op::NewTable, flags::CREATE, table, "adding table", table.name, |w| {
            w.str(1, table.name);
            w.u32(2, 0);
            w.put(6, &remark(comment));
        });
    }

    /// Deletes a table and all in it; it must exist.
    pub fn delete_table(&mut self, table: Table) {
        self.message(Op::DelTable, 0, table, "deleting table", table.name, |w| w.str(1, table.name));
    }

    /// Makes sure a table is there and empty, whatever was in it.
    pub fn fresh_table(&mut self, table: Table, comment: &str) {
        self.add_table(table, comment);
        self.delete_table(table);
        self.add_table(table, comment);
    }

    /// Adds a chain if it is not there.
    pub fn add_chain(&mut self, table: Table, chain: &Chain<'_>) {
        self.message(Op::NewChain, flags::CREATE, table, "adding chain", chain.name, |w| {
            w.str(1, table.name);
            w.str(3, chain.name);
            if let Some(hook) = &chain.hook {
                w.nest(4, |w| {
                    w.u32(1, hook.point);
                    w.put(2, &hook.priority.to_be_bytes());
                });
                w.u32(5, u32::from(!hook.drop));
                w.str(7, hook.kind);
            }
        });
    }

    /// Adds a chain and its rules.
    pub fn chain<'r>(&mut self, table: Table, chain: &Chain<'_>, rules: impl IntoIterator<Item = &'r Rule>) {
        self.add_chain(table, chain);
        for rule in rules {
            self.add_rule(table, chain.name, rule);
        }
    }

    /// Deletes a chain and its rules; nothing may refer to it any more.
    pub fn delete_chain(&mut self, table: Table, name: &str) {
        self.flush_chain(table, name);
        self.message(Op::DelChain, 0, table, "deleting chain", name, |w| {
            w.str(1, table.name);
            w.str(3, name);
        });
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, table: Table, name: &str) {
        self.message(Op::DelRule, 0, table, "flushing chain", name, |w| {
            w.str(1, table.name);
            w.str(2, name);
        });
    }

    /// Deletes the rules of every chain of a table.
    pub fn flush_rules(&mut self, table: Table) {
        self.message(Op::DelRule, 0, table, "flushing the rules of table", table.name, |w| w.str(1, table.name));
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table, chain: &str, rule: &Rule) {
        self.message(Op::NewRule, flags::CREATE | flags::APPEND, table, "adding a rule to chain", chain, |w| {
            w.str(1, table.name);
            w.str(2, chain);
            rule.write(w);
        });
    }

    /// Adds a set or map if it is not there.
    pub fn add_set(&mut self, table: Table, set: &Set<'_>) {
        self.next_set += 1;
        let id = self.next_set;
        self.message(Op::NewSet, flags::CREATE, table, "adding set", set.name, |w| {
            w.str(1, table.name);
            w.str(2, set.name);
            set.write(w, id);
        });
    }

    /// Deletes a set with its elements; no rule may refer to it any more.
    pub fn delete_set(&mut self, table: Table, name: &str) {
        self.message(Op::DelSet, 0, table, "deleting set", name, |w| {
            w.str(1, table.name);
            w.str(2, name);
        });
    }

    /// Deletes every element of a set.
    pub fn flush_set(&mut self, table: Table, name: &str) {
        self.message(Op::DelElem, 0, table, "flushing set", name, |w| {
            w.str(1, table.name);
            w.str(2, name);
        });
    }

    /// Adds elements to a set or map.
    pub fn add_elements<'e>(&mut self, table: Table, set: &str, elements: impl IntoIterator<Item = &'e Element>) {
        self.elements(Op::NewElem, flags::CREATE, table, "adding elements to", set, elements);
    }

    /// Deletes elements, which must exist, from a set or map.
    pub fn delete_elements<'e>(&mut self, table: Table, set: &str, elements: impl IntoIterator<Item = &'e Element>) {
        self.elements(Op::DelElem, 0, table, "deleting elements of", set, elements);
    }

    fn elements<'e>(
        &mut self,
        op: Op,
        extra: u16,
        table: Table,
        what: &'static str,
        set: &str,
        elements: impl IntoIterator<Item = &'e Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.message(op, extra, table, what, set, |w| {
                w.str(1, table.name);
                w.str(2, set);
                let list = w.begin_nest(3);
                while let Some(element) = elements.next_if(|_| w.since(&list) < LIST_LIMIT) {
                    element.write(w, op == Op::NewElem);
                }
                w.end_nest(list);
            });
        }
    }

    /// The bytes to send, and what each message is about.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<Subject>) {
        let mut whole = Writer::new();
        let mark = whole.begin_netfilter(BATCH_BEGIN, flags::REQUEST, 0, 0, SUBSYSTEM);
        if let Some(generation) = self.generation {
            whole.u32(1, generation);
        }
        whole.end(mark);
        let end_seq = u32::try_from(self.subjects.len() + 1).unwrap_or(u32::MAX);
        let mut bytes = whole.bytes().to_vec();
        bytes.extend_from_slice(self.writer.bytes());
        let mut end = Writer::new();
        let mark = end.begin_netfilter(BATCH_END, flags::REQUEST, end_seq, 0, SUBSYSTEM);
        end.end(mark);
        bytes.extend_from_slice(end.bytes());
        (bytes, self.subjects)
    }
}
