//! The files of configMap, secret, downwardAPI and projected volumes. Pure.

use super::atomic::{File, Payload};
use crate::pod::spec;
use crate::translate::env::Objects;
use crate::translate::fields::{Addresses, pod_field, resource_field};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, KeyToPath, Pod, SecretProjection, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// A token to mount: its audiences, its life in seconds, its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenSource {
    /// For whom; empty is the API server.
    pub audience: String,
    /// For how long.
    pub expiration_seconds: i64,
}

/// What [`payload`] looks at.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Tokens.
    pub tokens: BTreeMap<TokenSource, String>,
    /// Addresses.
    pub addresses: Addresses,
    /// What the node has for pods.
    pub allocatable: Option<&'a BTreeMap<String, Quantity>>,
}

const DEFAULT_MODE: i32 = 0o644;

fn mode(m: Option<i32>, or: i32) -> u32 {
    u32::try_from(m.unwrap_or(or)).unwrap_or(0o644) & 0o777
}

/// The token sources of a volume.
pub fn token_sources(v: &Volume) -> impl Iterator<Item = (TokenSource, &str)> {
    let sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref()).map(|t| {
        let source = TokenSource {
            audience: t.audience.clone().unwrap_or_default(),
            expiration_seconds: t.expiration_seconds.unwrap_or(3600),
        };
        (source, t.path.as_str())
    })
}

/// The names of the ConfigMaps (`true`) and Secrets (`false`) a volume reads.
pub fn references(v: &Volume) -> Vec<(bool, String)> {
    let mut out = vec![];
    out.extend(v.config_map.as_ref().map(|c| (true, c.name.clone())));
    out.extend(v.secret.as_ref().and_then(|s| s.secret_name.clone()).map(|n| (false, n)));
    for s in v.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        out.extend(s.config_map.as_ref().map(|c| (true, c.name.clone())));
        out.extend(s.secret.as_ref().map(|s| (false, s.name.clone())));
    }
    out
}

/// Picks the keys that `items` names, or all.
fn pick(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    optional: bool,
    default_mode: i32,
    kind: &str,
) -> Result<Payload, String> {
    let file = |data: Vec<u8>, m: Option<i32>| File { data, mode: mode(m, default_mode), owner: None };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(k, v)| (k, file(v, None))).collect());
    };
    let mut out = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(v) => {
                out.insert(item.path.clone(), file(v.clone(), item.mode));
            }
            None if optional => {}
            None => {
                return Err(match kind {
                    "configmap" => format!("configmap references non-existent config key: {}", item.key),
                    _ => format!("references non-existent secret key: {}", item.key),
                });
            }
        }
    }
    Ok(out)
}

fn config_map(from: &Objects, p: &ConfigMapProjection, default_mode: i32) -> Result<Payload, String> {
    let optional = p.optional == Some(true);
    let Some(map) = from.config_maps.get(&p.name) else {
        return if optional { Ok(Payload::new()) } else { Err(format!("configmap {:?} not found", p.name)) };
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    pick(text.chain(binary).collect(), p.items.as_ref(), optional, default_mode, "configmap")
}

fn secret(from: &Objects, p: &SecretProjection, default_mode: i32) -> Result<Payload, String> {
    let optional = p.optional == Some(true);
    let Some(s) = from.secrets.get(&p.name) else {
        return if optional { Ok(Payload::new()) } else { Err(format!("secret {:?} not found", p.name)) };
    };
    let data = s.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    pick(data.collect(), p.items.as_ref(), optional, default_mode, "secret")
}

fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    from: &Sources<'_>,
) -> Result<Payload, String> {
    let none = BTreeMap::new();
    let mut out = Payload::new();
    for item in items {
        let value = if let Some(f) = &item.field_ref {
            pod_field(pod, &f.field_path, &from.addresses)?
        } else if let Some(f) = &item.resource_field_ref {
            // The container is always named here.
            resource_field(pod, &Container::default(), f, from.allocatable.unwrap_or(&none))?
        } else {
            continue;
        };
        out.insert(
            item.path.clone(),
            File { data: value.into_bytes(), mode: mode(item.mode, default_mode), owner: None },
        );
    }
    Ok(out)
}

/// The one user all containers run as, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = spec::spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = spec::containers(pod)
        .filter(|(kind, _)| *kind != spec::Kind::Ephemeral)
        .map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok())?
}

fn projection(pod: &Pod, s: &VolumeProjection, default_mode: i32, from: &Sources<'_>) -> Result<Payload, String> {
    if let Some(p) = &s.config_map {
        return config_map(&from.objects, p, default_mode);
    }
    if let Some(p) = &s.secret {
        return secret(&from.objects, p, default_mode);
    }
    if let Some(p) = &s.downward_api {
        return downward(pod, p.items.as_deref().unwrap_or_default(), default_mode, from);
    }
    if let Some(t) = &s.service_account_token {
        let source = TokenSource {
            audience: t.audience.clone().unwrap_or_default(),
            expiration_seconds: t.expiration_seconds.unwrap_or(3600),
        };
        let token = from.tokens.get(&source).ok_or("the token is not known")?;
        let owner = common_user(pod);
        // Nobody else reads it where it is known who must.
        let restricted = owner.is_some() || super::fs_group(pod).is_some();
        let mode = if restricted { 0o600 } else { mode(None, default_mode) };
        return Ok([(t.path.clone(), File { data: token.clone().into_bytes(), mode, owner })].into());
    }
    Err("unsupported projected volume source".into())
}

/// The files of a volume that is written as a whole; `None` for other volumes.
///
/// # Errors
/// What is missing, in upstream's words.
pub fn payload(pod: &Pod, v: &Volume, from: &Sources<'_>) -> Option<Result<Payload, String>> {
    if let Some(s) = &v.config_map {
        let p = ConfigMapProjection { items: s.items.clone(), name: s.name.clone(), optional: s.optional };
        return Some(config_map(&from.objects, &p, s.default_mode.unwrap_or(DEFAULT_MODE)));
    }
    if let Some(s) = &v.secret {
        let name = s.secret_name.clone().unwrap_or_default();
        let p = SecretProjection { items: s.items.clone(), name, optional: s.optional };
        return Some(secret(&from.objects, &p, s.default_mode.unwrap_or(DEFAULT_MODE)));
    }
    if let Some(s) = &v.downward_api {
        let items = s.items.as_deref().unwrap_or_default();
        return Some(downward(pod, items, s.default_mode.unwrap_or(DEFAULT_MODE), from));
    }
    let s = v.projected.as_ref()?;
    let mut all = Payload::new();
    for source in s.sources.iter().flatten() {
        match projection(pod, source, s.default_mode.unwrap_or(DEFAULT_MODE), from) {
            Ok(more) => all.extend(more),
            Err(e) => return Some(Err(e)),
        }
    }
    Some(Ok(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use std::sync::Arc;

    fn check(pod_extra: &str, volume: &str, want: Result<&str, &str>) {
        let p = pod(&format!(
            "{{metadata: {{labels: {{a: b}}}}, spec: {{{pod_extra} containers: [{{name: c, resources: {{limits: {{cpu: '1'}}}}}}], volumes: [{{name: v, {volume}}}]}}}}"
        ));
        let map = serde_json::from_str(r#"{"data": {"k": "v", "l": "w"}, "binaryData": {"b": "AAE="}}"#).unwrap();
        let sec = serde_json::from_str(r#"{"data": {"s": "aGk="}}"#).unwrap();
        let token = TokenSource { audience: String::new(), expiration_seconds: 3607 };
        let from = Sources {
            objects: Objects {
                config_maps: [("cm".into(), Arc::new(map))].into(),
                secrets: [("sec".into(), Arc::new(sec))].into(),
            },
            tokens: [(token, "tok".to_string())].into(),
            ..Default::default()
        };
        let got = payload(&p, &spec::spec(&p).volumes.as_ref().unwrap()[0], &from).unwrap().map(|files| {
            let one = |(k, f): (&String, &File)| {
                format!("{k}={}:{:o}", String::from_utf8_lossy(&f.data).escape_default(), f.mode)
            };
            files.iter().map(one).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(got.as_deref().map_err(String::as_str), want, "{volume}");
    }

    #[test]
    fn contents() {
        check("", "configMap: {name: cm}", Ok("b=\\u{0}\\u{1}:644 k=v:644 l=w:644"));
        check(
            "",
            "configMap: {name: cm, defaultMode: 256, items: [{key: k, path: x/y, mode: 384}, {key: l, path: z}]}",
            Ok("x/y=v:600 z=w:400"),
        );
        check(
            "",
            "configMap: {name: cm, items: [{key: no, path: x}]}",
            Err("configmap references non-existent config key: no"),
        );
        check("", "configMap: {name: no}", Err("configmap \"no\" not found"));
        check("", "configMap: {name: no, optional: true}", Ok(""));
        check("", "secret: {secretName: sec}", Ok("s=hi:644"));
        check(
            "",
            "secret: {secretName: sec, items: [{key: no, path: x}]}",
            Err("references non-existent secret key: no"),
        );
        check(
            "",
            "downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}, {path: c, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}]}",
            Ok("c=1000:644 l=a=\\\"b\\\":644"),
        );
        let projected = "projected: {sources: [{secret: {name: sec}}, {configMap: {name: cm, items: [{key: k, path: k}]}}, {serviceAccountToken: {path: token, expirationSeconds: 3607}}]}";
        check("", projected, Ok("k=v:644 s=hi:644 token=tok:644"));
        check("securityContext: {fsGroup: 5},", projected, Ok("k=v:644 s=hi:644 token=tok:600"));
        check("", "projected: {sources: [{secret: {name: no}}]}", Err("secret \"no\" not found"));
    }
}
