//! Kubernetes' expressions (CEL) as of 1.36: from the text to a tree whose types are known, and what upstream says of
//! those that are wrong.

mod check;
mod cost;
mod decls;
mod env;
mod formats;
mod issues;
mod lex;
pub mod library;
mod literals;
mod lower;
mod macros;
mod objects;
mod parse;
mod syntax;
mod types;
mod unify;

#[cfg(test)]
mod tests;

use cel::common::ast::IdedExpr;

pub use cost::Estimate;
pub use env::{Admission, DEVICE, Env, Variables, apply_configuration, json_patch};
pub use issues::{Issue, Issues};
pub use objects::{is_reserved, of_kind};
pub use types::{Fields, Object, Type};

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Compiled {
    /// Its tree.
    pub expr: IdedExpr,
    /// What it results in.
    pub result: Type,
    /// What evaluating it costs, in cel-go's units, if the environment says how large values are.
    pub cost: Option<Estimate>,
}

/// Compiles an expression that speaks of `env`.
///
/// # Errors
/// All that is wrong with it, as upstream says it: `ERROR: <input>:1:8: undefined field 'spce'…`.
pub fn compile(source: &str, env: &Env) -> Result<Compiled, Issues> {
    let failed = |list| Issues::new(source, list);
    let parsed = match parse::parse(source, env.bind) {
        Ok(parsed) => parsed,
        Err(parse::Failure::Issues(list)) => return Err(failed(list)),
        Err(parse::Failure::Syntax) => return Err(failed(syntax::issues(source))),
    };
    let lines = issues::Lines::new(source);
    let types = check::check(&parsed, &lines, env).map_err(failed)?;
    let wrong = literals::check(&parsed, &types, &lines);
    if !wrong.is_empty() {
        return Err(failed(wrong));
    }
    let result = types.of(parsed.expr.id).clone();
    let cost = env.sizes.map(|sizes| cost::estimate(&parsed.expr, &types, env, sizes));
    let mut expr = parsed.expr;
    lower::lower(&mut expr);
    Ok(Compiled { expr, result, cost })
}

/// Compiles an expression whose result has to be of one of these types.
///
/// # Errors
/// What upstream says of it: `compilation failed: …`, `must evaluate to bool but got string`.
pub fn compile_to(source: &str, env: &Env, wanted: &[Type]) -> Result<Compiled, String> {
    let compiled = compile(source, env).map_err(|issues| format!("compilation failed: {issues}"))?;
    if wanted.iter().any(|t| *t == Type::Any || *t == compiled.result) {
        return Ok(compiled);
    }
    let names: Vec<String> = wanted.iter().map(|t| t.declared().to_string()).collect();
    let names = if names.len() == 1 { names.concat() } else { format!("one of [{}]", names.join(" ")) };
    Err(format!("must evaluate to {names} but got {}", compiled.result.declared()))
}
