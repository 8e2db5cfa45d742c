//! What is accepted but told to the caller, where kinds have it in common.

use std::net::IpAddr;

use pintle_api::addresses::masked;
use pintle_api::names::{dns1123_label, label_value};
use pintle_api::quantity::Quantity;
use pintle_schema::cursor::Cursor;

use super::checks;

const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// Of a new object whose name becomes part of host names.
pub fn named(object: &Cursor<'_>, used_in: &str) -> Vec<String> {
    let wrong = dns1123_label(object.get("metadata").get("name").str());
    if wrong.is_empty() {
        return wrong;
    }
    vec![format!(
        "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
        wrong.join(" ")
    )]
}

/// What a deprecated label of nodes should be instead.
pub fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// Of a term of a node selector.
pub fn node_term(term: &Cursor<'_>, values: bool, out: &mut Vec<String>) {
    for expression in term.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(message) = node_label(key.str()) {
            out.push(format!("{key}: {} is {message}", key.str()));
        }
        for value in expression.get("values").items().filter(|_| values) {
            let wrong = label_value(value.str());
            out.extend(wrong.into_iter().map(|m| format!("{value}: {} is invalid, {m}", value.str())));
        }
    }
}

/// Requests and limits of bytes, by [`whole`].
pub fn whole_bytes(resources: &Cursor<'_>, names: &[&'static str], out: &mut Vec<String>) {
    for name in names {
        for list in ["limits", "requests"] {
            whole(&resources.get(list).key(name), out);
        }
    }
}

/// An amount of bytes must be whole, but validation lets old fractions through.
pub fn whole(at: &Cursor<'_>, out: &mut Vec<String>) {
    if let Ok(amount) = Quantity::parse(at.str())
        && amount.milli_value() % 1000 != 0
    {
        out.push(format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer"));
    }
}

/// An address that newer versions may refuse or that is written in an uncommon way.
pub fn ip(at: &Cursor<'_>, out: &mut Vec<String>) {
    let Some(address) = checks::parse_ip(at.str()) else { return };
    let strict = at.str().parse::<IpAddr>().ok();
    let mapped = matches!(strict, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    let plain = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    if strict.is_none() || mapped {
        out.push(format!("{at}: non-standard IP address \"{}\" is invalid: use \"{plain}\"", at.str()));
    } else if address.is_ipv6() && plain.to_string() != at.str() {
        out.push(format!("{at}: IPv6 address \"{}\" should be in RFC 5952 canonical format (\"{plain}\")", at.str()));
    }
}

/// A prefix that newer versions may refuse or that is written in an uncommon way.
pub fn cidr(at: &Cursor<'_>, out: &mut Vec<String>) {
    let Some((ip, length)) = checks::parse_cidr(at.str()) else { return };
    let (text, before) = (at.str(), out.len());
    let (address, digits) = text.split_once('/').unwrap_or_default();
    let mapped = ip.is_ipv4() && address.contains(':');
    let length = if mapped { length.saturating_sub(96) } else { length };
    let prefix = format!("{}/{length}", masked(ip, length));
    if masked(ip, length) != ip {
        let single = if ip.is_ipv4() { 32 } else { 128 };
        out.push(format!(
            "{at}: CIDR value \"{text}\" is ambiguous in this context (should be \"{prefix}\" or \"{ip}/{single}\"?)"
        ));
    }
    if mapped || address.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        out.push(format!("{at}: non-standard CIDR value \"{text}\" is invalid: use \"{prefix}\""));
    }
    if out.len() == before && ip.is_ipv6() && prefix != text {
        out.push(format!("{at}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{prefix}\")"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prefixes() {
        for (text, wanted) in [
            ("10.0.0.0/8", ""),
            (
                "10.1.0.0/8",
                "r: CIDR value \"10.1.0.0/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.0.0/32\"?)",
            ),
            ("010.0.0.0/8", "r: non-standard CIDR value \"010.0.0.0/8\" is invalid: use \"10.0.0.0/8\""),
            (
                "2001:DB8::/64",
                "r: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")",
            ),
        ] {
            let (value, mut out) = (json!(text), Vec::new());
            cidr(&Cursor::named(Some(&value), "r"), &mut out);
            assert_eq!(out.join("\n"), wanted);
        }
    }
}
