//! The flowcontrol group.

use pintle_schema::cursor::{Cursor, Errors};

use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks};

/// The strategy of flow schemas.
pub static FLOW_SCHEMA: Strategy = Strategy {
    validate: flow_schema,
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("PriorityLevel", "@PriorityLevelConfigurationReference.name"),
        text("MatchingPrecedence", "@FlowSchemaSpec.matchingPrecedence"),
        text("DistinguisherMethod", "@FlowSchemaSpec.distinguisherMethod"),
        Column::AGE,
        text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
    ],
    row: |o, now| {
        let spec = o.get("spec");
        vec![
            table::name(o),
            spec.get("priorityLevelConfiguration").get("name").str().into(),
            spec.get("matchingPrecedence").int().into(),
            spec.get("distinguisherMethod").get("type").opt_str().unwrap_or("<none>").into(),
            table::age(o, now),
            table::condition(o, "Dangling").map_or("?", |c| c.get("status").str()).into(),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of priority level configurations.
pub static PRIORITY_LEVEL: Strategy = Strategy {
    validate: priority_level,
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Type", "@PriorityLevelConfigurationSpec.type"),
        text("NominalConcurrencyShares", "@LimitedPriorityLevelConfiguration.nominalConcurrencyShares"),
        text("Queues", "@QueuingConfiguration.queues"),
        text("HandSize", "@QueuingConfiguration.handSize"),
        text("QueueLengthLimit", "@QueuingConfiguration.queueLengthLimit"),
        Column::AGE,
    ],
    row: |o, now| {
        let limited = o.get("spec").get("limited");
        let queuing = limited.get("limitResponse").get("queuing");
        let cell = |present: bool, n: i64| if present { n.into() } else { "<none>".into() };
        let queue = |field| cell(queuing.is_present(), queuing.get(field).int());
        vec![
            table::name(o),
            o.get("spec").get("type").str().into(),
            cell(limited.is_present(), limited.get("nominalConcurrencyShares").int()),
            queue("queues"),
            queue("handSize"),
            queue("queueLengthLimit"),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

fn flow_schema(_: &Ctx<'_>, schema: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = schema.get("spec");
    let (precedence, method, level) =
        (spec.get("matchingPrecedence"), spec.get("distinguisherMethod"), spec.get("priorityLevelConfiguration"));
    let exempt = schema.get("metadata").get("name").str() == "exempt";
    if precedence.int() <= 0 {
        errors.invalid_value(&precedence, precedence.int(), "must be a positive value");
    }
    if precedence.int() > 10000 {
        errors.invalid(&precedence, "must not be greater than 10000");
    }
    if precedence.int() == 1 && !exempt {
        errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if method.is_present() {
        checks::one_of(&method.get("type"), &["ByNamespace", "ByUser"], true, errors);
    }
    let name = level.get("name");
    if name.is_empty() {
        errors.required(&name, "must reference a priority level");
    } else {
        checks::subdomain(&name, errors);
    }
    for rule in spec.get("rules").items() {
        flow_rule(&rule, errors);
    }
}

fn flow_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    let (subjects, resources, paths) = (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    if subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        flow_subject(&subject, errors);
    }
    if resources.is_empty() && paths.is_empty() {
        errors.required(rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        for field in ["verbs", "apiGroups", "resources"] {
            non_empty(&resource.get(field), field, errors);
        }
        if resource.get("namespaces").is_empty() && !resource.get("clusterScope").bool() {
            errors.required(
                resource.get("namespaces"),
                "resource rules that are not cluster scoped must supply at least one namespace",
            );
        }
    }
    for path in paths.items() {
        non_empty(&path.get("verbs"), "verbs", errors);
        non_empty(&path.get("nonResourceURLs"), "nonResourceURLs", errors);
    }
}

fn non_empty(list: &Cursor<'_>, what: &str, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, format!("{what} must contain at least one value"));
    } else if list.len() > 1 && list.items().any(|i| i.str() == "*") {
        errors.invalid(list, "if '*' is present, must not specify other values");
    }
}

fn flow_subject(subject: &Cursor<'_>, errors: &mut Errors) {
    const FORMS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.get("kind");
    let Some((_, own)) = FORMS.iter().find(|(k, _)| *k == kind.str()) else {
        return errors.not_supported(&kind, kind.str(), &["Group", "ServiceAccount", "User"]);
    };
    let form = subject.get(own);
    if form.is_absent() {
        errors.required(&form, format!("{own} is required when subject kind is '{}'", kind.str()));
    } else {
        for field in ["name", "namespace"] {
            if form.get(field).is_empty() && (field == "name" || *own == "serviceAccount") {
                errors.required(form.get(field), "");
            }
        }
    }
    for (_, other) in FORMS.iter().filter(|(_, f)| f != own && subject.get(f).is_present()) {
        errors.forbidden(subject.get(other), format!("{other} is forbidden when subject kind is not '{other}'"));
    }
}

fn priority_level(_: &Ctx<'_>, level: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = level.get("spec");
    let name = level.get("metadata").get("name").str();
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name == "exempt") != (kind.str() == "Exempt") {
        errors.invalid_value(&kind, kind.str(), "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match kind.str() {
        "Exempt" => {
            if limited.is_present() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_present() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_absent() {
                return errors.required(&limited, "must not be empty when type is Limited");
            }
            shares(&limited, errors);
            limit_response(&limited.get("limitResponse"), errors);
        }
        other => errors.not_supported(&kind, other, &["Exempt", "Limited"]),
    }
}

fn shares(level: &Cursor<'_>, errors: &mut Errors) {
    let (shares, lendable, borrowing) =
        (level.get("nominalConcurrencyShares"), level.get("lendablePercent"), level.get("borrowingLimitPercent"));
    if shares.int() < 0 {
        errors.invalid(&shares, "must be a non-negative integer");
    }
    if !(0..=100).contains(&lendable.int()) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
    if borrowing.int() < 0 {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn limit_response(response: &Cursor<'_>, errors: &mut Errors) {
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.str() {
        "Reject" => {
            if queuing.is_present() {
                errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" => {
            if queuing.is_absent() {
                return errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
            }
            let (queues, hand, limit) =
                (queuing.get("queues"), queuing.get("handSize"), queuing.get("queueLengthLimit"));
            for number in [&limit, &queues, &hand] {
                if number.int() <= 0 {
                    errors.invalid_value(number, number.int(), "must be positive");
                }
            }
            if hand.int() > queues.int() {
                errors.invalid(&hand, format!("should not be greater than queues ({})", queues.int()));
            }
            if queues.int() > 10_000_000 {
                errors.invalid(&queues, "must not be greater than 10000000");
            }
        }
        other => errors.not_supported(&kind, other, &["Queue", "Reject"]),
    }
}

#[cfg(test)]
mod tests {

    use crate::kinds::bootstrap;
    use crate::kinds::testing::{changed, create_errors};
    use serde_json::json;

    #[test]
    fn checks() {
        for object in bootstrap::flow_schemas().into_iter().chain(bootstrap::priority_levels()) {
            assert_eq!(create_errors(&object), "", "{object}");
        }
        let schema = bootstrap::flow_schemas().pop().unwrap();
        assert_eq!(
            create_errors(&changed(&schema, "spec/matchingPrecedence", json!(0))),
            "spec.matchingPrecedence: Invalid value: 0: must be a positive value"
        );
        let level = bootstrap::priority_levels().pop().unwrap();
        assert_eq!(
            create_errors(&changed(&level, "spec/limited/limitResponse/queuing/handSize", json!(200))),
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 200: should not be greater than queues (128)"
        );
    }
}
