//! Semantic versions.

use std::cmp::Ordering;

use cel::objects::{Opaque, Value};
use cel::{DeclarationError, Env, ExecutionError};
use semver::Version;

use super::{BOOL_TYPE, Outcome, Runtime, STRING_TYPE, fail, functions, opaque, text, value_of};

const NAME: &str = "kubernetes.Semver";

/// A semantic version. What was said of its build does not tell it from others.
#[derive(Clone, Debug)]
pub struct Semver(Version);

impl Opaque for Semver {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

impl Semver {
    /// Reads a version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Version::parse(text).ok().map(Self)
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
        self.0.cmp_precedence(&other.0)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Semver {}

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
        m "major" (v()) |a| part(of(a, 0)?.0.major);
        m "minor" (v()) |a| part(of(a, 0)?.0.minor);
        m "patch" (v()) |a| part(of(a, 0)?.0.patch);
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

fn part(number: u64) -> Outcome {
    i64::try_from(number).map(Value::Int).map_err(|_| fail("semver", "out of range"))
}
