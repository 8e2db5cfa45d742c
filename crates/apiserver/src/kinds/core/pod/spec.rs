//! Validation of a pod's spec, alone or in a template.

use std::collections::{HashMap, HashSet};

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::{container, resources, scheduling, security, volumes};
use crate::kinds::{checks, meta};

/// What the parts of a spec need to know of the whole.
pub(super) struct Rules<'a> {
    /// It is a pod, not a template.
    pub is_pod: bool,
    /// Label values that break the rules pass in selectors, since the stored object had some.
    pub lenient: bool,
    /// The pod shares the users of its host.
    pub host_users: bool,
    /// The name of the pod, where it is known.
    pub pod_name: &'a str,
    pub restart_policy: &'a str,
    pub os: &'a str,
    pub grace: Option<i64>,
    /// The names of its resource claims.
    pub claims: Vec<&'a str>,
    /// What the stored object has already and may keep.
    pub kept: Kept,
}

/// Habits of a stored spec that newer ones may not take up.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// Init containers that end have the resize policy `RestartContainer`.
    pub init_restarts: bool,
    /// It has a `seLinuxChangePolicy`.
    pub se_linux_policy: bool,
    /// Block devices in a pod with users of its own.
    pub user_namespace_devices: bool,
    /// Tolerations compare numbers.
    pub comparisons: bool,
}

impl Kept {
    fn of(spec: &Cursor<'_>) -> Kept {
        let restarts =
            |c: &Cursor<'_>| c.get("resizePolicy").items().any(|p| p.get("restartPolicy").str() == "RestartContainer");
        let own_users = spec.get("hostUsers").opt_bool() == Some(false);
        Kept {
            init_restarts: spec
                .get("initContainers")
                .items()
                .any(|c| c.get("restartPolicy").str() != "Always" && restarts(&c)),
            se_linux_policy: spec.get("securityContext").get("seLinuxChangePolicy").is_present(),
            user_namespace_devices: own_users && containers(spec).any(|c| !c.get("volumeDevices").is_empty()),
            comparisons: spec.get("tolerations").items().any(|t| matches!(t.get("operator").str(), "Lt" | "Gt")),
        }
    }
}

/// All containers of a spec: init, regular, ephemeral.
pub(super) fn containers<'a>(spec: &Cursor<'a>) -> impl Iterator<Item = Cursor<'a>> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|field| spec.get(field).items().collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Whether some selector of the spec has a value that is no label value; then it may keep it.
fn has_odd_selectors(spec: &Cursor<'_>) -> bool {
    let rules = Rules {
        is_pod: false,
        lenient: false,
        host_users: true,
        pod_name: "",
        restart_policy: "",
        os: "",
        grace: None,
        claims: vec![],
        kept: Kept::default(),
    };
    let mut errors = Errors::new();
    scheduling::affinity(&spec.get("affinity"), &rules, &mut errors);
    scheduling::topology_spread(&spec.get("topologySpreadConstraints"), &rules, &mut errors);
    errors.iter().any(|e| e.field.contains(".values["))
}

/// Checks the spec of a template: `metadata` and `spec` under the cursor.
pub fn template(template: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    template_metadata(template, errors);
    pod_spec(template, old, false, errors);
    if !template.get("spec").get("ephemeralContainers").is_empty() {
        errors.forbidden(
            template.get("spec").get("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Checks the labels and annotations of a template.
pub fn template_metadata(template: &Cursor<'_>, errors: &mut Errors) {
    // Upstream leaves `metadata` out of these paths.
    let metadata = template.get("metadata");
    let mut found = Errors::new();
    meta::labels(&metadata.get("labels"), &mut found);
    meta::annotations(&metadata.get("annotations"), &mut found);
    super::annotations(template, &mut found);
    meta::moved(found, &metadata.path(), &template.path(), errors);
}

/// Checks the spec of a pod or template.
pub(super) fn pod_spec(pod: &Cursor<'_>, old: Option<&Cursor<'_>>, is_pod: bool, errors: &mut Errors) {
    let spec = pod.get("spec");
    let at = |field: &'static str| spec.get(field);
    let grace = at("terminationGracePeriodSeconds");
    if grace.is_absent() {
        errors.required(&grace, "");
    }
    let claims = at("resourceClaims");
    let rules = Rules {
        is_pod,
        lenient: old.is_some_and(|o| has_odd_selectors(&o.get("spec"))),
        host_users: at("hostUsers").opt_bool().unwrap_or(true),
        pod_name: if is_pod { pod.get("metadata").get("name").str() } else { "" },
        restart_policy: at("restartPolicy").str(),
        os: at("os").get("name").str(),
        grace: grace.opt_int(),
        claims: claims.items().map(|c| c.get("name").str()).filter(|n| !n.is_empty()).collect(),
        kept: old.map(|o| Kept::of(&o.get("spec"))).unwrap_or_default(),
    };
    let mounted = volumes::volumes(&at("volumes"), &rules, errors);
    resource_claims(pod, &claims, is_pod, errors);
    container::containers(&at("containers"), &mounted, &rules, errors);
    container::init_containers(&spec, &mounted, &rules, errors);
    container::ephemeral_containers(&spec, &mounted, &rules, errors);
    resources::of_pod(&spec, errors);
    host_network(&spec, is_pod, errors);
    checks::one_of(&at("restartPolicy"), &["Always", "OnFailure", "Never"], true, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    checks::one_of(&at("dnsPolicy"), &policies, true, errors);
    meta::labels(&at("nodeSelector"), errors);
    security::of_pod(&spec, &rules, errors);
    scheduling::affinity(&at("affinity"), &rules, errors);
    dns_config(&spec, errors);
    for gate in at("readinessGates").items() {
        let kind = gate.get("conditionType");
        for message in qualified_name(kind.str()) {
            errors.invalid_value(&kind, kind.str(), message);
        }
    }
    scheduling_gates(&at("schedulingGates"), errors);
    scheduling::topology_spread(&at("topologySpreadConstraints"), &rules, errors);
    security::host_process(&spec, errors);
    host_users(&spec, &rules, errors);
    host_name(&spec, errors);
    names(&spec, errors);
    scheduling::tolerations(&at("tolerations"), rules.kept.comparisons, errors);
    for alias in at("hostAliases").items() {
        checks::new_ip(&alias.get("ip"), errors);
        for name in alias.get("hostnames").items() {
            checks::subdomain(&name, errors);
        }
    }
    for field in ["priorityClassName", "runtimeClassName"] {
        let name = at(field);
        if (field == "runtimeClassName" && name.is_present()) || !name.is_empty() {
            checks::subdomain(&name, errors);
        }
    }
    if at("preemptionPolicy").is_present() {
        checks::one_of(&at("preemptionPolicy"), &["PreemptLowerPriority", "Never"], true, errors);
    }
    for (name, amount) in at("overhead").entries() {
        let path = format!("{}.limits[{name}]", at("overhead"));
        let mut found = Errors::new();
        resources::container_resource_name(&amount, name, &mut found);
        resources::amount(name, &amount, &mut found);
        meta::moved(found, &amount.path(), &path, errors);
    }
    let os = at("os");
    if os.is_present() {
        match rules.os {
            "" => errors.required(os.get("name"), ""),
            "linux" | "windows" => security::of_os(&spec, errors),
            other => errors.not_supported(&os, other, &["linux", "windows"]),
        }
    }
    let group = at("schedulingGroup");
    if group.is_present() {
        let name = group.get("podGroupName");
        if name.is_present() {
            checks::subdomain(&name, errors);
        } else {
            errors.invalid_value(&name, Value::Null, "must specify one of: `podGroupName`");
        }
    }
    file_keys(&spec, errors);
}

fn resource_claims(pod: &Cursor<'_>, claims: &Cursor<'_>, is_pod: bool, errors: &mut Errors) {
    let mirror = is_pod && pod.get("metadata").get("annotations").key(super::MIRROR).is_present();
    let mut names: HashSet<&str> = HashSet::new();
    for claim in claims.items() {
        if mirror {
            errors.forbidden("", "static pods do not support resource claims");
            continue;
        }
        let (name, direct, template) =
            (claim.get("name"), claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        if name.is_empty() {
            errors.required(&name, "");
        } else if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        } else {
            checks::label(&name, errors);
            names.insert(name.str());
        }
        match (direct.is_present(), template.is_present()) {
            (true, true) => errors
                .invalid(&claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, false) => {
                errors.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for reference in [direct, template].iter().filter(|r| r.is_present()) {
            checks::subdomain(reference, errors);
        }
    }
}

fn host_network(spec: &Cursor<'_>, is_pod: bool, errors: &mut Errors) {
    if !spec.get("hostNetwork").bool() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.get("hostPort"), port.get("containerPort"));
            if (is_pod || host.int() != 0) && host.int() != own.int() {
                errors.invalid_value(&host, host.int(), "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns_config(spec: &Cursor<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").str() == "None" {
        if config.is_absent() {
            return errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(&servers, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > 3 {
        errors.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        checks::new_ip(&server, errors);
    }
    if searches.len() > 32 {
        errors.invalid(&searches, "must not have more than 32 search paths");
    }
    let length = searches.items().map(|s| s.str().len() + 1).sum::<usize>().saturating_sub(1);
    if length > 2048 {
        errors.invalid(&searches, "must not have more than 2048 characters (including spaces) in the search list");
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        let text = search.str().strip_suffix('.').unwrap_or(search.str());
        for message in checks::subdomain_with_underscore(text) {
            errors.invalid_value(&search, text, message);
        }
    }
    for option in config.get("options").items().filter(|o| o.get("name").is_empty()) {
        errors.required(&option, "must not be empty");
    }
}

fn scheduling_gates(gates: &Cursor<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for gate in gates.items() {
        let name = gate.get("name").str();
        for message in qualified_name(name) {
            errors.invalid_value(&gate, name, message);
        }
        if seen.contains(&name) {
            errors.duplicate(&gate, name);
        }
        seen.insert(name);
    }
}

fn host_users(spec: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    if rules.host_users {
        return;
    }
    // Upstream spells the last two with a capital.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).bool() {
            errors.forbidden(format!("{spec}.{shown}"), "when `hostUsers` is false");
        }
    }
    if rules.kept.user_namespace_devices {
        return;
    }
    for container in containers(spec).filter(|c| !c.get("volumeDevices").is_empty()) {
        errors.forbidden(container.get("volumeDevices"), "when `hostUsers` is false");
    }
}

fn host_name(spec: &Cursor<'_>, errors: &mut Errors) {
    let name = spec.get("hostnameOverride");
    if name.is_absent() {
        return;
    }
    if spec.get("setHostnameAsFQDN").bool() {
        errors.forbidden(&name, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.get("hostNetwork").bool() {
        errors.forbidden(&name, "may not be specified when hostNetwork is true");
    }
    if name.str().len() > 64 {
        errors.too_long(&name, 64);
    }
    checks::subdomain(&name, errors);
}

fn names(spec: &Cursor<'_>, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName"] {
        let name = spec.get(field);
        if !name.is_empty() {
            meta::invalid_each(&name, dns1123_subdomain(name.str()), errors);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    let most = i64::from(i32::MAX);
    if deadline.opt_int().is_some_and(|s| !(1..=most).contains(&s)) {
        errors.invalid(&deadline, checks::between(1, most));
    }
    for field in ["hostname", "subdomain"] {
        if !spec.get(field).is_empty() {
            checks::label(&spec.get(field), errors);
        }
    }
}

/// Environment variables from files name an emptyDir.
fn file_keys(spec: &Cursor<'_>, errors: &mut Errors) {
    let volumes = spec.get("volumes");
    let volumes: HashMap<&str, Cursor<'_>> = volumes.items().map(|v| (v.get("name").str(), v)).collect();
    for container in containers(spec) {
        for variable in container.get("env").items() {
            let name = variable.get("valueFrom").get("fileKeyRef").get("volumeName");
            if variable.get("valueFrom").get("fileKeyRef").is_absent() {
                continue;
            }
            match volumes.get(name.str()) {
                None => errors.not_found(&name, name.str()),
                Some(v) if v.get("emptyDir").is_absent() => {
                    errors.invalid(&name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}
