//! Integration tests: one binary, a module per capability.

#[path = "../decide/mod.rs"]
mod decide;
#[path = "../tidy.rs"]
mod tidy;

mod support;

mod etcd;
