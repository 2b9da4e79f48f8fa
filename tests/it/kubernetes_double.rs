//! The API server double behaves like a real one: the same tests run against the cluster that `KUBECONFIG` names.

mod faults;
mod patches;
mod watches;
