//! The table of every built-in kind and all that is derived from it.
