//! Tests of the checks of jobs.

use crate::kinds::testing::{changed, create_errors, update_errors};
use serde_json::{Value, json};

pub(in crate::kinds::batch) fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}})
}

fn job() -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
        "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "completionMode": "NonIndexed", "completions": 1, "parallelism": 1, "template": template()}})
}

fn indexed() -> Value {
    let mut job = job();
    for (field, to) in
        [("completionMode", json!("Indexed")), ("completions", json!(5)), ("backoffLimitPerIndex", json!(1))]
    {
        job["spec"][field] = to;
    }
    job
}

#[test]
fn jobs() {
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(create_errors(&changed(&job(), path, to)), expect, "{path}");
    };
    check("spec/suspend", json!(true), "");
    check("spec/completions", json!(-1), "spec.completions: Invalid value: -1: must be greater than or equal to 0");
    check(
        "spec/template/spec/restartPolicy",
        json!("Always"),
        "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
    );
    check(
        "spec/completionMode",
        json!("Odd"),
        "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
    );
    check(
        "spec/backoffLimitPerIndex",
        json!(1),
        "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
    );
    check(
        "spec/maxFailedIndexes",
        json!(1),
        "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified\n\
         spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
    );
    check(
        "spec/successPolicy",
        json!({"rules": [{"succeededCount": 1}]}),
        "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededCount\":1,\"SucceededIndexes\":null}]}: requires indexed completion mode",
    );
    check(
        "spec/managedBy",
        json!("x"),
        "spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
    );
    check(
        "spec/managedBy",
        json!(format!("a.b/{}", "x".repeat(60))),
        "spec.managedBy: Too long: may not be more than 63 bytes",
    );
    check(
        "spec/podReplacementPolicy",
        json!("Odd"),
        "spec.podReplacementPolicy: Unsupported value: \"Odd\": supported values: \"Failed\", \"TerminatingOrFailed\"",
    );
    check(
        "spec/selector",
        Value::Null,
        "spec.selector: Required value\n\
         spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
    );
}

#[test]
fn indexed_jobs() {
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(create_errors(&changed(&indexed(), path, to)), expect, "{path}");
    };
    check("spec/maxFailedIndexes", json!(5), "");
    check("spec/completions", Value::Null, "spec.completions: Required value: when completion mode is Indexed");
    check(
        "spec/maxFailedIndexes",
        json!(6),
        "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
    );
    check(
        "spec/parallelism",
        json!(100_001),
        "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
    );
    check(
        "spec/completions",
        json!(100_001),
        "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
    );
    let long = "x".repeat(62);
    check(
        "metadata/name",
        json!(long),
        &format!(
            "metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-4"
        ),
    );
    check("metadata/name", json!("x".repeat(61)), "");
    let mut many = changed(&indexed(), "spec/completions", json!(200_000));
    many["spec"]["maxFailedIndexes"] = 20_000.into();
    many["spec"]["parallelism"] = 20_000.into();
    let most =
        "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
    assert_eq!(
        create_errors(&many),
        format!("spec.parallelism: Invalid value: 20000: {most}\nspec.maxFailedIndexes: Invalid value: 20000: {most}")
    );
    let rule = |rule: Value, expect: &str| check("spec/successPolicy", json!({"rules": [rule]}), expect);
    let at = "spec.successPolicy.rules[0]";
    rule(json!({"succeededIndexes": "0,2-3", "succeededCount": 3}), "");
    rule(json!({"succeededCount": 0}), "");
    rule(
        json!({}),
        &format!("{at}: Required value: at least one of succeededCount or succeededIndexes must be specified"),
    );
    rule(
        json!({"succeededCount": -1}),
        &format!("{at}.succeededCount: Invalid value: -1: must be greater than or equal to 0"),
    );
    rule(
        json!({"succeededCount": 6}),
        &format!(
            "{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)"
        ),
    );
    rule(
        json!({"succeededIndexes": "9"}),
        &format!("{at}.succeededIndexes: Invalid value: \"9\": error parsing succeededIndexes: too large index: \"9\""),
    );
    rule(
        json!({"succeededIndexes": "1", "succeededCount": 2}),
        &format!(
            "{at}.succeededCount: Invalid value: 2: must be less than or equal to 1 (the number of indexes in the specified succeededIndexes field)"
        ),
    );
    check(
        "spec/successPolicy",
        json!({"rules": []}),
        "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
    );
    check(
        "spec/successPolicy",
        json!({"rules": vec![json!({"succeededCount": 1}); 21]}),
        "spec.successPolicy.rules: Too many: 21: must have at most 20 items",
    );
}

#[test]
fn failure_policies() {
    let at = "spec.podFailurePolicy.rules[0]";
    let check = |rule: Value, expect: &str| {
        assert_eq!(
            create_errors(&changed(&job(), "spec/podFailurePolicy", json!({"rules": [rule]}))),
            expect,
            "{rule}"
        );
    };
    let codes = |codes: Value| json!({"action": "FailJob", "onExitCodes": codes});
    check(codes(json!({"operator": "In", "values": [1, 2]})), "");
    check(
        json!({"action": "FailJob"}),
        &format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
    );
    check(
        json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}, "onPodConditions": [{"type": "Ready", "status": "True"}]}),
        &format!("{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
    );
    check(
        json!({"onPodConditions": [{"type": "Ready"}]}),
        &format!(
            "{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]\n\
             {at}.onPodConditions[0].status: Required value: valid values: [\"False\" \"True\" \"Unknown\"]"
        ),
    );
    check(
        json!({"action": "FailIndex", "onPodConditions": [{"type": "Ready", "status": "Odd"}]}),
        &format!(
            "{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set\n\
             {at}.onPodConditions[0].status: Unsupported value: \"Odd\": supported values: \"False\", \"True\", \"Unknown\""
        ),
    );
    let at = format!("{at}.onExitCodes");
    check(codes(json!({"values": [1]})), &format!("{at}.operator: Required value: valid values: [\"In\" \"NotIn\"]"));
    check(
        codes(json!({"operator": "In"})),
        &format!("{at}.values: Invalid value: null: at least one value is required"),
    );
    check(
        codes(json!({"operator": "In", "values": [2, 0, 2], "containerName": "x"})),
        &format!(
            "{at}.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template\n\
             {at}.values[1]: Invalid value: 0: must not be 0 for the In operator\n\
             {at}.values[2]: Duplicate value: 2\n\
             {at}.values: Invalid value: [2,0,2]: must be ordered"
        ),
    );
    let mut restarting = changed(&job(), "spec/podFailurePolicy", json!({"rules": []}));
    restarting["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
    restarting["spec"]["podReplacementPolicy"] = "TerminatingOrFailed".into();
    assert_eq!(
        create_errors(&restarting),
        "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"\n\
         spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified"
    );
}

#[test]
fn updates() {
    let check = |old: &Value, path: &str, to: Value, expect: &str| {
        assert_eq!(update_errors(&changed(old, path, to), old), expect, "{path}");
    };
    check(&job(), "spec/parallelism", json!(3), "");
    check(&job(), "spec/completions", json!(3), "spec.completions: Invalid value: 3: field is immutable");
    check(&indexed(), "spec/completions", json!(1), "");
    check(
        &indexed(),
        "spec/completions",
        json!(3),
        "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism",
    );
    for (field, to) in [
        ("completionMode", json!("NonIndexed")),
        ("backoffLimitPerIndex", json!(2)),
        ("managedBy", json!("a.b/c")),
        ("successPolicy", json!({"rules": [{"succeededCount": 1}]})),
        ("podFailurePolicy", json!({"rules": []})),
    ] {
        let found = update_errors(&changed(&indexed(), &format!("spec/{field}"), to), &indexed());
        assert!(
            found.lines().any(
                |l| l.starts_with(&format!("spec.{field}: Invalid value: ")) && l.ends_with(": field is immutable")
            ),
            "{found}"
        );
    }
    let mut made = changed(&job(), "spec/manualSelector", Value::Null);
    let labels = json!({"controller-uid": "u", "job-name": "j", "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    made["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    made["spec"]["template"]["metadata"]["labels"] = labels;
    assert_eq!(create_errors(&made), "");
    check(&made, "spec/parallelism", json!(3), "");
    let wrong = changed(&made, "spec/template/metadata/labels/job-name", Value::Null);
    assert_eq!(create_errors(&wrong), "spec.template.metadata.labels[job-name]: Required value: must be 'j'");
    let wrong = changed(&made, "spec/selector/matchLabels/controller-uid", json!("v"));
    assert_eq!(
        create_errors(&wrong),
        "spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\"u\",\"controller-uid\":\"v\"}}: `selector` not auto-generated\n\
         spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"j\"}: `selector` does not match template `labels`"
    );
}

/// Which changes of the template pass, by the state of the job.
#[test]
fn templates_of_suspended_jobs() {
    let resources = json!({"requests": {"cpu": "1"}});
    let node_affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}});
    let place = [
        ("spec/template/spec/nodeSelector", json!({"a": "b"})),
        ("spec/template/spec/affinity", node_affinity.clone()),
        ("spec/template/metadata/annotations", json!({"a": "b"})),
        ("spec/template/spec/schedulingGates", json!([{"name": "a.b/c"}])),
    ];
    let with =
        |suspend: bool, status: Value| changed(&changed(&job(), "spec/suspend", json!(suspend)), "status", status);
    let condition = json!([{"type": "Suspended", "status": "True"}]);
    let started = "2024-01-01T00:00:00Z";
    // The job before, whether the place may change, and whether the resources may.
    for (old, moves, resizes) in [
        (with(false, json!({})), false, false),
        (with(true, json!({})), true, false),
        (with(true, json!({"startTime": started})), false, false),
        (with(true, json!({"startTime": started, "conditions": condition, "active": 1})), false, false),
        (with(true, json!({"startTime": started, "conditions": condition, "active": 0})), true, true),
        (with(true, json!({"conditions": condition})), true, true),
        (with(false, json!({"conditions": condition})), false, false),
    ] {
        for (path, to) in &place {
            let found = update_errors(&changed(&old, path, to.clone()), &old);
            assert_eq!(found.is_empty(), moves, "{path} {old}: {found}");
        }
        let found = update_errors(&changed(&old, "spec/template/spec/containers/0/resources", resources.clone()), &old);
        assert_eq!(found.is_empty(), resizes, "{old}: {found}");
        let found = update_errors(&changed(&old, "spec/template/spec/containers/0/image", json!("j")), &old);
        let at = if resizes { "spec.template.spec" } else { "spec.template" };
        assert!(
            found.starts_with(&format!("{at}: Invalid value: {{")) && found.ends_with(": field is immutable"),
            "{found}"
        );
    }
    let fresh = with(true, json!({}));
    let placed = changed(&fresh, "spec/template/spec/affinity", node_affinity.clone());
    assert_eq!(update_errors(&fresh, &placed), "");
    let mut both = placed.clone();
    both["spec"]["template"]["spec"]["affinity"]["podAffinity"] = json!({});
    assert_ne!(update_errors(&fresh, &both), "");
    assert_ne!(update_errors(&both, &fresh), "");
}
