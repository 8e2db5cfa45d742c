//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one.

mod aggregated;
mod legacy;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use pintle_api::Status;
use pintle_api::service::{Body, full};
use serde_json::{Value, json};

use crate::Server;
use crate::http::context::Ctx;
use crate::http::negotiate::{self, Media, Target};
use crate::http::respond;
use crate::registry::{Registry, Res};

/// The version of Kubernetes this server speaks.
pub(crate) const MINOR: &str = "36";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "emulationMajor": "1",
        "emulationMinor": MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v1.{MINOR}.0+pintle.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none (rust)",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Upstream's order of groups: those of higher priority first, then by name.
pub(crate) fn priority(group: &str) -> u32 {
    match group {
        "" | "apiregistration.k8s.io" => 18000,
        "apps" => 17800,
        "events.k8s.io" => 17750,
        "authentication.k8s.io" => 17700,
        "authorization.k8s.io" => 17600,
        "autoscaling" => 17500,
        "batch" => 17400,
        "certificates.k8s.io" => 17300,
        "networking.k8s.io" => 17200,
        "policy" => 17100,
        "rbac.authorization.k8s.io" => 17000,
        "storage.k8s.io" => 16800,
        "admissionregistration.k8s.io" | "apiextensions.k8s.io" => 16700,
        "scheduling.k8s.io" => 16600,
        "coordination.k8s.io" => 16500,
        "node.k8s.io" => 16300,
        "discovery.k8s.io" | "resource.k8s.io" => 16200,
        "flowcontrol.apiserver.k8s.io" => 16100,
        "internal.apiserver.k8s.io" => 16000,
        "storagemigration.k8s.io" => 15800,
        _ => 1000,
    }
}

/// Upstream's order of versions within a group; 9 is what new ones have.
pub(crate) fn version_priority(group: &str, version: &str) -> u32 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        ("resource.k8s.io", "v1") => 20,
        ("coordination.k8s.io", "v1beta1") => 13,
        ("coordination.k8s.io", "v1alpha2") | ("admissionregistration.k8s.io", "v1beta1") => 12,
        ("resource.k8s.io", "v1beta2") => 15,
        ("authentication.k8s.io" | "certificates.k8s.io" | "node.k8s.io" | "resource.k8s.io" | "storage.k8s.io", v)
            if v.contains("alpha") =>
        {
            1
        }
        (_, "v1") => 15,
        _ => 9,
    }
}

/// Kubernetes' order of versions: GA before beta before alpha, higher numbers first.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let parse = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        let (stage, n) =
            tail.strip_prefix("beta").map(|n| (2, n)).or_else(|| tail.strip_prefix("alpha").map(|n| (1, n)))?;
        Some((stage, major, n.parse().ok()?))
    };
    parse().unwrap_or((0, 0, 0))
}

/// One group with its versions, best first.
pub(crate) struct Group {
    name: String,
    versions: Vec<(String, Vec<Arc<Res>>)>,
}

/// The groups of a registry, the core group first.
fn groups(registry: &Registry) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    for r in registry.all() {
        let group = match out.iter_mut().position(|g| g.name == r.def.group) {
            Some(i) => &mut out[i],
            None => {
                out.push(Group { name: r.def.group.to_owned(), versions: Vec::new() });
                let last = out.len() - 1;
                &mut out[last]
            }
        };
        match group.versions.iter_mut().find(|(v, _)| v == r.def.version) {
            Some((_, list)) => list.push(Arc::clone(r)),
            None => group.versions.push((r.def.version.to_owned(), vec![Arc::clone(r)])),
        }
    }
    for g in &mut out {
        g.versions.sort_by_key(|(v, _)| std::cmp::Reverse(version_rank(v)));
    }
    out.sort_by(|a, b| {
        (!a.name.is_empty())
            .cmp(&!b.name.is_empty())
            .then_with(|| priority(&b.name).cmp(&priority(&a.name)))
            .then_with(|| a.name.cmp(&b.name))
    });
    out
}

/// A document and its entity tag.
struct Document {
    json: Bytes,
    etag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        use sha2::Digest;
        let json = Bytes::from(value.to_string());
        let etag = format!("\"{}\"", hex::encode_upper(sha2::Sha512::digest(&json)));
        Self { json, etag }
    }
}

/// The discovery documents, made once.
pub(crate) struct Discovery {
    groups: Vec<Group>,
    /// Aggregated documents: (core or named groups, version of the form).
    aggregated: Vec<(bool, &'static str, Document)>,
}

impl Discovery {
    pub(crate) fn new(registry: &Registry) -> Self {
        let groups = groups(registry);
        let mut aggregated = Vec::new();
        for core in [true, false] {
            for version in ["v2", "v2beta1"] {
                let some: Vec<&Group> = groups.iter().filter(|g| g.name.is_empty() == core).collect();
                aggregated.push((core, version, Document::new(&aggregated::list(&some, version))));
            }
        }
        Self { groups, aggregated }
    }
}

fn wants_aggregated(media: Media, t: Option<&Target>) -> bool {
    media == Media::Json
        && t.is_none_or(|t| {
            t.group == "apidiscovery.k8s.io"
                && matches!(t.version.as_str(), "v2" | "v2beta1")
                && t.kind == "APIGroupDiscoveryList"
        })
        || (media == Media::Yaml && t.is_none())
}

impl Server {
    /// Serves a path below `/api` or `/apis` that names no resource.
    ///
    /// # Errors
    /// 406 and what else is wrong.
    pub(crate) fn discover(&self, ctx: &Ctx, path: &str) -> Result<Response<Body>, Status> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let groups = &self.discovery.groups;
        let of = |name: &str| groups.iter().find(|g| g.name == name);
        match parts.as_slice() {
            [root] => {
                let core = *root == "api";
                let accepted = negotiate::output(&ctx.headers, &ctx.query, Media::ALL, false, wants_aggregated)?;
                let Some(t) = &accepted.target else {
                    let value = if core { legacy::versions(&self.address()) } else { legacy::groups(groups) };
                    let mut r = self.document(ctx, &value)?;
                    r.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
                    return Ok(r);
                };
                let Some((_, _, doc)) =
                    self.discovery.aggregated.iter().find(|(c, v, _)| *c == core && *v == t.version)
                else {
                    return Ok(respond::page_not_found());
                };
                Ok(aggregated_answer(ctx, &t.version, doc))
            }
            ["api", version] => match of("").and_then(|g| g.versions.iter().find(|(v, _)| v == version)) {
                Some((_, list)) => self.document(ctx, &legacy::resources("v1", list)),
                None => Ok(respond::page_not_found()),
            },
            ["apis", group] => match of(group).filter(|g| !g.name.is_empty()) {
                Some(g) => self.document(ctx, &legacy::group(g, true)),
                None => Ok(respond::page_not_found()),
            },
            ["apis", group, version] => {
                match of(group)
                    .filter(|g| !g.name.is_empty())
                    .and_then(|g| g.versions.iter().find(|(v, _)| v == version))
                {
                    Some((_, list)) => self.document(ctx, &legacy::resources(&format!("{group}/{version}"), list)),
                    None => Ok(self.not_here(group, version)),
                }
            }
            _ => Ok(respond::page_not_found()),
        }
    }

    fn address(&self) -> String {
        let ip = self.config.advertise_address;
        if ip.is_ipv6() {
            format!("[{ip}]:{}", self.config.advertise_port)
        } else {
            format!("{ip}:{}", self.config.advertise_port)
        }
    }
}

fn aggregated_answer(ctx: &Ctx, version: &str, doc: &Document) -> Response<Body> {
    let matches = ctx.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&doc.etag);
    let mut r = Response::new(full(if matches { Bytes::new() } else { doc.json.clone() }));
    if matches {
        *r.status_mut() = http::StatusCode::NOT_MODIFIED;
    }
    let h = r.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&doc.etag) {
        h.insert(ETAG, tag);
    }
    h.insert(VARY, HeaderValue::from_static("Accept"));
    h.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    h.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }),
    );
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_versions() {
        let mut v = ["v1beta1", "v2", "v1alpha1", "v1", "v1beta2", "foo"];
        v.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(v, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
