//! kubectl, from the oldest that works with what is current to the one of this version.

use std::path::Path;

use pintle_testkit::command::{Output, run};
use pintle_testkit::{Cluster, until};
use serde_json::{Value, json};

use crate::{NAMESPACE, PATIENCE, client, named_objects, with_pod};

struct Kubectl<'a> {
    cluster: &'a Cluster,
    binary: &'a Path,
}

impl Kubectl<'_> {
    fn with(&self, args: &str, input: &str) -> Output {
        let mut command = self.cluster.machine().command(&self.binary.to_string_lossy());
        command.env("KUBECONFIG", self.cluster.kubeconfig()).env("HOME", self.cluster.scratch());
        command.args(["-n", NAMESPACE]).args(args.split(' ').filter(|a| !a.is_empty()));
        run(command, input)
    }

    fn run(&self, args: &str) -> Output {
        self.with(args, "")
    }
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Kinds of whose objects the server completes items of lists that are merged as a whole (and `stringData`), so that
/// kubectl finds something to change each time.
const COMPLETED: &[&str] = &[
    "secret/",
    "endpoints/",
    "endpointslice.",
    "validatingadmissionpolicy.",
    "resourceclaim.",
    "resourceclaimtemplate.",
];

/// What every kubectl does to every kind.
fn objects(k: &Kubectl<'_>, version: &str) {
    // `apply` cannot tell an Event from one that a component of the cluster is still writing.
    let mut all = named_objects("k");
    for o in &mut all {
        if o["kind"] == "Namespace" {
            continue;
        }
        o["metadata"]["annotations"] = json!({"seen": "0"});
    }
    let said = k.with("apply -f -", &list(&all)).ok();
    assert_eq!(said.lines().filter(|l| l.ends_with(" created")).count(), all.len(), "{said}");
    let again = k.with("apply -f -", &list(&all)).ok();
    // This one knows no batch/v1 CronJob, and merges lists of what it does not know as a whole.
    let unknown = if version == "1.20" { "cronjob." } else { "secret/" };
    let known = |line: &str| COMPLETED.iter().chain([&unknown]).any(|k| line.starts_with(k));
    let changed: Vec<&str> = again.lines().filter(|l| !l.ends_with(" unchanged") && !known(l)).collect();
    assert!(changed.is_empty(), "applied again: {changed:#?}");
    let got = k.with("get -o name -f -", &list(&all)).ok();
    assert_eq!(got.lines().count(), all.len(), "{got}");
    let told = k.with("label -f - more=1", &list(&all)).ok();
    assert_eq!(told.lines().filter(|l| l.ends_with(" labeled")).count(), all.len(), "{told}");
    for (kind, patch) in [
        ("merge", r#"{"metadata":{"annotations":{"merge":"1"}}}"#),
        ("strategic", r#"{"metadata":{"annotations":{"strategic":"1"}}}"#),
        ("json", r#"[{"op":"add","path":"/metadata/annotations/json","value":"1"}]"#),
    ] {
        let done = k.with(&format!("patch configmap k-configmap-0 --type={kind} -p {patch}"), "").ok();
        assert_eq!(done, "configmap/k-configmap-0 patched\n");
    }
    for o in &mut all {
        o["metadata"]["annotations"]["seen"] = "1".into();
    }
    let said = k.with("apply -f -", &list(&all)).ok();
    assert_eq!(said.lines().filter(|l| l.ends_with(" configured")).count(), all.len(), "{said}");
    let said = k.with("apply --server-side --force-conflicts -f -", &list(&all)).ok();
    assert_eq!(said.lines().filter(|l| l.ends_with(" serverside-applied")).count(), all.len(), "{said}");
    let differs = k.with("diff -f -", &list(&all));
    assert_eq!((differs.code, differs.stdout.as_str()), (0, ""), "{}", differs.stderr);
    let said = k.with("delete --wait=true --timeout=60s -f -", &list(&all)).ok();
    assert_eq!(said.lines().filter(|l| l.contains(" deleted")).count(), all.len(), "{said}");
    let left = k.with("get --ignore-not-found -o name -f -", &list(&all)).ok();
    assert_eq!(left, "");
}

/// Errors, collections, watches and containers.
fn the_rest(k: &Kubectl<'_>) {
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndat: {a: b}\n";
    let said = k.with("create -f -", unknown).err();
    assert!(said.contains("unknown field \"dat\""), "{said}");
    let said = k.with("create -f -", "apiVersion: v9\nkind: Nope\nmetadata: {name: x}\n").err();
    assert!(said.contains("no matches for kind \"Nope\" in version \"v9\""), "{said}");
    let said = k.run("get nopes").err();
    assert_eq!(said, "error: the server doesn't have a resource type \"nopes\"\n");
    assert!(k.run("explain pod.spec.containers.image").ok().contains("Container image name."));
    for i in 0..3 {
        let _ = k.run(&format!("create configmap many-{i} --from-literal=i={i}")).ok();
        let _ = k.run(&format!("label configmap many-{i} many=yes")).ok();
    }
    let pages = k.run("get configmaps -l many=yes --chunk-size=1 -o name").ok();
    assert_eq!(pages, "configmap/many-0\nconfigmap/many-1\nconfigmap/many-2\n");
    let watched = k.run("get configmaps -l many=yes -w --request-timeout=2s");
    assert_eq!(watched.stdout.matches("many-").count(), 3, "{}", watched.stdout);
    assert_eq!(k.run("delete configmaps -l many=yes").ok().lines().count(), 3);
    let applied =
        k.with("apply --dry-run=server -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: dry}\n").ok();
    assert_eq!(applied, "configmap/dry created (server dry run)\n");
    assert!(k.run("get configmap dry").err().contains("NotFound"));
    assert_eq!(k.run("logs box --tail=1").ok(), "ready\n");
    until("exec works", PATIENCE, || {
        let out = k.run("exec box -- echo hello");
        if out.stdout == "hello\n" { Ok(()) } else { Err(out.stderr) }
    });
    assert_eq!(k.run("exec box -- sh -c exit").code, 0);
    assert!(k.run("get all").ok().contains("pod/box"));
    assert!(k.run("describe pod box").ok().contains("Container ID:"));
    assert!(k.run("api-resources").ok().contains("deployments"));
    assert!(k.run("api-versions").ok().contains("apps/v1\n"));
    assert_eq!(k.run("auth can-i create pods").ok(), "yes\n");
    assert!(k.run("version").ok().contains("v1.36"));
}

fn all(version: &str) {
    let Some(binary) = client(&format!("kubectl-{version}")) else { return };
    let cluster = with_pod();
    let k = Kubectl { cluster: &cluster, binary: &binary };
    the_rest(&k);
    objects(&k, version);
}

#[test]
fn kubectl_1_20() {
    all("1.20");
}

#[test]
fn kubectl_1_32() {
    all("1.32");
}

#[test]
fn kubectl_1_36() {
    all("1.36");
}
