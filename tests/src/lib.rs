//! Nothing: the tests stand beside this package, one folder a promise.
