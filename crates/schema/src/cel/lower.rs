//! What is evaluated instead of what was written: loops with two variables become what the interpreter knows, loops
//! over pairs; and everything that may take long says what it costs.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue};

use super::check::qualified;
use super::decls::is_function;
use super::macros::{UNUSED, bound};

/// The function that makes pairs of keys, or places, and values.
const PAIRS: &str = "@pairs";
const PAIR: &str = "@pair";
/// Functions that take their cost and return their last argument: of a value that is looked at as a whole, of one turn
/// of a loop over this item.
pub(super) const CHARGED: &str = "@charged";
pub(super) const TURN: &str = "@turn";
/// Whether a loop goes on: not when all is spent.
pub(super) const CONTINUES: &str = "@continues";
/// Takes the product of what its arguments cost, and returns the first.
pub(super) const FITS: &str = "@fits";

const MATCHES: &str = "@matches";
/// Calls that do not look at the whole of what they are given.
const CHEAP: &[&str] = &[
    "_&&_",
    "_||_",
    "!_",
    "_?_:_",
    "_[_]",
    "_[?_]",
    "_?._",
    "-_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "size",
    "@not_strictly_false",
    "type",
    "dyn",
    "optional.none",
];
/// Calls that may look at, or make, as much as their arguments multiplied.
const PRODUCTS: &[&str] = &["replace", "join", "format", "indexOf", "lastIndexOf", "distinct"];
/// What the target and the arguments of such a call are called meanwhile.
const NAMES: [&str; 4] = ["@0", "@1", "@2", "@3"];

/// Makes an expression whose types are known one that can be evaluated.
pub(super) fn lower(e: &mut IdedExpr) {
    let id = e.id;
    match &mut e.expr {
        Expr::Call(call) => {
            if let Some(whole) = self::call(id, call) {
                e.expr = whole;
            }
        }
        Expr::Select(select) => lower(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(lower),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| entry_parts(&mut entry.expr)),
        Expr::Struct(object) => object.entries.iter_mut().for_each(|entry| entry_parts(&mut entry.expr)),
        Expr::Comprehension(c) => comprehension(c),
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

fn made(id: u64, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

fn ident(id: u64, name: &str) -> IdedExpr {
    IdedExpr { id, expr: Expr::Ident(name.to_owned()) }
}

fn charged(e: &mut IdedExpr) {
    if !matches!(e.expr, Expr::Literal(_)) {
        *e = made(e.id, CHARGED, vec![std::mem::take(e)]);
    }
}

/// Something that stands for the call, unless it is the call itself.
fn call(id: u64, call: &mut CallExpr) -> Option<Expr> {
    // `sets.contains(a, b)` has no target but in how it is written.
    let whole = |target: &IdedExpr| qualified(&target.expr).map(|prefix| format!("{prefix}.{}", call.func_name));
    let target = match call.target.as_deref() {
        Some(target) if whole(target).is_some_and(|name| is_function(&name)) => None,
        Some(_) => call.target.as_deref_mut(),
        None => None,
    };
    let member = target.is_some();
    let name = call.func_name.clone();
    target.into_iter().chain(&mut call.args).for_each(|part| {
        lower(part);
        if !CHEAP.contains(&name.as_str()) {
            charged(part);
        }
    });
    if name == "matches" {
        // The interpreter's own compiles its pattern each time.
        let target = call.target.take().filter(|_| member).map(|t| *t);
        let args = target.into_iter().chain(std::mem::take(&mut call.args)).collect();
        return Some(made(id, MATCHES, args).expr);
    }
    if !member || !PRODUCTS.contains(&call.func_name.as_str()) || call.args.len() >= NAMES.len() {
        return None;
    }
    let target = call.target.take()?;
    let parts = std::iter::once(*target).chain(std::mem::take(&mut call.args));
    let parts: Vec<(&str, IdedExpr)> = NAMES.into_iter().zip(parts).collect();
    let mut names: Vec<IdedExpr> = parts.iter().map(|(name, _)| ident(id, name)).collect();
    let args = names[1..].to_vec();
    if args.is_empty() {
        // It is compared with itself.
        names.push(ident(id, NAMES[0]));
    }
    let target = Some(Box::new(made(id, FITS, names)));
    let product = CallExpr { func_name: call.func_name.clone(), target, args };
    let body = IdedExpr { id, expr: Expr::Call(product) };
    let node = |expr| IdedExpr { id, expr };
    // The last is innermost: what comes later does not speak of what is bound here.
    Some(parts.into_iter().rev().fold(body, |body, (name, part)| bound(node, name, part, body)).expr)
}

fn comprehension(c: &mut ComprehensionExpr) {
    let item = ident(c.iter_range.id, &c.iter_var);
    let turn = |e: &mut IdedExpr| *e = made(e.id, TURN, vec![item.clone(), std::mem::take(e)]);
    if let Some((guard, items)) = appended(c) {
        // The interpreter knows these by their form, and makes one list of them.
        let [first, rest @ ..] = &mut items.elements[..] else { return };
        std::iter::once(&mut *first).chain(rest).for_each(lower);
        match guard {
            Some(guard) => {
                lower(guard);
                turn(guard);
            }
            None => turn(first),
        }
        return lower(&mut c.iter_range);
    }
    for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
        lower(part);
    }
    if c.iter_var == UNUSED {
        return charged(&mut c.accu_init);
    }
    if !matches!(c.loop_cond.expr, Expr::Literal(_)) {
        c.loop_cond = made(c.loop_cond.id, CONTINUES, vec![std::mem::take(&mut c.loop_cond)]);
    }
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
    turn(body);
    let Some(second) = c.iter_var2.take() else { return };
    let id = c.iter_range.id;
    let node = |expr| IdedExpr { id, expr };
    let part = |at: i64| {
        let at = node(Expr::Literal(LiteralValue::Int(at.into())));
        made(id, "_[_]", vec![ident(id, PAIR), at])
    };
    let inner = bound(node, &second, part(1), std::mem::take(body));
    *body = bound(node, &c.iter_var, part(0), inner);
    let mut range = std::mem::take(&mut c.iter_range);
    charged(&mut range);
    c.iter_range = made(id, PAIRS, vec![range]);
    PAIR.clone_into(&mut c.iter_var);
}

/// The filter, and the items that each turn adds to a list, of `map` and `filter`.
fn appended(c: &mut ComprehensionExpr) -> Option<(Option<&mut IdedExpr>, &mut ListExpr)> {
    let accu = &c.accu_var;
    let is_accu = |e: &IdedExpr| matches!(&e.expr, Expr::Ident(name) if name == accu);
    let whole = c.iter_var2.is_none() && is_accu(&c.result) && matches!(c.loop_cond.expr, Expr::Literal(_));
    let empty = matches!(&c.accu_init.expr, Expr::List(list) if list.elements.is_empty());
    let added = |e| match e {
        &mut Expr::Call(CallExpr { ref func_name, ref mut args, .. }) if func_name == "_+_" => match &mut args[..] {
            [sum, IdedExpr { expr: Expr::List(list), .. }] if is_accu(sum) && !list.elements.is_empty() => Some(list),
            _ => None,
        },
        _ => None,
    };
    if !whole || !empty {
        return None;
    }
    let step = &mut c.loop_step.expr;
    if !matches!(step, Expr::Call(CallExpr { func_name, .. }) if func_name == "_?_:_") {
        return Some((None, added(step)?));
    }
    let Expr::Call(CallExpr { args, .. }) = step else { return None };
    match &mut args[..] {
        [guard, step, otherwise] if is_accu(otherwise) => Some((Some(guard), added(&mut step.expr)?)),
        _ => None,
    }
}
