//! Server CPU of one request, in process and on the memory store: `cargo bench -p pintle-apiserver --bench requests`.
//!
//! Prints microseconds of CPU an operation beside what upstream's API server takes for the same (on one such machine).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use pintle_api::service::{ApiService, InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config};
use pintle_store::MemoryStore;
use tower::ServiceExt;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(t.tv_sec).unwrap(), u32::try_from(t.tv_nsec).unwrap())
}

async fn call(
    api: &ApiService,
    user: &InProcessUser,
    method: Method,
    path: &str,
    kind: &str,
    body: String,
) -> (u16, usize) {
    let mut r = Request::builder().method(method).uri(path).header("content-type", kind).body(full(body)).unwrap();
    r.extensions_mut().insert(user.clone());
    let answer = api.clone().oneshot(r).await.unwrap();
    let code = answer.status().as_u16();
    (code, answer.into_body().collect().await.unwrap().to_bytes().len())
}

fn configmap(i: usize, value: &str) -> String {
    let data = "x".repeat(80);
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"c{i}"}},"data":{{"k":"{value}","more":"{data}"}}}}"#
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let api = ApiServer::new(Config::new(Arc::new(MemoryStore::new()))).unwrap();
    api.start().await.unwrap();
    let service = api.service();
    let user = InProcessUser(Arc::new(UserInfo::authenticated("bench", &["system:masters"])));
    let n = 5000;
    let json = "application/json";
    let base = "/api/v1/namespaces/default/configmaps";
    let report = |name: &str, from: Duration, upstream: f64| {
        let each = (cpu() - from).as_secs_f64() * 1e6 / f64::from(u32::try_from(n).unwrap());
        println!("{name:<12} {each:8.1} µs   upstream {upstream:6.0} µs   {:5.1} times less", upstream / each);
    };
    let from = cpu();
    for i in 0..n {
        let (code, _) = call(&service, &user, Method::POST, base, json, configmap(i, "a")).await;
        assert_eq!(code, 201);
    }
    report("create", from, 720.0);
    let from = cpu();
    for i in 0..n {
        let (code, _) = call(&service, &user, Method::GET, &format!("{base}/c{i}"), json, String::new()).await;
        assert_eq!(code, 200);
    }
    report("get", from, 410.0);
    let from = cpu();
    for i in 0..n {
        let (code, _) = call(&service, &user, Method::PUT, &format!("{base}/c{i}"), json, configmap(i, "b")).await;
        assert_eq!(code, 200);
    }
    report("put", from, 900.0);
    let from = cpu();
    for i in 0..n {
        let body = r#"{"data":{"k":"c"}}"#.to_owned();
        let (code, _) =
            call(&service, &user, Method::PATCH, &format!("{base}/c{i}"), "application/merge-patch+json", body).await;
        assert_eq!(code, 200);
    }
    report("merge patch", from, 1040.0);
    let from = cpu();
    let (_, size) = call(&service, &user, Method::GET, base, json, String::new()).await;
    println!(
        "list of {n}: {:.1} ms for {:.1} MB",
        (cpu() - from).as_secs_f64() * 1e3,
        f64::from(u32::try_from(size).unwrap()) / 1e6
    );
    let from = cpu();
    for i in 0..n {
        call(&service, &user, Method::DELETE, &format!("{base}/c{i}"), json, String::new()).await;
    }
    report("delete", from, 720.0);
    apply(&service, &user).await;
    watchers(&service, &user).await;
    pods(&service, &user).await;
    api.shutdown();
}

/// Server-side apply of a Deployment that changes each time.
async fn apply(service: &ApiService, user: &InProcessUser) {
    let n = 1000;
    let path = "/apis/apps/v1/namespaces/default/deployments/d?fieldManager=bench&force=true";
    let from = cpu();
    for i in 0..n {
        let body = format!(
            r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"d","labels":{{"app":"x"}}}},"spec":{{"replicas":3,"selector":{{"matchLabels":{{"app":"x"}}}},"template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"containers":[{{"name":"c","image":"i:{i}","ports":[{{"containerPort":80}}],"env":[{{"name":"A","value":"b"}}]}}]}}}}}}}}"#
        );
        let (code, _) = call(service, user, Method::PATCH, path, "application/apply-patch+yaml", body).await;
        assert!(code == 200 || code == 201);
    }
    println!("apply of a Deployment {:.0} µs", (cpu() - from).as_secs_f64() * 1e6 / f64::from(n));
}

/// Events to a thousand who watch, each reading frames of the answer's body.
async fn watchers(service: &ApiService, user: &InProcessUser) {
    let (watchers, events) = (1000u32, 200u32);
    let mut tasks = tokio::task::JoinSet::new();
    let ready = Arc::new(tokio::sync::Barrier::new(1 + watchers as usize));
    for _ in 0..watchers {
        let mut r = Request::get("/api/v1/namespaces/default/secrets?watch=true").body(full("")).unwrap();
        r.extensions_mut().insert(user.clone());
        let mut body = service.clone().oneshot(r).await.unwrap().into_body();
        let ready = ready.clone();
        tasks.spawn(async move {
            ready.wait().await;
            let mut seen = 0;
            while seen < events {
                let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
                seen += u32::try_from(data.iter().filter(|b| **b == b'\n').count()).unwrap();
            }
        });
    }
    ready.wait().await;
    let from = cpu();
    for i in 0..events {
        let body = configmap(i as usize, "w").replace("ConfigMap", "Secret").replace("\"data\"", "\"stringData\"");
        let (code, _) =
            call(service, user, Method::POST, "/api/v1/namespaces/default/secrets", "application/json", body).await;
        assert_eq!(code, 201);
        tokio::task::yield_now().await;
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let each = (cpu() - from).as_secs_f64() * 1e3 / f64::from(events) / f64::from(watchers);
    println!("an event to one of {watchers} watchers {each:.5} ms   upstream 0.039 ms");
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Lists of 10,000 pods of the size of upstream's figures, and the memory that 50,000 take.
async fn pods(service: &ApiService, user: &InProcessUser) {
    let before = resident();
    let account = r#"{"metadata":{"name":"default"}}"#.to_owned();
    let json = "application/json";
    call(service, user, Method::POST, "/api/v1/namespaces/default/serviceaccounts", json, account).await;
    let base = "/api/v1/namespaces/default/pods";
    let from = cpu();
    for i in 0..50_000u32 {
        let body = format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"pod-{i:05}","labels":{{"app":"load","index":"{i}"}},"annotations":{{"note":"{}"}}}},"spec":{{"automountServiceAccountToken":false,"containers":[{{"name":"main","image":"registry.example/app:1.2.3","resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}}}}]}}}}"#,
            "x".repeat(100)
        );
        let (code, _) = call(service, user, Method::POST, base, json, body).await;
        assert_eq!(code, 201);
        if i + 1 == 10_000 {
            println!("create of a Pod {:.0} µs", (cpu() - from).as_secs_f64() * 1e6 / 1e4);
            for (what, accept, upstream) in [
                ("JSON, the first", json, 326.0),
                ("JSON", json, 326.0),
                ("protobuf, first", "application/vnd.kubernetes.protobuf", 190.0),
                ("protobuf, again", "application/vnd.kubernetes.protobuf", 190.0),
                ("Table", "application/json;as=Table;v=v1;g=meta.k8s.io", 251.0),
            ] {
                let from = cpu();
                let mut r = Request::get(base).header("accept", accept).body(full("")).unwrap();
                r.extensions_mut().insert(user.clone());
                let mut body = service.clone().oneshot(r).await.unwrap().into_body();
                let mut size = 0;
                // As a connection does: a piece is sent and gone.
                while let Some(frame) = body.frame().await {
                    size += frame.unwrap().into_data().map_or(0, |d| d.len());
                }
                let took = (cpu() - from).as_secs_f64() * 1e3;
                println!(
                    "list of 10,000 pods, {what:<16} {took:6.1} ms for {:5.1} MB   upstream {upstream:.0} ms",
                    f64::from(u32::try_from(size).unwrap()) / 1e6
                );
            }
        }
    }
    println!(
        "50,000 pods: {:.0} MiB resident, {:.0} MiB more than without; upstream 1323 MiB and etcd 212",
        resident(),
        resident() - before
    );
}
