use super::*;
use crate::testing::{container as ran, pod, sandbox, state};

const TWO: &str = "spec: {containers: [{name: a}, {name: b}]}";
const INIT: &str = "spec: {initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";
const SIDE: &str =
    "spec: {initContainers: [{name: s, restartPolicy: Always, startupProbe: {}}, {name: i}], containers: [{name: a}]}";
const ONCE: &str = "spec: {restartPolicy: Never, containers: [{name: a}, {name: b}]}";

/// Compares the decision, written as words: `kill-pod`, `sandbox N`, `kill NAME`, `start NAME`.
fn check_with(spec: &str, runtime: &RuntimeState, verdicts: &Verdicts, killing: &[&str], want: &[&str]) {
    let p = pod(spec);
    let killing = killing.iter().map(ToString::to_string).collect();
    let d = decide(&View { pod: &p, runtime, verdicts, killing: &killing });
    let mut got = vec![];
    if d.kill_pod {
        got.push("kill-pod".into());
    }
    got.extend(d.create_sandbox.map(|n| format!("sandbox {n}")));
    got.extend(d.kill.iter().map(|k| format!("kill {}", k.name)));
    got.extend(d.start.iter().map(|s| format!("start {}", s.name)));
    assert_eq!(got, want, "{spec}\n{runtime:#?}");
}

fn check(spec: &str, runtime: &RuntimeState, want: &[&str]) {
    check_with(spec, runtime, &Verdicts::default(), &[], want);
}

#[test]
fn life_of_a_plain_pod() {
    check(TWO, &state(&[], &[]), &["kill-pod", "sandbox 0", "start a", "start b"]);
    let sb = sandbox(0);
    check(TWO, &state(std::slice::from_ref(&sb), &[]), &["start a", "start b"]);
    check(TWO, &state(std::slice::from_ref(&sb), &[ran("a", "running")]), &["start b"]);
    check(TWO, &state(std::slice::from_ref(&sb), &[ran("a", "running"), ran("b", "running")]), &[]);
    check(TWO, &state(std::slice::from_ref(&sb), &[ran("a", "exit 0"), ran("b", "running")]), &["start a"]);
    check(TWO, &state(std::slice::from_ref(&sb), &[ran("a", "created"), ran("b", "running")]), &["start a"]);
    check(TWO, &state(&[sb], &[ran("a", "unknown"), ran("b", "running")]), &["kill a"]);
}

#[test]
fn pods_that_end() {
    let sb = sandbox(0);
    check(ONCE, &state(std::slice::from_ref(&sb), &[ran("a", "exit 1"), ran("b", "running")]), &[]);
    check(ONCE, &state(std::slice::from_ref(&sb), &[ran("a", "exit 1"), ran("b", "exit 0")]), &["kill-pod"]);
    let on_failure = TWO.replace("{containers", "{restartPolicy: OnFailure, containers");
    check(&on_failure, &state(std::slice::from_ref(&sb), &[ran("a", "exit 1"), ran("b", "exit 0")]), &["start a"]);
    check(&on_failure, &state(&[sb], &[ran("a", "exit 0"), ran("b", "exit 0")]), &["kill-pod"]);
}

#[test]
fn a_sandbox_that_died() {
    let mut gone = sandbox(0);
    gone.state = pintle_runtime::SandboxState::NotReady;
    let two = [ran("a", "exit 137"), ran("b", "exit 137")];
    check(TWO, &state(std::slice::from_ref(&gone), &two), &["kill-pod", "sandbox 1", "start a", "start b"]);
    check(ONCE, &state(std::slice::from_ref(&gone), &two), &["kill-pod"]);
    check(
        INIT,
        &state(std::slice::from_ref(&gone), &[ran("i", "exit 0"), ran("j", "exit 0"), ran("a", "exit 1")]),
        &["kill-pod", "sandbox 1", "start i"],
    );
    let on_failure = TWO.replace("{containers", "{restartPolicy: OnFailure, containers");
    let mixed = [ran("a", "exit 137"), ran("b", "exit 0")];
    check(&on_failure, &state(std::slice::from_ref(&gone), &mixed), &["kill-pod", "sandbox 1", "start a"]);
    let done = [ran("a", "exit 0"), ran("b", "exit 0")];
    check(&on_failure, &state(&[gone], &done), &["kill-pod"]);
    let mut no_address = sandbox(3);
    no_address.ips.clear();
    check(TWO, &state(std::slice::from_ref(&no_address), &[]), &["kill-pod", "sandbox 4", "start a", "start b"]);
    no_address.namespaces.network = pintle_runtime::NamespaceMode::Node;
    let host = TWO.replace("{containers", "{hostNetwork: true, containers");
    check(&host, &state(&[no_address], &[]), &["start a", "start b"]);
}

#[test]
fn init_containers() {
    let sb = || vec![sandbox(0)];
    check(INIT, &state(&sb(), &[]), &["start i"]);
    check(INIT, &state(&sb(), &[ran("i", "running")]), &[]);
    check(INIT, &state(&sb(), &[ran("i", "exit 1")]), &["start i"]);
    check(INIT, &state(&sb(), &[ran("i", "exit 0")]), &["start j"]);
    check(INIT, &state(&sb(), &[ran("i", "exit 0"), ran("j", "exit 0")]), &["start a"]);
    check(INIT, &state(&sb(), &[ran("j", "exit 0")]), &["start a"]);
    check(INIT, &state(&sb(), &[ran("a", "running")]), &[]);
    let never = INIT.replace("{initC", "{restartPolicy: Never, initC");
    check(&never, &state(&sb(), &[ran("i", "exit 1")]), &["kill-pod"]);
}

#[test]
fn sidecars() {
    let sb = || vec![sandbox(0)];
    let started = Verdicts { startup: [("s-0".into(), Verdict::Success)].into(), ..Default::default() };
    let failed = Verdicts { startup: [("s-0".into(), Verdict::Failure)].into(), ..Default::default() };
    check(SIDE, &state(&sb(), &[]), &["start s"]);
    check(SIDE, &state(&sb(), &[ran("s", "running")]), &[]);
    check_with(SIDE, &state(&sb(), &[ran("s", "running")]), &failed, &[], &["kill s"]);
    check_with(SIDE, &state(&sb(), &[ran("s", "running")]), &failed, &["s-0"], &[]);
    check_with(SIDE, &state(&sb(), &[ran("s", "running")]), &started, &[], &["start i"]);
    let run = [ran("s", "running"), ran("i", "exit 0")];
    check_with(SIDE, &state(&sb(), &run), &started, &[], &["start a"]);
    let run = [ran("s", "exit 0"), ran("i", "exit 0"), ran("a", "running")];
    check_with(SIDE, &state(&sb(), &run), &started, &[], &["start s"]);
    let once = SIDE.replace("{initC", "{restartPolicy: Never, initC");
    let run = [ran("s", "running"), ran("i", "exit 0"), ran("a", "exit 0")];
    check_with(&once, &state(&sb(), &run), &started, &[], &["kill-pod"]);
}

#[test]
fn probes_and_changes() {
    let sb = || vec![sandbox(0)];
    let dead = Verdicts { liveness: [("a-0".into(), Verdict::Failure)].into(), ..Default::default() };
    let both = [ran("a", "running"), ran("b", "running")];
    check_with(TWO, &state(&sb(), &both), &dead, &[], &["kill a"]);
    check_with(TWO, &state(&sb(), &both), &dead, &["a-0"], &[]);
    let mut other = ran("a", "running");
    other.annotations.insert(labels::CONTAINER_HASH.into(), "other".into());
    check(TWO, &state(&sb(), &[other, ran("b", "running")]), &["kill a"]);
    let eph = "spec: {containers: [{name: a}], ephemeralContainers: [{name: e}]}";
    check(eph, &state(&sb(), &[ran("a", "running")]), &["start e"]);
    check(eph, &state(&sb(), &[ran("a", "running"), ran("e", "exit 1")]), &[]);
}

/// A container of a round.
fn of_round(name: &str, state: &str, round: u32) -> pintle_runtime::ContainerStatus {
    let mut c = ran(name, state);
    c.id = format!("{name}-{round}");
    c.created_at += i64::from(round);
    c.annotations.insert(labels::ROUND.into(), round.to_string());
    c
}

#[test]
fn one_end_restarts_all() {
    const RULES: &str = "restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]";
    let spec = format!(
        "spec: {{restartPolicy: Never, initContainers: [{{name: i}}, {{name: s, restartPolicy: Always, {RULES}}}], containers: [{{name: a, restartPolicy: Never, {RULES}}}, {{name: b}}], ephemeralContainers: [{{name: e}}]}}"
    );
    let sb = [sandbox(0)];
    let run = |containers: &[pintle_runtime::ContainerStatus], want: &[&str]| {
        check(&spec, &state(&sb, containers), want);
    };
    let (i, e) = (ran("i", "exit 0"), ran("e", "exit 0"));
    // Another exit code does not.
    run(&[i.clone(), ran("s", "running"), ran("a", "exit 1"), ran("b", "running"), e.clone()], &[]);
    // What runs is killed first, whatever its policy, but not what is being killed.
    let first = [i.clone(), ran("s", "running"), ran("a", "exit 42"), ran("b", "running"), e.clone()];
    run(&first, &["kill s", "kill b"]);
    check_with(&spec, &state(&sb, &first), &Verdicts::default(), &["b-0"], &["kill s"]);
    // Then all starts over, ended ones too, but ephemeral containers.
    let dead = [i.clone(), ran("s", "exit 137"), ran("a", "exit 42"), ran("b", "exit 0"), e.clone()];
    run(&dead, &["start i"]);
    // A sidecar may be the reason as well.
    run(&[i, ran("s", "exit 42"), ran("a", "running"), ran("b", "exit 0"), e], &["kill a"]);
    let with = |more: &[pintle_runtime::ContainerStatus]| [&dead[..], more].concat();
    run(&with(&[of_round("i", "running", 1)]), &[]);
    run(&with(&[of_round("i", "exit 1", 1)]), &["kill-pod"]);
    run(&with(&[of_round("i", "exit 0", 1)]), &["start s"]);
    let started = [of_round("i", "exit 0", 1), of_round("s", "running", 1)];
    run(&with(&started), &["start a", "start b"]);
    let all = [&started[..], &[of_round("a", "exit 42", 1), of_round("b", "running", 1)]].concat();
    run(&with(&all), &["kill s", "kill b"]);
    let over = [&started[..1], &[of_round("s", "running", 1), of_round("a", "exit 0", 1), of_round("b", "exit 0", 1)]];
    run(&with(&over.concat()), &["kill-pod"]);
}
