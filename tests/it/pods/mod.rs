//! The pods' labels, against an API server: the own pod, other pods, and late patches.

mod fixture;
mod late;
mod members;
mod others;
mod own;
mod service;
mod trouble;
