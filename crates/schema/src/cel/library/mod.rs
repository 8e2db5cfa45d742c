//! What Kubernetes' functions do, for the evaluation of expressions.

mod addresses;
mod budget;
mod lists;
mod quantities;
mod texts;
mod times;
mod urls;
mod versions;

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::types::{BOOL_TYPE, DYN_TYPE, INT_TYPE, LIST_TYPE, MAP_TYPE, STRING_TYPE, Type as Runtime};
use cel::common::value::{CowVal, Val};
use cel::objects::{Key, Map, Opaque, OptionalValue, Value};
use cel::{Context, DeclarationError, ExecutionError, extensions};

pub use quantities::CelQuantity;
pub use times::{CelSpan, CelTime};
pub use versions::Semver;

/// What a function gets and what it says.
type Outcome = Result<Value, ExecutionError>;

/// The language and Kubernetes' functions.
static ENV: LazyLock<Arc<cel::Env>> = LazyLock::new(|| {
    let mut env = cel::Env::stdlib();
    #[allow(clippy::expect_used, reason = "declarations are constant: the tests of this module find what clashes")]
    declare(&mut env).expect("no two functions are declared alike");
    Arc::new(env)
});

/// A context with all functions, and without variables.
#[must_use]
pub fn context<'v>() -> Context<'static, 'v> {
    Context::with_env(Arc::clone(&ENV))
}

/// Evaluates a compiled expression, which may cost what is left; what is left then is there afterwards. One unit is
/// about one turn of a loop, or a look at ten characters.
///
/// # Errors
/// Why it has no result: `operation cancelled: actual cost limit exceeded` when it would cost more.
pub fn evaluate(compiled: &super::Compiled, context: &Context<'_, '_>, left: &mut u64) -> Result<Value, String> {
    budget::within(left, || Value::resolve(&compiled.expr, context))
}

/// A value of a library.
pub fn opaque(value: impl Opaque) -> Value {
    Value::Opaque(Arc::new(value))
}

/// A JSON value as expressions see it where nothing is known of its type.
#[must_use]
pub fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => string(s.as_str()),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(from_json).collect())),
        serde_json::Value::Object(object) => {
            let entry = |(k, v): (&String, &serde_json::Value)| (Key::String(Arc::new(k.clone())), from_json(v));
            Value::Map(Map { map: Arc::new(object.iter().map(entry).collect()) })
        }
    }
}

fn declare(env: &mut cel::Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    budget::declare(env)?;
    quantities::declare(env)?;
    versions::declare(env)?;
    addresses::declare(env)?;
    lists::declare(env)?;
    texts::declare(env)?;
    times::declare(env)?;
    urls::declare(env)
}

/// Declares functions: `g` global, `m` with the first argument before the dot.
macro_rules! functions {
    ($env:expr; $($style:ident $name:literal ($($t:expr),*) $f:expr;)*) => {{
        $( $crate::cel::library::functions!(@one $env, $style, $name, [$($t),*], $f); )*
        Ok(())
    }};
    (@one $env:expr, g, $name:literal, [$($t:expr),*], $f:expr) => {
        $env.add_overload($name, concat!($name, "(", stringify!($($t),*), ")"), vec![$($t),*], |args| {
            $crate::cel::library::bridge(args, $f)
        })?
    };
    (@one $env:expr, m, $name:literal, [$target:expr $(, $t:expr)*], $f:expr) => {
        $env.add_member_overload($name, concat!(stringify!($target), ".", $name, "(", stringify!($($t),*), ")"),
            $target, vec![$($t),*], |args| $crate::cel::library::bridge(args, $f))?
    };
}
use functions;

/// Calls a function of values with what the interpreter has.
fn bridge<'b, 'v>(args: Vec<CowVal<'b, 'v>>, f: fn(&[Value]) -> Outcome) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = args.iter().map(|a| Value::try_from(a.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let result: Box<dyn Val> = f(&values)?.try_into()?;
    Ok(CowVal::Owned(result))
}

fn fail(function: &str, why: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

fn no_overload(function: &str) -> ExecutionError {
    fail(function, "no such overload")
}

fn string(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

/// The text of an argument.
fn text(args: &[Value], at: usize) -> Result<&str, ExecutionError> {
    match args.get(at) {
        Some(Value::String(s)) => Ok(s),
        _ => Err(no_overload("string")),
    }
}

/// The number of an argument.
fn int(args: &[Value], at: usize) -> Result<i64, ExecutionError> {
    match args.get(at) {
        Some(Value::Int(n)) => Ok(*n),
        _ => Err(no_overload("int")),
    }
}

/// The items of an argument.
fn items(args: &[Value], at: usize) -> Result<&[Value], ExecutionError> {
    match args.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(no_overload("list")),
    }
}

/// The library's value of an argument.
fn value_of<T: Opaque>(args: &[Value], at: usize) -> Result<&T, ExecutionError> {
    match args.get(at) {
        Some(Value::Opaque(o)) => o.downcast_ref::<T>().ok_or_else(|| no_overload("value")),
        _ => Err(no_overload("value")),
    }
}

/// The order of two values, where they have one.
fn order(a: &Value, b: &Value) -> Result<Ordering, ExecutionError> {
    a.partial_cmp(b).ok_or_else(|| no_overload("compare"))
}

fn some(value: Value) -> Value {
    opaque(OptionalValue::of(value))
}

fn none() -> Value {
    opaque(OptionalValue::none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{Env, compile};

    fn result(source: &str) -> String {
        costing(source, 1_000_000)
    }

    fn costing(source: &str, mut most: u64) -> String {
        let compiled = match compile(source, &Env::new().with_bind()) {
            Ok(compiled) => compiled,
            Err(issues) => return issues.to_string(),
        };
        match evaluate(&compiled, &context(), &mut most) {
            Ok(Value::String(s)) => s.to_string(),
            Ok(value) => format!("{value:?}"),
            Err(e) => e,
        }
    }

    /// What upstream's documentation says of each library.
    #[test]
    fn all_hold() {
        let mut wrong = Vec::new();
        for source in [
            "quantity('200M').compareTo(quantity('0.2G')) == 0",
            "quantity('50M').compareTo(quantity('50Mi')) == -1",
            "quantity('150Mi').isGreaterThan(quantity('100Mi'))",
            "quantity('50M').isLessThan(quantity('100M'))",
            "quantity('50k').add(quantity('20k')) == quantity('70k')",
            "quantity('50k').add(20) == quantity('50020')",
            "quantity('50k').sub(20000) == quantity('30k')",
            "quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20')",
            "quantity('50k').asInteger() == 50000",
            "quantity('50k').sub(20000).asApproximateFloat() == 30000.0",
            "quantity('50000000G').isInteger() && !quantity('9999999999999999999999999999999999999G').isInteger()",
            "isQuantity('1.3Gi') && !isQuantity('1,3G') && !isQuantity('200K')",
            "sign(quantity('-1')) == -1",
            "semver('1.0.0').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.2.3').compareTo(semver('1.2.3')) == 0",
            "semver('1.2.3-alpha').isLessThan(semver('1.2.3'))",
            "isSemver('1.0.0') && !isSemver('1.0') && !isSemver('hello') && !isSemver('v1.0.0')",
            "isSemver('v1.0', true) && semver('v01.01', true) == semver('1.1.0')",
            "isSemver('1.2.3-a.1+b.01') && !isSemver('1.2.3-01') && !isSemver('1.2.3-')",
            "ip('127.0.0.1').isLoopback() && ip('::1').isLoopback() && ip('::').isUnspecified()",
            "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6",
            "isIP('::1') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%en0') && !isIP('127.0.0.1.0') && !isIP('01.2.3.4')",
            "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
            "ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()",
            "ip('169.254.169.254').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast()",
            "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
            "string(ip('192.168.0.1')) == '192.168.0.1' && type(ip('::1')) == net.IP",
            "ip('::1') == ip('0:0:0:0:0:0:0:1')",
            "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1')) && !cidr('192.168.0.0/24').containsIP('192.168.1.1')",
            "cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))",
            "!cidr('192.168.1.0/24').containsCIDR('192.168.0.0/16')",
            "cidr('192.168.1.5/24').ip() == ip('192.168.1.5') && cidr('2001:db8::/32').prefixLength() == 32",
            "cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24') && cidr('0.0.0.0/0').masked() == cidr('0.0.0.0/0')",
            "isCIDR('::/0') && !isCIDR('192.168.0.0/33') && !isCIDR('1.2.3.4') && !isCIDR('1.2.3.4/08')",
            "string(cidr('192.168.0.0/24')) == '192.168.0.0/24'",
            "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
            "'123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
            "[1, 3].isSorted() && !['b', 'a'].isSorted() && [1.0].isSorted()",
            "[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [1, 3].min() == 1 && ['a', 'c', 'b'].max() == 'c'",
            "[1, 2, 2, 3].indexOf(2) == 1 && [1, 2, 2, 3].lastIndexOf(2) == 2 && ['a'].indexOf('b') == -1",
            "sets.contains([1, 2], [2]) && !sets.contains([1], [2]) && sets.contains([], [])",
            "sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1, 2], [2, 3]) && !sets.intersects([], [1])",
            "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![dyn(1)].slice(0, 0).first().hasValue()",
            "[optional.of(1), optional.none()].unwrapOpt() == [1]",
            "{'a': 1}.?a.orValue(2) == 1 && {'a': 1}[?'b'].orValue(2) == 2",
            "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().optFlatMap(x, optional.of(x)).hasValue()",
            "[1, 2, 3].all(i, v, i < v) && !{'hello': 'world', 'taco': 'taco'}.all(k, v, k != v)",
            "{'greeting': 'hello', 'farewell': 'goodbye'}.exists(k, v, k.startsWith('good') || v.endsWith('bye'))",
            "[1, 1, 2, 2, 3, 3].existsOne(i, v, i == 2 && v == 2) && {'i': 0, 'j': 1}.exists_one(k, v, v == 1)",
            "[1, 2, 3].transformList(i, v, (i * v) + v) == [1, 4, 9]",
            "[1, 2, 3].transformList(i, v, i % 2 == 0, (i * v) + v) == [1, 9]",
            "[1, 2, 3].transformMap(i, v, (i * v) + v) == {0: 1, 1: 4, 2: 9}",
            "{'greeting': 'hello'}.transformMapEntry(k, v, {v: k}) == {'hello': 'greeting'}",
            "[3, 1, 2].sort() == [1, 2, 3] && ['ab', 'c'].sortBy(s, s.size()) == ['c', 'ab']",
            "lists.range(3) == [0, 1, 2] && [[1], [2]].flatten() == [1, 2] && [1, 1].distinct() == [1]",
            "'a,b'.split(',').join('-') == 'a-b' && 'Ab'.lowerAscii() == 'ab' && 'abc'.substring(1) == 'bc'",
            "cel.bind(x, [1, 2], x.size() == 2 && x[0] == 1)",
            "format.dns1123Label().validate('my-label') == optional.none()",
            "format.dns1123Label().validate('Bad_').hasValue() && !format.dns1123LabelPrefix().validate('a-').hasValue()",
            "format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000') == optional.none()",
            "!format.named('nothing').hasValue() && format.byte().validate('#').hasValue()",
            "[1, 2].map(x, x > 1, x * 2) == [4] && [1, 2].filter(x, x > 1) == [2]",
            "!has({'a': 1}.b) && has({'a': 1}.a)",
            "duration('1h30m') > duration('0.5s') && duration('1h') + duration('30m') == duration('90m')",
            "duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90 && duration('1.5s').getMilliseconds() == 1500",
            "string(duration('90m')) == '5400s' && string(duration('-0.5s')) == '-0.5s'",
            "timestamp('2024-02-29T23:30:15.5Z').getFullYear() == 2024 && timestamp('2024-02-29T23:30:15Z').getMonth() == 1",
            "timestamp('2024-02-29T23:30:15Z').getDate() == 29 && timestamp('2024-02-29T23:30:15Z').getDayOfMonth() == 28",
            "timestamp('2024-03-01T00:00:00Z').getDayOfYear() == 60 && timestamp('2024-03-01T00:00:00Z').getDayOfWeek() == 5",
            "timestamp('2024-07-01T12:00:00Z').getHours('America/New_York') == 8 && timestamp('2024-01-01T12:00:00Z').getHours('America/New_York') == 7",
            "timestamp('2024-02-29T23:30:15Z').getHours('+01:00') == 0 && timestamp('2024-02-29T23:30:15Z').getMinutes() == 30",
            "timestamp('2024-02-29T23:30:15.25Z').getMilliseconds() == 250 && timestamp('1969-12-31T23:59:59Z').getSeconds('UTC') == 59",
            "timestamp('2024-01-01T01:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('1h')",
            "timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
            "timestamp('2024-01-01T00:00:00Z') - duration('1s') < timestamp('2024-01-01T00:00:00Z')",
            "int(timestamp('1970-01-01T00:01:00Z')) == 60 && timestamp(60) == timestamp('1970-01-01T00:01:00Z')",
            "string(timestamp('2024-01-01T02:00:00.50+02:00')) == '2024-01-01T00:00:00.5Z'",
            "url('https://user:pass@example.com:80/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
            "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1'",
            "url('https://example.com:80/').getPort() == '80' && url('https://example.com/').getPort() == ''",
            "url('/absolute/path').getScheme() == '' && url('HTTPS://a/').getScheme() == 'https'",
            "url('https://a/?k1=a&k2=b&k2=c%20d').getQuery() == {'k1': ['a'], 'k2': ['b', 'c d']}",
            "isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path')",
            "!isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('') && !isURL('example.com')",
        ] {
            if result(source) != "Bool(true)" {
                wrong.push(format!("{source}: {}", result(source)));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn objects_of_the_api() {
        let env = crate::cel::Admission::default().env();
        let object =
            serde_json::json!({"spec": {"replicas": 3, "ratio": 0.5, "names": ["a"], "none": null, "on": true}});
        let mut context = context();
        context.add_variable_from_value("object", from_json(&object));
        for source in [
            "object.spec.replicas == 3 && object.spec.ratio < 1.0 && object.spec.on && object.spec.none == null",
            "object.spec.names.all(n, n.size() == 1) && !has(object.spec.missing)",
            "object.?spec.?missing.orValue('x') == 'x' && object.spec.names.exists(i, n, i == 0 && n == 'a')",
        ] {
            let compiled = compile(source, &env).unwrap();
            let mut left = 1_000_000;
            assert_eq!(evaluate(&compiled, &context, &mut left), Ok(Value::Bool(true)), "{source}");
            let whole = compile("object == object", &env).unwrap();
            let mut of_whole = 1_000_000;
            assert_eq!(evaluate(&whole, &context, &mut of_whole), Ok(Value::Bool(true)));
            assert!(of_whole < 1_000_000 - 10, "what is given costs as what is made does");
        }
    }

    #[test]
    fn what_cannot_be() {
        for (source, expect) in [
            ("quantity('200K')", "quantity"),
            ("quantity('9999999999999999999999999999999999999G').asInteger()", "cannot convert value to integer"),
            ("semver('1')", "semver"),
            ("ip('x')", "IP Address \"x\" parse error during conversion from string"),
            ("ip('::ffff:1.2.3.4')", "IPv4-mapped IPv6 address"),
            ("[1].slice(0, 0).min()", "min called on empty list"),
            ("[9223372036854775807, 1].sum()", "integer overflow"),
            ("'a'.find('[')", "Illegal regex"),
            ("timestamp('9999-12-31T23:59:59Z') + duration('1s') == timestamp(0)", "overflow"),
            ("timestamp(0).getHours('Moon/Base')", "unknown time zone Moon/Base"),
            ("url('../x')", "invalid URI for request"),
            ("[1, 1].transformMapEntry(i, v, {v: i})", "already exists"),
        ] {
            let found = result(source);
            assert!(found.contains(expect), "{source}: {found}");
        }
    }

    #[test]
    fn costs_are_limited() {
        const OVER: &str = "operation cancelled: actual cost limit exceeded";
        let check = |source: &str, expect: &str| {
            let found = costing(source, 100_000);
            assert_eq!(found.get(..200).unwrap_or(&found), expect, "{}", source.get(..200).unwrap_or(source));
        };
        let numbers = "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29]";
        let nested = |depth: usize, name: &str, inner: &str| {
            (0..depth).fold(inner.to_owned(), |e, i| format!("{numbers}.{name}(v{i}, {e})"))
        };
        check(&format!("{}.size()", nested(2, "map", "1")), "Int(30)");
        // Loops within loops, whatever of them looks past errors.
        for (name, inner) in [("map", "1"), ("all", "true"), ("exists", "false"), ("exists_one", "true")] {
            check(&nested(8, name, inner), OVER);
        }
        let filters = (0..8).fold("true".to_owned(), |e, i| format!("{numbers}.filter(v{i}, {e}).size() >= 0"));
        check(&filters, OVER);
        check(&format!("{} || true", nested(8, "all", "true")), OVER);
        // Texts and lists that double.
        let doubled = |first: &str, each: &dyn Fn(&str) -> String| {
            let names = (0..60)
                .rev()
                .fold("v60.size()".to_owned(), |e, i| format!("cel.bind(v{}, {}, {e})", i + 1, each(&format!("v{i}"))));
            format!("cel.bind(v0, {first}, {names})")
        };
        check(&doubled("'xy'", &|v| format!("{v} + {v}")), OVER);
        check(&doubled("[1]", &|v| format!("{v} + {v}")), OVER);
        check(&doubled("'xy'", &|v| format!("{v}.replace('x', 'xx')")), OVER);
        check(&doubled("'xy'", &|v| format!("'%s%s'.format([{v}, {v}])")), OVER);
        check(&doubled("'xy'", &|v| format!("['a', 'b', 'c'].join({v})")), OVER);
        // What one call makes of much, though none of what it is given is too much.
        let large = |first: &str, body: &str| {
            let sums = (0..12)
                .rev()
                .fold(body.replace("BIG", "v12"), |e, i| format!("cel.bind(v{}, v{i} + v{i}, {e})", i + 1));
            format!("cel.bind(v0, {first}, {sums})")
        };
        check(&large("'x'", "BIG.size()"), "Int(4096)");
        check(&large("'x'", "BIG.replace('x', BIG).size()"), OVER);
        check(&large("'x'", "BIG.indexOf(BIG)"), OVER);
        check(&large("'x'", "['a', 'b', 'c'].join(BIG).size()"), "Int(8195)");
        check(&large("['x']", &format!("BIG.join('{}').size()", "0123456789".repeat(20))), OVER);
        check(&large("'%s'", "BIG.format([BIG])"), OVER);
        check(&large("[1]", "sets.contains(BIG, BIG) || sets.intersects(BIG, [2])"), OVER);
        // What is compared with each other, and patterns.
        let many = nested(2, "map", "v1 * 100 + v0");
        let numbers = numbers.replace("29]", "29,30,31,32,33,34,35,36,37,38,39]");
        check(&format!("{many}.map(l, l.map(x, [x])).distinct().size()"), OVER);
        let texts = format!("{numbers}.map(i, string(i))");
        check(&format!("{texts}.all(t, t.matches('^[0-9]+$'))"), "Bool(true)");
        check(&format!("{texts}.map(t, {texts}.map(u, (t + u).matches(t + '(a{{1,9}}){{1,9}}' + u)))"), OVER);
    }
}
