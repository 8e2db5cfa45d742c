//! Kubeconfig files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a kubeconfig says: one cluster, one user, one context.
pub struct Kubeconfig<'a> {
    /// Name of the cluster entry, and of the context with the user's.
    pub cluster: &'a str,
    /// Name of the user entry.
    pub user: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The cluster's CA.
    pub ca_pem: &'a str,
    /// The client's certificate.
    pub cert_pem: &'a str,
    /// The client's key.
    pub key_pem: &'a str,
}

impl Kubeconfig<'_> {
    /// The file's text. It holds a private key: write it with mode 0600.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let b64 = |s: &str| STANDARD.encode(s);
        // Names and addresses are our own or come from validated flags; JSON strings are YAML strings.
        let q = |s: &str| serde_json::Value::from(s).to_string();
        let context = format!("{}@{}", self.user, self.cluster);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: {cluster}\n\
             contexts:\n- context:\n    cluster: {cluster}\n    user: {user}\n  name: {context}\ncurrent-context: {context}\n\
             users:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\n",
            ca = b64(self.ca_pem),
            server = q(self.server),
            cluster = q(self.cluster),
            user = q(self.user),
            context = q(&context),
            cert = b64(self.cert_pem),
            key = b64(self.key_pem),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let k = Kubeconfig {
            cluster: "c",
            user: "u",
            server: "https://127.0.0.1:6443",
            ca_pem: "A",
            cert_pem: "B",
            key_pem: "C",
        };
        let text = k.to_yaml();
        assert!(text.contains("current-context: \"u@c\"\n"), "{text}");
        assert!(text.contains("    client-key-data: Qw==\n"), "{text}");
    }
}
