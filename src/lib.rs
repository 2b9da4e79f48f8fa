//! Matriarch: a high-availability supervisor for PostgreSQL.

pub mod agent;
pub mod model;
