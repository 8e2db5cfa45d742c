//! ControllerRevisions: the versions of a template that a DaemonSet or StatefulSet had.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use pintle_client::informers::{BY_CONTROLLER, View};
use pintle_client::meta::MetaOnly;
use pintle_client::typed::decode;
use pintle_client::{Client, Error, Informer, Informers, UnlessGone};
use serde_json::{Value, json};

use crate::support::hash;

/// Label of pods and revisions that names the version.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// Whose history it is.
#[derive(Clone, Debug)]
pub struct Owner<'a> {
    /// The reference that revisions carry.
    pub reference: OwnerReference,
    /// Namespace.
    pub namespace: &'a str,
    /// How often a revision's name collided.
    pub collisions: Option<i32>,
}

/// What a revision records: the template, to be put in place of another.
#[must_use]
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// Hash of what a revision records.
#[must_use]
pub fn data_hash(data: &Value, collisions: Option<i32>) -> String {
    // Maps are sorted, so the text is stable.
    hash::of_value(data.to_string().as_bytes(), collisions)
}

/// The template a revision records.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions there are.
#[derive(Debug)]
pub struct Revisions {
    objects: Informer,
    /// Who owns them.
    pub metas: View<MetaOnly>,
}

impl Revisions {
    /// Follows the revisions of everybody.
    #[must_use]
    pub fn new(informers: &Informers) -> Self {
        Self { objects: informers.of::<ControllerRevision>(), metas: informers.view::<ControllerRevision, MetaOnly>() }
    }

    /// The revisions an owner has, by number.
    ///
    /// # Errors
    /// When one does not decode.
    pub fn of_owner(&self, uid: &str) -> Result<Vec<ControllerRevision>, Error> {
        let metas = self.metas.by_index(BY_CONTROLLER, uid);
        let objects = metas.iter().filter_map(|m| self.objects.get(&m.metadata.key()));
        let mut all: Vec<ControllerRevision> = objects.map(|o| decode(&o)).collect::<Result<_, _>>()?;
        all.sort_by(|a, b| {
            a.revision.cmp(&b.revision).then_with(|| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp))
        });
        Ok(all)
    }
}

/// A new revision of a template.
#[must_use]
pub fn new_revision(owner: &Owner<'_>, template: &PodTemplateSpec, revision: i64) -> ControllerRevision {
    let data = data(template);
    let hash = data_hash(&data, owner.collisions);
    let mut labels: BTreeMap<String, String> =
        template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert("controller.kubernetes.io/hash".into(), hash.clone());
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.reference.name)),
            namespace: Some(owner.namespace.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// What syncing a history comes to.
#[derive(Debug)]
pub enum Synced {
    /// This is the revision of the template now.
    Current(Box<ControllerRevision>),
    /// The new revision's name was taken by another template: count a collision and try again.
    Collision,
}

/// Finds or makes the revision of a template, and makes it the newest.
///
/// # Errors
/// As the API or the connection fails.
pub async fn sync(
    client: &Client,
    owner: &Owner<'_>,
    template: &PodTemplateSpec,
    all: &[ControllerRevision],
) -> Result<Synced, Error> {
    let next = all.last().map_or(1, |r| r.revision.saturating_add(1));
    let wanted = data(template);
    let api = client.of::<ControllerRevision>();
    if let Some(same) = all.iter().rev().find(|r| r.data.as_ref().is_some_and(|d| d.0 == wanted)) {
        let mut same = same.clone();
        if same.revision < next.saturating_sub(1) {
            same.revision = next;
            same = api.update(&same).await?;
        }
        return Ok(Synced::Current(Box::new(same)));
    }
    let new = new_revision(owner, template, next);
    match api.create(&new).await {
        Ok(made) => Ok(Synced::Current(Box::new(made))),
        Err(e) if e.is_already_exists() => {
            let there: ControllerRevision =
                api.get(owner.namespace, new.metadata.name.as_deref().unwrap_or_default()).await?;
            let ours = there.metadata.owner_references.iter().flatten().any(|o| o.uid == owner.reference.uid);
            if ours && there.data == new.data { Ok(Synced::Current(Box::new(there))) } else { Ok(Synced::Collision) }
        }
        Err(e) => Err(e),
    }
}

/// Deletes the oldest revisions beyond a limit, those in use aside.
///
/// # Errors
/// As the API or the connection fails.
pub async fn truncate(
    client: &Client,
    all: &[ControllerRevision],
    limit: i32,
    used: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), Error> {
    let idle: Vec<&ControllerRevision> = all.iter().filter(|r| !used(r)).collect();
    let excess = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in &idle[..excess] {
        let m = &revision.metadata;
        let (namespace, name) = (m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default());
        client.of::<ControllerRevision>().delete(namespace, name, m.uid.as_deref()).await.unless_gone()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_a_template() {
        let template: PodTemplateSpec = serde_json::from_value(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let owner = Owner {
            reference: OwnerReference { name: "web".into(), ..OwnerReference::default() },
            namespace: "n",
            collisions: None,
        };
        let r = new_revision(&owner, &template, 3);
        assert_eq!(super::template(&r), Some(template.clone()));
        let hash = &r.metadata.labels.as_ref().unwrap()[HASH_LABEL];
        assert_eq!(r.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
        assert_eq!(r.metadata.labels.as_ref().unwrap()["a"], "b");
        let other = new_revision(&Owner { collisions: Some(1), ..owner }, &template, 3);
        assert_ne!(r.metadata.name, other.metadata.name);
    }
}
