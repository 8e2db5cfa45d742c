//! Who is let in by what, and what happens to those who watch when the server stops.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Ca, Cluster, InProcess, has};
use http_body_util::BodyExt;
use pintle_api::service::full;
use pintle_apiserver::Pem;
use serde_json::{Value, json};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

#[tokio::test]
async fn bootstrap_tokens() {
    let c = InProcess::start_with(|config| config.enable_bootstrap_token_auth = true).await;
    let token = "abcdef.0123456789abcdef";
    let whoami = async |token: &str| -> (u16, Value) {
        let request = http::Request::post(REVIEW)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(full("{}"))
            .unwrap();
        let answer = tower::Service::call(&mut c.api.service(), request).await.unwrap();
        let code = answer.status().as_u16();
        (code, serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap())
    };
    assert_eq!(whoami(token).await.0, 401);
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:workers"}});
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    c.create(secrets, &secret).await;
    let (code, review) = whoami(token).await;
    assert_eq!(code, 201, "{review}");
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    let groups = user["groups"].as_array().unwrap();
    for group in ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"] {
        assert!(groups.contains(&json!(group)), "{group} in {user}");
    }
    assert_eq!(whoami("abcdef.ffffffffffffffff").await.0, 401);
    let expired = json!({"stringData": {"expiration": "2020-01-01T00:00:00Z"}}).to_string();
    let path = format!("{secrets}/bootstrap-token-abcdef");
    assert_eq!(c.send("PATCH", &path, "application/merge-patch+json", expired).await.code, 200);
    assert_eq!(whoami(token).await.0, 401);
}

/// A front proxy speaks for others when its certificate is of the right authority and of a known name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn front_proxies() {
    const CURL: &str = "/usr/bin/curl";
    if !has(CURL) {
        return;
    }
    let proxies = Ca::new("proxy-ca");
    let c = Cluster::start_with(|config| {
        config.request_header_ca = Some(Pem::Text(proxies.pem.clone().into()));
        config.request_header_allowed_names = vec!["front-proxy-client".into()];
    })
    .await;
    let whoami = async |name: &str| {
        let (cert, key) = proxies.client(name, &[]);
        let at = |file: &str| c.dir.path().join(file);
        std::fs::write(at("proxy.crt"), cert).unwrap();
        std::fs::write(at("proxy.key"), key).unwrap();
        let mut command = std::process::Command::new(CURL);
        command.args(["-sS", "--noproxy", "*", "-H", "X-Remote-User: joe", "-H", "X-Remote-Group: devs"]);
        command.args(["-H", "X-Remote-Extra-Scopes: all", "-H", "Content-Type: application/json", "-d", "{}"]);
        command.arg("--cacert").arg(at("ca.crt")).arg("--cert").arg(at("proxy.crt")).arg("--key").arg(at("proxy.key"));
        command.arg(format!("https://{}{REVIEW}", c.address));
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        serde_json::from_slice::<Value>(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
    };
    let review = whoami("front-proxy-client").await;
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "joe", "{review}");
    assert_eq!(user["groups"], json!(["devs", "system:authenticated"]));
    assert_eq!(user["extra"]["scopes"], json!(["all"]));
    assert_eq!(whoami("somebody").await["code"], 401);
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let c = InProcess::start().await;
    let watch =
        http::Request::get("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=1").body(String::new());
    let mut body = c.request(watch.unwrap()).await.into_body();
    c.api.shutdown();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert_eq!(c.get("/readyz").await.code, 500);
    // What is asked meanwhile is still answered.
    assert_eq!(c.get("/api/v1/namespaces/default").await.code, 200);
}

/// Some clients look at no answer before they have sent everything: what is refused is taken first, unless it is large.
#[tokio::test]
async fn refused_bodies_are_taken() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let c = InProcess::start().await;
    let admin = c.user.clone();
    let nobody = c.by("nobody", &[]).user;
    let taken_of = async |path: &str, user: Option<&pintle_api::service::UserInfo>, frames: usize, size: usize| {
        let taken = std::sync::Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let frames = futures::stream::iter((0..frames).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(hyper::body::Frame::data(bytes::Bytes::from(vec![b' '; size])))
        }));
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames));
        let mut request = http::Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", "Bearer nonsense")
            .body(body)
            .unwrap();
        if let Some(user) = user {
            let user = pintle_api::service::InProcessUser(std::sync::Arc::new(user.clone()));
            request.extensions_mut().insert(user);
        }
        let answer = tower::Service::call(&mut c.api.service(), request).await.unwrap();
        (answer.status().as_u16(), taken.load(Ordering::Relaxed))
    };
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(taken_of(maps, None, 5, 1000).await, (401, 5));
    assert_eq!(taken_of(maps, Some(&nobody), 5, 1000).await, (403, 5));
    assert_eq!(taken_of("/api/v1/nothing", Some(&admin), 5, 1000).await, (404, 5));
    assert_eq!(taken_of("/nothing", Some(&admin), 5, 1000).await, (404, 5));
    assert_eq!(taken_of(&format!("{maps}?dryRun=x"), Some(&admin), 5, 1000).await.1, 5);
    let (code, taken) = taken_of(maps, None, 100, 16 * 1024).await;
    assert!(code == 401 && (1..10).contains(&taken), "{code} after {taken}");
}
