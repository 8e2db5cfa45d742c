//! Loops with two variables, made into what the interpreter knows: loops over pairs.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::macros::bound;

/// The function that makes pairs of keys, or places, and values.
const PAIRS: &str = "@pairs";
const PAIR: &str = "@pair";

/// Replaces all loops with two variables within an expression whose types are known.
pub(super) fn lower(e: &mut IdedExpr) {
    match &mut e.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(lower),
        Expr::Select(select) => lower(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(lower),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| entry_parts(&mut entry.expr)),
        Expr::Struct(object) => object.entries.iter_mut().for_each(|entry| entry_parts(&mut entry.expr)),
        Expr::Comprehension(c) => {
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
                lower(part);
            }
            if let Some(second) = c.iter_var2.take() {
                over_pairs(c, second);
            }
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn entry_parts(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::MapEntry(entry) => {
            lower(&mut entry.key);
            lower(&mut entry.value);
        }
        EntryExpr::StructField(field) => lower(&mut field.value),
    }
}

fn over_pairs(c: &mut ComprehensionExpr, second: String) {
    let id = c.iter_range.id;
    let node = |expr| IdedExpr { id, expr };
    let range = std::mem::take(&mut c.iter_range);
    c.iter_range = node(Expr::Call(CallExpr { func_name: PAIRS.to_owned(), target: None, args: vec![range] }));
    let first = std::mem::replace(&mut c.iter_var, PAIR.to_owned());
    let part = |at: i64| {
        let (pair, at) = (node(Expr::Ident(PAIR.to_owned())), node(Expr::Literal(LiteralValue::Int(at.into()))));
        node(Expr::Call(CallExpr { func_name: "_[_]".to_owned(), target: None, args: vec![pair, at] }))
    };
    // `all` and `exists` look past errors: the interpreter knows them by their steps.
    let body = match &mut c.loop_step.expr {
        Expr::Call(CallExpr { func_name, args, .. }) if matches!(func_name.as_str(), "_&&_" | "_||_") => {
            args.last_mut()
        }
        _ => None,
    };
    let body = match body {
        Some(test) => test,
        None => &mut c.loop_step,
    };
    let inner = bound(node, &second, part(1), std::mem::take(body));
    *body = bound(node, &first, part(0), inner);
}
