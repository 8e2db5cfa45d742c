//! Kinds that are on their way out: every request about them is answered with a warning.

use super::context::Ctx;
use crate::Server;
use crate::registry::Res;

/// Since which 1.x a kind is deprecated, from which on it is gone, and what to use instead.
struct Deprecated {
    group: &'static str,
    version: &'static str,
    /// Empty for all kinds of the version.
    kind: &'static str,
    since: u32,
    removed: Option<u32>,
    instead: &'static str,
}

const fn entry(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    since: u32,
    removed: Option<u32>,
    instead: &'static str,
) -> Deprecated {
    Deprecated { group, version, kind, since, removed, instead }
}

const ALL: &[Deprecated] = &[
    entry("", "v1", "ComponentStatus", 19, None, ""),
    entry("", "v1", "Endpoints", 33, None, "discovery.k8s.io/v1 EndpointSlice"),
    entry("networking.k8s.io", "v1beta1", "", 34, Some(37), ""),
    entry("resource.k8s.io", "v1beta1", "", 35, Some(38), ""),
    entry("resource.k8s.io", "v1beta2", "DeviceClass", 36, Some(39), ""),
    entry("resource.k8s.io", "v1beta2", "ResourceClaim", 36, Some(39), ""),
    entry("resource.k8s.io", "v1beta2", "ResourceClaimTemplate", 36, Some(39), ""),
    entry("resource.k8s.io", "v1beta2", "ResourceSlice", 36, Some(39), ""),
    entry("resource.k8s.io", "v1alpha3", "DeviceTaintRule", 36, Some(39), ""),
];

fn find(group: &str, version: &str, kind: &str) -> Option<&'static Deprecated> {
    ALL.iter().find(|d| d.group == group && d.version == version && (d.kind.is_empty() || d.kind == kind))
}

impl Deprecated {
    fn warning(&self, api_version: &str, kind: &str) -> String {
        let mut text = format!("{api_version} {kind} is deprecated in v1.{}+", self.since);
        if let Some(removed) = self.removed {
            text.push_str(&format!(", unavailable in v1.{removed}+"));
        }
        if !self.instead.is_empty() {
            text.push_str(&format!("; use {}", self.instead));
        }
        text
    }
}

impl Server {
    /// Warns of a deprecated kind.
    pub(crate) fn warn_deprecated(&self, ctx: &Ctx, res: &Res) {
        let def = res.def;
        let Some(d) = find(def.group, def.version, def.kind) else { return };
        ctx.annotate("k8s.io/deprecated", "true");
        if let Some(n) = d.removed {
            ctx.annotate("k8s.io/removed-release", format!("1.{n}"));
        }
        ctx.warn(d.warning(&res.api_version, def.kind));
        self.metrics.deprecated(ctx, &d.removed.map(|n| format!("1.{n}")).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings() {
        for (api_version, kind, want) in [
            ("v1", "Endpoints", Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")),
            ("v1", "ComponentStatus", Some("v1 ComponentStatus is deprecated in v1.19+")),
            ("v1", "Pod", None),
            (
                "networking.k8s.io/v1beta1",
                "IPAddress",
                Some("networking.k8s.io/v1beta1 IPAddress is deprecated in v1.34+, unavailable in v1.37+"),
            ),
            ("resource.k8s.io/v1beta2", "DeviceTaintRule", None),
        ] {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            let got = find(group, version, kind).map(|d| d.warning(api_version, kind));
            assert_eq!(got.as_deref(), want);
        }
    }
}
