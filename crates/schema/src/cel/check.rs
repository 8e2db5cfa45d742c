//! Which type each part of an expression has.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, StructExpr};

use super::decls::Overload;
use super::env::Env;
use super::issues::{Issue, Lines};
use super::parse::Parsed;
use super::types::Type;
use super::unify::{Unknowns, instantiate, less_specific};

/// The types of all parts by their numbers.
#[derive(Debug)]
pub(super) struct Types(Vec<Option<Type>>);

impl Types {
    pub(super) fn of(&self, id: u64) -> &Type {
        usize::try_from(id).ok().and_then(|i| self.0.get(i)).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }
}

/// The types of an expression's parts, or what is wrong.
pub(super) fn check(parsed: &Parsed, lines: &Lines, env: &Env) -> Result<Types, Vec<Issue>> {
    let types = vec![None; parsed.places.len()];
    let unknowns = Unknowns::new(types.len());
    let mut checker = Checker { env, parsed, lines, types, unknowns, scope: Vec::new(), issues: Vec::new() };
    checker.check(&parsed.expr);
    for t in &mut checker.types {
        *t = t.take().map(|t| checker.unknowns.resolve(&t, true));
    }
    if checker.unknowns.exhausted() {
        return Err(vec![lines.issue(0, "the types of the expression are too complex".to_owned())]);
    }
    if checker.issues.is_empty() { Ok(Types(checker.types)) } else { Err(checker.issues) }
}

/// `a.b.c`, if it is nothing but names.
pub(super) fn qualified(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let mut name = qualified(&select.operand.expr)?;
            name.push('.');
            name.push_str(&select.field);
            Some(name)
        }
        _ => None,
    }
}

struct Checker<'a> {
    env: &'a Env,
    parsed: &'a Parsed,
    lines: &'a Lines,
    types: Vec<Option<Type>>,
    unknowns: Unknowns,
    scope: Vec<(&'a str, Type)>,
    issues: Vec<Issue>,
}

impl<'a> Checker<'a> {
    fn wrong(&mut self, id: u64, message: String) {
        self.issues.push(self.lines.issue(self.parsed.places.of(id), message));
    }

    fn check(&mut self, e: &'a IdedExpr) -> Type {
        let t = match &e.expr {
            _ if self.unknowns.exhausted() => Type::Error,
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => match self.ident(name) {
                Some(t) => t,
                None => self.undeclared(e.id, name),
            },
            Expr::Select(select) => {
                let found = if select.test { None } else { qualified(&e.expr).and_then(|name| self.ident(&name)) };
                match found {
                    Some(t) => t,
                    None => {
                        let t = self.select(e.id, &select.operand, &select.field, false);
                        if select.test { Type::Bool } else { self.unknowns.resolve(&t, false) }
                    }
                }
            }
            Expr::Call(call) => self.call(e.id, call),
            Expr::List(list) => {
                let mut joined = None;
                for (i, element) in list.elements.iter().enumerate() {
                    let t = self.check(element);
                    let t = self.present(element.id, t, list.optional_indices.contains(&i));
                    joined = Some(self.join(joined, t));
                }
                Type::list(joined.unwrap_or_else(|| self.unknowns.fresh()))
            }
            Expr::Map(map) => {
                let mut joined = None;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let (old_key, old_value) = joined.unzip();
                    let key = self.check(&entry.key);
                    let key = self.join(old_key, key);
                    let value = self.check(&entry.value);
                    let value = self.present(entry.value.id, value, entry.optional);
                    joined = Some((key, self.join(old_value, value)));
                }
                let (key, value) = joined.unwrap_or_else(|| (self.unknowns.fresh(), self.unknowns.fresh()));
                Type::map(key, value)
            }
            Expr::Struct(object) => self.object(e.id, object),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Unspecified => Type::Error,
        };
        if let Some(place) = usize::try_from(e.id).ok().and_then(|i| self.types.get_mut(i)) {
            *place = Some(t.clone());
        }
        t
    }

    fn ident(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let local = self.scope.iter().rev().find(|(n, _)| *n == name).map(|(_, t)| t.clone());
        local.or_else(|| self.env.ident(name))
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.wrong(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: u64, expected: &Type, found: &Type) {
        self.wrong(id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// The type of an element that may be left out when it is optional.
    fn present(&mut self, id: u64, t: Type, optional: bool) -> Type {
        if !optional {
            return t;
        }
        let (inner, wrapped) = t.unwrapped();
        if !wrapped && !t.is_dyn() {
            self.mismatch(id, &Type::optional(t.clone()), &t);
        }
        inner.clone()
    }

    /// The type of elements that have these types; whether they may differ is looked at later.
    fn join(&mut self, before: Option<Type>, t: Type) -> Type {
        let Some(before) = before else { return t };
        if self.unknowns.assignable(&before, &t) {
            return if less_specific(&before, &t) { before } else { t };
        }
        Type::Dyn
    }

    fn select(&mut self, id: u64, operand: &'a IdedExpr, field: &str, optional: bool) -> Type {
        let operand = self.check(operand);
        let operand = self.unknowns.resolve(&operand, false);
        let (target, wrapped) = operand.unwrapped();
        let result = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(_) => self.field(id, target, field).unwrap_or(Type::Error),
            Type::Var(_) => {
                self.unknowns.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            t => {
                if !t.is_dyn_or_error() {
                    self.wrong(id, format!("type '{t}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if wrapped || optional { Type::optional(result) } else { result }
    }

    fn field(&mut self, id: u64, object: &Type, field: &str) -> Option<Type> {
        let Type::Object(object) = object else { return None };
        match object.field(field) {
            Some(Some(t)) => Some(t),
            Some(None) => {
                self.wrong(id, format!("undefined field '{field}'"));
                None
            }
            None => {
                self.wrong(id, format!("unexpected failed resolution of '{}'", object.name));
                None
            }
        }
    }

    fn call(&mut self, id: u64, call: &'a CallExpr) -> Type {
        let name = call.func_name.as_str();
        if name == "_?._"
            && let [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] = call.args.as_slice()
        {
            let t = self.select(id, operand, field.inner(), true);
            return self.unknowns.resolve(&t, false);
        }
        let mut args: Vec<(u64, Type)> = call.args.iter().map(|a| (a.id, self.check(a))).collect();
        let mut found = None;
        if let Some(target) = &call.target {
            let whole = qualified(&target.expr).map(|prefix| format!("{prefix}.{name}"));
            let global = whole.as_deref().and_then(|whole| self.env.function(whole.strip_prefix('.').unwrap_or(whole)));
            match (global, whole) {
                (Some(overloads), Some(whole)) => found = Some((whole, overloads, false)),
                _ => {
                    args.insert(0, (target.id, self.check(target)));
                    found = self.env.function(name).map(|o| (name.to_owned(), o, true));
                }
            }
        } else if let Some(overloads) = self.env.function(name.strip_prefix('.').unwrap_or(name)) {
            found = Some((name.to_owned(), overloads, false));
        }
        match found {
            Some((name, overloads, member)) => self.overloaded(id, &name, overloads, member, &args),
            None => self.undeclared(id, name),
        }
    }

    fn overloaded(&mut self, id: u64, name: &str, overloads: &[Overload], member: bool, args: &[(u64, Type)]) -> Type {
        if matches!(name, "_&&_" | "_||_") {
            let mut result = Type::Bool;
            for (id, t) in args {
                if !self.unknowns.assignable(t, &Type::Bool) {
                    self.mismatch(*id, &Type::Bool, t);
                    result = Type::Error;
                }
            }
            return result;
        }
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == member && o.args.len() == args.len()) {
            let base = self.unknowns.several(overload.params);
            let wanted: Vec<Type> = overload.args.iter().map(|a| instantiate(a, base)).collect();
            let pairs: Vec<(&Type, &Type)> = args.iter().map(|(_, t)| t).zip(&wanted).collect();
            if !self.unknowns.all_assignable(&pairs) {
                continue;
            }
            let t = self.unknowns.resolve(&instantiate(&overload.result, base), false);
            result = match result {
                None => Some(t),
                Some(before) if before.is_dyn() || before == t => Some(before),
                Some(_) => Some(Type::Dyn),
            };
        }
        result.unwrap_or_else(|| {
            let mut types: Vec<String> = args.iter().map(|(_, t)| self.unknowns.resolve(t, true).to_string()).collect();
            let target = if member { format!("{}.", types.remove(0)) } else { String::new() };
            let types = types.join(", ");
            self.wrong(id, format!("found no matching overload for '{name}' applied to '{target}({types})'"));
            Type::Error
        })
    }

    fn object(&mut self, id: u64, made: &'a StructExpr) -> Type {
        let name = made.type_name.as_str();
        let result = match self.ident(name) {
            None => return self.undeclared(id, name),
            Some(Type::Error) => Type::Error,
            Some(Type::Type(Some(t))) => match &*t {
                Type::Object(_) | Type::Timestamp | Type::Duration => (*t).clone(),
                other => {
                    self.wrong(id, format!("'{}' is not a message type", other.declared()));
                    Type::Error
                }
            },
            Some(other) => {
                self.wrong(id, format!("'{}' is not a type", other.declared()));
                Type::Error
            }
        };
        for entry in &made.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let value = self.check(&field.value);
            let wanted = match &result {
                Type::Object(_) => self.field(entry.id, &result, &field.field),
                Type::Error => None,
                _ => {
                    self.wrong(entry.id, format!("undefined field '{}'", field.field));
                    None
                }
            };
            let wanted = wanted.unwrap_or(Type::Error);
            let value = self.present(field.value.id, value, field.optional);
            if !self.unknowns.assignable(&wanted, &value) {
                let name = &field.field;
                let message = format!("expected type of field '{name}' is '{wanted}' but provided type is '{value}'");
                self.wrong(entry.id, message);
            }
        }
        result
    }

    fn comprehension(&mut self, c: &'a ComprehensionExpr) -> Type {
        let range = self.check(&c.iter_range);
        let accu = self.check(&c.accu_init);
        // What variables hold may be doubled by each part: it is measured here.
        let (range, accu) = (self.unknowns.resolve(&range, false), self.unknowns.resolve(&accu, false));
        let outer = self.scope.len();
        self.scope.push((&c.accu_var, accu.clone()));
        let two = c.iter_var2.is_some();
        let (first, second) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Any | Type::Error | Type::Var(_) => {
                self.unknowns.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(c.iter_range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let inner = self.scope.len();
        self.scope.push((&c.iter_var, first));
        if let Some(name) = &c.iter_var2 {
            self.scope.push((name, second));
        }
        for (part, wanted) in [(&c.loop_cond, &Type::Bool), (&c.loop_step, &accu)] {
            let t = self.check(part);
            if !self.unknowns.assignable(wanted, &t) {
                self.mismatch(part.id, wanted, &t);
            }
        }
        self.scope.truncate(inner);
        let result = self.check(&c.result);
        self.scope.truncate(outer);
        self.unknowns.resolve(&result, false)
    }
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}
