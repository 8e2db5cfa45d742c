//! What schemas and operations are called.

use pintle_api::resources::Resource;

use crate::table::Type;

pub(super) const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
pub(super) const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
pub(super) const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
pub(super) const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
pub(super) const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
pub(super) const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
pub(super) const OR_ARRAY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
pub(super) const OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
pub(super) const OR_STRINGS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

/// The name of a type's schema, `io.k8s.api.core.v1.Pod`.
pub(super) fn of_type(t: &Type) -> String {
    let package = match t.package.split_once('/') {
        Some(("meta", v)) => format!("apimachinery.pkg.apis.meta.{v}"),
        Some(("apiextensions", v)) => format!("apiextensions-apiserver.pkg.apis.apiextensions.{v}"),
        Some(("apiregistration", v)) => format!("kube-aggregator.pkg.apis.apiregistration.{v}"),
        Some((group, v)) => format!("api.{group}.{v}"),
        None => format!("apimachinery.pkg.{}", t.package),
    };
    format!("io.k8s.{package}.{}", t.name)
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The group in operation ids: `Core`, `Apps`, `RbacAuthorization`.
fn group(r: &Resource) -> String {
    if r.group.is_empty() {
        return "Core".into();
    }
    r.group.trim_end_matches(".k8s.io").split('.').map(title).collect()
}

/// Group and version in operation ids: `CoreV1`.
pub(super) fn group_version(r: &Resource) -> String {
    group(r) + &title(r.version)
}

/// The tag of a group-version's operations: `core_v1`, `rbacAuthorization_v1`.
pub(super) fn tag(r: &Resource) -> String {
    let group = group(r);
    let mut chars = group.chars();
    let lower: String = chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default();
    format!("{lower}_{}", r.version)
}

/// A sub-resource's name in operation ids: `Status`, `Ephemeralcontainers`.
pub(super) fn subresource(name: &str) -> String {
    title(name)
}
