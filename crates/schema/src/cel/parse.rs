//! From the text of an expression to its tree.

use std::borrow::Cow;

use cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr, SelectExpr,
    StructExpr, StructFieldExpr,
};

use super::issues::{Issue, Lines};
use super::lex::{Token, tokens, unescaped};
use super::macros;

/// How deep an expression may go, by any way.
pub(super) const DEPTH: usize = 250;
/// How deep brackets may be nested. Upstream's limit is 250; each level takes some of the stack here.
pub(super) const NESTING: usize = 100;
/// The most characters.
const LENGTH: usize = 100_000;

/// Words that stand for something.
pub(super) const LITERALS: &[&str] = &["true", "false", "null", "in"];
/// Words that are kept for later.
pub(super) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// An expression's tree, and where its parts are in the text.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) expr: IdedExpr,
    pub(super) places: Places,
}

/// Where each part is, by its number.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<u32>);

impl Places {
    pub(super) fn of(&self, id: u64) -> usize {
        usize::try_from(id).ok().and_then(|i| self.0.get(i)).map_or(0, |p| *p as usize)
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn node(&mut self, place: u32, expr: Expr) -> IdedExpr {
        IdedExpr { id: self.id(place), expr }
    }

    fn id(&mut self, place: u32) -> u64 {
        self.0.push(place);
        self.0.len() as u64 - 1
    }
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum Failure {
    /// This is wrong.
    Issues(Vec<Issue>),
    /// Upstream's grammar is to say what is wrong.
    Syntax,
}

/// The tree of an expression. `bind`: whether `cel.bind` is a macro.
pub(super) fn parse(source: &str, bind: bool) -> Result<Parsed, Failure> {
    let size = source.chars().count();
    if size > LENGTH {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {LENGTH}");
        // Of no line.
        return Err(Failure::Issues(vec![Issue { line: 0, column: 0, message }]));
    }
    let tokens = tokens(source).map_err(|_| Failure::Syntax)?;
    // Number 0 is nobody's.
    let mut parser = Parser {
        tokens,
        at: 0,
        places: Places(vec![0]),
        issues: Vec::new(),
        nesting: 0,
        bind,
        lines: Lines::new(source),
    };
    let expr = match parser.expr().and_then(|(expr, _)| parser.op_end().map(|()| expr)) {
        Ok(expr) => expr,
        Err(Stop::TooDeep) => {
            return Err(Failure::Issues(vec![Issue {
                line: 0,
                column: 0,
                message: format!("expression recursion limit exceeded: {DEPTH}"),
            }]));
        }
        Err(Stop::Syntax) => return Err(Failure::Syntax),
    };
    if parser.issues.is_empty() {
        Ok(Parsed { expr, places: parser.places })
    } else {
        Err(Failure::Issues(parser.issues))
    }
}

enum Stop {
    Syntax,
    TooDeep,
}

/// A part, and how deep it goes.
type Part = Result<(IdedExpr, usize), Stop>;

struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    places: Places,
    issues: Vec<Issue>,
    nesting: usize,
    bind: bool,
    lines: Lines,
}

/// The operators of two operands, by how strongly they bind.
fn binary(op: &str) -> Option<(u8, &'static str)> {
    Some(match op {
        "||" => (0, "_||_"),
        "&&" => (1, "_&&_"),
        "==" => (2, "_==_"),
        "!=" => (2, "_!=_"),
        "<" => (2, "_<_"),
        "<=" => (2, "_<=_"),
        ">" => (2, "_>_"),
        ">=" => (2, "_>=_"),
        "in" => (2, "@in"),
        "+" => (3, "_+_"),
        "-" => (3, "_-_"),
        "*" => (4, "_*_"),
        "/" => (4, "_/_"),
        "%" => (4, "_%_"),
        _ => return None,
    })
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).map_or(Token::End, |t| t.0)
    }

    fn place(&self) -> u32 {
        self.tokens.get(self.at).map_or(0, |t| t.1)
    }

    /// The place of the operator, if it is next.
    fn op(&mut self, op: &str) -> Option<u32> {
        let place = self.place();
        matches!(self.peek(), Token::Op(o) if o == op).then(|| {
            self.at += 1;
            place
        })
    }

    fn need(&mut self, op: &str) -> Result<u32, Stop> {
        self.op(op).ok_or(Stop::Syntax)
    }

    fn op_end(&self) -> Result<(), Stop> {
        if self.peek() == Token::End { Ok(()) } else { Err(Stop::Syntax) }
    }

    fn wrong(&mut self, place: u32, message: impl Into<String>) {
        self.issues.push(self.lines.issue(place as usize, message.into()));
    }

    fn deeper(depth: usize) -> Result<usize, Stop> {
        if depth < DEPTH { Ok(depth + 1) } else { Err(Stop::TooDeep) }
    }

    fn call(&mut self, place: u32, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.places.node(place, Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
    }

    fn expr(&mut self) -> Part {
        if self.nesting >= NESTING {
            return Err(Stop::TooDeep);
        }
        self.nesting += 1;
        let part = self.ternary();
        self.nesting -= 1;
        part
    }

    fn ternary(&mut self) -> Part {
        let (condition, d1) = self.binary(0)?;
        let Some(place) = self.op("?") else { return Ok((condition, d1)) };
        let (yes, d2) = self.binary(0)?;
        self.need(":")?;
        let (no, d3) = self.expr()?;
        let depth = Self::deeper(d1.max(d2).max(d3))?;
        Ok((self.call(place, "_?_:_", vec![condition, yes, no]), depth))
    }

    /// Operators that bind at least so strongly.
    fn binary(&mut self, least: u8) -> Part {
        let (mut left, mut depth) = self.unary()?;
        loop {
            let Token::Op(op) = self.peek() else { return Ok((left, depth)) };
            let Some((strength, name)) = binary(op).filter(|(s, _)| *s >= least) else { return Ok((left, depth)) };
            if strength < 2 {
                (left, depth) = self.logic(left, depth, op, strength, name)?;
                continue;
            }
            let place = self.place();
            self.at += 1;
            let (right, d) = self.binary(strength + 1)?;
            depth = Self::deeper(depth.max(d))?;
            left = self.call(place, name, vec![left, right]);
        }
    }

    /// `a && b && c…`: evenly grouped, so that many do not go deep.
    fn logic(&mut self, first: IdedExpr, depth: usize, op: &str, strength: u8, name: &str) -> Part {
        let (mut terms, mut places, mut deepest) = (vec![first], Vec::new(), depth);
        while let Some(place) = self.op(op) {
            let (term, d) = self.binary(strength + 1)?;
            terms.push(term);
            places.push(place);
            deepest = deepest.max(d);
        }
        let depth = Self::deeper(deepest)?;
        let mut row: Vec<(IdedExpr, u32)> = terms.into_iter().zip(std::iter::once(0).chain(places)).collect();
        while row.len() > 1 {
            let mut pairs = row.into_iter();
            let mut next = Vec::new();
            while let Some((left, before)) = pairs.next() {
                match pairs.next() {
                    Some((right, place)) => next.push((self.call(place, name, vec![left, right]), before)),
                    None => next.push((left, before)),
                }
            }
            row = next;
        }
        row.pop().map(|(expr, _)| (expr, depth)).ok_or(Stop::Syntax)
    }

    fn unary(&mut self) -> Part {
        for (op, name) in [("!", "!_"), ("-", "-_")] {
            let Some(place) = self.op(op) else { continue };
            let mut odd = true;
            while self.op(op).is_some() {
                odd = !odd;
            }
            let signed = op == "-" && odd && self.at >= 1 && self.tokens[self.at - 1].1 == place;
            if signed && matches!(self.peek(), Token::Int(_) | Token::Float(_)) {
                self.at -= 1;
                break;
            }
            let (operand, depth) = self.member()?;
            if !odd {
                return Ok((operand, depth));
            }
            return Ok((self.call(place, name, vec![operand]), Self::deeper(depth)?));
        }
        self.member()
    }

    fn member(&mut self) -> Part {
        let (mut expr, mut depth) = self.primary()?;
        loop {
            if let Some(place) = self.op(".") {
                let optional = self.op("?").is_some();
                let Token::Ident(name) = self.peek() else { return Err(Stop::Syntax) };
                self.at += 1;
                if !optional && let Some(open) = self.op("(") {
                    let (args, d) = self.list(")")?;
                    depth = Self::deeper(depth.max(d))?;
                    expr = self.called(open, name, Some(expr), args);
                    continue;
                }
                depth = Self::deeper(depth)?;
                if optional {
                    let field = self.places.node(place, Expr::Literal(LiteralValue::String(name.to_owned().into())));
                    expr = self.call(place, "_?._", vec![expr, field]);
                } else {
                    let select = SelectExpr { operand: Box::new(expr), field: name.to_owned(), test: false };
                    expr = self.places.node(place, Expr::Select(select));
                }
            } else if let Some(place) = self.op("[") {
                let name = if self.op("?").is_some() { "_[?_]" } else { "_[_]" };
                let (index, d) = self.expr()?;
                self.need("]")?;
                depth = Self::deeper(depth.max(d))?;
                expr = self.call(place, name, vec![expr, index]);
            } else {
                return Ok((expr, depth));
            }
        }
    }

    /// A call, or what the macro of this name makes of it.
    fn called(&mut self, place: u32, name: &str, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> IdedExpr {
        let id = self.places.id(place);
        let call = CallExpr { func_name: name.to_owned(), target: target.map(Box::new), args };
        match macros::expand(call, place, self.bind, &mut self.places) {
            Ok(Ok(expr)) => expr,
            Ok(Err(call)) => IdedExpr { id, expr: Expr::Call(call) },
            Err(wrong) => {
                let place = self.places.of(wrong.at);
                self.issues.push(self.lines.issue(place, wrong.message));
                IdedExpr { id, expr: Expr::Unspecified }
            }
        }
    }

    /// Expressions up to the closing bracket.
    fn list(&mut self, close: &str) -> Result<(Vec<IdedExpr>, usize), Stop> {
        let (mut all, mut depth) = (Vec::new(), 0);
        if self.op(close).is_some() {
            return Ok((all, 0));
        }
        loop {
            let (expr, d) = self.expr()?;
            all.push(expr);
            depth = depth.max(d);
            if self.op(",").is_none() {
                self.need(close)?;
                return Ok((all, depth));
            }
        }
    }

    fn primary(&mut self) -> Part {
        let (token, place) = (self.peek(), self.place());
        if matches!(token, Token::Ident(_) | Token::Op(".")) {
            return self.name();
        }
        if matches!(token, Token::Op("(" | "[" | "{")) {
            return self.bracket();
        }
        self.at += 1;
        let literal = match token {
            Token::Op("true") => LiteralValue::Boolean(true.into()),
            Token::Op("false") => LiteralValue::Boolean(false.into()),
            Token::Op("null") => LiteralValue::Null,
            Token::Op("-") => {
                let number @ (Token::Int(_) | Token::Float(_)) = self.peek() else { return Err(Stop::Syntax) };
                self.at += 1;
                self.number(number, "-", place)
            }
            Token::Text { inner, raw, bytes } => self.text(inner, raw, bytes, place),
            number @ (Token::Int(_) | Token::Uint(_) | Token::Float(_)) => self.number(number, "", place),
            _ => return Err(Stop::Syntax),
        };
        Ok((self.places.node(place, Expr::Literal(literal)), 1))
    }

    fn number(&mut self, token: Token<'_>, sign: &str, place: u32) -> LiteralValue {
        let split = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => (format!("{sign}{hex}"), 16),
            None => (format!("{sign}{text}"), 10),
        };
        let (found, what) = match token {
            Token::Int(text) => {
                let (text, radix) = split(text);
                (i64::from_str_radix(&text, radix).ok().map(|n| LiteralValue::Int(n.into())), "int")
            }
            Token::Uint(text) => {
                let (text, radix) = split(text);
                (u64::from_str_radix(&text, radix).ok().map(|n| LiteralValue::UInt(n.into())), "uint")
            }
            Token::Float(text) => {
                let n = format!("{sign}{text}").parse::<f64>().ok().filter(|n| n.is_finite());
                (n.map(|n| LiteralValue::Double(n.into())), "double")
            }
            _ => (None, "int"),
        };
        found.unwrap_or_else(|| {
            self.wrong(place, format!("invalid {what} literal"));
            LiteralValue::Null
        })
    }

    fn text(&mut self, inner: &str, raw: bool, bytes: bool, place: u32) -> LiteralValue {
        let value = unescaped(inner, raw, bytes);
        if bytes {
            if let Some(value) = value {
                return LiteralValue::Bytes(value.into());
            }
        } else if let Some(value) = value.and_then(|v| String::from_utf8(v).ok()) {
            return LiteralValue::String(value.into());
        }
        self.wrong(place, "invalid unicode code point");
        LiteralValue::Null
    }

    /// A name, a call, or an object: `.a.b.C{field: value}`.
    fn name(&mut self) -> Part {
        let dotted = self.op(".").is_some();
        let begin = self.at;
        let Token::Ident(name) = self.peek() else { return Err(Stop::Syntax) };
        let place = self.place();
        let mut path = vec![name];
        while let (Some((Token::Op("."), _)), Some((Token::Ident(next), _))) =
            (self.tokens.get(begin + 2 * path.len() - 1), self.tokens.get(begin + 2 * path.len()))
        {
            path.push(next);
        }
        let dot = |name: String| if dotted { format!(".{name}") } else { name };
        self.at = begin + 2 * path.len() - 1;
        if let Some(open) = self.op("{") {
            let (entries, depth) = self.fields()?;
            let made = StructExpr { type_name: dot(path.join(".")), entries };
            return Ok((self.places.node(open, Expr::Struct(made)), Self::deeper(depth)?));
        }
        self.at = begin + 1;
        let open = self.op("(");
        let name: Cow<'_, str> = if dotted { dot(name.to_owned()).into() } else { name.into() };
        if RESERVED.contains(&path[0]) {
            self.wrong(place, format!("reserved identifier: {}", path[0]));
        }
        match open {
            Some(open) => {
                let (args, depth) = self.list(")")?;
                Ok((self.called(open, &name, None, args), Self::deeper(depth)?))
            }
            None => Ok((self.places.node(place, Expr::Ident(name.into_owned())), 1)),
        }
    }

    fn bracket(&mut self) -> Part {
        if self.op("(").is_some() {
            let (expr, depth) = self.expr()?;
            self.need(")")?;
            return Ok((expr, Self::deeper(depth)?));
        }
        if let Some(place) = self.op("[") {
            let (mut elements, mut optional_indices, mut depth) = (Vec::new(), Vec::new(), 0);
            while self.op("]").is_none() {
                if self.op("?").is_some() {
                    optional_indices.push(elements.len());
                }
                let (element, d) = self.expr()?;
                elements.push(element);
                depth = depth.max(d);
                if self.op(",").is_none() {
                    self.need("]")?;
                    break;
                }
            }
            let list = Expr::List(ListExpr { elements, optional_indices });
            return Ok((self.places.node(place, list), Self::deeper(depth)?));
        }
        let open = self.need("{")?;
        let (mut entries, mut depth) = (Vec::new(), 0);
        while self.op("}").is_none() {
            let optional = self.op("?").is_some();
            let (key, d1) = self.expr()?;
            let colon = self.need(":")?;
            let id = self.places.id(colon);
            let (value, d2) = self.expr()?;
            depth = depth.max(d1).max(d2);
            entries.push(IdedEntryExpr { id, expr: EntryExpr::MapEntry(MapEntryExpr { key, value, optional }) });
            if self.op(",").is_none() {
                self.need("}")?;
                break;
            }
        }
        Ok((self.places.node(open, Expr::Map(MapExpr { entries })), Self::deeper(depth)?))
    }

    /// The fields of an object up to the closing brace.
    fn fields(&mut self) -> Result<(Vec<IdedEntryExpr>, usize), Stop> {
        let (mut entries, mut depth) = (Vec::new(), 0);
        while self.op("}").is_none() {
            let optional = self.op("?").is_some();
            let Token::Ident(field) = self.peek() else { return Err(Stop::Syntax) };
            self.at += 1;
            let colon = self.need(":")?;
            let id = self.places.id(colon);
            let (value, d) = self.expr()?;
            depth = depth.max(d);
            let field = StructFieldExpr { field: field.to_owned(), value, optional };
            entries.push(IdedEntryExpr { id, expr: EntryExpr::StructField(field) });
            if self.op(",").is_none() {
                self.need("}")?;
                break;
            }
        }
        Ok((entries, depth))
    }
}
