//! The pods' labels, against an API server: the own pod, others' pods, and what comes too late.

mod late;
mod members;
mod others;
mod own;
mod service;
mod stand;
mod trouble;
