//! Validation of containers, their probes and their lifecycle.

use std::collections::{HashMap, HashSet};

use pintle_schema::cursor::{Cursor, ErrorKind, Errors};
use serde_json::Value;

use super::spec::Rules;
use super::{env, resources, security};
use crate::kinds::{checks, meta};

type Volumes<'a> = HashMap<&'a str, &'a Value>;

const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// What an ephemeral container may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

pub(super) fn containers(list: &Cursor<'_>, volumes: &Volumes<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    if list.is_empty() {
        return errors.required(list, "");
    }
    let mut names: HashSet<&str> = HashSet::new();
    for container in list.items() {
        common(&container, volumes, rules, errors);
        let name = container.get("name");
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        } else {
            names.insert(name.str());
        }
        runtime(&container, rules, errors);
        restart_policy(&container, errors);
    }
    host_ports(list, list, errors);
}

pub(super) fn init_containers(spec: &Cursor<'_>, volumes: &Volumes<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let list = spec.get("initContainers");
    let mut names: HashSet<&str> = spec.get("containers").items().map(|c| c.get("name").str()).collect();
    for container in list.items() {
        common(&container, volumes, rules, errors);
        let policy = container.get("restartPolicy");
        if policy.is_present() {
            restart_policy(&container, errors);
        } else if !container.get("restartPolicyRules").is_empty() {
            errors.required(&policy, RULES_NEED_A_POLICY);
        }
        let name = container.get("name");
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        } else if !name.is_empty() {
            names.insert(name.str());
        }
        host_ports_of(&list, &container, 0, &mut HashSet::new(), errors);
        if policy.str() == "Always" {
            runtime(&container, rules, errors);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.get(field).is_present() {
                    errors.forbidden(
                        container.get(field),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
            for policy in container.get("resizePolicy").items().filter(|_| !rules.kept.init_restarts) {
                let restart = policy.get("restartPolicy");
                if restart.str() == "RestartContainer" {
                    errors.invalid(&restart, "must not be set to 'RestartContainer' for non-sidecar initContainers");
                }
            }
        }
    }
}

pub(super) fn ephemeral_containers(spec: &Cursor<'_>, volumes: &Volumes<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let list = spec.get("ephemeralContainers");
    let mut targets: HashSet<&str> = spec.get("containers").items().map(|c| c.get("name").str()).collect();
    targets.extend(spec.get("initContainers").items().map(|c| c.get("name").str()));
    let mut names = targets.clone();
    for container in list.items() {
        common(&container, volumes, rules, errors);
        image_padding(&container, errors);
        let name = container.get("name");
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        } else {
            names.insert(name.str());
        }
        let target = container.get("targetContainerName");
        if !target.is_empty() && !targets.contains(&target.str()) {
            errors.not_found(&target, target.str());
        }
        for (field, value) in container.object().into_iter().flatten() {
            let empty = Cursor::root(value).is_empty() || value == &Value::Bool(false);
            if !EPHEMERAL_FIELDS.contains(&field.as_str()) && !empty {
                errors.forbidden(container.get(field), "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).is_empty() {
                    errors.forbidden(mount.get(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

/// An image may not begin or end with space; only pods are so strict, not templates.
pub(super) fn image_padding(container: &Cursor<'_>, errors: &mut Errors) {
    let image = container.get("image");
    if image.str().trim() != image.str() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
}

fn common(container: &Cursor<'_>, volumes: &Volumes<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let at = |field: &'static str| container.get(field);
    if at("name").is_empty() {
        errors.required(at("name"), "");
    } else {
        checks::label(&at("name"), errors);
    }
    if at("image").is_empty() {
        errors.required(at("image"), "");
    }
    checks::one_of(&at("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"], true, errors);
    env::ports(&at("ports"), errors);
    env::env(&at("env"), errors);
    env::env_from(&at("envFrom"), errors);
    env::mounts(container, volumes, errors);
    checks::one_of(&at("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], true, errors);
    resources::of_container(&at("resources"), &rules.claims, errors);
    resize_policy(&at("resizePolicy"), rules, errors);
    security::of_container(&at("securityContext"), rules, errors);
}

fn resize_policy(list: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.get("resourceName").str(), policy.get("restartPolicy").str());
        if seen.contains(&resource) {
            errors.duplicate(&policy, resource);
        }
        seen.insert(resource);
        match resource {
            "cpu" | "memory" => {}
            "" => errors.required(list, ""),
            other => errors.not_supported(list, other, &["cpu", "memory"]),
        }
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.required(list, ""),
            other => errors.not_supported(list, other, &["NotRequired", "RestartContainer"]),
        }
        if rules.restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid_value(list, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

const RULES_NEED_A_POLICY: &str = "must specify restartPolicy when restart rules are used";

fn restart_policy(container: &Cursor<'_>, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_absent() {
        if !rules.is_empty() {
            errors.required(&policy, RULES_NEED_A_POLICY);
        }
    } else {
        checks::one_of(&policy, &["Always", "Never", "OnFailure"], false, errors);
    }
    if rules.len() > 20 {
        errors.too_many(&rules, rules.len(), 20);
    }
    for rule in rules.items() {
        let (action, codes) = (rule.get("action"), rule.get("exitCodes"));
        if !matches!(action.str(), "Restart" | "RestartAllContainers") {
            errors.not_supported(&action, action.str(), &["Restart", "RestartAllContainers"]);
        }
        if codes.is_absent() {
            errors.required(&codes, "must be specified");
            continue;
        }
        let operator = codes.get("operator");
        if !matches!(operator.str(), "In" | "NotIn") {
            errors.not_supported(&operator, operator.str(), &["In", "NotIn"]);
        }
        let values = codes.get("values");
        if values.len() > 255 {
            errors.too_many(&values, values.len(), 255);
        }
    }
}

/// Lifecycle and probes, of what runs as long as the pod.
fn runtime(container: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"].map(|f| lifecycle.get(f)).iter().filter(|h| h.is_present()) {
        handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], rules, errors);
    }
    let signal = lifecycle.get("stopSignal");
    if signal.is_present() {
        match rules.os {
            "" => errors.forbidden(&signal, "may not be set for containers with empty `spec.os.name`"),
            "windows" => checks::one_of(&signal, &["SIGKILL", "SIGTERM"], false, errors),
            _ => checks::one_of(&signal, SIGNALS, false, errors),
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let found = container.get(field);
        if found.is_absent() {
            continue;
        }
        probe(&found, rules, errors);
        let (threshold, grace) = (found.get("successThreshold"), found.get("terminationGracePeriodSeconds"));
        if field == "readinessProbe" {
            if grace.is_present() {
                errors.invalid(&grace, "must not be set for readinessProbes");
            }
        } else if threshold.int() != 1 {
            errors.invalid_value(&threshold, threshold.int(), "must be 1");
        }
    }
}

fn probe(probe: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], rules, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        meta::not_negative(&probe.get(field), errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.opt_int().is_some_and(|s| s <= 0) {
        errors.invalid(&grace, "must be greater than 0");
    }
}

fn handler(handler: &Cursor<'_>, kinds: &[&'static str], rules: &Rules<'_>, errors: &mut Errors) {
    let mut found = 0;
    for kind in kinds {
        let action = handler.get(kind);
        if action.is_absent() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                if action.get("command").is_empty() {
                    errors.required(action.get("command"), "");
                }
            }
            "httpGet" => http_get(&action, errors),
            "sleep" => {
                let seconds = action.get("seconds").int();
                if let Some(grace) = rules.grace
                    && !(0..=grace).contains(&seconds)
                {
                    errors.invalid_value(
                        &action,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    );
                }
            }
            _ => checks::port(&action.get("port"), errors),
        }
    }
    if found == 0 {
        errors.required(handler, "must specify a handler type");
    }
}

fn http_get(action: &Cursor<'_>, errors: &mut Errors) {
    if action.get("path").is_empty() {
        errors.required(action.get("path"), "");
    }
    checks::port(&action.get("port"), errors);
    let scheme = action.get("scheme");
    if !matches!(scheme.str(), "HTTP" | "HTTPS") {
        errors.not_supported(&scheme, scheme.str(), &["HTTP", "HTTPS"]);
    }
    for header in action.get("httpHeaders").items() {
        for message in checks::http_header(header.get("name").str()) {
            errors.invalid_value(action.get("httpHeaders"), header.get("name").str(), message);
        }
    }
}

/// No two containers may have one host port.
fn host_ports(list: &Cursor<'_>, at: &Cursor<'_>, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (i, container) in list.items().enumerate() {
        host_ports_of(at, &container, i, &mut taken, errors);
    }
}

/// `index` is where upstream says the container is: for init containers always the first.
fn host_ports_of(
    list: &Cursor<'_>,
    container: &Cursor<'_>,
    index: usize,
    taken: &mut HashSet<String>,
    errors: &mut Errors,
) {
    for (i, port) in container.get("ports").items().enumerate() {
        let number = port.get("hostPort").int();
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.get("protocol").str(), port.get("hostIP").str());
        if taken.contains(&key) {
            errors.add(ErrorKind::Duplicate, format!("{list}[{index}].ports[{i}].hostPort"), key, "");
        } else {
            taken.insert(key);
        }
    }
}
