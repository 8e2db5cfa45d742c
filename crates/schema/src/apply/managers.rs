//! Managed fields: who owns what, read from and written to `metadata.managedFields`.

use super::set::Set;
use crate::quote::quoted;
use crate::time;
use serde_json::{Map, Value, json};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// The entry that gathers the oldest updaters.
const ANCIENT: &str = "ancient-changes";
/// How many updaters an object may have.
pub(super) const MAX_UPDATERS: usize = 10;

/// Who a manager is. An applier is the same in whatever version it applies; an updater is another in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The name.
    pub name: String,
    /// Whether it applies, rather than updates.
    pub applies: bool,
    /// The apiVersion of an updater; empty for an applier.
    pub api_version: String,
    /// The sub-resource it works through, or "".
    pub subresource: String,
}

/// The fields of a manager: as they are written, until somebody looks into them. Most writes concern one manager of
/// several, and the others' fields are passed on unread.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    raw: Option<Value>,
    set: OnceCell<Set>,
}

impl From<Set> for Fields {
    fn from(set: Set) -> Self {
        Fields { raw: None, set: OnceCell::from(set) }
    }
}

impl std::ops::Deref for Fields {
    type Target = Set;
    fn deref(&self) -> &Set {
        self.set.get_or_init(|| self.raw.as_ref().and_then(|raw| Set::from_fields(raw).ok()).unwrap_or_default())
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Fields {
    /// Whether any member of the set is among them.
    pub fn touched_by(&self, set: &Set) -> bool {
        match (&self.raw, self.set.get()) {
            (Some(raw), None) => set.touches_fields(raw),
            _ => !self.intersection(set).is_empty(),
        }
    }

    /// Takes the members of a set out.
    pub fn remove(&mut self, set: &Set) {
        match (&mut self.raw, self.set.get()) {
            (Some(raw), None) => set.remove_from_fields(raw),
            _ => *self = self.difference(set).into(),
        }
    }

    /// Puts the members of a set in.
    pub fn add(&mut self, set: &Set) {
        match (&mut self.raw, self.set.get()) {
            (Some(raw), None) => set.add_to_fields(raw),
            _ => *self = self.union(set).into(),
        }
    }

    fn is_nothing(&self) -> bool {
        match (&self.raw, self.set.get()) {
            (Some(raw), None) => raw.as_object().is_none_or(Map::is_empty),
            _ => self.is_empty(),
        }
    }

    fn to_value(&self) -> Value {
        self.raw.clone().unwrap_or_else(|| self.to_fields())
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub set: Fields,
    pub api_version: String,
    pub time: Option<String>,
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(pub BTreeMap<Manager, Entry>);

impl Manager {
    /// A manager as a write names it; without a name it is unknown.
    pub fn new(name: &str, applies: bool, api_version: &str, subresource: &str) -> Self {
        Manager {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            applies,
            api_version: if applies { "" } else { api_version }.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// As conflicts name it.
    pub fn shown(&self) -> String {
        let mut out = quoted(&self.name);
        if !self.subresource.is_empty() {
            out = format!("{out} with subresource {}", quoted(&self.subresource));
        }
        if !self.applies {
            out = format!("{out} using {}", self.api_version);
        }
        out
    }
}

impl Managers {
    /// Reads `metadata.managedFields`. The fields themselves are looked into only when `check` says so, or when needed.
    pub fn decode(fields: Option<Value>, check: bool) -> Result<Self, String> {
        let mut out = BTreeMap::new();
        let Some(Value::Array(entries)) = fields else { return Ok(Managers(out)) };
        for (i, mut entry) in entries.into_iter().enumerate() {
            let raw = entry.get_mut("fieldsV1").map(Value::take);
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
            let applies = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => return Err(format!("invalid fieldsType {} in managed fields entry {i}", quoted(other))),
            }
            let set = OnceCell::new();
            if check {
                let fields = Set::from_fields(raw.as_ref().unwrap_or(&Value::Null));
                let fields = fields.map_err(|e| format!("error decoding versioned set: error decoding set: {e}"))?;
                set.get_or_init(|| fields);
            }
            let set = Fields { raw: Some(raw.unwrap_or_else(|| Value::Object(Map::new()))), set };
            let manager = Manager {
                name: text("manager").to_owned(),
                applies,
                api_version: if applies { "" } else { text("apiVersion") }.to_owned(),
                subresource: text("subresource").to_owned(),
            };
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            out.insert(manager, Entry { set, api_version: text("apiVersion").to_owned(), time });
        }
        Ok(Managers(out))
    }

    /// The value of `metadata.managedFields`, in upstream's order; nothing where there is no manager.
    pub fn encode(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<_> = self.0.iter().collect();
        let seconds = |e: &Entry| e.time.as_deref().and_then(|t| time::parse(t, false).ok()).map_or(0, |t| t.seconds);
        entries.sort_by(|(m, a), (n, b)| {
            let operation = |m: &Manager| if m.applies { "Apply" } else { "Update" };
            operation(m)
                .cmp(operation(n))
                .then_with(|| seconds(a).cmp(&seconds(b)))
                .then_with(|| m.name.cmp(&n.name))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| m.subresource.cmp(&n.subresource))
        });
        let list = entries.into_iter().map(|(manager, entry)| {
            let mut map = Map::new();
            let mut put = |name: &str, value: &str| {
                if !value.is_empty() {
                    map.insert(name.to_owned(), Value::from(value));
                }
            };
            put("manager", &manager.name);
            put("operation", if manager.applies { "Apply" } else { "Update" });
            put("apiVersion", &entry.api_version);
            put("time", entry.time.as_deref().unwrap_or(""));
            put("fieldsType", "FieldsV1");
            put("subresource", &manager.subresource);
            map.insert("fieldsV1".to_owned(), entry.set.to_value());
            Value::Object(map)
        });
        Some(Value::Array(list.collect()))
    }

    /// Forgets managers that own nothing.
    pub fn drop_empty(&mut self) {
        self.0.retain(|_, entry| !entry.set.is_nothing());
    }

    /// Merges the oldest updaters of each version until there are few enough.
    pub fn cap(&mut self, max: usize) {
        let mut updaters: Vec<Manager> = self.0.keys().filter(|m| !m.applies).cloned().collect();
        if updaters.len() <= max {
            return;
        }
        let age = |m: &Manager| {
            let time = self.0.get(m).and_then(|e| e.time.as_deref());
            time.and_then(|t| time::parse(t, false).ok()).map_or(0, |t| t.seconds)
        };
        updaters.sort_by(|a, b| age(a).cmp(&age(b)).then_with(|| a.cmp(b)));
        let mut count = updaters.len();
        let mut firsts: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if count <= max {
                break;
            }
            let Some(entry) = self.0.get(&manager).cloned() else { continue };
            let Some(first) = firsts.get(&entry.api_version) else {
                firsts.insert(entry.api_version.clone(), manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, false, &entry.api_version, "");
            if !self.0.contains_key(&bucket)
                && let Some(oldest) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), oldest);
            }
            self.0.remove(&manager);
            if let Some(gathered) = self.0.get_mut(&bucket) {
                gathered.set = gathered.set.union(&entry.set).into();
                // The younger one's time.
                gathered.time = entry.time;
            }
            count -= 1;
        }
    }
}

/// Whether an update asks for all owners to be forgotten: `[]`, or `[{}]`.
pub(super) fn is_reset(fields: Option<&Value>) -> bool {
    match fields {
        Some(Value::Array(items)) => match items.as_slice() {
            [] => true,
            [one] => *one == json!({}),
            _ => false,
        },
        _ => false,
    }
}
