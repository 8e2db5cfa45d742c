//! Who owns which field: `metadata.managedFields`, kept on every write, and server-side apply.

use pintle_api::Status;
use pintle_api::status::StatusCause;
use pintle_schema::apply::{self, ApplyError, Request, Schema, Set};
use pintle_schema::{Mode, decode};
use serde_json::Value;

use super::Res;
use super::create::Write;
use super::options::FieldValidation;
use crate::Server;

impl Res {
    /// The fields that a write through this sub-resource (or the main one) does not change.
    fn reset(&self, subresource: &str) -> &Set {
        self.resets.iter().find(|(name, _)| *name == subresource).map_or(&self.resets[0].1, |(_, set)| set)
    }
}

/// The reset fields of a strategy: of the main resource first.
pub(super) fn resets(strategy: &'static crate::kinds::Strategy) -> Vec<(&'static str, Set)> {
    let mut out = vec![("", Set::of(strategy.reset_fields))];
    out.extend(strategy.subresources.iter().map(|(name, sub)| (*name, Set::of(sub.reset_fields))));
    out
}

impl Server {
    /// Notes in `new` what this write changes. Apply does so by itself.
    pub(crate) fn track(&self, w: &Write<'_>, live: Option<&Value>, new: &mut Value) {
        let Some(ty) = w.res.storage_ty else { return };
        if w.options.applies {
            return;
        }
        let manager = w.options.manager(w.ctx.user_agent());
        let now = pintle_api::time::format(self.clock.now());
        apply::update(live, new, &self.request(w, Schema::Type(ty), &manager, &now));
    }

    fn request<'a>(&self, w: &Write<'a>, schema: Schema<'a>, manager: &'a str, now: &'a str) -> Request<'a> {
        Request {
            schema,
            api_version: &w.res.storage_api_version,
            kind: w.res.storage.kind,
            subresource: w.subresource,
            manager,
            now,
            reset: w.res.reset(w.subresource),
            versions: None,
        }
    }

    /// The object after an apply, in the stored version.
    ///
    /// # Errors
    /// 400 for a configuration that does not parse, 409 when others own what it changes.
    pub(crate) fn applied(&self, w: &Write<'_>, live: Option<&Value>, config: &[u8]) -> Result<Value, Status> {
        let Some(ty) = w.res.storage_ty else {
            return Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
            ]));
        };
        let (mut config, duplicates) =
            decode::yaml_to_value(config).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
        if !config.is_object() {
            return Err(Status::bad_request("error decoding patch: it is no object"));
        }
        let mut complaints: Vec<String> = Vec::new();
        if !duplicates.is_empty() {
            complaints.push(duplicates);
        }
        if let Some(shown) = w.res.ty
            && w.options.validation != FieldValidation::Ignore
            && let Ok(d) = decode::decode_value(config.clone(), shown, Mode::Strict)
        {
            complaints.extend(d.strict);
        }
        if w.options.validation == FieldValidation::Strict && !complaints.is_empty() {
            return Err(Status::bad_request(format!("error strict decoding patch: {}", complaints.join(", "))));
        }
        for text in complaints {
            w.ctx.warn(text);
        }
        if w.res.converts() && config.get("apiVersion").and_then(Value::as_str) == Some(&w.res.api_version) {
            super::versions::convert(&mut config, w.res.def, w.res.storage);
        }
        let now = pintle_api::time::format(self.clock.now());
        let request = self.request(w, Schema::Type(ty), &w.options.field_manager, &now);
        let object = apply::apply(live, &config, &request, w.options.force == Some(true)).map_err(|e| refusal(&e))?;
        let decoded =
            decode::decode_value(object, ty, Mode::Lenient).map_err(|e| Status::bad_request(e.to_string()))?;
        let mut object = decoded.value;
        w.res.default(&mut object);
        Ok(object)
    }
}

fn refusal(e: &ApplyError) -> Status {
    match e {
        ApplyError::BadRequest(text) => Status::bad_request(text.clone()),
        ApplyError::Internal(text) => Status::internal(text),
        ApplyError::Conflicts(all) => {
            let mut s = Status::failure(409, "Conflict", e.to_string());
            s.details_mut().causes = all
                .iter()
                .map(|c| StatusCause { reason: apply::CONFLICT_CAUSE.into(), message: c.message(), field: c.field() })
                .collect();
            s
        }
    }
}

/// Puts the old owners back when only the times of their writes differ, so that a write that changes nothing is none.
pub(crate) fn keep_times(new: &mut Value, old: &Value) {
    const OWNERS: &str = "/metadata/managedFields";
    let (Some(owners), Some(kept)) = (new.pointer_mut(OWNERS), old.pointer(OWNERS)) else { return };
    let differ_in_time = owners != kept && equal_but_for_time(owners, kept);
    if !differ_in_time {
        return;
    }
    let own = std::mem::replace(owners, kept.clone());
    if new != old
        && let Some(owners) = new.pointer_mut(OWNERS)
    {
        *owners = own;
    }
}

fn equal_but_for_time(a: &Value, b: &Value) -> bool {
    fn without_time(entry: &Value) -> Option<impl Iterator<Item = (&String, &Value)>> {
        entry.as_object().map(|members| members.iter().filter(|(key, _)| *key != "time"))
    }
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (without_time(a), without_time(b)) {
            (Some(a), Some(b)) => a.eq(b),
            _ => a == b,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_alone_are_no_change() {
        let old = json!({"metadata": {"managedFields": [{"manager": "a", "time": "1"}]}, "data": {"a": "b"}});
        let mut new = json!({"metadata": {"managedFields": [{"manager": "a", "time": "2"}]}, "data": {"a": "b"}});
        keep_times(&mut new, &old);
        assert_eq!(new, old);
        let mut other = json!({"metadata": {"managedFields": [{"manager": "a", "time": "2"}]}, "data": {"a": "c"}});
        let before = other.clone();
        keep_times(&mut other, &old);
        assert_eq!(other, before);
    }
}
