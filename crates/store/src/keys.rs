//! Where objects are kept: upstream's key layout, so that an etcd written by one can be read by the other.
//!
//! `/registry/<resource prefix>/<namespace>/<name>`, without the namespace part for cluster-scoped objects. The
//! resource prefix is the plural resource name; custom resources, CustomResourceDefinitions and APIServices have
//! `<group>/<resource>`, and a few resources keep the name of their early days.

/// Everything of a cluster is below this, unless it is told another prefix.
pub const DEFAULT_ROOT: &str = "/registry";

/// Built-in resources whose prefix is not their plural name.
const SPECIAL: &[(&str, &str, &str)] = &[
    ("", "replicationcontrollers", "controllers"),
    ("", "endpoints", "services/endpoints"),
    ("", "nodes", "minions"),
    ("", "services", "services/specs"),
    ("extensions", "ingresses", "ingress"),
    ("networking.k8s.io", "ingresses", "ingress"),
];

/// Groups served by API servers of their own upstream, which keep their resources by group.
const BY_GROUP: &[&str] = &["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// The prefix under which a resource's objects are kept, with a slash at the end: `/registry/pods/`.
/// `custom` says that the resource is defined by a CustomResourceDefinition.
pub fn resource_prefix(root: &str, group: &str, resource: &str, custom: bool) -> String {
    if custom || BY_GROUP.contains(&group) {
        return format!("{root}/{group}/{resource}/");
    }
    let special = SPECIAL.iter().find(|(g, r, _)| *g == group && *r == resource);
    format!("{root}/{}/", special.map_or(resource, |(_, _, prefix)| prefix))
}

/// The key of an object below a resource's prefix.
pub fn object_key(resource_prefix: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{resource_prefix}{namespace}/{name}"),
        None => format!("{resource_prefix}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_layout() {
        let check = |group, resource, custom, expect: &str| {
            assert_eq!(resource_prefix(DEFAULT_ROOT, group, resource, custom), expect);
        };
        check("", "pods", false, "/registry/pods/");
        check("", "services", false, "/registry/services/specs/");
        check("", "endpoints", false, "/registry/services/endpoints/");
        check("", "nodes", false, "/registry/minions/");
        check("apps", "deployments", false, "/registry/deployments/");
        check("networking.k8s.io", "ingresses", false, "/registry/ingress/");
        check("example.com", "nodes", true, "/registry/example.com/nodes/");
        check("apiregistration.k8s.io", "apiservices", false, "/registry/apiregistration.k8s.io/apiservices/");
        assert_eq!(object_key("/registry/pods/", Some("default"), "a"), "/registry/pods/default/a");
        assert_eq!(object_key("/registry/minions/", None, "n1"), "/registry/minions/n1");
        assert_eq!(object_key("/registry/minions/", Some(""), "n1"), "/registry/minions/n1");
    }
}
