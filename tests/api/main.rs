//! The API as clients meet it.

mod bad_input;
