//! A container's environment.

use super::env_file;
use super::expand::expand;
use super::fields::{Addresses, pod_field, resource_field};
use crate::pod::spec;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pintle_runtime::KeyValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects a pod refers to, by name; absent ones do not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// What [`environment`] looks at besides the pod.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// The texts of files, by volume and path; what hindered their reading. Absent ones do not exist.
    pub files: BTreeMap<(String, String), Result<String, String>>,
    /// Variables of services.
    pub services: BTreeMap<String, String>,
    /// Addresses.
    pub addresses: Addresses,
    /// What the node has for pods.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Variables in the order in which they were given.
#[derive(Default)]
struct Vars(Vec<KeyValue>);

impl Vars {
    fn set(&mut self, key: &str, value: String) {
        match self.0.iter_mut().find(|kv| kv.key == key) {
            Some(kv) => kv.value = value,
            None => self.0.push(KeyValue { key: key.into(), value }),
        }
    }
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|kv| kv.key == key).map(|kv| kv.value.as_str())
    }
}

/// Whether a name may name a variable: printable ASCII without `=`.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

/// The environment, and what to tell the user of names that had to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The variables.
    pub vars: Vec<KeyValue>,
    /// Messages of `InvalidEnvironmentVariableNames` events.
    pub skipped: Vec<String>,
}

/// The environment of a container.
///
/// # Errors
/// What is missing or wrong, in upstream's words; the container cannot be made.
pub fn environment(pod: &Pod, c: &Container, from: &Sources) -> Result<Environment, String> {
    let ns = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut vars = Vars::default();
    let mut skipped = vec![];
    for source in c.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (what, name, values): (_, _, Vec<(String, String)>) = if let Some(r) = &source.config_map_ref {
            let Some(map) = from.objects.config_maps.get(&r.name) else {
                if r.optional == Some(true) {
                    continue;
                }
                return Err(format!("configmap {:?} not found", r.name));
            };
            ("configMap", &r.name, map.data.clone().unwrap_or_default().into_iter().collect())
        } else if let Some(r) = &source.secret_ref {
            let Some(secret) = from.objects.secrets.get(&r.name) else {
                if r.optional == Some(true) {
                    continue;
                }
                return Err(format!("secret {:?} not found", r.name));
            };
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            let data = secret.data.iter().flatten();
            ("secret", &r.name, data.map(|(k, v)| (k.clone(), text(&v.0))).collect())
        } else {
            continue;
        };
        let mut invalid = vec![];
        for (k, v) in values {
            let key = format!("{prefix}{k}");
            if valid_name(&key) {
                vars.set(&key, v);
            } else {
                invalid.push(key);
            }
        }
        if !invalid.is_empty() {
            skipped.push(format!(
                "Keys [{}] from the EnvFrom {what} {ns}/{name} were skipped since they are considered invalid \
                 environment variable names.",
                invalid.join(", ")
            ));
        }
    }
    for e in c.env.iter().flatten() {
        if let Some(value) = value_of(pod, c, e, from, &vars)? {
            vars.set(&e.name, value);
        }
    }
    for (k, v) in &from.services {
        if vars.get(k).is_none() {
            vars.set(k, v.clone());
        }
    }
    Ok(Environment { vars: vars.0, skipped })
}

/// The value of one variable; `None` leaves it out.
fn value_of(pod: &Pod, c: &Container, e: &EnvVar, from: &Sources, vars: &Vars) -> Result<Option<String>, String> {
    if let Some(value) = e.value.as_deref().filter(|v| !v.is_empty()) {
        let get = |name: &str| vars.get(name).map(String::from).or_else(|| from.services.get(name).cloned());
        return Ok(Some(expand(value, get)));
    }
    match &e.value_from {
        Some(source) => sourced(pod, c, source, from),
        None => Ok(Some(String::new())),
    }
}

fn sourced(pod: &Pod, c: &Container, source: &EnvVarSource, from: &Sources) -> Result<Option<String>, String> {
    let ns = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(f) = &source.field_ref {
        return pod_field(pod, &f.field_path, &from.addresses).map(Some);
    }
    if let Some(f) = &source.resource_field_ref {
        return resource_field(pod, c, f, &from.allocatable).map(Some);
    }
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(map) = from.objects.config_maps.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap {:?} not found", r.name)) };
        };
        return match map.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(v.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {ns}/{}", r.key, r.name)),
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(secret) = from.objects.secrets.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("secret {:?} not found", r.name)) };
        };
        return match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(String::from_utf8_lossy(&v.0).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {ns}/{}", r.key, r.name)),
        };
    }
    if let Some(r) = &source.file_key_ref {
        let optional = r.optional == Some(true);
        let Some(text) = from.files.get(&(r.volume_name.clone(), r.path.clone())) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("file {:?} not found in volume {:?}", r.path, r.volume_name))
            };
        };
        let value = text.as_ref().map_err(Clone::clone).and_then(|text| env_file::value(text, &r.key));
        return match value.map_err(|e| format!("couldn't read file {:?} of volume {:?}: {e}", r.path, r.volume_name))? {
            None if !optional => Err(format!("environment variable key {:?} not found in file {:?}", r.key, r.path)),
            value => Ok(value),
        };
    }
    Err("invalid valueFrom: no supported source is set".into())
}

/// Command and arguments with their references replaced.
#[must_use]
pub fn command_and_args(c: &Container, env: &[KeyValue]) -> (Vec<String>, Vec<String>) {
    let get = |name: &str| env.iter().find(|kv| kv.key == name).map(|kv| kv.value.clone());
    let all = |list: &Option<Vec<String>>| list.iter().flatten().map(|s| expand(s, get)).collect();
    (all(&c.command), all(&c.args))
}

/// Whether the pod wants variables for its namespace's services.
#[must_use]
pub fn service_links(pod: &Pod) -> bool {
    spec::spec(pod).enable_service_links.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn sources() -> Sources {
        let map: ConfigMap = serde_saphyr::from_str("{data: {a: '1', 'b=c': '2'}}").unwrap();
        let secret: Secret = serde_json::from_str(r#"{"data": {"s": "aGk="}}"#).unwrap();
        Sources {
            objects: Objects {
                config_maps: [("cm".into(), Arc::new(map))].into(),
                secrets: [("sec".into(), Arc::new(secret))].into(),
            },
            files: [
                (("v".into(), "a.env".into()), Ok("F='1'\n".into())),
                (("v".into(), "bad".into()), Ok("F=1".into())),
                (("v".into(), "dir".into()), Err("not a regular file".into())),
            ]
            .into(),
            services: [("DB_HOST".to_string(), "10.0.0.1".to_string()), ("X".into(), "svc".into())].into(),
            addresses: Addresses::default(),
            allocatable: BTreeMap::new(),
        }
    }

    fn check(container: &str, want: Result<&[&str], &str>) -> Environment {
        let p = pod(&format!("spec: {{containers: [{{name: c, {container}}}]}}"));
        let got = environment(&p, &spec::spec(&p).containers[0], &sources());
        let shown = got.as_ref().map(|e| e.vars.iter().map(|v| format!("{}={}", v.key, v.value)).collect::<Vec<_>>());
        let want = want.map(|w| w.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shown.map_err(String::as_str), want, "{container}");
        got.unwrap_or_default()
    }

    #[test]
    fn environments() {
        check(
            "env: [{name: A, value: x}, {name: B, value: $(A)-$(DB_HOST)-$(NO)}]",
            Ok(&["A=x", "B=x-10.0.0.1-$(NO)", "DB_HOST=10.0.0.1", "X=svc"]),
        );
        check("env: [{name: X, value: own}, {name: E}]", Ok(&["X=own", "E=", "DB_HOST=10.0.0.1"]));
        let e = check(
            "envFrom: [{prefix: P_, configMapRef: {name: cm}}, {secretRef: {name: sec}}], env: [{name: s, value: over}]",
            Ok(&["P_a=1", "s=over", "DB_HOST=10.0.0.1", "X=svc"]),
        );
        assert_eq!(
            e.skipped,
            [
                "Keys [P_b=c] from the EnvFrom configMap ns/cm were skipped since they are considered invalid environment variable names.",
            ]
        );
        let rest = ["DB_HOST=10.0.0.1", "X=svc"];
        check("envFrom: [{configMapRef: {name: no, optional: true}}]", Ok(&rest));
        check("envFrom: [{configMapRef: {name: no}}]", Err("configmap \"no\" not found"));
        let from = |s: &str| format!("env: [{{name: A, valueFrom: {{{s}}}}}]");
        check(&from("secretKeyRef: {name: sec, key: s}"), Ok(&["A=hi", "DB_HOST=10.0.0.1", "X=svc"]));
        check(&from("secretKeyRef: {name: sec, key: z}"), Err("couldn't find key z in Secret ns/sec"));
        check(&from("secretKeyRef: {name: sec, key: z, optional: true}"), Ok(&rest));
        check(&from("configMapKeyRef: {name: cm, key: z}"), Err("couldn't find key z in ConfigMap ns/cm"));
        check(&from("secretKeyRef: {name: no, key: z}"), Err("secret \"no\" not found"));
        let file = |rest: &str| from(&format!("fileKeyRef: {{volumeName: v, {rest}}}"));
        check(&file("path: a.env, key: F"), Ok(&["A=1", "DB_HOST=10.0.0.1", "X=svc"]));
        check(&file("path: a.env, key: G, optional: true"), Ok(&rest));
        check(&file("path: a.env, key: G"), Err("environment variable key \"G\" not found in file \"a.env\""));
        check(&file("path: no, key: F, optional: true"), Ok(&rest));
        check(&file("path: no, key: F"), Err("file \"no\" not found in volume \"v\""));
        check(&file("path: dir, key: F"), Err("couldn't read file \"dir\" of volume \"v\": not a regular file"));
        check(
            &file("path: bad, key: F, optional: true"),
            Err(
                "couldn't read file \"bad\" of volume \"v\": invalid environment variable format at line 1: value must be enclosed in single quotes",
            ),
        );
        check(&from("fieldRef: {fieldPath: metadata.name}"), Ok(&["A=p", "DB_HOST=10.0.0.1", "X=svc"]));
    }

    #[test]
    fn commands() {
        let c: Container = serde_saphyr::from_str("{name: c, command: [sh, $(A)], args: ['$$(A)', $(B)]}").unwrap();
        let env = [KeyValue { key: "A".into(), value: "1".into() }];
        assert_eq!(command_and_args(&c, &env), (vec!["sh".into(), "1".into()], vec!["$(A)".into(), "$(B)".into()]));
    }
}
