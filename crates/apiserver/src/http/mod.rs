//! The HTTP front: what a request asks for, the filters it goes through, and how answers are written.

pub(crate) mod body;
pub(crate) mod context;
pub(crate) mod debug;
pub(crate) mod deprecation;
pub(crate) mod filters;
pub(crate) mod health;
pub(crate) mod inflight;
pub(crate) mod info;
pub(crate) mod negotiate;
pub(crate) mod pieces;
pub(crate) mod query;
pub(crate) mod resource;
pub(crate) mod respond;
pub(crate) mod routes;
pub(crate) mod serve;
pub(crate) mod watch;
pub(crate) mod websocket;
