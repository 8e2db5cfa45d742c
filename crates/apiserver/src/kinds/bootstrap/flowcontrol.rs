//! The priority levels and flow schemas of API priority and fairness.

use serde_json::{Value, json};

const ANYBODY: &[Subject] = &[Subject::Group("system:unauthenticated"), Subject::Group("system:authenticated")];
const KUBE_SYSTEM: Subject = Subject::Accounts("kube-system");

enum Subject {
    Group(&'static str),
    User(&'static str),
    /// All service accounts of a namespace.
    Accounts(&'static str),
}

/// Verbs, groups, resources, and whether cluster-scoped objects are meant too.
type ResourceRule = (&'static [&'static str], &'static str, &'static [&'static str], bool);
/// Verbs and paths.
type PathRule = (&'static [&'static str], &'static [&'static str]);

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: i32,
    distinguish: &'static str,
    subjects: &'static [Subject],
    resources: &'static [ResourceRule],
    paths: &'static [PathRule],
}

const ALL: &[&str] = &["*"];
const EVERYTHING: Schema = Schema {
    name: "",
    level: "",
    precedence: 0,
    distinguish: "ByUser",
    subjects: &[],
    resources: &[(ALL, "*", ALL, true)],
    paths: &[(ALL, ALL)],
};

const SCHEMAS: &[Schema] = &[
    Schema {
        name: "exempt",
        level: "exempt",
        precedence: 1,
        distinguish: "",
        subjects: &[Subject::Group("system:masters")],
        ..EVERYTHING
    },
    Schema { name: "catch-all", level: "catch-all", precedence: 10000, subjects: ANYBODY, ..EVERYTHING },
    Schema {
        name: "system-nodes",
        level: "system",
        precedence: 500,
        subjects: &[Subject::Group("system:nodes")],
        ..EVERYTHING
    },
    Schema {
        name: "system-node-high",
        level: "node-high",
        precedence: 400,
        subjects: &[Subject::Group("system:nodes")],
        resources: &[(ALL, "", &["nodes", "nodes/status"], true), (ALL, "coordination.k8s.io", &["leases"], false)],
        paths: &[],
        ..EVERYTHING
    },
    Schema {
        name: "probes",
        level: "exempt",
        precedence: 2,
        distinguish: "",
        subjects: ANYBODY,
        resources: &[],
        paths: &[(&["get"], &["/healthz", "/readyz", "/livez"])],
    },
    Schema {
        name: "system-leader-election",
        level: "leader-election",
        precedence: 100,
        subjects: &[
            Subject::User("system:kube-controller-manager"),
            Subject::User("system:kube-scheduler"),
            KUBE_SYSTEM,
        ],
        resources: &[(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)],
        paths: &[],
        ..EVERYTHING
    },
    Schema {
        name: "kube-controller-manager",
        level: "workload-high",
        precedence: 800,
        distinguish: "ByNamespace",
        subjects: &[Subject::User("system:kube-controller-manager")],
        ..EVERYTHING
    },
    Schema {
        name: "kube-scheduler",
        level: "workload-high",
        precedence: 800,
        distinguish: "ByNamespace",
        subjects: &[Subject::User("system:kube-scheduler")],
        ..EVERYTHING
    },
    Schema {
        name: "kube-system-service-accounts",
        level: "workload-high",
        precedence: 900,
        distinguish: "ByNamespace",
        subjects: &[KUBE_SYSTEM],
        ..EVERYTHING
    },
    Schema {
        name: "service-accounts",
        level: "workload-low",
        precedence: 9000,
        subjects: &[Subject::Group("system:serviceaccounts")],
        ..EVERYTHING
    },
    Schema { name: "global-default", level: "global-default", precedence: 9900, subjects: ANYBODY, ..EVERYTHING },
];

/// Name, shares, lendable percent, and queues and hand size where requests wait.
type Level = (&'static str, i32, i32, Option<(i32, i32)>);

const LEVELS: &[Level] = &[
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
    })
}

/// The `PriorityLevelConfiguration`s; the first two, `exempt` and `catch-all`, must always exist.
pub fn priority_levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut out = vec![object("PriorityLevelConfiguration", "exempt", &exempt)];
    out.extend(LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
            }),
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("PriorityLevelConfiguration", name, &json!({"type": "Limited", "limited": limited}))
    }));
    out
}

/// The `FlowSchema`s; the first two, `exempt` and `catch-all`, must always exist.
pub fn flow_schemas() -> Vec<Value> {
    SCHEMAS.iter().map(flow_schema).collect()
}

fn flow_schema(schema: &Schema) -> Value {
    let subjects: Vec<Value> = schema
        .subjects
        .iter()
        .map(|s| match s {
            Subject::Group(name) => json!({"kind": "Group", "group": {"name": name}}),
            Subject::User(name) => json!({"kind": "User", "user": {"name": name}}),
            Subject::Accounts(namespace) => {
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "*"}})
            }
        })
        .collect();
    let mut rule = json!({ "subjects": subjects });
    let resources: Vec<Value> = schema
        .resources
        .iter()
        .map(|(verbs, group, resources, cluster_scope)| {
            let mut r = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
            if *cluster_scope {
                r["clusterScope"] = true.into();
            }
            r
        })
        .collect();
    if !resources.is_empty() {
        rule["resourceRules"] = Value::Array(resources);
    }
    let paths: Vec<Value> =
        schema.paths.iter().map(|(verbs, urls)| json!({"verbs": verbs, "nonResourceURLs": urls})).collect();
    if !paths.is_empty() {
        rule["nonResourceRules"] = Value::Array(paths);
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": schema.level},
        "matchingPrecedence": schema.precedence,
        "rules": [rule],
    });
    if !schema.distinguish.is_empty() {
        spec["distinguisherMethod"] = json!({"type": schema.distinguish});
    }
    object("FlowSchema", schema.name, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_name_levels() {
        let levels = priority_levels();
        assert_eq!(levels.len(), 8);
        for schema in flow_schemas() {
            let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
            assert!(levels.iter().any(|l| l["metadata"]["name"] == *level), "{level}");
        }
        let probes = flow_schemas().into_iter().find(|s| s["metadata"]["name"] == "probes").unwrap();
        assert_eq!(probes["spec"]["rules"][0].get("resourceRules"), None);
        assert_eq!(probes["spec"].get("distinguisherMethod"), None);
    }
}
