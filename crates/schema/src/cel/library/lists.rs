//! Lists, sets, maps that grow, and optional values in lists.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map, OptionalValue, Value};
use cel::{DeclarationError, Env, ExecutionError};

use super::budget::charge;
use super::{DYN_TYPE, LIST_TYPE, MAP_TYPE, Outcome, fail, functions, items, none, order, some, value_of};

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    functions!(env;
        m "isSorted" (LIST_TYPE) |a| {
            for pair in items(a, 0)?.windows(2) {
                if order(&pair[0], &pair[1])?.is_gt() {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        };
        m "sum" (LIST_TYPE) |a| sum(items(a, 0)?);
        m "min" (LIST_TYPE) |a| most(items(a, 0)?, "min", Ordering::Less);
        m "max" (LIST_TYPE) |a| most(items(a, 0)?, "max", Ordering::Greater);
        m "indexOf" (LIST_TYPE, DYN_TYPE) |a| index(items(a, 0)?.iter().position(|i| *i == a[1]));
        m "lastIndexOf" (LIST_TYPE, DYN_TYPE) |a| index(items(a, 0)?.iter().rposition(|i| *i == a[1]));
        m "first" (LIST_TYPE) |a| Ok(items(a, 0)?.first().cloned().map_or_else(none, some));
        m "last" (LIST_TYPE) |a| Ok(items(a, 0)?.last().cloned().map_or_else(none, some));
        m "unwrapOpt" (LIST_TYPE) |a| unwrapped(items(a, 0)?);
        g "optional.unwrap" (LIST_TYPE) |a| unwrapped(items(a, 0)?);
        g "sets.contains" (LIST_TYPE, LIST_TYPE) |a| Ok(Value::Bool(contains(items(a, 0)?, items(a, 1)?)?));
        g "sets.equivalent" (LIST_TYPE, LIST_TYPE) |a| {
            let (a, b) = (items(a, 0)?, items(a, 1)?);
            Ok(Value::Bool(contains(a, b)? && contains(b, a)?))
        };
        g "sets.intersects" (LIST_TYPE, LIST_TYPE) |a| {
            let (a, b) = (items(a, 0)?, items(a, 1)?);
            pay(a, b)?;
            Ok(Value::Bool(a.iter().any(|i| b.contains(i))))
        };
        g "@pairs" (LIST_TYPE) |a| {
            let places = (0_i64..).map(Value::Int);
            Ok(pairs(places.zip(items(a, 0)?.iter().cloned())))
        };
        g "@pairs" (MAP_TYPE) |a| {
            let Value::Map(map) = &a[0] else { return Err(fail("@pairs", "no such overload")) };
            Ok(pairs(map.map.iter().map(|(k, v)| (Value::from(k.clone()), v.clone()))))
        };
        g "cel.@mapInsert" (MAP_TYPE, DYN_TYPE, DYN_TYPE) |a| {
            let key = match &a[1] {
                Value::String(s) => Key::String(Arc::clone(s)),
                Value::Int(n) => Key::Int(*n),
                Value::UInt(n) => Key::Uint(*n),
                Value::Bool(b) => Key::Bool(*b),
                _ => return Err(fail("@mapInsert", "unsupported key type")),
            };
            inserted(&a[0], [(key, a[2].clone())])
        };
        g "cel.@mapInsert" (MAP_TYPE, MAP_TYPE) |a| {
            let Value::Map(more) = &a[1] else { return Err(fail("@mapInsert", "no such overload")) };
            inserted(&a[0], more.map.iter().map(|(k, v)| (k.clone(), v.clone())))
        };
    )
}

fn pairs(all: impl Iterator<Item = (Value, Value)>) -> Value {
    Value::List(Arc::new(all.map(|(a, b)| Value::List(Arc::new(vec![a, b]))).collect()))
}

fn index(found: Option<usize>) -> Outcome {
    Ok(Value::Int(found.and_then(|i| i64::try_from(i).ok()).unwrap_or(-1)))
}

fn contains(list: &[Value], all: &[Value]) -> Result<bool, ExecutionError> {
    pay(list, all)?;
    Ok(all.iter().all(|i| list.contains(i)))
}

/// Each of the ones is looked for among the others.
fn pay(list: &[Value], others: &[Value]) -> Result<(), ExecutionError> {
    charge((list.len() as u64).saturating_mul(others.len() as u64))
}

fn unwrapped(list: &[Value]) -> Outcome {
    let mut all = Vec::new();
    for at in 0..list.len() {
        all.extend(value_of::<OptionalValue>(list, at)?.value().cloned());
    }
    Ok(Value::List(Arc::new(all)))
}

fn most(list: &[Value], function: &str, wanted: Ordering) -> Outcome {
    let mut items = list.iter();
    let mut best = items.next().ok_or_else(|| fail(function, format!("{function} called on empty list")))?;
    for item in items {
        if order(item, best)? == wanted {
            best = item;
        }
    }
    Ok(best.clone())
}

fn sum(list: &[Value]) -> Outcome {
    let over = || fail("sum", "integer overflow");
    let add = |sum: Value, item: &Value| match (sum, item) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(over),
        (Value::UInt(a), Value::UInt(b)) => a.checked_add(*b).map(Value::UInt).ok_or_else(over),
        (Value::Float(a), Value::Float(b)) => Ok(Value::Float(a + b)),
        _ => Err(fail("sum", "no such overload")),
    };
    // To an empty list it is all the same.
    let Some((first, rest)) = list.split_first() else { return Ok(Value::Int(0)) };
    rest.iter().try_fold(first.clone(), add)
}

fn inserted(map: &Value, more: impl IntoIterator<Item = (Key, Value)>) -> Result<Value, ExecutionError> {
    let Value::Map(map) = map else { return Err(fail("@mapInsert", "no such overload")) };
    let mut all: HashMap<Key, Value> = (*map.map).clone();
    for (key, value) in more {
        if all.contains_key(&key) {
            return Err(fail("@mapInsert", format!("insert failed: key {key} already exists")));
        }
        all.insert(key, value);
    }
    Ok(Value::Map(Map { map: Arc::new(all) }))
}
