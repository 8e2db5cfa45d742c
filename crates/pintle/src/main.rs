//! The `pintle` binary: arguments, configuration, wiring.
fn main() {}
