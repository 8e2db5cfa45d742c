//! Names, objects, statuses, selectors, quantities and the resource registry: what every part of Pintle speaks.

pub mod quantity;
