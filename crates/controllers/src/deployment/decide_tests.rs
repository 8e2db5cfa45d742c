use super::*;
use serde_json::json;

fn now() -> Timestamp {
    "2024-01-01T00:10:00Z".parse().unwrap()
}

/// `strategy replicas surge unavailable`.
fn deployment(line: &str, image: &str) -> Deployment {
    let f: Vec<&str> = line.split(' ').collect();
    let n = |i: usize| f[i].parse::<i32>().unwrap();
    let strategy = if f[0] == "Recreate" {
        json!({"type": "Recreate"})
    } else {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": n(2), "maxUnavailable": n(3)}})
    };
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {
            "replicas": n(1), "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

/// `image size available desired-annotation created-second`.
fn replica_set(d: &Deployment, line: &str) -> ReplicaSet {
    let f: Vec<&str> = line.split(' ').collect();
    let mut of = d.clone();
    of.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(f[0].into());
    let mut rs = new_replica_set(&of, &template_hash(&of));
    let (n, available): (i32, i32) = (f[1].parse().unwrap(), f[2].parse().unwrap());
    rs.metadata.uid = Some(f[0].into());
    rs.metadata.name = Some(f[0].into());
    rs.metadata.creation_timestamp =
        Some(serde_json::from_value(json!(format!("2024-01-01T00:00:{:0>2}Z", f[4]))).unwrap());
    rs.spec.as_mut().unwrap().replicas = Some(n);
    rs.status = Some(
        serde_json::from_value(json!({"replicas": n, "readyReplicas": available, "availableReplicas": available}))
            .unwrap(),
    );
    let a = rs.metadata.annotations.get_or_insert_default();
    a.insert(revision::REVISION.into(), f[4].into());
    a.insert(revision::DESIRED.into(), f[3].into());
    let max = f[3].parse::<i32>().unwrap().saturating_add(super::super::replicasets::max_surge(d));
    a.insert(revision::MAX.into(), max.to_string());
    rs
}

fn plan(d: Deployment, sets: &[&str], pods: Vec<Arc<Pod>>) -> Plan {
    let replica_sets = sets.iter().map(|l| replica_set(&d, l)).collect();
    decide(&Snapshot { deployment: d, replica_sets, pods }, now())
}

fn sizes(plan: &Plan) -> Vec<String> {
    plan.writes
        .iter()
        .map(|w| match w {
            Write::Create(r) => format!("+{}", size(r)),
            Write::Update(r) => format!("{}={}", name_of(r), size(r)),
            Write::Delete(r) => format!("-{}", name_of(r)),
            Write::Deployment(_) => "deployment".into(),
            Write::Event(e) => e.clone(),
        })
        .filter(|s| !s.starts_with("Scaled"))
        .collect()
}

#[test]
fn steps() {
    for (d, image, sets, want) in [
        // The first ReplicaSet is made at full size.
        ("Rolling 3 1 1", "v1", &[][..], &["+3"][..]),
        // A new template starts with the surge and what may be missing.
        ("Rolling 10 2 3", "v2", &["v1 10 10 10 1"], &["+2"]),
        // Old pods go as far as availability allows: 10 + 2 - (10 - 3) - 2 not yet available.
        ("Rolling 10 2 3", "v2", &["v1 10 10 10 1", "v2 2 0 10 2"], &["v1=7"]),
        ("Rolling 10 2 3", "v2", &["v1 7 7 10 1", "v2 2 0 10 2"], &["v2=5"]),
        ("Rolling 10 2 3", "v2", &["v1 7 7 10 1", "v2 5 5 10 2"], &["v1=2"]),
        // Unhealthy old pods go first, the oldest ReplicaSet's before others'.
        ("Rolling 10 0 2", "v3", &["v1 3 1 10 1", "v2 7 7 10 2", "v3 0 0 10 3"], &["v1=1"]),
        // Nothing to do when nothing is available yet.
        ("Rolling 2 1 0", "v2", &["v1 2 2 2 1", "v2 1 0 2 2"], &[]),
        // Scaled amid a rollout: by proportion, the larger takes the rest.
        ("Rolling 20 2 3", "v2", &["v1 8 8 10 1", "v2 4 2 10 2"], &["v1=15", "v2=7"]),
        ("Rolling 5 0 1", "v1", &["v1 3 3 3 1"], &["v1=5"]),
        ("Rolling 0 1 1", "v1", &["v1 3 3 3 1"], &["v1=0"]),
        // As many as a number can say, and no surge beyond that.
        ("Rolling 2147483647 1 0", "v2", &["v1 2147483647 0 2147483647 1"], &["+0"]),
        // Recreate: first none of the old, then all of the new.
        ("Recreate 3 0 0", "v2", &["v1 3 3 3 1"], &["v1=0"]),
        ("Recreate 3 0 0", "v2", &["v1 0 0 3 1"], &["+3"]),
        ("Recreate 3 0 0", "v2", &["v1 0 0 3 1", "v2 0 0 3 2"], &["v2=3"]),
    ] {
        let p = plan(deployment(d, image), sets, vec![]);
        let got = sizes(&p);
        assert_eq!(got, want, "{d} {image} {sets:?}");
    }
}

#[test]
fn recreate_waits_for_old_pods() {
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z",
        "ownerReferences": [{"uid": "v1", "controller": true}]}, "status": {"phase": "Running"}}))
        .unwrap();
    assert_eq!(sizes(&plan(deployment("Recreate 3 0 0", "v2"), &["v1 0 0 3 1"], vec![Arc::new(pod)])), [""; 0]);
}

#[test]
fn names_and_labels() {
    let p = plan(deployment("Rolling 3 1 1", "v1"), &[], vec![]);
    let Write::Create(rs) = &p.writes[0] else { panic!("{p:?}") };
    let hash = rs.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
    assert_eq!(name_of(rs), format!("web-{hash}"));
    assert!(hash.len() <= 10 && hash.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    assert_eq!(rs.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!(rs.metadata.annotations.as_ref().unwrap()[revision::REVISION], "1");
    assert_eq!(rs.metadata.annotations.as_ref().unwrap()[revision::MAX], "4");
    assert!(matches!(&p.writes[1], Write::Event(e) if *e == format!("Scaled up replica set web-{hash} from 0 to 3")));
    assert_eq!(p.annotations.as_ref().unwrap()[revision::REVISION], "1");
    let mut collided = deployment("Rolling 3 1 1", "v1");
    collided.status = Some(DeploymentStatus { collision_count: Some(1), ..DeploymentStatus::default() });
    assert_ne!(template_hash(&collided), hash);
}

#[test]
fn going_back_renumbers_and_remembers() {
    let p = plan(deployment("Rolling 3 1 1", "v1"), &["v1 0 0 3 1", "v2 3 3 3 2"], vec![]);
    let Write::Update(rs) = &p.writes[0] else { panic!("{p:?}") };
    let a = rs.metadata.annotations.as_ref().unwrap();
    assert_eq!((a[revision::REVISION].as_str(), a["deployment.kubernetes.io/revision-history"].as_str()), ("3", "1"));
    assert_eq!(size(rs), 1, "one write carries both");

    let mut d = deployment("Rolling 3 1 1", "v2");
    d.metadata.annotations = Some([("deprecated.deployment.rollback.to".to_owned(), "0".to_owned())].into());
    let p = plan(d, &["v1 0 0 3 1", "v2 3 3 3 2"], vec![]);
    let Write::Deployment(d) = &p.writes[0] else { panic!("{p:?}") };
    assert_eq!(d.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.as_deref(), Some("v1"));
    assert_eq!(p.events[0].0, "DeploymentRollback");
}

fn condition(p: &Plan, kind: &str) -> Option<(String, String)> {
    let c = conditions::get(p.status.as_ref()?, kind)?;
    Some((c.status.clone(), c.reason.clone().unwrap_or_default()))
}

#[test]
fn conditions_tell_progress() {
    let of = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    let mut p = plan(deployment("Rolling 2 1 0", "v1"), &["v1 2 2 2 1"], vec![]);
    assert_eq!(condition(&p, "Progressing"), of("True", "NewReplicaSetAvailable"));
    assert_eq!(condition(&p, "Available"), of("True", "MinimumReplicasAvailable"));
    assert_eq!(p.again, None);

    p = plan(deployment("Rolling 2 1 0", "v1"), &["v1 2 0 2 1"], vec![]);
    assert_eq!(condition(&p, "Progressing"), of("True", "ReplicaSetUpdated"));
    assert_eq!(condition(&p, "Available"), of("False", "MinimumReplicasUnavailable"));
    assert_eq!(p.again, Some(Duration::from_secs(601)));

    // The same ten minutes later, with no progress.
    let mut d = deployment("Rolling 2 1 0", "v1");
    d.status = p.status;
    let sets = vec![replica_set(&d, "v1 2 0 2 1")];
    let later = now() + jiff::SignedDuration::from_secs(601);
    let p = decide(&Snapshot { deployment: d, replica_sets: sets, pods: vec![] }, later);
    assert_eq!(condition(&p, "Progressing"), of("False", "ProgressDeadlineExceeded"));
    assert_eq!(p.again, None);
}

#[test]
fn pausing_holds_the_rollout_but_not_scaling() {
    let mut d = deployment("Rolling 5 1 0", "v2");
    d.spec.as_mut().unwrap().paused = Some(true);
    let p = plan(d, &["v1 2 2 2 1"], vec![]);
    assert_eq!(sizes(&p), ["v1=5"]);
    assert_eq!(condition(&p, "Progressing").unwrap().1, "DeploymentPaused");
}

#[test]
fn history_is_cut_when_complete() {
    let mut d = deployment("Rolling 1 1 0", "v4");
    d.status = Some(
        serde_json::from_value(
            json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}),
        )
        .unwrap(),
    );
    let p = plan(d, &["v1 0 0 1 1", "v2 0 0 1 2", "v3 0 0 1 3", "v4 1 1 1 4"], vec![]);
    assert_eq!(sizes(&p), ["-v1", "-v2"]);
}
