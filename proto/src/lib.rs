//! The gRPC interface of a member, generated from `matriarch/v1`.
//!
//! Fields and methods are only added. `landed.txt` lists all that were ever there; a test compares.

/// Package `matriarch.v1`: operators and programs watch a cluster and change it, and members hear each other.
#[expect(clippy::allow_attributes, reason = "it is generated")]
pub mod v1 {
    tonic::include_proto!("matriarch.v1");
}

pub use prost::Message;
pub use prost_types::Timestamp;

/// The descriptors of all messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("matriarch");

#[cfg(test)]
mod tests;
