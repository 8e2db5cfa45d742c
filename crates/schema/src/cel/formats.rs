//! Whether the arguments of `'…'.format([…])` fit its clauses, where both stand in the expression.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::check::Types;
use super::types::Type;

/// What is wrong, and with which argument; with the call itself when there is none.
pub(super) type Wrong = (Option<u64>, String);

/// The first thing that is wrong.
pub(super) fn check(text: &str, args: &[IdedExpr], types: &Types) -> Option<Wrong> {
    let mut rest = text;
    let mut used = 0;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        if after.is_empty() {
            return Some((None, "unexpected end of string".to_owned()));
        }
        let Some(arg) = args.get(used) else { return Some((None, format!("index {used} out of range"))) };
        used += 1;
        let clause = match precision(after) {
            Ok(clause) => clause,
            Err(why) => {
                let message = format!("could not parse formatting clause: error while parsing precision: {why}");
                return Some((None, message));
            }
        };
        let mut chars = clause.chars();
        if let Err((id, message)) = fits(chars.next().unwrap_or_default(), arg, types) {
            return Some((id, message));
        }
        rest = chars.as_str();
    }
    let given = args.len();
    (given > used)
        .then(|| (None, format!("too many arguments supplied to string.format (expected {used}, got {given})")))
}

/// What follows a precision.
fn precision(clause: &str) -> Result<&str, String> {
    let Some(digits) = clause.strip_prefix('.') else { return Ok(clause) };
    let end = digits.find(|c: char| !c.is_ascii_digit()).ok_or("could not find end of precision specifier")?;
    let why = match digits[..end].parse::<i64>() {
        Ok(_) => return Ok(&digits[end..]),
        Err(_) if end == 0 => "invalid syntax",
        Err(_) => "value out of range",
    };
    Err(format!("error while converting precision to integer: strconv.Atoi: parsing {:?}: {why}", &digits[..end]))
}

fn fits(clause: char, arg: &IdedExpr, types: &Types) -> Result<(), Wrong> {
    let (kinds, what): (&[Type], &str) = match clause {
        's' => return all_text(arg, types),
        'd' => (&[Type::Int, Type::Uint], "decimal clause can only be used on integers"),
        'f' => (&[Type::Double, Type::String], "fixed-point clause can only be used on doubles"),
        'e' => (&[Type::Double, Type::String], "scientific clause can only be used on doubles"),
        'b' => (&[Type::Int, Type::Uint, Type::Bool], "only integers and bools can be formatted as binary"),
        'x' | 'X' => (
            &[Type::Int, Type::Uint, Type::String, Type::Bytes],
            "only integers, byte buffers, and strings can be formatted as hex",
        ),
        'o' => (&[Type::Int, Type::Uint], "octal clause can only be used on integers"),
        other => {
            let message = format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"");
            return Err((None, message));
        }
    };
    let t = types.of(arg.id);
    if *t == Type::Dyn || kinds.contains(t) { Ok(()) } else { Err(given(what, arg.id, t)) }
}

fn given(what: &str, id: u64, t: &Type) -> Wrong {
    let name = match t {
        Type::List(_) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Type(_) => "type".to_owned(),
        Type::Optional(_) => "optional_type".to_owned(),
        t => t.declared().to_string(),
    };
    (Some(id), format!("error during formatting: {what}, was given {name}"))
}

/// Whether there is a text for it, and for all within where that stands there.
fn all_text(arg: &IdedExpr, types: &Types) -> Result<(), Wrong> {
    let t = types.of(arg.id);
    if matches!(t, Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Any) {
        let what = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
        return Err(given(what, arg.id, t));
    }
    match &arg.expr {
        Expr::List(list) => list.elements.iter().try_for_each(|e| all_text(e, types)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => all_text(&entry.key, types).and_then(|()| all_text(&entry.value, types)),
            EntryExpr::StructField(_) => Ok(()),
        }),
        _ => Ok(()),
    }
}
