//! The flowcontrol group.

mod validate;

use super::Strategy;
use super::strategy::Sub;
use super::table::{self, Column, text};

/// The strategy of flow schemas.
pub static FLOW_SCHEMA: Strategy = Strategy {
    validate: validate::flow_schema,
    subresources: &[("status", Sub { validate: validate::status, ..Sub::STATUS })],
    full_meta_on_update: true,
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
    validate: validate::priority_level,
    subresources: &[("status", Sub { validate: validate::status, ..Sub::STATUS })],
    full_meta_on_update: true,
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
