//! Semantic versions.

use std::cmp::Ordering;

use cel::objects::{Opaque, Value};
use cel::{DeclarationError, Env, ExecutionError};

use super::{BOOL_TYPE, Outcome, Runtime, STRING_TYPE, fail, functions, opaque, text, value_of};

const NAME: &str = "kubernetes.Semver";

/// A semantic version. What was said of its build does not tell it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: String,
}

impl Opaque for Semver {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

fn identifiers(text: &str, numbers_are_plain: bool) -> bool {
    text.split('.').all(|id| {
        let known = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let number = id.bytes().all(|b| b.is_ascii_digit());
        !id.is_empty() && known && !(numbers_are_plain && number && id.len() > 1 && id.starts_with('0'))
    })
}

impl Semver {
    /// Reads a version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(c, p)| (c, Some(p)));
        if build.is_some_and(|b| !identifiers(b, false)) || pre.is_some_and(|p| !identifiers(p, true)) {
            return None;
        }
        let mut parts = core.split('.');
        let mut next = || {
            let part = parts.next()?;
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            if plain { part.parse().ok() } else { None }
        };
        let numbers = [next()?, next()?, next()?];
        parts.next().is_none().then(|| Self { numbers, pre: pre.unwrap_or_default().to_owned() })
    }

    /// Reads what is nearly a version: `v1.2`, `01.2.3`.
    #[must_use]
    pub fn parse_tolerant(text: &str) -> Option<Self> {
        let mut parts: Vec<String> = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(str::to_owned).collect();
        for part in parts.iter_mut().filter(|p| p.len() > 1) {
            let rest = part.trim_start_matches('0');
            *part = if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") };
        }
        if parts.len() < 3 {
            if parts.last()?.contains(['+', '-']) {
                return None;
            }
            parts.resize(3, "0".to_owned());
        }
        Self::parse(&parts.join("."))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after what leads up to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_release(&self.pre).cmp(&pre_release(&other.pre)),
        };
        self.numbers.cmp(&other.numbers).then_with(by_pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Identifiers of a pre-release in the order they compare: numbers below words.
fn pre_release(text: &str) -> Vec<(bool, u64, &str)> {
    let one = |id| match str::parse::<u64>(id) {
        Ok(n) => (false, n, ""),
        Err(_) => (true, 0, id),
    };
    text.split('.').map(one).collect()
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let v = || Runtime::new_opaque_type(NAME);
    functions!(env;
        g "semver" (STRING_TYPE) |a| made(read(a)?);
        g "semver" (STRING_TYPE, BOOL_TYPE) |a| made(read(a)?);
        g "isSemver" (STRING_TYPE) |a| Ok(Value::Bool(read(a)?.is_some()));
        g "isSemver" (STRING_TYPE, BOOL_TYPE) |a| Ok(Value::Bool(read(a)?.is_some()));
        m "isGreaterThan" (v(), v()) |a| Ok(Value::Bool(of(a, 0)? > of(a, 1)?));
        m "isLessThan" (v(), v()) |a| Ok(Value::Bool(of(a, 0)? < of(a, 1)?));
        m "compareTo" (v(), v()) |a| Ok(Value::Int(of(a, 0)?.cmp(of(a, 1)?) as i64));
        m "major" (v()) |a| part(a, 0);
        m "minor" (v()) |a| part(a, 1);
        m "patch" (v()) |a| part(a, 2);
    )
}

fn of(args: &[Value], at: usize) -> Result<&Semver, ExecutionError> {
    value_of(args, at)
}

fn read(args: &[Value]) -> Result<Option<Semver>, ExecutionError> {
    let tolerant = matches!(args.get(1), Some(Value::Bool(true)));
    Ok(if tolerant { Semver::parse_tolerant(text(args, 0)?) } else { Semver::parse(text(args, 0)?) })
}

fn made(version: Option<Semver>) -> Outcome {
    version.map(opaque).ok_or_else(|| fail("semver", "not a semantic version"))
}

fn part(args: &[Value], at: usize) -> Outcome {
    i64::try_from(of(args, 0)?.numbers[at]).map(Value::Int).map_err(|_| fail("semver", "out of range"))
}
