//! Decisions: the whole situation table as a snapshot that an operator can read, and scenarios.

mod adoption;
mod attach;
mod callbacks;
mod follow;
mod full_etcd;
mod history_read;
mod lease_gone;
mod liveness;
mod new_cluster;
mod peers;
mod pod_end;
mod pods;
mod receiving;
mod rejoin;
mod removed_wal;
mod requests;
mod routing;
mod scenarios;
mod simulated;
mod slots;
mod store;
mod sync;
mod table;
mod unfenced;
mod watchdog;
mod world;
