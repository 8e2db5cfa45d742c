//! A pod's resolver configuration and host name.

use crate::pod::spec;
use k8s_openapi::api::core::v1::Pod;
use pintle_runtime::DnsConfig;
use std::net::IpAddr;

/// The host's resolver configuration, parsed.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines().map(str::trim) {
        let line = line.split([';', '#']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(String::from)),
            // The last line counts.
            Some("search") => {
                out.searches = words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_string()).collect();
            }
            Some("options") => out.options = words.map(String::from).collect(),
            _ => {}
        }
    }
    out
}

/// What the node knows of DNS.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    /// The host's own configuration.
    pub host: DnsConfig,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
}

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The configuration, and what to tell the user of things that had to be left out (`DNSConfigForming`, `MissingClusterDNS`).
#[must_use]
pub fn pod_dns(pod: &Pod, node: &NodeDns) -> (DnsConfig, Vec<(&'static str, String)>) {
    let s = spec::spec(pod);
    let mut events = vec![];
    let policy = s.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !spec::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut out = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !node.cluster_dns.is_empty() => {
            let ns = pod.metadata.namespace.as_deref().unwrap_or_default();
            let mut searches = vec![];
            if !node.cluster_domain.is_empty() {
                let d = &node.cluster_domain;
                searches = vec![format!("{ns}.svc.{d}"), format!("svc.{d}"), d.clone()];
            }
            push_new(&mut searches, &node.host.searches);
            DnsConfig {
                servers: node.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".into()],
            }
        }
        _ => {
            if cluster {
                events.push((
                    "MissingClusterDNS",
                    format!(
                        "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"{policy}\" policy. \
                         Falling back to \"Default\" policy."
                    ),
                ));
            }
            node.host.clone()
        }
    };
    if let Some(own) = &s.dns_config {
        push_new(&mut out.servers, own.nameservers.as_deref().unwrap_or_default());
        push_new(&mut out.searches, own.searches.as_deref().unwrap_or_default());
        for o in own.options.iter().flatten() {
            let Some(name) = o.name.as_deref() else { continue };
            let text = o.value.as_deref().map_or_else(|| name.to_string(), |v| format!("{name}:{v}"));
            let same = |x: &String| x.split(':').next() == Some(name);
            match out.options.iter_mut().find(|x| same(x)) {
                Some(x) => *x = text,
                None => out.options.push(text),
            }
        }
    }
    limit(&mut out, &mut events);
    (out, events)
}

fn push_new(into: &mut Vec<String>, more: &[String]) {
    for m in more {
        if !into.contains(m) {
            into.push(m.clone());
        }
    }
}

fn limit(out: &mut DnsConfig, events: &mut Vec<(&'static str, String)>) {
    if out.servers.len() > MAX_SERVERS {
        out.servers.truncate(MAX_SERVERS);
        let line = out.servers.join(" ");
        events.push((
            "DNSConfigForming",
            format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"),
        ));
    }
    let before = out.searches.len();
    out.searches.truncate(MAX_SEARCHES);
    while out.searches.join(" ").len() > MAX_SEARCH_CHARS {
        out.searches.pop();
    }
    if out.searches.len() < before {
        let line = out.searches.join(" ");
        events.push((
            "DNSConfigForming",
            format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"),
        ));
    }
}

/// The host name inside the pod and, with a subdomain, its fully qualified domain name.
///
/// # Errors
/// When `setHostnameAsFQDN` makes a name that the kernel does not take, in upstream's words.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> Result<(String, Option<String>), String> {
    let s = spec::spec(pod);
    if let Some(name) = s.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return Ok((name.clone(), None));
    }
    let ns = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut host = match s.hostname.as_deref().filter(|h| !h.is_empty()) {
        Some(h) => h.to_string(),
        None => pod.metadata.name.clone().unwrap_or_default(),
    };
    // The kernel takes 63 characters.
    host.truncate(63);
    let host = host.trim_end_matches(['-', '.']).to_string();
    let domain = s.subdomain.as_deref().filter(|d| !d.is_empty());
    let fqdn = domain.map(|d| format!("{host}.{d}.{ns}.svc.{cluster_domain}"));
    if s.set_hostname_as_fqdn == Some(true)
        && let Some(full) = &fqdn
    {
        if full.len() > 64 {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
                full.len()
            ));
        }
        return Ok((full.clone(), fqdn));
    }
    Ok((host, fqdn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn node() -> NodeDns {
        NodeDns {
            host: parse_resolv_conf("# c\nnameserver 1.1.1.1\nsearch example.com. corp\noptions timeout:1\n"),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn policies() {
        let check = |spec: &str, servers: &str, searches: &str, options: &str| {
            let (d, _) = pod_dns(&pod(&format!("spec: {{{spec}}}")), &node());
            assert_eq!(
                (d.servers.join(" "), d.searches.join(" "), d.options.join(" ")),
                (servers.into(), searches.into(), options.into()),
                "{spec}"
            );
        };
        let path = "ns.svc.cluster.local svc.cluster.local cluster.local example.com corp";
        check("containers: []", "10.96.0.10", path, "ndots:5");
        check("containers: [], hostNetwork: true", "1.1.1.1", "example.com corp", "timeout:1");
        check("containers: [], hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet", "10.96.0.10", path, "ndots:5");
        check("containers: [], dnsPolicy: Default", "1.1.1.1", "example.com corp", "timeout:1");
        check(
            "containers: [], dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9], searches: [x], options: [{name: a}]}",
            "9.9.9.9",
            "x",
            "a",
        );
        check(
            "containers: [], dnsConfig: {nameservers: [9.9.9.9], options: [{name: ndots, value: '2'}, {name: edns0}]}",
            "10.96.0.10 9.9.9.9",
            path,
            "ndots:2 edns0",
        );
        let many = "dnsPolicy: None, containers: [], dnsConfig: {nameservers: [1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4]}";
        let (d, events) = pod_dns(&pod(&format!("spec: {{{many}}}")), &node());
        assert_eq!((d.servers.len(), events[0].0), (3, "DNSConfigForming"));
        let (_, events) = pod_dns(&pod("spec: {containers: []}"), &NodeDns { cluster_dns: vec![], ..node() });
        assert_eq!(events[0].0, "MissingClusterDNS");
    }

    #[test]
    fn host_names() {
        let check = |spec: &str, want: (&str, Option<&str>)| {
            let got = hostname(&pod(&format!("spec: {{containers: [], {spec}}}")), "cluster.local").unwrap();
            assert_eq!((got.0.as_str(), got.1.as_deref()), want, "{spec}");
        };
        check("", ("p", None));
        check("hostname: h", ("h", None));
        check("subdomain: s", ("p", Some("p.s.ns.svc.cluster.local")));
        check("subdomain: s, setHostnameAsFQDN: true", ("p.s.ns.svc.cluster.local", Some("p.s.ns.svc.cluster.local")));
        check("hostnameOverride: a.b", ("a.b", None));
        let long = "a".repeat(60);
        assert!(
            hostname(
                &pod(&format!("spec: {{containers: [], hostname: {long}, subdomain: s, setHostnameAsFQDN: true}}")),
                "c"
            )
            .is_err()
        );
    }
}
