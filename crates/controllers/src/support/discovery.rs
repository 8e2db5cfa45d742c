//! Which resources the API serves now.

use pintle_api::resources::Resource;
use pintle_client::{Client, Discovered, Error, intern};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

/// A group as `/apis` and `/apis/GROUP` tell of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    preferred_version: Version,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

impl Group {
    /// The path of its preferred version.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/apis/{}", self.preferred_version.group_version)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    group_version: String,
    #[serde(default)]
    resources: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// What discovery found, and the group-versions that could not be asked.
#[derive(Debug, Default)]
pub struct Served {
    /// Resources in each group's preferred version, without sub-resources.
    pub resources: Vec<&'static Resource>,
    /// Group-versions that failed, and why.
    pub failed: Vec<(String, String)>,
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Error> {
    let body = client.get_path(path).await?;
    serde_json::from_slice(&body).map_err(|e| Error::decode(format!("discovery at {path}"), e))
}

/// Asks for the preferred version of every group.
///
/// # Errors
/// When the groups cannot be listed.
pub async fn preferred(client: &Client) -> Result<Served, Error> {
    let groups: Groups = get(client, "/apis").await?;
    let mut paths = vec!["/api/v1".to_owned()];
    paths.extend(groups.groups.iter().map(Group::path));
    let mut out = Served::default();
    for path in paths {
        let list: ResourceList = match get(client, &path).await {
            Ok(list) => list,
            Err(e) => {
                out.failed.push((path.rsplit_once("/apis/").map_or("v1", |(_, gv)| gv).to_owned(), e.to_string()));
                continue;
            }
        };
        let (group, version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
        for r in list.resources.into_iter().filter(|r| !r.name.contains('/')) {
            out.resources.push(intern(&Discovered {
                group: group.into(),
                version: version.into(),
                resource: r.name,
                kind: r.kind,
                namespaced: r.namespaced,
                verbs: r.verbs,
            }));
        }
    }
    Ok(out)
}
