//! Applying a patch to an object's present state.

use pintle_api::Status;

/// The patch types, by their media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    /// All, in upstream's order.
    const ALL: &'static [(&'static str, Self)] = &[
        ("application/json-patch+json", Self::Json),
        ("application/merge-patch+json", Self::Merge),
        ("application/strategic-merge-patch+json", Self::Strategic),
        ("application/apply-patch+yaml", Self::Apply),
    ];

    /// From a `Content-Type` header.
    ///
    /// # Errors
    /// 415 when it is none.
    pub(crate) fn parse(content_type: &str) -> Result<Self, Status> {
        let base = content_type.split(';').next().unwrap_or_default();
        Self::ALL
            .iter()
            .find(|(n, _)| *n == base)
            .map(|(_, t)| *t)
            .ok_or_else(|| Status::unsupported_media_type(&Self::ALL.iter().map(|(n, _)| *n).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        assert_eq!(PatchType::parse("application/merge-patch+json; charset=utf-8").unwrap(), PatchType::Merge);
        let e = PatchType::parse("text/plain").unwrap_err();
        assert_eq!(e.code, 415);
        assert!(e.message.contains("application/json-patch+json, application/merge-patch+json"));
    }
}
