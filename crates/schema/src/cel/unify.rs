//! Which types go with which: unknown ones are found out on the way.

use std::sync::Arc;

use super::types::Type;

/// The most steps of one check, and the more for each part: an expression can make types that double with each of them.
const FUEL: usize = 10_000;
const FUEL_OF_PART: usize = 100;
/// The most parts of one type.
const SIZE: usize = 1_024;
/// How deep types may be nested.
const DEPTH: usize = 300;

/// What is known of the unknown types.
#[derive(Debug)]
pub(super) struct Unknowns {
    known: Vec<Option<Type>>,
    /// What was there before, to go back to.
    trail: Vec<(usize, Option<Type>)>,
    fuel: usize,
}

impl Unknowns {
    /// Nothing is known yet of an expression of so many parts.
    pub(super) fn new(parts: usize) -> Self {
        Self { known: Vec::new(), trail: Vec::new(), fuel: FUEL + FUEL_OF_PART * parts }
    }

    /// Whether it was more than anybody would write.
    pub(super) fn exhausted(&self) -> bool {
        self.fuel == 0
    }

    pub(super) fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Var(self.known.len() - 1)
    }

    /// So many new unknowns: the number of the first.
    pub(super) fn several(&mut self, n: u8) -> usize {
        let first = self.known.len();
        self.known.resize(first + usize::from(n), None);
        first
    }

    fn set(&mut self, var: usize, to: Type) {
        let old = self.known[var].replace(to);
        self.trail.push((var, old));
    }

    fn burn(&mut self, depth: usize) -> bool {
        self.fuel = if depth > DEPTH { 0 } else { self.fuel.saturating_sub(1) };
        self.fuel > 0
    }

    /// Whether `a` may stand where `b` is wanted; what is found out stays known only then.
    pub(super) fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.all_assignable(&[(a, b)])
    }

    /// The same of several.
    pub(super) fn all_assignable(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        let mark = self.trail.len();
        let ok = pairs.iter().all(|(a, b)| self.goes(a, b, 0));
        if !ok {
            for (var, old) in self.trail.drain(mark..).rev() {
                self.known[var] = old;
            }
        }
        ok
    }

    fn goes(&mut self, a: &Type, b: &Type, depth: usize) -> bool {
        if !self.burn(depth) {
            return false;
        }
        if let Type::Var(var) = b {
            match self.stands_for(a, *var, depth) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Var(var) = a {
            return self.stands_for(b, *var, depth).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.goes(a, b, depth + 1),
            (Type::Map(ak, av), Type::Map(bk, bv)) => self.goes(ak, bk, depth + 1) && self.goes(av, bv, depth + 1),
            (a, b) => a == b,
        }
    }

    /// Whether `var` can be `t`, and whether something is known of it.
    fn stands_for(&mut self, t: &Type, var: usize, depth: usize) -> (bool, bool) {
        if *t == Type::Var(var) {
            return (true, true);
        }
        if let Some(known) = self.known[var].clone() {
            if *t == known {
                return (true, true);
            }
            if self.goes(t, &known, depth + 1) {
                let general = if less_specific(t, &known) { t.clone() } else { known };
                if !self.occurs(var, &general, depth) {
                    self.set(var, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.occurs(var, t, depth) {
            return (false, false);
        }
        self.set(var, t.clone());
        (true, false)
    }

    fn occurs(&mut self, var: usize, within: &Type, depth: usize) -> bool {
        if !self.burn(depth) {
            return true;
        }
        match within {
            Type::Var(v) if *v == var => true,
            Type::Var(v) => match self.known[*v].clone() {
                Some(t) => self.occurs(var, &t, depth + 1),
                None => false,
            },
            Type::List(t) | Type::Optional(t) | Type::Type(Some(t)) => self.occurs(var, t, depth + 1),
            Type::Map(k, v) => self.occurs(var, k, depth + 1) || self.occurs(var, v, depth + 1),
            _ => false,
        }
    }

    /// The type with all in place that is known; what is not becomes `dyn` in the end.
    pub(super) fn resolve(&mut self, t: &Type, end: bool) -> Type {
        let before = self.fuel;
        let filled = self.fill(t, end, 0);
        if before - self.fuel > SIZE {
            self.fuel = 0;
        }
        filled
    }

    fn fill(&mut self, t: &Type, end: bool, depth: usize) -> Type {
        if !self.burn(depth) {
            return Type::Dyn;
        }
        match t {
            Type::Var(v) => match self.known[*v].clone() {
                Some(t) => self.fill(&t, end, depth + 1),
                None if end => Type::Dyn,
                None => t.clone(),
            },
            Type::List(of) => Type::List(self.filled(of, end, depth)),
            Type::Optional(of) => Type::Optional(self.filled(of, end, depth)),
            Type::Type(Some(of)) => Type::Type(Some(self.filled(of, end, depth))),
            Type::Map(k, v) => Type::Map(self.filled(k, end, depth), self.filled(v, end, depth)),
            t => t.clone(),
        }
    }

    /// Most types have nothing to fill in, and are shared.
    fn filled(&mut self, t: &Arc<Type>, end: bool, depth: usize) -> Arc<Type> {
        match **t {
            Type::Var(_) | Type::List(_) | Type::Optional(_) | Type::Type(Some(_)) | Type::Map(..) => {
                Arc::new(self.fill(t, end, depth + 1))
            }
            _ => Arc::clone(t),
        }
    }
}

/// A declared type with its parameters replaced: `Param(0)` is the unknown `base`.
pub(super) fn instantiate(t: &Type, base: usize) -> Type {
    match t {
        Type::Param(n) => Type::Var(base + usize::from(*n)),
        Type::List(of) => Type::list(instantiate(of, base)),
        Type::Optional(of) => Type::optional(instantiate(of, base)),
        Type::Type(Some(of)) => Type::Type(Some(Arc::new(instantiate(of, base)))),
        Type::Map(k, v) => Type::map(instantiate(k, base), instantiate(v, base)),
        t => t.clone(),
    }
}

/// Whether `a` is as general as `b` or more so.
pub(super) fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Var(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Var(_)) {
        return false;
    }
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(ak, av), Type::Map(bk, bv)) => less_specific(ak, bk) && less_specific(av, bv),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
