//! Services, their names, and the ways to them.

use std::time::Duration;

use pintle_testkit::{Cluster, images, until};

const PATIENCE: Duration = Duration::from_secs(60);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: pintle.internal/sample:latest
        imagePullPolicy: IfNotPresent
        args: [sample, serve]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: example.internal}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: \"pintle.internal/sample:latest\", imagePullPolicy: IfNotPresent, args: [sample, serve]}]
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, \"100000\"]}]
";

#[test]
fn services_are_reached_by_every_way() {
    let cluster = Cluster::start();
    cluster.import(&images::busybox(cluster.scratch(), "docker.io/library/busybox:latest"));
    cluster.apply(WEB);
    until("the pods to be ready", PATIENCE, || {
        let said = cluster.kubectl(&["get", "pods", "--no-headers"]).ok();
        if said.matches(" 1/1 ").count() == 4 { Ok(()) } else { Err(said) }
    });
    let sh = |line: &str| cluster.kubectl(&["exec", "box", "--", "sh", "-c", line]);
    // Debian's static busybox cannot look names up but by its nslookup; the sample's client can.
    let get = |url: &str| cluster.kubectl(&["exec", "asker", "--", "/pintle", "sample", "get", url]);
    let answer = |what: &str, f: &dyn Fn() -> pintle_testkit::Output| {
        until(what, PATIENCE, || {
            let said = f();
            if said.stdout.contains("This is pod web-") { Ok(said.stdout) } else { Err(format!("{said:?}")) }
        })
    };
    for url in [
        "http://web/",
        "http://web.default/",
        "http://web.default.svc.cluster.local/",
        "http://web.default.svc.cluster.local./",
        "http://headless:8080/",
        "http://sticky/",
    ] {
        answer(url, &|| get(url));
    }
    let node = cluster.machine().address();
    answer("the node port", &|| cluster.machine().sh(&format!("curl -s --max-time 5 http://{node}:30080/")));
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    answer("the cluster IP from the host", &|| cluster.machine().sh(&format!("curl -s --max-time 5 http://{ip}/")));

    let many = |url: &str| {
        let mut pods: Vec<String> = (0..20).map(|_| get(url).ok()).collect();
        pods.sort();
        pods.dedup();
        pods.len()
    };
    assert_eq!(many("http://web/"), 2, "both pods answer");
    assert_eq!(many("http://sticky/"), 1, "affinity keeps to one");

    // A pod reaches itself through its own Service.
    let pod = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    for _ in 0..6 {
        let said = cluster
            .kubectl(&["exec", &pod, "--", "/pintle", "sample", "get", "http://web.default.svc.cluster.local/"])
            .ok();
        assert!(said.contains("This is pod web-"), "{said}");
    }
    let refused = get("http://nobody/");
    assert!(refused.stderr.contains("onnection refused"), "{refused:?}");

    let lookup = |name: &str| sh(&format!("nslookup {name}")).stdout;
    assert!(lookup("web.default.svc.cluster.local").contains(&ip));
    let headless = lookup("headless.default.svc.cluster.local");
    assert_eq!(headless.matches("Address").count(), 3, "the server's and two pods': {headless}");
    assert!(lookup("-type=cname outside.default.svc.cluster.local").contains("example.internal"));
    assert!(sh("nslookup none.default.svc.cluster.local").code != 0);
    let back = lookup(&ip);
    assert!(back.contains("web.default.svc.cluster.local"), "{back}");
    let srv = sh("nslookup -type=srv _http._tcp.web.default.svc.cluster.local").stdout;
    assert!(srv.contains("80 web.default.svc.cluster.local"), "{srv}");
    let resolv = sh("cat /etc/resolv.conf").ok();
    assert!(resolv.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolv}");
    assert!(resolv.contains("\noptions ndots:5\n"), "{resolv}");
}
