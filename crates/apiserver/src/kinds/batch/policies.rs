//! Validation of what a job makes of pods that fail or succeed, and of lists of indexes.

use std::collections::HashSet;

use pintle_api::names::qualified_name;
use pintle_schema::cursor::{BadValue, Cursor, Errors};
use serde_json::{Value, json};

use crate::kinds::{checks, meta};

/// The most rules of a policy, and the most patterns of a rule.
const RULES: usize = 20;
const EXIT_CODES: usize = 255;
const INDEXES_TEXT: usize = 64 * 1024;

/// A value that must be one of a set; upstream names the set when there is none.
fn named(at: &Cursor<'_>, allowed: &[&str], errors: &mut Errors) {
    if at.is_empty() {
        let list: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
        errors.required(at, format!("valid values: [{}]", list.join(" ")));
    } else {
        checks::one_of(at, allowed, false, errors);
    }
}

pub(super) fn failure_policy(spec: &Cursor<'_>, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy").get("rules");
    if rules.len() > RULES {
        errors.too_many(&rules, rules.len(), RULES);
    }
    let pod = spec.get("template").get("spec");
    let mut names: Vec<&str> = Vec::new();
    for field in ["containers", "initContainers"] {
        names.extend(pod.get(field).items().map(|c| c.get("name").str()));
    }
    for rule in rules.items() {
        let (action, codes, conditions) = (rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions"));
        if action.str() == "FailIndex" && spec.get("backoffLimitPerIndex").is_absent() {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
        named(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        if codes.is_present() {
            exit_codes(&codes, &names, errors);
        }
        pod_conditions(&conditions, errors);
        let wrong = match (codes.is_present(), !conditions.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.invalid_value(&rule, BadValue::Omitted, wrong);
    }
}

fn pod_conditions(conditions: &Cursor<'_>, errors: &mut Errors) {
    if conditions.len() > RULES {
        errors.too_many(conditions, conditions.len(), RULES);
    }
    for condition in conditions.items() {
        let kind = condition.get("type");
        for message in qualified_name(kind.str()) {
            errors.invalid_value(&kind, kind.str(), message);
        }
        named(&condition.get("status"), &["False", "True", "Unknown"], errors);
    }
}

fn exit_codes(codes: &Cursor<'_>, containers: &[&str], errors: &mut Errors) {
    let (operator, container, values) = (codes.get("operator"), codes.get("containerName"), codes.get("values"));
    named(&operator, &["In", "NotIn"], errors);
    if container.is_present() && !containers.contains(&container.str()) {
        errors.invalid(&container, "must be one of the container or initContainer names in the pod template");
    }
    match values.len() {
        0 => {
            let shown = values.value().cloned().unwrap_or(Value::Null);
            errors.invalid_value(&values, shown, "at least one value is required");
        }
        n if n > EXIT_CODES => errors.too_many(&values, n, EXIT_CODES),
        _ => {}
    }
    let list: Vec<i64> = values.items().map(|v| v.int()).collect();
    let mut seen = HashSet::new();
    for (i, code) in list.iter().enumerate() {
        if *code == 0 && operator.str() == "In" {
            errors.invalid_value(values.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(*code) {
            errors.duplicate(values.index(i), *code);
        }
    }
    if list.windows(2).any(|w| w[0] > w[1]) {
        errors.invalid(&values, "must be ordered");
    }
}

pub(super) fn success_policy(spec: &Cursor<'_>, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if policy.is_absent() {
        return;
    }
    if spec.get("completionMode").str() != "Indexed" {
        // Upstream prints its own value, whose fields have the names of its code.
        let shown: Vec<Value> = policy
            .get("rules")
            .items()
            .map(|rule| {
                let field = |name| rule.get(name).value().cloned().unwrap_or(Value::Null);
                json!({"SucceededCount": field("succeededCount"), "SucceededIndexes": field("succeededIndexes")})
            })
            .collect();
        return errors.invalid_value(&policy, json!({"Rules": shown}), "requires indexed completion mode");
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES {
        errors.too_many(&rules, rules.len(), RULES);
    }
    for rule in rules.items() {
        success_rule(&rule, spec.get("completions").int(), errors);
    }
}

fn success_rule(rule: &Cursor<'_>, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if count.is_absent() && indexes.is_absent() {
        errors.required(rule, "at least one of succeededCount or succeededIndexes must be specified");
    }
    if indexes.str().len() > INDEXES_TEXT {
        errors.too_long(&indexes, INDEXES_TEXT);
    }
    let listed = count_indexes(indexes.str(), completions).unwrap_or_else(|why| {
        errors.invalid(&indexes, format!("error parsing succeededIndexes: {why}"));
        0
    });
    meta::not_negative(&count, errors);
    if count.int() > completions {
        let message = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&count, message);
    }
    if indexes.is_present() && count.int() > listed {
        let message = format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&count, message);
    }
}

/// One part of a list of indexes: `3`, or `5-7`.
fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: \"{text}\"")),
        Ok(index) if index >= completions => Err(format!("too large index: \"{text}\"")),
        Ok(index) => Ok(index),
    };
    match part.split('-').collect::<Vec<_>>()[..] {
        [one] => number(one).map(|index| (index, index)),
        [first, last] => match (number(first)?, number(last)?) {
            (first, last) if first >= last => Err(format!("non-increasing order, previous: {first}, current: {last}")),
            ends => Ok(ends),
        },
        _ => Err(format!(
            "the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// The number of indexes in `1,3-5,7`.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut previous) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(previous) = previous.filter(|p| *p >= first) {
            return Err(format!("non-increasing order, previous: {previous}, current: {first}"));
        }
        total += last - first + 1;
        previous = Some(last);
    }
    Ok(total)
}

/// The first index that two lists have both; parts that cannot be read are passed over.
pub(super) fn common_index(a: &str, b: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| text.split(',').filter_map(|p| interval(p, completions).ok()).collect::<Vec<_>>();
    let (a, b) = (read(a), read(b));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some((a0, a1)), Some((b0, b1))) = (a.peek(), b.peek()) {
        if a0 <= b1 && b0 <= a1 {
            return Some(*a0.max(b0));
        }
        if a0 <= b0 {
            a.next()
        } else {
            b.next()
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes() {
        for (text, expect) in [
            ("", Ok(0)),
            ("0,2-4,9", Ok(5)),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            ("1-", Err("cannot convert string to integer for index: \"\"")),
            ("10", Err("too large index: \"10\"")),
            ("3-2", Err("non-increasing order, previous: 3, current: 2")),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count_indexes(text, 10), expect.map_err(str::to_owned), "{text}");
        }
        assert_eq!(common_index("0-2,5", "3,4-9", 10), Some(5));
        assert_eq!(common_index("0-2,x,5", "3,6-9", 10), None);
        assert_eq!(common_index("", "1", 10), None);
    }
}
