//! A Job's rules about failures and successes.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};

use super::indexes;
use crate::support::pods::{ContainerStatus, Pod};

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, for this reason in words.
    FailJob(String),
}

fn exit_code<'a>(
    rule: &PodFailurePolicyOnExitCodesRequirement,
    statuses: impl Iterator<Item = &'a ContainerStatus>,
) -> Option<(&'a str, i32)> {
    let named = |s: &&ContainerStatus| rule.container_name.as_ref().is_none_or(|n| *n == s.name);
    for s in statuses.filter(named) {
        let Some(t) = &s.state.terminated else { continue };
        let listed = rule.values.contains(&t.exit_code);
        let hit = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => t.exit_code != 0 && !listed,
            _ => false,
        };
        if hit && t.exit_code != 0 {
            return Some((&s.name, t.exit_code));
        }
    }
    None
}

fn matches(rule: &PodFailurePolicyRule, index: usize, pod: &Pod) -> Option<String> {
    let m = &pod.metadata;
    let action = &rule.action;
    if let Some(r) = &rule.on_exit_codes {
        let all = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let (name, code) = exit_code(r, all)?;
        return Some(format!(
            "Container {name} for pod {}/{} failed with exit code {code} matching {action} rule at index {index}",
            m.namespace, m.name
        ));
    }
    let pattern = rule.on_pod_conditions.iter().flatten().find(|p| {
        let want = p.status.as_deref().unwrap_or("True");
        pod.condition(&p.type_).is_some_and(|c| c.status == want)
    })?;
    Some(format!(
        "Pod {}/{} has condition {} matching {action} rule at index {index}",
        m.namespace, m.name, pattern.type_
    ))
}

/// The first rule that fits a failed pod: its action, and why in words.
pub fn rule<'a>(job: &'a Job, pod: &Pod) -> Option<(&'a str, String)> {
    let rules = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref()).map_or(&[][..], |p| &p.rules);
    rules.iter().enumerate().find_map(|(i, r)| Some((r.action.as_str(), matches(r, i, pod)?)))
}

/// What a failed pod means to its Job.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    match rule(job, pod) {
        Some(("FailJob", message)) => Verdict::FailJob(message),
        Some(("Ignore", _)) => Verdict::Ignore,
        Some(("FailIndex", _)) => Verdict::FailIndex,
        _ => Verdict::Count,
    }
}

/// The first success rule that holds, in words.
pub fn success(job: &Job, succeeded: &BTreeSet<i32>) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let completions = spec.completions?;
    for (i, rule) in spec.success_policy.as_ref()?.rules.iter().enumerate() {
        let among = rule.succeeded_indexes.as_ref().map(|t| indexes::parse(t, completions));
        let count = match &among {
            Some(set) => set.intersection(succeeded).count(),
            None => succeeded.len(),
        };
        let need = match (rule.succeeded_count, &among) {
            (Some(n), _) => usize::try_from(n).unwrap_or(usize::MAX),
            (None, Some(set)) => set.len(),
            (None, None) => continue,
        };
        if count >= need {
            return Some(format!("Matched rules at index {i}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules() {
        let job: Job = serde_json::from_value(json!({"spec": {"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "containerName": "main", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}},
        ]}}}))
        .unwrap();
        let pod = |code: i32, name: &str, disrupted: bool| -> Pod {
            let conditions =
                if disrupted { json!([{"type": "DisruptionTarget", "status": "True"}]) } else { json!([]) };
            serde_json::from_value(
                json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"conditions": conditions,
                "containerStatuses": [{"name": name, "state": {"terminated": {"exitCode": code}}}]}}),
            )
            .unwrap()
        };
        let message = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &pod(42, "main", false)), Verdict::FailJob(message.into()));
        assert_eq!(judge(&job, &pod(42, "main", true)), Verdict::Ignore);
        assert_eq!(judge(&job, &pod(42, "other", false)), Verdict::Count);
        assert_eq!(judge(&job, &pod(7, "main", false)), Verdict::FailIndex);
        assert_eq!(judge(&job, &pod(1, "main", false)), Verdict::Count);
    }

    #[test]
    fn successes() {
        let job = |rule: serde_json::Value| -> Job {
            serde_json::from_value(
                json!({"spec": {"template": {}, "completions": 5, "successPolicy": {"rules": [rule]}}}),
            )
            .unwrap()
        };
        let set: BTreeSet<i32> = [0, 2].into();
        for (rule, want) in [
            (json!({"succeededIndexes": "0"}), true),
            (json!({"succeededIndexes": "0-1"}), false),
            (json!({"succeededIndexes": "0-2", "succeededCount": 2}), true),
            (json!({"succeededCount": 3}), false),
        ] {
            assert_eq!(success(&job(rule.clone()), &set).is_some(), want, "{rule}");
        }
    }
}
