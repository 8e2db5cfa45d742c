//! Patterns and named formats.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use cel::objects::{Opaque, Value};
use cel::{DeclarationError, Env};
use pintle_api::names;
use regex::Regex;

use super::budget::charge;
use super::{
    INT_TYPE, Outcome, Runtime, STRING_TYPE, fail, functions, int, none, opaque, some, string, text, value_of,
};

const FORMAT: &str = "kubernetes.NamedFormat";
/// The largest program a pattern may become, in bytes.
const PATTERN: usize = 1 << 20;

/// A format by its name.
#[derive(Debug, PartialEq, Eq)]
struct Format(&'static str);

impl Opaque for Format {
    fn runtime_type_name(&self) -> &str {
        FORMAT
    }
}

/// What is wrong with a text of a format.
type Check = fn(&str) -> Vec<String>;

fn wrong_unless(good: bool, message: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![message.to_owned()] }
}

const FORMATS: &[(&str, Check)] = &[
    ("dns1123Label", |s| list(names::dns1123_label(s))),
    ("dns1123Subdomain", |s| list(names::dns1123_subdomain(s))),
    ("dns1035Label", |s| list(names::dns1035_label(s))),
    ("qualifiedName", |s| list(names::qualified_name(s))),
    ("dns1123LabelPrefix", |s| list(names::dns1123_label(&names::beginning(s)))),
    ("dns1123SubdomainPrefix", |s| list(names::dns1123_subdomain(&names::beginning(s)))),
    ("dns1035LabelPrefix", |s| list(names::dns1035_label(&names::beginning(s)))),
    ("labelValue", |s| list(names::label_value(s))),
    ("uuid", |s| wrong_unless(uuid(s), "does not match the UUID format")),
    ("byte", |s| {
        let decoded = crate::b64::STANDARD.decode(s);
        wrong_unless(!s.is_empty() && decoded.is_ok(), "invalid base64")
    }),
    ("date", |s| {
        let good = s.len() == 10 && crate::time::parse(&format!("{s}T00:00:00Z"), false).is_ok();
        wrong_unless(good, "invalid date")
    }),
    ("datetime", |s| wrong_unless(crate::time::parse(s, false).is_ok(), "invalid datetime")),
];

fn list<S: Into<String>>(messages: Vec<S>) -> Vec<String> {
    messages.into_iter().map(Into::into).collect()
}

fn uuid(text: &str) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(i, _)| i).collect();
    let places = dashes.iter().all(|i| [8, 13, 18, 23].contains(i)) && matches!(dashes.len(), 0 | 4);
    hex.len() == 32 && places && hex.iter().all(u8::is_ascii_hexdigit)
}

fn format_of(name: &str) -> Option<&'static (&'static str, Check)> {
    FORMATS.iter().find(|(n, _)| *n == name)
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let format_type = || Runtime::new_opaque_type(FORMAT);
    functions!(env;
        g "@matches" (STRING_TYPE, STRING_TYPE) |a| Ok(Value::Bool(pattern(text(a, 1)?)?.is_match(text(a, 0)?)));
        m "find" (STRING_TYPE, STRING_TYPE) |a| {
            Ok(string(pattern(text(a, 1)?)?.find(text(a, 0)?).map_or("", |m| m.as_str())))
        };
        m "findAll" (STRING_TYPE, STRING_TYPE) |a| all(a, -1);
        m "findAll" (STRING_TYPE, STRING_TYPE, INT_TYPE) |a| all(a, int(a, 2)?);
        g "format.named" (STRING_TYPE) |a| {
            Ok(format_of(text(a, 0)?).map_or_else(none, |(name, _)| some(opaque(Format(name)))))
        };
        m "validate" (format_type(), STRING_TYPE) |a| {
            let name = value_of::<Format>(a, 0)?.0;
            let check = format_of(name).ok_or_else(|| fail("validate", "unknown format"))?.1;
            let wrong = check(text(a, 1)?);
            if wrong.is_empty() {
                return Ok(none());
            }
            Ok(some(Value::List(Arc::new(wrong.into_iter().map(string).collect()))))
        };
        g "jsonpatch.escapeKey" (STRING_TYPE) |a| Ok(string(text(a, 0)?.replace('~', "~0").replace('/', "~1")));
        g "format.dns1123Label" () |_| named("dns1123Label");
        g "format.dns1123Subdomain" () |_| named("dns1123Subdomain");
        g "format.dns1035Label" () |_| named("dns1035Label");
        g "format.qualifiedName" () |_| named("qualifiedName");
        g "format.dns1123LabelPrefix" () |_| named("dns1123LabelPrefix");
        g "format.dns1123SubdomainPrefix" () |_| named("dns1123SubdomainPrefix");
        g "format.dns1035LabelPrefix" () |_| named("dns1035LabelPrefix");
        g "format.labelValue" () |_| named("labelValue");
        g "format.uuid" () |_| named("uuid");
        g "format.byte" () |_| named("byte");
        g "format.date" () |_| named("date");
        g "format.datetime" () |_| named("datetime");
    )
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of all functions")]
fn named(name: &'static str) -> Outcome {
    Ok(opaque(Format(name)))
}

thread_local! {
    /// Patterns that the evaluation at work has used: its loops use the same again and again.
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// What a pattern costs that is not kept.
const NEW_PATTERN: u64 = 10_000;
const PATTERNS_KEPT: usize = 16;

/// Forgets the patterns: what the next evaluation costs does not depend on this one.
pub(super) fn forget() {
    PATTERNS.with_borrow_mut(HashMap::clear);
}

fn pattern(text: &str) -> Result<Regex, cel::ExecutionError> {
    if let Some(known) = PATTERNS.with_borrow(|all| all.get(text).cloned()) {
        return Ok(known);
    }
    charge(NEW_PATTERN)?;
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN).build();
    let built = built.map_err(|e| fail("find", format!("Illegal regex: {e}")))?;
    PATTERNS.with_borrow_mut(|all| {
        if all.len() >= PATTERNS_KEPT {
            all.clear();
        }
        all.insert(text.to_owned(), built.clone());
    });
    Ok(built)
}

fn all(args: &[Value], most: i64) -> Outcome {
    let re = pattern(text(args, 1)?)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = re.find_iter(text(args, 0)?).take(most).map(|m| string(m.as_str())).collect();
    Ok(Value::List(Arc::new(found)))
}
