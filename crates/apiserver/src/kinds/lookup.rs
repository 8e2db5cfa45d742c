//! Which strategy a resource has.

use super::strategy::Strategy;
use pintle_api::resources::Resource;

/// The strategy of custom resources: their schema says the rest.
pub static CUSTOM: Strategy = Strategy { create_on_update: false, unconditional_update: false, ..Strategy::DEFAULT };

static DEFAULT: Strategy = Strategy::DEFAULT;

/// The strategy of a built-in resource. All versions of a resource share one.
pub fn strategy(resource: &Resource) -> &'static Strategy {
    let _ = resource;
    &DEFAULT
}
