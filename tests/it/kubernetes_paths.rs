//! The whole path: three members with their pods, and clients that connect only through a Service.

mod crashes;
mod load;
mod partitions;
mod planned;
mod pod_cluster;
mod sessions;
