//! The options of requests: `ListOptions`, `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions`.

use pintle_api::Status;
use pintle_api::selector::{FieldSelector, Selector};
use pintle_api::status::StatusCause;
use pintle_schema::errors::Errors;
use serde_json::Value;

use crate::http::query::Query;

/// 422 about an options object.
pub(crate) fn invalid_options(kind: &str, errors: &Errors) -> Status {
    Status::invalid("meta.k8s.io", kind, "", causes(errors))
}

/// Field errors as the causes of a `Status`.
pub(crate) fn causes(errors: &Errors) -> Vec<StatusCause> {
    errors
        .iter()
        .map(|e| StatusCause { reason: e.reason().into(), message: e.message(), field: e.field.clone() })
        .collect()
}

/// How a list's resourceVersion is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// `ListOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
    /// `resourceVersion`; `None` when not given.
    pub(crate) version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Whether no selector narrows the objects.
    pub(crate) fn selects_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// From a query.
    ///
    /// # Errors
    /// 400 for what does not parse, 422 for what does not fit together.
    pub(crate) fn parse(q: &Query, watch: bool) -> Result<Self, Status> {
        let bad = Status::bad_request;
        let labels = match q.non_empty("labelSelector") {
            Some(text) => Selector::parse(text).map_err(bad)?,
            None => Selector::everything(),
        };
        let fields = match q.non_empty("fieldSelector") {
            Some(text) => FieldSelector::parse(text).map_err(bad)?,
            None => FieldSelector::default(),
        };
        let raw_version = q.non_empty("resourceVersion");
        let raw_match = q.non_empty("resourceVersionMatch").unwrap_or_default();
        let continue_token = q.non_empty("continue").unwrap_or_default().to_owned();
        let limit = q.integer("limit").map_err(bad)?.unwrap_or(0);
        let timeout = q.integer("timeoutSeconds").map_err(bad)?;
        let mut send_initial_events = q.flag("sendInitialEvents");
        let mut raw_match = raw_match.to_owned();
        if watch && send_initial_events.is_none() && raw_match.is_empty() && raw_version.is_none_or(|v| v == "0") {
            // Upstream's default: an old-style watch from "now" or "any" begins with the state.
            send_initial_events = Some(true);
            "NotOlderThan".clone_into(&mut raw_match);
        }

        let mut errors = Errors::new();
        if watch {
            if send_initial_events.is_some() && raw_match != "NotOlderThan" {
                errors.forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if !raw_match.is_empty() {
                if send_initial_events.is_none() {
                    errors.forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    );
                }
                if raw_match != "NotOlderThan" {
                    errors.not_supported("resourceVersionMatch", raw_match.as_str(), &["NotOlderThan"]);
                }
                if !continue_token.is_empty() {
                    errors.forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    );
                }
            }
        } else {
            if !raw_match.is_empty() {
                if raw_version.is_none() {
                    errors.forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    );
                }
                if !continue_token.is_empty() {
                    errors.forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    );
                }
                if !matches!(raw_match.as_str(), "Exact" | "NotOlderThan") {
                    errors.not_supported("resourceVersionMatch", raw_match.as_str(), &["Exact", "NotOlderThan", ""]);
                }
                if raw_match == "Exact" && raw_version == Some("0") {
                    errors.forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    );
                }
            }
            if send_initial_events.is_some() {
                errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
        }
        if !errors.is_empty() {
            return Err(invalid_options("ListOptions", &errors));
        }
        Ok(Self {
            labels,
            fields,
            version: raw_version.map(parse_version).transpose().map_err(|why| {
                // A watch finds it where it starts, a list where it checks its options.
                let mut errors = Errors::new();
                errors.invalid_value("resourceVersion", raw_version.unwrap_or_default(), why.as_str());
                if watch {
                    Status::invalid("", "", "", causes(&errors))
                } else {
                    bad(format!("invalid resource version: {errors}"))
                }
            })?,
            version_match: match raw_match.as_str() {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            timeout_seconds: timeout.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0),
            bookmarks: q.flag("allowWatchBookmarks") == Some(true),
            send_initial_events,
        })
    }
}

/// A resourceVersion of a query.
///
/// # Errors
/// Why it is none, as Go says it.
pub(crate) fn parse_version(text: &str) -> Result<u64, String> {
    let why = match text.parse() {
        Ok(version) => return Ok(version),
        Err(e) if matches!(std::num::ParseIntError::kind(&e), std::num::IntErrorKind::PosOverflow) => {
            "value out of range"
        }
        Err(_) => "invalid syntax",
    };
    Err(format!("strconv.ParseUint: parsing {}: {why}", pintle_schema::quote::quoted(text)))
}

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    pub(crate) validation: FieldValidation,
    /// `force`, for apply.
    pub(crate) force: Option<bool>,
    /// It is an apply, which keeps the owners of fields itself.
    pub(crate) applies: bool,
}

fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Errors) -> bool {
    let all: Vec<&str> = values.collect();
    if all.iter().any(|v| *v != "All") {
        errors.not_supported("dryRun", Value::from(all.clone()), &["All"]);
    }
    !all.is_empty()
}

impl WriteOptions {
    /// From a query. `kind` is the options' kind, `apply` says that it is a patch of that type.
    ///
    /// # Errors
    /// 422 with one cause a fault.
    pub(crate) fn parse(q: &Query, kind: &str, apply: bool) -> Result<Self, Status> {
        let mut errors = Errors::new();
        let force = q.flag("force");
        let field_manager = q.non_empty("fieldManager").unwrap_or_default().to_owned();
        if kind == "PatchOptions" {
            if apply && field_manager.is_empty() {
                errors.required("fieldManager", "is required for apply patch");
            }
            if !apply && force.is_some() {
                errors.forbidden("force", "may not be specified for non-apply patch");
            }
        }
        if field_manager.len() > 128 {
            errors.too_long("fieldManager", 128);
        }
        if let Some(i) = field_manager.chars().position(char::is_control) {
            let c = field_manager.chars().nth(i).unwrap_or_default();
            errors.invalid_value(
                "fieldManager",
                field_manager.as_str(),
                format!("invalid character {} (at position {i})", pintle_schema::quote::quoted(&c.to_string())),
            );
        }
        let dry_run = check_dry_run(q.all("dryRun"), &mut errors);
        let validation = match q.non_empty("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                errors.not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(invalid_options(kind, &errors));
        }
        Ok(Self { dry_run, field_manager, validation, force, applies: apply })
    }

    /// The name under which field ownership is kept.
    pub(crate) fn manager(&self, user_agent: &str) -> String {
        if !self.field_manager.is_empty() {
            return self.field_manager.clone();
        }
        let prefix: String =
            user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        if prefix.len() <= 128 {
            return prefix;
        }
        let mut cut = 128;
        while !prefix.is_char_boundary(cut) {
            cut -= 1;
        }
        prefix[..cut].to_owned()
    }
}

/// What is to become of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// From a query and, when it is not empty, the body instead.
    ///
    /// # Errors
    /// 400 for what does not parse, 422 for what does not fit together.
    pub(crate) fn parse(q: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let mut o = Self::default();
        let mut errors = Errors::new();
        let policy: Option<String>;
        if let Some(body) = body {
            o = Self {
                grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
                uid: body.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
                resource_version: body
                    .pointer("/preconditions/resourceVersion")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                orphan_dependents: body.get("orphanDependents").and_then(Value::as_bool),
                propagation: None,
                dry_run: false,
            };
            policy = body.get("propagationPolicy").and_then(Value::as_str).map(str::to_owned);
            let dry: Vec<&str> =
                body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            o.dry_run = check_dry_run(dry.into_iter(), &mut errors);
        } else {
            o.grace_period_seconds = q.integer("gracePeriodSeconds").map_err(Status::bad_request)?;
            o.orphan_dependents = q.flag("orphanDependents");
            policy = q.non_empty("propagationPolicy").map(str::to_owned);
            o.dry_run = check_dry_run(q.all("dryRun"), &mut errors);
        }
        if o.orphan_dependents.is_some() && policy.is_some() {
            errors.invalid_value(
                "propagationPolicy",
                policy.as_deref().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        match policy.as_deref() {
            None => {}
            Some("Background") => o.propagation = Some(Propagation::Background),
            Some("Foreground") => o.propagation = Some(Propagation::Foreground),
            Some("Orphan") => o.propagation = Some(Propagation::Orphan),
            Some(other) => {
                errors.not_supported("propagationPolicy", other, &["Foreground", "Background", "Orphan", "nil"]);
            }
        }
        if errors.is_empty() { Ok(o) } else { Err(invalid_options("DeleteOptions", &errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(q: &str, watch: bool) -> Result<ListOptions, Status> {
        ListOptions::parse(&Query::parse(Some(q)), watch)
    }

    #[test]
    fn lists() {
        let o = list("labelSelector=a%3Db&limit=5&resourceVersion=7&resourceVersionMatch=Exact", false).unwrap();
        assert_eq!((o.limit, o.version, o.version_match), (5, Some(7), Some(VersionMatch::Exact)));
        for (q, want) in [
            ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
            ("resourceVersionMatch=Exact&resourceVersion=0", "is forbidden for resourceVersion \"0\""),
            ("resourceVersionMatch=X&resourceVersion=1", "Unsupported value: \"X\""),
            ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
        ] {
            let e = list(q, false).unwrap_err();
            assert_eq!(e.code, 422);
            assert!(e.message.starts_with("ListOptions.meta.k8s.io \"\" is invalid: "), "{}", e.message);
            assert!(e.message.contains(want), "{}", e.message);
        }
        assert_eq!(list("resourceVersion=x", false).unwrap_err().code, 400);
        assert_eq!(list("limit=x", false).unwrap_err().code, 400);
        assert_eq!(list("labelSelector=%3D%3D", false).unwrap_err().code, 400);
        assert_eq!(list("resourceVersion=0", true).unwrap().send_initial_events, Some(true));
        assert_eq!(list("resourceVersion=4", true).unwrap().send_initial_events, None);
        assert!(list("resourceVersion=4&sendInitialEvents=1", true).is_err());
    }

    #[test]
    fn writes() {
        let parse = |q: &str, kind, apply| WriteOptions::parse(&Query::parse(Some(q)), kind, apply);
        let o = parse("dryRun=All&fieldManager=m&fieldValidation=Strict", "CreateOptions", false).unwrap();
        assert!(o.dry_run && o.validation == FieldValidation::Strict);
        assert_eq!(o.manager("kubectl/v1"), "m");
        assert_eq!(WriteOptions::default().manager("kubectl/v1.2 (x)"), "kubectl");
        for (q, kind, apply, want) in [
            ("dryRun=Some", "CreateOptions", false, "supported values: \"All\""),
            ("fieldValidation=No", "UpdateOptions", false, "fieldValidation: Unsupported value: \"No\""),
            ("", "PatchOptions", true, "fieldManager: Required value: is required for apply patch"),
            ("force=true", "PatchOptions", false, "force: Forbidden: may not be specified for non-apply patch"),
        ] {
            let e = parse(q, kind, apply).unwrap_err();
            assert!(e.message.contains(want), "{}", e.message);
        }
    }

    #[test]
    fn deletes() {
        let body = serde_json::json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
        let o = DeleteOptions::parse(&Query::default(), Some(&body)).unwrap();
        assert_eq!(
            (o.grace_period_seconds, o.uid.as_deref(), o.propagation),
            (Some(0), Some("u"), Some(Propagation::Foreground))
        );
        let e = DeleteOptions::parse(&Query::parse(Some("propagationPolicy=x")), None).unwrap_err();
        assert_eq!(e.code, 422);
    }
}
