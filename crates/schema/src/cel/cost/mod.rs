//! What an expression costs at most, known before it is evaluated: cel-go's estimate, by which upstream refuses device
//! selectors that are too complex. [`super::library`] limits what evaluating costs; that is counted in other units.

mod calls;
mod estimate;

use std::collections::HashMap;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr};

pub use estimate::Estimate;

use super::check::Types;
use super::env::Env;
use super::macros::{OLD_RESULT, RESULT};
use super::types::Type;

/// What a name or a selection costs, and making a list, a map or an object; constants are free.
const NAME: u64 = 1;
const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;

/// How a value is reached from a variable: names of fields, [`ITEMS`], [`KEYS`] and [`VALUES`].
pub(super) type Path = Vec<String>;
/// The items of a list.
pub(super) const ITEMS: &str = "@items";
/// The keys of a map.
pub(super) const KEYS: &str = "@keys";
/// The values of a map.
pub(super) const VALUES: &str = "@values";

/// The largest size that the value at a path has, if that is known.
pub(super) type Sizes = fn(&[String]) -> Option<u64>;

/// Estimates the cost of an expression.
pub(super) fn estimate(expr: &IdedExpr, types: &Types, env: &Env, sizes: Sizes) -> Estimate {
    let mut coster = Coster {
        types,
        env,
        sizes,
        paths: HashMap::new(),
        locals: HashMap::new(),
        known: HashMap::new(),
        entries: HashMap::new(),
    };
    coster.cost(expr)
}

/// The sizes of what a list or map holds.
#[derive(Clone, Copy)]
struct Entries {
    map: bool,
    /// Of the keys; one for the places of a list.
    key: Estimate,
    value: Estimate,
}

impl Entries {
    fn or(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { map: a.map, key: a.key.or(b.key), value: a.value.or(b.value) })
    }
}

/// A variable of a loop or of `cel.bind`.
struct Local {
    path: Path,
    size: Option<Estimate>,
    entries: Option<Entries>,
}

struct Coster<'a> {
    types: &'a Types,
    env: &'a Env,
    sizes: Sizes,
    /// How parts are reached, by their numbers.
    paths: HashMap<u64, Path>,
    locals: HashMap<&'a str, Vec<Local>>,
    /// The sizes of results, by the numbers of the parts.
    known: HashMap<u64, Estimate>,
    entries: HashMap<u64, Entries>,
}

impl<'a> Coster<'a> {
    fn cost(&mut self, e: &'a IdedExpr) -> Estimate {
        match &e.expr {
            Expr::Literal(_) | Expr::Unspecified => Estimate::default(),
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(e.id, path);
                Estimate::fixed(NAME)
            }
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                // `has` is free, as it has always been in Kubernetes.
                if select.test {
                    return operand;
                }
                let own = match self.types.of(select.operand.id) {
                    Type::Map(..) | Type::Object(_) | Type::Param(_) | Type::Var(_) => NAME,
                    _ => 0,
                };
                let path = self.path(&select.operand, &select.field);
                self.paths.insert(e.id, path);
                operand.plus(Estimate::fixed(own))
            }
            Expr::Call(call) => self.call(e, call),
            Expr::List(list) => self.list(e.id, list),
            Expr::Map(map) => self.map(e.id, map),
            Expr::Struct(object) => {
                let mut sum = Estimate::fixed(OBJECT);
                for entry in &object.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        sum = sum.plus(self.cost(&field.value));
                    }
                }
                sum
            }
            Expr::Comprehension(c) if is_bind(c) => {
                let outside = self.cost(&c.iter_range).plus(self.cost(&c.accu_init));
                self.bind(&c.accu_var, &c.accu_init);
                let result = self.cost(&c.result);
                self.unbind(&c.accu_var);
                self.same_size(e.id, &c.result);
                outside.plus(result)
            }
            Expr::Comprehension(c) => self.comprehension(e.id, c),
        }
    }

    fn list(&mut self, id: u64, list: &'a ListExpr) -> Estimate {
        let mut sum = Estimate::fixed(LIST);
        let mut value = if list.elements.is_empty() { Estimate::default() } else { Estimate::NONE };
        for element in &list.elements {
            sum = sum.plus(self.cost(element));
            value = value.or(self.size_or_unknown(element));
        }
        self.entries.insert(id, Entries { map: false, key: Estimate::fixed(1), value });
        sum
    }

    fn map(&mut self, id: u64, map: &'a MapExpr) -> Estimate {
        let mut sum = Estimate::fixed(MAP);
        let none = if map.entries.is_empty() { Estimate::default() } else { Estimate::NONE };
        let (mut key, mut value) = (none, none);
        for entry in &map.entries {
            if let EntryExpr::MapEntry(entry) = &entry.expr {
                sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                key = key.or(self.size_or_unknown(&entry.key));
                value = value.or(self.size_or_unknown(&entry.value));
            }
        }
        self.entries.insert(id, Entries { map: true, key, value });
        sum
    }

    fn comprehension(&mut self, id: u64, c: &'a ComprehensionExpr) -> Estimate {
        let outside = self.cost(&c.iter_range).plus(self.cost(&c.accu_init));
        self.bind(&c.accu_var, &c.accu_init);
        let entries = self.entries_of(&c.iter_range);
        let of_map = entries.map_or_else(|| !matches!(self.types.of(c.iter_range.id), Type::List(_)), |e| e.map);
        let (items, keys) = if of_map { (VALUES, KEYS) } else { (ITEMS, "@indices") };
        let two = c.iter_var2.as_deref();
        // The one variable of a loop over a list is the item, that of one over a map the key.
        let first = if two.is_none() && !of_map { items } else { keys };
        for (name, step) in [(Some(c.iter_var.as_str()), first), (two, items)] {
            let size = entries.map(|e| if step == keys { e.key } else { e.value });
            let path = self.path(&c.iter_range, step);
            if let Some(name) = name {
                self.locals.entry(name).or_default().push(Local { path, size, entries: None });
            }
        }
        let each = self.cost(&c.loop_cond).plus(self.cost(&c.loop_step));
        for name in [Some(c.iter_var.as_str()), two].into_iter().flatten() {
            self.unbind(name);
        }
        let result = self.cost(&c.result);
        self.unbind(&c.accu_var);
        let count = self.size_or_unknown(&c.iter_range);
        match &c.accu_init.expr {
            Expr::Literal(_) => {
                let size = self.size(&c.accu_init);
                self.known.extend(size.map(|size| (id, size)));
            }
            Expr::List(_) | Expr::Map(_) => {
                self.known.insert(id, count);
                let entries = self.entries_of(&c.loop_step);
                self.entries.extend(entries.map(|entries| (id, entries)));
            }
            _ => {}
        }
        outside.plus(result).plus(count.times(each))
    }

    fn call(&mut self, e: &'a IdedExpr, call: &'a CallExpr) -> Estimate {
        if call.func_name == "dyn"
            && let (None, [arg]) = (&call.target, call.args.as_slice())
        {
            let cost = self.cost(arg).plus(Estimate::fixed(1));
            self.same_size(e.id, arg);
            return cost;
        }
        let costs: Vec<Estimate> = call.args.iter().map(|arg| self.cost(arg)).collect();
        // `sets.contains(a, b)` has no target but a longer name.
        let whole = call.target.as_deref().and_then(|target| super::check::qualified(&target.expr));
        let whole = whole.map(|prefix| format!("{}.{}", prefix.trim_start_matches('.'), call.func_name));
        let global = whole.as_deref().filter(|whole| self.env.function(whole).is_some());
        let name = global.unwrap_or(call.func_name.trim_start_matches('.'));
        let target = call.target.as_deref().filter(|_| global.is_none());
        let of_target = target.map(|target| self.cost(target)).unwrap_or_default();
        let called = calls::Called { id: e.id, name, target, args: &call.args, costs: &costs };
        let (cost, size) = self.called(&called);
        if let Some(size) = size.or_else(|| self.size(e)) {
            self.known.insert(e.id, size);
        }
        of_target.plus(cost)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name)?.last()
    }

    /// Makes a variable that is what an expression is.
    fn bind(&mut self, name: &'a str, value: &'a IdedExpr) {
        let (path, size, entries) = (self.path_of(value), self.size(value), self.entries_of(value));
        self.locals.entry(name).or_default().push(Local { path, size, entries });
    }

    fn unbind(&mut self, name: &str) {
        if let Some(locals) = self.locals.get_mut(name) {
            locals.pop();
        }
    }

    fn path_of(&self, e: &IdedExpr) -> Path {
        let local = if let Expr::Ident(name) = &e.expr { self.local(name) } else { None };
        local.map(|local| &local.path).or_else(|| self.paths.get(&e.id)).cloned().unwrap_or_default()
    }

    /// How something of a part is reached.
    fn path(&self, e: &IdedExpr, step: &str) -> Path {
        let mut path = self.path_of(e);
        path.push(step.to_owned());
        path
    }

    fn same_size(&mut self, id: u64, as_of: &'a IdedExpr) {
        let (size, entries) = (self.size(as_of), self.entries_of(as_of));
        self.known.extend(size.map(|size| (id, size)));
        self.entries.extend(entries.map(|entries| (id, entries)));
    }

    fn entries_of(&self, e: &IdedExpr) -> Option<Entries> {
        let own = self.entries.get(&e.id).copied();
        let Expr::Ident(name) = &e.expr else { return own };
        own.or_else(|| self.local(name)?.entries)
    }

    /// The size at a path.
    fn size_at(&self, path: &[String]) -> Option<Estimate> {
        let first = path.first()?;
        // What a loop adds up is no value that was given.
        if first == RESULT || first == OLD_RESULT { None } else { (self.sizes)(path).map(Estimate::up_to) }
    }

    fn size(&self, e: &IdedExpr) -> Option<Estimate> {
        if let Some(size) = self.known.get(&e.id) {
            return Some(*size);
        }
        let written = match &e.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().chars().count()),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Some(bytes.inner().len()),
            Expr::Literal(_) => Some(1),
            Expr::List(list) => Some(list.elements.len()),
            Expr::Map(map) => Some(map.entries.len()),
            _ => None,
        };
        if let Some(written) = written {
            return Some(Estimate::fixed(written as u64));
        }
        let given = self.size_at(&self.path_of(e));
        given.or_else(|| is_scalar(self.types.of(e.id)).then_some(Estimate::fixed(1))).or_else(|| match &e.expr {
            Expr::Ident(name) => self.local(name)?.size,
            _ => None,
        })
    }

    fn size_or_unknown(&self, e: &IdedExpr) -> Estimate {
        self.size(e).unwrap_or(Estimate::UNKNOWN)
    }
}

/// Whether values of a type are all of one size.
fn is_scalar(t: &Type) -> bool {
    match t {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

/// Whether it is a loop over nothing, by which a variable is made.
fn is_bind(c: &ComprehensionExpr) -> bool {
    matches!(&c.iter_range.expr, Expr::List(list) if list.elements.is_empty())
        && matches!(&c.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(b)) if !*b.inner())
        && c.accu_var != OLD_RESULT
        && c.accu_var != RESULT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{DEVICE, compile};

    fn cost_in(env: &Env, source: &str) -> Estimate {
        let compiled = compile(source, env).unwrap_or_else(|e| panic!("{source}: {e}"));
        compiled.cost.unwrap_or_else(|| panic!("{source}: no cost"))
    }

    /// The figures are upstream's: of cel-go's, Kubernetes' libraries' and device selectors' own tests.
    #[test]
    fn costs_are_upstreams() {
        let sizes: Sizes = |path| match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["hundred" | "list"] => Some(100),
            ["ten" | "map"] => Some(10),
            ["map", KEYS] => Some(5),
            ["list", ITEMS] => Some(50),
            _ => None,
        };
        let env = Env::new()
            .with("hundred", Type::String)
            .with("ten", Type::String)
            .with("list", Type::list(Type::String))
            .with("map", Type::map(Type::String, Type::Int))
            .with("yes", Type::Bool)
            .with("at", Type::Timestamp)
            .with_bind()
            .with_sizes(sizes);
        let check =
            |source: &str, min: u64, max: u64| assert_eq!(cost_in(&env, source), Estimate { min, max }, "{source}");
        check("'Hello World!'", 0, 0);
        check("hundred", 1, 1);
        check("map['key']", 2, 2);
        check("[1, 2, 3]", 10, 10);
        check("{'a': 1, 'b': 2, 'c': 3}", 30, 30);
        check("[1, 2, 3].all(x, true)", 20, 20);
        check("'123'.matches('[0-9]')", 2, 2);
        check("hundred.matches('[0-9]')", 3, 23);
        check("true || false", 0, 0);
        check("yes || yes || yes || yes", 1, 4);
        check("1 < 2", 1, 1);
        check("2 in [1, 2, 3]", 13, 13);
        check("true ? 1 : 2", 0, 0);
        check("size('123') + size(b'123')", 3, 3);
        check("string(1)", 1, 1);
        check("hundred.contains(ten)", 2, 12);
        check("hundred.startsWith(ten) == hundred.endsWith(ten)", 5, 7);
        check("map.all(k, k.contains(k))", 2, 62);
        check("at == at", 3, 3);
        check("string(at) == string(at)", 5, 1_844_674_407_370_955_268);
        check("((5 != 6) == (1 == 2)) == ((3 <= 4) == (9 != 9))", 7, 7);
        check("[1,2,3,4,5].filter(x, x % 2 == 0)", 41, 101);
        check("[1,2,3,4,5].map(x, x)", 86, 86);
        check("[1,2,3,4,5].map(x, x).filter(x, x % 2 == 0)", 117, 177);
        check("[1,2,3,4,5].map(x, x).exists(x, x == 5) == true", 108, 118);
        check("[1,2,3,4,5].map(x, x).map(x, x)", 162, 162);
        check("[1,2,3,4,5].map(x, x)[4]", 87, 87);
        check("[[1,2],[1,2],[1,2],[1,2],[1,2]][4]", 61, 61);
        check("{'a': [1,2], 'b': [1,2], 'c': [1,2], 'd': [1,2], 'e': [1,2]}.b", 81, 81);
        check("url('https:://kubernetes.io/').getScheme()", 4, 4);
        check("url('https:://kubernetes.io/') == url('https:://kubernetes.io/')", 7, 9);
        check("'ABCDEFGHIJ abcdefghij'.lowerAscii()", 3, 3);
        check("'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()", 7, 9);
        check("strings.quote('ABCDEFGHIJ abcdefghij') == strings.quote('ABCDEFGHIJ abcdefghij')", 7, 11);
        check("'abc 123 def 123'.replace('123', '456')", 3, 3);
        check("'abc 123 def 123'.split(' ', 1)", 3, 3);
        check("'abc 123 def 123'.substring(5, 8)", 2, 2);
        check("'abc 123 def 123'.findAll('123', 1)", 2, 2);
        check("list.join(',')", 1, 511);
        check("quantity('200M') == quantity('0.2G') && quantity('0.2G') == quantity('200M')", 3, 6);
        check("quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger() > 0", 7, 7);
        check("format.named('dns1123Label').value().validate('my-name')", 34, 34);
        check("format.named('dns1123Label').value() == format.named('dns1123Label').value()", 5, 11);
        check("sets.contains([1, 2, 3, 4], [2, 3])", 29, 29);
        check("sets.contains([[1], [2, 3]], [[2, 3]])", 53, 53);
        check("!sets.equivalent([1, 2], [2, 2, 2])", 34, 34);
        check("sets.intersects([[1], [2, 3]], [[1, 2], [2, 3]])", 65, 65);
        check("has(map.key)", 1, 1);
    }

    #[test]
    fn costs_of_selectors_are_upstreams() {
        let check = |source: &str, max: u64| assert_eq!(cost_in(&DEVICE, source).max, max, "{source}");
        let a = "device.attributes['dra.example.com']";
        let c = "device.capacity['dra.example.com']";
        check("true", 0);
        check("device.attributes['no-such-domain'].noSuchAttr.isGreaterThan(quantity('0'))", 6);
        check("'no-such-domain' in device.attributes", 3);
        check("device.driver == ''", 2);
        check("device.driver == 'dra.example.com'", 4);
        check("device.allowMultipleAllocations == true", 3);
        check(&format!("{a}.name"), 4);
        check(&format!("{a}['name']"), 4);
        check(&format!("cel.bind(dra, {a}, dra.name)"), 15);
        check(&format!("{a}.name > 0"), 5);
        check(&format!("{a}.name == 'fish'"), 5);
        check(&format!("{a}.name.exists(x, x > 0)"), 5 + 6 * 64);
        check(&format!("{a}.names.all(x, x != '')"), 5 + 4 * 64);
        check(&format!("{a}.names.all(x, x.isGreaterThan(semver('0.0.1')))"), 5 + 6 * 64);
        check(&format!("{a}.names.size() == 2"), 6);
        check(&format!("{a}.name.isGreaterThan(semver('v0.0.1', true)) && isSemver('v1.0.0', true)"), 7);
        check(&format!("'name' in {c} && {c}.name.isGreaterThan(quantity('1Ki'))"), 10);
        check(&format!("!('name' in {c}) || {c}.name.isGreaterThan(quantity('1Ki'))"), 11);
        check(&format!("{a}.a && {a}.b && {a}.c"), 12);
        check("device.attributes.exists_one(x, x == 'dra.example.com')", 164);
        check(&format!("{a}.exists_one(x, x == 'services')"), 133);
        check(&format!("{a}.services.split('example').size() >= 2"), 19);
        check(&format!("{a}.services.matches('[^a]?sym')"), 18);
        check(&format!("{c}.exists_one(x, x == 'memory')"), 133);
        let innermost = "int('1'.find('[0-9]*')) < 100".to_owned();
        let nested = (0..7).fold(innermost, |e, i| format!("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(z{i}, {e})"));
        check(&nested, 85_555_551);
    }

    #[test]
    fn nothing_is_too_much_to_be_estimated() {
        let doubled =
            (0..70).fold("v0 == ''".to_owned(), |e, i| format!("cel.bind(v{i}, v{} + v{}, {e})", i + 1, i + 1));
        assert_eq!(cost_in(&DEVICE, &format!("cel.bind(v70, device.driver, {doubled})")).max, u64::MAX);
        // Numbers that make no sense where they stand.
        for source in ["[1, 2].slice(2, 1)", "lists.range(-1)", "[[1]].flatten(-1)", "'a'.split('', -1)"] {
            cost_in(&DEVICE, source);
        }
    }
}
