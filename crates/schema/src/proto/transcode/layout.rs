//! How messages of types are laid out.

use super::super::wire::Writer;
use super::super::write;
use crate::table::{Base, Field, Form, Member, Type, types};
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

/// How many bytes of a field's beginning are compared at once.
pub(super) const WORD: usize = size_of::<u64>();

/// How a type's message is laid out: what is needed of the table of types, close together.
pub(super) struct Layout {
    pub(super) steps: Box<[Step]>,
    /// What each field begins with in text, its name in quotes and the colon: the first eight bytes, and the next.
    pub(super) starts: [Box<[Word]>; 2],
    /// What is written for members that are absent, one after the other.
    zeros: Box<[u8]>,
    /// Where each member's begins in there, and where the last one's ends.
    zeros_at: Box<[u32]>,
    /// Whether the fields stand in the order of their numbers.
    pub(super) sorted: bool,
}

/// A field.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) base: Base,
    pub(super) form: Form,
    /// Which member of the message it is (in), if any.
    pub(super) member: Option<u8>,
    /// Which of all fields it is in the message, those of messages within where these are.
    pub(super) rank: u8,
    /// How long its name is, in quotes and with the colon.
    pub(super) length: u8,
}

/// Up to eight bytes, and which bits they are.
pub(super) struct Word(u64, u64);

impl Word {
    fn new(bytes: &[u8]) -> Self {
        let (mut word, mut bits) = ([0; WORD], [0; WORD]);
        for ((word, bits), byte) in word.iter_mut().zip(&mut bits).zip(bytes) {
            (*word, *bits) = (*byte, 0xff);
        }
        Word(u64::from_le_bytes(word), u64::from_le_bytes(bits))
    }

    /// Whether eight bytes begin with it.
    pub(super) fn begins(&self, eight: u64) -> bool {
        (eight ^ self.0) & self.1 == 0
    }
}

static LAYOUTS: LazyLock<Box<[OnceLock<Layout>]>> = LazyLock::new(|| types().map(|_| OnceLock::new()).collect());

impl Layout {
    pub(super) fn of(ty: &'static Type) -> &'static Self {
        LAYOUTS[ty.index()].get_or_init(|| Self::new(ty))
    }

    fn new(ty: &'static Type) -> Self {
        let step = |f: &Field| {
            let length = u8::try_from(f.name.len() + 3).unwrap_or(u8::MAX);
            Step { number: f.number, base: f.base, form: f.form, member: None, rank: 0, length }
        };
        let mut steps: Box<[Step]> = ty.fields.iter().map(step).collect();
        let (mut zeros, mut zeros_at) = (vec![], vec![0]);
        let mut sorted = true;
        for (place, member) in (0u8..).zip(&ty.message) {
            match *member {
                Member::Field(at) => {
                    steps[usize::from(at)].member = Some(place);
                    let zero = write::part(64, |out| write::field(out, None, &ty.fields[usize::from(at)]));
                    zeros.extend_from_slice(zero.written());
                }
                Member::Inline { number, ty, start } => {
                    sorted = false;
                    let ty = ty.get();
                    let within = steps.iter_mut().skip(usize::from(start)).take(ty.fields.len());
                    within.for_each(|step| step.member = Some(place));
                    let mut zero = Writer::with_capacity(64);
                    zero.bytes_field(number, &Self::of(ty).zeros);
                    zeros.extend_from_slice(zero.written());
                }
            }
            zeros_at.push(zeros.len() as u32);
        }
        rank(ty, 0, &mut 0, &mut steps);
        sorted &= steps.iter().filter_map(|step| step.member).is_sorted();
        let starts = [0, WORD].map(|from| {
            let word = |f: &Field| Word::new(format!("\"{}\":", f.name).as_bytes().get(from..).unwrap_or_default());
            ty.fields.iter().map(word).collect()
        });
        Layout { steps, starts, zeros: zeros.into(), zeros_at: zeros_at.into(), sorted }
    }

    /// What is written for these members when they are absent.
    pub(super) fn zeros(&self, members: Range<usize>) -> &[u8] {
        &self.zeros[self.zeros_at[members.start] as usize..self.zeros_at[members.end] as usize]
    }
}

/// Numbers the fields in the order of messages.
fn rank(ty: &'static Type, begin: usize, next: &mut u8, steps: &mut [Step]) {
    for member in &ty.message {
        match *member {
            Member::Field(at) => {
                steps[begin + usize::from(at)].rank = *next;
                *next += 1;
            }
            Member::Inline { ty, start, .. } => rank(ty.get(), begin + usize::from(start), next, steps),
        }
    }
}
