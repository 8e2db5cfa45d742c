//! The kernel's classic filter programs: a binary search over system call numbers, then the argument conditions.

use super::{Arg, Op};
use crate::{Error, Result};
use libc::sock_filter;
use std::collections::BTreeMap;

/// System call number to alternatives: conditions and what to answer.
pub type Table = BTreeMap<u32, Vec<(Vec<Arg>, u32)>>;

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

const NR: u32 = 0;
const ARCH: u32 = 4;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn offset(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::invalid("seccomp profile: too large"))
}

/// The whole program: architecture first, then its table; whatever matches nothing gets `default`.
pub fn program(tables: &[(u32, Table)], default: u32) -> Result<Vec<sock_filter>> {
    let mut out = vec![insn(LD_ABS, 0, 0, ARCH)];
    for (arch, table) in tables {
        let mut body = vec![insn(LD_ABS, 0, 0, NR)];
        body.extend(search(&segments(table, default), default)?);
        // On another architecture jump over the body.
        out.push(insn(JEQ, 1, 0, *arch));
        out.push(insn(JA, 0, 0, offset(body.len())?));
        out.extend(body);
    }
    out.push(insn(RET, 0, 0, default));
    if out.len() > 4096 {
        return Err(Error::invalid(format!("seccomp profile: {} instructions, the kernel takes 4096", out.len())));
    }
    Ok(out)
}

/// What happens from a number on.
enum Leaf<'a> {
    Answer(u32),
    Conditions(&'a [(Vec<Arg>, u32)]),
}

fn segments(table: &Table, default: u32) -> Vec<(u32, Leaf<'_>)> {
    let mut out: Vec<(u32, Leaf<'_>)> = vec![(0, Leaf::Answer(default))];
    let mut next = 0;
    for (number, rules) in table {
        if *number > next {
            add(&mut out, next, Leaf::Answer(default));
        }
        let leaf = match rules.first() {
            Some((args, answer)) if args.is_empty() => Leaf::Answer(*answer),
            _ => Leaf::Conditions(rules),
        };
        add(&mut out, *number, leaf);
        next = number.saturating_add(1);
    }
    add(&mut out, next, Leaf::Answer(default));
    out
}

/// Adds a segment unless it answers the same as the one before it.
fn add<'a>(out: &mut Vec<(u32, Leaf<'a>)>, from: u32, leaf: Leaf<'a>) {
    match (out.last(), &leaf) {
        (Some((_, Leaf::Answer(a))), Leaf::Answer(b)) if a == b => {}
        (Some((start, _)), _) if *start == from => {
            out.pop();
            // The one now before it may answer the same.
            add(out, from, leaf);
        }
        _ => out.push((from, leaf)),
    }
}

fn search(segments: &[(u32, Leaf<'_>)], default: u32) -> Result<Vec<sock_filter>> {
    match segments {
        [] => Ok(vec![insn(RET, 0, 0, default)]),
        [(_, Leaf::Answer(a))] => Ok(vec![insn(RET, 0, 0, *a)]),
        [(_, Leaf::Conditions(rules))] => conditions(rules, default),
        _ => {
            let middle = segments.len() / 2;
            let left = search(&segments[..middle], default)?;
            let right = search(&segments[middle..], default)?;
            let mut out = vec![insn(JGE, 0, 1, segments[middle].0), insn(JA, 0, 0, offset(left.len())?)];
            out.extend(left);
            out.extend(right);
            Ok(out)
        }
    }
}

fn conditions(rules: &[(Vec<Arg>, u32)], default: u32) -> Result<Vec<sock_filter>> {
    let mut out = vec![];
    for (args, answer) in rules {
        let mut rule: Vec<sock_filter> = vec![];
        for arg in args {
            rule.extend(compare(arg));
        }
        rule.push(insn(RET, 0, 0, *answer));
        // FAIL stands for the end of the rule, which is known only now.
        let len = rule.len();
        for (i, ins) in rule.iter_mut().enumerate() {
            for jump in [&mut ins.jt, &mut ins.jf] {
                if *jump == FAIL {
                    *jump = u8::try_from(len - i - 1).map_err(|_| Error::invalid("seccomp rule: too long"))?;
                }
            }
        }
        out.extend(rule);
    }
    out.push(insn(RET, 0, 0, default));
    Ok(out)
}

const FAIL: u8 = 0xff;

#[allow(clippy::cast_possible_truncation)]
fn compare(a: &Arg) -> Vec<sock_filter> {
    let (high, low) = ((a.value >> 32) as u32, a.value as u32);
    let at = 16 + 8 * a.index;
    // Little-endian, as both architectures are: the low word comes first.
    let load_low = insn(LD_ABS, 0, 0, at);
    let load_high = insn(LD_ABS, 0, 0, at + 4);
    match a.op {
        Op::Eq => vec![load_high, insn(JEQ, 0, FAIL, high), load_low, insn(JEQ, 0, FAIL, low)],
        Op::Ne => vec![load_high, insn(JEQ, 0, 2, high), load_low, insn(JEQ, FAIL, 0, low)],
        Op::MaskedEq => {
            let (want_high, want_low) = ((a.value_two >> 32) as u32, a.value_two as u32);
            vec![
                load_high,
                insn(AND, 0, 0, high),
                insn(JEQ, 0, FAIL, want_high),
                load_low,
                insn(AND, 0, 0, low),
                insn(JEQ, 0, FAIL, want_low),
            ]
        }
        // Above in the high word decides for, unequal below decides against.
        Op::Ge => above(JGE, high, low, load_high, load_low),
        Op::Gt => above(JGT, high, low, load_high, load_low),
        Op::Lt => below(JGE, high, low, load_high, load_low),
        Op::Le => below(JGT, high, low, load_high, load_low),
    }
}

fn above(jump: u16, high: u32, low: u32, load_high: sock_filter, load_low: sock_filter) -> Vec<sock_filter> {
    vec![load_high, insn(JGT, 3, 0, high), insn(JEQ, 0, FAIL, high), load_low, insn(jump, 0, FAIL, low)]
}

fn below(jump: u16, high: u32, low: u32, load_high: sock_filter, load_low: sock_filter) -> Vec<sock_filter> {
    vec![load_high, insn(JGT, FAIL, 0, high), insn(JEQ, 0, 2, high), load_low, insn(jump, FAIL, 0, low)]
}
