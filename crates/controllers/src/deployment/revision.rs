//! Revisions: annotations that number a Deployment's ReplicaSets, and going back to one.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::replicasets::{HASH_LABEL, desired, most, same_template};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// Annotations that are not copied between a Deployment and its ReplicaSets.
const OWN: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, ROLLBACK_TO];
/// Longest revision history that is kept.
const HISTORY_LENGTH: usize = 2000;

fn annotation<'a>(rs: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    rs.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn of(rs: &ReplicaSet) -> i64 {
    annotation(rs, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The number an annotation holds.
pub fn number(rs: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(rs, key)?.parse().ok()
}

/// The revision after all of these.
pub fn next(all: &[ReplicaSet]) -> i64 {
    all.iter().map(of).max().unwrap_or(0).saturating_add(1)
}

/// Writes the sizes that proportional scaling needs; says whether that changed anything.
pub fn set_sizes(rs: &mut ReplicaSet, d: &Deployment) -> bool {
    let annotations = rs.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED, desired(d)), (MAX, most(d))] {
        let value = value.to_string();
        changed |= annotations.insert(key.into(), value.clone()).as_deref() != Some(value.as_str());
    }
    changed
}

/// Gives the newest ReplicaSet its revision and the Deployment's annotations; says whether that changed anything.
pub fn annotate_new(d: &Deployment, rs: &mut ReplicaSet, revision: i64, exists: bool) -> bool {
    let mut changed = false;
    let annotations = rs.metadata.annotations.get_or_insert_default();
    for (k, v) in d.metadata.annotations.iter().flatten().filter(|(k, _)| !OWN.contains(&k.as_str())) {
        changed |= annotations.insert(k.clone(), v.clone()).as_ref() != Some(v);
    }
    let old = annotations.get(REVISION).cloned();
    let old_number = old.as_deref().and_then(|r| r.parse::<i64>().ok()).unwrap_or(0);
    if old_number < revision {
        annotations.insert(REVISION.into(), revision.to_string());
        changed = true;
        // An older revision becomes the newest again: remember what it was called.
        if let Some(old) = old.filter(|_| old_number > 0) {
            let history = annotations.get(HISTORY).filter(|h| !h.is_empty()).cloned();
            let mut parts: Vec<String> = history.iter().flat_map(|h| h.split(',')).map(str::to_owned).collect();
            parts.push(old);
            while parts.len() > 1 && parts.join(",").len() > HISTORY_LENGTH {
                parts.remove(0);
            }
            annotations.insert(HISTORY.into(), parts.join(","));
        }
    }
    if !exists {
        changed |= set_sizes(rs, d);
    }
    changed
}

/// The revision a client asked to go back to; 0 means the one before.
pub fn rollback_to(d: &Deployment) -> Option<i64> {
    d.metadata.annotations.as_ref()?.get(ROLLBACK_TO)?.parse().ok()
}

/// The Deployment as it is after going back, and the Event that says so.
pub fn roll_back(d: &Deployment, all: &[ReplicaSet], to: i64) -> (Deployment, (&'static str, String, bool)) {
    let mut out = d.clone();
    if let Some(a) = &mut out.metadata.annotations {
        a.remove(ROLLBACK_TO);
    }
    let to = if to == 0 {
        let mut revisions: Vec<i64> = all.iter().map(of).collect();
        revisions.sort_unstable();
        revisions.iter().rev().nth(1).copied().unwrap_or(0)
    } else {
        to
    };
    let not_found = ("DeploymentRollbackRevisionNotFound", "Unable to find last revision.".to_owned(), false);
    if to == 0 {
        return (out, not_found);
    }
    let Some(rs) = all.iter().find(|r| of(r) == to) else {
        return (
            out,
            ("DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.".into(), false),
        );
    };
    if same_template(rs, d) {
        let message = format!(
            "The rollback revision contains the same template as current deployment {:?}",
            d.metadata.name.as_deref().unwrap_or_default()
        );
        return (out, ("DeploymentRollbackTemplateUnchanged", message, false));
    }
    if let (Some(spec), Some(template)) = (&mut out.spec, rs.spec.as_ref().and_then(|s| s.template.as_ref())) {
        spec.template = template.clone();
        if let Some(labels) = spec.template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
    }
    let own = |k: &String| OWN.contains(&k.as_str());
    let mut annotations: BTreeMap<String, String> =
        out.metadata.annotations.unwrap_or_default().into_iter().filter(|(k, _)| own(k)).collect();
    annotations.extend(rs.metadata.annotations.clone().into_iter().flatten().filter(|(k, _)| !own(k)));
    out.metadata.annotations = Some(annotations);
    let message =
        format!("Rolled back deployment {:?} to revision {to}", d.metadata.name.as_deref().unwrap_or_default());
    (out, ("DeploymentRollback", message, true))
}
