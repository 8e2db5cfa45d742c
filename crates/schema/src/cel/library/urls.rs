//! URLs, as Go reads those of requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map, Opaque, Value};
use cel::{DeclarationError, Env, ExecutionError};

use super::{Outcome, Runtime, STRING_TYPE, fail, functions, opaque, string, text, value_of};

const NAME: &str = "kubernetes.URL";

#[derive(Debug, Default, PartialEq, Eq)]
struct CelUrl {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Opaque for CelUrl {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

/// What percent signs stand for; `None` where one stands alone.
fn unescaped(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => out.push(b' '),
            b => out.push(b),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Whether a byte stays as it is in a path.
fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(&b)
}

impl CelUrl {
    fn parse(all: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("URL parse error during conversion from string: parse {all:?}: {why}");
        if all.is_empty() {
            return Err(wrong("empty url"));
        }
        if all.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(wrong("net/url: invalid control character in URL"));
        }
        let mut url = Self::default();
        let end = all.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(all.len());
        let mut rest = all;
        if all[end..].starts_with(':') {
            if end == 0 {
                return Err(wrong("missing protocol scheme"));
            }
            if all.starts_with(|c: char| c.is_ascii_alphabetic()) {
                url.scheme = all[..end].to_lowercase();
                rest = &all[end + 1..];
            }
        }
        if let Some((before, query)) = rest.split_once('?') {
            (rest, url.query) = (before, query.to_owned());
        }
        if !rest.starts_with('/') {
            if url.scheme.is_empty() {
                return Err(wrong("invalid URI for request"));
            }
            // What follows has no parts.
            return Ok(url);
        }
        if let Some(after) = rest.strip_prefix("//").filter(|_| !url.scheme.is_empty()) {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let after = if host.starts_with('[') {
                let end = host.find(']').ok_or_else(|| wrong("missing ']' in host"))?;
                &host[end + 1..]
            } else {
                host.find(':').map_or("", |i| &host[i..])
            };
            let number = after.strip_prefix(':').unwrap_or(after);
            if (!after.is_empty() && !after.starts_with(':')) || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong(&format!("invalid port {after:?} after host")));
            }
            if let Some(bad) = host.chars().find(|c| " \"<>\\^`{|}#".contains(*c)) {
                return Err(wrong(&format!("invalid character {:?} in host name", bad.to_string())));
            }
            url.host = unescaped(host, false).ok_or_else(|| wrong("invalid URL escape"))?;
            rest = path;
        }
        let decoded = unescaped(rest, false).ok_or_else(|| wrong("invalid URL escape"))?;
        let as_it_is = rest.bytes().all(|b| plain(b) || b == b'%');
        url.path = if as_it_is { rest.to_owned() } else { escaped(&decoded) };
        Ok(url)
    }

    fn split_host(&self) -> (&str, &str) {
        match self.host.strip_prefix('[').and_then(|h| h.split_once(']')) {
            Some((name, port)) => (name, port.trim_start_matches(':')),
            None => self.host.rsplit_once(':').unwrap_or((&self.host, "")),
        }
    }

    fn query(&self) -> Value {
        let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) {
                all.entry(key).or_default().push(string(value));
            }
        }
        let entry = |(k, v): (String, Vec<Value>)| (Key::String(Arc::new(k)), Value::List(Arc::new(v)));
        Value::Map(Map { map: Arc::new(all.into_iter().map(entry).collect::<HashMap<_, _>>()) })
    }
}

fn escaped(path: &str) -> String {
    let one = |b: u8| {
        // Go leaves these to be escaped when it writes a path itself.
        if plain(b) && !b"!'()*[]".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }
    };
    path.bytes().map(one).collect()
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let url_type = || Runtime::new_opaque_type(NAME);
    functions!(env;
        g "url" (STRING_TYPE) |a| CelUrl::parse(text(a, 0)?).map(opaque).map_err(|e| fail("url", e));
        g "isURL" (STRING_TYPE) |a| Ok(Value::Bool(CelUrl::parse(text(a, 0)?).is_ok()));
        m "getScheme" (url_type()) |a| said(a, |u| &u.scheme);
        m "getHost" (url_type()) |a| said(a, |u| &u.host);
        m "getHostname" (url_type()) |a| said(a, |u| u.split_host().0);
        m "getPort" (url_type()) |a| said(a, |u| u.split_host().1);
        m "getEscapedPath" (url_type()) |a| said(a, |u| &u.path);
        m "getQuery" (url_type()) |a| Ok(of(a)?.query());
    )
}

fn of(args: &[Value]) -> Result<&CelUrl, ExecutionError> {
    value_of(args, 0)
}

fn said(args: &[Value], what: fn(&CelUrl) -> &str) -> Outcome {
    Ok(string(what(of(args)?)))
}
