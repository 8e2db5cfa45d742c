//! Label and field selectors, as text (`a=b,c in (d,e),!f`) and as `LabelSelector` objects.
//!
//! Source of the rules: `k8s.io/apimachinery/pkg/labels` and `pkg/fields`.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::Labels;
use crate::names;
use crate::object::Object;

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub op: Op,
    /// With what; sorted.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Present with one of the values.
    In,
    /// Absent, or with another value.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// Present with an integer above the value.
    Gt,
    /// Present with an integer below the value.
    Lt,
}

/// Conditions that must all hold. With none, everything matches; see [`Selector::nothing`] for the opposite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    /// Checks key and values as upstream's `NewRequirement`.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn new(key: &str, op: Op, mut values: Vec<String>) -> Result<Self, String> {
        let errs = names::qualified_name(key);
        if !errs.is_empty() {
            return Err(format!("key: Invalid value: {key:?}: {}", errs.join("; ")));
        }
        match op {
            Op::In | Op::NotIn if values.is_empty() => {
                return Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Op::Exists | Op::DoesNotExist if !values.is_empty() => {
                return Err(format!(
                    "values: Invalid value: {values:?}: values set must be empty for exists and does not exist"
                ));
            }
            Op::Gt | Op::Lt => {
                if values.len() != 1 {
                    return Err(format!(
                        "values: Invalid value: {values:?}: for 'Gt', 'Lt' operators, exactly one value is required"
                    ));
                }
                if values[0].parse::<i64>().is_err() {
                    return Err(format!(
                        "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                        values[0]
                    ));
                }
            }
            _ => {}
        }
        for (i, v) in values.iter().enumerate() {
            let errs = names::label_value(v);
            if !errs.is_empty() {
                return Err(format!("values[{i}][{key}]: Invalid value: {v:?}: {}", errs.join("; ")));
            }
        }
        values.sort();
        Ok(Self { key: key.to_owned(), op, values })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match (self.op, value) {
            (Op::In, v) => v.is_some_and(listed),
            (Op::NotIn, v) => !v.is_some_and(listed),
            (Op::Exists, v) => v.is_some(),
            (Op::DoesNotExist, v) => v.is_none(),
            (Op::Gt | Op::Lt, v) => {
                let (Some(have), Some(want)) =
                    (v.and_then(|v| v.parse::<i64>().ok()), self.values.first().and_then(|v| v.parse().ok()))
                else {
                    return false;
                };
                if self.op == Op::Gt { have > want } else { have < want }
            }
        }
    }
}

impl Selector {
    /// Matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// All of these must hold.
    #[must_use]
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Equality with each of these labels; what upstream's `SelectorFromSet` makes.
    pub fn from_set<'a>(set: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements =
            set.into_iter().map(|(k, v)| Requirement { key: k.into(), op: Op::In, values: vec![v.into()] }).collect();
        Self::new(requirements)
    }

    /// From a `LabelSelector` object: absent matches nothing, empty matches everything.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn from_object(selector: Option<&LabelSelector>) -> Result<Self, String> {
        let Some(s) = selector else { return Ok(Self::nothing()) };
        let mut out = Vec::new();
        for (k, v) in s.match_labels.iter().flatten() {
            out.push(Requirement::new(k, Op::In, vec![v.clone()])?);
        }
        for e in s.match_expressions.iter().flatten() {
            let op = match e.operator.as_str() {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            out.push(Requirement::new(&e.key, op, e.values.clone().unwrap_or_default())?);
        }
        Ok(Self::new(out))
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::labels(text).map(Self::new)
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Its conditions.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// A label that all have which it selects, when there is one.
    #[must_use]
    pub fn label(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|r| match (r.op, r.values.as_slice()) {
            (Op::In, [value]) => Some((r.key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// Whether labels looked up by `get` match.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Whether an object's labels match.
    #[must_use]
    pub fn matches_object(&self, object: &Object) -> bool {
        self.matches(|k| object.label(k))
    }

    /// Whether these labels match.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(|k| labels.get(k))
    }

    /// Whether a map of labels matches.
    #[must_use]
    pub fn matches_map(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(|k| labels.and_then(|l| l.get(k)).map(String::as_str))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let k = &r.key;
            let list = || r.values.join(",");
            match (r.op, r.values.as_slice()) {
                (Op::In, [v]) => write!(f, "{k}={v}")?,
                (Op::NotIn, [v]) => write!(f, "{k}!={v}")?,
                (Op::In, _) => write!(f, "{k} in ({})", list())?,
                (Op::NotIn, _) => write!(f, "{k} notin ({})", list())?,
                (Op::Exists, _) => write!(f, "{k}")?,
                (Op::DoesNotExist, _) => write!(f, "!{k}")?,
                (Op::Gt, _) => write!(f, "{k}>{}", list())?,
                (Op::Lt, _) => write!(f, "{k}<{}", list())?,
            }
        }
        Ok(())
    }
}

/// A field selector: equalities and inequalities that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// `(field, value, equal)`.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`, with `\,`, `\=` and `\\` as escapes.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in parse::split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, equal) = parse::field_term(term)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            terms.push((field.to_owned(), parse::unescape(value)?, equal));
        }
        Ok(Self { terms })
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value this field must equal, when one is asked for.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, _, eq)| *eq && f == field).map(|(_, v, _)| v.as_str())
    }

    /// Whether an object matches; a field the resource does not know matches nothing.
    #[must_use]
    pub fn matches_object(&self, object: &Object) -> bool {
        self.terms.iter().all(|(f, v, equal)| object.field(f).is_some_and(|have| (have == v) == *equal))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (field, value, equal)) in self.terms.iter().enumerate() {
            let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{field}{}{escaped}", if i > 0 { "," } else { "" }, if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

mod parse {
    use super::{Op, Requirement};

    /// Words and signs of a label selector.
    fn tokens(text: &str) -> Vec<&str> {
        let special = |c: char| matches!(c, ',' | '(' | ')' | '!' | '=' | '<' | '>');
        let mut out = Vec::new();
        let mut rest = text.trim_start();
        while let Some(c) = rest.chars().next() {
            let len = if rest.starts_with("!=") || rest.starts_with("==") {
                2
            } else if special(c) {
                1
            } else {
                rest.find(|c: char| special(c) || c.is_whitespace()).unwrap_or(rest.len())
            };
            let (token, tail) = rest.split_at(len);
            out.push(token);
            rest = tail.trim_start();
        }
        out
    }

    fn is_word(t: &str) -> bool {
        !matches!(t, "," | "(" | ")" | "!" | "=" | "==" | "!=" | "<" | ">")
    }

    pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, String> {
        let tokens = tokens(text);
        let fail = |why: String| format!("unable to parse requirement: {why}");
        let mut out: Vec<Requirement> = Vec::new();
        let mut i = 0;
        let at = |i: usize| tokens.get(i).copied().unwrap_or("");
        if tokens.is_empty() {
            return Ok(out);
        }
        loop {
            let negated = at(i) == "!";
            if negated {
                i += 1;
            }
            let key = at(i);
            if key.is_empty() || !is_word(key) {
                return Err(fail(format!("found '{key}', expected: identifier")));
            }
            i += 1;
            let sign = at(i);
            let word = |i: usize| if is_word(at(i)) { at(i) } else { "" };
            let requirement = match sign {
                "" | "," => Requirement::new(key, if negated { Op::DoesNotExist } else { Op::Exists }, vec![]),
                _ if negated => return Err(fail(format!("found '{sign}', expected: ',' or 'end of string'"))),
                "=" | "==" | "!=" | "<" | ">" => {
                    let value = word(i + 1);
                    i += if value.is_empty() { 1 } else { 2 };
                    let op = match sign {
                        "!=" => Op::NotIn,
                        "<" => Op::Lt,
                        ">" => Op::Gt,
                        _ => Op::In,
                    };
                    Requirement::new(key, op, vec![value.to_owned()])
                }
                "in" | "notin" => {
                    i += 1;
                    if at(i) != "(" {
                        return Err(fail(format!("found '{}' expected: '('", at(i))));
                    }
                    i += 1;
                    let mut values = Vec::new();
                    loop {
                        match at(i) {
                            ")" => {
                                // `()` and a trailing comma both stand for an empty value.
                                if values.is_empty() || at(i - 1) == "," {
                                    values.push(String::new());
                                }
                                break;
                            }
                            "," => {
                                if matches!(at(i - 1), "," | "(") {
                                    values.push(String::new());
                                }
                            }
                            "" => return Err(fail("found '', expected: ',', or ')'".into())),
                            w if is_word(w) && matches!(at(i - 1), "," | "(") => values.push(w.to_owned()),
                            w => return Err(fail(format!("found '{w}', expected: ',', or ')'"))),
                        }
                        i += 1;
                    }
                    i += 1;
                    Requirement::new(key, if sign == "in" { Op::In } else { Op::NotIn }, values)
                }
                other => return Err(fail(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"))),
            };
            out.push(requirement.map_err(fail)?);
            match at(i) {
                "" => break,
                "," => {
                    i += 1;
                    if at(i).is_empty() {
                        return Err("found '', expected: identifier after ','".into());
                    }
                }
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(out)
    }

    /// Splits at commas that are not escaped.
    pub(super) fn split_terms(text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        let (mut start, mut escaped) = (0, false);
        for (i, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                ',' => {
                    out.push(&text[start..i]);
                    start = i + 1;
                }
                _ => {}
            }
        }
        out.push(&text[start..]);
        out
    }

    pub(super) fn field_term(term: &str) -> Option<(&str, &str, bool)> {
        for (i, _) in term.char_indices() {
            let rest = &term[i..];
            for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
                if let Some(value) = rest.strip_prefix(sign) {
                    return Some((&term[..i], value, equal));
                }
            }
        }
        None
    }

    pub(super) fn unescape(value: &str) -> Result<String, String> {
        let mut out = String::with_capacity(value.len());
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(e @ ('\\' | ',' | '=')) => out.push(e),
                    other => {
                        return Err(format!(
                            "invalid field selector: invalid escape sequence: \\{}",
                            other.map(String::from).unwrap_or_default()
                        ));
                    }
                },
                ',' | '=' => return Err(format!("invalid field selector: unescaped {c} in value: {value}")),
                _ => out.push(c),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_all_have() {
        for (text, label) in [
            ("a=b", Some(("a", "b"))),
            ("a in (b)", Some(("a", "b"))),
            ("x,a!=c,a=b,c=d", Some(("a", "b"))),
            ("a in (b,c)", None),
            ("a!=b", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(Selector::parse(text).unwrap().label(), label, "{text}");
        }
    }

    #[test]
    fn label_text() {
        let labels = [("app", "web"), ("tier", "1"), ("env", "")];
        let get = |k: &str| labels.iter().find(|(n, _)| *n == k).map(|(_, v)| *v);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier", true),
            ("app!=web", false),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("missing notin (x)", true),
            ("missing!=x", true),
            ("!missing", true),
            ("!app", false),
            ("tier>0", true),
            ("tier<1", false),
            ("env=", true),
            ("env in ()", true),
            ("app in (web,)", true),
            ("app=,tier=1", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(get), want, "{text}");
        }
        for bad in ["=", "a=b,", "a in b", "a in (b", "a b", "!a=b", "a>x", "a/b/c=d", "-=x", "a=b c", "a==/"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_back() {
        for text in ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a>1,b<2"] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn objects() {
        assert!(!Selector::from_object(None).unwrap().matches(|_| None));
        assert!(Selector::from_object(Some(&LabelSelector::default())).unwrap().matches(|_| None));
    }

    #[test]
    fn field_text() {
        let s = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").unwrap();
        assert_eq!(s.terms[0], ("metadata.name".into(), "a,b".into(), true));
        assert_eq!(s.exact("metadata.name"), Some("a,b"));
        assert_eq!(s.to_string(), r"metadata.name=a\,b,status.phase!=Running");
        for bad in ["a", r"a=\x", "a=b=c"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(FieldSelector::parse("").unwrap().is_everything());
    }
}
