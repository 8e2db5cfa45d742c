//! Quantities.

use cel::objects::{Opaque, Value};
use cel::{DeclarationError, Env};
use pintle_api::quantity::Quantity;

use super::{INT_TYPE, Outcome, Runtime, STRING_TYPE, fail, functions, int, opaque, text, value_of};

const NAME: &str = "kubernetes.Quantity";

/// A quantity within an expression.
#[derive(Debug, PartialEq, Eq)]
pub struct CelQuantity(pub Quantity);

impl Opaque for CelQuantity {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let q = || Runtime::new_opaque_type(NAME);
    functions!(env;
        g "quantity" (STRING_TYPE) |a| {
            Quantity::parse(text(a, 0)?).map(|q| opaque(CelQuantity(q))).map_err(|e| fail("quantity", e))
        };
        g "isQuantity" (STRING_TYPE) |a| Ok(Value::Bool(Quantity::parse(text(a, 0)?).is_ok()));
        g "sign" (q()) |a| Ok(Value::Int(of(a, 0)?.sign().into()));
        m "isGreaterThan" (q(), q()) |a| Ok(Value::Bool(of(a, 0)? > of(a, 1)?));
        m "isLessThan" (q(), q()) |a| Ok(Value::Bool(of(a, 0)? < of(a, 1)?));
        m "compareTo" (q(), q()) |a| Ok(Value::Int(of(a, 0)?.cmp(&of(a, 1)?) as i64));
        m "asApproximateFloat" (q()) |a| Ok(Value::Float(of(a, 0)?.as_f64()));
        m "isInteger" (q()) |a| Ok(Value::Bool(of(a, 0)?.as_i64().is_some()));
        m "asInteger" (q()) |a| {
            of(a, 0)?.as_i64().map(Value::Int).ok_or_else(|| fail("asInteger", "cannot convert value to integer"))
        };
        m "add" (q(), q()) |a| made(of(a, 0)? + of(a, 1)?);
        m "add" (q(), INT_TYPE) |a| made(of(a, 0)? + number(a)?);
        m "sub" (q(), q()) |a| made(of(a, 0)? - of(a, 1)?);
        m "sub" (q(), INT_TYPE) |a| made(of(a, 0)? - number(a)?);
    )
}

fn of(args: &[Value], at: usize) -> Result<Quantity, cel::ExecutionError> {
    value_of::<CelQuantity>(args, at).map(|q| q.0)
}

fn number(args: &[Value]) -> Result<Quantity, cel::ExecutionError> {
    Quantity::parse(&int(args, 1)?.to_string()).map_err(|e| fail("quantity", e))
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of all functions")]
fn made(q: Quantity) -> Outcome {
    Ok(opaque(CelQuantity(q)))
}
