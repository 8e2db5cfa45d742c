//! The controllers of the controller manager.
