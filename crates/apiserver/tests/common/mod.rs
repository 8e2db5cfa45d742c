//! A whole server over TLS on a free port, with an administrator's kubeconfig.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(dead_code, reason = "each test is a crate of its own and uses a part")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use pintle_apiserver::{ApiServer, Config, Pem};
use pintle_store::MemoryStore;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::default();
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.distinguished_name.push(DnType::CommonName, name);
        let pem = p.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(p, key) }
    }

    /// Certificate and key of a client.
    pub fn client(&self, name: &str, groups: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, name);
        for g in groups {
            p.distinguished_name.push(DnType::OrganizationName, *g);
        }
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (p.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Certificate and key of a server on loopback.
    pub fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        p.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (p.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

pub struct Cluster {
    pub api: ApiServer,
    pub address: SocketAddr,
    pub dir: TempDir,
    pub ca: Ca,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let ca = Ca::new("test-ca");
        let (cert, key) = ca.server();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config::new(Arc::new(MemoryStore::new()));
        config.tls_cert = Some(Pem::Text(cert.into()));
        config.tls_key = Some(Pem::Text(key.into()));
        config.client_ca = Some(Pem::Text(ca.pem.clone().into()));
        let signer = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        config.service_account_signing_key = Some(Pem::Text(signer.serialize_pem().into()));
        config.advertise_address = "192.0.2.1".parse().unwrap();
        config.advertise_port = address.port();
        change(&mut config);
        let api = ApiServer::new(config).unwrap();
        api.start().await.unwrap();
        let serving = api.clone();
        tokio::spawn(async move { serving.serve(listener).await.unwrap() });
        let cluster = Self { api, address, dir: tempfile::tempdir().unwrap(), ca };
        cluster.kubeconfig("admin", &["system:masters"]);
        cluster
    }

    /// Writes a kubeconfig of this user and answers its path.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> PathBuf {
        let (cert, key) = self.ca.client(user, groups);
        // A colon would part the list that KUBECONFIG is.
        let user = &user.replace(':', "_");
        let d = self.dir.path();
        for (name, text) in [("ca.crt", &self.ca.pem), (&format!("{user}.crt"), &cert), (&format!("{user}.key"), &key)]
        {
            std::fs::write(d.join(name), text).unwrap();
        }
        let path = d.join(format!("{user}.kubeconfig"));
        let dir = d.display();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://{}', certificate-authority: {dir}/ca.crt}}\n\
             users:\n- name: u\n  user: {{client-certificate: {dir}/{user}.crt, client-key: {dir}/{user}.key}}\n",
            self.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs kubectl as a user whose kubeconfig was written; answers its output.
    pub async fn run(&self, binary: &str, user: &str, args: &str, input: Option<&str>) -> Output {
        let mut command = Command::new(binary);
        let config = self.dir.path().join(format!("{}.kubeconfig", user.replace(':', "_")));
        command.env("HOME", self.dir.path()).env("KUBECONFIG", config);
        command.args(args.split_whitespace());
        let input = input.map(str::to_owned);
        tokio::task::spawn_blocking(move || {
            use std::io::Write;
            use std::process::Stdio;
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            if let Some(text) = input {
                stdin.write_all(text.as_bytes()).unwrap();
            }
            drop(stdin);
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Runs kubectl as the administrator; it must succeed. Answers its output and what it warned of.
    pub async fn kubectl(&self, args: &str) -> String {
        self.kubectl_in(args, None).await
    }

    pub async fn kubectl_in(&self, args: &str, input: Option<&str>) -> String {
        let out = self.run("/usr/bin/kubectl", "admin", args, input).await;
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "kubectl {args}: {text}");
        text
    }

    /// Runs kubectl as a user; it must fail. Answers what it said.
    pub async fn refused(&self, user: &str, args: &str, input: Option<&str>) -> String {
        let out = self.run("/usr/bin/kubectl", user, args, input).await;
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(!out.status.success(), "kubectl {args} succeeded: {text}");
        text
    }
}

/// Whether a binary is there; tests that need it say that they were skipped.
pub fn has(binary: &str) -> bool {
    let there = std::path::Path::new(binary).exists();
    if !there {
        eprintln!("skipped: no {binary} here");
    }
    there
}

/// A server in this process without sockets, asked by its administrator or somebody else.
pub struct InProcess {
    pub api: ApiServer,
    pub user: pintle_api::service::UserInfo,
}

/// An answer: code, headers, body.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: serde_json::Value,
    pub text: String,
}

impl InProcess {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(Arc::new(MemoryStore::new()));
        change(&mut config);
        let api = ApiServer::new(config).unwrap();
        api.start().await.unwrap();
        let me = Self { api, user: pintle_api::service::UserInfo::authenticated("admin", &["system:masters"]) };
        // What a controller does in a whole cluster.
        let account = serde_json::json!({"metadata": {"name": "default"}});
        me.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
        me
    }

    /// The same server asked by another.
    pub fn by(&self, name: &str, groups: &[&str]) -> Self {
        Self { api: self.api.clone(), user: pintle_api::service::UserInfo::authenticated(name, groups) }
    }

    pub fn request(
        &self,
        request: http::Request<String>,
    ) -> futures::future::BoxFuture<'static, http::Response<pintle_api::service::Body>> {
        let mut request = request.map(pintle_api::service::full);
        request.extensions_mut().insert(pintle_api::service::InProcessUser(Arc::new(self.user.clone())));
        // It is always ready.
        let answer = tower::Service::call(&mut self.api.service(), request);
        Box::pin(async move { answer.await.unwrap() })
    }

    /// Sends a body of a media type, JSON when it is empty.
    pub async fn send(&self, method: &str, path: &str, kind: &str, body: impl Into<String>) -> Answer {
        use http_body_util::BodyExt;
        let kind = if kind.is_empty() { "application/json" } else { kind };
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", kind).body(body.into()).unwrap();
        let (parts, body) = self.request(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").await
    }

    /// Creates an object of JSON; it must succeed.
    pub async fn create(&self, path: &str, object: &serde_json::Value) -> serde_json::Value {
        let answer = self.send("POST", path, "", object.to_string()).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
        answer.body
    }
}
