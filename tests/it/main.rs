//! Integration tests against real processes, a module per capability.

mod etcd;
