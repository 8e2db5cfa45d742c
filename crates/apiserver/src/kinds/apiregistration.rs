//! The apiregistration group.

use pintle_api::names::{dns1035_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};

use super::strategy::Sub;
use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks, meta, names};

/// The strategy of API services.
pub static API_SERVICE: Strategy = Strategy {
    unconditional_update: false,
    name: names::path_segment,
    full_meta_on_update: true,
    free_finalizers: true,
    validate,
    subresources: &[(
        "status",
        Sub {
            validate: |_, new, _, errors| {
                for condition in new.get("status").get("conditions").items() {
                    checks::one_of(&condition.get("status"), &["True", "False", "Unknown"], true, errors);
                }
            },
            ..Sub::STATUS
        },
    )],
    columns: &[
        Column::NAME,
        text("Service", "The reference to the service that hosts this API endpoint."),
        text("Available", "Whether this service is available."),
        Column::AGE,
    ],
    row: |o, now| {
        let service = o.get("spec").get("service");
        let reference = if service.is_present() {
            format!("{}/{}", service.get("namespace").str(), service.get("name").str())
        } else {
            "Local".to_owned()
        };
        let available = table::condition(o, "Available").map_or_else(
            || "Unknown".to_owned(),
            |c| match c.get("status").str() {
                "True" => "True".to_owned(),
                status => format!("{status} ({})", c.get("reason").str()),
            },
        );
        vec![table::name(o), reference.into(), available.into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

fn validate(_: &Ctx<'_>, service: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = service.get("spec");
    let (group, version, name) = (spec.get("group"), spec.get("version"), service.get("metadata").get("name"));
    let required = format!("{}.{}", version.str(), group.str());
    if name.str() != required {
        errors.invalid(&name, format!("must be `spec.version+\".\"+spec.group`: \"{required}\""));
    }
    if group.is_empty() && version.str() != "v1" {
        errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        meta::invalid_each(&group, dns1123_subdomain(group.str()), errors);
    }
    for message in dns1035_label(version.str()) {
        errors.invalid_value(&version, version.str(), message);
    }
    for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let priority = spec.get(field);
        if !(1..=most).contains(&priority.int()) {
            errors.invalid_value(&priority, priority.int(), format!("must be positive and less than {most}"));
        }
    }
    let (backend, bundle, insecure) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if backend.is_absent() {
        if !bundle.is_empty() {
            let bytes = bundle.str().trim_end_matches('=').len() * 3 / 4;
            errors.invalid_value(&bundle, format!("{bytes} bytes"), "local APIServices may not have a caBundle");
        }
        if insecure.bool() {
            errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        if backend.get(field).is_empty() {
            errors.required(backend.get(field), "");
        }
    }
    let port = backend.get("port");
    let wrong = checks::port_number(port.int());
    if !wrong.is_empty() {
        errors.invalid_value(&port, port.int(), format!("port is not valid: {}", wrong.join(", ")));
    }
    if insecure.bool() && !bundle.is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {

    use crate::kinds::testing::{changed, create_errors};
    use serde_json::json;

    #[test]
    fn checks() {
        let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.a.b"},
            "spec": {"group": "a.b", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}});
        assert_eq!(create_errors(&service), "");
        assert_eq!(
            create_errors(&changed(&service, "metadata/name", json!("x"))),
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\""
        );
        assert_eq!(
            create_errors(&changed(&service, "spec/versionPriority", json!(0))),
            "spec.versionPriority: Invalid value: 0: must be positive and less than 1000"
        );
    }
}
