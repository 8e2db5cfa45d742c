use super::*;
use crate::testing::{at, container as ran, pod, sandbox, state};
use serde_json::{Value, json};

#[derive(Default)]
struct Case<'a> {
    pod: &'a str,
    runtime: RuntimeState,
    verdicts: Verdicts,
    waiting: &'a [(&'a str, &'a str, &'a str)],
    old: PodStatus,
    ended: Option<Ending>,
    terminal: bool,
}

impl Case<'_> {
    fn status(&self) -> PodStatus {
        let pod = pod(self.pod);
        let waiting = self.waiting.iter().map(|(name, reason, message)| {
            ((*name).to_string(), Waiting { reason: (*reason).into(), message: (*message).into() })
        });
        status(&View {
            pod: &pod,
            old: &self.old,
            runtime: &self.runtime,
            verdicts: &self.verdicts,
            waiting: &waiting.collect(),
            messages: &BTreeMap::new(),
            host_ips: &["192.168.1.1".parse().unwrap()],
            ended: self.ended.as_ref(),
            terminal: self.terminal,
            resize: None,
            now: at(0),
        })
    }
    fn json(&self) -> Value {
        serde_json::to_value(self.status()).unwrap()
    }
}

fn conditions(s: &Value) -> Vec<String> {
    let list = s["conditions"].as_array().unwrap();
    list.iter()
        .map(|c| {
            let part = |k: &str| c[k].as_str().map(|s| format!(" {s}")).unwrap_or_default();
            format!(
                "{}={}{}{}",
                c["type"].as_str().unwrap(),
                c["status"].as_str().unwrap(),
                part("reason"),
                part("message")
            )
        })
        .collect()
}

#[test]
fn before_anything_runs() {
    let s =
        Case { pod: "{metadata: {generation: 1}, spec: {containers: [{name: a, image: x}]}}", ..Default::default() }
            .json();
    assert_eq!(s["phase"], "Pending");
    assert_eq!(s["qosClass"], "BestEffort");
    assert_eq!(s["hostIP"], "192.168.1.1");
    assert_eq!(s["observedGeneration"], 1);
    assert_eq!(s["startTime"], "2023-11-14T22:13:20Z");
    assert_eq!(
        s["containerStatuses"][0],
        json!({"name": "a", "image": "x", "imageID": "", "lastState": {}, "ready": false, "restartCount": 0,
               "started": false, "state": {"waiting": {"reason": "ContainerCreating"}}})
    );
    assert_eq!(
        conditions(&s),
        [
            "PodReadyToStartContainers=False",
            "Initialized=True",
            "Ready=False ContainersNotReady containers with unready status: [a]",
            "ContainersReady=False ContainersNotReady containers with unready status: [a]",
            "PodScheduled=True",
        ]
    );
    assert_eq!(s["conditions"][1]["observedGeneration"], 1);
}

#[test]
fn initialising() {
    let s = Case {
        pod: "spec: {initContainers: [{name: i}, {name: j}], containers: [{name: a}, {name: b}]}",
        runtime: state(&[sandbox(0)], &[ran("i", "running")]),
        ..Default::default()
    }
    .json();
    assert_eq!(s["phase"], "Pending");
    assert_eq!(s["podIP"], "10.0.0.5");
    assert_eq!(s["podIPs"], json!([{"ip": "10.0.0.5"}]));
    assert_eq!(s["initContainerStatuses"][1]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(s["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        conditions(&s)[..3],
        [
            "PodReadyToStartContainers=True",
            "Initialized=False ContainersNotInitialized containers with incomplete status: [i j]",
            "Ready=False ContainersNotReady containers with unready status: [a b]",
        ]
    );
}

#[test]
fn running_and_ready() {
    let probed = "spec: {containers: [{name: a, readinessProbe: {}, startupProbe: {}}]}";
    let mut case = Case { pod: probed, runtime: state(&[sandbox(0)], &[ran("a", "running")]), ..Default::default() };
    let check = |case: &Case<'_>, want: (bool, bool)| {
        let s = case.json();
        assert_eq!(s["phase"], "Running");
        let c = &s["containerStatuses"][0];
        assert_eq!((c["started"] == true, c["ready"] == true), want);
        assert_eq!(conditions(&s)[3].starts_with("ContainersReady=True"), want.1);
        assert_eq!(c["containerID"], "pintle://a-0");
    };
    check(&case, (false, false));
    case.verdicts.startup.insert("a-0".into(), Verdict::Success);
    check(&case, (true, false));
    case.verdicts.readiness.insert("a-0".into(), Verdict::Failure);
    check(&case, (true, false));
    case.verdicts.readiness.insert("a-0".into(), Verdict::Success);
    check(&case, (true, true));
}

#[test]
fn waiting_again() {
    let back_off = "back-off 10s restarting failed container=a pod=p_ns(uid-1)";
    let s = Case {
        pod: "spec: {containers: [{name: a}]}",
        runtime: state(&[sandbox(0)], &[ran("a", "exit 1")]),
        waiting: &[("a", "CrashLoopBackOff", back_off)],
        ..Default::default()
    }
    .json();
    let c = &s["containerStatuses"][0];
    assert_eq!(s["phase"], "Running");
    assert_eq!(c["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": back_off}}));
    assert_eq!(
        c["lastState"],
        json!({"terminated": {"containerID": "pintle://a-0", "exitCode": 1, "reason": "Error",
               "startedAt": "2023-11-14T22:13:21Z", "finishedAt": "2023-11-14T22:13:22Z"}})
    );
    let pull = &[("a", "ErrImagePull", "no")][..];
    let s = Case { pod: "spec: {containers: [{name: a}]}", waiting: pull, ..Default::default() }.json();
    assert_eq!(s["containerStatuses"][0]["state"]["waiting"]["reason"], "ErrImagePull");
    assert_eq!(s["phase"], "Pending");
}

#[test]
fn ends() {
    let once = "spec: {restartPolicy: Never, containers: [{name: a}]}";
    let done = state(&[sandbox(0)], &[ran("a", "exit 0")]);
    let s = Case { pod: once, runtime: done.clone(), ..Default::default() }.json();
    assert_eq!(s["phase"], "Succeeded");
    assert_eq!(
        conditions(&s)[1..4],
        ["Initialized=True PodCompleted", "Ready=False PodCompleted", "ContainersReady=False PodCompleted"]
    );
    assert_eq!(s["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let ended = Ending { reason: "Evicted".into(), message: "low".into(), conditions: vec![] };
    let s = Case { pod: once, ended: Some(ended), ..Default::default() }.json();
    assert_eq!((&s["phase"], &s["reason"], &s["message"]), (&json!("Failed"), &json!("Evicted"), &json!("low")));
    assert_eq!(conditions(&s)[2], "Ready=False PodFailed");
    let old = Case { pod: once, runtime: done, ..Default::default() }.status();
    let s = Case { pod: once, old, terminal: true, ..Default::default() }.json();
    assert_eq!(s["phase"], "Succeeded", "what was reported stays when the runtime forgot");
    assert_eq!(s["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
}

#[test]
fn gates_and_others_conditions() {
    let gated = "spec: {readinessGates: [{conditionType: example.com/x}], containers: [{name: a}]}";
    let runtime = state(&[sandbox(0)], &[ran("a", "running")]);
    let s = Case { pod: gated, runtime: runtime.clone(), ..Default::default() }.json();
    let missing = "corresponding condition of pod readiness gate \"example.com/x\" does not exist.";
    assert_eq!(conditions(&s)[2], format!("Ready=False ReadinessGatesNotReady {missing}"));
    let gate = PodCondition { type_: "example.com/x".into(), status: "True".into(), ..Default::default() };
    let old = PodStatus { conditions: Some(vec![gate]), ..Default::default() };
    let s = Case { pod: gated, runtime, old, ..Default::default() }.json();
    assert_eq!(conditions(&s)[0], "example.com/x=True");
    assert_eq!(conditions(&s)[3], "Ready=True");
}

#[test]
fn all_containers_are_restarted() {
    const POD: &str = "spec: {restartPolicy: Never, initContainers: [{name: i}], containers: [{name: b}, {name: a, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]}";
    let of_round = |name: &str, state: &str| {
        let mut c = ran(name, state);
        c.id = format!("{name}-1");
        c.created_at += 1;
        c.annotations = [("io.pintle.pod.round", "1"), ("io.kubernetes.container.restartCount", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        c
    };
    let check = |containers: &[rt::ContainerStatus], phase: &str, restarting: &str| {
        let case = Case { pod: POD, runtime: state(&[sandbox(0)], containers), ..Default::default() };
        let s = case.json();
        assert_eq!((s["phase"].as_str(), conditions(&s)[5].as_str()), (Some(phase), restarting));
        s
    };
    let (no, yes) = (
        "AllContainersRestarting=False",
        "AllContainersRestarting=True RestartAllContainersStarted container exited with restart policy rule",
    );
    let before = [ran("i", "exit 0"), ran("b", "running"), ran("a", "running")];
    check(&before, "Running", no);
    check(&[ran("i", "exit 0"), ran("b", "running"), ran("a", "exit 42")], "Running", yes);
    let dead = [ran("i", "exit 0"), ran("b", "exit 137"), ran("a", "exit 42")];
    check(&dead, "Running", yes);
    let s = check(&[&dead[..], &[of_round("i", "running")]].concat(), "Pending", no);
    let a = &s["containerStatuses"][1];
    assert_eq!(a["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!((&a["lastState"]["terminated"]["exitCode"], &a["restartCount"]), (&json!(42), &json!(0)));
    let anew = [of_round("i", "exit 0"), of_round("b", "running"), of_round("a", "running")];
    let s = check(&[&dead[..], &anew].concat(), "Running", no);
    let a = &s["containerStatuses"][1];
    assert_eq!((&a["lastState"]["terminated"]["exitCode"], &a["restartCount"]), (&json!(42), &json!(1)));
    let over = [of_round("i", "exit 0"), of_round("b", "exit 0"), of_round("a", "exit 0")];
    check(&[&dead[..], &over].concat(), "Succeeded", "AllContainersRestarting=False PodCompleted");
}

#[test]
fn resources_of_the_pod() {
    let of = |spec: &str| {
        let s = Case { pod: spec, ..Default::default() }.json();
        (s["allocatedResources"].clone(), s["resources"].clone())
    };
    assert_eq!(of("spec: {containers: [{name: a}]}"), (Value::Null, Value::Null));
    assert_eq!(
        of(
            "spec: {containers: [{name: a, resources: {requests: {cpu: 100m}}}, {name: b, resources: {requests: {cpu: 200m, memory: 1Gi}}}]}"
        ),
        (json!({"cpu": "300m", "memory": "1Gi"}), Value::Null)
    );
    assert_eq!(
        of("spec: {resources: {requests: {cpu: '1'}}, containers: [{name: a, resources: {requests: {cpu: 100m}}}]}"),
        (json!({"cpu": "1"}), json!({"requests": {"cpu": "1"}}))
    );
}
