//! The pod scheduler.
