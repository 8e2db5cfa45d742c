//! What a request asks for: upstream's `RequestInfo`.

use http::Method;
use percent_encoding::percent_decode_str;

use super::query::Query;

/// A request's verb and target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Whether it names an API resource (below `/api/V/…` or `/apis/G/V/…`).
    pub(crate) is_resource: bool,
    /// The decoded path.
    pub(crate) path: String,
    /// API verb (`get`, `list`, `watch`, `create`, …), or the lower-case HTTP method for other paths.
    pub(crate) verb: String,
    /// `api` or `apis`.
    pub(crate) prefix: String,
    /// API group.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Namespace of the request.
    pub(crate) namespace: String,
    /// Plural resource name.
    pub(crate) resource: String,
    /// Sub-resource.
    pub(crate) subresource: String,
    /// Object's name.
    pub(crate) name: String,
    /// Path segments from the resource on.
    pub(crate) parts: Vec<String>,
}

/// Sub-resources of a namespace, which are no resources inside it.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    /// Reads method, path and query of a request.
    pub(crate) fn new(method: &Method, raw_path: &str, query: &Query) -> Self {
        let path = percent_decode_str(raw_path).decode_utf8_lossy().into_owned();
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), path, ..Self::default() };
        let trimmed = info.path.trim_matches('/').to_owned();
        let mut parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return info;
        }
        parts[0].clone_into(&mut info.prefix);
        parts.remove(0);
        if info.prefix == "apis" {
            if parts.len() < 3 {
                info.prefix.clear();
                return info;
            }
            parts[0].clone_into(&mut info.group);
            parts.remove(0);
        }
        info.is_resource = true;
        parts[0].clone_into(&mut info.version);
        parts.remove(0);

        let mut special = false;
        if parts.len() >= 2 && matches!(parts[0], "watch" | "proxy") {
            parts[0].clone_into(&mut info.verb);
            special = true;
            parts.remove(0);
        } else {
            info.verb = match *method {
                Method::POST => "create",
                Method::GET | Method::HEAD => "get",
                Method::PUT => "update",
                Method::PATCH => "patch",
                Method::DELETE => "delete",
                _ => "",
            }
            .to_owned();
        }

        if parts[0] == "namespaces" && parts.len() > 1 {
            parts[1].clone_into(&mut info.namespace);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        info.parts = parts.iter().map(|p| (*p).to_owned()).collect();
        if parts.len() >= 3 && !special {
            parts[2].clone_into(&mut info.subresource);
        }
        if parts.len() >= 2 {
            parts[1].clone_into(&mut info.name);
        }
        parts[0].clone_into(&mut info.resource);

        if info.name.is_empty() && info.verb == "get" {
            info.verb = if query.flag("watch") == Some(true) { "watch" } else { "list" }.to_owned();
        }
        if info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch") {
            let by_name = query
                .get("fieldSelector")
                .and_then(|text| pintle_api::selector::FieldSelector::parse(text).ok())
                .and_then(|s| s.exact("metadata.name").map(str::to_owned));
            if let Some(name) = by_name.filter(|n| !n.is_empty() && pintle_api::names::path_segment(n).is_empty()) {
                info.name = name;
            }
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        info
    }

    /// Whether the response may last: watches, and the streams of sub-resources. Such requests have no deadline and do
    /// not count as in flight.
    pub(crate) fn is_long_running(&self) -> bool {
        self.is_resource
            && (matches!(self.verb.as_str(), "watch" | "proxy")
                || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
    }

    /// Segments after the sub-resource, as a path with a leading slash, raw as the client sent them.
    pub(crate) fn trailing<'a>(&self, raw_path: &'a str) -> &'a str {
        // Count the segments that stand before the trailing path; what follows is passed on unchanged.
        let named = if self.subresource.is_empty() { 2 } else { 3 };
        let total = self.path.trim_matches('/').split('/').count();
        let skip = total.saturating_sub(self.parts.len().saturating_sub(named));
        let mut at = 0;
        let bytes = raw_path.as_bytes();
        let mut seen = 0;
        while at < bytes.len() {
            if bytes[at] == b'/' {
                if seen == skip {
                    return &raw_path[at..];
                }
                seen += 1;
            }
            at += 1;
        }
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_upstream() {
        // method, path, verb, group, version, namespace, resource, subresource, name
        for (m, p, want) in [
            ("GET", "/api/v1/namespaces", "list||v1||namespaces||"),
            ("GET", "/api/v1/namespaces/other", "get||v1|other|namespaces||other"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update||v1|other|namespaces|finalize|other"),
            ("GET", "/api/v1/namespaces/other/pods", "list||v1|other|pods||"),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods||foo"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods||foo"),
            ("GET", "/api/v1/pods", "list||v1||pods||"),
            ("GET", "/api/v1/pods?watch=1", "watch||v1||pods||"),
            ("GET", "/api/v1/pods?watch=false", "list||v1||pods||"),
            ("GET", "/api/v1/watch/pods", "watch||v1||pods||"),
            ("GET", "/api/v1/watch/namespaces/other/pods", "watch||v1|other|pods||"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list||v1||pods||x"),
            ("POST", "/api/v1/namespaces/other/pods/foo/exec", "create||v1|other|pods|exec|foo"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection|apps|v1|a|deployments||"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "delete|apps|v1|a|deployments||d"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get|rbac.authorization.k8s.io|v1||clusterroles||system:node",
            ),
        ] {
            let (path, query) = p.split_once('?').map_or((p, None), |(a, b)| (a, Some(b)));
            let i = RequestInfo::new(&m.parse().unwrap(), path, &Query::parse(query));
            let got = format!(
                "{}|{}|{}|{}|{}|{}|{}",
                i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name
            );
            assert_eq!(got, want, "{m} {p}");
            assert!(i.is_resource);
        }
        for p in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz/x/y", "/version"] {
            let i = RequestInfo::new(&Method::GET, p, &Query::default());
            assert!(!i.is_resource, "{p}");
            assert_eq!(i.verb, "get");
        }
    }

    #[test]
    fn trailing_paths() {
        for (p, want) in [
            ("/api/v1/namespaces/n/services/s/proxy/a/b%20c/", "/a/b%20c/"),
            ("/api/v1/namespaces/n/services/s/proxy", ""),
            ("/api/v1/namespaces/n/services/s/proxy/", "/"),
            ("/api/v1/nodes/n/proxy/metrics", "/metrics"),
        ] {
            let i = RequestInfo::new(&Method::GET, p, &Query::default());
            assert_eq!(i.trailing(p), want, "{p}");
        }
    }
}
