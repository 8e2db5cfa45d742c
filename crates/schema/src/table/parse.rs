//! Reads the table's text. The text is part of the program: what it may not contain is checked by tests.

use super::{Base, Field, Form, ListKind, Member, Table, Type, TypeId, Written};
use std::collections::HashMap;
use std::sync::OnceLock;

/// A type's lines, before names are resolved.
struct Raw {
    word: &'static str,
    package: &'static str,
    api_version: &'static str,
    name: &'static str,
    atomic: bool,
    lines: Vec<&'static str>,
}

struct Names {
    ids: HashMap<(&'static str, &'static str), u16>,
    wraps: Vec<(&'static str, &'static str)>,
}

pub(super) fn table(text: &'static str) -> Table {
    let mut raws: Vec<Raw> = Vec::with_capacity(781);
    let (mut package, mut api_version) = ("", "");
    let mut lines = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        if let Some(field) = line.strip_prefix(' ') {
            if let Some(raw) = raws.last_mut() {
                raw.lines.push(field);
                lines += 1;
            }
            continue;
        }
        let mut words = line.split(' ');
        let (word, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if word == "package" {
            (package, api_version) = (name, words.next().unwrap_or(""));
        } else {
            raws.push(Raw { word, package, api_version, name, atomic: words.next() == Some("A"), lines: vec![] });
        }
    }
    let (raws, wraps): (Vec<_>, Vec<_>) = raws.into_iter().partition(|r| r.word != "wrap");
    let names = Names {
        ids: raws.iter().enumerate().map(|(i, r)| ((r.package, r.name), i as u16)).collect(),
        wraps: wraps.iter().map(|r| (r.package, r.name)).collect(),
    };
    let kinds = raws.iter().enumerate().filter(|(_, r)| r.word == "kind");
    let kinds = kinds.map(|(i, r)| ((r.api_version, r.name), i as u16)).collect();
    let types = (0..raws.len()).map(|i| build(i, &raws, &names)).collect();
    let _ = lines;
    Table {
        types,
        by_name: names.ids,
        kinds,
        #[cfg(test)]
        lines,
    }
}

fn build(i: usize, raws: &[Raw], names: &Names) -> Type {
    let raw = &raws[i];
    let mut fields = Vec::with_capacity(raw.lines.len() + 2);
    if raw.word == "kind" {
        fields.push(type_meta("kind"));
        fields.push(type_meta("apiVersion"));
    }
    let mut members: Vec<(u32, Member)> = vec![];
    append(raw, raws, names, &mut fields, Some(&mut members));
    members.sort_by_key(|m| m.0);
    let mut by_name: Vec<u8> = (0..fields.len() as u8).collect();
    by_name.sort_by_key(|&i| fields[usize::from(i)].name);
    Type {
        id: TypeId(i as u16),
        name: raw.name,
        package: raw.package,
        api_version: raw.api_version,
        is_kind: raw.word == "kind",
        atomic: raw.atomic,
        names: fields.iter().map(|f| f.name).collect(),
        always: (0..fields.len() as u8).filter(|&i| fields[usize::from(i)].always_written()).collect(),
        fields: fields.into(),
        message: members.into_iter().map(|m| m.1).collect(),
        by_name: by_name.into(),
        zero: OnceLock::new(),
    }
}

/// Adds the fields of a type, those of inline types in place; `members` only at the outermost level.
fn append(
    raw: &Raw,
    raws: &[Raw],
    names: &Names,
    fields: &mut Vec<Field>,
    mut members: Option<&mut Vec<(u32, Member)>>,
) {
    for line in &raw.lines {
        let start = fields.len() as u8;
        if line.starts_with("+ ") {
            let mut words = line.split(' ').skip(1);
            let number = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if let Some(id) = resolve(words.next().unwrap_or(""), raw.package, names) {
                append(&raws[usize::from(id.0)], raws, names, fields, None);
                if let Some(members) = members.as_deref_mut() {
                    members.push((number, Member::Inline { number, ty: id, start }));
                }
            }
        } else {
            let field = field(line, raw.package, names);
            if let Some(members) = members.as_deref_mut() {
                members.push((field.number, Member::Field(start)));
            }
            fields.push(field);
        }
    }
}

fn resolve(text: &'static str, package: &'static str, names: &Names) -> Option<TypeId> {
    names.ids.get(&text.rsplit_once('.').unwrap_or((package, text))).copied().map(TypeId)
}

fn field(line: &'static str, package: &'static str, names: &Names) -> Field {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or("");
    let (name, number, ty, written) = (word(), word(), word(), word());
    let (form, item) = match ty {
        _ if ty.starts_with('*') => (Form::Pointer, &ty[1..]),
        _ if ty.starts_with("[]") => (Form::List, &ty[2..]),
        _ if ty.starts_with("{}") => (Form::Map, &ty[2..]),
        _ => (Form::Plain, ty),
    };
    let mut f = Field {
        name,
        number: number.parse().unwrap_or(0),
        form,
        base: base(item, package, names),
        written: match written {
            "a" => Written::Always,
            "z" => Written::NotZero,
            _ => Written::NotEmpty,
        },
        list: ListKind::Atomic,
        atomic: false,
        merge: false,
        retain_keys: false,
        merge_key: None,
        default: None,
        union: false,
        go: None,
    };
    for flag in words {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("A", _) => f.atomic = true,
            ("U", _) => f.union = true,
            ("L", "s") => f.list = ListKind::Set,
            ("L", kind) => {
                if let Some(keys) = kind.strip_prefix("m:") {
                    f.list = ListKind::Map(keys.split(',').collect());
                }
            }
            ("P", strategies) => {
                f.merge = strategies.split(',').any(|s| s == "merge");
                f.retain_keys = strategies.split(',').any(|s| s == "retainKeys");
            }
            ("K", key) => f.merge_key = Some(key),
            ("D", json) => f.default = serde_json::from_str(json).ok(),
            ("N", go) => f.go = Some(go),
            _ => {}
        }
    }
    f
}

fn base(text: &'static str, package: &'static str, names: &Names) -> Base {
    match text {
        "s" => Base::Str,
        "b" => Base::Bool,
        "i" => Base::Int32,
        "l" => Base::Int64,
        "d" => Base::Double,
        "y" | "yy" => Base::Bytes,
        "Time" => Base::Time,
        "MTime" => Base::MicroTime,
        "Qty" => Base::Quantity,
        "IoS" => Base::IntOrString,
        "Raw" => Base::Raw,
        "Fields" => Base::Fields,
        "Json" => Base::Json,
        "POArr" => Base::SchemaOrArray,
        "POBool" => Base::SchemaOrBool,
        "POStr" => Base::SchemaOrStrings,
        _ => {
            let key = text.rsplit_once('.').unwrap_or((package, text));
            match names.ids.get(&key) {
                Some(&id) => Base::Struct(TypeId(id)),
                None => {
                    debug_assert!(names.wraps.contains(&key), "the table names an unknown type {text}");
                    Base::StringList
                }
            }
        }
    }
}

fn type_meta(name: &'static str) -> Field {
    Field {
        name,
        number: 0,
        form: Form::Plain,
        base: Base::Str,
        written: Written::NotEmpty,
        list: ListKind::Atomic,
        atomic: false,
        merge: false,
        retain_keys: false,
        merge_key: None,
        default: None,
        union: false,
        go: None,
    }
}
