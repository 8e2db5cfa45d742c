//! Component statuses.

use crate::kinds::Strategy;
use crate::kinds::table::{self, Column, text};

/// The strategy of component statuses, which are only read.
pub static COMPONENT_STATUS: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("Status", "Status of the component conditions"),
        text("Message", "Message of the component conditions"),
        text("Error", "Error of the component conditions"),
    ],
    row: |o, _| {
        let healthy = o.get("conditions").items().find(|c| c.get("type").str() == "Healthy");
        let (status, message, error) = healthy.map_or(("Unknown", "", ""), |c| {
            let status = if c.get("status").str() == "True" { "Healthy" } else { "Unhealthy" };
            (status, c.get("message").str(), c.get("error").str())
        });
        vec![table::name(o), status.into(), message.into(), error.into()]
    },
    ..Strategy::DEFAULT
};
