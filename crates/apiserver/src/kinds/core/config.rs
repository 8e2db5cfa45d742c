//! ConfigMaps, Secrets and ServiceAccounts.

use pintle_schema::cursor::Cursor;
use serde_json::Value;

use crate::kinds::Strategy;
use crate::kinds::table::{self, Column, text};

/// The strategy of config maps.
pub static CONFIG_MAP: Strategy = Strategy {
    columns: &[Column::NAME, text("Data", "@ConfigMap.data"), Column::AGE],
    row: |o, now| vec![table::name(o), count(o, &["data", "binaryData"]), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of secrets.
pub static SECRET: Strategy = Strategy {
    selectable: &[("type", &["type"])],
    columns: &[Column::NAME, text("Type", "@Secret.type"), text("Data", "@Secret.data"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("type").str().into(), count(o, &["data"]), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of service accounts.
pub static SERVICE_ACCOUNT: Strategy = Strategy {
    columns: &[Column::NAME, text("Secrets", "@ServiceAccount.secrets"), Column::AGE],
    row: |o, now| vec![table::name(o), count(o, &["secrets"]), table::age(o, now)],
    ..Strategy::DEFAULT
};

fn count(object: &Cursor<'_>, fields: &[&'static str]) -> Value {
    fields.iter().map(|f| object.get(f).len()).sum::<usize>().into()
}
