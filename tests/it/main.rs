//! Integration tests: one binary, a module per capability.

#[path = "../tidy.rs"]
mod tidy;

mod support;
