use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::behavior::{Bounds, Memory};
use super::calculate::{self, Aim, Proposal, Sample, Samples, Tolerance};
use super::{metrics, quantity};

const T: Tolerance = Tolerance { up: 0.1, down: 0.1 };

fn at(seconds: i64) -> Timestamp {
    "2024-01-01T01:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// Pods by a letter each: ready, Pending, Missing metrics, Unready, Failed, Deleting, Starting.
fn pods(kinds: &str) -> (Vec<Pod>, Vec<String>) {
    let of = |(i, k): (usize, char)| {
        let (phase, ready) = match k {
            'P' => ("Pending", "False"),
            'F' => ("Failed", "False"),
            'U' => ("Running", "False"),
            _ => ("Running", "True"),
        };
        let start = if k == 'S' { "2024-01-01T00:59:50Z" } else { "2024-01-01T00:00:00Z" };
        let mut v = json!({"metadata": {"name": format!("p{i}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": start, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": start}]}});
        if k == 'D' {
            v["metadata"]["deletionTimestamp"] = json!("2024-01-01T01:00:00Z");
        }
        serde_json::from_value(v).unwrap()
    };
    let known = kinds.chars().enumerate().filter(|(_, k)| !"MP".contains(*k)).map(|(i, _)| format!("p{i}")).collect();
    (kinds.chars().enumerate().map(of).collect(), known)
}

fn samples(names: &[String], values: &[i64]) -> Samples {
    let at = Some(at(0));
    names
        .iter()
        .zip(values)
        .map(|(n, v)| (n.clone(), Sample { value: *v, at, window: Duration::from_secs(60) }))
        .collect()
}

fn by_percent(kinds: &str, values: &[i64], target: i32) -> Result<(i32, Option<i32>), String> {
    let (pods, names) = pods(kinds);
    let metrics = samples(&names, values);
    let groups = calculate::group(&pods, &metrics, "cpu", at(0));
    let requests = calculate::requests(&pods, "", "cpu").unwrap();
    let current = i32::try_from(pods.len()).unwrap();
    calculate::by_pods(current, &Aim::Utilization(target, &requests), metrics, &groups, T)
        .map(|p| (p.replicas, p.percent))
}

#[test]
fn replicas_by_use() {
    for (what, kinds, values, target, want) in [
        ("up", "RRR", vec![300, 500, 700], 30, Ok((5, Some(50)))),
        ("up, one pending counts as idle", "RRP", vec![500, 700], 30, Ok((4, Some(60)))),
        ("up, unready too", "RRU", vec![400, 800, 700], 30, Ok((4, Some(60)))),
        ("pods that start say nothing", "RRS", vec![400, 800, 900], 30, Ok((4, Some(60)))),
        ("down", "RRRRR", vec![100, 300, 500, 250, 250], 50, Ok((3, Some(28)))),
        ("down, one missing counts as full", "RRRM", vec![100, 300, 500], 100, Ok((2, Some(30)))),
        ("down, the unready do not count", "RRRU", vec![100, 300, 500, 999], 50, Ok((2, Some(30)))),
        ("within tolerance", "RRR", vec![1010, 1030, 1020], 100, Ok((3, Some(102)))),
        ("missing turn up into nothing", "RM", vec![1000], 50, Ok((2, Some(100)))),
        ("missing would turn the direction", "RRM", vec![450, 450], 50, Ok((3, Some(45)))),
        ("those that go do not count", "RRD", vec![500, 500, 900], 50, Ok((3, Some(50)))),
        ("failed ones do not count", "RRF", vec![1000, 1000, 900], 50, Ok((4, Some(100)))),
        ("nobody is ready", "PP", vec![], 50, Err("did not receive metrics for any ready pods".to_owned())),
    ] {
        assert_eq!(by_percent(kinds, &values, target), want, "{what}");
    }
    let (list, _) = pods("R");
    assert_eq!(
        calculate::requests(&list, "", "memory"),
        Err("missing request for memory in container c of Pod p0".to_owned())
    );
}

#[test]
fn replicas_by_values() {
    let (list, names) = pods("RRR");
    let metrics = samples(&names, &[20_000, 10_000, 30_000]);
    let groups = calculate::group(&list, &metrics, "", at(0));
    let p = calculate::by_pods(3, &Aim::Average(15_000), metrics, &groups, T).unwrap();
    assert_eq!(p, Proposal { replicas: 4, percent: None, average: 20_000 });
    for (current, target, value, want) in
        [(3, 10_000, 20_000, 6), (3, 10_000, 10_900, 3), (0, 10_000, 25_000, 3), (0, 10_000, 0, 0)]
    {
        assert_eq!(calculate::by_value(current, target, value, &list, T).unwrap().replicas, want, "{current} {value}");
    }
    for (replicas, target, value, want, share) in [(3, 10_000, 86_000, 9, 28_667), (3, 10_000, 31_000, 3, 10_334)] {
        let p = calculate::by_share(replicas, target, value, T);
        assert_eq!((p.replicas, p.average), (want, share));
    }
    // A tolerance of its own each way.
    let wide = Tolerance { up: 0.5, down: 0.0 };
    assert_eq!(calculate::by_value(3, 10_000, 14_000, &list, wide).unwrap().replicas, 3);
    assert_eq!(calculate::by_value(3, 10_000, 9_900, &list, wide).unwrap().replicas, 3);
    assert_eq!(calculate::by_value(3, 10_000, 6_600, &list, wide).unwrap().replicas, 2);
}

fn behavior(up: Value, down: Value) -> HorizontalPodAutoscalerBehavior {
    let rules = |extra: Value, policies: Value, window: i32| {
        let mut v = json!({"stabilizationWindowSeconds": window, "selectPolicy": "Max", "policies": policies});
        v.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        v
    };
    // The defaults of the API.
    let fast = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]);
    let all = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
    serde_json::from_value(json!({"scaleUp": rules(up, fast, 0), "scaleDown": rules(down, all, 300)})).unwrap()
}

#[test]
fn behaviors() {
    let default = behavior(json!({}), json!({}));
    let slow = behavior(
        json!({"stabilizationWindowSeconds": 60}),
        json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}),
    );
    let careful =
        behavior(json!({"selectPolicy": "Min"}), json!({"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}));
    // Steps: after so many seconds so many are wanted, this comes out, and this is said.
    for (behavior, start, max, steps) in [
        (
            None,
            3,
            100,
            &[
                "15 50 6 ScaleUpLimit",
                "30 50 12 ScaleUpLimit",
                "45 13 24 ScaleDownStabilized",
                "400 13 13 DesiredWithinRange",
                "800 0 1 TooFewReplicas",
            ][..],
        ),
        (None, 8, 10, &["15 20 10 TooManyReplicas"]),
        (
            Some(&default),
            2,
            100,
            &[
                "15 50 6 ScaleUpLimit",
                "30 50 12 ScaleUpLimit",
                "40 50 12 ScaleUpLimit",
                "46 50 24 ScaleUpLimit",
                "60 20 24 ScaleDownStabilized",
                "400 20 20 DesiredWithinRange",
            ],
        ),
        (
            Some(&slow),
            5,
            100,
            &[
                "10 8 5 ScaleUpStabilized",
                "90 8 8 DesiredWithinRange",
                "160 2 7 ScaleDownLimit",
                "190 2 7 ScaleDownLimit",
                "221 2 6 ScaleDownLimit",
            ],
        ),
        (Some(&careful), 2, 100, &["15 50 4 ScaleUpLimit", "40 1 4 ScaleDownLimit"]),
    ] {
        let (mut memory, mut current) = (Memory::default(), start);
        memory.begin(start, at(0));
        for step in steps {
            let field: Vec<&str> = step.split(' ').collect();
            let (now, desired) = (at(field[0].parse().unwrap()), field[1].parse().unwrap());
            let (got, able, limited) = memory.normalize(behavior, Bounds { min: 1, max, current, desired }, now);
            let said = if able.1 == "ReadyForNewScale" { limited.1 } else { able.1 };
            assert_eq!(format!("{got} {said}"), field[2..].join(" "), "{step} of {steps:?}");
            if got != current {
                memory.scaled(behavior, current, got, now);
                current = got;
            }
        }
    }
}

#[test]
fn words_of_the_metrics_apis() {
    for (milli, want) in [(500, "500m"), (1000, "1"), (0, "0"), (1500, "1500m"), (20_000, "20")] {
        assert_eq!(quantity(milli).0, want);
    }
    let s = serde_json::from_value(json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]})).unwrap();
    assert_eq!(metrics::selector(Some(&s)).unwrap(), "a=b,c in (d,e),!f");
}
