//! Labels and annotations as caches keep them: read often, never changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// A map of texts in two pieces of memory, whatever its size: all keys and values one after the other, and where each
/// ends. A `BTreeMap` of four labels takes some 730 bytes, this 180.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    text: Box<str>,
    /// A key, its value, the next key.
    ends: Box<[u32]>,
}

impl Labels {
    fn part(&self, at: usize) -> &str {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let start = if at == 0 { 0 } else { end(at - 1) };
        self.text.get(start..end(at)).unwrap_or_default()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.len()).map(|i| (self.part(2 * i), self.part(2 * i + 1)))
    }

    /// The same as a map that can be changed.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Of several values of one key the last counts. What is longer than 4 GiB together is left out.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let mut all: Vec<(K, V)> = all.into_iter().collect();
        if !all.is_sorted_by(|a, b| a.0.as_ref() < b.0.as_ref()) {
            // The last of equal keys comes first, and is what stays.
            all.reverse();
            all.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
            all.dedup_by(|a, b| a.0.as_ref() == b.0.as_ref());
        }
        let mut text = String::with_capacity(all.iter().map(|(k, v)| k.as_ref().len() + v.as_ref().len()).sum());
        let mut ends = Vec::with_capacity(2 * all.len());
        for (key, value) in &all {
            let (key, value) = (key.as_ref(), value.as_ref());
            let (Ok(of_key), Ok(of_value)) =
                (u32::try_from(text.len() + key.len()), u32::try_from(text.len() + key.len() + value.len()))
            else {
                break;
            };
            text.push_str(key);
            text.push_str(value);
            ends.extend([of_key, of_value]);
        }
        Self { text: text.into(), ends: ends.into() }
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Self {
        map.iter().collect()
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(all: [(K, V); N]) -> Self {
        all.into_iter().collect()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OfMap;
        impl<'de> Visitor<'de> for OfMap {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut all: Vec<(String, String)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(all.into_iter().collect())
            }
        }
        d.deserialize_map(OfMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_a_map() {
        let check = |text: &str| {
            let map: BTreeMap<String, String> = serde_json::from_str(text).unwrap();
            let labels: Labels = serde_json::from_str(text).unwrap();
            assert_eq!(labels.to_map(), map, "{text}");
            assert_eq!((labels.len(), labels.is_empty()), (map.len(), map.is_empty()), "{text}");
            assert_eq!(labels, Labels::from(&map), "{text}");
            for key in ["", "a", "b", "bc", "c", "é"] {
                assert_eq!(labels.get(key), map.get(key).map(String::as_str), "{text} {key}");
                assert_eq!(labels.contains_key(key), map.contains_key(key), "{text} {key}");
            }
        };
        check("{}");
        check(r#"{"a":"1"}"#);
        check(r#"{"b":"","a":"1","bc":"x","":"none"}"#);
        check(r#"{"b":"1","a":"2","b":"3","é":"ü"}"#);
        assert_eq!(serde_json::to_string(&Labels::from([("b", "1"), ("a", "2")])).unwrap(), r#"{"a":"2","b":"1"}"#);
        assert!(serde_json::from_str::<Labels>(r#"{"a":1}"#).is_err());
        assert_eq!(format!("{:?}", Labels::from([("a", "b")])), r#"{"a": "b"}"#);
    }
}
