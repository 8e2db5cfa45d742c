//! Pods from a directory of the node, and the API objects that stand for them.

use crate::config::KubeletConfig;
use crate::notices::Notices;
use crate::pod::spec::{
    CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_SEEN_ANNOTATION, CONFIG_SOURCE_ANNOTATION, annotation,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodStatus, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference};
use pintle_client::Client;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Without notices from the kernel the directory is read so often.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// The default pull policy of an image: that of `latest` is to look for a newer one.
fn pull_policy(image: &str) -> &'static str {
    let name = image.split('@').next().unwrap_or_default();
    let tag = name.rsplit_once(':').filter(|(_, t)| !t.contains('/')).map(|(_, t)| t);
    if image.contains('@') || tag.is_some_and(|t| t != "latest") { "IfNotPresent" } else { "Always" }
}

/// Reads one manifest.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, path: &Path, config: &KubeletConfig, now: Timestamp) -> Result<Pod, String> {
    let mut pod: Pod = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let Some(spec) = &mut pod.spec else { return Err("invalid pod: it has no spec".into()) };
    if spec.containers.is_empty() {
        return Err("invalid pod: spec.containers: Required value".into());
    }
    let node = config.node_name.to_lowercase();
    let defaults = |c: &mut Container| {
        let policy = pull_policy(c.image.as_deref().unwrap_or_default());
        c.image_pull_policy.get_or_insert_with(|| policy.into());
        c.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        c.termination_message_policy.get_or_insert_with(|| "File".into());
    };
    spec.containers.iter_mut().for_each(defaults);
    spec.init_containers.iter_mut().flatten().for_each(defaults);
    spec.node_name = Some(config.node_name.clone());
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    // Nothing evicts it but its file's removal.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    });
    let meta = &mut pod.metadata;
    let Some(name) = meta.name.take().filter(|n| !n.is_empty()) else {
        return Err("invalid pod: metadata.name: Required value".into());
    };
    meta.name = Some(format!("{name}-{node}"));
    meta.namespace.get_or_insert_with(|| "default".into());
    let mut hash = Sha256::new();
    for part in [config.node_name.as_bytes(), path.as_os_str().as_encoded_bytes(), text.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    let uid = hash.finalize().iter().take(16).fold(String::new(), |s, b| s + &format!("{b:02x}"));
    let notes = meta.annotations.get_or_insert_default();
    notes.insert(CONFIG_HASH_ANNOTATION.into(), uid.clone());
    notes.insert(CONFIG_SOURCE_ANNOTATION.into(), "file".into());
    notes.insert(CONFIG_SEEN_ANNOTATION.into(), now.to_string());
    meta.uid = Some(uid);
    meta.creation_timestamp.get_or_insert_with(|| pintle_client::clock::time(now));
    pod.status = Some(PodStatus { phase: Some("Pending".into()), ..Default::default() });
    Ok(pod)
}

/// The pods of a directory, by uid. Files that are no pods are left out and logged.
fn read(dir: &Path, config: &KubeletConfig, now: Timestamp) -> BTreeMap<String, Arc<Pod>> {
    let mut out = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) => {
            if e.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(dir = %dir.display(), error = %e, "cannot read the static pods");
            }
            return out;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || !path.is_file() {
            continue;
        }
        let read = std::fs::read_to_string(&path).map_err(|e| e.to_string());
        match read.and_then(|text| parse(&text, &path, config, now)) {
            Ok(pod) => {
                out.insert(pod.metadata.uid.clone().unwrap_or_default(), Arc::new(pod));
            }
            Err(error) => tracing::warn!(file = %path.display(), error, "the static pod is not usable"),
        }
    }
    out
}

/// Sends the directory's pods whenever they changed. Ends with the receiver.
pub async fn follow(config: Arc<KubeletConfig>, tx: mpsc::UnboundedSender<BTreeMap<String, Arc<Pod>>>) {
    let Some(dir) = config.static_pod_path.clone() else { return };
    let mut notices = Notices::of_directory(&dir);
    if let Err(e) = &notices {
        tracing::warn!(dir = %dir.display(), error = %e, "no notices of changes; the directory is read from time to time");
    }
    let mut last: Option<Vec<String>> = None;
    loop {
        let pods = read(&dir, &config, Timestamp::now());
        let uids: Vec<String> = pods.keys().cloned().collect();
        if last.as_ref() != Some(&uids) {
            last = Some(uids);
            if tx.send(pods).is_err() {
                return;
            }
        }
        let told = match &mut notices {
            Ok(notices) => notices.wait().await.is_ok(),
            Err(_) => false,
        };
        if !told {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether this API object stands for this static pod as it is now.
#[must_use]
pub fn stands_for(mirror: &Pod, pod: &Pod) -> bool {
    mirror.metadata.deletion_timestamp.is_none()
        && annotation(mirror, CONFIG_MIRROR_ANNOTATION) == annotation(pod, CONFIG_HASH_ANNOTATION)
}

/// Makes the API object that stands for a static pod, in place of an outdated one. Tries until it works or the pod is
/// gone.
pub async fn make_mirror(client: Client, node_name: String, pod: Arc<Pod>, wanted: impl Fn() -> bool) {
    let pods = client.of::<Pod>();
    let mut mirror = (*pod).clone();
    let meta = &mut mirror.metadata;
    meta.uid = None;
    meta.creation_timestamp = None;
    let hash = annotation(&pod, CONFIG_HASH_ANNOTATION).unwrap_or_default().to_string();
    meta.annotations.get_or_insert_default().insert(CONFIG_MIRROR_ANNOTATION.into(), hash);
    mirror.status = None;
    let (ns, name) =
        (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
    let mut retry = Duration::from_millis(200);
    while wanted() {
        let outcome = async {
            let owner = client.of::<Node>().get("", &node_name).await?;
            mirror.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node_name.clone(),
                uid: owner.metadata.uid.unwrap_or_default(),
                controller: Some(true),
                ..Default::default()
            }]);
            match pods.create(&mirror).await {
                Err(e) if e.is_already_exists() => {
                    let there = pods.get(&ns, &name).await?;
                    if stands_for(&there, &pod) {
                        return Ok(true);
                    }
                    delete_mirror(&client, &there).await?;
                    Ok(false)
                }
                Err(e) => Err(e),
                Ok(_) => Ok(true),
            }
        };
        match outcome.await {
            Ok(true) => return,
            Ok(false) => {}
            Err(e) if e.is_invalid() || e.is_forbidden() => {
                tracing::warn!(pod = name, error = %e, "the API refuses the static pod");
                return;
            }
            Err(e) => tracing::debug!(pod = name, error = %e, "cannot make the static pod's object yet"),
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(Duration::from_secs(10));
    }
}

/// Deletes an API object that stands for no static pod any more.
///
/// # Errors
/// As the API fails; that it is gone is no error.
pub async fn delete_mirror(client: &Client, mirror: &Pod) -> Result<(), pintle_client::Error> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let m = &mirror.metadata;
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions {
            uid: m.uid.clone(),
            resource_version: None,
        }),
        ..Default::default()
    };
    match client.of::<Pod>().delete_with(&text(&m.namespace), &text(&m.name), &options).await {
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    #[test]
    fn manifests() {
        let config = KubeletConfig { node_name: "N1".into(), ..Default::default() };
        let parse = |text: &str| parse(text, Path::new("/m/p.yaml"), &config, Timestamp::UNIX_EPOCH);
        let text = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: x}]}}";
        let p = parse(text).unwrap();
        assert_eq!(spec::PodRef::of(&p).name, "web-n1");
        assert_eq!(p.metadata.namespace.as_deref(), Some("default"));
        assert!(spec::is_static(&p) && !spec::is_mirror(&p));
        assert_eq!(spec::spec(&p).containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_ne!(parse(&text.replace('x', "y")).unwrap().metadata.uid, p.metadata.uid);
        let mut mirror = p.clone();
        assert!(!stands_for(&mirror, &p));
        let hash = p.metadata.uid.clone().unwrap();
        mirror.metadata.annotations.as_mut().unwrap().insert(CONFIG_MIRROR_ANNOTATION.into(), hash);
        assert!(stands_for(&mirror, &p));
        assert!(parse("{metadata: {name: x}, spec: {containers: []}}").is_err());
        assert!(parse("{metadata: {}, spec: {containers: [{name: c}]}}").is_err());
        assert!(parse("[").is_err());
        for (image, want) in [
            ("x", "Always"),
            ("x:latest", "Always"),
            ("x:1", "IfNotPresent"),
            ("h:5000/x", "Always"),
            ("x@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }
}
