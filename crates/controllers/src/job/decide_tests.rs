use super::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2024-01-01T01:00:00Z".parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut all = json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}, "selector": {"matchLabels": {"a": "b"}}, "parallelism": 2, "completions": 3, "backoffLimit": 6});
    for (k, v) in spec.as_object().unwrap() {
        all[k] = v.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": all, "status": status}),
    )
    .unwrap()
}

/// `name state[@index][#failures]`, state one of r(unning), s(ucceeded), f(ailed), d(eleting); capitals have lost the
/// finalizer.
fn pod(line: &str) -> Arc<Pod> {
    let (name, rest) = line.split_once(' ').unwrap();
    let (rest, failures) = rest.split_once('#').unwrap_or((rest, ""));
    let (state, index) = rest.split_once('@').unwrap_or((rest, ""));
    let phase = match state.to_lowercase().as_str() {
        "s" => "Succeeded",
        "f" => "Failed",
        _ => "Running",
    };
    let finalizers = if state.chars().all(char::is_lowercase) { json!([super::super::FINALIZER]) } else { json!([]) };
    let mut annotations = json!({});
    if !index.is_empty() {
        annotations[template::INDEX] = json!(index);
    }
    if !failures.is_empty() {
        annotations[INDEX_FAILURES] = json!(failures);
    }
    let value = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "finalizers": finalizers, "annotations": annotations,
            "deletionTimestamp": (state == "d").then_some("2024-01-01T00:00:00Z")},
        "spec": {"nodeName": "x"}, "status": {"phase": phase, "containerStatuses": [{"name": "c", "state": {"terminated": (phase != "Running").then(|| json!({"exitCode": 1, "finishedAt": "2024-01-01T00:00:00Z"}))}}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn run(job: &Job, pods: &[&str]) -> Plan {
    decide(
        &Snapshot { job, pods: pods.iter().map(|p| pod(p)).collect(), failures: Failures::default(), may_scale: true },
        now(),
    )
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| p.metadata.name.as_str()).collect()
}

fn kinds(s: &JobStatus) -> Vec<(&str, &str)> {
    s.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap_or_default())).collect()
}

#[test]
fn keeps_the_number_that_is_needed() {
    for (spec, status, pods, create, delete) in [
        (json!({}), json!({}), &[][..], 2, &[][..]),
        (json!({}), json!({}), &["a r"], 1, &[]),
        (json!({}), json!({"succeeded": 2}), &["a r"], 0, &[]),
        (json!({}), json!({"succeeded": 2}), &["a r", "b r"], 0, &["a"]),
        (json!({"suspend": true}), json!({}), &["a r"], 0, &["a"]),
        (json!({"completions": null}), json!({}), &["a r", "b s"], 0, &[]),
        (json!({"completions": null, "parallelism": 3}), json!({}), &["a r"], 2, &[]),
        // One that is going is replaced at once, unless the Job waits for its end.
        (json!({"podReplacementPolicy": "Failed"}), json!({}), &["a d", "b r"], 0, &[]),
    ] {
        let p = run(&job(spec.clone(), status), pods);
        assert_eq!((p.create.len(), names(&p.delete)), (create, delete.to_vec()), "{spec} {pods:?}");
    }
}

#[test]
fn ends_are_counted_once_and_before_pods_are_let_go() {
    let j = job(json!({}), json!({"startTime": "2024-01-01T00:00:00Z"}));
    let p = run(&j, &["a s", "b f", "c r"]);
    let u = p.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!((u.succeeded.unwrap(), u.failed.unwrap()), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!((p.status.succeeded, p.status.failed), (None, None));
    assert_eq!(names(&p.release), ["a", "b"]);
    // The finalizers are gone: the numbers move, and stay when the pods are still there.
    let mut j2 = j.clone();
    j2.status = Some(p.status);
    let p = run(&j2, &["a S", "b F", "c r"]);
    assert_eq!((p.status.succeeded, p.status.failed), (Some(1), Some(1)));
    assert_eq!(p.status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
    j2.status = Some(p.status);
    let p = run(&j2, &["a S", "c r"]);
    assert_eq!((p.status.succeeded, p.status.failed), (Some(1), Some(1)));
    // The status was written but the finalizer not yet taken: it is taken, and nothing counted again.
    j2.status.as_mut().unwrap().uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: Some(vec!["c".into()]), failed: None });
    let p = run(&j2, &["c s"]);
    assert_eq!(names(&p.release), ["c"]);
    assert_eq!(p.status.uncounted_terminated_pods.unwrap().succeeded.unwrap(), ["c"]);
}

#[test]
fn completes_once_all_is_counted() {
    let j = job(json!({"completions": 1}), json!({}));
    let p = run(&j, &["a s"]);
    assert_eq!(kinds(&p.status), []);
    let mut j2 = j.clone();
    j2.status = Some(p.status);
    let p = run(&j2, &["a S"]);
    assert_eq!(kinds(&p.status), [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]);
    assert!(p.status.completion_time.is_some());
    assert_eq!(p.events[0].0, "Completed");
}

#[test]
fn fails_when_it_must() {
    for (spec, status, pods, reason) in [
        (json!({"backoffLimit": 0}), json!({}), &["a f"][..], "BackoffLimitExceeded"),
        (
            json!({"activeDeadlineSeconds": 60}),
            json!({"startTime": "2024-01-01T00:00:00Z"}),
            &["a r"],
            "DeadlineExceeded",
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]}}),
            json!({}),
            &["a f", "b r"],
            "PodFailurePolicy",
        ),
        (
            json!({"completionMode": "Indexed", "backoffLimitPerIndex": 0, "completions": 2}),
            json!({"completedIndexes": "0"}),
            &["a f@1#0"],
            "FailedIndexes",
        ),
        (
            json!({"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0}),
            json!({}),
            &["a f@1#0", "b r@2"],
            "MaxFailedIndexesExceeded",
        ),
    ] {
        let mut j = job(spec.clone(), status);
        let p = run(&j, pods);
        assert_eq!(kinds(&p.status), [("FailureTarget", reason)], "{spec}");
        assert_eq!(p.delete.len(), pods.iter().filter(|l| l.contains(" r")).count(), "what runs is stopped");
        // Once everything ended and was counted it has failed.
        j.status = Some(p.status);
        let p = run(&j, &[]);
        assert_eq!(kinds(&p.status), [("FailureTarget", reason), ("Failed", reason)], "{spec}");
        assert!(!p.events[0].2);
        assert!(is_finished(&Job { status: Some(p.status), ..j }));
    }
}

#[test]
fn indexes_are_made_in_order_and_repeated_when_they_fail() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 3});
    let made = |p: &Plan| {
        p.create.iter().map(|p| p.metadata.annotations.as_ref().unwrap()[template::INDEX].clone()).collect::<Vec<_>>()
    };
    let p = run(&job(spec.clone(), json!({})), &[]);
    assert_eq!(made(&p), ["0", "1", "2"]);
    let first = &p.create[0];
    assert_eq!(first.spec.as_ref().unwrap().hostname.as_deref(), Some("j-0"));
    assert_eq!(first.metadata.generate_name.as_deref(), Some("j-0-"));
    assert_eq!(first.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    let p = run(&job(spec.clone(), json!({"completedIndexes": "0"})), &["a r@2", "b s@1"]);
    assert_eq!((made(&p), p.status.completed_indexes.as_deref()), (vec!["3".to_owned()], Some("0,1")));
    let p = run(&job(spec, json!({})), &["a r@2", "b r@2", "c r@9"]);
    assert_eq!(names(&p.delete), ["b", "c"]);
    // An annotation may say anything.
    let limited = json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": i32::MAX});
    assert_eq!(made(&run(&job(limited, json!({})), &["a f@0#2147483647"])), ["0", "1"]);
}

#[test]
fn failures_delay_the_next_pod() {
    let j = job(json!({"completions": 1}), json!({}));
    let mut s = Snapshot { job: &j, pods: vec![pod("a f")], failures: Failures::default(), may_scale: true };
    let at: Timestamp = "2024-01-01T00:00:04Z".parse().unwrap();
    let p = decide(&s, at);
    assert_eq!((p.create.len(), p.again), (0, Some(Duration::from_secs(6))));
    assert_eq!(p.failures.count, 1);
    s.failures = p.failures;
    s.pods = vec![];
    assert_eq!(decide(&s, at + jiff::SignedDuration::from_secs(6)).create.len(), 1);
    s.failures.count = 3;
    assert_eq!(decide(&s, at).again, Some(Duration::from_secs(36)));
}

#[test]
fn what_is_finished_has_started() {
    let started = "2024-01-01T00:00:00Z";
    for (spec, status, expect) in [
        (json!({"suspend": true, "completions": 1}), json!({"succeeded": 1, "startTime": started}), Some(started)),
        (json!({"suspend": true, "completions": 1}), json!({"succeeded": 1}), Some("now")),
        (json!({"suspend": true, "completions": 0}), json!({}), None),
        (json!({"completions": 0}), json!({}), Some("now")),
    ] {
        let p = run(&job(spec.clone(), status), &[]);
        assert!(kinds(&p.status).contains(&("Complete", "CompletionsReached")), "{spec}: {:?}", kinds(&p.status));
        let expect = expect.map(|t| if t == "now" { time(now()) } else { time(t.parse().unwrap()) });
        assert_eq!(p.status.start_time, expect, "{spec}");
    }
}

#[test]
fn suspends_and_resumes() {
    let p = run(&job(json!({"suspend": true}), json!({"startTime": "2024-01-01T00:00:00Z"})), &[]);
    assert_eq!(kinds(&p.status), [("Suspended", "JobSuspended")]);
    assert!(p.status.start_time.is_none());
    let mut j = job(json!({}), json!({}));
    j.status = Some(p.status);
    let p = run(&j, &[]);
    assert_eq!((kinds(&p.status), p.create.len()), (vec![("Suspended", "JobResumed")], 2));
    assert_eq!(p.status.start_time, Some(time(now())));
}
