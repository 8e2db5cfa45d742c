//! `Status`: every error the API answers, with upstream's reasons, codes and messages.
//!
//! Source of reasons and shapes: `k8s.io/apimachinery/pkg/api/errors` and `pkg/apis/meta/v1`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One cause of a failure, such as one invalid field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Machine-readable reason, such as `FieldValueRequired`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Human-readable text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field at fault.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a `Status` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource (or kind, as upstream does for `Invalid`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Causes, one an entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// List metadata of a `Status`; carries `continue` for an expired token that may be resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusMeta {
    /// Token to go on with an inconsistent list.
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// Revision the status speaks of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

/// The `v1` `Status` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Always `Status`.
    pub kind: String,
    /// Always `v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// List metadata, mostly empty.
    #[serde(default)]
    pub metadata: StatusMeta,
    /// `Success` or `Failure`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Human-readable text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Machine-readable reason, such as `NotFound`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// `resource.group`, or just `resource` in the core group.
#[must_use]
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A failure with this code, reason and message and no details.
    #[must_use]
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: StatusMeta::default(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code,
        }
    }

    /// A success about one object, as DELETE answers.
    #[must_use]
    pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Self {
        let mut s = Self::failure(200, "", "");
        s.status = "Success".into();
        s.about(group, resource, name).with_uid(uid)
    }

    /// Says which object it is about.
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        let d = self.details_mut();
        d.group = group.into();
        d.kind = resource.into();
        d.name = name.into();
        self
    }

    /// Adds the object's uid.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details_mut().uid = uid.into();
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: impl Into<String>, field: impl Into<String>) -> Self {
        self.details_mut().causes.push(StatusCause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    /// Says when to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.details_mut().retry_after_seconds = seconds;
        self
    }

    /// The details, made when absent.
    pub fn details_mut(&mut self) -> &mut StatusDetails {
        self.details.get_or_insert_default()
    }

    /// Whether it is a failure of this reason.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// 404 for an object.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 404 for a path no handler knows.
    #[must_use]
    pub fn path_not_found() -> Self {
        let mut s = Self::failure(404, "NotFound", "the server could not find the requested resource");
        s.details_mut();
        s
    }

    /// 409 for a name that is taken.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 409 for a write that lost a race or broke a precondition.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        Self::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 409 for an update whose resourceVersion is not the newest.
    #[must_use]
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with one cause a field error; upstream names the *kind* here, not the resource.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<StatusCause>) -> Self {
        let texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let list = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let mut s = Self::failure(422, "Invalid", format!("{} \"{name}\" is invalid{list}", qualified(group, kind)))
            .about(group, kind, name);
        s.details_mut().causes = causes;
        s
    }

    /// 400 with upstream's reason.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403 about an object or, with an empty name, a collection.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let q = qualified(group, resource);
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{q} is forbidden: {why}"),
            (false, false) => format!("{q} \"{name}\" is forbidden: {why}"),
        };
        Self::failure(403, "Forbidden", message).about(group, resource, name)
    }

    /// 405 for a verb the resource does not take.
    #[must_use]
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{}\"", qualified(group, resource)),
        )
        .about(group, resource, "")
    }

    /// 410 for a revision that history no longer holds.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 410 for a watch or list older than the oldest revision kept.
    #[must_use]
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504 for a resourceVersion that is in the future.
    #[must_use]
    pub fn too_large_version(requested: u64, current: u64) -> Self {
        let mut s = Self::failure(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
        )
        .cause("ResourceVersionTooLarge", "Too large resource version", "")
        .retry_after(1);
        s.details_mut();
        s
    }

    /// 413 for a body over the limit.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {}", message.into()))
    }

    /// 429 with a delay in seconds.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after: i32) -> Self {
        Self::failure(429, "TooManyRequests", message).retry_after(retry_after)
    }

    /// 406 naming what can be had.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::failure(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 415 naming what is taken.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::failure(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 500.
    #[must_use]
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self::failure(500, "InternalError", format!("Internal error occurred: {message}")).cause("", message, "")
    }

    /// 503.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504 with a delay in seconds.
    #[must_use]
    pub fn timeout(message: &str, retry_after: i32) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after)
    }

    /// Its JSON text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and numbers always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_upstream() {
        let s = Status::not_found("apps", "deployments", "x");
        assert_eq!(
            String::from_utf8(s.to_json()).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        );
        let back: Status = serde_json::from_slice(&s.to_json()).unwrap();
        assert_eq!(back, s);
    }

    #[test]
    fn invalid_lists_causes() {
        let cause = |f: &str| StatusCause {
            reason: "FieldValueRequired".into(),
            message: "Required value".into(),
            field: f.into(),
        };
        let one = Status::invalid("", "Pod", "a", vec![cause("spec")]);
        assert_eq!(one.message, "Pod \"a\" is invalid: spec: Required value");
        let two = Status::invalid("apps", "Deployment", "a", vec![cause("spec.x"), cause("spec.y")]);
        assert_eq!(two.message, "Deployment.apps \"a\" is invalid: [spec.x: Required value, spec.y: Required value]");
    }
}
