//! The whole path: three members with their pods, and clients that connect to nothing but what a Service selects.

mod crashes;
mod load;
mod partitions;
mod planned;
mod sessions;
mod stand;
