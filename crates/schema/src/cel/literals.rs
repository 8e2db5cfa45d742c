//! What can be told to be wrong of literals once the types are known.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use pintle_api::duration::nanoseconds;

use super::check::Types;
use super::formats;
use super::issues::{Issue, Lines};
use super::parse::Parsed;
use super::types::Type;

/// Literals that are no durations, times or patterns, and lists and maps of several types.
pub(super) fn check(parsed: &Parsed, types: &Types, lines: &Lines) -> Vec<Issue> {
    let mut walk = Walk { parsed, types, lines, issues: Vec::new() };
    walk.visit(&parsed.expr, false);
    walk.issues
}

struct Walk<'a> {
    parsed: &'a Parsed,
    types: &'a Types,
    lines: &'a Lines,
    issues: Vec<Issue>,
}

impl Walk<'_> {
    fn wrong(&mut self, id: u64, message: String) {
        self.issues.push(self.lines.issue(self.parsed.places.of(id), message));
    }

    /// `formats`: within a call of `format`, whose list may hold anything.
    fn visit(&mut self, e: &IdedExpr, formats: bool) {
        match &e.expr {
            Expr::Call(call) => {
                self.call(call);
                self.format(e.id, call);
                let formats = formats || call.func_name == "format";
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.visit(part, formats);
                }
            }
            Expr::Select(select) => self.visit(&select.operand, formats),
            Expr::List(list) => {
                let (types, mut first) = (self.types, None);
                for (i, element) in list.elements.iter().enumerate() {
                    self.visit(element, formats);
                    let t = present(types.of(element.id), list.optional_indices.contains(&i));
                    let first = *first.get_or_insert(t);
                    if first != t && !formats {
                        self.differs(element.id, first, t);
                        // Only the first that differs is told.
                        for rest in &list.elements[i + 1..] {
                            self.visit(rest, formats);
                        }
                        break;
                    }
                }
            }
            Expr::Map(map) => {
                let (types, mut first) = (self.types, None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    self.visit(&entry.key, formats);
                    self.visit(&entry.value, formats);
                    let (key, value) = (types.of(entry.key.id), present(types.of(entry.value.id), entry.optional));
                    let (first_key, first_value) = *first.get_or_insert((key, value));
                    for (id, first, t) in [(entry.key.id, first_key, key), (entry.value.id, first_value, value)] {
                        if first != t && !formats {
                            self.differs(id, first, t);
                        }
                    }
                }
            }
            Expr::Struct(object) => {
                for entry in &object.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        self.visit(&field.value, formats);
                    }
                }
            }
            Expr::Comprehension(c) => {
                for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                    self.visit(part, formats);
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn differs(&mut self, id: u64, first: &Type, t: &Type) {
        self.wrong(id, format!("expected type '{first}' but found '{t}'"));
    }

    /// The arguments of a text that is filled in.
    fn format(&mut self, id: u64, call: &CallExpr) {
        let (Some(target), [IdedExpr { expr: Expr::List(list), .. }]) = (&call.target, call.args.as_slice()) else {
            return;
        };
        if let (Expr::Literal(LiteralValue::String(text)), "format") = (&target.expr, call.func_name.as_str())
            && let Some((arg, message)) = formats::check(text.inner(), &list.elements, self.types)
        {
            self.wrong(arg.unwrap_or(id), message);
        }
    }

    fn call(&mut self, call: &CallExpr) {
        let Some(IdedExpr { id, expr: Expr::Literal(LiteralValue::String(text)) }) = call.args.first() else { return };
        let text = text.inner();
        let name = call.func_name.as_str();
        let good = match name {
            "duration" => nanoseconds(text).is_ok(),
            "timestamp" => timestamp(text),
            "matches" => regex(text),
            _ => true,
        };
        if !good {
            self.wrong(*id, format!("invalid {name} argument"));
        }
    }
}

fn present(t: &Type, optional: bool) -> &Type {
    if optional { t.unwrapped().0 } else { t }
}

/// Whether it is a time as RFC 3339 writes it, between the years 1 and 9999.
fn timestamp(text: &str) -> bool {
    let upper = text.as_bytes();
    let shape = upper.len() >= 20 && upper[10] == b'T' && !text.contains(char::is_lowercase);
    shape && crate::time::parse(text, false).is_ok() && !text.starts_with("0000")
}

/// Whether Go would take it as a pattern. Nothing is kept of it, and large ones cost little.
fn regex(text: &str) -> bool {
    regex_syntax::ParserBuilder::new().nest_limit(250).build().parse(text).is_ok()
}
