//! Names, objects, statuses, selectors, quantities and the resource registry: what every part of Pintle speaks.
//!
//! No sockets, files, threads or clock here.

pub mod addresses;
pub mod cron;
pub mod duration;
pub mod features;
pub mod labels;
pub mod metrics;
pub mod names;
pub mod object;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod scan;
pub mod selector;
pub mod service;
pub mod status;
pub mod time;

pub use k8s_openapi;
pub use labels::Labels;
pub use object::Object;
pub use status::Status;
