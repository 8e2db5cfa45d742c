//! Calls that stand for something longer: `has`, `all`, `map` and their like.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr};

use super::parse::Places;

/// The name of what a loop adds up.
pub(super) const RESULT: &str = "@result";
/// What upstream called it once.
pub(super) const OLD_RESULT: &str = "__result__";
/// The name of what is looked at twice.
const TARGET: &str = "@target";
/// What the loop is over by which a variable is made.
pub(super) const UNUSED: &str = "#unused";

/// Why a macro cannot be expanded.
pub(super) struct Wrong {
    /// The number of the part that is wrong.
    pub(super) at: u64,
    pub(super) message: String,
}

/// What a call stands for; the call itself when it is no macro.
pub(super) fn expand(
    call: CallExpr,
    place: u32,
    bind: bool,
    places: &mut Places,
) -> Result<Result<IdedExpr, CallExpr>, Wrong> {
    let mut make = Maker { place, places };
    let (name, count) = (call.func_name.as_str(), call.args.len());
    let known = match (&call.target, name, count) {
        (None, "has", 1) => true,
        (None, ..) => false,
        (Some(_), "all" | "exists" | "exists_one" | "existsOne" | "map", 2 | 3) => true,
        (Some(_), "filter" | "optMap" | "optFlatMap" | "sortBy", 2) => true,
        (Some(_), "transformList" | "transformMap" | "transformMapEntry", 3 | 4) => true,
        (Some(target), "bind", 3) => bind && target.expr == Expr::Ident("cel".to_owned()),
        _ => false,
    };
    if !known {
        return Ok(Err(call));
    }
    let CallExpr { func_name, target, mut args } = call;
    let Some(target) = target else {
        return match args.pop().unwrap_or_default() {
            IdedExpr { expr: Expr::Select(mut select), .. } => {
                select.test = true;
                Ok(Ok(make.node(Expr::Select(select))))
            }
            other => Err(Wrong { at: other.id, message: "invalid argument to has() macro".to_owned() }),
        };
    };
    let expr = match func_name.as_str() {
        "map" | "filter" => make.mapped(*target, args, func_name == "filter")?,
        "optMap" | "optFlatMap" => make.optional(*target, args, &func_name)?,
        "sortBy" => make.sorted(*target, args)?,
        "bind" => {
            let [name, value, body] = take(args);
            let name = name_of(&name, "cel.bind() variable names must be simple identifiers")?;
            make.bound(&name, value, body)
        }
        name if name.starts_with("transform") => make.transformed(*target, args, name)?,
        name => make.quantified(*target, args, name)?,
    };
    Ok(Ok(expr))
}

fn id_of(expr: Option<&IdedExpr>) -> u64 {
    expr.map_or(0, |e| e.id)
}

/// So many arguments: the caller has counted them.
fn take<const N: usize>(args: Vec<IdedExpr>) -> [IdedExpr; N] {
    let mut args = args.into_iter();
    std::array::from_fn(|_| args.next().unwrap_or_default())
}

fn name_of(expr: &IdedExpr, otherwise: &str) -> Result<String, Wrong> {
    let wrong = |message: &str| Wrong { at: expr.id, message: message.to_owned() };
    match &expr.expr {
        Expr::Ident(name) if name == RESULT || name == OLD_RESULT => {
            Err(wrong("iteration variable overwrites accumulator variable"))
        }
        Expr::Ident(name) => Ok(name.clone()),
        _ => Err(wrong(otherwise)),
    }
}

const SIMPLE: &str = "argument must be a simple name";

/// `body`, in which `name` is `value`: a loop over nothing, the parts of which `node` makes.
pub(super) fn bound(mut node: impl FnMut(Expr) -> IdedExpr, name: &str, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    let made = ComprehensionExpr {
        iter_range: node(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: UNUSED.to_owned(),
        iter_var2: None,
        accu_var: name.to_owned(),
        accu_init: value,
        loop_cond: node(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: node(Expr::Ident(name.to_owned())),
        result: body,
    };
    node(Expr::Comprehension(Box::new(made)))
}

/// Makes parts that are all where the macro is.
struct Maker<'a> {
    place: u32,
    places: &'a mut Places,
}

impl Maker<'_> {
    fn node(&mut self, expr: Expr) -> IdedExpr {
        self.places.node(self.place, expr)
    }

    fn ident(&mut self, name: &str) -> IdedExpr {
        self.node(Expr::Ident(name.to_owned()))
    }

    fn bool(&mut self, value: bool) -> IdedExpr {
        self.node(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn int(&mut self, value: i64) -> IdedExpr {
        self.node(Expr::Literal(LiteralValue::Int(value.into())))
    }

    fn list(&mut self, elements: Vec<IdedExpr>) -> IdedExpr {
        self.node(Expr::List(ListExpr::new(elements)))
    }

    fn call(&mut self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.node(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
    }

    fn member(&mut self, target: IdedExpr, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.node(Expr::Call(CallExpr { func_name: name.to_owned(), target: Some(Box::new(target)), args }))
    }

    /// `step` if the filter holds, what there is otherwise.
    fn filtered(&mut self, filter: Option<IdedExpr>, step: IdedExpr) -> IdedExpr {
        let Some(filter) = filter else { return step };
        let result = self.ident(RESULT);
        self.call("_?_:_", vec![filter, step, result])
    }

    fn looped(&mut self, range: IdedExpr, vars: (String, Option<String>), parts: [IdedExpr; 4]) -> IdedExpr {
        let [accu_init, loop_cond, loop_step, result] = parts;
        self.node(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: range,
            iter_var: vars.0,
            iter_var2: vars.1,
            accu_var: RESULT.to_owned(),
            accu_init,
            loop_cond,
            loop_step,
            result,
        })))
    }

    /// `body`, in which `name` is `value`.
    fn bound(&mut self, name: &str, value: IdedExpr, body: IdedExpr) -> IdedExpr {
        bound(|expr| self.node(expr), name, value, body)
    }

    fn quantified(&mut self, range: IdedExpr, mut args: Vec<IdedExpr>, name: &str) -> Result<IdedExpr, Wrong> {
        let test = args.pop().unwrap_or_default();
        let vars = variables(&args)?;
        let result = self.ident(RESULT);
        let parts = match name {
            "all" => {
                let accu = self.ident(RESULT);
                let (init, cond) = (self.bool(true), self.call("@not_strictly_false", vec![accu]));
                let accu = self.ident(RESULT);
                [init, cond, self.call("_&&_", vec![accu, test]), result]
            }
            "exists" => {
                let accu = self.ident(RESULT);
                let not = self.call("!_", vec![accu]);
                let (init, cond) = (self.bool(false), self.call("@not_strictly_false", vec![not]));
                let accu = self.ident(RESULT);
                [init, cond, self.call("_||_", vec![accu, test]), result]
            }
            _ => {
                let (init, cond) = (self.int(0), self.bool(true));
                let (accu, one) = (self.ident(RESULT), self.int(1));
                let more = self.call("_+_", vec![accu, one]);
                let step = self.filtered(Some(test), more);
                let one = self.int(1);
                [init, cond, step, self.call("_==_", vec![result, one])]
            }
        };
        Ok(self.looped(range, vars, parts))
    }

    fn mapped(&mut self, range: IdedExpr, mut args: Vec<IdedExpr>, filter: bool) -> Result<IdedExpr, Wrong> {
        let last = args.pop().unwrap_or_default();
        let var = name_of(&args[0], "argument is not an identifier")?;
        let (item, filter) = if filter { (args.swap_remove(0), Some(last)) } else { (last, args.into_iter().nth(1)) };
        let (init, cond) = (self.list(Vec::new()), self.bool(true));
        let (accu, item) = (self.ident(RESULT), self.list(vec![item]));
        let step = self.call("_+_", vec![accu, item]);
        let step = self.filtered(filter, step);
        let result = self.ident(RESULT);
        Ok(self.looped(range, (var, None), [init, cond, step, result]))
    }

    fn transformed(&mut self, range: IdedExpr, mut args: Vec<IdedExpr>, name: &str) -> Result<IdedExpr, Wrong> {
        let made = args.pop().unwrap_or_default();
        let filter = if args.len() == 3 { args.pop() } else { None };
        let vars = variables(&args)?;
        let (cond, accu) = (self.bool(true), self.ident(RESULT));
        let (init, step) = match name {
            "transformList" => {
                let item = self.list(vec![made]);
                (self.list(Vec::new()), self.call("_+_", vec![accu, item]))
            }
            _ => {
                let mut inserted = vec![accu];
                if name == "transformMap" {
                    inserted.push(self.ident(&vars.0));
                }
                inserted.push(made);
                (self.node(Expr::Map(MapExpr::default())), self.call("cel.@mapInsert", inserted))
            }
        };
        let step = self.filtered(filter, step);
        let result = self.ident(RESULT);
        Ok(self.looped(range, vars, [init, cond, step, result]))
    }

    /// The target is evaluated once, however often it is looked at.
    fn optional(&mut self, target: IdedExpr, args: Vec<IdedExpr>, name: &str) -> Result<IdedExpr, Wrong> {
        let [var, body] = take(args);
        let var = name_of(&var, &format!("{name}() variable name must be a simple identifier"))?;
        let (tested, read) = (self.ident(TARGET), self.ident(TARGET));
        let (has, value) = (self.member(tested, "hasValue", Vec::new()), self.member(read, "value", Vec::new()));
        let mut some = self.bound(&var, value, body);
        if name == "optMap" {
            some = self.call("optional.of", vec![some]);
        }
        let none = self.call("optional.none", Vec::new());
        let both = self.call("_?_:_", vec![has, some, none]);
        Ok(self.bound(TARGET, target, both))
    }

    fn sorted(&mut self, target: IdedExpr, args: Vec<IdedExpr>) -> Result<IdedExpr, Wrong> {
        if matches!(target.expr, Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err(Wrong { at: target.id, message: message.to_owned() });
        }
        const INPUT: &str = "@__sortBy_input__";
        let range = self.ident(INPUT);
        let keys = self.mapped(range, args, false)?;
        let input = self.ident(INPUT);
        let sorted = self.member(input, "@sortByAssociatedKeys", vec![keys]);
        Ok(self.bound(INPUT, target, sorted))
    }
}

/// The one or two variables of a loop.
fn variables(args: &[IdedExpr]) -> Result<(String, Option<String>), Wrong> {
    let name = |arg: Option<&IdedExpr>| arg.map(|a| name_of(a, SIMPLE)).transpose();
    let (first, second) = (name(args.first())?.unwrap_or_default(), name(args.get(1))?);
    if second.as_ref() == Some(&first) {
        return Err(Wrong { at: id_of(args.get(1)), message: format!("duplicate variable name: {first}") });
    }
    Ok((first, second))
}
