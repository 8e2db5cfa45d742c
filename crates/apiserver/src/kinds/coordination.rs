//! The coordination group.

use pintle_schema::cursor::{Cursor, Errors};
use semver::Version;

use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks, meta};

/// The strategy of leases.
pub static LEASE: Strategy = Strategy {
    create_on_update: true,
    unconditional_update: false,
    validate,
    columns: &[Column::NAME, text("Holder", "@LeaseSpec.holderIdentity"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("spec").get("holderIdentity").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of lease candidates, a kind that is off unless it is asked for.
pub static LEASE_CANDIDATE: Strategy = Strategy {
    create_on_update: true,
    unconditional_update: false,
    name: |name, _| checks::config_key(name),
    validate: candidate,
    validate_change: |_, new, old, errors| {
        let (new, old) = (new.get("spec").get("leaseName"), old.get("spec").get("leaseName"));
        meta::immutable(&new, &old, errors);
    },
    columns: &[
        Column::NAME,
        text("LeaseName", "@LeaseCandidateSpec.leaseName"),
        text("BinaryVersion", "@LeaseCandidateSpec.binaryVersion"),
        text("EmulationVersion", "@LeaseCandidateSpec.emulationVersion"),
        text("PreferredStrategies", "@LeaseCandidateSpec.strategy"),
        Column::AGE,
    ],
    row: |o, now| {
        let spec = o.get("spec");
        let field = |name| spec.get(name).str().into();
        let mut row = vec![table::name(o)];
        row.extend(["leaseName", "binaryVersion", "emulationVersion", "strategy"].map(field));
        row.push(table::age(o, now));
        row
    },
    ..Strategy::DEFAULT
};

fn candidate(_: &Ctx<'_>, candidate: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    const NO_VERSION: &str = "must be a valid semantic version";
    let spec = candidate.get("spec");
    let (lease, strategy) = (spec.get("leaseName"), spec.get("strategy"));
    let (emulated, binary) = (spec.get("emulationVersion"), spec.get("binaryVersion"));
    if lease.is_empty() {
        errors.required(&lease, "");
    }
    for version in [&emulated, &binary] {
        if version.is_empty() {
            if version.path() == binary.path() {
                errors.required(&binary, "");
            }
        } else if Version::parse(version.str()).is_err() {
            errors.invalid(version, NO_VERSION);
        }
    }
    // What is no version counts as 0.0.0.
    let read = |c: &Cursor<'_>| Version::parse(c.str()).unwrap_or(Version::new(0, 0, 0));
    if !binary.is_empty() && !emulated.is_empty() && read(&binary).cmp_precedence(&read(&emulated)).is_lt() {
        errors.invalid(&binary, "must be greater than or equal to `emulationVersion`");
    }
    if strategy.is_empty() {
        return errors.required(&strategy, "");
    }
    if strategy.str() == OLDEST && read(&emulated).cmp_precedence(&Version::new(0, 0, 0)).is_eq() {
        errors.required(&emulated, "must be specified when `strategy` is 'OldestEmulationVersion'");
    }
    coordination(&strategy, errors);
}

const OLDEST: &str = "OldestEmulationVersion";

/// How the holder of a lease is chosen.
fn coordination(strategy: &Cursor<'_>, errors: &mut Errors) {
    // Upstream names the field twice.
    let at = strategy.at("strategy");
    if strategy.str().contains('/') {
        meta::label_key(&at, strategy.str(), errors);
    } else if strategy.str() != OLDEST {
        errors.not_supported(&at, strategy.str(), &[OLDEST]);
    }
}

fn validate(_: &Ctx<'_>, lease: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = lease.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.opt_int().is_some_and(|s| s <= 0) {
        errors.invalid(&duration, "must be greater than 0");
    }
    meta::not_negative(&spec.get("leaseTransitions"), errors);
    let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
    if strategy.is_present() {
        coordination(&strategy, errors);
    }
    if !preferred.is_empty() && strategy.is_empty() {
        errors.forbidden(&preferred, "may only be specified if `strategy` is defined");
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors};
    use serde_json::{Value, json};

    #[test]
    fn leases() {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "ns"}, "spec": {"leaseDurationSeconds": 5}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&lease, path, to)), expect, "{path}");
        };
        check("spec/strategy", json!("OldestEmulationVersion"), "");
        check("spec/strategy", json!("a.b/c"), "");
        check(
            "spec/strategy",
            json!("Odd"),
            "spec.strategy.strategy: Unsupported value: \"Odd\": supported values: \"OldestEmulationVersion\"",
        );
        check(
            "spec/strategy",
            json!("a b/c"),
            &format!(
                "spec.strategy.strategy: Invalid value: \"a b/c\": {}",
                pintle_api::names::qualified_name("a b/c")[0]
            ),
        );
        check(
            "spec/leaseDurationSeconds",
            json!(0),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        );
        check(
            "spec/leaseTransitions",
            json!(-1),
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "spec/preferredHolder",
            json!("h"),
            "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
        );
    }

    #[test]
    fn candidates() {
        use crate::kinds::testing::update_errors;
        let candidate = json!({"apiVersion": "coordination.k8s.io/v1beta1", "kind": "LeaseCandidate",
            "metadata": {"name": "C_1", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.35.0", "strategy": "OldestEmulationVersion"}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&candidate, path, to)), expect, "{path}");
        };
        check("spec/strategy", json!("a.b/c"), "");
        check("spec/leaseName", json!(""), "spec.leaseName: Required value");
        check("spec/binaryVersion", json!(""), "spec.binaryVersion: Required value");
        check(
            "spec/binaryVersion",
            json!("1.36"),
            "spec.binaryVersion: Invalid value: \"1.36\": must be a valid semantic version\nspec.binaryVersion: Invalid value: \"1.36\": must be greater than or equal to `emulationVersion`",
        );
        check(
            "spec/emulationVersion",
            json!("1.37.0"),
            "spec.binaryVersion: Invalid value: \"1.36.0\": must be greater than or equal to `emulationVersion`",
        );
        check(
            "spec/emulationVersion",
            json!(""),
            "spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
        );
        check("spec/strategy", json!(""), "spec.strategy: Required value");
        assert_eq!(
            update_errors(&changed(&candidate, "spec/leaseName", json!("m")), &candidate),
            "spec.leaseName: Invalid value: \"m\": field is immutable"
        );
    }
}
