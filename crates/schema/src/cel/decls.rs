//! The declarations of functions, read from `decls.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::Type;

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// Whether the first argument stands before the dot.
    pub(super) member: bool,
    pub(super) args: Vec<Type>,
    pub(super) result: Type,
    /// How many parameters its types have.
    pub(super) params: u8,
}

#[derive(Debug)]
struct Function {
    overloads: Vec<Overload>,
    /// Only where objects are changed.
    mutation: bool,
}

const COMPARABLE: &[&str] = &["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];
const SUMMABLE: &[&str] = &["int", "uint", "double", "duration"];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| read(include_str!("decls.txt")));

/// The ways to call the function of this name.
pub(super) fn function(name: &str, mutation: bool) -> Option<&'static [Overload]> {
    FUNCTIONS.get(name).filter(|f| mutation || !f.mutation).map(|f| &*f.overloads)
}

/// Whether there is a function of this name.
pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains_key(name)
}

fn read(text: &'static str) -> HashMap<&'static str, Function> {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    let mut mutation = false;
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if line == "[mutation]" {
            mutation = true;
            continue;
        }
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (names, style, args, result) = (word(), word(), word(), word());
        for name in names.split(';') {
            let function = functions.entry(name).or_insert(Function { overloads: Vec::new(), mutation });
            function
                .overloads
                .extend(expanded(args, result).map(|(args, result)| overload(style == "m", &args, &result)));
        }
    }
    functions
}

/// The line for each of the types that `$C` or `$S` stands for.
fn expanded<'a>(args: &'a str, result: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let (mark, types): (&str, &[&str]) = match () {
        () if args.contains("$C") => ("$C", COMPARABLE),
        () if args.contains("$S") => ("$S", SUMMABLE),
        () => ("$", &[""]),
    };
    types.iter().map(move |t| (args.replace(mark, t), result.replace(mark, t)))
}

fn overload(member: bool, args: &str, result: &str) -> Overload {
    let mut params = 0;
    let args = if args == "-" { Vec::new() } else { parts(args).map(|a| parsed(a, &mut params)).collect() };
    let result = parsed(result, &mut params);
    Overload { member, args, result, params }
}

/// What commas outside of parentheses separate.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
}

fn parsed(text: &str, params: &mut u8) -> Type {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let mut inner = parts(inner).map(|t| parsed(t, params)).collect::<Vec<_>>();
        let last = inner.pop().unwrap_or(Type::Dyn);
        return match outer {
            "list" => Type::list(last),
            "optional" => Type::optional(last),
            "type" => Type::Type(Some(last.into())),
            _ => Type::map(inner.pop().unwrap_or(Type::Dyn), last),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        name => match name.as_bytes() {
            [letter @ b'A'..=b'Z'] => {
                let n = letter - b'A';
                *params = (*params).max(n + 1);
                Type::Param(n)
            }
            _ => plain(name).unwrap_or_else(|| Type::library(name)),
        },
    }
}

/// The types that have one name in declarations and in expressions.
fn plain(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        _ => return None,
    })
}

/// The type that a name stands for in an expression: `type(x) == int`.
pub(super) fn type_of_name(name: &str) -> Option<Type> {
    Some(match name {
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(None),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        _ => return plain(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all() {
        let all: usize = FUNCTIONS.values().map(|f| f.overloads.len()).sum();
        let lines = include_str!("decls.txt").lines().filter(|l| l.contains(" g ") || l.contains(" m ")).count();
        assert!(all > lines, "{all} {lines}");
        let check = |name: &str, expect: &[&str]| {
            let found: Vec<String> = function(name, false)
                .unwrap_or_else(|| panic!("{name}"))
                .iter()
                .map(|o| {
                    let args: Vec<String> = o.args.iter().map(ToString::to_string).collect();
                    format!("{} {} {} {}", if o.member { "m" } else { "g" }, args.join(","), o.result, o.params)
                })
                .collect();
            assert_eq!(found, expect, "{name}");
        };
        check("_/_", &["g double,double double 0", "g int,int int 0", "g uint,uint uint 0"]);
        check("@in", &["g A,list(A) bool 1", "g A,map(A, B) bool 2"]);
        check(
            "sum",
            &["m list(int) int 0", "m list(uint) uint 0", "m list(double) double 0", "m list(duration) duration 0"],
        );
        check("optional.none", &["g  optional_type(A) 1"]);
        check("masked", &["m net.CIDR net.CIDR 0"]);
        assert!(function("jsonpatch.escapeKey", false).is_none());
        assert!(function("jsonpatch.escapeKey", true).is_some());
    }
}
