//! The apiregistration group.

use super::Strategy;
use super::table::{self, Column, text};

/// The strategy of API services.
pub static API_SERVICE: Strategy = Strategy {
    unconditional_update: false,
    columns: &[
        Column::NAME,
        text("Service", "The reference to the service that hosts this API endpoint."),
        text("Available", "Whether this service is available."),
        Column::AGE,
    ],
    row: |o, now| {
        let service = o.get("spec").get("service");
        let reference = if service.is_present() {
            format!("{}/{}", service.get("namespace").str(), service.get("name").str())
        } else {
            "Local".to_owned()
        };
        let available = table::condition(o, "Available").map_or_else(
            || "Unknown".to_owned(),
            |c| match c.get("status").str() {
                "True" => "True".to_owned(),
                status => format!("{status} ({})", c.get("reason").str()),
            },
        );
        vec![table::name(o), reference.into(), available.into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};
