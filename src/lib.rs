//! Matriarch: a high-availability supervisor for PostgreSQL.

pub mod model;

pub mod decide;

pub mod config;

pub mod etcd;
pub mod os;
pub mod peer;
pub mod postgres;

pub mod agent;

pub mod api;
pub mod cli;
