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
    report("delete", from, 600.0);
    api.shutdown();
}
