//! Expressions of webhooks and policies are compiled when they are written.

use pintle_schema::cel::{self, Admission, Compiled, Type, Variables};
use pintle_schema::cursor::{Cursor, Errors};

/// What an expression may speak of besides the request and its objects.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) params: bool,
    pub(super) authorizer: bool,
    /// The types that objects are changed with.
    pub(super) mutation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { params: false, authorizer: true, mutation: false }
    }
}

/// Compiles the expressions of one policy.
#[derive(Default)]
pub(super) struct Expressions {
    /// The variables so far; none at all when the policy has none.
    variables: Option<Variables>,
}

impl Expressions {
    /// With `variables`, of which there are none yet.
    pub(super) fn composed() -> Self {
        Self { variables: Some(Variables::default()) }
    }

    /// Compiles what is at a field; `shown` is what messages show of it.
    pub(super) fn check(
        &self,
        at: &Cursor<'_>,
        text: &str,
        shown: &str,
        options: Options,
        wanted: &[Type],
        errors: &mut Errors,
    ) -> Option<Compiled> {
        let Options { params, authorizer, mutation } = options;
        let params = params.then_some(Type::Dyn);
        let admission = Admission { params, authorizer, request_resource: authorizer, mutation, object: None };
        let mut env = admission.env();
        if let Some(variables) = &self.variables {
            env.declare("variables", variables.as_type());
        }
        match cel::compile_to(text, &env, wanted) {
            Ok(compiled) => Some(compiled),
            Err(detail) => {
                errors.invalid_value(at, shown, detail);
                None
            }
        }
    }

    /// Compiles a variable; those after it may speak of it.
    pub(super) fn variable(&mut self, name: &str, at: &Cursor<'_>, options: Options, errors: &mut Errors) {
        let compiled = self.check(at, at.str(), at.str(), options, &[Type::Any, Type::Dyn], errors);
        if let Some(variables) = &mut self.variables {
            variables.add(name, compiled.as_ref().map(|c| &c.result));
        }
    }
}
