//! What a namespace says about its deletion.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use pintle_api::resources::Resource;
use pintle_client::Error;
use pintle_client::clock::time;

/// Objects of one resource that are still there.
#[derive(Debug)]
pub struct Remaining {
    /// `pods` or `widgets.example.com`.
    pub resource: String,
    pub count: usize,
    /// The finalizers of all of them.
    pub finalizers: Vec<String>,
}

/// What one attempt to empty a namespace found.
#[derive(Debug, Default)]
pub struct Found {
    pub discovery: Vec<(String, String)>,
    pub failures: Vec<(&'static Resource, Error)>,
    pub remaining: Vec<Remaining>,
}

impl Found {
    /// Whether nothing blocks any more.
    pub fn is_clear(&self) -> bool {
        self.discovery.is_empty() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// Brings the conditions up to date; says whether that changed anything. The good ones appear only once there was a
/// bad one, as upstream has it.
pub fn conditions(status: &mut NamespaceStatus, found: &Found, now: Timestamp) -> bool {
    let discovery: Vec<String> = found.discovery.iter().map(|(gv, e)| format!("{gv}: {e}")).collect();
    let failures: Vec<String> = found.failures.iter().map(|(_, e)| e.to_string()).collect();
    let mut remaining: Vec<String> =
        found.remaining.iter().map(|r| format!("{} has {} resource instances", r.resource, r.count)).collect();
    remaining.sort();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for f in found.remaining.iter().flat_map(|r| &r.finalizers) {
        *finalizers.entry(f).or_default() += 1;
    }
    let finalizers: Vec<String> = finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let bad = |list: &[String], head: &str, sep: &str| (!list.is_empty()).then(|| format!("{head}{}", list.join(sep)));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "DiscoveryFailed",
            bad(&discovery, &format!("Discovery failed for some groups, {} failing: ", discovery.len()), ", "),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "GroupVersionParsingFailed",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed",
            bad(&failures, &format!("Failed to delete all resource types, {} remaining: ", failures.len()), ", "),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            "SomeResourcesRemain",
            bad(&remaining, "Some resources are remaining: ", ", "),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain",
            bad(&finalizers, "Some content in the namespace has finalizers remaining: ", ", "),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut changed = false;
    let any_bad = rows.iter().any(|r| r.2.is_some()) || status.conditions.as_ref().is_some_and(|c| !c.is_empty());
    if !any_bad {
        return false;
    }
    for (kind, reason, message, (good_reason, good_message)) in rows {
        let (value, reason, message) = match message {
            Some(m) => ("True", reason, m),
            None => ("False", good_reason, good_message.to_owned()),
        };
        let all = status.conditions.get_or_insert_default();
        let position = all.iter().position(|c| c.type_ == kind);
        let old = position.map(|i| &all[i]);
        if old.is_some_and(|c| {
            c.status == value && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(&message)
        }) {
            continue;
        }
        let since = old.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        let new = NamespaceCondition {
            type_: kind.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or_else(|| Some(time(now))),
        };
        match position {
            Some(i) => all[i] = new,
            None => all.push(new),
        }
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_blocks() {
        let now = Timestamp::UNIX_EPOCH;
        let mut status = NamespaceStatus::default();
        assert!(!conditions(&mut status, &Found::default(), now));
        let found = Found {
            remaining: vec![
                Remaining {
                    resource: "pods".into(),
                    count: 2,
                    finalizers: vec!["x/y".into(), "x/y".into(), "a".into()],
                },
                Remaining { resource: "jobs.batch".into(), count: 1, finalizers: vec![] },
            ],
            ..Found::default()
        };
        assert!(!found.is_clear());
        assert!(conditions(&mut status, &found, now));
        assert!(!conditions(&mut status, &found, now), "the same again changes nothing");
        let get = |s: &NamespaceStatus, kind: &str| {
            let c = s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap().clone();
            (c.status, c.reason.unwrap(), c.message.unwrap())
        };
        assert_eq!(
            get(&status, "NamespaceContentRemaining"),
            (
                "True".into(),
                "SomeResourcesRemain".into(),
                "Some resources are remaining: jobs.batch has 1 resource instances, pods has 2 resource instances"
                    .into()
            )
        );
        assert_eq!(
            get(&status, "NamespaceFinalizersRemaining").2,
            "Some content in the namespace has finalizers remaining: a in 1 resource instances, x/y in 2 resource instances"
        );
        assert!(conditions(&mut status, &Found::default(), now));
        assert_eq!(get(&status, "NamespaceContentRemaining").1, "ContentRemoved");
    }
}
