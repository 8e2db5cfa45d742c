//! Checks of texts and numbers: each says what is wrong, in upstream's words; nothing when all is well.

use pintle_api::addresses::masked;
use pintle_api::names::{dns1123_label, dns1123_subdomain, max_len_error, regex_error};
use pintle_schema::cursor::{Cursor, Errors};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Upstream's words for a number that is zero or below.
pub const NOT_POSITIVE: &str = "must be greater than zero";

/// `must be between LO and HI, inclusive`
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { vec![] } else { vec![between(1, 65535)] }
}

/// The name of a port (RFC 6335, lower case).
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let bytes = name.as_bytes();
    if bytes.len() > 15 {
        errors.push(max_len_error(15));
    }
    if bytes.is_empty() || !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// A port's number or name, at the cursor.
pub fn port(at: &Cursor<'_>, errors: &mut Errors) {
    let found = match at.opt_str() {
        Some(name) => port_name(name),
        None => port_number(at.int()),
    };
    for message in found {
        errors.invalid_value(at, at.value().cloned().unwrap_or_else(|| 0.into()), message);
    }
}

fn dots(name: &str) -> Option<String> {
    match name {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if name.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// The name of an environment variable.
pub fn env_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push("environment variable name must be non-empty".into());
    }
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push(max_len_error(253));
    }
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(dots(key));
    errors
}

/// The name of an HTTP header.
pub fn http_header(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return vec![];
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A C identifier.
pub fn c_identifier(name: &str) -> Vec<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.bytes().all(ok) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) {
        return vec![];
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A DNS subdomain whose labels may begin with and hold underscores: resolver search domains.
pub fn subdomain_with_underscore(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(max_len_error(253));
    }
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        let l = l.strip_prefix('_').unwrap_or(l).as_bytes();
        l.first().is_some_and(|b| alnum(*b))
            && l.last().is_some_and(|b| alnum(*b))
            && l.iter().all(|b| alnum(*b) || b"-_".contains(b))
    };
    if !name.split('.').all(label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// `*.` and a DNS subdomain.
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(max_len_error(253));
    }
    if name.strip_prefix("*.").is_none_or(|rest| !dns1123_subdomain(rest).is_empty()) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    errors
}

/// `80%`
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return vec![];
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

/// A user or group id.
pub fn user_id(id: i64) -> Vec<String> {
    let max = i64::from(i32::MAX);
    if (0..=max).contains(&id) { vec![] } else { vec![between(0, max)] }
}

/// A name of at least three segments, at the cursor.
pub fn fully_qualified(at: &Cursor<'_>, errors: &mut Errors) {
    let name = at.str();
    let found = dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(at, "");
    } else if !found.is_empty() {
        errors.invalid(at, found.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(at, "should be a domain with at least three segments separated by dots");
    }
}

/// A DNS label at the cursor.
pub fn label(at: &Cursor<'_>, errors: &mut Errors) {
    super::meta::invalid_each(at, dns1123_label(at.str()), errors);
}

/// A DNS subdomain at the cursor.
pub fn subdomain(at: &Cursor<'_>, errors: &mut Errors) {
    super::meta::invalid_each(at, dns1123_subdomain(at.str()), errors);
}

/// A value out of a set, at the cursor; `required` complains of none with `Required value`.
pub fn one_of(at: &Cursor<'_>, allowed: &[&str], required: bool, errors: &mut Errors) {
    match at.str() {
        "" if required => errors.required(at, ""),
        "" if at.is_absent() => {}
        value if allowed.contains(&value) => {}
        value => errors.not_supported(at, value, allowed),
    }
}

/// An address as Go reads it: leading zeros are dropped, and an IPv4 address written as IPv6 is one of IPv4.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let ip: Ipv6Addr = text.parse().ok()?;
        return Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part
            .trim_start_matches('0')
            .parse()
            .or_else(|e| if part.bytes().all(|b| b == b'0') { Ok(0) } else { Err(e) })
            .ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// A prefix as Go reads it: the address and the length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let ip = parse_ip(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    // An IPv4 address written as IPv6 has a length counted in IPv6 bits.
    let max = if ip.is_ipv4() && !address.contains(':') { 32 } else { 128 };
    (length <= max).then_some((ip, length))
}

/// What is wrong with an address, be it written canonically or not.
pub fn ip_text(text: &str) -> Option<&'static str> {
    match (parse_ip(text), text.parse::<IpAddr>()) {
        (None, _) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        (Some(_), Err(_)) => Some("must not have leading 0s"),
        (Some(_), Ok(IpAddr::V6(v6))) if v6.to_ipv4_mapped().is_some() => {
            Some("must not be an IPv4-mapped IPv6 address")
        }
        _ => None,
    }
}

/// An address in a field that once took all that Go reads; what the stored object had passes.
pub fn legacy_ip(at: &Cursor<'_>, stored: &HashSet<&str>, errors: &mut Errors) {
    if !stored.contains(at.str()) {
        new_ip(at, errors);
    }
}

/// An address that need not be in its canonical form.
pub fn new_ip(at: &Cursor<'_>, errors: &mut Errors) {
    if let Some(wrong) = ip_text(at.str()) {
        errors.invalid(at, wrong);
    }
}

/// An address in its one canonical form.
pub fn strict_ip(at: &Cursor<'_>, errors: &mut Errors) {
    let before = errors.len();
    new_ip(at, errors);
    if errors.len() == before
        && let Some(ip) = parse_ip(at.str()).map(|ip| ip.to_string()).filter(|ip| ip != at.str())
    {
        errors.invalid(at, format!("must be in canonical form (\"{ip}\")"));
    }
}

/// What is wrong with a prefix, be it written canonically or not.
pub fn cidr_text(text: &str) -> Option<&'static str> {
    let Some((ip, length)) = parse_cidr(text) else {
        return Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let (address, digits) = text.split_once('/').unwrap_or_default();
    if ip.is_ipv4() && address.contains(':') {
        Some("must not have an IPv4-mapped IPv6 address")
    } else if address.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        Some("must not have leading 0s in IP or prefix length")
    } else if masked(ip, length) != ip {
        Some("must not have bits set beyond the prefix length")
    } else {
        None
    }
}

/// A prefix that need not be in its canonical form.
pub fn new_cidr(at: &Cursor<'_>, errors: &mut Errors) {
    if let Some(wrong) = cidr_text(at.str()) {
        errors.invalid(at, wrong);
    }
}

/// A prefix in its one canonical form.
pub fn strict_cidr(at: &Cursor<'_>, errors: &mut Errors) {
    let before = errors.len();
    new_cidr(at, errors);
    if errors.len() == before
        && let Some((ip, length)) = parse_cidr(at.str())
    {
        let canonical = format!("{}/{length}", masked(ip, length));
        if canonical != at.str() {
            errors.invalid(at, format!("must be in canonical form (\"{canonical}\")"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts() {
        for (f, ok, bad) in [
            (
                port_name as fn(&str) -> Vec<String>,
                &["a", "http-2"][..],
                &["", "A", "1", "a--b", "-a", "abcdefghijklmnop"][..],
            ),
            (env_name, &["a", "A B", "1", "a-b.c"], &["", "a=b", "é", "a\n"]),
            (config_key, &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b", "a b"]),
            (http_header, &["X-A1"], &["", "X_A", "a:"]),
            (c_identifier, &["_", "a1"], &["", "1a", "a-b"]),
            (subdomain_with_underscore, &["a", "_a.b_c.d"], &["", "a_", "-a", "__a"]),
            (wildcard_subdomain, &["*.a", "*.a.b"], &["*", "*.", "a.b", "*.*.a"]),
            (percent, &["0%", "100%"], &["", "%", "1", "1.5%"]),
        ] {
            for s in ok {
                assert!(f(s).is_empty(), "{s:?}: {:?}", f(s));
            }
            for s in bad {
                assert!(!f(s).is_empty(), "{s:?}");
            }
        }
    }

    #[test]
    fn addresses() {
        let ip = |s: &str| parse_ip(s).map(|ip| ip.to_string());
        assert_eq!(ip("010.000.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(ip("::ffff:1.2.3.4").as_deref(), Some("1.2.3.4"));
        for bad in ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "a.b.c.d", "1..2.3", "::1%lo", "fe80::1/64"] {
            assert_eq!(ip(bad), None, "{bad}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "::/129"] {
            assert_eq!(parse_cidr(bad), None, "{bad}");
        }
        let strict = |f: fn(&Cursor<'_>, &mut Errors), text: &str, expect: &str| {
            let value = json!({ "x": text });
            let mut errors = Errors::new();
            f(&Cursor::root(&value).get("x"), &mut errors);
            let got = errors.iter().map(|e| e.detail.clone()).collect::<Vec<_>>().join(";");
            assert_eq!(got, expect, "{text}");
        };
        strict(new_ip, "2001:DB8::1", "");
        strict(new_ip, "1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        strict(new_ip, "010.0.0.1", "must not have leading 0s");
        strict(new_ip, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address");
        strict(new_cidr, "2001:DB8::/32", "");
        strict(new_cidr, "::ffff:1.2.3.0/120", "must not have an IPv4-mapped IPv6 address");
        strict(new_cidr, "10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        strict(strict_ip, "10.0.0.1", "");
        strict(strict_ip, "10.0.0.01", "must not have leading 0s");
        strict(strict_ip, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address");
        strict(strict_ip, "2001:DB8::1", "must be in canonical form (\"2001:db8::1\")");
        strict(strict_cidr, "10.0.0.0/8", "");
        strict(strict_cidr, "0.0.0.0/0", "");
        strict(strict_cidr, "10.1.0.0/8", "must not have bits set beyond the prefix length");
        strict(strict_cidr, "10.0.0.0/08", "must not have leading 0s in IP or prefix length");
        strict(strict_cidr, "2001:DB8::/32", "must be in canonical form (\"2001:db8::/32\")");
    }
}
