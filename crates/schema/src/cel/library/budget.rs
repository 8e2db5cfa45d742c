//! What an evaluation may cost. [`super::super::lower`] puts calls of these functions into every expression, so that
//! none goes on for ever or makes more than memory holds, whatever values it meets.

use std::cell::Cell;

use cel::common::types::{CelBytes, CelList, CelMap, CelString};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{DYN_TYPE, fail};
use crate::cel::lower::{CHARGED, CONTINUES, FITS, TURN};

/// What cel-go says.
const EXCEEDED: &str = "operation cancelled: actual cost limit exceeded";
/// How much of a text or of bytes one unit is for.
const OF_TEXT: u64 = 10;

thread_local! {
    /// What is left to the evaluation that this thread is at; none when it wanted more.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs an evaluation that may cost so much; what is left is there afterwards.
///
/// # Errors
/// Its own, or that it was too much.
pub(super) fn within<T>(left: &mut u64, run: impl FnOnce() -> Result<T, ExecutionError>) -> Result<T, String> {
    LEFT.set(Some(*left));
    let result = run();
    super::texts::forget();
    let rest = LEFT.replace(None);
    *left = rest.unwrap_or(0);
    if rest.is_none() {
        return Err(EXCEEDED.to_owned());
    }
    result.map_err(|e| e.to_string())
}

/// Takes so much.
pub(super) fn charge(units: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().and_then(|left| left.checked_sub(units));
    LEFT.set(left);
    // What the function fails with is seen by nobody: an evaluation that has cost too much has no result.
    if left.is_some() { Ok(()) } else { Err(fail("cost", EXCEEDED)) }
}

/// How much there is to look at in a value.
fn size(value: &dyn Val) -> u64 {
    let of_text = |length: usize| 1 + length as u64 / OF_TEXT;
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        of_text(text.inner().len())
    } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        of_text(bytes.inner().len())
    } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        1 + list.inner().iter().map(|item| size(&**item)).sum::<u64>()
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        1 + map.inner().iter().map(|(key, value)| size(key.inner()) + size(&**value)).sum::<u64>()
    } else {
        1
    }
}

/// The last of what was given.
fn last<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    args.pop().ok_or_else(|| fail("cost", "no arguments"))
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(CHARGED, "@charged(dyn)", vec![DYN_TYPE], |args| {
        charge(args.iter().map(|a| size(&**a)).sum())?;
        last(args)
    })?;
    env.add_overload(TURN, "@turn(dyn, dyn)", vec![DYN_TYPE, DYN_TYPE], |args| {
        charge(1 + args.first().map_or(0, |item| size(&**item)))?;
        last(args)
    })?;
    env.add_overload(CONTINUES, "@continues(dyn)", vec![DYN_TYPE], |args| {
        charge(0)?;
        last(args)
    })?;
    for (id, count) in [("@fits(dyn, dyn)", 2), ("@fits(dyn, dyn, dyn)", 3), ("@fits(dyn, dyn, dyn, dyn)", 4)] {
        env.add_overload(FITS, id, (0..count).map(|_| DYN_TYPE).collect(), |mut args| {
            charge(args.iter().fold(1, |all, a| all.saturating_mul(size(&**a))))?;
            args.truncate(1);
            last(args)
        })?;
    }
    Ok(())
}
