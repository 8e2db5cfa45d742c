//! The commands people use every day, on the Deployment and Service of the Kubernetes documentation.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use pintle_testkit::command::run;
use pintle_testkit::{Cluster, Options, until};

use crate::{PATIENCE, pod, with_busybox};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-deployment
  labels:
    app: web
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web
        image: pintle.internal/sample:latest
        imagePullPolicy: IfNotPresent
        args: [sample, serve]
        ports:
        - containerPort: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: my-service
spec:
  selector:
    app: web
  ports:
  - protocol: TCP
    port: 80
    targetPort: 8080
";

fn rolled_out(cluster: &Cluster) -> String {
    cluster.kubectl(&["rollout", "status", "deployment/web-deployment", "--timeout=60s"]).ok()
}

#[test]
fn a_deployment_from_the_documentation() {
    let cluster = Cluster::start_with(Options::default());
    let k = |args: &str| cluster.kubectl(&args.split(' ').collect::<Vec<_>>());
    let said = cluster.kubectl_with(&["apply", "-f", "-"], DEPLOYMENT).ok();
    assert_eq!(said, "deployment.apps/web-deployment created\nservice/my-service created\n");
    assert!(rolled_out(&cluster).contains("deployment \"web-deployment\" successfully rolled out"));
    assert_eq!(
        cluster.kubectl_with(&["apply", "-f", "-"], DEPLOYMENT).ok(),
        "deployment.apps/web-deployment unchanged\nservice/my-service unchanged\n"
    );

    let wide = k("get deployment -o wide").ok();
    assert!(wide.starts_with("NAME             READY   UP-TO-DATE   AVAILABLE   AGE"), "{wide}");
    assert!(wide.contains("web-deployment   3/3     3            3"), "{wide}");
    assert!(wide.contains("CONTAINERS   IMAGES") && wide.contains("app=web"), "{wide}");
    let json = k("get deployment web-deployment -o json").json();
    assert_eq!(json["status"]["readyReplicas"], 3);
    assert_eq!(json["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert!(k("get deployment web-deployment -o yaml").ok().contains("terminationGracePeriodSeconds: 30"));
    let pods = k("get pods -o wide").ok();
    assert_eq!(pods.matches(" Running ").count(), 3, "{pods}");
    assert!(k("get all").ok().contains("replicaset.apps/web-deployment-"));
    let described = k("describe deployment web-deployment").ok();
    assert!(
        described.contains("ScalingReplicaSet") && described.contains("3 desired | 3 updated | 3 total | 3 available"),
        "{described}"
    );
    assert!(k("describe pods").ok().contains("Successfully assigned default/web-deployment-"));

    assert_eq!(k("scale deployment/web-deployment --replicas=5").ok(), "deployment.apps/web-deployment scaled\n");
    let _ = rolled_out(&cluster);
    assert_eq!(k("get pods -l app=web -o name").ok().lines().count(), 5);
    assert_eq!(k("set env deployment/web-deployment A=b").ok(), "deployment.apps/web-deployment env updated\n");
    let _ = rolled_out(&cluster);
    assert!(k("rollout history deployment/web-deployment").ok().contains("\n2 "));
    assert_eq!(k("rollout undo deployment/web-deployment").ok(), "deployment.apps/web-deployment rolled back\n");
    let _ = rolled_out(&cluster);
    let env = k("get deployment web-deployment -o jsonpath={.spec.template.spec.containers[0].env}").ok();
    assert_eq!(env, "");

    assert_eq!(k("delete deployment web-deployment --wait").ok(), "deployment.apps \"web-deployment\" deleted\n");
    until("its pods to go", PATIENCE, || {
        let left = k("get replicasets,pods -l app=web -o name").ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn looking_into_a_pod() {
    let cluster = with_busybox();
    let k = |args: &[&str]| cluster.kubectl(args);
    let line = "echo started; trap 'exit 0' TERM; mkdir -p /www; echo page > /www/index.html; httpd -p 8080 -h /www; while true; do sleep 1; done";
    cluster.apply(&pod("box", line, ""));
    let _ = k(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]).ok();

    assert_eq!(k(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2"]).ok(), "out\n");
    let failed = k(&["exec", "box", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.stderr.contains("command terminated with exit code 7"), "{failed:?}");
    assert_eq!(cluster.kubectl_with(&["exec", "-i", "box", "--", "cat"], "through\n").ok(), "through\n");
    // A terminal, by `script`: the container sees one too.
    let mut tty = Command::new("script");
    tty.args(["-qec"]).arg(format!(
        "nsenter --net={} -- env KUBECONFIG={} kubectl exec -it box -- sh -c 'tty; echo cols $(stty size)'",
        cluster.machine().netns().display(),
        cluster.kubeconfig().display()
    ));
    tty.arg("/dev/null");
    let said = run(tty, "").ok();
    assert!(said.contains("/dev/pts/"), "{said}");

    let file = cluster.scratch().join("file");
    std::fs::write(&file, "copied\n").unwrap();
    let path = file.to_str().unwrap();
    let _ = k(&["cp", path, "box:/tmp/there"]).ok();
    assert_eq!(k(&["exec", "box", "--", "cat", "/tmp/there"]).ok(), "copied\n");
    let back = cluster.scratch().join("back");
    let _ = k(&["cp", "box:/tmp/there", back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "copied\n");

    let mut forward = cluster.kubectl_command(&["port-forward", "pod/box", "18080:8080"]);
    let mut forward = forward.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0_u8; 15];
    forward.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"Forwarding from");
    assert_eq!(cluster.machine().sh("curl -s --max-time 10 http://127.0.0.1:18080/").ok(), "page\n");
    assert_eq!(cluster.machine().sh("curl -s --max-time 10 http://127.0.0.1:18080/").ok(), "page\n");
    forward.kill().unwrap();
    let _ = forward.wait();

    cluster.apply(&pod("talker", "for i in 1 2 3; do echo line $i; sleep 0.2; done", "  restartPolicy: Never\n"));
    let _ = k(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/talker", "--timeout=60s"]).ok();
    assert_eq!(k(&["logs", "-f", "talker"]).ok(), "line 1\nline 2\nline 3\n");
    assert_eq!(k(&["logs", "--tail=1", "talker"]).ok(), "line 3\n");
    let stamped = k(&["logs", "--timestamps", "talker"]).ok();
    assert!(stamped.lines().all(|l| l.contains("Z line ")), "{stamped}");
    let said = k(&["get", "pod", "talker"]).ok();
    assert!(said.contains("0/1     Completed"), "{said}");

    let mut watch = cluster.kubectl_command(&["get", "pods", "-w", "--no-headers"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(seen.any(|l| l.starts_with("box ")), "the list comes first");
    let deleted = k(&["delete", "pod", "box"]).ok();
    assert_eq!(deleted, "pod \"box\" deleted\n");
    assert!(seen.any(|l| l.starts_with("box ") && l.contains("Terminating")), "then what changes");
    watch.kill().unwrap();
    let _ = watch.wait();
}
