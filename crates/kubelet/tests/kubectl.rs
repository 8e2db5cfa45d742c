//! The node agent under a real API server and a real kubectl, with containers in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use pintle_api::service::UserInfo;
use pintle_apiserver::{ApiServer, Config, Pem};
use pintle_client::Client;
use pintle_kubelet::KubeletConfig;
use pintle_kubelet::config::ServingCert;
use pintle_runtime::fake::FakeRuntime;
use pintle_runtime::{ExecOutput, ImageConfig};
use pintle_store::MemoryStore;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The kubectl to test with; `KUBECTL` names another one.
fn binary() -> String {
    std::env::var("KUBECTL").unwrap_or_else(|_| "/usr/bin/kubectl".into())
}

const LIMIT: Duration = Duration::from_secs(120);

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::default();
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.distinguished_name.push(DnType::CommonName, "test-ca");
        let pem = p.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(p, key) }
    }

    fn sign(&self, name: &str, group: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        p.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
        p.distinguished_name.push(DnType::CommonName, name);
        p.distinguished_name.push(DnType::OrganizationName, group);
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (p.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    runtime: Arc<FakeRuntime>,
    client: Client,
    stop: CancellationToken,
    spdy: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    async fn start(spdy: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let (cert, key) = ca.sign("kube-apiserver", "system:masters");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pem = |text: &str| Some(Pem::Text(text.to_owned().into()));
        let mut config = Config::new(Arc::new(MemoryStore::new()));
        config.tls_cert = pem(&cert);
        config.tls_key = pem(&key);
        config.client_ca = pem(&ca.pem);
        config.kubelet_ca = pem(&ca.pem);
        config.kubelet_client_cert = pem(&cert);
        config.kubelet_client_key = pem(&key);
        let signer = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        config.service_account_signing_key = pem(&signer.serialize_pem());
        config.advertise_address = "10.1.2.3".parse().unwrap();
        config.advertise_port = address.port();
        let api = ApiServer::new(config).unwrap();
        api.start().await.unwrap();
        let service = api.service();
        tokio::spawn(async move { api.serve(listener).await.unwrap() });

        let path = |name: &str| dir.path().join(name);
        for (name, text) in [("ca.crt", &ca.pem), ("admin.crt", &cert), ("admin.key", &key)] {
            std::fs::write(path(name), text).unwrap();
        }
        let d = dir.path().display();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://{address}', certificate-authority: {d}/ca.crt}}\n\
             users:\n- name: u\n  user: {{client-certificate: {d}/admin.crt, client-key: {d}/admin.key}}\n"
        );
        std::fs::write(path("kubeconfig"), kubeconfig).unwrap();

        let user = UserInfo::authenticated("system:node:n1", &["system:nodes", "system:masters"]);
        let client = Client::in_process(service, user);
        let runtime = FakeRuntime::new();
        runtime.add_image("busybox:1", ImageConfig::default(), 100);
        runtime.on_exec(|container, cmd| {
            let code = cmd.last().and_then(|c| c.strip_prefix("exit ")).map_or(0, |c| c.parse().unwrap());
            let stdout = format!("{container}: {}\n", cmd.join(" ")).into_bytes();
            Ok(ExecOutput { stdout, stderr: b"trouble\n".to_vec(), exit_code: code })
        });
        let (bound, mut port) = tokio::sync::watch::channel(0);
        let mut config = KubeletConfig {
            node_name: "n1".into(),
            node_ips: vec![[127, 0, 0, 1].into()],
            root_dir: path("root"),
            pod_logs_dir: path("logs"),
            address: [127, 0, 0, 1].into(),
            port: 0,
            healthz_port: 0,
            serving_cert: Some(ServingCert { cert_pem: cert, key_pem: key }),
            bound: Some(bound),
            ..Default::default()
        };
        config.authentication.x509.client_ca_pem = Some(ca.pem);
        let stop = CancellationToken::new();
        let agent = pintle_kubelet::run(config, client.clone(), runtime.clone(), stop.clone());
        tokio::spawn(async move { agent.await.unwrap() });
        tokio::time::timeout(LIMIT, port.wait_for(|p| *p > 0)).await.unwrap().unwrap();
        Self { dir, runtime, client, stop, spdy }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.env("HOME", self.dir.path()).env("KUBECONFIG", self.dir.path().join("kubeconfig")).args(args);
        // Old kubectl knows SPDY only; newer ones can be asked to speak it.
        for what in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(what, if self.spdy { "false" } else { "true" });
        }
        command
    }

    /// Runs kubectl; answers whether it succeeded, its output and its error output.
    async fn try_kubectl(&self, args: &[&str], input: &str) -> (Option<i32>, String, String) {
        let (mut command, input) = (self.command(args), input.to_owned());
        let run = tokio::task::spawn_blocking(move || {
            use std::io::Write as _;
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let out = tokio::time::timeout(LIMIT, run).await.expect("kubectl ends").unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> String {
        let (code, out, err) = self.try_kubectl(args, input).await;
        assert_eq!(code, Some(0), "kubectl {args:?}: {out}{err}");
        out
    }
}

fn skip() -> bool {
    let missing = !std::path::Path::new(&binary()).exists();
    if missing {
        println!("skipped: there is no {}", binary());
    }
    missing
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  nodeName: n1\n  \
    automountServiceAccountToken: false\n  containers:\n  - {name: c, image: 'busybox:1'}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_a_pod_as_kubectl_sees_it() {
    if skip() {
        return;
    }
    let c = Cluster::start(false).await;
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s"];
    c.kubectl(&[&ready[..], &["node/n1"]].concat(), "").await;
    let nodes = c.kubectl(&["get", "nodes"], "").await;
    assert!(nodes.contains("Ready") && nodes.contains("v1.36"), "{nodes}");
    c.client
        .of::<k8s_openapi::api::core::v1::ServiceAccount>()
        .create(&serde_json::from_str(r#"{"metadata": {"name": "default", "namespace": "default"}}"#).unwrap())
        .await
        .unwrap();
    c.kubectl(&["create", "--validate=false", "-f", "-"], POD).await;
    c.kubectl(&[&ready[..], &["pod/web"]].concat(), "").await;
    let pods = c.kubectl(&["get", "pods", "-o", "wide"], "").await;
    assert!(pods.contains("1/1") && pods.contains("Running") && pods.contains("10.88."), "{pods}");

    // Conditions merge by type: another's stays when ours change.
    let status = r#"{"status": {"conditions": [{"type": "example.com/x", "status": "True"}]}}"#;
    let patch = pintle_client::Patch::Strategic(status.into());
    c.client.of::<k8s_openapi::api::core::v1::Pod>().patch_status("default", "web", patch).await.unwrap();
    let id = c.runtime.find("web", "c").unwrap().id;
    c.runtime.exit(&id, 7);
    c.kubectl(&["wait", "--for=condition=example.com/x", "--timeout=60s", "pod/web"], "").await;
    c.runtime.wait(|rt| rt.find("web", "c").filter(|x| x.id != id).map(drop)).await;
    c.kubectl(&[&ready[..], &["pod/web"]].concat(), "").await;
    let describe = c.kubectl(&["describe", "pod", "web"], "").await;
    for want in ["Exit Code:    7", "Restart Count:  1", "example.com/x", "Container started", "PodScheduled"] {
        assert!(describe.contains(want), "{want} is not in\n{describe}");
    }

    let log = c.runtime.find("web", "c").unwrap();
    std::fs::create_dir_all(std::path::Path::new(&log.log_path).parent().unwrap()).unwrap();
    c.runtime.write_log(&log.id, "stdout", "hello").unwrap();
    assert_eq!(c.kubectl(&["logs", "web"], "").await, "hello\n");

    c.kubectl(&["delete", "pod", "web", "--timeout=60s"], "").await;
    c.runtime.wait(|rt| rt.find("web", "c").is_none().then_some(())).await;
    assert!(c.runtime.calls().iter().any(|call| call.starts_with("stop_container")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_by_websocket() {
    exec_and_port_forward(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_by_spdy() {
    exec_and_port_forward(true).await;
}

async fn exec_and_port_forward(spdy: bool) {
    if skip() {
        return;
    }
    let c = Cluster::start(spdy).await;
    c.client
        .of::<k8s_openapi::api::core::v1::ServiceAccount>()
        .create(&serde_json::from_str(r#"{"metadata": {"name": "default", "namespace": "default"}}"#).unwrap())
        .await
        .unwrap();
    c.kubectl(&["create", "--validate=false", "-f", "-"], POD).await;
    c.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/web"], "").await;
    let (code, out, err) = c.try_kubectl(&["exec", "web", "--", "echo", "a b"], "").await;
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "c: echo a b\n", "trouble\n"));
    let (code, out, _) = c.try_kubectl(&["exec", "-i", "web", "--", "sh", "-c", "exit 3"], "input").await;
    assert_eq!((code, out.as_str()), (Some(3), "c: sh -c exit 3\n"));
    let (code, _, err) = c.try_kubectl(&["exec", "web", "-c", "none", "--", "x"], "").await;
    assert!(code != Some(0) && err.contains("none"), "{err}");

    let mut command = c.command(&["port-forward", "--address", "127.0.0.1", "pod/web", ":80"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let talk = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead as _, BufReader, Read as _, Write as _};
        let mut line = String::new();
        // kubectl ends when nobody reads what it says.
        let mut said = BufReader::new(stdout);
        said.read_line(&mut line).unwrap();
        // Forwarding from 127.0.0.1:41234 -> 80
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}")).to_owned();
        // Twice, to see that a second connection works, too.
        for text in ["first", "second"] {
            let mut s = std::net::TcpStream::connect(&address).unwrap();
            s.write_all(text.as_bytes()).unwrap();
            let mut back = vec![0; text.len()];
            s.read_exact(&mut back).unwrap();
            assert_eq!(back, text.as_bytes());
        }
    });
    let talked = tokio::time::timeout(LIMIT, talk).await;
    child.kill().unwrap();
    child.wait().unwrap();
    talked.expect("the port is forwarded").unwrap();
}
