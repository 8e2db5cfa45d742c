//! A pod's `/etc/hosts`.

use k8s_openapi::api::core::v1::HostAlias;

fn aliases(list: &[HostAlias]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let lines = list.iter().map(|a| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

/// The file of a pod with an address of its own.
#[must_use]
pub fn managed(ips: &[String], hostname: &str, fqdn: Option<&str>, list: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        match fqdn {
            Some(full) => out += &format!("{ip}\t{full}\t{hostname}\n"),
            None => out += &format!("{ip}\t{hostname}\n"),
        }
    }
    out + &aliases(list)
}

/// The file of a pod in the host's network: the host's own, and the pod's aliases.
#[must_use]
pub fn of_host(host_file: &str, list: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", aliases(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let list: Vec<HostAlias> = serde_saphyr::from_str("[{ip: 1.2.3.4, hostnames: [a, b]}]").unwrap();
        let text = managed(&["10.0.0.5".into()], "p", Some("p.s.ns.svc.c"), &list);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.5\tp.s.ns.svc.c\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert!(managed(&["10.0.0.5".into()], "p", None, &[]).ends_with("fe00::2\tip6-allrouters\n10.0.0.5\tp\n"));
        assert_eq!(of_host("x\n", &[]), "# Kubernetes-managed hosts file (host network).\nx\n");
    }
}
