//! What is accepted but told to the caller about pods and templates of pods.

use std::collections::{BTreeMap, HashMap, HashSet};

use pintle_schema::cursor::Cursor;

use crate::kinds::Ctx;
use crate::kinds::warn::{ip, named, node_label, node_term, whole, whole_bytes};

const SYSCTLS: &str = r#"non-functional in v1.11+; use the "sysctls" field instead"#;
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", SYSCTLS),
    ("security.alpha.kubernetes.io/unsafe-sysctls", SYSCTLS),
];
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
/// No answer carries as many warnings of one sort; what is sent is cut off long before.
const MOST: usize = 256;
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
const SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;

/// Of a new pod. Updates of pods are mostly the system's own, and nobody would read what they say.
pub(super) fn pod(_: &Ctx<'_>, pod: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut out = named(pod, "the Pod's hostname");
    of_pods(pod, &mut out);
    out
}

/// Of an object that holds a template: when it is new and when its spec changed.
pub fn template(object: &Cursor<'_>, template: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    let mut out = Vec::new();
    let generation = |of: &Cursor<'_>| of.get("metadata").get("generation").int();
    if template.is_present() && old.is_none_or(|old| generation(old) != generation(object)) {
        of_pods(template, &mut out);
        apparmor(template, &mut out);
    }
    out
}

fn of_pods(pod: &Cursor<'_>, out: &mut Vec<String>) {
    let (spec, annotations) = (pod.get("spec"), pod.get("metadata").get("annotations"));
    placement(&spec, out);
    for (key, message) in ANNOTATIONS {
        let at = annotations.key(key);
        if at.is_present() {
            out.push(format!("{at}: {message}"));
        }
    }
    for volume in spec.get("volumes").items() {
        for (field, message) in VOLUMES {
            let source = volume.get(field);
            if source.is_present() {
                out.push(format!("{source}: {message}"));
            }
        }
        whole_bytes(
            &volume.get("ephemeral").get("volumeClaimTemplate").get("spec").get("resources"),
            &["storage"],
            out,
        );
        overlaps(&volume, out);
    }
    twice(&spec.get("hostAliases"), "ip", out);
    twice(&spec.get("imagePullSecrets"), "name", out);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").is_empty() {
            out.push(format!("{secret}.name: invalid empty name \"\""));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        whole(&spec.get("overhead").key(name), out);
    }
    let annotations: HashMap<&str, Cursor<'_>> = annotations.entries().collect();
    let seccomp = |at: &Cursor<'_>, key: &str, out: &mut Vec<String>| {
        let unset = at.get("securityContext").get("seccompProfile").is_absent();
        if let Some(at) = annotations.get(key).filter(|_| unset) {
            out.push(format!("{at}: {SECCOMP}"));
        }
    };
    seccomp(&spec, "seccomp.security.alpha.kubernetes.io/pod", out);
    for container in containers(&spec) {
        let name = container.get("name").str();
        seccomp(&container, &format!("container.seccomp.security.alpha.kubernetes.io/{name}"), out);
        whole_bytes(&container.get("resources"), &["memory", "ephemeral-storage"], out);
        hidden_variables(&container, out);
    }
    ports(&spec, out);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int() < 0 {
        out.push(format!("{grace}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.get("affinity").get(kind);
        let preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution");
        let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
        for term in required.items().chain(preferred.items().map(|t| t.get("podAffinityTerm"))) {
            let selector = term.get("labelSelector");
            if selector.is_absent() {
                out.push(format!("{selector}: {NO_SELECTOR}"));
            }
        }
    }
    for address in spec.get("dnsConfig").get("nameservers").items() {
        ip(&address, out);
    }
    for alias in spec.get("hostAliases").items() {
        ip(&alias.get("ip"), out);
    }
}

fn containers<'a>(spec: &Cursor<'a>) -> Vec<Cursor<'a>> {
    LISTS.iter().flat_map(|list| spec.get(list).items().collect::<Vec<_>>()).collect()
}

fn placement(spec: &Cursor<'_>, out: &mut Vec<String>) {
    for (key, at) in spec.get("nodeSelector").entries() {
        if let Some(message) = node_label(key) {
            out.push(format!("{at}: {message}"));
        }
    }
    let affinity = spec.get("affinity").get("nodeAffinity");
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution").get("nodeSelectorTerms");
    for term in required.items() {
        node_term(&term, false, out);
    }
    for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_term(&preferred.get("preference"), true, out);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let (key, selector) = (constraint.get("topologyKey"), constraint.get("labelSelector"));
        if let Some(message) = node_label(key.str()) {
            out.push(format!("{key}: {} is {message}", key.str()));
        }
        if selector.is_absent() {
            out.push(format!("{selector}: {NO_SELECTOR}"));
        }
    }
}

/// Entries of a list that name the same thing.
fn twice(list: &Cursor<'_>, field: &'static str, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for at in list.items().map(|item| item.get(field)) {
        if !seen.insert(at.str()) {
            out.push(format!("{at}: duplicate {field} \"{}\"", at.str()));
        }
    }
}

/// A variable given anew without the use of its former value.
fn hidden_variables(container: &Cursor<'_>, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.get("env").items() {
        let (name, value) = (variable.get("name").str(), variable.get("value").str());
        if seen.insert(name) {
            continue;
        }
        let former = format!("$({name})");
        if variable.get("valueFrom").is_present() || value == former || !value.contains(&former) {
            out.push(format!(
                "{variable}: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: &Cursor<'_>, out: &mut Vec<String>) {
    let all: Vec<Cursor<'_>> =
        containers(spec).iter().flat_map(|c| c.get("ports").items().collect::<Vec<_>>()).collect();
    // Where the ports before are: of one number and protocol, of one host port, of one address.
    let mut same: HashMap<_, Vec<usize>> = HashMap::new();
    let mut of_host: HashMap<_, Vec<usize>> = HashMap::new();
    let mut of_ip: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, port) in all.iter().enumerate() {
        let (number, protocol) = (port.get("containerPort").int(), port.get("protocol").str());
        let (host, ip) = (port.get("hostPort").int(), port.get("hostIP").str());
        if !ip.is_empty() && host == 0 {
            out.push(format!(
                "{port}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}",
                port.get("name").str()
            ));
        }
        let key = (number, protocol);
        let at = |list: Option<&Vec<usize>>| list.cloned().unwrap_or_default();
        let mut others: Vec<usize> = match (host, ip) {
            _ if out.len() >= MOST => Vec::new(),
            (0, _) => at(same.get(&key)),
            (_, "") => [at(of_host.get(&(key, 0))), at(of_host.get(&(key, host)))].concat(),
            _ => {
                [at(of_host.get(&(key, 0))), at(of_ip.get(&(key, host, ip))), at(of_ip.get(&(key, host, "")))].concat()
            }
        };
        others.sort_unstable();
        for other in others {
            let other = &all[other];
            let (their_host, their_ip) = (other.get("hostPort").int(), other.get("hostIP").str());
            let how = if ip == their_ip && host == their_host {
                "duplicate"
            } else if host == 0 || their_host == 0 {
                "overlapping"
            } else {
                "dangerously ambiguous"
            };
            out.push(format!("{port}: {how} port definition with {other}"));
        }
        same.entry(key).or_default().push(i);
        of_host.entry((key, host)).or_default().push(i);
        of_ip.entry((key, host, ip)).or_default().push(i);
    }
    let mut names: HashMap<&str, &Cursor<'_>> = HashMap::new();
    for port in &all {
        let name = port.get("name").str();
        if name.is_empty() {
            continue;
        }
        match names.get(name) {
            Some(other) => out.push(format!(
                "{port}: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will use {other}"
            )),
            None => drop(names.insert(name, port)),
        }
    }
}

/// Annotations that say what neither the container nor the pod does.
fn apparmor(template: &Cursor<'_>, out: &mut Vec<String>) {
    let spec = template.get("spec");
    let whole = spec.get("securityContext").get("appArmorProfile");
    let annotations: HashMap<&str, Cursor<'_>> = template.get("metadata").get("annotations").entries().collect();
    for container in containers(&spec) {
        let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.get("name").str());
        let own = container.get("securityContext").get("appArmorProfile");
        let Some(at) = annotations.get(key.as_str()).filter(|_| own.is_absent()) else { continue };
        let (kind, local) = (whole.get("type").str(), whole.get("localhostProfile").str());
        let agrees = match at.str() {
            "runtime/default" => kind == "RuntimeDefault",
            "unconfined" => kind == "Unconfined",
            other => kind == "Localhost" && other.strip_prefix("localhost/") == Some(local),
        };
        if !agrees {
            out.push(format!("{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        }
    }
}

/// Keys of a volume that would be written over one another.
fn overlaps(volume: &Cursor<'_>, out: &mut Vec<String>) {
    let name = volume.get("name").str();
    let mut tell = |what: &str, clashes: Vec<String>| {
        out.extend(clashes.iter().map(|c| format!("volume \"{name}\" ({what}): overlapping paths: {c}")));
    };
    let quoted = |kind: &str, name: &str| format!("{kind} \"{name}\"");
    for (field, kind, name_field) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
        let source = volume.get(field);
        tell(&quoted(kind, source.get(name_field).str()), clashes(paths(&source, "")));
    }
    tell("DownwardAPI", clashes(paths(&volume.get("downwardAPI"), "")));
    let mut all = Vec::new();
    let mut empty = 0;
    for source in volume.get("projected").get("sources").items() {
        if source.object().is_none_or(serde_json::Map::is_empty) {
            empty += 1;
        }
        for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
            let named = source.get(field);
            all.extend(paths(&named, &quoted(kind, named.get("name").str())));
        }
        all.extend(paths(&source.get("downwardAPI"), "DownwardAPI"));
        let (token, bundle) = (source.get("serviceAccountToken"), source.get("clusterTrustBundle"));
        if token.is_present() {
            all.push((token.get("path").str(), "ServiceAccountToken".to_owned()));
        }
        if bundle.is_present() {
            let name = bundle.get("name").opt_str().unwrap_or(bundle.get("signerName").str());
            all.push((bundle.get("path").str(), quoted("ClusterTrustBundle", name)));
        }
        let certificate = source.get("podCertificate");
        for (field, what) in
            [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")]
        {
            if !certificate.get(field).is_empty() {
                all.push((certificate.get(field).str(), format!("PodCertificate {what}")));
            }
        }
    }
    tell("Projected", clashes(all));
    out.extend((0..empty).map(|_| format!("volume \"{name}\" (Projected) has no sources provided")));
}

fn paths<'a>(source: &Cursor<'a>, from: &str) -> Vec<(&'a str, String)> {
    source.get("items").items().map(|item| (item.get("path").str(), from.to_owned())).collect()
}

/// Each path with those before it that are the same, hold it or lie within it.
fn clashes(paths: Vec<(&str, String)>) -> Vec<String> {
    let show = |(path, from): &(&str, String)| {
        let path = path.trim_end_matches('/');
        if from.is_empty() { format!("\"{path}\"") } else { format!("\"{path}\" ({from})") }
    };
    let mut out = Vec::new();
    // Where the paths before are, in an order in which what lies within a path follows it.
    let mut seen: BTreeMap<Vec<&str>, Vec<usize>> = BTreeMap::new();
    for (i, entry) in paths.iter().enumerate() {
        let path = entry.0.trim_end_matches('/');
        if path.is_empty() {
            continue;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let above = (1..parts.len()).filter_map(|n| seen.get(&parts[..n]));
        let within = seen.range(parts.clone()..).take_while(|(other, _)| other.starts_with(&parts)).map(|(_, at)| at);
        let mut others: Vec<usize> = above.chain(within).flatten().copied().take(MOST).collect();
        others.sort_unstable();
        out.extend(others.into_iter().map(|other| format!("{} with {}", show(entry), show(&paths[other]))));
        if out.len() >= MOST {
            break;
        }
        seen.entry(parts).or_default().push(i);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn warned(changes: Value) -> Vec<String> {
        let object = json!({"metadata": {"generation": 1}, "spec": {"template": changes}});
        let object = Cursor::root(&object);
        template(&object, &object.get("spec").get("template"), None)
    }

    #[test]
    fn what_is_told() {
        let cases = [
            (
                json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
                vec![
                    r#"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                ],
            ),
            (
                json!({"spec": {"topologySpreadConstraints": [{"topologyKey": "zone"}]}}),
                vec![
                    "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                json!({"spec": {"containers": [{"name": "c", "env": [
                {"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]}]}}),
                vec![
                    "spec.template.spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                ],
            ),
            (
                json!({"spec": {"containers": [
                {"name": "a", "ports": [{"name": "p", "containerPort": 80, "protocol": "TCP"}]},
                {"name": "b", "ports": [{"name": "p", "containerPort": 80, "protocol": "TCP", "hostPort": 1}]}]}}),
                vec![
                    "spec.template.spec.containers[1].ports[0]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                    "spec.template.spec.containers[1].ports[0]: duplicate port name \"p\" with spec.template.spec.containers[0].ports[0], services and probes that select ports by name will use spec.template.spec.containers[0].ports[0]",
                ],
            ),
            (
                json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "100m"}}}]}}),
                vec![
                    "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "m", "items": [
                {"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}}]}}),
                vec!["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\""],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "gitRepo": {"repository": "r"}}]}}),
                vec!["spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
            ),
            (
                json!({"spec": {"terminationGracePeriodSeconds": -1, "imagePullSecrets": [{"name": "a"}, {"name": "a"}]}}),
                vec![
                    "spec.template.spec.imagePullSecrets[1].name: duplicate name \"a\"",
                    "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
            (
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}},
                "spec": {"containers": [{"name": "c"}]}}),
                vec![
                    r#"spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "appArmorProfile" field instead"#,
                ],
            ),
            (
                json!({"spec": {"dnsConfig": {"nameservers": ["1.2.3.4", "01.2.3.4", "::ffff:1.2.3.4", "2001:DB8::1"]}}}),
                vec![
                    "spec.template.spec.dnsConfig.nameservers[1]: non-standard IP address \"01.2.3.4\" is invalid: use \"1.2.3.4\"",
                    "spec.template.spec.dnsConfig.nameservers[2]: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"",
                    "spec.template.spec.dnsConfig.nameservers[3]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                ],
            ),
        ];
        for (pod, wanted) in cases {
            assert_eq!(warned(pod), wanted);
        }
    }

    #[test]
    fn unchanged_templates_are_silent() {
        let object =
            json!({"metadata": {"generation": 1}, "template": {"spec": {"terminationGracePeriodSeconds": -1}}});
        let object = Cursor::root(&object);
        assert!(template(&object, &object.get("template"), Some(&object)).is_empty());
    }

    #[test]
    fn paths_that_clash() {
        let check = |paths: &[&str], expect: &[&str]| {
            assert_eq!(clashes(paths.iter().map(|p| (*p, String::new())).collect()), expect, "{paths:?}");
        };
        check(&["a", "b", "a-b", "a/", "", "/"], &["\"a\" with \"a\""]);
        check(&["a/b/c", "a/b.c", "x", "a"], &["\"a\" with \"a/b/c\"", "\"a\" with \"a/b.c\""]);
        check(&["a/b/c", "a", "a/b"], &["\"a\" with \"a/b/c\"", "\"a/b\" with \"a/b/c\"", "\"a/b\" with \"a\""]);
        check(&["a//b", "a/"], &["\"a\" with \"a//b\""]);
        let many = vec![("x", "m".to_owned()); 20_000];
        assert!((MOST..2 * MOST).contains(&clashes(many).len()));
    }

    #[test]
    fn ports_without_end_are_told_of_to_a_limit() {
        let ports = vec![json!({"containerPort": 1, "protocol": "TCP"}); 5_000];
        let told = warned(json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}));
        assert!((MOST..2 * MOST).contains(&told.len()), "{}", told.len());
    }
}
