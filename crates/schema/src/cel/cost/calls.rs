//! What calls cost: the language's operators, and the functions of Kubernetes' libraries.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Coster, Entries, Estimate, ITEMS, VALUES};
use crate::cel::decls::Overload;
use crate::cel::types::Type;

/// How much a character costs that is looked at.
const TEXT: f64 = 0.1;
/// How much a character of a pattern does.
const PATTERN: f64 = 0.25;
/// How long the patterns of formats are at most, and the texts that tell formats apart.
const FORMAT_PATTERN: f64 = 128.0;
const FORMAT: u64 = 64;
/// What a check of an authorizer costs: no expression may make more than two.
const CHECK: u64 = 350_000;

/// A call. What its arguments cost is known.
pub(super) struct Called<'a, 'e> {
    pub id: u64,
    pub name: &'e str,
    pub target: Option<&'a IdedExpr>,
    pub args: &'a [IdedExpr],
    pub costs: &'e [Estimate],
}

/// A cost, and the size of the result where that is known.
type Cost = (Estimate, Option<Estimate>);

const ONE: Estimate = Estimate::fixed(1);

impl<'a> Coster<'a> {
    /// What a call costs with its arguments, whichever of the functions of its name it is.
    pub(super) fn called(&mut self, call: &Called<'a, '_>) -> Cost {
        let given = call.target.into_iter().chain(call.args);
        let given: Vec<&Type> = given.map(|arg| self.types.of(arg.id)).collect();
        let fits = |o: &&Overload| {
            o.member == call.target.is_some()
                && o.args.len() == given.len()
                && o.args.iter().zip(&given).all(|(declared, given)| may_be(declared, given))
        };
        let (mut cost, mut size, mut any) = (Estimate::NONE, None::<Estimate>, false);
        for overload in self.env.function(call.name).into_iter().flatten().filter(fits) {
            let (own, own_size) = self.overload(call, &overload.args);
            (cost, any) = (cost.or(own), true);
            size = match (size, own_size) {
                (Some(a), Some(b)) => Some(a.or(b)),
                (a, b) => a.or(b),
            };
        }
        if any { (cost, size) } else { (Estimate::default(), None) }
    }

    fn overload(&mut self, call: &Called<'a, '_>, declared: &[Type]) -> Cost {
        let sum = call.costs.iter().fold(Estimate::default(), |sum, cost| sum.plus(*cost));
        let own = self.of_lists(call, declared).or_else(|| self.of_kubernetes(call, declared));
        if let Some((cost, size)) = own.or_else(|| self.of_texts(call, declared)) {
            return (cost.plus(sum), size);
        }
        match (call.name, call.args) {
            ("_||_" | "_&&_", _) => {
                let first = call.costs.first().copied().unwrap_or_default();
                (Estimate { min: first.min, max: sum.max }, None)
            }
            ("_?_:_", [_, yes, no]) => {
                let size = self.size_or_unknown(yes).or(self.size_or_unknown(no));
                let entries = Entries::or(self.entries_of(yes), self.entries_of(no));
                self.entries.extend(entries.map(|entries| (call.id, entries)));
                let [condition, yes, no] = call.costs else { return (sum, None) };
                (condition.plus(yes.or(*no)), Some(size))
            }
            ("_[_]", [of, _]) => {
                let step = match declared.first() {
                    Some(Type::List(_)) => ITEMS,
                    Some(Type::Map(..)) => VALUES,
                    _ => return (sum.plus(ONE), None),
                };
                let path = self.path(of, step);
                self.paths.insert(call.id, path);
                (sum.plus(ONE), self.entries_of(of).map(|e| e.value))
            }
            ("_+_", [a, b]) if matches!(declared.first(), Some(Type::String | Type::Bytes | Type::List(_))) => {
                let size = self.size_or_unknown(a).plus(self.size_or_unknown(b));
                let entries = Entries::or(self.entries_of(a), self.entries_of(b));
                self.entries.extend(entries.map(|entries| (call.id, entries)));
                // Lists are joined without looking at them.
                let joined = if matches!(declared.first(), Some(Type::List(_))) { ONE } else { size.by(TEXT) };
                (joined.plus(sum), Some(size))
            }
            _ => (ONE.plus(sum), None),
        }
    }

    fn size_of_arg(&self, call: &Called<'a, '_>, at: usize) -> Estimate {
        call.args.get(at).map_or(Estimate::UNKNOWN, |arg| self.size_or_unknown(arg))
    }

    /// What the language's functions cost that look at texts or lists.
    fn of_texts(&self, call: &Called<'a, '_>, declared: &[Type]) -> Option<Cost> {
        let size = |at: usize| self.size_of_arg(call, at);
        let target = call.target.map(|target| self.size_or_unknown(target));
        let text = |at: usize| matches!(declared.get(at), Some(Type::String | Type::Bytes));
        Some(match (call.name, target) {
            ("format", Some(target)) => (target.by(TEXT), None),
            ("bytes", None) if declared == [Type::String] => {
                let size = size(0);
                (size.by(TEXT), Some(Estimate { min: size.min, max: size.max.wrapping_mul(4) }))
            }
            ("string", None) if declared == [Type::Bytes] => {
                let size = size(0);
                (size.by(TEXT), Some(Estimate { min: size.min / 4, max: size.max }))
            }
            ("strings.quote", None) => {
                let size = size(0);
                let quoted = |n: u64| n.wrapping_mul(2).wrapping_add(2);
                (size.by(TEXT), Some(Estimate { min: size.min.wrapping_add(2), max: quoted(size.max) }))
            }
            ("startsWith" | "endsWith", Some(_)) => (size(0).by(TEXT), None),
            ("@in", None) if matches!(declared.get(1), Some(Type::List(_))) => (size(1), None),
            ("matches", Some(target)) => (target.plus(ONE).by(TEXT).times(size(0).by(PATTERN)), None),
            ("contains", Some(target)) => (target.by(TEXT).times(size(0).by(TEXT)), None),
            ("_==_" | "_!=_", None) => (self.compared(call), None),
            ("_<_" | "_<=_" | "_>_" | "_>=_", None) if text(0) => (self.compared(call), None),
            _ => return None,
        })
    }

    fn compared(&self, call: &Called<'a, '_>) -> Estimate {
        let max = self.size_of_arg(call, 0).max.min(self.size_of_arg(call, 1).max);
        Estimate { min: u64::from(max > 0), max }.by(TEXT)
    }

    /// What cel-go's extensions for lists and sets cost.
    fn of_lists(&self, call: &Called<'a, '_>, declared: &[Type]) -> Option<Cost> {
        let size = |at: usize| self.size_of_arg(call, at);
        let target = call.target.map(|target| self.size_or_unknown(target));
        let listed = |factor: f64, size: Estimate| (size.by(factor).plus(Estimate::fixed(1 + super::LIST)), Some(size));
        // Sorting compares each with each.
        let sorted = |by: Option<&Type>, size: Estimate| {
            let Some(Type::List(of)) = by else { return (ONE, None) };
            let text = matches!(**of, Type::String | Type::Bytes);
            listed(if text { 2.0 + TEXT } else { 2.0 }, size.times(size))
        };
        Some(match (call.name, target) {
            ("slice", Some(target)) => {
                let (start, end) = (number(call.args.first(), 0), number(call.args.get(1), target.max));
                listed(1.0, Estimate::fixed(end.wrapping_sub(start)))
            }
            ("flatten", Some(target)) => {
                let depth = if call.args.is_empty() { 1 } else { number(call.args.first(), u64::MAX) };
                listed(depth as f64, target)
            }
            ("lists.range", None) => listed(1.0, Estimate::fixed(number(call.args.first(), u64::MAX))),
            ("reverse", Some(target)) => listed(1.0, target),
            ("distinct", Some(target)) => listed(2.0, target.times(target)),
            ("sort", Some(target)) => sorted(declared.first(), target),
            ("@sortByAssociatedKeys", Some(_)) => sorted(declared.get(1), size(0)),
            ("sets.contains" | "sets.intersects", None) => (size(0).times(size(1)).plus(ONE), None),
            ("sets.equivalent", None) => (size(0).times(size(1)).by(2.0).plus(ONE), None),
            _ => return None,
        })
    }

    /// What the functions of Kubernetes' own libraries cost, and those it has its own figures for.
    fn of_kubernetes(&self, call: &Called<'a, '_>, declared: &[Type]) -> Option<Cost> {
        let size = |at: usize| self.size_of_arg(call, at);
        let given = call.args.len();
        let target = call.target.map(|target| self.size_or_unknown(target));
        Some(match (call.name, target) {
            ("check", _) => (Estimate::fixed(CHECK), None),
            ("fieldSelector" | "labelSelector", _) if given == 1 => {
                let length = size(0);
                (Estimate::fixed(10).plus(length.by(TEXT)).plus(length.by(0.5).by(50.0)), None)
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target)) => {
                let each = call.target.and_then(|list| self.element(list)).map(|(of, size)| match of {
                    Type::String | Type::Bytes => ONE.plus(size.by(TEXT)),
                    _ => ONE,
                });
                (each.map_or_else(|| target.by(TEXT), |each| target.times(each)), None)
            }
            ("url" | "jsonpatch.escapeKey", _) if given == 1 => (size(0).by(TEXT), Some(size(0))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target)) => (target.by(TEXT), Some(target)),
            ("replace", Some(target)) if given >= 2 => {
                (target.by(2.0 * TEXT), Some(replaced(target, size(0), size(1))))
            }
            ("split", Some(target)) => {
                let parts = match call.args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::Int(n))) => *n.inner() as u64,
                    _ => target.max,
                };
                (target.by(2.0 * TEXT), Some(Estimate::up_to(parts)))
            }
            ("join", Some(target)) => {
                let items = call.target.and_then(|list| self.element(list)).map(|(_, size)| target.times(size));
                let between = Estimate { min: target.min.saturating_sub(1), max: target.max.saturating_sub(1) };
                let between = if given > 0 { size(0).times(between) } else { Estimate::default() };
                let size = items.unwrap_or_default().plus(between);
                (size.by(TEXT), Some(size))
            }
            ("find" | "findAll", Some(target)) if given >= 1 => {
                let cost = target.plus(ONE).by(TEXT).times(size(0).by(PATTERN));
                (cost, Some(Estimate::up_to(target.max)))
            }
            ("ip", Some(_)) => (ONE, None),
            ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", None) => {
                (size(0).by(TEXT), None)
            }
            ("ip.isCanonical", None) => (size(0).by(2.0 * TEXT), None),
            ("containsIP" | "containsCIDR", Some(_)) => {
                // An address has 4 or 16 bytes.
                let address = Estimate { min: 4, max: 16 };
                let mut cost = address.plus(address).by(TEXT);
                if call.name == "containsCIDR" {
                    cost = cost.plus(address.by(TEXT)).plus(ONE);
                }
                if declared.get(1) == Some(&Type::String) {
                    cost = cost.plus(size(0).by(TEXT));
                }
                (cost, None)
            }
            ("validate", Some(_)) => (size(0).by(TEXT).by(FORMAT_PATTERN * PATTERN), None),
            ("_==_", None) => (self.same(call)?, None),
            (name, _) if COSTS_ONE.contains(&name) => (ONE, None),
            _ => return None,
        })
    }

    /// What comparing two values of one of the libraries' types costs.
    fn same(&self, call: &Called<'a, '_>) -> Option<Estimate> {
        let [a, b] = call.args else { return None };
        let t = self.types.of(a.id);
        if t != self.types.of(b.id) {
            return None;
        }
        Some(match t {
            Type::Opaque(_) => ONE,
            Type::Object(object) => match object.name.as_str() {
                "kubernetes.Quantity" | "kubernetes.Semver" => ONE,
                name if name.starts_with("kubernetes.authorization.") => ONE,
                "kubernetes.NamedFormat" => Estimate { min: 1, max: FORMAT }.by(TEXT),
                "kubernetes.URL" => Estimate { min: 1, max: self.size(b).map_or(1, |size| size.max) }.by(TEXT),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The type and size of a list's items; of a map's keys.
    fn element(&self, list: &IdedExpr) -> Option<(&'a Type, Estimate)> {
        let (Type::List(of) | Type::Optional(of) | Type::Map(of, _)) = self.types.of(list.id) else { return None };
        Some((of, self.size_at(&self.path(list, ITEMS)).unwrap_or(Estimate::UNKNOWN)))
    }
}

/// What looks at no more than a part of something.
const COSTS_ONE: &[&str] = &[
    "serviceAccount",
    "path",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "allowed",
    "reason",
    "error",
    "errored",
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
    "getEscapedPath",
    "getQuery",
];

/// The size of a text in which one text was replaced by another.
fn replaced(text: Estimate, what: Estimate, with: Estimate) -> Estimate {
    // The longest: the shortest parts replaced by the longest text, as often as they can be there.
    let (times, kept) = match () {
        // What is empty stands before, between and after all characters.
        () if what.min == 0 => (text.max.saturating_add(1), text.max),
        () if with.max <= what.min => (0, text.max),
        () => (text.max.div_ceil(what.min), 0),
    };
    let max = times.saturating_mul(with.max).saturating_add(kept);
    let (times, kept) = match () {
        () if what.max == 0 => (text.min.saturating_add(1), text.min),
        () if what.max <= with.min => (0, text.min),
        () => (text.min.div_ceil(what.max), 0),
    };
    Estimate { min: times.saturating_mul(with.min).saturating_add(kept), max }
}

/// A number that is written there, 0 if it is negative.
fn number(arg: Option<&IdedExpr>, otherwise: u64) -> u64 {
    match arg.map(|arg| &arg.expr) {
        Some(Expr::Literal(LiteralValue::Int(n))) => u64::try_from(*n.inner()).unwrap_or(0),
        _ => otherwise,
    }
}

/// Whether a value of one type may be given where another is declared.
fn may_be(declared: &Type, given: &Type) -> bool {
    match (declared, given) {
        (Type::Param(_) | Type::Dyn | Type::Any | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Any | Type::Error | Type::Var(_) | Type::Param(_)) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => may_be(a, b),
        (Type::Map(a, b), Type::Map(c, d)) => may_be(a, c) && may_be(b, d),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
