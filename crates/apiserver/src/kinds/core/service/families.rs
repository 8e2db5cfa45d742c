//! Which IP families a service has: what the user said, what follows from the addresses, and the cluster's default.

use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};
use std::net::IpAddr;

use super::{cluster_ips, is_headless, kind, validate};
use crate::kinds::{checks, value};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The name in `spec.ipFamilies`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The family of this name.
    pub fn named(name: &str) -> Option<Family> {
        [Family::V4, Family::V6].into_iter().find(|f| f.name() == name)
    }

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn other(self) -> Family {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

const FAMILIES: &[&str] = &["spec", "ipFamilies"];
const POLICY: &[&str] = &["spec", "ipFamilyPolicy"];
const CLUSTER_IPS: &[&str] = &["spec", "clusterIPs"];

/// The families of a service.
pub fn families(service: &Value) -> Vec<Family> {
    value::items_at(service, FAMILIES).iter().filter_map(Value::as_str).filter_map(Family::named).collect()
}

fn policy(service: &Value) -> &str {
    value::str_at(service, POLICY)
}

fn add_family(service: &mut Value, family: Family) {
    match value::entry(service, FAMILIES).map(Value::take) {
        Some(Value::Array(mut list)) => {
            list.push(family.name().into());
            value::set(service, FAMILIES, list);
        }
        _ => value::set(service, FAMILIES, json!([family.name()])),
    }
}

/// Makes `clusterIP` and `clusterIPs` agree where a client that knows only one of them wrote.
pub fn pair_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let one = value::str_at(new, &["spec", "clusterIP"]).to_owned();
    let none_given = value::items_at(new, CLUSTER_IPS).is_empty();
    let Some(old) = old else {
        if !one.is_empty() && none_given {
            value::set(new, CLUSTER_IPS, json!([one]));
        }
        return;
    };
    let old_one = value::str_at(old, &["spec", "clusterIP"]);
    if none_given && old_one == one {
        value::copy(new, old, CLUSTER_IPS);
    }
    if old_one != one && value::same(value::at(new, CLUSTER_IPS), value::at(old, CLUSTER_IPS)) {
        if one.is_empty() {
            value::remove(new, CLUSTER_IPS);
        } else {
            value::set(new, CLUSTER_IPS, json!([one]));
        }
    }
}

/// When a service is to have one family again, the second address and family the user left in place go.
fn trim_on_downgrade(new: &mut Value, old: &Value) {
    if policy(new) != "SingleStack" {
        return;
    }
    for path in [CLUSTER_IPS, FAMILIES] {
        let same = value::same(value::at(new, path), value::at(old, path));
        if let [first, _] = value::items_at(new, path)
            && same
        {
            let first = json!([first]);
            value::set(new, path, first);
        }
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy`. `configured` are the cluster's families, the default first.
pub fn fill(new: &mut Value, old: Option<&Value>, configured: &[Family]) -> Result<(), Errors> {
    if kind(new) == "ExternalName" {
        return Ok(());
    }
    if let Some(old) = old {
        // A PreferDualStack service keeps what it has when nothing about it changed, also when the cluster has gained
        // or lost a family meanwhile.
        let same = |path: &[&str]| value::same(value::at(new, path), value::at(old, path));
        if policy(old) == "PreferDualStack"
            && kind(old) == kind(new)
            && same(POLICY)
            && same(FAMILIES)
            && same(CLUSTER_IPS)
        {
            return Ok(());
        }
        trim_on_downgrade(new, old);
    }
    let mut errors = Errors::new();
    let old_cursor = old.map(Cursor::root);
    validate::cluster_ip_fields(&Cursor::root(new), old_cursor.as_ref(), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let from_ips: Vec<Family> = cluster_ips(new).into_iter().filter_map(checks::parse_ip).map(Family::of).collect();
    for family in from_ips.iter().skip(value::items_at(new, FAMILIES).len()) {
        add_family(new, *family);
    }
    if policy(new).is_empty() && (from_ips.len() == 2 || value::items_at(new, FAMILIES).len() == 2) {
        value::set(new, POLICY, "RequireDualStack");
    }
    let default = configured.first().copied().unwrap_or(Family::V4);
    let selects = value::at(new, &["spec", "selector"]).and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    if is_headless(new) && !selects {
        // Its endpoints are the user's, of whatever family, also on a cluster that has only one.
        if policy(new).is_empty() {
            let single = !value::items_at(new, FAMILIES).is_empty() && value::items_at(new, FAMILIES).len() == 1;
            value::set(new, POLICY, if single { "SingleStack" } else { "RequireDualStack" });
        }
        if value::items_at(new, FAMILIES).is_empty() {
            add_family(new, default);
        }
        if policy(new) != "SingleStack"
            && let [one] = families(new)[..]
        {
            add_family(new, one.other());
        }
        return Ok(());
    }
    if policy(new).is_empty() {
        value::set(new, POLICY, "SingleStack");
    }
    {
        let spec = Cursor::root(new).get("spec");
        if policy(new) == "RequireDualStack" && configured.len() < 2 {
            errors.invalid(&spec.get("ipFamilyPolicy"), "this cluster is not configured for dual-stack services");
        }
        for family in spec.get("ipFamilies").items() {
            if Family::named(family.str()).is_none_or(|f| !configured.contains(&f)) {
                errors.invalid(&family, "not configured on this cluster");
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if value::items_at(new, FAMILIES).is_empty() {
        add_family(new, default);
    }
    if policy(new) != "SingleStack"
        && configured.len() > 1
        && let [one] = families(new)[..]
    {
        add_family(new, one.other());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills() {
        let check = |spec: Value, configured: &[Family], expect: Result<(&str, &[&str]), &str>| {
            let mut service = json!({"spec": spec});
            value::set(&mut service, &["spec", "type"], "ClusterIP");
            pair_cluster_ips(&mut service, None);
            match (fill(&mut service, None, configured), expect) {
                (Ok(()), Ok((want, names))) => {
                    assert_eq!(
                        (policy(&service), value::items_at(&service, FAMILIES)),
                        (want, &*json!(names).as_array().unwrap().clone())
                    );
                }
                (Err(errors), Err(text)) => assert_eq!(errors.to_string(), text),
                (got, want) => panic!("{service}: {got:?}, not {want:?}"),
            }
        };
        let (one, both) = (&[Family::V4][..], &[Family::V4, Family::V6][..]);
        check(json!({"selector": {"a": "b"}}), one, Ok(("SingleStack", &["IPv4"])));
        check(json!({"selector": {"a": "b"}}), &[Family::V6, Family::V4], Ok(("SingleStack", &["IPv6"])));
        check(json!({"ipFamilyPolicy": "PreferDualStack"}), one, Ok(("PreferDualStack", &["IPv4"])));
        check(
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
            both,
            Ok(("PreferDualStack", &["IPv6", "IPv4"])),
        );
        check(json!({"ipFamilies": ["IPv6", "IPv4"]}), both, Ok(("RequireDualStack", &["IPv6", "IPv4"])));
        check(json!({"clusterIP": "fd00::1"}), both, Ok(("SingleStack", &["IPv6"])));
        check(json!({"clusterIP": "None"}), one, Ok(("RequireDualStack", &["IPv4", "IPv6"])));
        check(json!({"clusterIP": "None", "selector": {"a": "b"}}), one, Ok(("SingleStack", &["IPv4"])));
        check(
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            one,
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
        );
        check(
            json!({"ipFamilies": ["IPv6"]}),
            one,
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        );
    }
}
