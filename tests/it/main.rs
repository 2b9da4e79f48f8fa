//! Integration tests: one binary, a module per capability. The shared foundation is in `support`.

#[path = "../decide/mod.rs"]
mod decide;
#[path = "../tidy.rs"]
mod tidy;

mod support;

mod adoption;
mod bad_input;
mod bootstrap;
mod by_role;
mod callbacks;
mod candidates;
mod check;
mod config_dir;
mod crash;
mod deploy;
mod dynamic_config;
mod etcd;
mod etcd_trouble;
mod failover;
mod failsafe;
mod foreign_data;
mod frozen;
mod grpc;
mod guard;
mod handover;
mod haproxy;
mod heartbeats;
mod hung_postgres;
mod ivory;
mod kubernetes_double;
mod kubernetes_paths;
mod links;
mod listen;
mod liveness;
mod log_output;
mod lowered;
mod monitoring;
mod names;
mod new_cluster;
mod patroni_members;
mod patronictl;
mod pause;
mod pid1;
mod pods;
mod postgres;
mod recovery;
mod recruit;
mod rejoin;
mod rest_tls;
mod restart;
mod restored_etcd;
mod scripts;
mod shipping;
mod slots;
mod standalone;
mod standby_cluster;
mod streaming;
mod switchover;
mod sync;
mod sync_interfaces;
mod tags;
mod watchdog;
mod why;
